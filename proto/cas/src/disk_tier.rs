//! Blobs as files close by.

mod fill;
mod find;
mod known_chunks;
mod local_file;
mod parts;
mod pinned_file;
mod residents;
mod shared;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _};
use regatta_model::Digest;

pub use known_chunks::BlobChunks;
pub use pinned_file::PinnedFile;

use self::fill::Origin;
use self::known_chunks::KnownChunks;
use self::local_file::{LocalFile, Part};
use self::pinned_file::Pin;
use self::shared::Shared;
use crate::single_flight::SingleFlight;
use crate::whole_blob::{bounds_of, is_whole};
use crate::{BlobRange, BlobStore, BlobStream, StoreError, checked_body, file_body};

/// Where a [`DiskCache`] keeps its files, and how many.
#[derive(Debug, Clone)]
pub struct DiskCacheSettings {
    /// The directory; made if it is absent. Nothing else may be in it, and one process at a time uses it.
    pub directory: PathBuf,
    /// How much disk space the files of all parts may take together, in bytes.
    pub capacity_bytes: u64,
    /// How much disk space is left free for others, in bytes: files go until there is as much.
    pub min_free_bytes: u64,
}

/// How much a [`DiskCache`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskCacheUsage {
    /// How many files there are.
    pub files: usize,
    /// The disk space of all files, those being fetched included, in bytes.
    pub used_bytes: u64,
    /// How many files cannot go because somebody uses them.
    pub pinned_files: usize,
}

/// A directory of files with one quota, shared by the tiers in front of several stores. Each has a part of
/// its own, and what is in one part says nothing about another; the least recently used file goes first,
/// whatever its part.
///
/// It survives a restart: what is in the directory is found again, in the order of its last use, and counts
/// whether or not a tier asks for its part. Clones share everything.
#[derive(Clone)]
pub struct DiskCache {
    shared: Arc<Shared>,
    fills: Arc<SingleFlight<LocalFile, Arc<Pin>>>,
}

/// Keeps the blobs that were read from a content-addressed store as files of a [`DiskCache`], and hands out
/// the files themselves, to be linked or mapped.
///
/// - Only verified bytes become files. A file that has another size, mode or modification time than it was
///   given was tampered with: it is discarded and fetched again.
/// - A blob has up to two files, one of them executable, because a mode belongs to the inode that all links
///   share. Both count.
/// - Writes and questions are passed on to the store below.
#[derive(Clone)]
pub struct DiskTier {
    store: Arc<dyn BlobStore>,
    chunks: Option<Arc<KnownChunks>>,
    cache: DiskCache,
    part: Part,
}

impl DiskCache {
    /// Opens the directory and finds the files in it. It blocks for as long as that takes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the directory cannot be used, or another process uses it.
    pub fn open(settings: DiskCacheSettings) -> Result<Self, StoreError> {
        Ok(Self {
            shared: Arc::new(Shared::open(settings)?),
            fills: Arc::new(SingleFlight::new()),
        })
    }

    /// A tier in front of `store`. Its part belongs to whatever `owner` is the digest of.
    #[must_use]
    pub fn tier(&self, store: Arc<dyn BlobStore>, owner: &Digest) -> DiskTier {
        DiskTier {
            store,
            chunks: None,
            cache: self.clone(),
            part: self.shared.part(&owner.hash_hex()),
        }
    }

    /// Removes files that nobody uses until the disk has as much free space as the settings ask for. It
    /// blocks. For when others fill the disk; a tier that fetches makes its own room.
    ///
    /// # Errors
    /// [`StoreError::Full`]: there is not enough room even without them.
    pub fn make_room(&self) -> Result<(), StoreError> {
        self.shared.make_room()
    }

    /// How much there is.
    #[must_use]
    pub fn usage(&self) -> DiskCacheUsage {
        self.shared.residents().usage()
    }

    /// The directory it keeps its files in.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        self.shared.directory()
    }
}

impl DiskTier {
    /// Gets of large blobs, whose chunks `chunks` knows, only what no file of this part has: of a large file
    /// that changed a little, little.
    #[must_use]
    pub fn with_chunks(self, chunks: Arc<dyn BlobChunks>) -> Self {
        Self {
            chunks: Some(Arc::new(KnownChunks::new(chunks))),
            ..self
        }
    }

    /// The blob as a file, which stays where it is until the guard is dropped. It may be linked, never
    /// written: whoever shows it to others shows it below a copy-on-write view, or as a copy.
    ///
    /// # Errors
    /// [`StoreError::Full`] if it does not fit beside what is in use, and those of [`BlobStore::get`].
    pub async fn file(&self, digest: &Digest, executable: bool) -> Result<PinnedFile, StoreError> {
        self.pinned(self.local_file(digest, executable)).await
    }

    /// The cache that it is a part of.
    #[must_use]
    pub fn cache(&self) -> &DiskCache {
        &self.cache
    }

    fn origin(&self) -> Origin {
        Origin {
            store: Arc::clone(&self.store),
            chunks: self.chunks.clone(),
        }
    }

    fn local_file(&self, digest: &Digest, executable: bool) -> LocalFile {
        LocalFile {
            part: self.part,
            digest: *digest,
            executable,
        }
    }

    async fn pinned(&self, file: LocalFile) -> Result<PinnedFile, StoreError> {
        let cache = &self.cache;
        let pin = match Pin::of_intact(&cache.shared, file) {
            Some(pin) => pin,
            None => {
                let (origin, shared) = (self.origin(), Arc::clone(&cache.shared));
                cache
                    .fills
                    .run(file, || fill::fill(origin, shared, file).boxed())
                    .await?
            }
        };
        Ok(PinnedFile::new(pin))
    }

    /// A local file of the blob, fetched if it is wanted whole; `None` if it is better read from below.
    async fn local(
        &self,
        digest: &Digest,
        range: BlobRange,
    ) -> Result<Option<PinnedFile>, StoreError> {
        for executable in [false, true] {
            let file = self.local_file(digest, executable);
            if let Some(pin) = Pin::of_intact(&self.cache.shared, file) {
                return Ok(Some(PinnedFile::new(pin)));
            }
        }
        if !is_whole(digest.size_bytes(), range) {
            return Ok(None);
        }
        match self.file(digest, false).await {
            Ok(file) => Ok(Some(file)),
            // No room to keep it is no reason not to read it.
            Err(StoreError::Full { detail }) => {
                tracing::debug!(%digest, detail, "reading past the disk tier");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn stream(&self, file: PinnedFile, range: BlobRange) -> Result<BlobStream, StoreError> {
        let digest = file.digest();
        let (start, end) = bounds_of(&digest, digest.size_bytes(), range)?;
        let path = file.path().to_owned();
        let opened = tokio::task::spawn_blocking(move || std::fs::File::open(path)).await;
        let opened = opened
            .map_err(std::io::Error::other)
            .and_then(|opened| opened);
        let opened = opened.map_err(|error| shared::unavailable("opening a file", &error))?;
        let body = file_body(opened, start, end - start);
        if (start, end) != (0, digest.size_bytes()) {
            return Ok(body);
        }
        Ok(discarding_if_corrupt(file, checked_body(digest, body)))
    }
}

/// Discards a file when its stream proves it corrupt; the next read fetches it again.
fn discarding_if_corrupt(file: PinnedFile, body: BlobStream) -> BlobStream {
    body.inspect(move |piece| {
        if let Err(StoreError::Corrupt { expected, actual }) = piece {
            tracing::error!(%expected, %actual, "a local file is corrupt; discarding it");
            file.discard();
        }
    })
    .boxed()
}

impl std::fmt::Debug for DiskTier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DiskTier")
            .field("store", &self.store)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for DiskCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DiskCache")
            .field("directory", &self.directory())
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for DiskTier {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        match self.local(digest, range).await? {
            Some(file) => self.stream(file, range).await,
            None => self.store.get(digest, range).await,
        }
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        self.store.put(digest, body).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.store.find_missing(digests).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        for executable in [false, true] {
            let file = self.local_file(digest, executable);
            self.cache.shared.discard(file);
        }
        self.store.delete(digest).await
    }
}

#[cfg(test)]
mod tests;
