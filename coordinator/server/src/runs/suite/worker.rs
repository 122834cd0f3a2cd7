//! The persistent worker that may do what a suite's commands ask for.

use regatta_wire::v1;

use crate::runs::context::JobContext;
use crate::runs::keys::action_key;
use crate::runs::plan::{Adapter, PlannedSuite};

/// What keys say of a worker.
const WORKER: &str = "worker";

/// The worker of a suite, if it has one: the same for all that has the same key.
pub(super) fn worker_of(job: &JobContext, suite: &PlannedSuite) -> Option<v1::PersistentWorker> {
    let arguments = worker_arguments(&suite.adapter);
    if arguments.is_empty() {
        return None;
    }
    let command = job.command(arguments.to_vec());
    let key = action_key(job, &command, WORKER, true);
    Some(v1::PersistentWorker {
        key: key.to_string(),
        arguments: arguments.to_vec(),
        files: Vec::new(),
    })
}

/// How a suite's worker is started; empty if it has none.
pub(super) fn worker_arguments(adapter: &Adapter) -> &[String] {
    match adapter {
        Adapter::Contract {
            worker_arguments, ..
        } => worker_arguments,
        Adapter::Harness(_) | Adapter::Sharding { .. } => &[],
    }
}
