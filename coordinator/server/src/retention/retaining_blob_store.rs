//! A store whose uses are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};
use regatta_cas::{BlobRange, BlobStore, BlobStream, SpooledBlob, StoreError};
use regatta_model::{Digest, PlantedBug};

use super::Retention;
use super::entry::{Claimant, Key, Kind, Seconds};

/// What a result or an asset is taken to have that was found and not written here, in bytes.
pub(super) const ESTIMATED_BYTES: u64 = 1024;

/// Counts each use of what a store has, for one claimant.
///
/// What is about to be deleted counts as absent already: whoever is told that a blob is there finds it there
/// for as long as [`super::CacheSettings::keep`] says. Whoever writes it again waits until it is gone.
#[derive(Debug)]
pub(super) struct RetainingBlobStore {
    pub(super) store: Arc<dyn BlobStore>,
    pub(super) retention: Arc<Retention>,
    pub(super) kind: Kind,
    pub(super) claimant: Claimant,
    /// Uses count as of then, and not as of now, if it is set.
    pub(super) used: Option<Seconds>,
}

impl RetainingBlobStore {
    fn key(&self, digest: &Digest) -> Key {
        Key {
            kind: self.kind,
            digest: *digest,
        }
    }

    fn at(&self) -> Seconds {
        let now = self.retention.now();
        self.used.map_or(now, |used| used.min(now))
    }

    fn found(&self, digest: &Digest, at: Seconds) {
        let index = &self.retention.index;
        if self.used.is_some() {
            // Somebody may count on what was not known, as on anything else that is found.
            let size_bytes = found_bytes(self.kind, digest);
            index.learn(self.key(digest), size_bytes, self.retention.now());
        }
        index.found(
            self.key(digest),
            found_bytes(self.kind, digest),
            self.claimant,
            at,
        );
    }

    /// Tells of what could not be written for want of room.
    fn noted<T>(&self, written: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Full { detail }) = &written {
            self.retention.room.refused(detail);
            self.retention.wake.notify_one();
        }
        written
    }
}

/// How large something is that was not written here.
pub(super) const fn found_bytes(kind: Kind, digest: &Digest) -> u64 {
    match kind {
        Kind::Blob => digest.size_bytes(),
        Kind::Result | Kind::Asset | Kind::Mapping => ESTIMATED_BYTES,
    }
}

#[async_trait]
impl BlobStore for RetainingBlobStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        let (at, counted) = (self.at(), self.retention.index.counted());
        // Before it is read: it does not go while it is. What is going is absent, or kept as chunks by now.
        let index = &self.retention.index;
        if !index.touch(self.key(digest), self.claimant, at) {
            return Err(StoreError::NotFound { digest: *digest });
        }
        let got = self.store.get(digest, range).await;
        match &got {
            Ok(_) => self.found(digest, at),
            Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. }) => {
                self.retention.index.absent(&self.key(digest), counted);
            }
            Err(
                StoreError::OutOfRange { .. }
                | StoreError::Undecodable { .. }
                | StoreError::Full { .. }
                | StoreError::Exhausted { .. }
                | StoreError::Away { .. }
                | StoreError::Unavailable { .. },
            ) => {}
        }
        got
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        self.retention.room.check()?;
        let (key, index) = (self.key(digest), &self.retention.index);
        let writing = index.write(key).await;
        let counted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&counted);
        let body = body.inspect_ok(move |piece| {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        });
        self.noted(self.store.put(digest, body.boxed()).await)?;
        let size_bytes = counted.load(Ordering::Relaxed);
        index.written(&writing, size_bytes, self.claimant, self.at());
        Ok(())
    }

    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        self.retention.room.check()?;
        let (key, index) = (self.key(digest), &self.retention.index);
        let writing = index.write(key).await;
        self.noted(self.store.put_spooled(digest, blob).await)?;
        index.written(&writing, digest.size_bytes(), self.claimant, self.at());
        Ok(())
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let (at, index) = (self.at(), &self.retention.index);
        let counted = index.counted();
        // Before the store is asked: what it says is there does not go.
        let stays = |digest: &&Digest| {
            PlantedBug::UseUncounted.is_planted()
                || index.touch(self.key(digest), self.claimant, at)
        };
        let asked: Vec<Digest> = digests.iter().filter(stays).copied().collect();
        let missing = self.store.find_missing(&asked).await?;
        let (mut asked, mut missing) = (asked.iter().peekable(), missing.iter().peekable());
        let mut absent = Vec::new();
        for digest in digests {
            let was_asked = asked.next_if_eq(&digest).is_some();
            if was_asked && missing.next_if_eq(&digest).is_none() {
                if !PlantedBug::UseUncounted.is_planted() {
                    self.found(digest, at);
                }
                continue;
            }
            if was_asked {
                index.absent(&self.key(digest), counted);
            }
            absent.push(*digest);
        }
        Ok(absent)
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.retention.index.forget(&self.key(digest));
        self.store.delete(digest).await
    }
}
