//! An image to run jobs in, made here where none can be pulled.
//!
//! The image is found again by its recipe (a label) and named by its content (a tag), so that it is
//! made once and two machines that make the same bytes call it the same.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{docker, process, tools};

/// How to make the image.
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// What to make it from; by default Debian's packages, or else this machine's files.
    #[arg(long, value_enum, default_value_t)]
    from: Source,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Source {
    /// Debian's packages if they can be had, else this machine's files.
    #[default]
    Auto,
    /// Debian's packages, by mmdebstrap.
    Debian,
    /// A shell and its friends, copied from this machine.
    Host,
}

const SUITE: &str = "bookworm";
/// A fixed time for every file, so that equal contents make equal bytes.
const EPOCH: &str = "1700000000";
const HOST_PROGRAMS: &[&str] = &[
    "bash", "cat", "chmod", "cp", "cut", "dd", "echo", "env", "false", "find", "grep", "head",
    "id", "kill", "ln", "ls", "mkdir", "mktemp", "mv", "printf", "pwd", "readlink", "rm", "sed",
    "seq", "sh", "sleep", "sort", "tail", "tar", "touch", "tr", "true", "uname", "wc",
];

/// Makes the image unless it is there, and returns its reference.
pub(crate) fn ensure(arguments: &Arguments) -> Result<String> {
    if let Some(trouble) = docker::trouble() {
        bail!("{}\n({trouble})", docker::NO_DAEMON);
    }
    match arguments.from {
        Source::Debian => from_debian(),
        Source::Host => from_host(),
        Source::Auto => from_debian().or_else(|error| {
            eprintln!("no image from Debian's packages ({error:#}); taking this machine's files");
            from_host()
        }),
    }
}

fn from_debian() -> Result<String> {
    let essentials = DebianImage {
        name: "regatta-debian",
        suite: SUITE,
        packages: &[],
        options: &["--dpkgopt=path-exclude=/usr/share/doc/*"],
    };
    essentials.ensure()
}

/// An image of Debian's essential packages and some more.
#[derive(Debug)]
pub(crate) struct DebianImage<'a> {
    /// The image's repository.
    pub(crate) name: &'a str,
    /// Debian's suite, such as `bookworm`.
    pub(crate) suite: &'a str,
    /// What it has besides the essential packages.
    pub(crate) packages: &'a [&'a str],
    /// Further options of mmdebstrap.
    pub(crate) options: &'a [&'a str],
}

impl DebianImage<'_> {
    /// Makes the image unless it is there, and returns its reference.
    pub(crate) fn ensure(&self) -> Result<String> {
        let recipe = self.recipe();
        if let Some(reference) = find(&recipe)? {
            return Ok(reference);
        }
        tools::debian("mmdebstrap", "mmdebstrap")?;
        let (name, suite) = (self.name, self.suite);
        eprintln!("making the image {name} of Debian {suite} (once, a minute or two)");
        let folder = tempfile::tempdir()?;
        let archive = folder.path().join("root.tar");
        let mut build = Command::new("mmdebstrap");
        build.env("SOURCE_DATE_EPOCH", EPOCH);
        build
            .args(["--quiet", "--variant=essential"])
            .args(self.options);
        if !self.packages.is_empty() {
            build.arg(format!("--include={}", self.packages.join(",")));
        }
        process::output(build.arg(suite).arg(&archive))?;
        import(&archive, name, &recipe)
    }

    /// All that the image depends on.
    fn recipe(&self) -> String {
        let (suite, packages) = (self.suite, self.packages.join(","));
        let options = self.options.join(" ");
        format!("mmdebstrap essential {suite} {EPOCH} {packages} {options}")
    }
}

fn from_host() -> Result<String> {
    let recipe = format!("host {} {EPOCH}", HOST_PROGRAMS.join(" "));
    if let Some(reference) = find(&recipe)? {
        return Ok(reference);
    }
    eprintln!("making an image of this machine's shell and tools");
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("root");
    for place in ["tmp", "proc", "sys", "dev", "etc", "root", "run", "var/tmp"] {
        std::fs::create_dir_all(root.join(place))?;
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    std::fs::write(root.join("etc/group"), "root:x:0:\n")?;
    for program in HOST_PROGRAMS {
        copy_program(program, &root)?;
    }
    let archive = folder.path().join("root.tar");
    let mut pack = Command::new("tar");
    pack.args([
        "--create",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ]);
    pack.arg(format!("--mtime=@{EPOCH}"))
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(&root);
    process::output(pack.arg("."))?;
    import(&archive, "regatta-host", &recipe)
}

/// Copies a program to `/bin` and the libraries it loads to where it looks for them.
fn copy_program(program: &str, root: &Path) -> Result<()> {
    let Some(found) = locate(program) else {
        return Ok(());
    };
    copy(&found, &root.join("bin").join(program))?;
    let libraries = process::output(Command::new("ldd").arg(&found)).unwrap_or_default();
    let paths = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for library in paths.map(Path::new) {
        copy(library, &root.join(library.strip_prefix("/")?))?;
    }
    Ok(())
}

fn locate(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

const RECIPE_LABEL: &str = "dev.regatta.recipe";

fn find(recipe: &str) -> Result<Option<String>> {
    let recipe = hex(&Sha256::digest(recipe));
    let mut list = Command::new("docker");
    list.args([
        "image",
        "ls",
        "--format",
        "{{.Repository}}:{{.Tag}}",
        "--filter",
    ]);
    let found = process::output(list.arg(format!("label={RECIPE_LABEL}={recipe}")))?;
    Ok(found
        .lines()
        .find(|line| !line.contains("<none>"))
        .map(str::to_owned))
}

fn import(archive: &Path, name: &str, recipe: &str) -> Result<String> {
    let content = digest_of(archive)?;
    let reference = format!("{name}:{}", &content[..16]);
    let label = format!("LABEL {RECIPE_LABEL}={}", hex(&Sha256::digest(recipe)));
    let mut import = Command::new("docker");
    import
        .args(["import", "--change", &label])
        .arg(archive)
        .arg(&reference);
    process::output(&mut import)?;
    Ok(reference)
}

/// The SHA-256 of a file.
pub(crate) fn digest_of(file: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(file)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
