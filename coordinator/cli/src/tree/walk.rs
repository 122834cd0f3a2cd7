//! The files of a directory that belong to its project.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use super::{Entries, Source};

/// Why the files of a directory are not known. Fix the directory.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// Something in it cannot be read.
    #[error("the files below {directory} cannot be listed: {source}")]
    Unreadable {
        /// The directory.
        directory: PathBuf,
        /// What could not be read, and why.
        source: ignore::Error,
    },
    /// A name cannot be sent.
    #[error("the name {path:?} is not UTF-8; rename the file or have git ignore it")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
}

/// Every file and symlink below `directory`, by path relative to `root`, less what git ignores, `.git`
/// and the directories in `without`. Whether there is a repository makes no difference: `.gitignore`
/// files count in any case.
///
/// # Errors
/// Something cannot be read or sent.
pub fn walk(directory: &Path, root: &Path, without: &[PathBuf]) -> Result<Entries, WalkError> {
    let without = without.to_vec();
    let walker = WalkBuilder::new(directory)
        .hidden(false)
        .require_git(false)
        .git_global(false)
        .filter_entry(move |entry| {
            entry.file_name() != ".git" && !without.iter().any(|path| path == entry.path())
        })
        .build();
    let mut entries = Entries::default();
    for found in walker {
        let found = found.map_err(|source| unreadable(directory, source))?;
        let relative = found.path().strip_prefix(root).unwrap_or(found.path());
        if let Some(source) = source_of(&found).map_err(|source| unreadable(directory, source))? {
            entries
                .insert(relative, source)
                .map_err(|path| WalkError::NotUtf8 { path })?;
        }
    }
    Ok(entries)
}

fn unreadable(directory: &Path, source: ignore::Error) -> WalkError {
    WalkError::Unreadable {
        directory: directory.to_owned(),
        source,
    }
}

/// What an entry becomes in an input root; directories and special files become nothing.
fn source_of(entry: &ignore::DirEntry) -> Result<Option<Source>, ignore::Error> {
    let path = entry.path();
    match entry.file_type() {
        Some(kind) if kind.is_file() => Ok(Some(Source::File {
            path: path.to_owned(),
            executable: entry.metadata()?.permissions().mode() & 0o111 != 0,
        })),
        Some(kind) if kind.is_symlink() => {
            let target = std::fs::read_link(path)?;
            let target = target.to_string_lossy().into_owned();
            Ok(Some(Source::Symlink { target }))
        }
        Some(_) | None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_ignores_is_left_out() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path();
        for file in [
            "a/keep.txt",
            "a/no.tmp",
            ".hidden",
            ".git/config",
            "out/x",
            "a/sub/deep.txt",
        ] {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().expect("below")).expect("created");
            std::fs::write(file, "").expect("written");
        }
        std::fs::write(root.join(".gitignore"), "*.tmp\n").expect("written");
        std::os::unix::fs::symlink("keep.txt", root.join("a/link")).expect("linked");
        let entries = walk(root, root, &[root.join("out")]).expect("it can be read");
        let paths: Vec<_> = entries.by_path.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                ".gitignore",
                ".hidden",
                "a/keep.txt",
                "a/link",
                "a/sub/deep.txt"
            ]
        );
        let link = Source::Symlink {
            target: "keep.txt".to_owned(),
        };
        assert_eq!(entries.by_path["a/link"], link);
    }
}
