//! The objects that everything is stored in: each kind of thing in a place of its own.

use std::sync::Arc;

use regatta_cas::{
    AbandonedUploads, BlobFiles, BlobStore, Deletions, Durability, ListedBlobStore, Losses,
    ObjectStoreBlobStore, ObserveRequest, OpenStoreError, PackingBlobStore, VerifyingBlobStore,
    WrongReads,
};

use crate::retention::Kind;

/// How many packed blobs may be there before their absence is not known without asking, at 10 to 20 bytes each.
const PACKED_CAPACITY: usize = 1 << 21;

/// What becomes of small blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SmallBlobs {
    /// Those that are stored at about the same time are one object together.
    Packed,
    /// Each is an object of its own, as in a directory, where that costs nothing.
    Apart,
}

/// Who tidies up what small blobs are packed in.
#[derive(Debug, Clone)]
pub(crate) enum Upkeep {
    /// Whoever opens it, in the background; small blobs are forgotten while that is allowed.
    Here(Deletions),
    /// A coordinator: whoever opens it only looks.
    Elsewhere,
}

impl SmallBlobs {
    /// What becomes of them below a URL, unless somebody wants it otherwise.
    pub(crate) fn below(url: &str) -> Self {
        match url.starts_with("file:") {
            true => Self::Apart,
            false => Self::Packed,
        }
    }
}

/// Everything that is stored, without what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct StoredObjects {
    blobs: Arc<dyn ListedBlobStore>,
    /// The same blobs; nothing wrong gets in or out.
    pub(crate) verified_blobs: Arc<dyn BlobStore>,
    /// When what was to get out was wrong.
    pub(crate) wrong_reads: WrongReads,
    mappings: Arc<dyn ListedBlobStore>,
    results: Arc<dyn ListedBlobStore>,
    assets: Arc<dyn ListedBlobStore>,
    /// What is found to be gone of what is packed: blobs and results.
    losses: [Losses; 2],
    /// Of all of it, if a loss of power can take something that was stored.
    pub(crate) durability: Option<Arc<dyn Durability>>,
    /// What aborts uploads to the same place that nobody will end, if they would stay.
    pub(crate) uploads: Option<AbandonedUploads>,
}

impl StoredObjects {
    /// Opens what is below a URL.
    pub(crate) fn open(
        url: &str,
        small_blobs: SmallBlobs,
        upkeep: Upkeep,
    ) -> Result<Self, OpenStoreError> {
        let place = Arc::new(ObjectStoreBlobStore::open(url)?);
        let open = |name| opened(&place, name);
        let durability: Arc<dyn Durability> = Arc::clone(&place) as _;
        let uploads = place.abandoned_uploads();
        let uploads =
            uploads.map(|uploads| uploads.with_requests_observed(counting_requests("uploads")));
        if small_blobs == SmallBlobs::Apart {
            let blobs = Arc::new(open(Kind::Blob.place())?.with_sizes_checked());
            let (verified_blobs, wrong_reads) = verifying_files(&blobs);
            return Ok(Self {
                verified_blobs: Arc::new(verified_blobs),
                wrong_reads,
                blobs,
                mappings: Arc::new(open(Kind::Mapping.place())?),
                results: Arc::new(open(Kind::Result.place())?),
                assets: Arc::new(open(Kind::Asset.place())?),
                losses: Default::default(),
                durability: Some(durability),
                uploads,
            });
        }
        let open = |name| -> Result<Arc<dyn ListedBlobStore>, OpenStoreError> {
            let store = open(name)?;
            Ok(match name == Kind::Blob.place() {
                true => Arc::new(store.with_sizes_checked()),
                false => Arc::new(store),
            })
        };
        let objects = Self::over(open, small_blobs, upkeep)?;
        Ok(Self {
            durability: Some(durability),
            uploads,
            ..objects
        })
    }

    /// The same over any objects, which have their places' names, and lose nothing that was stored.
    pub(crate) fn over<Error>(
        open: impl Fn(&'static str) -> Result<Arc<dyn ListedBlobStore>, Error>,
        small_blobs: SmallBlobs,
        upkeep: Upkeep,
    ) -> Result<Self, Error> {
        let blobs = open(Kind::Blob.place())?;
        let results = open(Kind::Result.place())?;
        let (mappings, assets) = (open(Kind::Mapping.place())?, open(Kind::Asset.place())?);
        if small_blobs == SmallBlobs::Apart {
            let (verified_blobs, wrong_reads) = verifying(Arc::clone(&blobs) as _);
            return Ok(Self {
                verified_blobs: Arc::new(verified_blobs),
                wrong_reads,
                blobs,
                mappings,
                results,
                assets,
                losses: Default::default(),
                durability: None,
                uploads: None,
            });
        }
        let (packs_of_blobs, packs_of_results) = (open("cas-packs")?, open("ac-packs")?);
        let blobs = PackingBlobStore::new(packs_of_blobs, blobs, PACKED_CAPACITY);
        let results = PackingBlobStore::keyed(packs_of_results, results, PACKED_CAPACITY);
        let (blobs, results) = match upkeep {
            Upkeep::Here(deletions) => (
                blobs.with_deletions(deletions.clone()),
                results.with_deletions(deletions),
            ),
            Upkeep::Elsewhere => (blobs.without_upkeep(), results.without_upkeep()),
        };
        let losses = [blobs.losses(), results.losses()];
        let blobs = Arc::new(blobs);
        let (verified_blobs, wrong_reads) = verifying(Arc::clone(&blobs) as _);
        Ok(Self {
            verified_blobs: Arc::new(verified_blobs),
            wrong_reads,
            blobs,
            mappings,
            results: Arc::new(results),
            assets,
            losses,
            durability: None,
            uploads: None,
        })
    }

    /// What is found to be gone of one kind at once.
    pub(crate) fn losses_of(&self, kind: Kind) -> Losses {
        let [blobs, results] = &self.losses;
        match kind {
            Kind::Blob => blobs.clone(),
            Kind::Result => results.clone(),
            // Each is an object of its own.
            Kind::Mapping | Kind::Asset => Losses::default(),
        }
    }

    /// The objects of one kind.
    pub(crate) const fn of(&self, kind: Kind) -> &Arc<dyn ListedBlobStore> {
        match kind {
            Kind::Blob => &self.blobs,
            Kind::Mapping => &self.mappings,
            Kind::Result => &self.results,
            Kind::Asset => &self.assets,
        }
    }
}

/// Opens one of the stores in a place, whose requests are counted.
fn opened(
    place: &ObjectStoreBlobStore,
    name: &'static str,
) -> Result<ObjectStoreBlobStore, OpenStoreError> {
    let store = place.below(name)?;
    Ok(store.with_requests_observed(counting_requests(name)))
}

fn counting_requests(store: &'static str) -> ObserveRequest {
    Arc::new(move |request| {
        let labels = [("store", store), ("operation", request.name())];
        metrics::counter!("regatta_object_store_requests_total", &labels).increment(1);
    })
}

/// What lets nothing wrong in or out, and what tells when something was.
fn verifying(below: Arc<dyn BlobStore>) -> (VerifyingBlobStore, WrongReads) {
    let wrong_reads = WrongReads::default();
    let store = VerifyingBlobStore::new(below).with_wrong_reads_noted(wrong_reads.clone());
    (store, wrong_reads)
}

/// Whoever else writes to the store verifies what it writes, so that what was found right, and is an unchanged file,
/// need not be verified each time it is read.
fn verifying_files(store: &Arc<ObjectStoreBlobStore>) -> (VerifyingBlobStore, WrongReads) {
    let files: Arc<dyn BlobFiles> = Arc::clone(store) as _;
    let (verifying, wrong_reads) = verifying(Arc::clone(store) as _);
    (verifying.with_unchanged_trusted(files), wrong_reads)
}

#[cfg(test)]
mod tests {
    use regatta_cas::conformance;

    use super::*;

    #[tokio::test]
    async fn what_is_packed_conforms() {
        let objects = StoredObjects::open(
            "memory://",
            SmallBlobs::Packed,
            Upkeep::Here(Deletions::default()),
        )
        .unwrap();
        conformance::check_content_addressed(Arc::clone(&objects.verified_blobs)).await;
        conformance::check_keyed(Arc::clone(objects.of(Kind::Result)) as _).await;
    }

    #[test]
    fn small_blobs_are_packed_in_buckets_alone() {
        for (url, expected) in [
            ("file:///var/lib/regatta", SmallBlobs::Apart),
            ("s3://bucket/prefix", SmallBlobs::Packed),
            ("memory://", SmallBlobs::Packed),
        ] {
            assert_eq!(SmallBlobs::below(url), expected, "{url}");
        }
    }
}
