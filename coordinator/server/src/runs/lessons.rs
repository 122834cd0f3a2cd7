//! What the events of a run teach of its tests. Pure.
//!
//! The ledger learns it as they become durable; whoever asks for some runs alone has it learnt anew from their events
//! (ADR 42). What is not told teaches nothing.

use regatta_ledger::TestObservation;
use regatta_model::{FailureClass, Timestamp};
use regatta_wire::convert::duration_from_wire;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::event::test_ending_of;
use super::tally::Ending;

/// The results that an event tells of tests, however they came by them.
pub(crate) fn results_of(event: &Event) -> &[v1::TestResult] {
    match event {
        Event::TestsFinished(finished) => &finished.results,
        Event::HitsExecuted(executed) => &executed.results,
        Event::RunStarted(_)
        | Event::RunResumed(_)
        | Event::CancelRequested(_)
        | Event::JobStarted(_)
        | Event::JobLeased(_)
        | Event::SuitePlanned(_)
        | Event::SuiteComplained(_)
        | Event::BatchUnexplained(_)
        | Event::HitsAudited(_)
        | Event::TestRetried(_)
        | Event::BuildRetried(_)
        | Event::JobOutput(_)
        | Event::JobFinished(_)
        | Event::InfrastructureRetry(_)
        | Event::TestSlow(_)
        | Event::Warning(_)
        | Event::RunFinished(_) => &[],
    }
}

/// Whether nothing is to be learnt of a job's tests: many runs of one test would drown what others teach of it.
pub(crate) fn is_repetition(job: &v1::Job) -> bool {
    match &job.kind {
        Some(v1::job::Kind::Suite(suite)) => suite.repetition.is_some(),
        Some(v1::job::Kind::Build(_)) | None => false,
    }
}

/// What a result teaches that is told at that time; nothing if the test was not executed, or not measured.
pub(crate) fn lesson(result: &v1::TestResult, told_at: Timestamp) -> Option<TestObservation> {
    let ending = test_ending_of(result);
    let is_measured = match ending {
        Ending::Passed | Ending::Flaky | Ending::Quarantined(_) => true,
        Ending::Failed(FailureClass::Test | FailureClass::Timeout | FailureClass::Oom) => true,
        Ending::Cached => result.duration.is_some(),
        Ending::Failed(FailureClass::Infra | FailureClass::Cancelled)
        | Ending::Skipped
        | Ending::NotRun => false,
    };
    let duration = result.duration.as_ref();
    let duration = duration.and_then(|it| duration_from_wire(it).ok());
    is_measured.then(|| TestObservation {
        test: result.test_id.clone(),
        duration: duration.unwrap_or_default(),
        failed: matches!(ending, Ending::Failed(_) | Ending::Quarantined(_)),
        flaky: ending == Ending::Flaky,
        finished_at: told_at,
        key: result.key.as_ref().and_then(|key| key.try_into().ok()),
        input_root: None,
    })
}
