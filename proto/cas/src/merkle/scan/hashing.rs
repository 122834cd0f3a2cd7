//! Digests of many files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use regatta_model::{Digest, DigestHasher};

use super::{ScanError, available_threads};
use crate::merkle::FileDigestCache;
use crate::merkle::file_digest_cache::FileState;

/// How much of a file is read at a time.
const BUFFER_BYTES: usize = 256 * 1024;
/// How often a file that changes while it is read is read again.
const READ_ATTEMPTS: usize = 3;

/// A file of the tree.
#[derive(Debug)]
pub(super) struct FoundFile {
    pub(super) path: String,
    pub(super) executable: bool,
    pub(super) state: FileState,
}

/// The digests of files, in the order in which the files were given.
pub(super) struct Digested {
    pub(super) digests: Vec<Digest>,
    pub(super) hashed_count: usize,
}

struct Hashed {
    state: FileState,
    digest: Digest,
    read_at: SystemTime,
}

/// The digests of files that lie anywhere, in the order given, from `cache` where it knows them; the others are read
/// on all processors and added to it. It blocks.
///
/// # Errors
/// [`ScanError::Read`] or [`ScanError::Changing`], naming the file.
pub fn digest_paths(
    paths: &[PathBuf],
    cache: Option<&mut FileDigestCache>,
) -> Result<Vec<Digest>, ScanError> {
    let state_of = |path: &PathBuf| -> Result<(PathBuf, FileState), ScanError> {
        let metadata = std::fs::metadata(path).map_err(|source| ScanError::Read {
            path: path.clone(),
            source,
        })?;
        Ok((path.clone(), FileState::of(&metadata)))
    };
    let files = paths.iter().map(state_of).collect::<Result<Vec<_>, _>>()?;
    digest_files(files, cache, available_threads()).map(|digested| digested.digests)
}

/// Finds the digests of files, in the cache if it knows them, else by reading them on `threads` threads.
pub(super) fn digest_files(
    files: Vec<(PathBuf, FileState)>,
    mut cache: Option<&mut FileDigestCache>,
    threads: usize,
) -> Result<Digested, ScanError> {
    let mut digests = vec![Digest::EMPTY; files.len()];
    let mut unknown = Vec::new();
    for (index, (path, state)) in files.into_iter().enumerate() {
        match cache.as_mut().and_then(|cache| cache.find(&path, &state)) {
            Some(digest) => digests[index] = digest,
            None => unknown.push((index, path)),
        }
    }
    let hashed = hash_all(&unknown, threads)?;
    let hashed_count = hashed.len();
    for (position, file) in hashed {
        let (index, path) = &mut unknown[position];
        digests[*index] = file.digest;
        if let Some(cache) = cache.as_mut() {
            cache.remember(std::mem::take(path), file.state, file.digest, file.read_at);
        }
    }
    Ok(Digested {
        digests,
        hashed_count,
    })
}

/// Hashes files on several threads; each takes the next file that nobody has taken.
fn hash_all(files: &[(usize, PathBuf)], threads: usize) -> Result<Vec<(usize, Hashed)>, ScanError> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Hashed)>, ScanError> {
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
fn hash_file(path: &Path, buffer: &mut [u8]) -> Result<Hashed, ScanError> {
    let failed = |source| ScanError::Read {
        path: path.to_owned(),
        source,
    };
    for _ in 0..READ_ATTEMPTS {
        if let Some(hashed) = hash_once(path, buffer).map_err(failed)? {
            return Ok(hashed);
        }
    }
    Err(ScanError::Changing {
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
