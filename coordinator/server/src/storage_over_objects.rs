//! A coordinator's storage over any objects, for the fault simulation.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use regatta_cas::{BlobStore, ChunkingParams, ListedBlobStore};
use regatta_ledger::LedgerTenure;
use regatta_model::{Digest, TenantId};
use regatta_wire::reapi;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::cas::{ChunkedBlobs, InputTrees, TenantViews};
use crate::ledger::deletions_in;
use crate::retention::{CacheSettings, Evictor, Retention, UseLogFrom};
use crate::storage::{Nearby, Opening, Writers};
use crate::stored_objects::{SmallBlobs, StoredObjects, Upkeep};

/// What is chosen of a storage.
#[derive(Clone, Debug)]
pub struct StorageChoices {
    /// How much is kept, and for how long.
    pub cache: CacheSettings,
    /// Whether small blobs and results are packed.
    pub packs: bool,
    /// Whether nobody else writes to the objects, or deletes them: else nothing is let go.
    pub is_alone: bool,
    /// How much memory blobs that were read lately may take, in bytes.
    pub memory_bytes: u64,
    /// The largest blob that is kept in memory, in bytes.
    pub max_blob_bytes: u64,
    /// How long something is known to be there without asking.
    pub presence_expiry: Duration,
    /// How blobs are cut that are kept as chunks.
    pub chunking: ChunkingParams,
    /// Whether another coordinator may have used the objects since the log of uses was written.
    pub is_succession: bool,
    /// Whether the ledger is still this coordinator's, if another may have it: nothing is deleted once it may be.
    pub tenure: Option<watch::Receiver<LedgerTenure>>,
}

/// The stacks of stores that a coordinator has, and what lets go of what is unused.
#[derive(Debug)]
pub struct StorageOverObjects {
    /// Blobs under their digests, verified.
    pub blobs: TenantViews<dyn BlobStore>,
    /// The same as the chunks that they are made of.
    pub chunks: BlobChunks,
    /// Action results.
    pub results: TenantViews<dyn BlobStore>,
    /// Blobs whose use makes them stay for as long as verdicts.
    pub for_verdicts: TenantViews<dyn BlobStore>,
    /// Whether input roots are there; those that are needed are used again and again.
    pub trees: Arc<InputTrees>,
    evictor: Evictor,
}

impl StorageOverObjects {
    /// Opens objects, which have the names of their places; the log of uses is in the directory `state`.
    ///
    /// # Errors
    /// The log of uses cannot be opened.
    pub fn open(
        objects: impl Fn(&'static str) -> Arc<dyn ListedBlobStore>,
        state: &Path,
        choices: StorageChoices,
    ) -> io::Result<Self> {
        let log = match choices.is_succession {
            true => UseLogFrom::AnEarlierTerm,
            false => UseLogFrom::TheLastTerm,
        };
        let renewal_interval = choices.cache.renewal_interval();
        let (retention, was_complete) = Retention::open(state, None, choices.cache, log)?;
        let deletions = deletions_in(choices.tenure.as_ref());
        let upkeep = Upkeep::Here(deletions.clone());
        let opening = Opening {
            retention: &retention,
            writers: match choices.is_alone {
                true => Writers::This,
                false => Writers::Many,
            },
            is_known: was_complete,
            is_asked: false,
            nearby: Nearby {
                memory_bytes: choices.memory_bytes,
                max_blob_bytes: choices.max_blob_bytes,
                presence_expiry: choices.presence_expiry,
            },
            chunking: choices.chunking,
        };
        let small_blobs = match choices.packs {
            true => SmallBlobs::Packed,
            false => SmallBlobs::Apart,
        };
        let objects = StoredObjects::over(|place| Ok(objects(place)), small_blobs, upkeep)
            .unwrap_or_else(|never: Infallible| match never {});
        let storage = opening.storage(&objects, deletions);
        let trees = InputTrees::new(Arc::clone(storage.blobs.shared()));
        Ok(Self {
            trees: Arc::new(trees.renewing_every(renewal_interval)),
            evictor: Evictor {
                retention: Arc::clone(&retention),
                places: storage.places,
                // There is no ledger here that would know of verdicts.
                pins: None,
                may_evict: choices.is_alone,
                was_complete,
            },
            chunks: BlobChunks(ChunkedBlobs::new(storage.blobs.clone(), storage.chunked)),
            blobs: storage.blobs,
            results: storage.results,
            for_verdicts: storage.for_verdicts,
        })
    }

    /// Lets go of what is unused until `stop` is cancelled, then ends the log of uses.
    pub fn let_go_until(
        self,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.evictor.run(stop)
    }
}

/// Blobs and the chunks that they are made of, as clients ask for them.
#[derive(Debug, Clone)]
pub struct BlobChunks(ChunkedBlobs);

impl BlobChunks {
    /// Names the chunks of a blob (REAPI, `SplitBlob`).
    ///
    /// # Errors
    /// What a client is told.
    pub async fn split(&self, tenant: &TenantId, digest: &Digest) -> Result<Vec<Digest>, Status> {
        let request = reapi::SplitBlobRequest {
            blob_digest: Some(digest.into()),
            ..Default::default()
        };
        let response = self.0.of(tenant).split(request).await?;
        let chunks = response.chunk_digests.iter();
        Ok(chunks.filter_map(|it| it.try_into().ok()).collect())
    }

    /// Makes a blob of chunks that are stored (REAPI, `SpliceBlob`).
    ///
    /// # Errors
    /// What a client is told.
    pub async fn splice(
        &self,
        tenant: &TenantId,
        digest: &Digest,
        chunks: &[Digest],
    ) -> Result<(), Status> {
        let request = reapi::SpliceBlobRequest {
            blob_digest: Some(digest.into()),
            chunk_digests: chunks.iter().map(Into::into).collect(),
            ..Default::default()
        };
        self.0.of(tenant).splice(request).await?;
        Ok(())
    }
}
