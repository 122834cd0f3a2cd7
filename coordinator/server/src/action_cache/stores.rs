//! The stores of the action cache, as one tenant uses them.

use std::collections::HashSet;
use std::sync::Arc;

use regatta_cas::{BlobRange, BlobStore, StoreError};
use regatta_model::Digest;
use regatta_wire::reapi::ActionResult;

use super::Remembered;
use super::completeness::{ClosureError, References};
use crate::cas::find_missing;

/// Where entries are, and what they name.
pub(super) struct Stores {
    pub(super) entries: Arc<dyn BlobStore>,
    pub(super) blobs: Arc<dyn BlobStore>,
}

impl Stores {
    /// Everything that a result refers to; `None` if that is not there.
    pub(super) async fn references_of(
        &self,
        result: &ActionResult,
    ) -> Result<Option<Vec<Digest>>, ClosureError> {
        let direct = References::of(result).map_err(ClosureError::Invalid)?;
        direct.with_trees(self.blobs.as_ref()).await
    }

    pub(super) async fn missing_of(
        &self,
        found: &[Option<Arc<Remembered>>],
    ) -> Result<HashSet<Digest>, StoreError> {
        let named: HashSet<Digest> = found
            .iter()
            .flatten()
            .flat_map(|entry| entry.references.iter().copied())
            .collect();
        let named: Vec<Digest> = named.into_iter().collect();
        Ok(find_missing(self.blobs.as_ref(), &named)
            .await?
            .into_iter()
            .collect())
    }

    /// Whether one of the blobs that are said to be missing is so however it is asked for: what is known of a bucket that
    /// others write to may be some seconds old, and an entry that is new is not to be forgotten for that.
    pub(super) async fn is_gone(&self, references: &[Digest], missing: &HashSet<Digest>) -> bool {
        let first = BlobRange {
            offset: 0,
            length: Some(1),
        };
        for digest in references.iter().filter(|digest| missing.contains(digest)) {
            let found = self.blobs.get(digest, first).await;
            if matches!(found, Err(StoreError::NotFound { .. })) {
                return true;
            }
        }
        false
    }
}
