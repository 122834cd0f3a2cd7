//! The files of a directory that belong to its project.

use std::path::{Path, PathBuf};

use regatta_cas::merkle::{self, FoundKind, Ignored, WalkOptions};

use super::{Entries, Source};
use crate::files::REPORTS_OF_CI;
use crate::git;

pub use regatta_cas::merkle::WalkError;

/// The project's files: as [`walk_unignored`], less the reports that Regatta leaves in `root` ([`REPORTS_OF_CI`]) and
/// that git does not know. What the last run wrote must not make the next one another one.
///
/// # Errors
/// Something cannot be read.
pub fn walk(directory: &Path, root: &Path, without: &[PathBuf]) -> Result<Entries, WalkError> {
    let mut entries = walk_unignored(directory, root, without)?;
    for report in REPORTS_OF_CI {
        if entries.by_path.contains_key(report) && !git::knows(root, Path::new(report)) {
            entries.by_path.remove(report);
        }
    }
    Ok(entries)
}

/// Every file and symlink below `directory`, by path relative to `root`, less what git ignores
/// ([`Ignored::LeftOut`]), `.git` and the directories in `without`. Whether there is a repository makes no
/// difference: `.gitignore` files count in any case.
///
/// # Errors
/// Something cannot be read.
pub fn walk_unignored(
    directory: &Path,
    root: &Path,
    without: &[PathBuf],
) -> Result<Entries, WalkError> {
    entries(WalkOptions {
        directory: directory.to_owned(),
        root: root.to_owned(),
        without: without.to_vec(),
        ignored: Ignored::LeftOut,
    })
}

/// Every file and symlink below `directory`, or the file that it is, by path relative to `root`, whatever
/// git ignores.
///
/// # Errors
/// Something cannot be read.
pub fn walk_everything(directory: &Path, root: &Path) -> Result<Entries, WalkError> {
    entries(WalkOptions {
        directory: directory.to_owned(),
        root: root.to_owned(),
        without: Vec::new(),
        ignored: Ignored::Found,
    })
}

fn entries(options: WalkOptions) -> Result<Entries, WalkError> {
    let found = merkle::walk(&options)?;
    let entry = |found: merkle::Found| {
        let source = match found.kind {
            FoundKind::File { executable } => Source::File {
                path: options.root.join(&found.path),
                executable,
            },
            FoundKind::Symlink { target } => Source::Symlink { target },
            FoundKind::Unfit(problem) => Source::Unfit(problem),
        };
        (found.path, source)
    };
    Ok(Entries {
        by_path: found.into_iter().map(entry).collect(),
    })
}
