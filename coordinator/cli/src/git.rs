//! Which commit a tree was taken from.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use crate::files::{REPORTS_OF_CI, place_in};

/// Which commit a tree was taken from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Commit {
    /// Its name; empty without a repository or before the first commit.
    pub id: String,
    /// The branch; empty if none is checked out.
    pub branch: String,
    /// Whether the tree differs from it.
    pub dirty: bool,
    /// When it was made, as it says itself, in seconds since 1970; `None` if it is none.
    pub committed_at: Option<i64>,
}

/// The commit that `directory` is at; an empty one if git does not say. A file that Regatta itself writes,
/// such as its report, makes no difference, nor do the reports that it leaves in CI, as long as git does not know them.
/// Blocks.
#[must_use]
pub fn commit_of(directory: &Path, own_file: Option<&Path>) -> Commit {
    let mut git = Command::new("git");
    git.current_dir(directory).args([
        "status",
        "--porcelain=v2",
        "--branch",
        "--untracked-files=normal",
    ]);
    if let Some(place) = own_file.and_then(|file| place_in(directory, file)) {
        let mut without = std::ffi::OsString::from(":(exclude,literal)");
        without.push(place);
        git.args(["--", ":(top)"]).arg(without);
    }
    match git.output() {
        Ok(output) if output.status.success() => {
            let mut commit = parse(&String::from_utf8_lossy(&output.stdout));
            commit.committed_at = time_of(directory, &commit.id);
            commit
        }
        Ok(_) | Err(_) => Commit::default(),
    }
}

fn time_of(directory: &Path, id: &str) -> Option<i64> {
    if !is_id(id) {
        return None;
    }
    let mut git = Command::new("git");
    let git = git.args(["show", "--no-patch", "--format=%ct", id]);
    let output = git.current_dir(directory).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().parse().ok()
}

impl Commit {
    /// When it was made, as messages have it.
    #[must_use]
    pub fn committed_at_to_wire(&self) -> Option<prost_types::Timestamp> {
        let seconds = self.committed_at?;
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }
}

/// Whether git knows all these files, whose paths are relative to `directory`: what it ignores is in no
/// commit. Blocks.
#[must_use]
pub fn knows_all<'a>(directory: &Path, mut files: impl Iterator<Item = &'a str>) -> bool {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--recurse-submodules"])
        .current_dir(directory)
        .output();
    let Ok(output) = output else { return false };
    let known = output.stdout.split(|byte| *byte == 0);
    let known: HashSet<&[u8]> = known.collect();
    output.status.success() && files.all(|file| known.contains(file.as_bytes()))
}

/// The whole id of the commit that git calls so in `directory`; `None` if there is none. Blocks.
#[must_use]
pub fn resolve(directory: &Path, name: &str) -> Option<String> {
    let output = Command::new("git")
        .args(["rev-parse", "--verify", "--quiet", "--end-of-options"])
        .arg(format!("{name}^{{commit}}"))
        .current_dir(directory)
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    let id = String::from_utf8(output.stdout).ok()?;
    Some(id.trim().to_owned()).filter(|id| is_id(id))
}

/// Whether this is the whole id of a commit: of SHA-1 or of SHA-256.
#[must_use]
pub fn is_id(text: &str) -> bool {
    [40, 64].contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn parse(status: &str) -> Commit {
    let mut commit = Commit::default();
    for line in status.lines() {
        if let Some(id) = line.strip_prefix("# branch.oid ") {
            commit.id = known(id, "(initial)");
        } else if let Some(branch) = line.strip_prefix("# branch.head ") {
            commit.branch = known(branch, "(detached)");
        } else if !line.starts_with('#') {
            commit.dirty |= !is_report(line);
        }
    }
    commit
}

/// Whether a line says of no more than a report of Regatta's that git does not know it. Should it be an input all the
/// same, whoever asks for the inputs finds out ([`knows_all`]).
fn is_report(line: &str) -> bool {
    let path = line.strip_prefix("? ");
    let name = path.map(|path| path.rsplit_once('/').map_or(path, |(_, name)| name));
    name.is_some_and(|name| REPORTS_OF_CI.contains(&name))
}

fn known(text: &str, unknown: &str) -> String {
    if text == unknown {
        String::new()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_where_the_tree_is() {
        let clean = "# branch.oid abc\n# branch.head main\n# branch.ab +1 -0\n";
        let commit = Commit {
            id: "abc".to_owned(),
            branch: "main".to_owned(),
            dirty: false,
            committed_at: None,
        };
        assert_eq!(parse(clean), commit);
        assert!(parse(&format!("{clean}? new\n")).dirty);
        let reports = "? regatta-junit.xml\n? sub/gl-code-quality-report.json\n";
        assert_eq!(parse(&format!("{clean}{reports}")), commit);
        for other in [
            "? my-regatta-junit.xml",
            "1 .M N... 100644 100644 100644 a b regatta-junit.xml",
        ] {
            assert!(
                parse(&format!("{clean}{reports}{other}\n")).dirty,
                "{other}"
            );
        }
        assert_eq!(
            parse("# branch.oid (initial)\n# branch.head (detached)\n"),
            Commit::default()
        );
    }
}
