//! What an earlier process left in the directory of a cache.

use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::local_file::{LocalFile, Part};
use super::parts::Parts;
use super::shared::{LOCK_NAME, TEMPORARY_NAME, is_intact};

/// How long the names of parts are: a SHA-256 in hexadecimal digits.
const PART_NAME_DIGITS: usize = 64;
/// How long the names of the directories in a part are: the digits that its files' names begin with.
const PREFIX_DIGITS: usize = 2;

/// The intact files in the directory, the least recently used first, whatever their part. Anything else is
/// removed.
pub(super) fn find_files(directory: &Path, parts: &Parts) -> io::Result<Vec<LocalFile>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        match name.to_str() {
            Some(LOCK_NAME | TEMPORARY_NAME) => {}
            Some(name) if is_directory_of(&entry, name, PART_NAME_DIGITS)? => {
                find_in_part(&entry.path(), parts.of(name), &mut found)?;
                remove_if_empty(&entry.path());
            }
            Some(_) | None => remove_stray(&entry.path(), &entry.metadata()?)?,
        }
    }
    found.sort_by_key(|(accessed, _)| *accessed);
    Ok(found.into_iter().map(|(_, file)| file).collect())
}

fn find_in_part(
    directory: &Path,
    part: Part,
    found: &mut Vec<(SystemTime, LocalFile)>,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        match name.to_str() {
            Some(name) if is_directory_of(&entry, name, PREFIX_DIGITS)? => {
                find_in_prefix(&entry.path(), part, found)?;
                remove_if_empty(&entry.path());
            }
            Some(_) | None => remove_stray(&entry.path(), &entry.metadata()?)?,
        }
    }
    Ok(())
}

fn find_in_prefix(
    directory: &Path,
    part: Part,
    found: &mut Vec<(SystemTime, LocalFile)>,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let name = entry.file_name();
        let file = name
            .to_str()
            .and_then(|name| LocalFile::from_name(part, name));
        match file.filter(|file| is_intact(*file, &metadata)) {
            Some(file) => found.push((metadata.accessed()?, file)),
            None => remove_stray(&entry.path(), &metadata)?,
        }
    }
    Ok(())
}

fn is_directory_of(entry: &DirEntry, name: &str, digits: usize) -> io::Result<bool> {
    let is_name = name.len() == digits && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok(is_name && entry.file_type()?.is_dir())
}

/// A part whose last file was evicted leaves no directories behind for ever.
fn remove_if_empty(directory: &Path) {
    // It fails if the directory is not empty, which is the purpose.
    fs::remove_dir(directory).ok();
}

fn remove_stray(path: &Path, metadata: &Metadata) -> io::Result<()> {
    tracing::warn!(path = %path.display(), "removing what is no intact file of the cache");
    if metadata.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}
