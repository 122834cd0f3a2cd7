//! From what runs know to the messages that tell it, and back for runs that go on after a restart.

use std::time::Duration;

use regatta_ledger::{RunCounts, RunTimes};
use regatta_model::{AgentId, FailureClass, SlotIndex, Verdict};
use regatta_scheduler::FailedAt;
use regatta_wire::convert::duration_to_wire;
use regatta_wire::v1;

use super::context::JobOutcome;
use super::state::{JobEnd, JobStatus};
use super::tally::Ending;

pub(super) fn class(class: FailureClass) -> v1::FailureClass {
    match class {
        FailureClass::Test => v1::FailureClass::Test,
        FailureClass::Timeout => v1::FailureClass::Timeout,
        FailureClass::Oom => v1::FailureClass::Oom,
        FailureClass::Infra => v1::FailureClass::Infra,
        FailureClass::Cancelled => v1::FailureClass::Cancelled,
    }
}

fn class_or_none(class_: Option<FailureClass>) -> v1::FailureClass {
    class_.map_or(v1::FailureClass::Unspecified, class)
}

const fn class_of(class: v1::FailureClass) -> Option<FailureClass> {
    match class {
        v1::FailureClass::Unspecified => None,
        v1::FailureClass::Test => Some(FailureClass::Test),
        v1::FailureClass::Timeout => Some(FailureClass::Timeout),
        v1::FailureClass::Oom => Some(FailureClass::Oom),
        v1::FailureClass::Infra => Some(FailureClass::Infra),
        v1::FailureClass::Cancelled => Some(FailureClass::Cancelled),
    }
}

/// How a test ended that was told of. What is not understood is a failure: nothing passes unseen.
pub(super) fn test_ending_of(result: &v1::TestResult) -> Ending {
    let class = class_of(result.failure_class()).unwrap_or(FailureClass::Test);
    match result.status() {
        v1::TestStatus::Passed => Ending::Passed,
        v1::TestStatus::Flaky => Ending::Flaky,
        v1::TestStatus::Cached => Ending::Cached,
        v1::TestStatus::Skipped => Ending::Skipped,
        v1::TestStatus::NotRun => Ending::NotRun,
        v1::TestStatus::Quarantined => Ending::Quarantined(class),
        v1::TestStatus::Failed | v1::TestStatus::Unspecified => Ending::Failed(class),
    }
}

/// How a job ended that was told of.
pub(super) fn job_end_of(finished: &v1::JobFinished) -> JobEnd {
    JobEnd {
        status: match finished.status() {
            v1::JobStatus::Passed => JobStatus::Passed,
            v1::JobStatus::Failed => JobStatus::Failed,
            v1::JobStatus::Cancelled => JobStatus::Cancelled,
            v1::JobStatus::NotRun => JobStatus::NotRun,
            v1::JobStatus::Unknown | v1::JobStatus::Unspecified => JobStatus::Unknown,
        },
        class: class_of(finished.failure_class()),
        message: finished.message.clone(),
        counts: counts_of(&finished.counts.unwrap_or_default()),
    }
}

pub(super) fn test_status(ending: Ending) -> (v1::TestStatus, v1::FailureClass) {
    let none = v1::FailureClass::Unspecified;
    match ending {
        Ending::Passed => (v1::TestStatus::Passed, none),
        Ending::Flaky => (v1::TestStatus::Flaky, none),
        Ending::Cached => (v1::TestStatus::Cached, none),
        Ending::Skipped => (v1::TestStatus::Skipped, none),
        Ending::NotRun => (v1::TestStatus::NotRun, none),
        Ending::Failed(why) => (v1::TestStatus::Failed, class(why)),
        Ending::Quarantined(why) => (v1::TestStatus::Quarantined, class(why)),
    }
}

const fn job_status(status: JobStatus) -> v1::JobStatus {
    match status {
        JobStatus::Passed => v1::JobStatus::Passed,
        JobStatus::Failed => v1::JobStatus::Failed,
        JobStatus::Cancelled => v1::JobStatus::Cancelled,
        JobStatus::NotRun => v1::JobStatus::NotRun,
        JobStatus::Unknown => v1::JobStatus::Unknown,
    }
}

/// How a job ended, or an attempt of it, after so long.
pub(super) fn job_finished(
    job: String,
    outcome: &JobOutcome,
    duration: Option<Duration>,
) -> v1::JobFinished {
    let end = &outcome.end;
    v1::JobFinished {
        job,
        status: job_status(end.status).into(),
        failure_class: class_or_none(end.class).into(),
        message: end.message.clone(),
        result: outcome.result.clone(),
        cached: outcome.cached,
        duration: duration.map(duration_to_wire),
        counts: Some(counts(&end.counts)),
        r#where: outcome.provenance.clone(),
        attempts: outcome.attempts,
        cached_from: outcome.origin.run_id.clone(),
        cached_where: outcome.origin.r#where.clone(),
    }
}

pub(super) const fn verdict(verdict: Verdict) -> v1::Verdict {
    match verdict {
        Verdict::Releasable => v1::Verdict::Releasable,
        Verdict::NotReleasable => v1::Verdict::NotReleasable,
        Verdict::Unknown => v1::Verdict::Unknown,
    }
}

/// What a run and its leases took.
pub(super) fn times(times: RunTimes) -> v1::RunTimes {
    v1::RunTimes {
        queued: Some(duration_to_wire(times.queued)),
        worked: Some(duration_to_wire(times.worked)),
        took: times.took.map(duration_to_wire),
    }
}

pub(super) const fn counts(counts: &RunCounts) -> v1::Counts {
    v1::Counts {
        planned: counts.planned,
        passed: counts.passed,
        flaky: counts.flaky,
        failed: counts.failed,
        cached: counts.cached,
        skipped: counts.skipped,
        not_run: counts.not_run,
        quarantined: counts.quarantined,
    }
}

const fn counts_of(counts: &v1::Counts) -> RunCounts {
    RunCounts {
        planned: counts.planned,
        passed: counts.passed,
        flaky: counts.flaky,
        failed: counts.failed,
        cached: counts.cached,
        skipped: counts.skipped,
        not_run: counts.not_run,
        quarantined: counts.quarantined,
    }
}

pub(super) fn provenance(
    agent: &AgentId,
    slot: SlotIndex,
    outcome: &v1::ExecutionOutcome,
) -> v1::Provenance {
    v1::Provenance {
        agent_id: agent.to_string(),
        slot: slot.0,
        image_id: outcome.image_id.clone(),
    }
}

/// Where something came from, as the scheduler knows it.
pub(super) fn place_of(provenance: &v1::Provenance) -> Option<FailedAt> {
    Some(FailedAt {
        agent: provenance.agent_id.parse().ok()?,
        slot: SlotIndex(provenance.slot),
    })
}

/// How long a command ran, as far as its result says.
pub(super) fn duration_of(outcome: &v1::ExecutionOutcome) -> Duration {
    let metadata = outcome
        .result
        .as_ref()
        .and_then(|it| it.execution_metadata.as_ref());
    let Some(metadata) = metadata else {
        return Duration::ZERO;
    };
    let time = |time: &Option<prost_types::Timestamp>| {
        time.as_ref()
            .and_then(|time| regatta_wire::convert::timestamp_from_wire(time).ok())
    };
    match (
        time(&metadata.execution_start_timestamp),
        time(&metadata.execution_completed_timestamp),
    ) {
        (Some(start), Some(end)) => end.since(start),
        (_, _) => Duration::ZERO,
    }
}
