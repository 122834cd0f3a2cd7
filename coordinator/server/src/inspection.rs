//! Looks through everything that is stored, and says or mends what is wrong with it.
//!
//! It reads the store itself, whether or not a coordinator runs: what is let go meanwhile is passed over. To mend
//! anything it takes what a coordinator takes, so that none can run: the state directory and, if coordinators share a
//! storage, the ledger (`tenancy`).

mod error;
mod leftovers;
mod tenancy;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use regatta_cas::{
    BlobRange, BlobStore, ChunkedBlobStore, EmptyBlobStore, StoreError, checked_body, read_all,
};
use regatta_ledger::PostgresAddress;
use regatta_model::Digest;

pub use self::error::InspectError;
use self::leftovers::{leftovers, remove};
use self::tenancy::Tenancy;
use crate::action_cache::{EntryFault, fault_of};
use crate::assets::is_asset;
use crate::retention::{CacheUsage, Kind, note_gone, noted_storage, usage_of};
use crate::sealed::MAX_SEALED_SIZE_BYTES;
use crate::state_directory::{StateDirectory, StateDirectoryError};
use crate::storage::{directory_of, url_of};
use crate::stored_objects::{SmallBlobs, StoredObjects, Upkeep};

/// What is packed in a bucket was listed no longer ago than this. What seems wrong is looked at again after it: a result
/// may be newer than what is known of its blobs.
const LISTED_AGAIN_AFTER: Duration = Duration::from_secs(11);
/// How many things are looked at at once.
const CONCURRENT_READS: usize = 4;

/// Where what is looked at is.
#[derive(Debug, Clone)]
pub struct StoreLocation {
    /// The coordinator's state directory.
    pub state_directory: PathBuf,
    /// The URL below which everything is stored, if it is not stored there.
    pub storage: Option<String>,
    /// The ledger that its coordinators share, if they do. Nothing is repaired unless it is nobody's.
    pub ledger: Option<PostgresAddress>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFault {
    /// What it is wrong with: a `blob`, a `chunked-blob`, a `result` or an `asset`.
    pub kind: &'static str,
    /// The blob, or the key of what is none.
    pub digest: Digest,
    /// What is wrong.
    pub problem: String,
    /// Whether it was removed, so that it can come again.
    pub repaired: bool,
}

/// What was looked at, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreReport {
    /// Blobs that are stored as wholes, chunks among them.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that are stored as chunks.
    pub chunked_blobs: u64,
    /// Action results.
    pub results: u64,
    /// Assets.
    pub assets: u64,
    /// What is wrong, in the order in which it was found.
    pub faults: Vec<StoreFault>,
    /// Files of uploads and writes that a coordinator that is gone has left; not looked for while one runs.
    pub leftovers: Vec<PathBuf>,
    /// Whether these were removed.
    pub leftovers_removed: bool,
    /// Files of writes to a storage that is not in the state directory. Another coordinator may go on with them:
    /// they are left alone.
    pub unfinished: Vec<PathBuf>,
}

impl StoreReport {
    /// Whether anything is wrong and stays so.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.faults.iter().all(|fault| fault.repaired)
    }
}

/// How much is stored, by the coordinator's log of uses, whether or not it runs.
///
/// # Errors
/// There is no such log or no such storage, it is the log of another storage, or it cannot be read.
pub fn cache_usage(location: &StoreLocation) -> Result<CacheUsage, InspectError> {
    let directory = &location.state_directory;
    check_state(directory)?;
    if let Some(url) = &location.storage {
        check_there(url)?;
        let theirs = noted_storage(directory).map_err(in_file(directory))?;
        check_same(directory, theirs, url)?;
    }
    usage_of(directory).map_err(in_file(directory))
}

/// Reads everything that is stored. With `repair`, what is wrong is removed, so that whoever needs it sends or
/// makes it again.
///
/// # Errors
/// [`InspectError`]: not everything has been looked at.
pub async fn verify_store(
    location: &StoreLocation,
    repair: bool,
) -> Result<StoreReport, InspectError> {
    check_state(&location.state_directory)?;
    let taken = match (repair, StateDirectory::take(&location.state_directory)) {
        (_, Ok(state)) => Some(state),
        (false, Err(StateDirectoryError::InUse { .. })) => None,
        (_, Err(error)) => return Err(error.into()),
    };
    let tenancy = match repair {
        true => Tenancy::take(location).await?,
        false => Tenancy::none(),
    };
    let inspection = Inspection::open(location)?;
    let mut report = StoreReport::default();
    for kind in [Kind::Blob, Kind::Mapping, Kind::Result, Kind::Asset] {
        inspection
            .inspect(kind, (repair, &tenancy), &mut report)
            .await?;
    }
    if taken.is_some() {
        let found = leftovers(&location.state_directory, &url(location)?)?;
        report.leftovers = found.own;
        report.unfinished = found.in_storage;
        if repair {
            remove(&report.leftovers)?;
            report.leftovers_removed = true;
        }
    }
    Ok(report)
}

fn check_state(directory: &Path) -> Result<(), InspectError> {
    match directory.join("lock").exists() {
        true => Ok(()),
        false => Err(InspectError::NoState {
            directory: directory.to_owned(),
        }),
    }
}

/// Sees that a log of uses is that of a storage. What a coordinator of an earlier release stored in is not known.
fn check_same(state: &Path, theirs: Option<String>, ours: &str) -> Result<(), InspectError> {
    match theirs {
        Some(theirs) if theirs.trim_end_matches('/') != ours.trim_end_matches('/') => {
            Err(InspectError::NotItsStorage {
                state: state.to_owned(),
                theirs,
                ours: ours.to_owned(),
            })
        }
        Some(_) | None => Ok(()),
    }
}

/// Sees that there is a storage. Opening one in a directory would make it.
fn check_there(url: &str) -> Result<(), InspectError> {
    let is_there = match directory_of(url) {
        Some(directory) => directory.join(Kind::Blob.place()).is_dir(),
        // What is in a process's memory is nobody else's.
        None => !url.starts_with("memory:"),
    };
    let url = url.to_owned();
    is_there
        .then_some(())
        .ok_or(InspectError::NoStorage { url })
}

const fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Blob => "blob",
        Kind::Mapping => "chunked-blob",
        Kind::Result => "result",
        Kind::Asset => "asset",
    }
}

/// The store, with nothing between.
struct Inspection {
    objects: StoredObjects,
    is_bucket: bool,
    /// Blobs as whoever asks for them gets them.
    chunked: Arc<ChunkedBlobStore>,
    whole: EmptyBlobStore,
    state: PathBuf,
}

impl Inspection {
    fn open(location: &StoreLocation) -> Result<Self, InspectError> {
        let url = url(location)?;
        check_there(&url)?;
        let objects = StoredObjects::open(&url, SmallBlobs::below(&url), Upkeep::Elsewhere)?;
        let chunked = Arc::new(ChunkedBlobStore::new(
            Arc::clone(objects.of(Kind::Blob)) as _,
            Arc::clone(objects.of(Kind::Mapping)) as _,
        ));
        Ok(Self {
            objects,
            is_bucket: SmallBlobs::below(&url) == SmallBlobs::Packed,
            whole: EmptyBlobStore::new(Arc::clone(&chunked) as _),
            chunked,
            state: location.state_directory.clone(),
        })
    }

    async fn inspect(
        &self,
        kind: Kind,
        (repair, tenancy): (bool, &Tenancy),
        report: &mut StoreReport,
    ) -> Result<(), InspectError> {
        let listed: BoxStream<'static, Result<Digest, StoreError>> = self.objects.of(kind).list();
        // What is in a listing may be named twice while files come and go.
        let mut looked = listed
            .map(|digest| async move {
                let digest = digest?;
                let problem = self.problem(kind, &digest).await?;
                Ok::<_, StoreError>((digest, problem))
            })
            .buffer_unordered(CONCURRENT_READS);
        let mut suspects = Vec::new();
        while let Some(looked) = looked.next().await {
            let (digest, problem) = looked?;
            count(kind, &digest, report);
            suspects.extend(problem.map(|_| digest));
        }
        if !suspects.is_empty() && self.is_bucket {
            tokio::time::sleep(LISTED_AGAIN_AFTER).await;
        }
        let mut faults = Vec::new();
        for digest in suspects {
            let problem = self.problem(kind, &digest).await?;
            faults.extend(problem.map(|problem| StoreFault {
                kind: name_of(kind),
                digest,
                problem,
                repaired: repair,
            }));
        }
        if repair {
            self.repair(kind, &faults, tenancy).await?;
        }
        report.faults.append(&mut faults);
        Ok(())
    }

    /// Removes what is wrong. The log of uses never names what is gone; it is read once for all of it, as it may be long.
    async fn repair(
        &self,
        kind: Kind,
        faults: &[StoreFault],
        tenancy: &Tenancy,
    ) -> Result<(), InspectError> {
        let gone = faults.iter().map(|fault| (kind, fault.digest));
        note_gone(&self.state, gone).map_err(in_file(&self.state))?;
        for fault in faults {
            let deleting = self.objects.of(kind).delete(&fault.digest);
            tenancy.deletions().while_allowed(deleting).await?;
        }
        Ok(())
    }

    async fn problem(&self, kind: Kind, digest: &Digest) -> Result<Option<String>, StoreError> {
        match kind {
            Kind::Blob => {
                self.problem_of_bytes(self.objects.of(Kind::Blob).as_ref(), digest)
                    .await
            }
            Kind::Mapping => self.problem_of_mapping(digest).await,
            Kind::Result => self.problem_of_result(digest).await,
            Kind::Asset => self.problem_of_asset(digest).await,
        }
    }

    /// What is wrong with a blob's bytes. One that is gone was let go.
    async fn problem_of_bytes(
        &self,
        store: &dyn BlobStore,
        digest: &Digest,
    ) -> Result<Option<String>, StoreError> {
        let read = async {
            let body = store.get(digest, BlobRange::ALL).await?;
            let body = checked_body(*digest, body);
            body.try_for_each(|_| std::future::ready(Ok(()))).await
        };
        match read.await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(None),
            Err(StoreError::Corrupt { actual, .. }) => Ok(Some(format!("its bytes are {actual}"))),
            Err(error) => Err(error),
        }
    }

    async fn problem_of_mapping(&self, digest: &Digest) -> Result<Option<String>, StoreError> {
        if self.chunked.mapping(digest).await?.is_none() {
            let gone = self
                .objects
                .of(Kind::Mapping)
                .find_missing(&[*digest])
                .await?;
            return Ok(gone
                .is_empty()
                .then(|| "chunks of it are missing, or which they are is damaged".to_owned()));
        }
        self.problem_of_bytes(self.chunked.as_ref(), digest).await
    }

    async fn problem_of_result(&self, key: &Digest) -> Result<Option<String>, StoreError> {
        let sealed = match read_all(
            self.objects.of(Kind::Result).as_ref(),
            key,
            MAX_SEALED_SIZE_BYTES,
        )
        .await
        {
            Ok(sealed) => sealed,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let problem = match fault_of(&sealed, &self.whole).await? {
            None => return Ok(None),
            Some(EntryFault::Damaged) => "it is damaged",
            Some(EntryFault::Incomplete) => "blobs that it names are missing",
        };
        // Results go before what they name: one that is still there names what is gone.
        let gone = self.objects.of(Kind::Result).find_missing(&[*key]).await?;
        Ok(gone.is_empty().then(|| problem.to_owned()))
    }

    async fn problem_of_asset(&self, key: &Digest) -> Result<Option<String>, StoreError> {
        match read_all(
            self.objects.of(Kind::Asset).as_ref(),
            key,
            MAX_SEALED_SIZE_BYTES,
        )
        .await
        {
            Ok(sealed) => Ok((!is_asset(&sealed)).then(|| "it is damaged".to_owned())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn count(kind: Kind, digest: &Digest, report: &mut StoreReport) {
    match kind {
        Kind::Blob => {
            report.blobs += 1;
            report.bytes += digest.size_bytes();
        }
        Kind::Mapping => report.chunked_blobs += 1,
        Kind::Result => report.results += 1,
        Kind::Asset => report.assets += 1,
    }
}

fn url(location: &StoreLocation) -> Result<String, InspectError> {
    match &location.storage {
        Some(url) => Ok(url.clone()),
        None => {
            let directory = &location.state_directory;
            let absolute = directory.canonicalize();
            absolute
                .map(|directory| url_of(&directory))
                .map_err(in_file(directory))
        }
    }
}

fn in_file(path: &Path) -> impl FnOnce(io::Error) -> InspectError {
    let path = path.to_owned();
    |source| InspectError::File { path, source }
}

#[cfg(test)]
mod tests;
