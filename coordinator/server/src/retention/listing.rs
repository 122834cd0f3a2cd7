//! Corrects what is known of the store by what is in it.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use regatta_cas::StoreError;
use regatta_model::Digest;

use super::Places;
use super::Retention;
use super::entry::{Key, Kind};
use super::retaining_blob_store::found_bytes;

/// How many things are asked for at once.
const PORTION: usize = 1000;

/// What a listing corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Corrected {
    /// What was in the store and not known.
    pub(super) found: u64,
    /// What was known and is not in the store.
    pub(super) lost: u64,
}

/// Looks at everything of a kind. `listing` is another number than that of the listing before.
pub(super) async fn correct(
    retention: &Arc<Retention>,
    places: &Places,
    kind: Kind,
    listing: u8,
) -> Result<Corrected, StoreError> {
    let began = retention.now();
    let mut found = 0;
    let mut listed: BoxStream<'static, Result<Digest, StoreError>> = places.list(kind);
    while let Some(digest) = listed.next().await {
        let digest = digest?;
        let key = Key { kind, digest };
        let size_bytes = found_bytes(kind, &digest);
        if retention
            .index
            .listed(key, size_bytes, listing, retention.now())
        {
            found += 1;
            places.note_present(kind, &digest);
        }
        tokio::task::consume_budget().await;
    }
    let lost = forget_lost(retention, places, kind, listing, began).await?;
    Ok(Corrected { found, lost })
}

/// Forgets what was known before a listing, was not in it, and is not there indeed.
async fn forget_lost(
    retention: &Arc<Retention>,
    places: &Places,
    kind: Kind,
    listing: u8,
    began: super::Seconds,
) -> Result<u64, StoreError> {
    let suspects = retention.index.unlisted(kind, listing, began);
    let mut lost = 0;
    for portion in suspects.chunks(PORTION) {
        let digests: Vec<Digest> = portion.iter().map(|entry| entry.key.digest).collect();
        let missing = places.really_missing(kind, &digests).await?;
        let mut missing = missing.iter().peekable();
        for entry in portion {
            if missing.next_if_eq(&&entry.key.digest).is_none() {
                continue;
            }
            // Nobody can write it from now on, so that deleting it deletes nothing new.
            let Some(going) = retention.index.take(entry.key, entry.last_used()) else {
                continue;
            };
            let digest = [entry.key.digest];
            if places.really_missing(kind, &digest).await?.is_empty() {
                // It was stored again before that, within the moment in which it had been used.
                continue;
            }
            places.delete(&entry.key).await?;
            going.gone();
            lost += 1;
        }
    }
    Ok(lost)
}
