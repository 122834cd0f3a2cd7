use regatta_wire::v1::run_event::Event;

use super::*;

fn event(seconds: i64, event: Event) -> v1::RunEvent {
    v1::RunEvent {
        sequence: 0,
        time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        event: Some(event),
    }
}

fn test(id: &str, status: v1::TestStatus) -> v1::TestResult {
    v1::TestResult {
        job: "check".to_owned(),
        test_id: id.to_owned(),
        status: status.into(),
        key: Some(Digest::of(id.as_bytes()).into()),
        r#where: Some(v1::Provenance {
            agent_id: "one".to_owned(),
            slot: 0,
            image_id: "sha256:1".to_owned(),
        }),
        ..v1::TestResult::default()
    }
}

fn job(name: &str) -> v1::JobFinished {
    v1::JobFinished {
        job: name.to_owned(),
        status: v1::JobStatus::Passed.into(),
        ..v1::JobFinished::default()
    }
}

fn started(job: &str) -> Event {
    let job = job.to_owned();
    Event::JobStarted(v1::JobStarted { job })
}

fn leased(job: &str) -> Event {
    let job = job.to_owned();
    Event::JobLeased(v1::JobLeased { job })
}

/// A run of a build and of a suite with tests that end like this.
pub(crate) fn run(tests: &[(&str, v1::TestStatus)], verdict: v1::Verdict) -> Vec<v1::RunEvent> {
    let named = |name: &str| v1::Job {
        name: name.to_owned(),
        input_root: Some(Digest::of(name.as_bytes()).into()),
        ..v1::Job::default()
    };
    let spec = v1::RunSpec {
        commit: "0123456789012345678901234567890123456789".to_owned(),
        branch: "main".to_owned(),
        committed_at: Some(prost_types::Timestamp {
            seconds: 4,
            nanos: 0,
        }),
        jobs: vec![named("make"), named("check")],
        ..v1::RunSpec::default()
    };
    let mut make = job("make");
    let file = regatta_wire::reapi::OutputFile {
        path: "out/app".to_owned(),
        digest: Some(Digest::of(b"application").into()),
        ..Default::default()
    };
    make.result.get_or_insert_default().output_files.push(file);
    let counts = tests.iter().map(|(_, status)| Counts::of(*status));
    let counts = counts.fold(Counts::default(), Counts::plus);
    let finished = v1::RunFinished {
        verdict: verdict.into(),
        counts: Some(v1::Counts {
            planned: counts.planned,
            passed: counts.passed,
            flaky: counts.flaky,
            failed: counts.failed,
            cached: counts.cached,
            skipped: counts.skipped,
            not_run: counts.not_run,
            quarantined: counts.quarantined,
        }),
        leases: 2,
        ..v1::RunFinished::default()
    };
    let results = tests.iter().map(|(id, status)| test(id, *status));
    make.r#where = Some(v1::Provenance {
        agent_id: "two".to_owned(),
        slot: 0,
        image_id: "sha256:2".to_owned(),
    });
    vec![
        event(10, Event::RunStarted(v1::RunStarted { spec: Some(spec) })),
        event(10, started("make")),
        event(11, leased("make")),
        event(11, Event::JobFinished(make)),
        event(11, started("check")),
        event(12, leased("check")),
        event(
            12,
            Event::TestsFinished(v1::TestsFinished {
                results: results.collect(),
            }),
        ),
        event(13, Event::JobFinished(job("check"))),
        event(14, Event::RunFinished(finished)),
    ]
}

/// Whether a job ends with it.
pub(crate) fn is_end_of(event: &v1::RunEvent, job: &str) -> bool {
    matches!(&event.event, Some(Event::JobFinished(finished)) if finished.job == job)
}

pub(crate) fn gathered(events: &[v1::RunEvent]) -> Result<Evidence, IncompleteRunError> {
    let mut builder = EvidenceBuilder::default();
    events.iter().for_each(|event| builder.take(event));
    builder.finish()
}

const GOOD: [(&str, v1::TestStatus); 3] = [
    ("a", v1::TestStatus::Passed),
    ("b", v1::TestStatus::Cached),
    ("c", v1::TestStatus::Skipped),
];

#[test]
fn events_add_up_to_evidence() {
    let events = run(&GOOD, v1::Verdict::Releasable);
    let evidence = gathered(&events).expect("is complete");
    assert_eq!(evidence.counts().planned, 3);
    let artefact = evidence.jobs["make"].artefacts["out/app"];
    assert_eq!(artefact, Digest::of(b"application"));
    assert_eq!(evidence.agents, ["one", "two"].map(str::to_owned).into());
    let other = run(&GOOD[..2], v1::Verdict::Releasable);
    let other = gathered(&other).expect("is complete");
    assert_eq!(evidence.requested(), other.requested());
    let tree = |evidence: &Evidence| crate::judgement::tree(std::iter::once(evidence));
    assert_eq!(tree(&evidence), tree(&other));
    let plan = |evidence: Evidence| {
        let alone = (String::new(), evidence);
        crate::Judgement::of(alone, Vec::new(), None).plan()
    };
    assert_ne!(plan(evidence), plan(other));
}

#[test]
fn what_machines_lost_has_not_run() {
    let mut events = run(
        &[("a", v1::TestStatus::Failed), ("b", v1::TestStatus::NotRun)],
        v1::Verdict::NotReleasable,
    );
    let told = events.iter_mut().find_map(|event| match &mut event.event {
        Some(Event::TestsFinished(told)) => Some(&mut told.results),
        _ => None,
    });
    let mut lost = test("c", v1::TestStatus::Failed);
    lost.failure_class = v1::FailureClass::Infra.into();
    told.expect("is told").push(lost);
    if let Some(Event::RunFinished(end)) = events.last_mut().and_then(|it| it.event.as_mut()) {
        let counts = end.counts.as_mut().expect("is set");
        (counts.planned, counts.not_run) = (3, 2);
    }
    let evidence = gathered(&events).expect("does not contradict itself");
    let lost = &evidence.suites["check"].tests["c"];
    assert_eq!(lost.status, v1::TestStatus::NotRun);
}

#[test]
fn what_is_not_whole_or_contradicts_itself_is_no_evidence() {
    let events = run(&GOOD, v1::Verdict::Releasable);
    for lost in 0..events.len() {
        let mut events = events.clone();
        // Earlier releases did not tell of leases.
        let is_needed = !matches!(events.remove(lost).event, Some(Event::JobLeased(_)));
        assert_eq!(
            gathered(&events).is_err(),
            is_needed,
            "without event {lost}"
        );
    }
    let mut stray = events.clone();
    stray.insert(1, event(10, leased("make")));
    assert!(gathered(&stray).is_err(), "a slot that nothing waited for");
    // The coordinator was killed: a job has not ended, and one of its tests was not told.
    let mut cut = run(&[("a", v1::TestStatus::Passed)], v1::Verdict::Unknown);
    cut.retain(|event| !is_end_of(event, "check"));
    if let Some(Event::RunFinished(end)) = cut.last_mut().and_then(|it| it.event.as_mut()) {
        let counts = end.counts.as_mut().expect("is set");
        (counts.planned, counts.not_run) = (2, 1);
    }
    let cut = gathered(&cut).expect("is honest");
    assert_eq!(cut.status_of("check"), v1::JobStatus::Unknown);
    for status in [v1::TestStatus::Failed, v1::TestStatus::NotRun] {
        let bad = run(&[("a", status)], v1::Verdict::Releasable);
        assert!(gathered(&bad).is_err(), "{status:?}");
        let honest = run(&[("a", status)], v1::Verdict::NotReleasable);
        assert!(gathered(&honest).is_ok(), "{status:?}");
    }
}
