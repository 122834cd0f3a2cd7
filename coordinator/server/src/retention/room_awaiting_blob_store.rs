//! A store whose writers wait for room.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use regatta_cas::{BlobRange, BlobStore, BlobStream, SpooledBlob, StoreError};
use regatta_model::Digest;

use super::Retention;

/// How long a write waits for room, as agents do with what they have made.
const ROOM_PATIENCE: Duration = Duration::from_secs(300);

/// Waits with what is written until there is room, but not for ever: for what nobody would offer again.
#[derive(Debug)]
pub(crate) struct RoomAwaitingBlobStore {
    store: Arc<dyn BlobStore>,
    retention: Arc<Retention>,
}

impl RoomAwaitingBlobStore {
    /// Waits for the room that `retention` keeps, which says whether `store` takes anything.
    pub(crate) fn new(store: Arc<dyn BlobStore>, retention: Arc<Retention>) -> Self {
        Self { store, retention }
    }

    /// If there is none in time, the store says so.
    async fn room(&self) {
        let mut refusals = self.retention.refusals();
        let has_room = refusals.wait_for(Option::is_none);
        if tokio::time::timeout(ROOM_PATIENCE, has_room).await.is_err() {
            tracing::warn!(patience = ?ROOM_PATIENCE, "a run has waited for room in vain");
        }
    }
}

#[async_trait]
impl BlobStore for RoomAwaitingBlobStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        self.store.get(digest, range).await
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        self.room().await;
        self.store.put(digest, body).await
    }

    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        self.room().await;
        self.store.put_spooled(digest, blob).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.store.find_missing(digests).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.store.delete(digest).await
    }
}

#[cfg(test)]
mod tests {
    use regatta_cas::{MemoryBlobStore, put_bytes};
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::retention::{CacheSettings, UseLogFrom};

    #[tokio::test(start_paused = true)]
    async fn a_write_waits_for_room_but_not_for_ever() {
        let state = tempfile::tempdir().unwrap();
        let log = UseLogFrom::TheLastTerm;
        let opened = Retention::open(state.path(), None, CacheSettings::default(), log);
        let (retention, _) = opened.unwrap();
        let memory: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
        let store = RoomAwaitingBlobStore::new(Arc::clone(&memory), Arc::clone(&retention));
        let begun = Instant::now();
        put_bytes(&store, "there is room".into()).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        retention.room.pretend(Some("full"));
        let pause = ROOM_PATIENCE / 3;
        let absent = Digest::of(b"once there is");
        let made_room = async {
            sleep(pause).await;
            assert_eq!(memory.find_missing(&[absent]).await.unwrap(), [absent]);
            retention.room.pretend(None);
        };
        let (stored, ()) = tokio::join!(put_bytes(&store, "once there is".into()), made_room);
        assert_eq!((stored.unwrap(), begun.elapsed()), (absent, pause));
        retention.room.pretend(Some("full"));
        // Then the store says what it says.
        put_bytes(&store, "never".into()).await.unwrap();
        assert_eq!(begun.elapsed(), pause + ROOM_PATIENCE);
    }
}
