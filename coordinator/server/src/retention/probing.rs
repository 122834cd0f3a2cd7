//! A store that has refused a write is tried until it takes one again.

use std::time::Duration;

use bytes::Bytes;
use regatta_cas::{ListedBlobStore, StoreError, put_bytes};

use super::entry::Kind;
use super::evictor::Evictor;

/// How long after a write was refused, or the last attempt, it is tried whether there is room again.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// How much there must be room for then, in bytes: with less, the next that is written would be refused again.
const PROBE_BYTES: usize = 1 << 20;

impl Evictor {
    /// Tries now and then whether there is room again, while a write was refused for want of it.
    pub(super) async fn try_for_room(&self) {
        let mut refusals = self.retention.refusals();
        loop {
            let refused = refusals.wait_for(|refusal| {
                let refusal = refusal.as_ref();
                refusal.is_some_and(super::room::Refusal::is_the_stores)
            });
            // Whoever tells lives as long as `self`, so this cannot fail.
            if refused.await.is_err() {
                return;
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
            let tried = match self.places.of(Kind::Blob) {
                Ok(place) => probe(place.objects.as_ref()).await,
                Err(error) => Err(error),
            };
            match tried {
                Ok(()) => self.retention.room.accepted(),
                Err(error) => tracing::debug!(%error, "there is no room yet"),
            }
        }
    }
}

/// Stores what nobody else does, and deletes it: nobody can have been promised it.
async fn probe(objects: &dyn ListedBlobStore) -> Result<(), StoreError> {
    let digest = put_bytes(objects, probed()).await?;
    if let Err(error) = objects.delete(&digest).await {
        tracing::debug!(%error, "what was stored to see whether there is room is left there");
    }
    Ok(())
}

fn probed() -> Bytes {
    let text = b"Regatta looks whether there is room. ";
    text.iter().copied().cycle().take(PROBE_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use regatta_cas::{BlobStore, Deletions, MemoryBlobStore, MemoryTier};
    use regatta_model::Digest;
    use tokio::time::Instant;

    use super::*;
    use crate::retention::{CacheSettings, Claimant, Place, Places, Retention, UseLogFrom};

    /// How much the store has room for, in bytes: for what is tried, and a little more.
    const CAPACITY_BYTES: usize = PROBE_BYTES + 100;

    #[tokio::test(start_paused = true)]
    async fn once_a_write_was_refused_nothing_is_begun_until_there_is_room_again() {
        let state = tempfile::tempdir().unwrap();
        let log = UseLogFrom::TheLastTerm;
        let opened = Retention::open(state.path(), None, CacheSettings::default(), log);
        let (retention, _) = opened.unwrap();
        let memory = Arc::new(MemoryBlobStore::with_capacity_bytes(CAPACITY_BYTES as u64));
        let objects: Arc<dyn BlobStore> = Arc::clone(&memory) as _;
        let place = Place {
            objects: Arc::clone(&memory) as _,
            store: Arc::clone(&objects),
            absence: None,
        };
        let evictor = Evictor {
            retention: Arc::clone(&retention),
            places: Places {
                of_kind: HashMap::from([(Kind::Blob, place)]),
                memory: Arc::new(MemoryTier::new(Arc::clone(&objects), 0, 0)),
                deletions: Deletions::default(),
            },
            may_evict: false,
            was_complete: false,
            pins: None,
        };
        let store = retention.retaining(Kind::Blob, &objects, (Claimant::NOBODY, None));
        let large: Bytes = vec![7; 200].into();
        let large = put_bytes(store.as_ref(), large).await.unwrap();
        let filler: Bytes = vec![0; CAPACITY_BYTES].into();
        assert!(retention.check_room().is_ok());
        let refused = put_bytes(store.as_ref(), filler).await;
        assert!(
            matches!(refused, Err(StoreError::Full { .. })),
            "{refused:?}"
        );
        let said = retention.check_room().expect_err("there is no room");
        assert!(said.to_string().contains("may hold"), "{said}");
        // What would fit is not tried by whoever comes.
        let small = put_bytes(store.as_ref(), "small".into()).await;
        assert!(matches!(small, Err(StoreError::Full { .. })), "{small:?}");
        let mut refusals = retention.refusals();
        let recovered = async {
            tokio::time::sleep(PROBE_INTERVAL * 3).await;
            assert!(retention.check_room().is_err(), "there is none yet");
            memory.delete(&large).await.unwrap();
            let freed = Instant::now();
            refusals.wait_for(Option::is_none).await.unwrap();
            freed.elapsed()
        };
        let took = tokio::select! {
            () = evictor.try_for_room() => panic!("it goes on"),
            took = recovered => took,
        };
        assert!(took <= PROBE_INTERVAL, "{took:?}");
        put_bytes(store.as_ref(), "small".into()).await.unwrap();
        let tried = Digest::of(&probed());
        assert_eq!(memory.find_missing(&[tried]).await.unwrap(), [tried]);
    }
}
