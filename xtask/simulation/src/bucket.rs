//! A bucket that is slow, fails, lies, and forgets what nobody used for long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_cas::{BlobRange, BlobStore, BlobStream, ListedBlobStore, StoreError, stream_of};
use regatta_model::Digest;

use crate::said::Said;
use crate::stock::LISTS;
use crate::weather::{Fate, Weather};

/// Objects under their keys, and when each was used last. It outlives every coordinator.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf(Arc<Mutex<Objects>>);

#[derive(Debug, Default)]
struct Objects {
    now: Duration,
    /// Counts what was stored and removed.
    changes: u64,
    objects: BTreeMap<Digest, (Bytes, Duration)>,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_clock(&self, now: Duration) {
        self.lock().now = now;
    }

    pub(crate) fn has(&self, key: &Digest) -> bool {
        self.lock().objects.contains_key(key)
    }

    pub(crate) fn bytes(&self, key: &Digest) -> Option<Bytes> {
        self.lock().objects.get(key).map(|(bytes, _)| bytes.clone())
    }

    /// Counts what was stored and removed so far.
    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Everything on it.
    pub(crate) fn all(&self) -> Vec<(Digest, Bytes)> {
        let shelf = self.lock();
        let all = shelf.objects.iter();
        all.map(|(key, (bytes, _))| (*key, bytes.clone())).collect()
    }

    /// Forgets what was not used for so long; how much that was.
    pub(crate) fn sweep(&self, unused: Duration) -> usize {
        let mut shelf = self.lock();
        let (now, before) = (shelf.now, shelf.objects.len());
        shelf
            .objects
            .retain(|_, (_, used)| now.saturating_sub(*used) < unused);
        let swept = before - shelf.objects.len();
        shelf.changes += u64::try_from(swept).unwrap_or(u64::MAX);
        swept
    }

    fn get(&self, key: &Digest) -> Option<Bytes> {
        let mut shelf = self.lock();
        let now = shelf.now;
        let (bytes, used) = shelf.objects.get_mut(key)?;
        *used = now;
        Some(bytes.clone())
    }

    fn put(&self, key: Digest, bytes: Bytes) {
        let mut shelf = self.lock();
        let now = shelf.now;
        shelf.changes += 1;
        shelf.objects.insert(key, (bytes, now));
    }

    fn remove(&self, key: &Digest) {
        let mut shelf = self.lock();
        shelf.changes += 1;
        shelf.objects.remove(key);
    }
}

/// What the names of places end with that have packs, in which things are removed by others that are stored.
const PACKS: &str = "-packs";

/// A shelf in any weather.
#[derive(Debug)]
pub(crate) struct WeatheredBucket {
    /// The name of this part of it.
    pub(crate) place: &'static str,
    pub(crate) shelf: Shelf,
    pub(crate) weather: Weather,
}

impl WeatheredBucket {
    /// Whether to do what was asked, or what to say instead.
    async fn fate(&self, what: &str) -> Fate {
        self.weather.pass().await;
        self.weather.fate(what)
    }

    /// What is stored is not what it was; the answer is on its way.
    async fn changed(&self, removed: bool) {
        self.weather.say(Said::StoreChanged { removed });
        self.weather.pass().await;
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable {
        detail: "bad weather".to_owned(),
    }
}

#[async_trait]
impl BlobStore for WeatheredBucket {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        if self.fate("a read").await != Fate::Done {
            return Err(unavailable());
        }
        let bytes = self.shelf.get(digest);
        let mut bytes = bytes.ok_or(StoreError::NotFound { digest: *digest })?;
        if !bytes.is_empty() && self.weather.lies("a read") {
            let mut others = bytes.to_vec();
            others.reverse();
            others[0] ^= 1;
            self.weather.say(Said::Spoilt { key: *digest });
            bytes = others.into();
        }
        let length = bytes.len();
        let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let first = place(range.offset);
        if first > length {
            return Err(StoreError::OutOfRange {
                digest: *digest,
                offset: range.offset,
            });
        }
        let last = range
            .length
            .map_or(length, |it| first.saturating_add(place(it)));
        Ok(stream_of(bytes.slice(first..last.min(length))))
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        let pieces: Vec<Bytes> = body.try_collect().await?;
        let fate = match self.place {
            LISTS => {
                self.weather.pass().await;
                self.weather.fate_of_list()
            }
            _ => self.fate("a write").await,
        };
        match fate {
            Fate::Failed => return Err(unavailable()),
            Fate::Crashed { done } => {
                if done {
                    self.shelf.put(*digest, pieces.concat().into());
                    self.weather.say(Said::StoreChanged { removed: false });
                }
                self.weather.crash("a list of chunks", done).await;
            }
            Fate::Done | Fate::DoneAndFailed => {}
        }
        self.shelf.put(*digest, pieces.concat().into());
        self.changed(self.place.ends_with(PACKS)).await;
        match fate {
            Fate::Done => Ok(()),
            Fate::Failed | Fate::DoneAndFailed | Fate::Crashed { .. } => Err(unavailable()),
        }
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        if self.fate("a question").await != Fate::Done {
            return Err(unavailable());
        }
        let mut missing = Vec::new();
        for digest in digests {
            // To be told that something is absent that is there costs time, and nothing else.
            if self.shelf.get(digest).is_none() || self.weather.lies("a question") {
                missing.push(*digest);
            }
        }
        Ok(missing)
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.weather.say(Said::Removing { key: *digest });
        let fate = self.fate("a removal").await;
        if fate == Fate::Failed {
            return Err(unavailable());
        }
        if self.shelf.has(digest) {
            let (place, key) = (self.place, brief(digest));
            self.weather
                .tell(&format!("store: {place}/{key} is removed"));
        }
        self.shelf.remove(digest);
        self.changed(true).await;
        match fate {
            Fate::Done => Ok(()),
            Fate::Failed | Fate::DoneAndFailed | Fate::Crashed { .. } => Err(unavailable()),
        }
    }
}

impl ListedBlobStore for WeatheredBucket {
    fn list(&self) -> BoxStream<'static, Result<Digest, StoreError>> {
        let (shelf, weather) = (self.shelf.clone(), self.weather.clone());
        let listing = async move {
            weather.pass().await;
            if weather.fate("a listing") != Fate::Done {
                return Err(unavailable());
            }
            let keys = shelf.all().into_iter().map(|(key, _)| Ok(key));
            Ok(stream::iter(keys.collect::<Vec<_>>()))
        };
        stream::once(listing).try_flatten().boxed()
    }
}

/// A digest, as far as it takes to tell it from others.
pub(crate) fn brief(digest: &Digest) -> String {
    digest.to_string().chars().take(8).collect()
}
