//! Which files have changed since a suite's tests ran last: read from the store, if the order of the tests depends
//! on it.

use std::time::Duration;

use futures::future::join_all;
use regatta_cas::merkle::{ChangedFile, LoadLimits, changed_files};
use regatta_model::Digest;

use super::Test;
use super::naming::NamedPaths;
use super::precedence::{ChangedInputs, earlier_inputs};
use crate::runs::context::JobContext;
use crate::runs::log::now;

/// How much is read for it, of each of the earlier inputs: what is more is no small change.
const LIMITS: LoadLimits = LoadLimits {
    directory_bytes: 4 << 20,
    total_bytes: 8 << 20,
    depth: 64,
    entries: 4096,
};
/// How long tests wait for it: no order is worth more.
const PATIENCE: Duration = Duration::from_secs(1);

/// What has changed for the tests that are to run. What cannot be read tells nothing.
pub(super) async fn changed_inputs<'test>(
    job: &JobContext,
    tests: impl Iterator<Item = &'test Test>,
) -> ChangedInputs {
    let earlier = earlier_inputs(tests, now());
    let compared = earlier.into_iter().map(async |root| {
        let paths = changed_since(job, root).await?;
        Some((root, paths))
    });
    let since = join_all(compared).await.into_iter().flatten().collect();
    ChangedInputs { since }
}

async fn changed_since(job: &JobContext, earlier: Digest) -> Option<NamedPaths> {
    let blobs = job.run.blobs.as_ref();
    let comparison = changed_files(blobs, &earlier, &job.input_root, LIMITS);
    match tokio::time::timeout(PATIENCE, comparison).await {
        Ok(Ok(files)) => {
            let directory = &job.job().template.working_directory;
            Some(NamedPaths::new(
                files.iter().map(ChangedFile::path),
                directory,
            ))
        }
        Ok(Err(error)) => {
            tracing::debug!(run = %job.run.run, %earlier, %error, "what has changed since is not known");
            None
        }
        Err(_) => {
            tracing::debug!(run = %job.run.run, %earlier, "what has changed since takes too long to read");
            None
        }
    }
}
