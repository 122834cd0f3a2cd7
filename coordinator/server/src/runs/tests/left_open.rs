//! Many runs that an earlier process has left open.

use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use regatta_ledger::{Ledger, NewRun};
use regatta_model::{RunId, Timestamp};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::super::registry::{FindRunError, MAX_RESUMPTIONS, RunRegistry, SubmitRunError};
use super::fixture::{Fixture, PATIENCE, libtest, spec, until};
use super::resumption::stored;
use super::{Answer, FullLedger, all_pass};

const RUNS: usize = 40;
const TESTS: usize = 3;

fn pipeline() -> v1::RunSpec {
    spec(vec![libtest("unit")])
}

fn name(number: usize) -> String {
    format!("r{number}")
}

/// A fleet, and a ledger with so many runs that have begun and not ended.
async fn left_open(runs: usize, ledger: &FullLedger) -> Fixture {
    left_open_since(None, runs, ledger).await
}

/// The same, which were submitted then, if not now.
async fn left_open_since(since: Option<Timestamp>, runs: usize, ledger: &FullLedger) -> Fixture {
    let fixture = Fixture::start().await;
    let run = fixture.submit(pipeline()).await;
    let (record, events) = stored(&fixture).await;
    let cancel = v1::CancelRunRequest { run_id: run };
    fixture.runs().cancel_run(cancel).await.expect("cancels");
    ledger.make_room();
    for number in 0..runs {
        let run: RunId = name(number).parse().expect("is an id");
        let new = NewRun {
            run: run.clone(),
            submitted_at: since.unwrap_or(record.new.submitted_at),
            ..record.new.clone()
        };
        let first = vec![events[0].clone()];
        ledger.memory.start_run(new).await.expect("starts");
        let appended = ledger.memory.append_events(&run, first, None).await;
        appended.expect("appends");
    }
    fixture
}

/// A run's events, to its end.
async fn watched(registry: &Arc<RunRegistry>, run: &str) -> Vec<Event> {
    let watch = async {
        let events = registry.watch(run, 0).await.expect("is known");
        let events = events.map(|event| event.expect("is read").event.expect("is set"));
        events.collect().await
    };
    let watched = tokio::time::timeout(PATIENCE, watch).await;
    watched.expect("ends in time")
}

#[track_caller]
fn expect_resumed_and_right(events: &[Event]) {
    let resumed = |event: &&Event| matches!(event, Event::RunResumed(_));
    assert_eq!(events.iter().filter(resumed).count(), 1, "{events:#?}");
    let Some(Event::RunFinished(end)) = events.last() else {
        panic!("{events:#?}");
    };
    let counts = end.counts.as_ref().expect("is set");
    let sum = usize::try_from(counts.passed + counts.cached).expect("few");
    assert_eq!((sum, end.verdict()), (TESTS, v1::Verdict::Releasable));
}

#[tokio::test]
async fn runs_are_taken_up_some_at_a_time_behind_a_coordinator_that_serves() {
    let ledger = Arc::new(FullLedger::default());
    let fixture = left_open(RUNS, &ledger).await;
    ledger.hold_reads(true);
    let registry = fixture.started_with(Arc::clone(&ledger) as _).await;
    assert_eq!(registry.left_open(), RUNS);
    until(|| ledger.readers() == MAX_RESUMPTIONS).await;
    let (new, _) = registry
        .submit(None, pipeline())
        .await
        .expect("is accepted meanwhile");

    let last = name(RUNS - 1);
    tokio::time::pause();
    let watched_too_early = registry.watch(&last, 0).await.map(drop);
    let cancelled_too_early = registry.cancel(&last).await;
    for told in [watched_too_early, cancelled_too_early] {
        assert!(
            matches!(told, Err(FindRunError::NotResumed { .. })),
            "{told:?}"
        );
    }
    let again = registry.submit(Some(last.parse().expect("is an id")), pipeline());
    let again = again.await;
    assert!(
        matches!(again, Err(SubmitRunError::Undecided { .. })),
        "{again:?}"
    );
    tokio::time::resume();
    // In all that time no more than these were at it.
    assert_eq!(ledger.readers(), MAX_RESUMPTIONS);

    let mut waiting = pin!(watched(&registry, &last));
    assert!(futures::poll!(&mut waiting).is_pending());
    ledger.hold_reads(false);
    let _agent = fixture.agent("a", all_pass(TESTS));
    expect_resumed_and_right(&waiting.await);
    for number in 0..RUNS {
        expect_resumed_and_right(&watched(&registry, &name(number)).await);
    }
    assert_eq!(registry.left_open(), 0);
    let new = watched(&registry, new.as_str()).await;
    assert!(matches!(new.last(), Some(Event::RunFinished(_))));
}

#[tokio::test]
async fn a_run_is_taken_up_though_the_ledger_fails_at_first() {
    let ledger = Arc::new(FullLedger::answering([Answer::Failed, Answer::Failed]));
    let fixture = left_open(1, &ledger).await;
    tokio::time::pause();
    let registry = fixture.started_with(Arc::clone(&ledger) as _).await;
    let mut ticks = tokio::time::interval(std::time::Duration::from_secs(1));
    while registry.left_open() > 0 {
        ticks.tick().await;
    }
    tokio::time::resume();
    let _agent = fixture.agent("a", all_pass(TESTS));
    expect_resumed_and_right(&watched(&registry, &name(0)).await);
}

#[tokio::test]
async fn a_run_that_is_too_old_ends_once_though_the_answer_to_that_is_lost() {
    let ledger = Arc::new(FullLedger::answering([Answer::DoneAndFailed]));
    let fixture = left_open_since(Some(Timestamp::EPOCH), 1, &ledger).await;
    tokio::time::pause();
    let registry = fixture.started_with(Arc::clone(&ledger) as _).await;
    let mut ticks = tokio::time::interval(std::time::Duration::from_secs(1));
    while registry.left_open() > 0 {
        ticks.tick().await;
    }
    tokio::time::resume();
    let events = watched(&registry, &name(0)).await;
    let ends = |event: &&Event| matches!(event, Event::RunFinished(_));
    assert_eq!(events.iter().filter(ends).count(), 1, "{events:#?}");
    assert!(
        matches!(events.last(), Some(Event::RunFinished(_))),
        "{events:#?}"
    );
}
