//! What verdicts keep that were given before the coordinator started.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_cas::StoreError;
use regatta_ledger::{KeptBlob, Ledger, LedgerError};
use regatta_model::{Digest, Timestamp};

use super::entry::Seconds;
use crate::action_cache::{FilesOfTreeError, files_of};
use crate::cas::find_missing;
use crate::runs::now;
use crate::status::with_sources;
use crate::storage::EarlierVerdictViews;

/// How many blobs verdicts keep at most: half of what the index of uses holds.
const MAX_KEPT_BLOBS: usize = 1 << 21;
/// How many verdicts' blobs are asked for at once.
const CONCURRENCY: usize = 8;
/// For how many that is prepared at once.
const PORTION: usize = 1000;
/// How long after it failed it is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Why it is not known what verdicts keep. Trying again may help.
#[derive(Debug, thiserror::Error)]
enum RestorePinsError {
    #[error("the ledger does not say what verdicts keep")]
    Ledger(#[from] LedgerError),
    #[error("what verdicts keep cannot be looked for in the store")]
    Store(#[from] StoreError),
}

/// Has the bundles and the artefacts of verdicts used as of when they were given. The log of uses may not say so: it
/// loses what was used just before a crash, and belongs to one coordinator of several.
#[derive(Debug)]
pub(crate) struct VerdictPins {
    ledger: Arc<dyn Ledger>,
    blobs: EarlierVerdictViews,
    keep: Duration,
    are_restored: AtomicBool,
}

impl VerdictPins {
    /// Verdicts keep what they name for so long.
    pub(crate) const fn new(
        ledger: Arc<dyn Ledger>,
        blobs: EarlierVerdictViews,
        keep: Duration,
    ) -> Self {
        Self {
            ledger,
            blobs,
            keep,
            are_restored: AtomicBool::new(false),
        }
    }

    /// Whether it is known what they keep.
    pub(crate) fn are_restored(&self) -> bool {
        self.are_restored.load(Ordering::Acquire)
    }

    /// Restores them, and tries again until that is done.
    pub(super) async fn restore(&self) {
        let mut has_failed = false;
        loop {
            match self.try_restore().await {
                Ok(blobs) => {
                    tracing::info!(blobs, "it is known what verdicts keep");
                    self.are_restored.store(true, Ordering::Release);
                    return;
                }
                Err(error) if !has_failed => {
                    let error = with_sources(&error);
                    tracing::warn!(
                        error,
                        "nothing is let go before it is known what verdicts keep"
                    );
                    has_failed = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// How many blobs are kept, the files of directories aside.
    async fn try_restore(&self) -> Result<usize, RestorePinsError> {
        let since = now() - self.keep;
        let kept = self.ledger.read_kept_blobs(since, MAX_KEPT_BLOBS).await?;
        if kept.len() == MAX_KEPT_BLOBS {
            tracing::warn!("verdicts name more than can be kept: the files of the earliest may go");
        }
        let of_one_moment =
            |a: &KeptBlob, b: &KeptBlob| a.last_given_at == b.last_given_at && a.tenant == b.tenant;
        let of_verdicts: Vec<&[KeptBlob]> = kept.chunk_by(of_one_moment).collect();
        for portion in of_verdicts.chunks(PORTION) {
            let pinning = portion.iter().map(|together| self.pin(together));
            let pinning: Vec<_> = pinning.collect();
            let mut pinned = stream::iter(pinning).buffer_unordered(CONCURRENCY);
            while pinned.try_next().await?.is_some() {}
        }
        Ok(kept.len())
    }

    /// Has blobs kept that verdicts name which were given to one tenant at one moment. Those that are gone stay so.
    async fn pin(&self, together: &[KeptBlob]) -> Result<(), StoreError> {
        let Some(first) = together.first() else {
            return Ok(());
        };
        let blobs = self
            .blobs
            .of(&first.tenant, seconds_of(first.last_given_at));
        let mut digests: Vec<Digest> = together.iter().map(|it| it.digest).collect();
        for tree in together.iter().filter(|it| it.is_tree) {
            match files_of(blobs.as_ref(), &tree.digest).await {
                Ok(files) => digests.extend(files),
                Err(FilesOfTreeError::Store(StoreError::NotFound { .. })) => {}
                Err(FilesOfTreeError::Store(error)) => return Err(error),
                Err(error @ FilesOfTreeError::Invalid(_)) => {
                    let error = with_sources(&error);
                    tracing::warn!(tree = %tree.digest, error, "a directory of a verdict is not kept");
                }
            }
        }
        find_missing(blobs.as_ref(), &digests).await.map(drop)
    }
}

fn seconds_of(time: Timestamp) -> Seconds {
    Seconds::try_from(time.as_nanos() / 1_000_000_000).unwrap_or(Seconds::MAX)
}
