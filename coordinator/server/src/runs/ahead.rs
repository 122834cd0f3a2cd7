//! Persistent workers that are started ahead, in slots that nobody else wants at the moment.

use std::time::Duration;

use regatta_model::Isolation;
use regatta_scheduler::ExpectedUnit;
use tokio_util::sync::CancellationToken;

use super::context::{JobContext, JobWork};
use crate::dispatch::{TaskEvent, TaskHandle, UnitPlan, Work};

/// How many slots are wanted, beside the one that does the work.
const MOST: usize = 7;
/// Whatever else the run has goes first (REAPI, `ExecutionPolicy.priority`).
const LEAST: i32 = i32::MAX;
/// Who is not given a slot in this time will not get one because it is free.
const PATIENCE: Duration = Duration::from_millis(50);

/// What an agent offers that has a worker do what it may: one of an earlier release would run the command.
const UNDERSTANDS_WORKERS: &str = "persistent-workers";

/// Has other free slots do the same work, whose answer nobody reads: what is left of it is a worker that has started,
/// for the work that comes next. If the run has other jobs, the slots are left to them. It ends with the job.
pub(super) fn start_workers(job: &JobContext, work: &JobWork) {
    let may_stay = job.job().settings.isolation == Isolation::Run;
    if work.worker.is_none() || !may_stay || job.run.plan.jobs.len() > 1 {
        return;
    }
    for _ in 0..MOST {
        let mut work = work.clone();
        work.command.output_paths.clear();
        work.merge_key = None;
        work.stream_output = false;
        work.units = vec![UnitPlan {
            expected: ExpectedUnit::from(Duration::ZERO),
            extra_arguments: Vec::new(),
            extra_environment: Vec::new(),
        }];
        let mut work = Work {
            priority: LEAST,
            is_ahead: true,
            ..job.dispatched(work)
        };
        work.platform.insert(UNDERSTANDS_WORKERS, "true");
        match job.run.dispatcher.submit(work) {
            Ok(handle) => tokio::spawn(follow(handle, job.cancel.clone())),
            // Whoever is full has no free slots.
            Err(_) => return,
        };
    }
}

/// Follows work to its end, if it begins at once. Dropping the handle ends it.
async fn follow(mut handle: TaskHandle, cancel: CancellationToken) {
    let granted = tokio::time::timeout(PATIENCE, handle.next()).await;
    if !matches!(granted, Ok(Some(TaskEvent::Granted { .. }))) {
        return;
    }
    let ended = async {
        while let Some(event) = handle.next().await {
            // A machine that is lost has no worker, and there is no need of another.
            if matches!(event, TaskEvent::Retried { .. } | TaskEvent::Finished) {
                return;
            }
        }
    };
    tokio::select! {
        () = ended => {}
        () = cancel.cancelled() => {}
    }
}
