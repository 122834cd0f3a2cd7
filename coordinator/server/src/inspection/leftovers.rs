//! Files that nobody goes on with.

use std::io;
use std::path::{Path, PathBuf};

use super::InspectError;
use crate::retention::Kind;
use crate::storage::directory_of;

/// What the names of files that are being written have in them.
const UNFINISHED_MARK: char = '#';

/// Files of uploads and writes that were not ended.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// In the state directory, which is taken: nobody goes on with them.
    pub(super) own: Vec<PathBuf>,
    /// In another directory, that another coordinator may be writing to.
    pub(super) in_storage: Vec<PathBuf>,
}

/// Files of uploads, and of writes to the store's directory. The state directory must be taken.
pub(super) fn leftovers(state: &Path, url: &str) -> Result<Leftovers, InspectError> {
    let mut found = Leftovers::default();
    collect(&state.join("uploads"), &|_| true, &mut found.own)?;
    if let Some(directory) = directory_of(url) {
        let is_unfinished = |name: &str| name.contains(UNFINISHED_MARK);
        let found = match is_within(&directory, state) {
            true => &mut found.own,
            false => &mut found.in_storage,
        };
        for kind in Kind::ALL {
            collect(&directory.join(kind.place()), &is_unfinished, found)?;
        }
    }
    found.own.sort();
    found.in_storage.sort();
    Ok(found)
}

fn is_within(directory: &Path, state: &Path) -> bool {
    match (directory.canonicalize(), state.canonicalize()) {
        (Ok(directory), Ok(state)) => directory.starts_with(state),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// Collects the files below a directory whose names are wanted.
fn collect(
    directory: &Path,
    wanted: &dyn Fn(&str) -> bool,
    found: &mut Vec<PathBuf>,
) -> Result<(), InspectError> {
    let unusable = |source| InspectError::File {
        path: directory.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(error)),
    };
    for entry in entries {
        let entry = entry.map_err(unusable)?;
        let name = entry.file_name();
        if entry.file_type().map_err(unusable)?.is_dir() {
            collect(&entry.path(), wanted, found)?;
        } else if wanted(&name.to_string_lossy()) {
            found.push(entry.path());
        }
    }
    Ok(())
}

pub(super) fn remove(files: &[PathBuf]) -> Result<(), InspectError> {
    for file in files {
        match std::fs::remove_file(file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                let path = file.clone();
                return Err(InspectError::File { path, source });
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
