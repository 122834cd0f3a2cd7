//! Which commit a tree was taken from, and whether what was read of it is what that commit holds.
//!
//! `git status` believes much: marks in the index, times of files, filters, and what the user has configured. What a
//! run reads is therefore compared with the commit itself, file by file; `git status` tells of the rest.

mod blob_digests;
mod checkout;
mod command;
mod commit_files;
mod comparison;
mod lone_file;
mod status;
// They run git, which not every machine has that runs tests.
#[cfg(all(test, feature = "process-tests"))]
mod tests;
mod unlike;

use std::path::{Path, PathBuf};

use command::{git, output};

use crate::terminal::visible;

pub use comparison::{Content, Reading};
pub use status::{commit_of, overlooked};
pub use unlike::Unlike;

/// Which commit a tree was taken from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Commit {
    /// Its name; empty without a repository or before the first commit.
    pub id: String,
    /// The branch; empty if none is checked out.
    pub branch: String,
    /// In what the tree differs from it, as far as is known; `None` if it does not.
    pub unlike: Option<Unlike>,
    /// When it was made, as it says itself, in seconds since 1970; `None` if it is none.
    pub committed_at: Option<i64>,
}

impl Commit {
    /// Whether the tree differs from it.
    #[must_use]
    pub const fn is_dirty(&self) -> bool {
        self.unlike.is_some()
    }

    /// When it was made, as messages have it.
    #[must_use]
    pub fn committed_at_to_wire(&self) -> Option<prost_types::Timestamp> {
        let seconds = self.committed_at?;
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    /// The commit, unless what was read of it is not what it holds. The digests of its blobs are remembered in
    /// `cache_file`. Blocks.
    #[must_use]
    pub fn compared(self, reading: &Reading<'_>, cache_file: &Path) -> Self {
        if self.id.is_empty() || self.is_dirty() {
            return self;
        }
        let compared = comparison::compare(&self.id, reading, cache_file);
        Self {
            unlike: compared.err(),
            ..self
        }
    }

    /// Tells why this is no commit's verdict, if it is none. That work is not committed yet is nothing to warn of.
    pub fn tell(&self) {
        let Some(unlike) = &self.unlike else {
            return;
        };
        let why = unlike.to_string();
        let (commit, why) = (&self.id, visible(&why));
        if matches!(unlike, Unlike::Status { .. }) {
            tracing::info!(commit, "this is no commit's verdict: {why}");
        } else {
            tracing::warn!(commit, "this is no commit's verdict: {why}");
        }
    }
}

/// Whether the repository that `directory` is in, or a submodule of it, has a file, whose path is relative to
/// `directory` if it is not absolute. A symlink counts by its own name. Blocks.
#[must_use]
pub fn knows(directory: &Path, file: &Path) -> bool {
    let mut git = git(directory);
    git.env("GIT_LITERAL_PATHSPECS", "1");
    let found = output(
        git.args(["ls-files", "-z", "--recurse-submodules", "--"])
            .arg(file),
    );
    found.is_ok_and(|found| !found.is_empty())
}

/// The top of the checkout that a directory is in, if it is in one. Blocks.
#[must_use]
pub fn top_of(directory: &Path) -> Option<PathBuf> {
    lone_file::top_of(directory).ok()
}

/// Where a file is in the repository that its directory is in, from the root of that; `None` if it is in none, or its
/// path is not Unicode. Blocks.
#[must_use]
pub fn place_of(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let directory = file.parent().filter(|it| !it.as_os_str().is_empty());
    let mut git = git(directory.unwrap_or(Path::new(".")));
    let output = output(git.args(["rev-parse", "--show-prefix"])).ok()?;
    let prefix = String::from_utf8(output).ok()?;
    // It ends in a slash, if there is any.
    let prefix = prefix.strip_suffix('\n').unwrap_or(&prefix);
    Some(format!("{prefix}{name}"))
}

/// The whole id of the commit that git calls so in `directory`. Blocks.
///
/// # Errors
/// There is none; then the error is what git says.
pub fn resolve(directory: &Path, name: &str) -> Result<String, String> {
    let mut git = git(directory);
    git.args(["rev-parse", "--verify", "--end-of-options"]);
    let output = output(git.arg(format!("{name}^{{commit}}")))?;
    id_in(output).ok_or_else(|| format!("git: {name} has no id"))
}

/// The commit that is checked out in `directory`; `None` if there is none. Blocks.
#[must_use]
pub fn head(directory: &Path) -> Option<String> {
    let mut git = git(directory);
    // Older ones than 2.30 know no end of options.
    let output = output(git.args(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])).ok()?;
    id_in(output)
}

fn id_in(output: Vec<u8>) -> Option<String> {
    let id = String::from_utf8(output).ok()?;
    Some(id.trim().to_owned()).filter(|id| is_id(id))
}

/// Whether this is the whole id of a commit: of SHA-1 or of SHA-256.
#[must_use]
pub fn is_id(text: &str) -> bool {
    [40, 64].contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
