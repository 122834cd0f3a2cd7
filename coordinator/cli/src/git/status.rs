//! What git says of a tree.

use std::path::Path;

use super::command::{git, git_as_configured, output};
use super::{Commit, Unlike, is_id};
use crate::files::{REPORTS_OF_CI, place_in};

/// What is with a file that is not as the commit has it.
const CHANGED: &str = "has been changed since the commit";

/// The commit that `directory` is at, as `git status` has it; an empty one if there is none, or git does not say. A
/// file that Regatta itself writes, such as its report, makes no difference, nor do the reports that it leaves in CI,
/// as long as git does not know them. Of a tree that somebody may have touched while it was read, `before` is the
/// commit that was checked out when that began. Blocks.
#[must_use]
pub fn commit_of(directory: &Path, own_file: Option<&Path>, before: Option<&str>) -> Commit {
    let mut git = git(directory);
    git.args([
        "status",
        "--porcelain=v2",
        "-z",
        "--branch",
        "--untracked-files=normal",
        "--ignore-submodules=none",
        "--no-renames",
    ]);
    if let Some(place) = own_file.and_then(|file| place_in(directory, file)) {
        let mut without = std::ffi::OsString::from(":(exclude,literal)");
        without.push(place);
        git.args(["--", ":(top)"]).arg(without);
    }
    let status = match output(&mut git) {
        Ok(status) => status,
        Err(detail) => return unsaid(directory, detail),
    };
    let mut commit = parse(&String::from_utf8_lossy(&status));
    commit.committed_at = time_of(directory, &commit.id);
    if let Some(Unlike::Status { path, how: CHANGED }) = &commit.unlike
        && is_hidden(directory, path)
    {
        let path = path.clone();
        commit.unlike = Some(Unlike::Hidden { path });
    }
    if !commit.id.is_empty() && before != Some(commit.id.as_str()) {
        commit.unlike = Some(Unlike::Moved {
            before: before.map(str::to_owned),
            after: commit.id.clone(),
        });
    }
    commit
}

/// Whether `git status`, as it is configured here, shows no change of a file whose path begins at the top.
fn is_hidden(directory: &Path, path: &str) -> bool {
    let mut git = git_as_configured(directory);
    git.args(["status", "--porcelain=v2", "-z", "--ignore-submodules=none"]);
    let status = output(git.arg("--").arg(format!(":(top,literal){path}")));
    status.is_ok_and(|status| status.is_empty())
}

/// What is known if git says nothing: where there is no repository it has nothing to say.
fn unsaid(directory: &Path, detail: String) -> Commit {
    let mut above = directory.ancestors();
    let is_checkout = above.any(|directory| exists(&directory.join(".git")));
    let unlike = is_checkout.then_some(Unlike::Unknown { detail });
    Commit {
        unlike,
        ..Commit::default()
    }
}

fn time_of(directory: &Path, id: &str) -> Option<i64> {
    if !is_id(id) {
        return None;
    }
    let mut git = git(directory);
    let output = output(git.args(["show", "--no-patch", "--format=%ct", id])).ok()?;
    let text = String::from_utf8(output).ok()?;
    text.trim().parse().ok()
}

/// A file that git has been told not to look at (`git update-index --assume-unchanged`, `--skip-worktree`), so that
/// its status says nothing of it. Those elsewhere than in `directory` may be absent, as a sparse checkout has it: they
/// are of other projects. Blocks.
#[must_use]
pub fn overlooked(directory: &Path) -> Option<Unlike> {
    let mut git = git(directory);
    let tagged = match output(git.args(["ls-files", "-v", "-z", "--", ":(top)"])) {
        Ok(tagged) => tagged,
        Err(detail) => return Some(Unlike::Unknown { detail }),
    };
    let tagged = String::from_utf8_lossy(&tagged);
    let entries = tagged.split('\0').filter_map(|entry| entry.split_once(' '));
    entries
        .filter_map(|(tag, path)| Some((option(tag)?, path)))
        .find(|(_, path)| !path.starts_with("../") || exists(&directory.join(path)))
        .map(|(option, path)| Unlike::Overlooked {
            path: path.to_owned(),
            option,
        })
}

/// What undoes the mark that a tag of `git ls-files -v` stands for, if it stands for one.
fn option(tag: &str) -> Option<&'static str> {
    let is_assumed = tag.starts_with(|letter: char| letter.is_ascii_lowercase());
    match tag {
        _ if is_assumed => Some("--no-assume-unchanged"),
        "S" => Some("--no-skip-worktree"),
        _ => None,
    }
}

pub(super) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn parse(status: &str) -> Commit {
    let mut commit = Commit::default();
    for entry in status.split('\0').filter(|entry| !entry.is_empty()) {
        if let Some(id) = entry.strip_prefix("# branch.oid ") {
            commit.id = known(id, "(initial)");
        } else if let Some(branch) = entry.strip_prefix("# branch.head ") {
            commit.branch = known(branch, "(detached)");
        } else if !entry.starts_with("# ") && commit.unlike.is_none() && !is_report(entry) {
            commit.unlike = Some(of_entry(entry));
        }
    }
    commit
}

/// Whether an entry says of no more than a report of Regatta's that git does not know it. Should it be an input all the
/// same, it is compared with the commit, which does not have it.
fn is_report(entry: &str) -> bool {
    let path = entry.strip_prefix("? ");
    let name = path.map(|path| path.rsplit_once('/').map_or(path, |(_, name)| name));
    name.is_some_and(|name| REPORTS_OF_CI.contains(&name))
}

/// What an entry tells: its kind, then fields, of which the path is the last (git-status(1), porcelain format 2).
fn of_entry(entry: &str) -> Unlike {
    let (fields, how) = match entry.split_once(' ').map(|(kind, _)| kind) {
        Some("?") => (2, "is in no commit"),
        Some("u") => (11, "has conflicts that nobody has resolved"),
        Some(_) | None => (9, CHANGED),
    };
    Unlike::Status {
        path: entry.splitn(fields, ' ').last().unwrap_or(entry).to_owned(),
        how,
    }
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
    fn a_status_says_where_the_tree_is_and_what_is_else() {
        let clean = "# branch.oid abc\0# branch.head main\0# branch.ab +1 -0\0";
        let commit = Commit {
            id: "abc".to_owned(),
            branch: "main".to_owned(),
            ..Commit::default()
        };
        assert_eq!(parse(clean), commit);
        let reports = "? regatta-junit.xml\0? sub/gl-code-quality-report.json\0";
        assert_eq!(parse(&format!("{clean}{reports}")), commit);
        assert_eq!(
            parse("# branch.oid (initial)\0# branch.head (detached)\0"),
            Commit::default()
        );
        for (entry, said) in [
            (
                "? my-regatta-junit.xml",
                "my-regatta-junit.xml is in no commit",
            ),
            (
                "1 .M N... 100644 100644 100644 12 34 regatta-junit.xml",
                "regatta-junit.xml has been changed since the commit",
            ),
            ("? a new\nfile", "a new\nfile is in no commit"),
            (
                "1 .M N... 100644 100644 100644 12 34 an old file",
                "an old file has been changed since the commit",
            ),
            (
                "u UU N... 100644 100644 100644 100644 1 2 3 a file",
                "a file has conflicts that nobody has resolved",
            ),
        ] {
            let unlike = parse(&format!("{clean}{entry}\0")).unlike;
            assert_eq!(unlike.expect("it differs").to_string(), said);
        }
    }
}
