//! Laying an input root out on disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use futures::{FutureExt as _, StreamExt as _, stream};
use regatta_cas::merkle::{Entry, LoadLimits, load};
use regatta_cas::{PinnedFile, StoreError};
use regatta_model::Digest;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::error::TreeError;
use crate::blobs::TenantStore;
use crate::retry::{Patience, patiently};

/// How many blobs are fetched at once.
const CONCURRENT_FETCHES: usize = 32;
/// How many files are linked on one visit to another thread, at most; they are pinned until then.
const LINKED_TOGETHER: usize = 8;
/// How long a store that does not answer is asked again for the blobs of a tree, since the last of them came.
const FETCH_RETRY_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
/// When everything was last changed, as jobs see it: 2010-01-01T00:00:00Z, in seconds. The blob cache
/// gives files the same time.
const FIXED_MTIME_SECONDS: i64 = 1_262_304_000;
const DIRECTORY_MODE: u32 = 0o755;

/// A tree as it will be on disk. All names in it are single, plain path components.
#[derive(Debug, Default)]
struct Plan {
    /// Parents first.
    directories: Vec<PathBuf>,
    symlinks: Vec<(PathBuf, String)>,
    /// Where each blob goes, and whether it may be executed there.
    files: BTreeMap<(Digest, bool), Vec<PathBuf>>,
    bytes: u64,
}

/// Lays the tree out in `target`, which exists and is empty; tells how large it is, in bytes.
pub(crate) async fn lay_out(
    store: &TenantStore,
    root: &Digest,
    target: &Path,
) -> Result<u64, TreeError> {
    let tree = load(store.directories(), root, LoadLimits::default()).await?;
    let mut plan = Plan::default();
    for (path, entry) in tree.entries() {
        plan.add(&target.join(path), entry);
    }
    drop(tree);
    let bytes = plan.bytes;
    let files = std::mem::take(&mut plan.files);
    let plan = blocking(target, move |_| plan.make_directories()).await?;
    fetch_files(store, target, files).boxed().await?;
    blocking(target, move |target| plan.finish(target)).await?;
    Ok(bytes)
}

async fn blocking<T: Send + 'static>(
    target: &Path,
    work: impl FnOnce(&Path) -> Result<T, TreeError> + Send + 'static,
) -> Result<T, TreeError> {
    let path = target.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&path)).await;
    done.map_err(|panic| TreeError::at(target)(io::Error::other(panic)))
        .flatten()
}

/// Every blob is tried, so that all that is missing is known at once. Files are linked as they come,
/// several on one visit to another thread.
async fn fetch_files(
    store: &TenantStore,
    target: &Path,
    files: BTreeMap<(Digest, bool), Vec<PathBuf>>,
) -> Result<(), TreeError> {
    let patience = Patience::of(FETCH_RETRY_LIMIT);
    let mut fetches = stream::iter(files)
        .map(|((digest, executable), paths)| {
            let fetched = fetch_file(store, (digest, executable), &patience);
            fetched.map(|file| Ok((file?, paths))).boxed()
        })
        .buffer_unordered(CONCURRENT_FETCHES)
        .ready_chunks(LINKED_TOGETHER);
    let mut missing = Vec::new();
    while let Some(fetched) = fetches.next().await {
        let mut here = Vec::with_capacity(fetched.len());
        for file in fetched {
            match file {
                Ok(file) => here.push(file),
                Err(TreeError::Missing { digests }) => missing.extend(digests),
                Err(error) => return Err(error),
            }
        }
        blocking(target, move |_| link_all(here)).await?;
    }
    missing.sort_unstable();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(TreeError::Missing { digests: missing })
    }
}

async fn fetch_file(
    store: &TenantStore,
    (digest, executable): (Digest, bool),
    patience: &Patience,
) -> Result<PinnedFile, TreeError> {
    let file = patiently(patience, || store.file(&digest, executable)).await;
    file.map_err(|error| match error {
        StoreError::NotFound { digest } => TreeError::Missing {
            digests: vec![digest],
        },
        other => TreeError::Store(other),
    })
}

/// Each file stays until its last link is made.
fn link_all(files: Vec<(PinnedFile, Vec<PathBuf>)>) -> Result<(), TreeError> {
    for (file, paths) in files {
        for path in paths {
            link(file.path(), &path).map_err(TreeError::at(&path))?;
        }
    }
    Ok(())
}

impl Plan {
    fn add(&mut self, path: &Path, entry: Entry) {
        match entry {
            Entry::Directory => self.directories.push(path.to_owned()),
            Entry::Symlink { target } => self.symlinks.push((path.to_owned(), target)),
            Entry::File { digest, executable } => {
                self.bytes += digest.size_bytes();
                self.files
                    .entry((digest, executable))
                    .or_default()
                    .push(path.to_owned());
            }
        }
    }

    fn make_directories(self) -> Result<Self, TreeError> {
        for path in &self.directories {
            fs::create_dir(path).map_err(TreeError::at(path))?;
        }
        Ok(self)
    }

    /// Links last, so that nothing is ever made through one; times last of all, children first.
    fn finish(&self, target: &Path) -> Result<(), TreeError> {
        for (path, to) in &self.symlinks {
            symlink(to, path).map_err(TreeError::at(path))?;
            set_mtime(path)?;
        }
        for path in self
            .directories
            .iter()
            .rev()
            .map(PathBuf::as_path)
            .chain([target])
        {
            let mode = fs::Permissions::from_mode(DIRECTORY_MODE);
            fs::set_permissions(path, mode).map_err(TreeError::at(path))?;
            set_mtime(path)?;
        }
        Ok(())
    }
}

/// A hard link, or a copy where the file has as many links as a file can have.
fn link(file: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(file, path) {
        Err(error) if error.kind() == io::ErrorKind::TooManyLinks => {
            fs::copy(file, path)?;
            set_mtime(path).map_err(|error| match error {
                TreeError::Io { source, .. } => source,
                other => io::Error::other(other),
            })
        }
        linked => linked,
    }
}

fn set_mtime(path: &Path) -> Result<(), TreeError> {
    let time = Timespec {
        tv_sec: FIXED_MTIME_SECONDS,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| TreeError::at(path)(error.into()))
}
