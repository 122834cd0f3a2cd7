//! Runners that report at their end, and end before it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use regatta_scheduler::SchedulerConfig;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::check_lie;
use super::contract::{any_runner, junit};
use super::fake_agent::{Script, completed};
use super::fixture::{Fixture, PATIENCE, Story, contract, quick, spec};
use super::resumption::stored;
use crate::runs::suite::{MOST_IN_A_ROW, MOST_SILENT};

pub(super) const TESTS: u32 = 60;
const ALL: usize = TESTS as usize;

pub(super) fn listed() -> String {
    (0..TESTS).map(|test| format!("t{test:02}\n")).collect()
}

/// Runs the tests with so many retries, by a runner whose batches end without a report as `dies` says, which is asked
/// with their number; and how many batches there were.
pub(super) async fn run(
    retries: u32,
    dies: impl Fn(usize, &[String]) -> Option<v1::ExecutionOutcome> + Send + Sync + 'static,
) -> (Fixture, Story, Vec<usize>) {
    let run = move |number, ids: &[String]| match dies(number, ids) {
        Some(outcome) => (outcome, None),
        None => all_well(ids),
    };
    run_by(retries, run).await
}

/// One that gives no slot all the tests at once.
fn in_batches() -> SchedulerConfig {
    SchedulerConfig {
        max_batch_units: 25,
        ..quick()
    }
}

/// How a batch ends whose tests all pass.
pub(super) fn all_well(ids: &[String]) -> (v1::ExecutionOutcome, Option<String>) {
    let report = junit(ids.iter().map(String::as_str));
    (completed(0, ""), Some(report))
}

/// The same by any runner.
pub(super) async fn run_by(
    retries: u32,
    run: impl Fn(usize, &[String]) -> (v1::ExecutionOutcome, Option<String>) + Send + Sync + 'static,
) -> (Fixture, Story, Vec<usize>) {
    let fixture = Fixture::with_scheduler(in_batches()).await;
    let batches = Arc::new(Mutex::new(Vec::new()));
    let sizes = Arc::clone(&batches);
    let run = move |ids: &[String]| {
        let mut sizes = sizes.lock().expect("is whole");
        let number = sizes.len();
        sizes.push(ids.len());
        run(number, ids)
    };
    let agent = fixture.agent("a", any_runner(&fixture, listed(), run));
    let suite = v1::Job {
        retries,
        ..contract("acceptance")
    };
    let story = fixture.run(spec(vec![suite])).await;
    drop(agent);
    let sizes = batches.lock().expect("is whole").clone();
    (fixture, story, sizes)
}

fn warnings(story: &Story) -> Vec<&str> {
    let events = story.events.iter();
    let warnings = events.filter_map(|event| match event {
        Event::Warning(warning) => Some(warning.message.as_str()),
        _ => None,
    });
    warnings.collect()
}

fn out_of_time() -> v1::ExecutionOutcome {
    v1::ExecutionOutcome {
        kind: v1::OutcomeKind::TimedOut.into(),
        ..Default::default()
    }
}

pub(super) fn has(id: &'static str) -> impl Fn(&[String]) -> bool {
    move |ids| ids.iter().any(|it| it == id)
}

/// That `t42` failed, and nothing else did or is flaky.
#[track_caller]
pub(super) fn check_alone(story: &Story, retries: u32, message: &str) {
    check_lie(story, "t42", message);
    let counts = story.counts();
    let counted = (counts.passed, counts.failed, counts.flaky, counts.planned);
    assert_eq!(counted, (TESTS - 1, 1, 0, TESTS));
    for (id, result) in story.tests() {
        let tried = if id == "t42" { 1 + retries } else { 1 };
        assert_eq!(result.attempts, tried, "{id}");
    }
    let retried = story.events.iter();
    let retried = retried.filter(|event| matches!(event, Event::TestRetried(_)));
    assert_eq!(retried.count(), retries as usize);
    assert_eq!(story.job("acceptance").message, "1 of 60 tests failed");
}

#[tokio::test]
async fn a_test_that_kills_its_runner_before_it_reports_fails_alone() {
    for retries in [0, 1] {
        let dies = |_, ids: &[String]| has("t42")(ids).then(|| completed(137, ""));
        let (fixture, story, sizes) = run(retries, dies).await;
        check_alone(
            &story,
            retries,
            "exited with code 137; it wrote no JUnit report",
        );
        let told = warnings(&story);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains("which of them did it is not known"),
            "{told:?}"
        );
        // Each batch that dies becomes two, until one test is left.
        let most = 2 * ALL.next_power_of_two().ilog2() as usize + retries as usize;
        let first = sizes.iter().scan(0, |sum, size| {
            *sum += size;
            (*sum <= ALL).then_some(())
        });
        assert!(sizes.len() <= first.count() + most, "{sizes:?}");
        let _agent = fixture.agent("b", any_runner(&fixture, listed(), all_well));
        let again = fixture.run(spec(vec![contract("acceptance")])).await;
        assert_eq!((again.counts().cached, again.counts().passed), (59, 1));
    }
}

#[tokio::test]
async fn a_test_that_hangs_fails_alone_and_the_others_do_not_wait_for_its_half() {
    let dies = |_, ids: &[String]| has("t42")(ids).then(out_of_time);
    let (_fixture, story, sizes) = run(1, dies).await;
    check_alone(&story, 1, "ran out of time; it wrote no JUnit report");
    assert_eq!(
        story.tests()["t42"].failure_class(),
        v1::FailureClass::Timeout
    );
    let alone = sizes.iter().filter(|size| **size == 1).count();
    assert!(alone >= *sizes.iter().max().expect("some"), "{sizes:?}");
}

#[tokio::test]
async fn a_test_that_ends_its_runner_as_if_all_were_well_fails_alone() {
    let dies = |_, ids: &[String]| has("t42")(ids).then(|| completed(0, ""));
    let (_fixture, story, _) = run(0, dies).await;
    check_alone(&story, 0, "exited with code 0; it wrote no JUnit report");
}

#[tokio::test]
async fn a_runner_that_reports_elsewhere_is_started_a_few_times_more() {
    let (_fixture, story, sizes) = run(0, |_, _| Some(completed(0, ""))).await;
    assert_eq!(story.counts().failed, TESTS);
    check_lie(
        &story,
        "t00",
        "exited with code 0; it wrote no JUnit report",
    );
    let more = sizes.iter().sum::<usize>() - ALL;
    assert!(more <= ALL * MOST_SILENT as usize, "{sizes:?}");
    assert!(sizes.len() < ALL / 2, "{sizes:?}");
}

#[tokio::test]
async fn an_end_that_does_not_come_again_is_not_forgotten() {
    let dies = |number, _: &[String]| (number == 0).then(|| completed(137, ""));
    let (_fixture, story, _) = run(0, dies).await;
    assert_eq!(story.counts().passed, TESTS);
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    let message = &story.job("acceptance").message;
    assert!(message.contains("exited with code 137"), "{message}");
    assert!(message.contains("none of which failed when they ran again"));

    let (_fixture, story, _) = run(1, dies).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
    assert_eq!((story.counts().passed, story.counts().flaky), (TESTS, 0));
    let told = warnings(&story);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].contains("none of which failed"), "{told:?}");
}

#[tokio::test]
async fn no_pass_of_a_batch_whose_end_nobody_explains_is_cached() {
    for retries in [0, 1] {
        let dies = |number, _: &[String]| (number == 0).then(|| completed(137, ""));
        let (fixture, _, sizes) = run(retries, dies).await;
        let _agent = fixture.agent("b", any_runner(&fixture, listed(), all_well));
        let again = fixture.run(spec(vec![contract("acceptance")])).await;
        let suspects = u32::try_from(sizes[0]).expect("few");
        assert_eq!(again.counts().passed, suspects, "they run once more");
        assert_eq!(again.counts().cached, TESTS - suspects);
    }
}

#[tokio::test]
async fn those_that_may_have_ended_a_worker_run_in_new_ones() {
    let fixture = Fixture::with_scheduler(in_batches()).await;
    let workers = Arc::new(Mutex::new(Vec::<(String, Vec<String>)>::new()));
    let (asked, known) = (Arc::clone(&workers), Arc::clone(&workers));
    let runner = any_runner(&fixture, listed(), move |ids| {
        let mut asked = asked.lock().expect("is whole");
        asked.last_mut().expect("is asked").1 = ids.to_vec();
        match has("t42")(ids) {
            true => (completed(137, ""), None),
            false => all_well(ids),
        }
    });
    let script: Script = Arc::new(move |spec, execution| {
        if spec.command.as_ref().expect("is set").arguments == ["./run", "@.regatta/tests"] {
            let key = spec.worker.as_ref().expect("may stay").key.clone();
            known.lock().expect("is whole").push((key, Vec::new()));
        }
        runner(spec, execution)
    });
    let _agent = fixture.agent("a", script);
    let mut job = contract("acceptance");
    if let Some(v1::job::Kind::Suite(suite)) = &mut job.kind {
        suite.worker_arguments = vec!["./worker".to_owned()];
    }
    let story = fixture.run(spec(vec![job])).await;
    check_alone(&story, 0, "exited with code 137");
    let (mut ran, mut used) = (BTreeSet::new(), BTreeSet::new());
    for (key, ids) in workers.lock().expect("is whole").iter() {
        let is_suspected = ids.iter().all(|id| ran.contains(id));
        let is_new = used.insert(key.clone());
        assert_eq!(is_new, is_suspected || ran.is_empty(), "{key}: {ids:?}");
        ran.extend(ids.iter().cloned());
    }
}

/// What a runner has reported, which does so after each test, once one of them ends it.
fn reported_before(ids: &[String], ends: &str) -> Option<String> {
    let position = ids.iter().position(|id| id == ends)?;
    Some(junit(ids[..position].iter().map(String::as_str)))
}

#[tokio::test]
async fn a_test_that_ends_its_runner_in_the_middle_of_its_report_fails_alone() {
    for (end, message) in [
        (completed(9, ""), "exited with code 9"),
        (out_of_time(), "ran out of time"),
    ] {
        for retries in [0, 1] {
            let end = end.clone();
            let run = move |_, ids: &[String]| match reported_before(ids, "t42") {
                Some(report) => (end.clone(), Some(report)),
                None => all_well(ids),
            };
            let (_fixture, story, sizes) = run_by(retries, run).await;
            check_alone(&story, retries, message);
            let told = warnings(&story);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains("it did not report"), "{told:?}");
            assert!(sizes.len() < 2 * ALL, "{sizes:?}");
        }
    }
}

#[tokio::test]
async fn an_end_in_the_middle_of_a_report_that_does_not_come_again_is_not_forgotten() {
    let run = |number, ids: &[String]| match number {
        0 => (completed(9, ""), reported_before(ids, &ids[ids.len() / 2])),
        _ => all_well(ids),
    };
    let (fixture, story, sizes) = run_by(0, run).await;
    assert_eq!(story.counts().passed, TESTS);
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    let message = &story.job("acceptance").message;
    assert!(message.contains("it did not report"), "{message}");
    let _agent = fixture.agent("b", any_runner(&fixture, listed(), all_well));
    let again = fixture.run(spec(vec![contract("acceptance")])).await;
    assert_eq!(again.counts().passed as usize, sizes[0]);
}

#[tokio::test]
async fn tests_that_cannot_run_again_have_no_answer_and_are_not_blamed() {
    // What follows the first batch waits, so that nothing else is let into the queue.
    let config = SchedulerConfig {
        queue_limit_units: 1,
        tenant_queue_percent: 100,
        queue_full_retry: Duration::from_millis(1),
        ..in_batches()
    };
    let fixture = Fixture::with_scheduler(config).await;
    let first = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&first);
    let stuck = any_runner(&fixture, listed(), move |ids| {
        *seen.lock().expect("is whole") = ids.to_vec();
        (completed(137, ""), None)
    });
    let batches = AtomicUsize::new(0);
    let stuck: Script = Arc::new(move |spec, execution| {
        let number = batches.fetch_add(1, Ordering::SeqCst);
        // The first lists the tests.
        (number < 2).then(|| stuck(spec, execution)).flatten()
    });
    let agent = fixture.agent("a", stuck);
    let run = fixture.submit(spec(vec![contract("acceptance")])).await;
    let told = async {
        while !stored(&fixture).await.1.iter().any(|event| {
            let event = v1::RunEvent::decode(event.bytes.clone()).expect("is an event");
            matches!(event.event, Some(Event::TestsFinished(_)))
        }) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told)
        .await
        .expect("they are told in time");
    drop(agent);
    let _agent = fixture.agent("b", any_runner(&fixture, listed(), all_well));
    let story = fixture.finish(&run).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    let first = first.lock().expect("is whole").clone();
    let lost = u32::try_from(first.len()).expect("few");
    let counts = story.counts();
    let counted = (counts.passed, counts.failed, counts.not_run);
    assert_eq!(counted, (TESTS - lost, 0, lost));
    let tests = story.tests();
    for id in &first {
        assert_eq!(tests[id].failure_class(), v1::FailureClass::Infra, "{id}");
        let message = &tests[id].message;
        assert!(message.contains("stayed full for too long"), "{message}");
    }
}

#[tokio::test]
async fn a_runner_that_cannot_start_is_quoted_once_for_each_batch_that_is_blamed() {
    let fixture = Fixture::start().await;
    let script: Script = Arc::new(|spec, _| {
        let command = spec.command.as_ref().expect("is set");
        Some(match command.arguments == ["./list"] {
            true => completed(0, &listed()),
            false => completed(127, "no such program: ./run"),
        })
    });
    let _agent = fixture.agent("a", script);
    let story = fixture.run(spec(vec![contract("acceptance")])).await;
    let tests = story.tests();
    for id in ["t00", "t59"] {
        check_lie(&story, id, "the runner exited with code 127; it wrote no");
    }
    let quoting = tests.values().filter(|test| !test.stdout_tail.is_empty());
    let quoting = u64::try_from(quoting.count()).expect("few");
    // One lease lists the tests, each of the others is a batch, and the first of them run again in two.
    let blamed = story.end().leases - 1 - u64::from(MOST_IN_A_ROW);
    assert_eq!(quoting, blamed);
    let mut quotes = tests.values().map(|test| &test.stdout_tail[..]);
    assert!(quotes.all(|text| text.is_empty() || text == b"no such program: ./run"));
}
