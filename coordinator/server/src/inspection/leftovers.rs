//! Files that nobody goes on with.

use std::io;
use std::path::{Path, PathBuf};

use super::InspectError;
use crate::retention::Kind;
use crate::storage::directory_of;

/// What the names of files that are being written have in them.
const UNFINISHED_MARK: char = '#';

/// Files of uploads, and of writes to the store's directory, that nobody goes on with.
pub(super) fn leftovers(state: &Path, url: &str) -> Result<Vec<PathBuf>, InspectError> {
    let mut found = Vec::new();
    collect(&state.join("uploads"), &|_| true, &mut found)?;
    if let Some(directory) = directory_of(url) {
        let is_unfinished = |name: &str| name.contains(UNFINISHED_MARK);
        for kind in Kind::ALL {
            collect(&directory.join(kind.place()), &is_unfinished, &mut found)?;
        }
    }
    found.sort();
    Ok(found)
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
