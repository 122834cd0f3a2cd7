//! Objects that are files of this machine.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use regatta_model::Digest;
use rustix::fs::{AtFlags, CWD, linkat, syncfs};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::name_of;
use crate::{FileState, SpooledBlob, StoreError};

/// The directory whose files are the objects.
#[derive(Debug)]
pub(super) struct LocalDirectory {
    root: PathBuf,
    openings: Semaphore,
}

/// How many files are opened at once, and read if they are small: more only wait for each other, and a process may
/// have so many open files.
const MAX_OPENINGS: usize = 256;

impl LocalDirectory {
    pub(super) fn new(root: PathBuf) -> Self {
        let openings = Semaphore::new(MAX_OPENINGS);
        Self { root, openings }
    }

    /// Waits until one more file may be opened; until the answer is dropped, it counts.
    pub(super) async fn opening(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.openings.acquire().await.ok()
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn state_of(&self, digest: &Digest) -> Option<FileState> {
        let metadata = self.path_of(digest).metadata().ok()?;
        Some(FileState::of(&metadata))
    }

    /// Makes a file the object of a blob, whole or not at all. Whether that could be done: the file may be in
    /// another file system, or of a kind that can be given no name.
    pub(super) async fn take(
        &self,
        digest: &Digest,
        blob: &SpooledBlob,
    ) -> Result<bool, StoreError> {
        let (path, size_bytes, blob) = (self.path_of(digest), digest.size_bytes(), blob.clone());
        // What it is copied for instead, if this goes wrong, says what is the matter.
        let taken = tokio::task::spawn_blocking(move || {
            let has_size = blob.file().metadata()?.len() == size_bytes;
            match has_size {
                true => link(blob.file(), &path).map(|()| true),
                false => Ok(false),
            }
        });
        match taken.await {
            Ok(Ok(taken)) => Ok(taken),
            Ok(Err(error)) => {
                tracing::debug!(%digest, %error, "a file cannot be linked into the store; copying it");
                Ok(false)
            }
            Err(error) => Err(StoreError::Unavailable {
                detail: format!("linking blob {digest} into the store: {error}"),
            }),
        }
    }

    /// Writes everything that is in memory only to the disk, as thousands of files that came one by one take longer.
    pub(super) async fn settle(&self) -> Result<(), StoreError> {
        let root = self.root.clone();
        let synced =
            tokio::task::spawn_blocking(move || Ok::<_, io::Error>(syncfs(File::open(root)?)?));
        let synced = synced.await.map_err(io::Error::other);
        synced.flatten().map_err(|error| StoreError::Unavailable {
            detail: format!("syncing {}: {error}", self.root.display()),
        })
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        let [folder, name] = name_of(digest);
        self.root.join(folder).join(name)
    }
}

/// Gives a file without a name the name `path`, in the place of any that has it.
fn link(file: &File, path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let staged = staged_name(path);
    // As the other blobs are; and nobody writes to one.
    file.set_permissions(Permissions::from_mode(0o444))?;
    // The way to name a file that has none, without privileges (open(2), `O_TMPFILE`).
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, unnamed, CWD, &staged, AtFlags::SYMLINK_FOLLOW)?;
    let placed = fs::rename(&staged, path);
    if placed.is_err() {
        fs::remove_file(&staged)?;
    }
    placed
}

/// A name beside `path` that is nobody else's, and that counts as temporary.
fn staged_name(path: &Path) -> PathBuf {
    let mut staged = path.as_os_str().to_owned();
    // Digits, which object_store too takes for a temporary file.
    staged.push(format!("#{}", uuid::Uuid::new_v4().as_u128()));
    staged.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::Spool;

    fn blob_in(folder: &Path) -> SpooledBlob {
        let mut spool = Spool::new(tempfile::tempfile_in(folder).unwrap(), true);
        spool.append(b"blob").unwrap();
        spool.seal()
    }

    #[tokio::test]
    async fn a_file_of_the_same_file_system_becomes_the_object() {
        let root = tempfile::tempdir().unwrap();
        let directory = LocalDirectory::new(root.path().to_owned());
        let digest = Digest::of(b"blob");
        // Whatever was there before goes.
        for _ in 0..2 {
            let blob = blob_in(root.path());
            assert!(directory.take(&digest, &blob).await.unwrap());
            let path = directory.path_of(&digest);
            let inode = blob.file().metadata().unwrap().ino();
            assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
            assert_eq!(std::fs::read(&path).unwrap(), b"blob");
            let folder = path.parent().unwrap();
            assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
            assert!(blob.reopen().is_none(), "it is the store's now");
        }
    }

    #[tokio::test]
    async fn a_directory_can_be_settled_as_long_as_it_is_there() {
        let root = tempfile::tempdir().unwrap();
        let directory = LocalDirectory::new(root.path().to_owned());
        assert!(directory.settle().await.is_ok());
        drop(root);
        let gone = directory.settle().await;
        assert!(
            matches!(gone, Err(StoreError::Unavailable { .. })),
            "{gone:?}"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_the_object_is_left() {
        let root = tempfile::tempdir().unwrap();
        let directory = LocalDirectory::new(root.path().to_owned());
        let blob = blob_in(root.path());
        let longer = Digest::new([1; 32], 5);
        assert!(!directory.take(&longer, &blob).await.unwrap());
        assert!(blob.reopen().is_some());
        // A file that had a name, and lost it, gets none again.
        let nameless = tempfile::NamedTempFile::new_in(root.path()).unwrap();
        let mut spool = Spool::new(nameless.reopen().unwrap(), true);
        drop(nameless);
        spool.append(b"blob").unwrap();
        let digest = Digest::of(b"blob");
        assert!(!directory.take(&digest, &spool.seal()).await.unwrap());
        assert!(!directory.path_of(&digest).exists());
    }
}
