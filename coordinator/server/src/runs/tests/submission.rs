//! Runs whose submitters chose their ids, and submit them again.

use std::sync::Arc;

use regatta_ledger::{Ledger, MemoryLedger, NewRun, RunQuery, StoredEvent};
use regatta_model::Timestamp;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use tonic::Code;

use super::super::log::encode;
use super::fake_agent::completed;
use super::fixture::{Fixture, build, libtest, spec};
use super::{Answer, FullLedger};
use crate::runs::SubmitRunError;

const RUN: &str = "chosen";

/// One build, which makes something, and a suite, which does not keep it: that is warned of.
fn pipeline() -> v1::RunSpec {
    let unit = v1::Job {
        output_paths: vec!["out".to_owned()],
        ..libtest("unit")
    };
    spec(vec![build("make", &[], &["make"]), unit])
}

/// Another one.
fn other() -> v1::RunSpec {
    v1::RunSpec {
        description: "something else".to_owned(),
        ..pipeline()
    }
}

/// The same of another tenant.
fn of_other_tenant() -> v1::RunSpec {
    v1::RunSpec {
        instance_name: "other".to_owned(),
        ..pipeline()
    }
}

async fn runs_in(ledger: &dyn Ledger) -> usize {
    let query = RunQuery {
        limit: usize::MAX,
        ..RunQuery::default()
    };
    ledger.find_runs(query).await.expect("finds").len()
}

/// It is known: the same is answered as the first time, anything else is refused, and there is no other run.
async fn check_known(fixture: &Fixture) {
    let again = fixture.submit_as(RUN, pipeline()).await.expect("is known");
    assert_eq!(again.run_id, RUN);
    assert_eq!(again.warnings.len(), 1, "{again:?}");
    for strange in [other(), of_other_tenant()] {
        let refused = fixture.submit_as(RUN, strange).await;
        let refused = refused.expect_err("is not the same");
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    }
    assert_eq!(runs_in(fixture.ledger.as_ref()).await, 1);
}

#[tokio::test]
async fn a_run_that_is_submitted_again_is_one_run() {
    let fixture = Fixture::start().await;
    let first = fixture.submit_as(RUN, pipeline()).await.expect("accepted");
    assert_eq!(first.run_id, RUN);
    check_known(&fixture).await;
    let script = Arc::new(|_: &_, _: &_| Some(completed(0, "")));
    let _agent = fixture.agent("a", script);
    fixture.finish(RUN).await;
    check_known(&fixture).await;
    let unnamed = fixture.submit_as("", pipeline()).await.expect("accepted");
    assert_eq!(unnamed.run_id.len(), 32, "{unnamed:?}");
    let nonsense = fixture.submit_as("a\nb", pipeline()).await;
    let nonsense = nonsense.expect_err("is no id");
    assert_eq!(nonsense.code(), Code::InvalidArgument, "{nonsense}");
}

#[tokio::test]
async fn many_submissions_at_once_are_one_run() {
    // What begins at the same time gets ahead of what this ledger stores.
    let ledger = Arc::new(FullLedger::for_reservations());
    let fixture = Fixture::with_ledger(Arc::clone(&ledger) as _).await;
    let submitting = (0..16).map(|_| fixture.submit_as(RUN, pipeline()));
    for answer in futures::future::join_all(submitting).await {
        assert_eq!(answer.expect("is accepted").run_id, RUN);
    }
    check_known(&fixture).await;
    // Of two that differ one is accepted.
    let (one, two) = tokio::join!(
        fixture.submit_as("disputed", pipeline()),
        fixture.submit_as("disputed", other()),
    );
    let refused = match (one, two) {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
        both => panic!("{both:?}"),
    };
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert_eq!(runs_in(fixture.ledger.as_ref()).await, 2);
}

/// Stores what a run begins with, as far as it is wanted.
async fn store_beginning(ledger: &dyn Ledger, record: bool, first_event: bool) {
    let run = RUN.parse().expect("is an id");
    if first_event {
        let spec = Some(pipeline());
        let first = StoredEvent {
            sequence: 1,
            bytes: encode(1, Event::RunStarted(v1::RunStarted { spec })),
            teaches: None,
        };
        let stored = ledger.append_events(&run, vec![first], None).await;
        stored.expect("stores");
    }
    if record {
        let new = NewRun {
            run,
            tenant: "".parse().expect("is a name"),
            description: String::new(),
            commit: String::new(),
            branch: String::new(),
            committed_at: None,
            submitted_at: Timestamp::from(std::time::SystemTime::now()),
        };
        ledger.start_run(new).await.expect("starts");
    }
}

/// The coordinator was killed before it answered.
async fn restarted_after(record: bool, first_event: bool) -> Fixture {
    let ledger = Arc::new(MemoryLedger::new());
    store_beginning(ledger.as_ref(), record, first_event).await;
    Fixture::with_ledger(ledger).await
}

#[tokio::test]
async fn after_a_restart_a_run_is_known_if_it_was_stored() {
    let fixture = restarted_after(true, true).await;
    check_known(&fixture).await;
    // What it is to do is stored, and nothing else: then it begins now, if it is the same.
    let fixture = restarted_after(false, true).await;
    let refused = fixture.submit_as(RUN, other()).await;
    let refused = refused.expect_err("is not the same");
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    fixture.submit_as(RUN, pipeline()).await.expect("accepted");
    check_known(&fixture).await;
    // Nobody knows what it was to do: it has got its end.
    let fixture = restarted_after(true, false).await;
    let refused = fixture.submit_as(RUN, pipeline()).await;
    let refused = refused.expect_err("never began");
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
}

#[tokio::test]
async fn a_run_that_is_stored_and_was_refused_is_not_taken_for_accepted() {
    for first_event in [true, false] {
        let fixture = Fixture::start().await;
        store_beginning(fixture.ledger.as_ref(), true, first_event).await;
        let refused = fixture.submit_as(RUN, pipeline()).await;
        let refused = refused.expect_err("nobody is at it");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
}

/// How a submission ends that is made again once the ledger has failed the first and has answered like this.
async fn submitted_again(answers: &[Answer]) -> SubmitRunError {
    let ledger = Arc::new(FullLedger::answering(answers.iter().copied()));
    let fixture = Fixture::with_ledger(Arc::clone(&ledger) as _).await;
    let registry = fixture.restarted().await;
    tokio::time::pause();
    let run = || Some(RUN.parse().expect("is an id"));
    let refused = registry.submit(run(), pipeline()).await;
    assert!(
        matches!(refused, Err(SubmitRunError::Ledger(_))),
        "{refused:?}"
    );
    let again = registry.submit(run(), pipeline()).await;
    again.expect_err("it is not accepted after all")
}

#[tokio::test]
async fn a_run_that_the_ledger_failed_is_to_have_another_id_once_it_has_ended() {
    use Answer::{Done, DoneAndFailed, Failed};
    // The run itself, its first event, and its end, which is tried every five seconds.
    for answers in [
        &[Done, Failed][..],
        &[Failed, Done],
        &[Done, DoneAndFailed],
        &[DoneAndFailed, DoneAndFailed, Failed],
    ] {
        let refused = submitted_again(answers).await;
        assert!(
            matches!(refused, SubmitRunError::NeverBegan { .. }),
            "{answers:?}: {refused}"
        );
        tokio::time::resume();
    }
    let away = [Done, DoneAndFailed, Failed, Failed, Failed, Failed];
    let refused = submitted_again(&away).await;
    assert!(
        matches!(refused, SubmitRunError::Undecided { .. }),
        "{refused}"
    );
    tokio::time::resume();
}
