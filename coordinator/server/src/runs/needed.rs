//! What a run needs stays until it has ended, however long it waits.

use std::sync::{Mutex, PoisonError};

use regatta_wire::reapi;

use super::context::RunContext;

/// The results that jobs left, of which other jobs may begin.
#[derive(Debug, Default)]
pub(super) struct Needed(Mutex<Vec<reapi::ActionResult>>);

impl Needed {
    /// A job has left a result.
    pub(super) fn add(&self, result: &reapi::ActionResult) {
        let mut results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        results.push(result.clone());
    }

    fn all(&self) -> Vec<reapi::ActionResult> {
        let results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        results.clone()
    }
}

/// Uses what jobs start from and what they left now and then, for as long as this is polled: it never ends.
pub(super) async fn keep(context: &RunContext) {
    loop {
        tokio::time::sleep(context.trees.renewal_interval()).await;
        for job in &context.plan.jobs {
            // A job finds out what is missing of its inputs.
            if let Err(error) = context.trees.missing(job.input_root).await {
                tracing::warn!(%error, "it is not known whether a job's inputs are still there");
            }
        }
        for result in context.needed.all() {
            let renewed = context.results.renew(&context.plan.tenant, &result).await;
            if let Err(error) = renewed {
                tracing::warn!(%error, "it is not known whether a job's outputs are still there");
            }
        }
    }
}
