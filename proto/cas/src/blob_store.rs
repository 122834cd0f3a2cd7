//! The port behind which all bytes live.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use regatta_model::Digest;

use crate::SpooledBlob;

/// A blob's bytes in order, in pieces of at most a few hundred KiB. It ends after its first error.
pub type BlobStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// Stores blobs under digests.
///
/// Every store is either content-addressed (each key is its value's digest; see
/// `VerifyingBlobStore`) or keyed (each key is a digest that somebody computed from something else:
/// the action cache). The port is the same.
///
/// What every implementation keeps, and the conformance suite checks:
/// - a blob is visible whole or not at all, whenever the caller or the process stops;
/// - the last of several writes of one key wins, and readers see one of them whole;
/// - `get` of an absent blob is [`StoreError::NotFound`], never an empty stream.
#[async_trait]
pub trait BlobStore: fmt::Debug + Send + Sync + 'static {
    /// Streams a blob from `offset` for `length` bytes, or to its end if that is sooner.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::OutOfRange`] if `offset` is beyond the end,
    /// [`StoreError::Corrupt`] or [`StoreError::Unavailable`]; errors after the first byte come in
    /// the stream.
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError>;

    /// Stores a blob, streaming.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a content-addressed store is given other bytes than the digest
    /// says; [`StoreError::Full`], [`StoreError::Exhausted`], [`StoreError::Unavailable`]; or whatever error `body`
    /// ended with.
    /// After an error nothing is visible.
    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError>;

    /// Stores a blob that was written to a file. A store may take the file for its own; to all others it is
    /// a body like any other.
    ///
    /// # Errors
    /// Those of [`BlobStore::put`].
    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        self.put(digest, blob.body()?).await
    }

    /// Those of `digests` that are absent, in the order given, and counts the others as used.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: presence is not known.
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError>;

    /// Forgets a blob; forgetting an absent one succeeds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the blob may still be there.
    async fn delete(&self, digest: &Digest) -> Result<(), StoreError>;
}

/// A store that can tell what it has.
pub trait ListedBlobStore: BlobStore {
    /// The blobs that are stored now, in no order. What is written or deleted while it is read may be in it or
    /// not. It ends after its first error, [`StoreError::Unavailable`]: the rest cannot be listed.
    fn list(&self) -> BoxStream<'static, Result<Digest, StoreError>>;
}

/// A store that may take something for stored which a machine that loses power forgets.
#[async_trait]
pub trait Durability: fmt::Debug + Send + Sync + 'static {
    /// Returns once everything that was stored before is safe.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it is not known whether it is.
    async fn settle(&self) -> Result<(), StoreError>;
}

/// A part of a blob, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlobRange {
    /// Where it begins.
    pub offset: u64,
    /// How long it is at most; to the end if `None`.
    pub length: Option<u64>,
}

impl BlobRange {
    /// The whole blob.
    pub const ALL: Self = Self {
        offset: 0,
        length: None,
    };
}

/// What can go wrong between a caller and a blob.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The blob is not there. Upload it, or do without.
    #[error("blob {digest} is not in the store")]
    NotFound {
        /// The blob asked for.
        digest: Digest,
    },
    /// A range begins beyond the end of its blob. Fix the request.
    #[error("offset {offset} is beyond the end of blob {digest}")]
    OutOfRange {
        /// The blob asked for.
        digest: Digest,
        /// The offset asked for, in bytes.
        offset: u64,
    },
    /// Bytes that do not have the digest they were stored or sent under.
    #[error("bytes sent or stored as {expected} are {actual}")]
    Corrupt {
        /// The digest they should have.
        expected: Digest,
        /// The digest they have.
        actual: Digest,
    },
    /// Bytes that were sent in a compressed form which cannot be undone. Send the right ones.
    #[error("what was sent as blob {digest} cannot be decompressed: {detail}")]
    Undecodable {
        /// The blob they should be.
        digest: Digest,
        /// What is wrong with them.
        detail: String,
    },
    /// No room. Make room, then try again.
    #[error("the store is full: {detail}")]
    Full {
        /// What is full, and what to do.
        detail: String,
    },
    /// The server that has the store takes nothing now: it has no room, or too much to do. Try again later.
    #[error("{detail}")]
    Exhausted {
        /// What it said.
        detail: String,
        /// How long to wait at least, if it said so.
        retry_after: Option<Duration>,
    },
    /// The server that has the store cannot reach it now. Try again later.
    #[error("{detail}")]
    Away {
        /// What it said.
        detail: String,
        /// How long to wait at least.
        retry_after: Duration,
    },
    /// The store could not be asked. Trying again may help.
    #[error("the store is unavailable: {detail}")]
    Unavailable {
        /// What was tried and what came back.
        detail: String,
    },
}
