//! Rids a bucket of uploads that nobody will end.

use std::time::Duration;

use regatta_cas::{AbandonedUploads, Deletions};

use crate::status::with_sources;

/// How often they are looked for, which costs a request for a list: one that is abandoned for a day is aborted soon
/// after.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Aborts uploads to the storage that somebody left who was killed, for as long as it runs.
#[derive(Debug, Clone)]
pub(crate) struct UploadUpkeep {
    uploads: Option<AbandonedUploads>,
    /// Whoever has lost the storage leaves it to whoever has it.
    deletions: Deletions,
}

impl UploadUpkeep {
    pub(crate) const fn new(uploads: Option<AbandonedUploads>, deletions: Deletions) -> Self {
        Self { uploads, deletions }
    }

    /// Aborts them now and then; nobody waits for it. It ends only where no upload can be left.
    pub(crate) async fn run(self) {
        let Some(uploads) = self.uploads else {
            return;
        };
        let mut has_failed = false;
        loop {
            match uploads.abort(&self.deletions).await {
                Ok(_) => has_failed = false,
                Err(error) if !has_failed => {
                    let error = with_sources(&error);
                    tracing::warn!(
                        error,
                        "uploads that their writers left cannot all be aborted; trying again every hour"
                    );
                    has_failed = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
