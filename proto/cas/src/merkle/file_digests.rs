//! Digests of many files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use regatta_model::{Digest, DigestHasher};

use super::FileDigestCache;
use crate::file_state::FileState;

/// How much of a file is read at a time.
const BUFFER_BYTES: usize = 256 * 1024;
/// How often a file that changes while it is read is read again.
const READ_ATTEMPTS: usize = 3;

/// Why files have no digests.
#[derive(Debug, thiserror::Error)]
pub enum FileDigestsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// A file changes as fast as it is read. Stop what writes it.
    #[error("{} changes while it is read; stop what writes it and run again", path.display())]
    Changing {
        /// Its path.
        path: PathBuf,
    },
}

/// The digests of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDigests {
    /// In the order in which the files were given.
    pub digests: Vec<Digest>,
    /// How many files had to be read because the cache did not know them.
    pub read_count: usize,
}

struct Hashed {
    state: FileState,
    digest: Digest,
    read_at: SystemTime,
}

/// The digests of files that lie anywhere, from `cache` where it knows them; the others are read on all
/// processors and added to it, but it is not saved. It blocks.
///
/// # Errors
/// [`FileDigestsError`] names the file.
pub fn digest_files(
    paths: &[PathBuf],
    cache: Option<&mut FileDigestCache>,
) -> Result<FileDigests, FileDigestsError> {
    let state_of = |path: &PathBuf| -> Result<(PathBuf, FileState), FileDigestsError> {
        let metadata = std::fs::metadata(path).map_err(|source| FileDigestsError::Read {
            path: path.clone(),
            source,
        })?;
        Ok((path.clone(), FileState::of(&metadata)))
    };
    let files = paths.iter().map(state_of).collect::<Result<Vec<_>, _>>()?;
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    digest_on(files, cache, threads)
}

/// Finds the digests of files, in the cache if it knows them, else by reading them on `threads` threads.
fn digest_on(
    files: Vec<(PathBuf, FileState)>,
    mut cache: Option<&mut FileDigestCache>,
    threads: usize,
) -> Result<FileDigests, FileDigestsError> {
    let mut digests = vec![Digest::EMPTY; files.len()];
    let mut unknown = Vec::new();
    for (index, (path, state)) in files.into_iter().enumerate() {
        match cache.as_mut().and_then(|cache| cache.find(&path, &state)) {
            Some(digest) => digests[index] = digest,
            None => unknown.push((index, path)),
        }
    }
    let hashed = hash_all(&unknown, threads)?;
    let read_count = hashed.len();
    for (position, file) in hashed {
        let (index, path) = &mut unknown[position];
        digests[*index] = file.digest;
        if let Some(cache) = cache.as_mut() {
            cache.remember(std::mem::take(path), file.state, file.digest, file.read_at);
        }
    }
    Ok(FileDigests {
        digests,
        read_count,
    })
}

/// Hashes files on several threads; each takes the next file that nobody has taken.
fn hash_all(
    files: &[(usize, PathBuf)],
    threads: usize,
) -> Result<Vec<(usize, Hashed)>, FileDigestsError> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Hashed)>, FileDigestsError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut hashed = Vec::new();
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some((_, path)) = files.get(position) else {
                return Ok(hashed);
            };
            hashed.push((position, hash_file(path, &mut buffer)?));
        }
    };
    let mut all = Vec::with_capacity(files.len());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.min(files.len()))
            .map(|_| scope.spawn(work))
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(hashed) => all.extend(hashed?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}

/// Hashes a file, again if it changed meanwhile.
fn hash_file(path: &Path, buffer: &mut [u8]) -> Result<Hashed, FileDigestsError> {
    let failed = |source| FileDigestsError::Read {
        path: path.to_owned(),
        source,
    };
    for _ in 0..READ_ATTEMPTS {
        if let Some(hashed) = hash_once(path, buffer).map_err(failed)? {
            return Ok(hashed);
        }
    }
    Err(FileDigestsError::Changing {
        path: path.to_owned(),
    })
}

fn hash_once(path: &Path, buffer: &mut [u8]) -> io::Result<Option<Hashed>> {
    let read_at = SystemTime::now();
    let mut file = File::open(path)?;
    let state = FileState::of(&file.metadata()?);
    let mut hasher = DigestHasher::new();
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if FileState::of(&file.metadata()?) != state {
        return Ok(None);
    }
    Ok(Some(Hashed {
        state,
        digest: hasher.finish(),
        read_at,
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_that_was_just_written_is_read_again_and_a_change_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "file").unwrap();
        let mut cache = FileDigestCache::open(root.path().join("cache"));
        let files = [file.clone()];
        for _ in 0..2 {
            let found = digest_files(&files, Some(&mut cache)).unwrap();
            assert_eq!(found.read_count, 1);
        }
        let mut cache = cache.with_racy_window(Duration::ZERO);
        for read_count in [1, 0] {
            let found = digest_files(&files, Some(&mut cache)).unwrap();
            assert_eq!(found.read_count, read_count);
        }
        fs::write(&file, "elif").unwrap();
        let found = digest_files(&files, Some(&mut cache)).unwrap();
        assert_eq!(found.read_count, 1);
        assert_eq!(found.digests, [Digest::of(b"elif")]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let absent = PathBuf::from("/nonexistent");
        let error = digest_files(&[absent], None).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nonexistent");
    }
}
