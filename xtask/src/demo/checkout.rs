//! A scratch copy of the workspace that may be changed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::{process, workspace};

/// The copy; removed when dropped. It is always in the same place, so that cargo can go on using
/// what it built for the last one.
pub(crate) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// Copies the files that git would, with their times, to `root`.
    pub(crate) fn copy(root: &Path) -> Result<Self> {
        if root.exists() {
            std::fs::remove_dir_all(root)
                .with_context(|| format!("removing {}", root.display()))?;
        }
        let checkout = Self {
            root: root.to_owned(),
        };
        for file in workspace::files()? {
            let (from, to) = (workspace::root().join(&file), root.join(&file));
            std::fs::create_dir_all(to.parent().unwrap_or(root))?;
            std::fs::copy(&from, &to).with_context(|| format!("copying {}", file.display()))?;
            let modified = from.metadata()?.modified()?;
            std::fs::File::options()
                .write(true)
                .open(&to)?
                .set_modified(modified)?;
        }
        if !checkout.target().exists() {
            let (from, to) = (workspace::target(), checkout.target());
            take_libraries(&from.join("debug"), &to.join("debug"))?;
        }
        checkout.git(&["init", "--quiet"])?;
        checkout.commit("The workspace as it is")?;
        Ok(checkout)
    }

    /// Commits all that is there, so that verdicts are about a commit.
    fn commit(&self, message: &str) -> Result<()> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--no-verify", "--message", message])
    }

    fn git(&self, arguments: &[&str]) -> Result<()> {
        let mut git = Command::new("git");
        for setting in [
            "user.name=demo",
            "user.email=demo@example.org",
            "commit.gpgSign=false",
        ] {
            git.args(["-c", setting]);
        }
        let git = git.current_dir(&self.root).args(arguments);
        let status = git.status().context("starting git")?;
        ensure!(status.success(), "{git:?}: {status}");
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo builds the copy: not where it builds the original, since cargo takes equal packages
    /// of different places for the same.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.with_file_name("target")
    }

    /// The command, run in the copy.
    pub(crate) fn command(&self, mut command: Command) -> Command {
        workspace::forget_package(&mut command);
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", self.target());
        command
    }

    /// Adds a function and its test to a source file, in a commit.
    pub(crate) fn change(&self, file: &str) -> Result<()> {
        let path = self.root.join(file);
        let text = super::read(&path)?;
        let addition = "\n/// Added by the demo.\npub fn added_by_the_demo() -> u32 {\n    41 + 1\n}\n\n\
             #[cfg(test)]\n#[test]\nfn the_demo_added_this() {\n    assert_eq!(added_by_the_demo(), 42);\n}\n";
        std::fs::write(&path, text + addition).with_context(|| format!("changing {file}"))?;
        self.commit("Add a function and its test")
    }

    /// A package of the workspace and all that depend on it, by name.
    pub(crate) fn dependents(&self, leaf: &str) -> Result<BTreeSet<String>> {
        let metadata = MetadataCommand::new()
            .no_deps()
            .current_dir(&self.root)
            .exec()?;
        let mut found = BTreeSet::from([leaf.to_owned()]);
        loop {
            let more: Vec<_> = metadata
                .packages
                .iter()
                .filter(|package| !found.contains(package.name.as_str()))
                .filter(|package| {
                    package
                        .dependencies
                        .iter()
                        .any(|it| it.kind != DependencyKind::Unknown && found.contains(&it.name))
                })
                .map(|package| package.name.to_string())
                .collect();
            if more.is_empty() {
                return Ok(found);
            }
            found.extend(more);
        }
    }
}

/// Copies what cargo has built of other people's packages, if it has: there it need not be built again. What it finds
/// unfit it builds; what is the workspace's own stays where it is.
fn take_libraries(from: &Path, to: &Path) -> Result<()> {
    let libraries: Vec<PathBuf> = match std::fs::read_dir(from.join("deps")) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => return Ok(()),
    };
    std::fs::create_dir_all(to.join("deps"))?;
    // With their times, which cargo looks at.
    let copy = |from: &[PathBuf], to: &Path| {
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--target-directory"]).arg(to);
        process::run(copy.args(from))
    };
    copy(
        &[".fingerprint", "build"].map(|folder| from.join(folder)),
        to,
    )?;
    let is_library = |path: &&PathBuf| {
        let kind = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        ["rlib", "rmeta", "so", "d"].contains(&kind) && !name.contains("regatta")
    };
    let libraries: Vec<_> = libraries.iter().filter(is_library).cloned().collect();
    let mut portions = libraries.chunks(1000);
    portions.try_for_each(|portion| copy(portion, &to.join("deps")))
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.root) {
            eprintln!("removing {}: {error}", self.root.display());
        }
    }
}
