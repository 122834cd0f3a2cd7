//! Large blobs and the chunks that they are made of (REAPI, `SplitBlob` and `SpliceBlob`).

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::TryStreamExt as _;
use regatta_cas::{
    BlobRange, BlobStore, BlobStream, ChunkMapping, ChunkedBlobStore, ChunkingParams, MAX_CHUNKS,
    StoreError, checked_body, concatenated, put_chunks,
};
use regatta_model::{Digest, PlantedBug, TenantId};
use regatta_wire::reapi;
use regatta_wire::reapi::chunking_function::Value as ChunkingFunction;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{TenantViews, find_missing};
use crate::status::{self, Failure};

/// How blobs are cut by every coordinator, and how clients are asked to cut them.
pub(crate) const CHUNKING_PARAMS: ChunkingParams = ChunkingParams::RECOMMENDED;
/// The largest blob that is made of chunks, in bytes. A short request may name a large chunk many times, so
/// what it may set in motion has to be bounded.
const MAX_SPLICED_SIZE_BYTES: u64 = 16 << 30;
/// How many blobs are split or spliced at once. Each takes some 30 MiB at most, and as much of the store as
/// there is.
const CONCURRENT_BLOBS: usize = 4;

/// Splits and splices the blobs of a store, which keeps them as chunks from then on. A blob whose chunks are
/// not known is cut.
#[derive(Debug, Clone)]
pub(crate) struct ChunkedBlobs {
    blobs: TenantViews<dyn BlobStore>,
    kept: TenantViews<ChunkedBlobStore>,
    work: Arc<Semaphore>,
}

/// The same for one tenant.
#[derive(Debug)]
pub(crate) struct ChunkedBlobsOfTenant {
    blobs: Arc<dyn BlobStore>,
    kept: Arc<ChunkedBlobStore>,
    work: Arc<Semaphore>,
}

impl ChunkedBlobs {
    /// Chunks go where the blobs are: they are blobs themselves. What is made of them is `kept` below `blobs`.
    pub(crate) fn new(
        blobs: TenantViews<dyn BlobStore>,
        kept: TenantViews<ChunkedBlobStore>,
    ) -> Self {
        Self {
            blobs,
            kept,
            work: Arc::new(Semaphore::new(CONCURRENT_BLOBS)),
        }
    }

    /// As a tenant uses it.
    pub(crate) fn of(&self, tenant: &TenantId) -> ChunkedBlobsOfTenant {
        ChunkedBlobsOfTenant {
            blobs: self.blobs.of(tenant),
            kept: self.kept.of(tenant),
            work: Arc::clone(&self.work),
        }
    }
}

impl ChunkedBlobsOfTenant {
    /// Names the chunks of a blob, all of which are stored when this returns.
    pub(crate) async fn split(
        &self,
        request: reapi::SplitBlobRequest,
    ) -> Result<reapi::SplitBlobResponse, Failure> {
        status::sha256_only(request.digest_function)?;
        let digest = status::digest_field(request.blob_digest.as_ref(), "blob_digest")?;
        if self.kept.params().most_chunks(digest.size_bytes()) > MAX_CHUNKS as u64 {
            return Err(status::not_found(format!(
                "blob {digest} is not split, because it may have more than {MAX_CHUNKS} chunks; read it \
                 as a whole"
            )));
        }
        // Also makes the blob stay for as long as its chunks.
        if !self.missing(&[digest]).await?.is_empty() {
            return Err(status::of_read(&StoreError::NotFound { digest }));
        }
        let mapping = match self.recall(&digest).await? {
            Some(mapping) => mapping,
            None => self.cut(digest).await?,
        };
        Ok(reapi::SplitBlobResponse {
            chunk_digests: mapping.chunks.iter().map(Into::into).collect(),
            chunking_function: mapping.function.into(),
        })
    }

    /// Makes a blob of chunks that are stored, in their order, if that gives the blob that is asked for.
    pub(crate) async fn splice(
        &self,
        request: reapi::SpliceBlobRequest,
    ) -> Result<reapi::SpliceBlobResponse, Failure> {
        status::sha256_only(request.digest_function)?;
        let digest = status::digest_field(request.blob_digest.as_ref(), "blob_digest")?;
        let chunks = chunks_of(&request.chunk_digests, &digest)?;
        let function = ChunkingFunction::try_from(request.chunking_function)
            .unwrap_or(ChunkingFunction::Unknown);
        let response = reapi::SpliceBlobResponse {
            blob_digest: Some(digest.into()),
        };
        let is_there = self.missing(&[digest]).await?.is_empty();
        let missing = self.missing(&chunks).await?;
        match (is_there, missing.first()) {
            (true, None) => return Ok(response),
            (true, Some(_)) => {
                return Err(status::already_exists(format!(
                    "blob {digest} is there already, but {} of the chunks named are not; ask for its \
                     chunks with SplitBlob",
                    missing.len()
                )));
            }
            (false, Some(first)) if !PlantedBug::ChunksUnchecked.is_planted() => {
                return Err(status::not_found(format!(
                    "{} of the chunks are missing, {first} first; upload them and try again",
                    missing.len()
                )));
            }
            (false, _) => {}
        }
        let _permit = self.permit().await?;
        let body = concatenated(Arc::clone(&self.blobs), chunks.clone());
        let mapping = ChunkMapping {
            // The empty blob always exists, and is never stored.
            chunks: chunks
                .into_iter()
                .filter(|it| !it.is_empty_blob())
                .collect(),
            function,
        };
        let kept = match self.kept.may_keep(&digest, &mapping) && self.is_cut_well(&mapping.chunks)
        {
            true => self.keep_if_right(&digest, body, &mapping).await,
            false => self.blobs.put(&digest, body).await,
        };
        kept.map_err(|error| of_splice(&digest, &error))?;
        Ok(response)
    }

    /// Keeps a blob as chunks, whose bytes are `body`, if they make it up.
    async fn keep_if_right(
        &self,
        digest: &Digest,
        body: BlobStream,
        mapping: &ChunkMapping,
    ) -> Result<(), StoreError> {
        if PlantedBug::ChunksUnchecked.is_planted() {
            return self.kept.keep_as_chunks(digest, mapping).await;
        }
        let body = checked_body(*digest, body);
        body.try_for_each(|_| std::future::ready(Ok(()))).await?;
        self.kept.keep_as_chunks(digest, mapping).await
    }

    /// What a blob is known to be made of.
    async fn recall(&self, digest: &Digest) -> Result<Option<ChunkMapping>, Failure> {
        let mapping = self.kept.mapping(digest).await;
        mapping.map_err(|error| status::of_read(&error))
    }

    async fn cut(&self, digest: Digest) -> Result<ChunkMapping, Failure> {
        let _permit = self.permit().await?;
        // Somebody else may have cut it while this waited.
        if let Some(mapping) = self.recall(&digest).await? {
            return Ok(mapping);
        }
        let cut = async {
            let body = self.blobs.get(&digest, BlobRange::ALL).await?;
            let blobs = self.blobs.as_ref();
            let mapping = ChunkMapping {
                chunks: put_chunks(blobs, self.kept.params(), &digest, body).await?,
                function: ChunkingFunction::FastCdc2020,
            };
            self.kept.keep_as_chunks(&digest, &mapping).await?;
            Ok(mapping)
        };
        cut.await
            .map_err(|error: StoreError| status::of_read(&error))
    }

    /// Those of the digests that are absent, each once.
    async fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Failure> {
        let different: BTreeSet<Digest> = digests.iter().copied().collect();
        let different: Vec<Digest> = different.into_iter().collect();
        let missing = find_missing(self.blobs.as_ref(), &different).await;
        missing.map_err(|error| status::of_read(&error))
    }

    /// Whether chunks are of the sizes that are made here. Others make up their blob just as well, but whoever
    /// asks for the chunks of a blob is better served with the usual ones.
    fn is_cut_well(&self, chunks: &[Digest]) -> bool {
        let params = self.kept.params();
        let sizes = params.min_bytes() as u64..=params.max_bytes() as u64;
        let Some((last, others)) = chunks.split_last() else {
            return true;
        };
        last.size_bytes() <= *sizes.end()
            && others
                .iter()
                .all(|chunk| sizes.contains(&chunk.size_bytes()))
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let permit = self.work.acquire().await;
        permit
            .map_err(|_| status::unavailable("the server is stopping", status::DEFAULT_RETRY_DELAY))
    }
}

/// The chunks of a request, as far as their number and sizes tell that they can make up the blob.
fn chunks_of(messages: &[reapi::Digest], digest: &Digest) -> Result<Vec<Digest>, Failure> {
    const FIELD: &str = "chunk_digests";
    if messages.len() > MAX_CHUNKS {
        let count = messages.len();
        let description = format!("there are {count} chunks, at most {MAX_CHUNKS} are taken");
        return Err(status::invalid_argument(FIELD, description));
    }
    let chunks = super::digests_of(messages, FIELD)?;
    let (total, expected) = (size_of(&chunks), digest.size_bytes());
    if total != expected {
        let description = format!("the chunks have {total} bytes, the blob has {expected}");
        return Err(status::invalid_argument(FIELD, description));
    }
    if expected > MAX_SPLICED_SIZE_BYTES {
        let description = format!(
            "{expected} bytes are more than the {MAX_SPLICED_SIZE_BYTES} that are made of chunks; use \
             ByteStream"
        );
        return Err(status::invalid_argument("blob_digest", description));
    }
    Ok(chunks)
}

fn size_of(chunks: &[Digest]) -> u64 {
    let sizes = chunks.iter().map(Digest::size_bytes);
    sizes.fold(0, u64::saturating_add)
}

/// Why chunks did not become the blob `digest`.
fn of_splice(digest: &Digest, error: &StoreError) -> Failure {
    match error {
        StoreError::Corrupt { expected, actual } if expected == digest => {
            let description = format!("the chunks make up {actual}, not {digest}");
            status::invalid_argument("blob_digest", description)
        }
        // Also of a chunk that is gone or damaged meanwhile.
        error => status::of_read(error),
    }
}
