//! Blobs in a directory or a bucket.

mod abandoned_uploads;
mod failure;
mod guarded;
mod local_directory;
mod observing;
mod open;
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod refusals;
mod told_once;
mod upload_shape;
mod writing;

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt as _,
};
use regatta_model::Digest;

pub use abandoned_uploads::AbandonedUploads;
pub use observing::{ObjectStoreRequest, ObserveRequest};
pub use open::OpenStoreError;

use self::failure::store_error;
use self::local_directory::LocalDirectory;
use self::told_once::ToldOnce;
use self::upload_shape::UploadShape;
use crate::whole_blob::{bounds_of, is_whole};
use crate::{
    BlobFiles, BlobRange, BlobStore, BlobStream, Durability, FileState, ListedBlobStore,
    SpooledBlob, StoreError, file_body, stream_of,
};

/// How many presence requests are under way at a time.
const FIND_CONCURRENCY: usize = 64;
/// Files of so many bytes are read as soon as they are opened.
const READ_AT_ONCE_BYTES: u64 = 64 << 10;

/// Keeps blobs in whatever crate `object_store` can reach, one object each, named
/// `<prefix>/<first 2 digits of the hash>/<hash>-<size>`.
///
/// A write becomes visible when the object store has all of it: by a rename in a directory, by completing
/// the upload in a bucket. Temporary files that a killed process leaves in a directory have a `#` in their
/// name, are never taken for blobs, and are removed when the directory is opened a day later.
///
/// It does not look at the bytes, so it can also be keyed. Presence costs a request per blob: put an
/// `ExistenceIndex` above it.
#[derive(Debug)]
pub struct ObjectStoreBlobStore {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    shape: UploadShape,
    /// Where the objects are files of this machine.
    directory: Option<LocalDirectory>,
    /// Whether each key tells the size of its value.
    checks_size: bool,
    /// Blobs that have another.
    wrong_sizes: ToldOnce,
    uploads: Option<AbandonedUploads>,
}

impl ObjectStoreBlobStore {
    /// Keeps blobs in `objects`, below `prefix`.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Self {
            objects,
            prefix: Path::from(prefix),
            shape: UploadShape::BUCKET,
            directory: None,
            checks_size: false,
            wrong_sizes: ToldOnce::default(),
            uploads: None,
        }
    }

    /// Counts an object that has another size than its key says as absent: a machine that loses power may
    /// leave a file cut off that had been renamed to its place. For stores whose keys are their values'
    /// digests.
    #[must_use]
    pub fn with_sizes_checked(self) -> Self {
        Self {
            checks_size: true,
            ..self
        }
    }

    /// Opens the store that `url` names: `file:///directory` (made if it is absent), `memory://`,
    /// `s3://bucket/prefix`, `gs://bucket/prefix` or `azure://container/prefix`. Credentials and endpoints
    /// of buckets come from the environment, as object_store documents (`AWS_*`, `GOOGLE_*`, `AZURE_*`).
    ///
    /// # Errors
    /// The URL names no store that this build can reach, or its directory cannot be made.
    pub fn open(url: &str) -> Result<Self, OpenStoreError> {
        open::open(url).map(Self::of)
    }

    /// A store of its own in the directory or below the prefix of this one. Stores in one bucket share their
    /// connections, and what is known of whether it answers.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn below(&self, name: &str) -> Result<Self, OpenStoreError> {
        if let Some(directory) = &self.directory {
            return open::in_directory(directory.root().join(name)).map(Self::of);
        }
        Ok(Self {
            objects: Arc::clone(&self.objects),
            prefix: self.prefix.clone().join(name),
            shape: self.shape,
            directory: None,
            checks_size: self.checks_size,
            wrong_sizes: ToldOnce::default(),
            uploads: self.uploads.clone(),
        })
    }

    /// What aborts uploads that nobody will end, of all stores in this one's bucket, if there may be any that stay.
    #[must_use]
    pub fn abandoned_uploads(&self) -> Option<AbandonedUploads> {
        self.uploads.clone()
    }

    fn of(opened: open::Opened) -> Self {
        Self {
            objects: opened.objects,
            prefix: opened.prefix,
            shape: opened.shape,
            directory: opened.directory,
            checks_size: false,
            wrong_sizes: ToldOnce::default(),
            uploads: opened.uploads,
        }
    }

    /// The blobs that are stored now, in no order. What is written while it is read may be in it or not.
    /// Objects whose names are no blob's are passed over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the rest cannot be listed. The stream ends with it.
    #[must_use]
    pub fn list(&self) -> BoxStream<'static, Result<Digest, StoreError>> {
        let objects = self.objects.list(Some(&self.prefix));
        let digests = objects.map(|object| object.map(|meta| digest_of(&meta.location)));
        let digests = digests.map_err(failure::read_error);
        let digests = digests.try_filter_map(|digest| std::future::ready(Ok(digest)));
        // Nothing after the first error: what follows it would seem to be all.
        digests
            .scan(false, |failed, listed| {
                let ended = std::mem::replace(failed, listed.is_err());
                std::future::ready((!ended).then_some(listed))
            })
            .boxed()
    }

    fn path_of(&self, digest: &Digest) -> Path {
        let [folder, name] = name_of(digest);
        self.prefix.clone().join(folder).join(name)
    }

    async fn get_range(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        let options = GetOptions {
            range: wanted(range),
            ..GetOptions::default()
        };
        // Nothing is waited for while it is held but the file, so that whoever waits for it gets it.
        let _opening = match &self.directory {
            Some(directory) => Some(directory.opening().await),
            None => None,
        };
        // What a blob that is stored as it is does not have, so that no store is asked for what it refuses: object_store
        // does not tell such a refusal from a failure, which would be asked again for seconds.
        if range.offset > 0 && range.offset >= digest.size_bytes() {
            let (start, end) = self.bounds(digest, range).await?;
            if start >= end {
                return Ok(stream_of(bytes::Bytes::new()));
            }
        }
        match self.objects.get_opts(&self.path_of(digest), options).await {
            Ok(found) => body_of(found).await,
            Err(error) => match store_error(digest, error) {
                missing @ StoreError::NotFound { .. } => Err(missing),
                // Nothing about the range can have been refused.
                failed if wanted(range).is_none() => Err(failed),
                refused => self.explain_refusal(digest, range, refused).await,
            },
        }
    }

    /// Object stores refuse ranges that begin at the end or beyond it, each in its own way: the size of the
    /// blob tells what the refusal means.
    async fn explain_refusal(
        &self,
        digest: &Digest,
        range: BlobRange,
        refused: StoreError,
    ) -> Result<BlobStream, StoreError> {
        let (start, end) = self.bounds(digest, range).await?;
        if start < end {
            return Err(refused);
        }
        Ok(stream_of(bytes::Bytes::new()))
    }

    async fn bounds(&self, digest: &Digest, range: BlobRange) -> Result<(u64, u64), StoreError> {
        let found = self.objects.head(&self.path_of(digest)).await;
        let found = found.map_err(|error| store_error(digest, error))?;
        bounds_of(digest, found.size, range)
    }

    /// The digest itself if it is absent.
    async fn missing(&self, digest: Digest) -> Result<Option<Digest>, StoreError> {
        match self.objects.head(&self.path_of(&digest)).await {
            Ok(found) if self.checks_size && found.size != digest.size_bytes() => {
                // Many results may name it, and each of them is asked for.
                if self.wrong_sizes.is_news(&digest) {
                    tracing::error!(%digest, found = found.size, "a stored blob has the wrong size");
                }
                Ok(Some(digest))
            }
            Ok(_) => Ok(None),
            Err(object_store::Error::NotFound { .. }) => Ok(Some(digest)),
            Err(error) => Err(store_error(&digest, error)),
        }
    }
}

/// What a blob's object is called, below the prefix.
fn name_of(digest: &Digest) -> [String; 2] {
    let hash = digest.hash_hex();
    let name = format!("{hash}-{}", digest.size_bytes());
    [hash[..2].to_owned(), name]
}

/// The blob whose object has this name, if there is one.
fn digest_of(path: &Path) -> Option<Digest> {
    let (hash, size) = path.filename()?.split_once('-')?;
    Digest::parse_hash(hash, size.parse().ok()?).ok()
}

fn wanted(range: BlobRange) -> Option<GetRange> {
    let BlobRange { offset, length } = range;
    match length {
        None if offset == 0 => None,
        None => Some(GetRange::Offset(offset)),
        Some(length) => Some(GetRange::Bounded(offset..offset.saturating_add(length))),
    }
}

async fn body_of(found: GetResult) -> Result<BlobStream, StoreError> {
    let range = found.range.clone();
    match found.payload {
        // Read here in large pieces, because object_store reads files in pieces of 8 KiB.
        GetResultPayload::File(file, _) => {
            let length = range.end.saturating_sub(range.start);
            let body = file_body(file, range.start, length);
            if length > READ_AT_ONCE_BYTES {
                return Ok(body);
            }
            // Whoever has it may take its time: it costs no open file.
            let pieces: Vec<_> = body.try_collect().await?;
            Ok(stream::iter(pieces.into_iter().map(Ok)).boxed())
        }
        // Cut here, because some stores send an object in one piece.
        GetResultPayload::Stream(body) => Ok(body
            .map_err(failure::read_error)
            .map_ok(stream_of)
            .try_flatten()
            .boxed()),
    }
}

#[async_trait]
impl BlobStore for ObjectStoreBlobStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        let range = if range.length.is_some() && is_whole(u64::MAX, range) {
            BlobRange::ALL
        } else {
            range
        };
        self.get_range(digest, range).await
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        let path = self.path_of(digest);
        writing::write(&self.objects, &path, digest, body, self.shape).await
    }

    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        if let Some(directory) = &self.directory
            && directory.take(digest, blob).await?
        {
            return Ok(());
        }
        self.put(digest, blob.body()?).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        futures::stream::iter(digests.to_vec())
            .map(|digest| self.missing(digest))
            .buffered(FIND_CONCURRENCY)
            .try_filter_map(|missing| std::future::ready(Ok(missing)))
            .try_collect()
            .await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        match self.objects.delete(&self.path_of(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error(digest, error)),
        }
    }
}

impl ListedBlobStore for ObjectStoreBlobStore {
    fn list(&self) -> BoxStream<'static, Result<Digest, StoreError>> {
        Self::list(self)
    }
}

#[async_trait]
impl Durability for ObjectStoreBlobStore {
    /// A bucket answers once it is; files are written to the disk here.
    async fn settle(&self) -> Result<(), StoreError> {
        match &self.directory {
            Some(directory) => directory.settle().await,
            None => Ok(()),
        }
    }
}

impl BlobFiles for ObjectStoreBlobStore {
    fn state_of(&self, digest: &Digest) -> Option<FileState> {
        self.directory.as_ref()?.state_of(digest)
    }
}

#[cfg(test)]
mod tests;
