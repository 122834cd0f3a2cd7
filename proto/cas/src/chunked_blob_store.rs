//! Blobs as the chunks that they are made of.

mod chunk_mapping;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_model::{Digest, PlantedBug};

pub use chunk_mapping::ChunkMapping;

use self::chunk_mapping::MAX_MAPPING_BYTES;
use crate::whole_blob::bounds_of;
use crate::{
    BlobRange, BlobStore, BlobStream, ChunkingParams, Durability, SpooledBlob, StoreError,
    read_all, stream_of,
};

/// How many blobs are looked for among the mappings at once.
const FIND_CONCURRENCY: usize = 16;

/// Keeps blobs as a whole or as their chunks, whichever it was given: what blobs have in common is there
/// once.
///
/// Of a blob that is kept as chunks, a keyed store has the mapping, which says what it is made of; the chunks
/// are blobs like any other. It is there as long as all of its chunks are, and asking for it counts as a use
/// of each; reading a part of it, of those that have the part. The store below verifies chunks as they are read,
/// which verifies the blob: a mapping is stored only for chunks that were found to make it up.
///
/// A blob that is there as a whole is served as a whole. It is forgotten only after its mapping has been
/// stored, and readers look for it first: so at every moment they find one or the other.
pub struct ChunkedBlobStore {
    blobs: Arc<dyn BlobStore>,
    mappings: Arc<dyn BlobStore>,
    params: ChunkingParams,
    on_split: Option<OnSplit>,
    durability: Option<Arc<dyn Durability>>,
}

/// Is told of a blob and its chunks. Nothing if its whole has to stay as well.
type OnSplit = Arc<dyn Fn(&Digest, &[Digest]) -> Option<Box<dyn LeavingWhole>> + Send + Sync>;

/// The whole of a blob while it is forgotten, as it is kept as chunks by now.
pub trait LeavingWhole: Send {
    /// It is forgotten. If this is dropped instead, it may still be there.
    fn gone(self: Box<Self>);
}

impl ChunkedBlobStore {
    /// Whole blobs and chunks are in `blobs`, which verifies them; mappings are in `mappings`, which is keyed.
    #[must_use]
    pub fn new(blobs: Arc<dyn BlobStore>, mappings: Arc<dyn BlobStore>) -> Self {
        Self {
            blobs,
            mappings,
            params: ChunkingParams::RECOMMENDED,
            on_split: None,
            durability: None,
        }
    }

    /// The same for blobs that are cut with other parameters than those that REAPI recommends.
    #[must_use]
    pub fn with_params(self, params: ChunkingParams) -> Self {
        Self { params, ..self }
    }

    /// How blobs are cut that are kept here as chunks.
    #[must_use]
    pub const fn params(&self) -> ChunkingParams {
        self.params
    }

    /// Whether a blob is so large that it may be kept as chunks: a smaller one may be a chunk itself, and a chunk is
    /// always there as a whole.
    const fn is_large(&self, digest: &Digest) -> bool {
        digest.size_bytes() > self.params.max_bytes() as u64
    }

    /// The same, above a store that a machine may forget which loses power: a whole is forgotten only once its chunks
    /// are durable.
    #[must_use]
    pub fn with_durability(self, durability: Arc<dyn Durability>) -> Self {
        Self {
            durability: Some(durability),
            ..self
        }
    }

    /// The same; `on_split` is told of each blob that is kept as chunks from then on, and of these, once its
    /// mapping is stored and before its whole is forgotten. What it answers is held meanwhile.
    #[must_use]
    pub fn with_splits_observed(self, on_split: OnSplit) -> Self {
        Self {
            on_split: Some(on_split),
            ..self
        }
    }

    /// Whether a blob is large enough to be kept as these chunks, and not its own only one.
    #[must_use]
    pub const fn may_keep(&self, digest: &Digest, mapping: &ChunkMapping) -> bool {
        self.is_large(digest) && mapping.chunks.len() > 1
    }

    /// What a blob is made of, if it has been kept as chunks and all of them are there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it is not known.
    pub async fn mapping(&self, digest: &Digest) -> Result<Option<ChunkMapping>, StoreError> {
        let Some(mapping) = self.stored_mapping(digest).await? else {
            return Ok(None);
        };
        let missing = self.missing_chunks(&mapping).await?;
        Ok(missing.is_empty().then_some(mapping))
    }

    /// The chunks that are not there as wholes.
    async fn missing_chunks(&self, mapping: &ChunkMapping) -> Result<Vec<Digest>, StoreError> {
        self.missing_of(mapping.chunks.iter().copied()).await
    }

    async fn missing_of(
        &self,
        chunks: impl Iterator<Item = Digest>,
    ) -> Result<Vec<Digest>, StoreError> {
        let different: BTreeSet<Digest> = chunks.collect();
        let different: Vec<Digest> = different.into_iter().collect();
        self.blobs.find_missing(&different).await
    }

    /// Keeps the blob `digest` as chunks from now on, which are stored and were found to make it up; its
    /// whole is forgotten. A blob that is its own only chunk stays as it is.
    ///
    /// # Errors
    /// Those of [`BlobStore::put`], and [`StoreError::NotFound`] of a chunk that is not there; the blob is still
    /// there if it was there as a whole.
    pub async fn keep_as_chunks(
        &self,
        digest: &Digest,
        mapping: &ChunkMapping,
    ) -> Result<(), StoreError> {
        if !self.may_keep(digest, mapping) {
            return Ok(());
        }
        // Whatever the caller was told: without one of them, the blob would be gone.
        if let Some(&digest) = self.missing_chunks(mapping).await?.first()
            && !PlantedBug::ChunksUnchecked.is_planted()
        {
            return Err(StoreError::NotFound { digest });
        }
        if PlantedBug::WholeForgottenFirst.is_planted() {
            self.blobs.delete(digest).await?;
        }
        self.mappings
            .put(digest, stream_of(mapping.encode()))
            .await?;
        if !self.blobs.find_missing(&[*digest]).await?.is_empty() {
            // There is no whole, so nothing has to be safe before it goes. One that somebody stores meanwhile stays.
            if let Some(on_split) = &self.on_split {
                drop(on_split(digest, &mapping.chunks));
            }
            return Ok(());
        }
        if let Some(durability) = &self.durability {
            durability.settle().await?;
        }
        let Some(on_split) = &self.on_split else {
            return self.blobs.delete(digest).await;
        };
        let Some(leaving) = on_split(digest, &mapping.chunks) else {
            return Ok(());
        };
        self.blobs.delete(digest).await?;
        leaving.gone();
        Ok(())
    }

    async fn stored_mapping(&self, digest: &Digest) -> Result<Option<ChunkMapping>, StoreError> {
        if !self.is_large(digest) {
            return Ok(None);
        }
        match read_all(self.mappings.as_ref(), digest, MAX_MAPPING_BYTES).await {
            Ok(encoded) => {
                let mapping = ChunkMapping::decode(&encoded, digest);
                if mapping.is_none() {
                    tracing::error!(%digest, "what is stored of a blob's chunks is damaged");
                }
                Ok(mapping)
            }
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Those of some digests that have a mapping.
    async fn mapped_of(&self, digests: &[Digest]) -> Result<BTreeSet<Digest>, StoreError> {
        let large = digests.iter().copied();
        let large = large.filter(|digest| self.is_large(digest));
        let mut large: Vec<Digest> = large.collect();
        if large.is_empty() {
            return Ok(BTreeSet::new());
        }
        let unmapped = self.mappings.find_missing(&large).await?;
        let unmapped: BTreeSet<Digest> = unmapped.into_iter().collect();
        large.retain(|digest| !unmapped.contains(digest));
        Ok(large.into_iter().collect())
    }

    /// The digest itself unless it is kept as chunks.
    async fn missing(&self, digest: Digest) -> Result<Option<Digest>, StoreError> {
        let mapping = self.mapping(&digest).await?;
        Ok(mapping.is_none().then_some(digest))
    }

    /// A part of a blob from the parts of chunks that have it.
    fn assembled(&self, digest: Digest, parts: Vec<(Digest, BlobRange)>) -> BlobStream {
        let body = parts_in_order(Arc::clone(&self.blobs), parts);
        let of_blob = move |error| match error {
            StoreError::NotFound { .. } => StoreError::NotFound { digest },
            error => error,
        };
        body.map_err(of_blob).boxed()
    }
}

/// How many parts are opened ahead of the one that is read.
const OPENED_AHEAD: usize = 4;

/// The bytes of parts of blobs, one after the other. It ends with the error of the first that cannot be
/// read.
pub(crate) fn parts_in_order(
    store: Arc<dyn BlobStore>,
    parts: Vec<(Digest, BlobRange)>,
) -> BlobStream {
    stream::iter(parts)
        .map(move |(digest, range)| {
            let store = Arc::clone(&store);
            async move { store.get(&digest, range).await }
        })
        .buffered(OPENED_AHEAD)
        .try_flatten()
        .boxed()
}

impl fmt::Debug for ChunkedBlobStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ChunkedBlobStore")
            .field("blobs", &self.blobs)
            .field("mappings", &self.mappings)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobStore for ChunkedBlobStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        let absent = match self.blobs.get(digest, range).await {
            Err(absent @ StoreError::NotFound { .. }) => absent,
            found => return found,
        };
        let mapping = self.stored_mapping(digest).await?.ok_or(absent)?;
        let (start, end) = bounds_of(digest, digest.size_bytes(), range)?;
        let parts = mapping.parts(start, end);
        // Those of other parts need not be there, and asking for each may cost a request.
        let chunks = parts.iter().map(|(chunk, _)| *chunk);
        if !self.missing_of(chunks).await?.is_empty() {
            return Err(StoreError::NotFound { digest: *digest });
        }
        Ok(self.assembled(*digest, parts))
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        self.blobs.put(digest, body).await
    }

    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        self.blobs.put_spooled(digest, blob).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let missing = self.blobs.find_missing(digests).await?;
        // Most are absent for certain, if the mappings have an index.
        let mapped = self.mapped_of(&missing).await?;
        if mapped.is_empty() {
            return Ok(missing);
        }
        if PlantedBug::ListTakenForBlob.is_planted() {
            return Ok(missing
                .into_iter()
                .filter(|it| !mapped.contains(it))
                .collect());
        }
        let incomplete: BTreeSet<Digest> = stream::iter(mapped.clone())
            .map(|digest| self.missing(digest))
            .buffered(FIND_CONCURRENCY)
            .try_filter_map(|missing| std::future::ready(Ok(missing)))
            .try_collect()
            .await?;
        let is_missing = |it: &Digest| !mapped.contains(it) || incomplete.contains(it);
        Ok(missing.into_iter().filter(is_missing).collect())
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.blobs.delete(digest).await?;
        if !self.is_large(digest) {
            return Ok(());
        }
        // Its chunks stay: other blobs may be made of them too.
        self.mappings.delete(digest).await
    }
}

#[cfg(test)]
mod tests;
