//! What a run says of itself is what its events are evidence of.

use std::sync::Arc;

use proptest::prelude::*;
use regatta_ledger::RunCounts;
use regatta_model::FailureClass;
use regatta_verdict::{Evidence, EvidenceBuilder, IncompleteRunError};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::audit::evidence;
use super::fake_agent::{Script, completed, lost};
use super::fixture::{Fixture, libtest, spec};
use super::{FAILED, names, runner};
use crate::runs::event;
use crate::runs::recorded::Recorded;
use crate::runs::tally::{Ending, Tally, corrected};

/// A test of each job: one fails, and machines always lose the other.
fn failing_and_lost() -> Script {
    let unit = runner(names(1), |_| Some(completed(101, FAILED)));
    Arc::new(move |spec, execution| {
        let is_test = !execution.extra_arguments.is_empty();
        match (spec.description.as_str(), is_test) {
            ("lost", true) => Some(lost()),
            (_, _) => unit(spec, execution),
        }
    })
}

#[tokio::test]
async fn a_test_that_machines_lose_is_not_run_in_the_evidence_either() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", failing_and_lost());
    let other = v1::Job {
        cpu_milli: 500,
        ..libtest("lost")
    };
    for (jobs, verdict, failed) in [
        (vec![other.clone()], v1::Verdict::Unknown, 0),
        (vec![libtest("unit"), other], v1::Verdict::NotReleasable, 1),
    ] {
        let story = fixture.run(spec(jobs)).await;
        assert_eq!(story.end().verdict(), verdict, "{:?}", story.end().reasons);
        let counts = story.counts();
        assert_eq!((counts.failed, counts.not_run), (failed, 1));
        let evidence = evidence(&story);
        let lost = &evidence.suites["lost"].tests["test_0000"];
        assert_eq!(lost.status, v1::TestStatus::NotRun);
    }
}

fn class() -> impl Strategy<Value = FailureClass> {
    prop_oneof![
        Just(FailureClass::Test),
        Just(FailureClass::Timeout),
        Just(FailureClass::Oom),
        Just(FailureClass::Infra),
        Just(FailureClass::Cancelled),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        Just(Ending::Passed),
        Just(Ending::Flaky),
        Just(Ending::Cached),
        Just(Ending::Skipped),
        Just(Ending::NotRun),
        class().prop_map(Ending::Failed),
        class().prop_map(Ending::Quarantined),
    ]
}

fn result(test: usize, ending: Ending, is_audit: bool) -> v1::TestResult {
    let (status, class) = event::test_status(ending);
    v1::TestResult {
        job: "unit".to_owned(),
        test_id: test.to_string(),
        status: status.into(),
        failure_class: class.into(),
        is_audit,
        ..Default::default()
    }
}

/// The events of a run of one suite whose tests end so, some of them untold; and what it counts.
fn told(endings: &[(Ending, Ending)], untold: usize, piece: usize) -> (Vec<Event>, RunCounts) {
    let mut tally = Tally::new(endings.len() + untold);
    for (test, (ending, _)) in endings.iter().enumerate() {
        tally.record(test, *ending);
    }
    tally
        .open()
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|test| {
            tally.record(test, Ending::NotRun);
        });
    let counts = tally.counts();
    let own = endings.iter().enumerate();
    let is_known = |ending: Ending| matches!(ending, Ending::Cached | Ending::Skipped);
    let audits = own.clone().filter(|(_, (known, _))| is_known(*known));
    let counts = audits.clone().fold(counts, |counts, (_, (known, audit))| {
        corrected(counts, *known, *audit)
    });
    let results = own.map(|(test, (ending, _))| result(test, *ending, false));
    let audits = audits.map(|(test, (_, ending))| result(test, *ending, true));
    let results: Vec<_> = results.chain(audits).collect();
    let planned = v1::SuitePlanned {
        job: "unit".to_owned(),
        planned: counts.planned,
        ..Default::default()
    };
    let pieces = results.chunks(piece).map(<[_]>::to_vec);
    let pieces = pieces.map(|results| Event::TestsFinished(v1::TestsFinished { results }));
    let events = std::iter::once(Event::SuitePlanned(planned)).chain(pieces);
    (events.collect(), counts)
}

fn gathered(events: Vec<Event>) -> Result<Evidence, IncompleteRunError> {
    let mut builder = EvidenceBuilder::default();
    for (event, seconds) in events.into_iter().zip(1..) {
        builder.take(&v1::RunEvent {
            sequence: 1,
            time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            event: Some(event),
        });
    }
    builder.finish()
}

proptest! {
    /// However tests end, whatever an audit makes of cached passes and skips, and however much is untold.
    #[test]
    fn evidence_counts_what_the_run_counts(
        endings in prop::collection::vec((ending(), ending()), 0..20),
        untold in 0usize..3,
        piece in 1usize..5,
    ) {
        let (events, counts) = told(&endings, untold, piece);
        let mut recorded = Recorded::default();
        for (sequence, event) in (1..).zip(&events) {
            recorded.take(v1::RunEvent {
                sequence,
                time: None,
                event: Some(event.clone()),
            });
        }
        prop_assert_eq!(recorded.counts(), counts);
        let started = Event::RunStarted(v1::RunStarted {
            spec: Some(v1::RunSpec::default()),
        });
        let finished = Event::RunFinished(v1::RunFinished {
            verdict: v1::Verdict::Unknown.into(),
            counts: Some(event::counts(&counts)),
            ..Default::default()
        });
        let events = [vec![started], events, vec![finished]].concat();
        let evidence = gathered(events);
        prop_assert!(evidence.is_ok(), "{:?}", evidence);
    }
}
