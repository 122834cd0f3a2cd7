//! Digests of files that did not change.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use regatta_model::Digest;

use crate::file_state::FileState;

/// How long after its last change a file may change again without its times showing it: clocks of file
/// systems tick as rarely as every two seconds.
const RACY_WINDOW: Duration = Duration::from_secs(2);
/// How many files are remembered at most. Beyond it, the file is written without those not met this time.
const MAX_ENTRIES: usize = 2_000_000;
/// What the file begins with; another version is another text.
const MAGIC: &[u8] = b"regatta file digests 1\n";
/// The checksum that ends the file.
const CHECKSUM_BYTES: usize = 32;

/// Remembers the digests of files, so that files that did not change need not be read again.
///
/// A file counts as unchanged if its path, inode, size, modification time and change time are the same. A
/// digest is remembered only if the file had been left alone for a while when it was read, because a
/// change right afterwards would not show. A damaged cache file is the same as none.
#[derive(Debug)]
pub struct FileDigestCache {
    path: PathBuf,
    racy_window: Duration,
    entries: HashMap<PathBuf, Remembered>,
    changed: bool,
}

#[derive(Debug)]
struct Remembered {
    state: FileState,
    digest: Digest,
    met: bool,
}

/// The cache cannot be written; without it, the next scan is slow. Check permissions and space.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the file digest cache {}", path.display())]
pub struct CacheFileError {
    /// The file.
    pub path: PathBuf,
    /// What came back.
    pub source: io::Error,
}

impl FileDigestCache {
    /// The cache in the file `path`; empty if there is none, or if it is damaged.
    #[must_use]
    pub fn open(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let entries = match fs::read(&path) {
            Ok(bytes) => parse(&bytes).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "the file digest cache is damaged; ignoring it");
                HashMap::new()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read the file digest cache");
                }
                HashMap::new()
            }
        };
        Self {
            path,
            racy_window: RACY_WINDOW,
            entries,
            changed: false,
        }
    }

    /// Trusts files that were left alone for `window` only, instead of two seconds.
    #[must_use]
    pub fn with_racy_window(mut self, window: Duration) -> Self {
        self.racy_window = window;
        self
    }

    /// How many files are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no file is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The digest of the file at `path`, if it is still in `state`.
    pub(super) fn find(&mut self, path: &Path, state: &FileState) -> Option<Digest> {
        let entry = self.entries.get_mut(path)?;
        entry.met = true;
        (entry.state == *state).then_some(entry.digest)
    }

    /// Remembers the digest of a file whose reading began at `read_at`.
    pub(super) fn remember(
        &mut self,
        path: PathBuf,
        state: FileState,
        digest: Digest,
        read_at: SystemTime,
    ) {
        self.changed = true;
        if state.is_settled(read_at, self.racy_window) {
            self.entries.insert(
                path,
                Remembered {
                    state,
                    digest,
                    met: true,
                },
            );
        } else {
            self.entries.remove(&path);
        }
    }

    /// Replaces the file, whole or not at all, if there is anything new.
    ///
    /// # Errors
    /// The file cannot be written; the old one, if any, is still there.
    pub fn save(&mut self) -> Result<(), CacheFileError> {
        if !self.changed {
            return Ok(());
        }
        if self.entries.len() > MAX_ENTRIES {
            self.entries.retain(|_, entry| entry.met);
        }
        let written = replace_file(&self.path, &self.encode());
        written.map_err(|source| CacheFileError {
            path: self.path.clone(),
            source,
        })?;
        self.changed = false;
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (path, entry) in &self.entries {
            let path = path.as_os_str().as_bytes();
            let Ok(length) = u32::try_from(path.len()) else {
                continue;
            };
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(path);
            bytes.extend_from_slice(&entry.state.inode.to_le_bytes());
            bytes.extend_from_slice(&entry.state.size_bytes.to_le_bytes());
            bytes.extend_from_slice(&entry.state.modified_nanos.to_le_bytes());
            bytes.extend_from_slice(&entry.state.changed_nanos.to_le_bytes());
            bytes.extend_from_slice(&entry.digest.size_bytes().to_le_bytes());
            bytes.extend_from_slice(entry.digest.hash());
        }
        let checksum = Digest::of(&bytes);
        bytes.extend_from_slice(checksum.hash());
        bytes
    }
}

fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// The entries of a cache file; `None` if it is damaged or of another version.
fn parse(bytes: &[u8]) -> Option<HashMap<PathBuf, Remembered>> {
    let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    let mut rest = content.strip_prefix(MAGIC)?;
    if Digest::of(content).hash() != checksum {
        return None;
    }
    let mut entries = HashMap::new();
    while !rest.is_empty() {
        let (path, entry) = parse_entry(&mut rest)?;
        entries.insert(path, entry);
    }
    Some(entries)
}

fn parse_entry(rest: &mut &[u8]) -> Option<(PathBuf, Remembered)> {
    let length = u32::from_le_bytes(take(rest)?);
    let (path, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    let state = FileState {
        inode: u64::from_le_bytes(take(rest)?),
        size_bytes: u64::from_le_bytes(take(rest)?),
        modified_nanos: i128::from_le_bytes(take(rest)?),
        changed_nanos: i128::from_le_bytes(take(rest)?),
    };
    let size_bytes = u64::from_le_bytes(take(rest)?);
    let digest = Digest::new(take(rest)?, size_bytes);
    let path = PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()));
    Some((
        path,
        Remembered {
            state,
            digest,
            met: false,
        },
    ))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const STATE: FileState = FileState {
        inode: 1,
        size_bytes: 2,
        modified_nanos: 3_000_000_000,
        changed_nanos: -4,
    };

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn path() -> PathBuf {
        PathBuf::from("some/file")
    }

    #[test]
    fn what_is_saved_is_found_again_and_damage_is_the_same_as_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("below/cache");
        let mut cache = FileDigestCache::open(&file);
        cache.remember(path(), STATE, Digest::of(b"x"), at(10));
        cache.save().unwrap();
        let mut again = FileDigestCache::open(&file);
        assert_eq!(again.find(&path(), &STATE), Some(Digest::of(b"x")));
        let bytes = fs::read(&file).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(parse(&damaged).is_none());
            assert!(parse(&bytes[..at]).is_none());
        }
        fs::write(&file, b"junk").unwrap();
        assert!(FileDigestCache::open(&file).is_empty());
    }

    #[test]
    fn any_other_state_is_a_change() {
        let mut cache = FileDigestCache::open("/nonexistent");
        cache.remember(path(), STATE, Digest::EMPTY, at(10));
        for other in [
            FileState { inode: 9, ..STATE },
            FileState {
                size_bytes: 9,
                ..STATE
            },
            FileState {
                modified_nanos: 9,
                ..STATE
            },
            FileState {
                changed_nanos: 9,
                ..STATE
            },
        ] {
            assert_eq!(cache.find(&path(), &other), None);
        }
        assert_eq!(cache.find(&path(), &STATE), Some(Digest::EMPTY));
        assert_eq!(cache.find(Path::new("other"), &STATE), None);
    }

    #[track_caller]
    fn check_trust(modified: i128, changed: i128, read_at: u64, trusted: bool) {
        let nanos = |seconds: i128| seconds * 1_000_000_000;
        let state = FileState {
            modified_nanos: nanos(modified),
            changed_nanos: nanos(changed),
            ..STATE
        };
        let mut cache = FileDigestCache::open("/nonexistent");
        cache.remember(path(), state, Digest::EMPTY, at(read_at));
        assert_eq!(cache.find(&path(), &state).is_some(), trusted);
    }

    #[test]
    fn files_that_changed_just_before_they_were_read_are_not_trusted() {
        check_trust(10, 10, 12, true);
        check_trust(10, 10, 11, false);
        check_trust(5, 11, 12, false);
        check_trust(11, 5, 12, false);
        check_trust(20, 20, 12, false);
    }
}
