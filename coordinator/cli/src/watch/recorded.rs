//! Sequences of events as coordinators send them, for tests.

use regatta_wire::{reapi, v1};
use v1::run_event::Event;

fn numbered(events: Vec<Event>) -> Vec<v1::RunEvent> {
    let numbered = events.into_iter().zip(1..);
    numbered
        .map(|(event, sequence)| v1::RunEvent {
            sequence,
            time: None,
            event: Some(event),
        })
        .collect()
}

fn milliseconds(milliseconds: u64) -> Option<prost_types::Duration> {
    let duration = std::time::Duration::from_millis(milliseconds);
    Some(regatta_wire::convert::duration_to_wire(duration))
}

fn job(name: &str, kind: v1::job::Kind) -> v1::Job {
    v1::Job {
        name: name.to_owned(),
        kind: Some(kind),
        ..v1::Job::default()
    }
}

fn started(jobs: Vec<v1::Job>) -> Event {
    Event::RunStarted(v1::RunStarted {
        spec: Some(v1::RunSpec {
            jobs,
            ..v1::RunSpec::default()
        }),
    })
}

fn test(id: &str, status: v1::TestStatus, duration: u64) -> v1::TestResult {
    v1::TestResult {
        job: "alpha".to_owned(),
        test_id: id.to_owned(),
        status: status.into(),
        duration: milliseconds(duration),
        attempts: 1,
        ..v1::TestResult::default()
    }
}

fn finished(results: Vec<v1::TestResult>) -> Event {
    Event::TestsFinished(v1::TestsFinished { results })
}

fn failed(id: &str, duration: u64) -> v1::TestResult {
    v1::TestResult {
        failure_class: v1::FailureClass::Test.into(),
        ..test(id, v1::TestStatus::Failed, duration)
    }
}

/// One of each: a failure, a flaky test, a slow one, a quick one, a known one, an ignored one.
#[expect(
    clippy::too_many_lines,
    reason = "a list of events reads best in one piece"
)]
pub(super) fn mixed_run() -> Vec<v1::RunEvent> {
    let broken = v1::TestResult {
        exit_code: Some(101),
        stdout_tail: "assertion failed\n".into(),
        stdout_digest: Some(reapi::Digest {
            size_bytes: 117,
            ..reapi::Digest::default()
        }),
        stderr_tail: "a note".into(),
        message: "exit code 101\nwhere it was".to_owned(),
        r#where: Some(v1::Provenance {
            agent_id: "one".to_owned(),
            slot: 1,
            image_id: "sha256:00".to_owned(),
        }),
        ..failed("broken", 1250)
    };
    let shaky = v1::TestResult {
        stderr_tail: "first try\n".into(),
        ..failed("shaky", 500)
    };
    let flaky = v1::TestResult {
        attempts: 2,
        ..test("shaky", v1::TestStatus::Flaky, 250)
    };
    let counts = v1::Counts {
        planned: 6,
        passed: 2,
        flaky: 1,
        failed: 1,
        cached: 1,
        skipped: 1,
        not_run: 0,
        quarantined: 0,
    };
    numbered(vec![
        started(vec![job(
            "alpha",
            v1::job::Kind::Suite(v1::Suite::default()),
        )]),
        Event::JobStarted(v1::JobStarted {
            job: "alpha".to_owned(),
        }),
        Event::SuitePlanned(v1::SuitePlanned {
            job: "alpha".to_owned(),
            planned: 6,
            cached: 1,
            skipped: 1,
            plan: None,
        }),
        finished(vec![
            test("known", v1::TestStatus::Cached, 0),
            test("ignored", v1::TestStatus::Skipped, 0),
            test("quick", v1::TestStatus::Passed, 10),
        ]),
        Event::TestRetried(v1::TestRetried {
            result: Some(shaky),
            next_attempt: 2,
        }),
        finished(vec![broken, flaky]),
        Event::InfrastructureRetry(v1::InfrastructureRetry {
            job: "alpha".to_owned(),
            test_id: "slow".to_owned(),
            agent_id: "one".to_owned(),
            message: "the machine went away".to_owned(),
            next_attempt: 2,
        }),
        Event::TestSlow(v1::TestSlow {
            job: "alpha".to_owned(),
            test_id: "slow".to_owned(),
            others: 0,
            running: milliseconds(60_000),
            agent_id: "two".to_owned(),
            duplicate_agent_id: "three".to_owned(),
        }),
        finished(vec![test("slow", v1::TestStatus::Passed, 61_000)]),
        Event::JobFinished(v1::JobFinished {
            job: "alpha".to_owned(),
            status: v1::JobStatus::Failed.into(),
            failure_class: v1::FailureClass::Test.into(),
            message: "1 of 6 tests failed".to_owned(),
            duration: milliseconds(69_000),
            counts: Some(counts),
            ..v1::JobFinished::default()
        }),
        Event::RunFinished(v1::RunFinished {
            verdict: v1::Verdict::NotReleasable.into(),
            reasons: vec!["1 of 6 tests failed".to_owned()],
            counts: Some(counts),
            duration: milliseconds(70_000),
            leases: 5,
            cancelled: false,
            ..Default::default()
        }),
    ])
}

/// A known build, one that fails at first, one that fails and one that needs that.
pub(super) fn build_run() -> Vec<v1::RunEvent> {
    let build = || v1::job::Kind::Build(v1::Build::default());
    let ended = |job: &str, status: v1::JobStatus, duration, message: &str| v1::JobFinished {
        job: job.to_owned(),
        status: status.into(),
        duration: milliseconds(duration),
        message: message.to_owned(),
        ..v1::JobFinished::default()
    };
    numbered(vec![
        started(vec![
            job("configure", build()),
            job("fetch", build()),
            job("compile", build()),
            job("pack", build()),
        ]),
        Event::JobFinished(v1::JobFinished {
            cached: true,
            ..ended("configure", v1::JobStatus::Passed, 0, "")
        }),
        Event::BuildRetried(v1::BuildRetried {
            attempt: Some(v1::JobFinished {
                failure_class: v1::FailureClass::Test.into(),
                attempts: 1,
                result: Some(reapi::ActionResult {
                    exit_code: 6,
                    stderr_raw: "no such host\n".into(),
                    ..reapi::ActionResult::default()
                }),
                ..ended(
                    "fetch",
                    v1::JobStatus::Failed,
                    500,
                    "exit code 6\nno such host",
                )
            }),
            next_attempt: 2,
        }),
        Event::JobFinished(v1::JobFinished {
            attempts: 2,
            ..ended("fetch", v1::JobStatus::Passed, 900, "")
        }),
        Event::JobStarted(v1::JobStarted {
            job: "compile".to_owned(),
        }),
        Event::JobOutput(v1::JobOutput {
            job: "compile".to_owned(),
            stream: v1::OutputStream::Stderr.into(),
            data: "cc: no such file\n".into(),
            ..v1::JobOutput::default()
        }),
        Event::JobFinished(v1::JobFinished {
            failure_class: v1::FailureClass::Test.into(),
            ..ended("compile", v1::JobStatus::Failed, 2_000, "exit code 2")
        }),
        Event::JobFinished(ended(
            "pack",
            v1::JobStatus::NotRun,
            0,
            "`compile` did not pass",
        )),
        Event::RunFinished(v1::RunFinished {
            verdict: v1::Verdict::NotReleasable.into(),
            reasons: vec!["job `compile` failed".to_owned()],
            counts: Some(v1::Counts::default()),
            duration: milliseconds(3_000),
            leases: 1,
            cancelled: false,
            ..Default::default()
        }),
    ])
}

/// Everything is known.
pub(super) fn cached_run() -> Vec<v1::RunEvent> {
    let counts = v1::Counts {
        planned: 2,
        cached: 2,
        ..v1::Counts::default()
    };
    numbered(vec![
        started(vec![job(
            "alpha",
            v1::job::Kind::Suite(v1::Suite::default()),
        )]),
        Event::SuitePlanned(v1::SuitePlanned {
            job: "alpha".to_owned(),
            planned: 2,
            cached: 2,
            skipped: 0,
            plan: None,
        }),
        finished(vec![
            test("one", v1::TestStatus::Cached, 0),
            test("two", v1::TestStatus::Cached, 0),
        ]),
        Event::RunFinished(v1::RunFinished {
            verdict: v1::Verdict::Releasable.into(),
            counts: Some(counts),
            duration: milliseconds(100),
            ..v1::RunFinished::default()
        }),
    ])
}
