//! Where everything is that may be let go.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use regatta_cas::{AbsenceIndex, BlobStore, Deletions, ListedBlobStore, MemoryTier, StoreError};
use regatta_model::Digest;

use super::entry::{Key, Kind};

/// Where things of one kind are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The objects themselves.
    pub(crate) objects: Arc<dyn ListedBlobStore>,
    /// What knows of them, whose deletions are told to all that knows.
    pub(crate) store: Arc<dyn BlobStore>,
    /// What knows which of them are absent.
    pub(crate) absence: Option<Arc<AbsenceIndex>>,
}

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) of_kind: HashMap<Kind, Place>,
    /// Has blobs in memory.
    pub(crate) memory: Arc<MemoryTier>,
    /// Allowed while nobody else can have the ledger: another coordinator that has it uses the store, too.
    pub(crate) deletions: Deletions,
}

impl Places {
    pub(super) fn of(&self, kind: Kind) -> Result<&Place, StoreError> {
        self.of_kind
            .get(&kind)
            .ok_or_else(|| StoreError::Unavailable {
                detail: format!("{kind:?} has no place"),
            })
    }

    pub(super) fn list(&self, kind: Kind) -> BoxStream<'static, Result<Digest, StoreError>> {
        match self.of(kind) {
            Ok(place) => place.objects.list(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    /// What knows what is absent has learned of everything that ever was. From now on it collects anew.
    pub(super) fn begin_renewal(&self, kind: Kind) {
        if let Ok(place) = self.of(kind)
            && let Some(absence) = &place.absence
        {
            absence.begin_renewal();
        }
    }

    pub(super) fn end_renewal(&self, kind: Kind, present: &[Digest]) {
        if let Ok(place) = self.of(kind)
            && let Some(absence) = &place.absence
        {
            absence.end_renewal(present);
        }
    }

    /// Whether much of what is remembered there is gone, if there are so many things at most.
    pub(super) fn wants_renewal(&self, kind: Kind, present: usize) -> bool {
        let place = self.of_kind.get(&kind);
        let absence = place.and_then(|place| place.absence.as_ref());
        absence.is_some_and(|absence| absence.wants_renewal(present))
    }

    pub(super) fn note_present(&self, kind: Kind, digest: &Digest) {
        if let Ok(place) = self.of(kind)
            && let Some(absence) = &place.absence
        {
            absence.note(digest);
        }
    }

    /// Those of some digests that are not in the store, whatever is known of it.
    pub(super) async fn really_missing(
        &self,
        kind: Kind,
        digests: &[Digest],
    ) -> Result<Vec<Digest>, StoreError> {
        self.of(kind)?.objects.find_missing(digests).await
    }

    pub(super) async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let deleting = self.of(key.kind)?.store.delete(&key.digest);
        self.deletions.while_allowed(deleting).await?;
        self.memory.forget(&key.digest);
        Ok(())
    }
}
