//! Fuzzing, and the corpora that it leaves in the repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{process, tools, workspace};

/// A fuzz target: a program of a crate.
#[derive(Debug, PartialEq)]
struct Target {
    /// The crate's folder.
    folder: &'static str,
    name: &'static str,
    /// How long an input may be, in bytes.
    max_len: u32,
}

const TARGETS: &[Target] = &[
    Target::new("proto/fuzz", "resource_name", 512),
    Target::new("proto/fuzz", "tree", 1024),
    Target::new("proto/fuzz", "compression", 1024),
    Target::new("coordinator/fuzz", "configuration", 1024),
    Target::new("coordinator/fuzz", "path", 256),
];

/// What cargo-fuzz builds for.
const TRIPLE: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};
/// A directory that is no disk's.
const MEMORY_DIRECTORY: &str = "/dev/shm";
/// How many inputs of a target the repository keeps.
const MOST_INPUTS: usize = 200;
/// How long an input may take, in seconds: much longer than any takes, however busy the machine is.
const TIMEOUT_SECONDS: u32 = 20;
/// How much memory a target may use, in MiB: no input of a few hundred bytes is worth more.
const MEMORY_MIB: u32 = 1024;

/// What to fuzz.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The target; all of them, one after the other, if none is named.
    target: Option<String>,
    /// For how long, in seconds, each.
    #[arg(long, default_value_t = 600)]
    seconds: u32,
}

/// Fuzzes one target after the other; ends at the first input that makes one fail.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = chosen(arguments.target.as_deref())?;
    for target in &targets {
        target.build()?;
    }
    for target in targets {
        eprintln!("fuzzing {} for {} s", target.name, arguments.seconds);
        target.fuzz(arguments.seconds)?;
        target.keep()?;
    }
    Ok(())
}

fn chosen(name: Option<&str>) -> Result<Vec<&'static Target>> {
    let chosen: Vec<_> = TARGETS
        .iter()
        .filter(|target| name.is_none_or(|name| name == target.name))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        bail!("there is no such target; there are {}", names.join(", "));
    }
    Ok(chosen)
}

impl Target {
    const fn new(folder: &'static str, name: &'static str, max_len: u32) -> Self {
        Self {
            folder,
            name,
            max_len,
        }
    }

    /// Builds it. No sanitizer: the workspace has no unsafe code that one could watch, and address
    /// sanitizer needs an unstable compiler and halves the speed.
    fn build(&self) -> Result<()> {
        let mut build = Command::new(tools::FUZZ.get()?);
        build.current_dir(workspace::root());
        build.args(["build", "--sanitizer", "none", "--fuzz-dir", self.folder]);
        build.args(["--target", TRIPLE, "--target-dir"]);
        process::run(build.arg(home()).arg(self.name))
    }

    /// What the repository keeps.
    fn corpus(&self) -> PathBuf {
        let corpus = workspace::root().join(self.folder).join("corpus");
        corpus.join(self.name)
    }

    /// What this checkout found so far; the next run goes on from there.
    fn found(&self) -> PathBuf {
        home().join("found").join(self.name)
    }

    /// Where inputs go that make it fail.
    fn reproducers(&self) -> PathBuf {
        home().join("reproducers").join(self.name)
    }

    fn fuzz(&self, seconds: u32) -> Result<()> {
        let reproducers = self.reproducers();
        for directory in [&reproducers, &self.found(), &self.corpus()] {
            fs::create_dir_all(directory)
                .with_context(|| format!("making {}", directory.display()))?;
        }
        let before = files(&reproducers)?;
        let mut fuzz = self.program();
        fuzz.arg(format!("-max_total_time={seconds}"));
        fuzz.arg("-print_final_stats=1");
        let fuzzed = process::run(fuzz.arg(self.found()).arg(self.corpus()));
        let after = files(&reproducers)?;
        match after.iter().find(|file| !before.contains(file)) {
            None => fuzzed,
            Some(reproducer) => bail!(
                "{} fails for {}: see why with `cargo run -p {} --bin {} -- FILE`",
                self.name,
                reproducer.display(),
                self.package(),
                self.name
            ),
        }
    }

    /// Keeps the least that reaches all that was reached.
    fn keep(&self) -> Result<()> {
        let minimal = tempfile::tempdir_in(home())?;
        let mut merge = self.program();
        // How often an edge is taken is left out: it would keep many inputs that differ in length alone.
        merge.args(["-merge=1", "-use_counters=0"]);
        merge.arg(minimal.path()).arg(self.corpus());
        process::run(merge.arg(self.found()))?;
        let kept = replace(&self.corpus(), minimal.path())?;
        eprintln!("{}: {kept} inputs are kept", self.name);
        Ok(())
    }

    fn program(&self) -> Command {
        let mut program = Command::new(home().join(TRIPLE).join("release").join(self.name));
        program.arg(format!("-max_len={}", self.max_len));
        program.arg(format!("-timeout={TIMEOUT_SECONDS}"));
        program.arg(format!("-rss_limit_mb={MEMORY_MIB}"));
        program.arg(format!(
            "-artifact_prefix={}/",
            self.reproducers().display()
        ));
        // What targets write is small, and gone before any disk would need it.
        if Path::new(MEMORY_DIRECTORY).is_dir() {
            program.env("TMPDIR", MEMORY_DIRECTORY);
        }
        program
    }

    fn package(&self) -> String {
        format!("regatta-{}", self.folder.replace('/', "-"))
    }
}

/// Where fuzzing builds and puts what is not for the repository.
fn home() -> PathBuf {
    workspace::target().join("fuzz")
}

/// The files of a directory, the smallest first.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Puts the smallest files of `minimal` in the place of all in `corpus`; returns how many there are now.
fn replace(corpus: &Path, minimal: &Path) -> Result<usize> {
    let mut kept = files(minimal)?;
    kept.truncate(MOST_INPUTS);
    for old in files(corpus)? {
        fs::remove_file(old)?;
    }
    for file in &kept {
        let name = file.file_name().context("a file without a name")?;
        fs::copy(file, corpus.join(name))?;
    }
    Ok(kept.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The crates of targets. A test sees no other package's files when it runs, but may when it is built.
    const CRATES: [(&str, &str); 2] = [
        ("proto/fuzz", include_str!("../../proto/fuzz/Cargo.toml")),
        (
            "coordinator/fuzz",
            include_str!("../../coordinator/fuzz/Cargo.toml"),
        ),
    ];

    #[test]
    fn every_target_is_a_program_of_its_crate() {
        for target in TARGETS {
            let of_target = |(folder, _): &&(&str, &str)| *folder == target.folder;
            let (_, manifest) = CRATES.iter().find(of_target).unwrap();
            assert!(manifest.contains(&format!("name = \"{}\"", target.name)));
            assert!(manifest.contains(&format!("name = \"{}\"", target.package())));
        }
        assert_eq!(chosen(Some("tree")).unwrap(), [&TARGETS[1]]);
        assert_eq!(chosen(None).unwrap().len(), TARGETS.len());
        let error = chosen(Some("no such")).unwrap_err().to_string();
        assert!(error.contains("resource_name"), "{error}");
    }

    #[test]
    fn the_smallest_inputs_replace_the_old_ones() {
        let directory = tempfile::tempdir().unwrap();
        let (corpus, minimal) = (directory.path().join("a"), directory.path().join("b"));
        for made in [&corpus, &minimal] {
            fs::create_dir(made).unwrap();
        }
        fs::write(corpus.join("old"), "old").unwrap();
        for size in 0..=MOST_INPUTS {
            fs::write(minimal.join(format!("{size}")), vec![0; size]).unwrap();
        }
        assert_eq!(replace(&corpus, &minimal).unwrap(), MOST_INPUTS);
        let kept = files(&corpus).unwrap();
        assert_eq!(kept.len(), MOST_INPUTS);
        assert!(!corpus.join("old").exists());
        assert!(
            !corpus.join(MOST_INPUTS.to_string()).exists(),
            "the largest"
        );
    }
}
