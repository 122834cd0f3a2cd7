//! What git takes for a repository, as gitrepository-layout(5) has it.

use std::fs;
use std::path::{Path, PathBuf};

/// What the `.git` of a submodule or of another worktree begins with: it says where the repository is.
const ELSEWHERE: &str = "gitdir:";

/// Whether a directory is the top of what is checked out of a repository.
pub(super) fn is_checkout(directory: &Path) -> bool {
    repository_of(directory)
        .is_some_and(|repository| repository.join("HEAD").symlink_metadata().is_ok())
}

/// The file of rules that are this checkout's alone; it need not be there.
pub(super) fn exclude_file(directory: &Path) -> Option<PathBuf> {
    let repository = repository_of(directory)?;
    // Worktrees of one repository share it.
    let shared = match fs::read_to_string(repository.join("commondir")) {
        Ok(path) => repository.join(path.trim_end()),
        Err(_) => repository,
    };
    Some(shared.join("info/exclude"))
}

fn repository_of(directory: &Path) -> Option<PathBuf> {
    let git = directory.join(".git");
    if !git.metadata().ok()?.is_file() {
        return Some(git);
    }
    let text = fs::read_to_string(git).ok()?;
    let path = text.strip_prefix(ELSEWHERE)?;
    Some(directory.join(path.trim()))
}
