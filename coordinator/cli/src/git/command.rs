//! Git, started so that it looks at what is there.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Variables that lead git to another repository than the directory's, as a hook's environment may, or have it
/// read paths differently (`git rev-parse --local-env-vars` lists most of them).
const MISLEADING: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ATTR_SOURCE",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GLOB_PATHSPECS",
    "GIT_GRAFT_FILE",
    "GIT_ICASE_PATHSPECS",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_LITERAL_PATHSPECS",
    "GIT_NAMESPACE",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];
/// What would spare git from looking, or have a checkout hold other bytes than the commit and its own attributes
/// say.
const SETTINGS: &[&str] = &[
    "core.attributesFile=/dev/null",
    "core.autocrlf=false",
    "core.checkStat=default",
    "core.eol=lf",
    "core.fileMode=true",
    "core.fsmonitor=false",
    "core.ignoreStat=false",
    "core.symlinks=true",
    "core.trustctime=true",
    "core.untrackedCache=false",
];

/// How much git may complain: of a checkout that is somebody else's it says in so many lines what to do.
const MOST_LINES_OF_COMPLAINTS: usize = 3;

/// Git in the repository that `directory` is in, whatever the environment says. It believes no shortcuts, takes each
/// object for itself (`git replace`), and writes nothing.
pub(super) fn git(directory: &Path) -> Command {
    let mut git = git_as_configured(directory);
    for setting in SETTINGS {
        git.args(["-c", setting]);
    }
    git
}

/// The same, which believes the shortcuts that are configured here.
pub(super) fn git_as_configured(directory: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(directory).stdin(Stdio::null());
    for name in MISLEADING {
        git.env_remove(name);
    }
    git.args(["--no-optional-locks", "--no-replace-objects"]);
    git
}

/// What git prints.
///
/// # Errors
/// It cannot be started, or fails; then the error is what it says.
pub(super) fn output(git: &mut Command) -> Result<Vec<u8>, String> {
    let output = git.output().map_err(|error| format!("git: {error}"))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(failure(&output)),
    }
}

/// What git prints once it is told these paths, each ended by a zero; `is_good` says which exit codes are no failure.
///
/// # Errors
/// It cannot be started, or fails; then the error is what it says.
pub(super) fn output_about<'a>(
    git: &mut Command,
    paths: impl Iterator<Item = &'a str>,
    is_good: fn(i32) -> bool,
) -> Result<Vec<u8>, String> {
    let git = git.stdin(Stdio::piped()).stdout(Stdio::piped());
    let failed = |error| format!("git: {error}");
    let mut git = git.stderr(Stdio::piped()).spawn().map_err(failed)?;
    let stdin = git.stdin.take();
    let mut told = paths.collect::<Vec<_>>().join("\0");
    told.push('\0');
    let output = std::thread::scope(|scope| {
        // It may answer before it has heard all. If it does not listen, its status says so.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(told.as_bytes())));
        git.wait_with_output()
    });
    let output = output.map_err(failed)?;
    match output.status.code().is_some_and(is_good) {
        true => Ok(output.stdout),
        false => Err(failure(&output)),
    }
}

/// What git complains of in its first lines, the second of which may say what to do.
fn failure(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let said: Vec<&str> = said.take(MOST_LINES_OF_COMPLAINTS).collect();
    format!("git: {} ({})", said.join(" "), output.status)
}
