//! What is gone that nobody here has deleted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts how often many blobs were found to be gone from a store at once, behind everybody's back. Whatever is known of
/// that store has to be asked for again then. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Losses(Arc<AtomicU64>);

impl Losses {
    /// Some are gone.
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was so.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
