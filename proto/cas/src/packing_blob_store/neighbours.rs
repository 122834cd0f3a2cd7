//! What stands beside a blob that is read is read along with it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::FutureExt as _;
use regatta_model::Digest;

use super::index::Slice;
use crate::lru_map::LruMap;
use crate::single_flight::SingleFlight;
use crate::whole_blob::{Collected, collect_up_to};
use crate::{BlobRange, BlobStore, StoreError};

/// What is read at a time begins at a multiple of this, in bytes.
const STRIDE_BYTES: u64 = 128 << 10;

/// A part of a pack: where it begins, in strides.
type Window = (Digest, u64);

/// Reads parts of packs that are larger than a value, and keeps the last ones in memory: what was written
/// together is mostly read together, and costs one request then. Packs never change, so nothing in it goes
/// out of date.
pub(super) struct Neighbours {
    store: Arc<dyn BlobStore>,
    /// The largest value: each that begins in a window is in it as a whole.
    max_value_bytes: u64,
    capacity_bytes: u64,
    windows: Arc<Mutex<LruMap<Window, Bytes>>>,
    fetches: SingleFlight<Window, Bytes>,
}

impl Neighbours {
    pub(super) fn new(
        store: Arc<dyn BlobStore>,
        max_value_bytes: u64,
        capacity_bytes: u64,
    ) -> Self {
        Self {
            store,
            max_value_bytes,
            capacity_bytes,
            windows: Arc::new(Mutex::new(LruMap::new())),
            fetches: SingleFlight::new(),
        }
    }

    /// The bytes of a slice of a pack, which has values up to `values_end`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] of the pack, and [`StoreError::Unavailable`].
    pub(super) async fn read(&self, slice: Slice, values_end: u64) -> Result<Bytes, StoreError> {
        let stride = slice.offset / STRIDE_BYTES;
        let start = stride * STRIDE_BYTES;
        let end = (start + STRIDE_BYTES + self.max_value_bytes).min(values_end);
        let window = self.window((slice.pack, stride), start, end).await?;
        let from = usize::try_from(slice.offset - start).unwrap_or(usize::MAX);
        let length = usize::try_from(slice.length).unwrap_or(usize::MAX);
        let bytes = from
            .checked_add(length)
            .filter(|until| *until <= window.len())
            .map(|until| window.slice(from..until));
        bytes.ok_or_else(|| StoreError::Unavailable {
            detail: format!("pack {} does not have the length of its name", slice.pack),
        })
    }

    /// Forgets what was read around a slice: it is not what was written.
    pub(super) fn forget(&self, slice: Slice) {
        let window = (slice.pack, slice.offset / STRIDE_BYTES);
        lock(&self.windows).remove(&window);
    }

    async fn window(&self, window: Window, start: u64, end: u64) -> Result<Bytes, StoreError> {
        let kept = lock(&self.windows).touch(&window).cloned();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let (store, windows) = (Arc::clone(&self.store), Arc::clone(&self.windows));
        let capacity_bytes = self.capacity_bytes;
        let work = async move {
            let range = BlobRange {
                offset: start,
                length: Some(end - start),
            };
            let body = store.get(&window.0, range).await?;
            let bytes = match collect_up_to(body, end - start).await? {
                Collected::Whole(bytes) => bytes,
                Collected::TooLarge { .. } => Bytes::new(),
            };
            let mut windows = lock(&windows);
            windows.insert(window, bytes.clone(), bytes.len() as u64);
            while windows.weight() > capacity_bytes {
                windows.pop_oldest();
            }
            Ok(bytes)
        };
        self.fetches.run(window, || work.boxed()).await
    }
}

fn lock(
    windows: &Mutex<LruMap<Window, Bytes>>,
) -> std::sync::MutexGuard<'_, LruMap<Window, Bytes>> {
    windows.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Neighbours {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Neighbours")
            .field("kept_bytes", &lock(&self.windows).weight())
            .finish_non_exhaustive()
    }
}
