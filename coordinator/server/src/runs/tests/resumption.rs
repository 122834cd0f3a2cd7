//! Runs whose coordinator is gone: wherever that was, they end as if nothing had happened.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use prost::Message as _;
use regatta_ledger::{Ledger, MemoryLedger, RunQuery, RunRecord, StoredEvent};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::super::registry::{FindRunError, MAX_ABANDONED_RUNS};
use super::contract::{ending_runner, junit};
use super::fake_agent::{Script, completed};
use super::fixture::{Fixture, PATIENCE, Story, build, contract, libtest, spec};
use super::{Answer, FAILED, FullLedger, PASSED, all_pass, names, runner};

/// A build and a suite after it, either of which may be tried again.
pub(super) fn retried() -> [v1::Job; 2] {
    let make = v1::Job {
        retries: 1,
        ..build("make", &[], &["make"])
    };
    let unit = v1::Job {
        retries: 1,
        needs: vec!["make".to_owned()],
        ..libtest("unit")
    };
    [make, unit]
}

/// A build that fails once, a suite with tests of every kind, and one whose runner complains.
fn pipeline() -> v1::RunSpec {
    let [make, unit] = retried();
    let later = build("later", &["unit"], &["make"]);
    spec(vec![make, unit, contract("acceptance"), later])
}

/// How often each thing has been tried that fails at first.
pub(super) type Tries = Arc<Mutex<HashMap<String, u32>>>;

fn is_first(tries: &Tries, what: &str) -> bool {
    let mut tries = tries.lock().expect("nobody panicked");
    let count = tries.entry(what.to_owned()).or_default();
    *count += 1;
    *count == 1
}

fn script(fixture: &Fixture, tries: &Tries, tests: &[&str]) -> Script {
    let tests: Vec<String> = tests.iter().map(|&test| test.to_owned()).collect();
    let of_unit = Arc::clone(tries);
    let unit = runner(tests, move |test| {
        let fails = test == "bad" || (test == "flaky" && is_first(&of_unit, test));
        Some(match fails {
            true => completed(101, FAILED),
            false => completed(0, PASSED),
        })
    });
    let report = |ids: &[String]| (3, junit(ids.iter().map(String::as_str)));
    let acceptance = ending_runner(fixture, "x\ny\n", report);
    let tries = Arc::clone(tries);
    Arc::new(move |spec, execution| {
        let arguments = &spec.command.as_ref().expect("is set").arguments;
        match arguments[0].as_str() {
            "make" if is_first(&tries, "make") => Some(completed(2, "")),
            "make" => Some(completed(0, "")),
            "./tests" => unit(spec, execution),
            _ => acceptance(spec, execution),
        }
    })
}

/// How a run ended, whatever it took.
#[derive(PartialEq, Eq, Debug)]
struct Gist {
    verdict: v1::Verdict,
    counts: v1::Counts,
    tests: BTreeMap<String, (v1::TestStatus, u32)>,
    jobs: BTreeMap<&'static str, (v1::JobStatus, u32)>,
}

fn gist(story: &Story) -> Gist {
    let jobs = ["make", "unit", "acceptance", "later"].map(|name| {
        let job = story.job(name);
        (name, (job.status(), job.attempts))
    });
    let tests = story.tests().into_iter();
    Gist {
        verdict: story.end().verdict(),
        counts: story.counts(),
        tests: tests
            .map(|(test, it)| (test, (it.status(), it.attempts)))
            .collect(),
        jobs: jobs.into_iter().collect(),
    }
}

/// The only run there is, and its events.
pub(super) async fn stored(fixture: &Fixture) -> (RunRecord, Vec<StoredEvent>) {
    let query = RunQuery {
        limit: 1,
        ..RunQuery::default()
    };
    let found = fixture.ledger.find_runs(query).await.expect("finds");
    let record = found.into_iter().next().expect("a run");
    let events = fixture.ledger.read_events(&record.new.run, 0, usize::MAX);
    let events = events.await.expect("reads");
    (record, events)
}

/// What is durable of a run when `count` of its events are.
pub(super) async fn cut(
    record: &RunRecord,
    events: &[StoredEvent],
    count: usize,
) -> (Arc<dyn Ledger>, Tries) {
    let ledger = Arc::new(MemoryLedger::new());
    let events = events[..count].to_vec();
    let tries = Tries::default();
    for event in &events {
        let event = v1::RunEvent::decode(event.bytes.clone()).expect("is an event");
        let tried = match event.event {
            Some(Event::TestRetried(retried)) => retried.result.expect("is set").test_id,
            Some(Event::BuildRetried(retried)) => retried.attempt.expect("is set").job,
            Some(Event::JobFinished(ended)) if ended.job == "make" => ended.job,
            _ => continue,
        };
        is_first(&tries, &tried);
    }
    let run = &record.new.run;
    ledger.start_run(record.new.clone()).await.expect("starts");
    let appended = ledger.append_events(run, events, None).await;
    appended.expect("appends");
    (ledger, tries)
}

const TESTS: [&str; 5] = ["bad", "fine", "flaky", "good", "ignored"];

#[tokio::test]
async fn wherever_it_is_cut_a_run_ends_as_if_nothing_had_happened() {
    let whole = Fixture::start().await;
    let _agent = whole.agent("a", script(&whole, &Tries::default(), &TESTS));
    let run = whole.submit(pipeline()).await;
    let expected = gist(&whole.finish(&run).await);
    assert_eq!(expected.counts.planned, 7);
    let (counts, jobs) = (&expected.counts, &expected.jobs);
    assert_eq!((counts.flaky, counts.failed, counts.skipped), (1, 1, 1));
    assert_eq!(jobs["make"], (v1::JobStatus::Passed, 2));
    assert_eq!(jobs["acceptance"].0, v1::JobStatus::Failed, "it complains");
    let (record, events) = stored(&whole).await;
    // All but the last, with which the ledger stores that the run has ended.
    for count in 1..events.len() {
        let (ledger, tries) = cut(&record, &events, count).await;
        let successor = whole.successor(ledger).await;
        // Whoever lists the tests anew finds another one.
        let is_planned = events[..count].iter().any(|event| {
            let event = v1::RunEvent::decode(event.bytes.clone()).expect("is an event");
            matches!(event.event, Some(Event::SuitePlanned(it)) if it.job == "unit")
        });
        let more = [&TESTS[..], &["new"]].concat();
        let tests = if is_planned { &more[..] } else { &TESTS };
        let _agent = successor.agent("a", script(&successor, &tries, tests));
        let story = successor.finish(&run).await;
        assert_eq!(gist(&story), expected, "after {count} events: {story:#?}");
        // Whoever has the action cache, too, finds passes there; what was flaky is so all the same.
        let (ledger, tries) = cut(&record, &events, count).await;
        let heir = whole.heir(ledger).await;
        let _agent = heir.agent("a", script(&heir, &tries, &TESTS));
        let inherited = heir.finish(&run).await;
        let (counts, verdict) = (inherited.counts(), inherited.end().verdict());
        assert_eq!(verdict, expected.verdict);
        assert_eq!(
            counts.failed, expected.counts.failed,
            "after {count} events"
        );
        let had_failed = tries.lock().expect("nobody panicked").contains_key("flaky");
        assert_eq!(counts.flaky, u32::from(had_failed), "after {count} events");
        let resumed = story.events.iter();
        let resumed = resumed.filter(|event| matches!(event, Event::RunResumed(_)));
        assert_eq!(resumed.count(), 1);
    }
}

#[tokio::test]
async fn a_run_whose_tests_are_gone_is_unknown_and_says_which() {
    let whole = Fixture::start().await;
    let _agent = whole.agent("a", script(&whole, &Tries::default(), &TESTS));
    let run = whole.submit(pipeline()).await;
    whole.finish(&run).await;
    let (record, events) = stored(&whole).await;
    let told = events.iter().position(|event| {
        let event = v1::RunEvent::decode(event.bytes.clone()).expect("is an event");
        matches!(event.event, Some(Event::TestsFinished(it)) if it.results[0].job == "unit")
    });
    let (ledger, tries) = cut(&record, &events, told.expect("was told") + 1).await;
    // Neither the blobs nor the tests are there any more.
    let other = Fixture::with_ledger(ledger).await;
    let _agent = other.agent("a", script(&other, &tries, &["new"]));
    let story = other.finish(&run).await;
    let unit = story.job("unit");
    assert_eq!(unit.status(), v1::JobStatus::Unknown);
    assert!(unit.message.contains("not among"), "{unit:?}");
    assert_ne!(story.end().verdict(), v1::Verdict::Releasable);
}

#[tokio::test]
async fn a_run_that_was_cancelled_stays_cancelled() {
    let fixture = Fixture::start().await;
    let run = fixture.submit(pipeline()).await;
    let request = v1::CancelRunRequest {
        run_id: run.clone(),
    };
    fixture.runs().cancel_run(request).await.expect("cancels");
    let story = fixture.finish(&run).await;
    let asked = story
        .events
        .iter()
        .position(|event| matches!(event, Event::CancelRequested(_)));
    let (record, events) = stored(&fixture).await;
    let (ledger, _) = cut(&record, &events, asked.expect("is told") + 1).await;
    let successor = fixture.successor(ledger).await;
    let story = successor.finish(&run).await;
    assert!(story.end().cancelled, "{:?}", story.end());
}

/// How often the ledger has learnt from each test of `unit`, once it knows so many tests.
async fn learnt(fixture: &Fixture, tests: usize) -> Vec<u64> {
    let tenant = "".parse().expect("is a name");
    let learning = async {
        loop {
            let history = fixture.ledger.read_history(&tenant, Some("unit")).await;
            let history = history.expect("reads");
            if history.len() >= tests {
                return history.iter().map(|test| test.runs).collect();
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    let learnt = tokio::time::timeout(PATIENCE, learning).await;
    learnt.expect("it learns in time")
}

#[tokio::test]
async fn what_tests_teach_is_learnt_once_wherever_the_coordinator_ends() {
    let whole = Fixture::start().await;
    // One of them never ends, and neither does the suite.
    let answer = |test: &str| (test != "test_0002").then(|| completed(0, PASSED));
    let _agent = whole.agent("a", runner(names(3), answer));
    let run = whole.submit(spec(vec![libtest("unit")])).await;
    assert_eq!(learnt(&whole, 2).await, [1, 1]);
    let (record, events) = stored(&whole).await;
    let told = events.iter().position(|event| {
        let event = v1::RunEvent::decode(event.bytes.clone()).expect("is an event");
        matches!(event.event, Some(Event::TestsFinished(_)))
    });
    // What passed is cached by then, and nobody was told of it.
    let (ledger, _) = cut(&record, &events, told.expect("was told")).await;
    let heir = whole.heir(ledger).await;
    let _agent = heir.agent("a", all_pass(3));
    let story = heir.finish(&run).await;
    assert_eq!((story.counts().cached, story.counts().passed), (2, 1));
    assert_eq!(learnt(&heir, 3).await, [1, 1, 1]);
    // Another run learns nothing of what is cached.
    let again = heir.run(spec(vec![libtest("unit")])).await;
    assert_eq!(again.counts().cached, 3);
    assert_eq!(learnt(&heir, 3).await, [1, 1, 1]);
}

#[tokio::test]
async fn an_end_that_is_not_durable_is_not_shown_and_the_run_goes_on_after_a_restart() {
    let ledger = Arc::new(FullLedger::default());
    ledger.make_room();
    let fixture = Fixture::with_ledger(Arc::clone(&ledger) as _).await;
    let registry = fixture.restarted().await;
    let (run, _) = registry
        .submit(None, pipeline())
        .await
        .expect("is accepted");
    let run = run.to_string();
    let events = registry.watch(&run, 0).await.expect("is known");
    let mut events = std::pin::pin!(events);
    let mut seen = vec![events.next().await.expect("an event").expect("is read")];
    ledger.fill();
    tokio::time::pause();
    // It is written down in vain.
    let cancelled = registry.cancel(&run).await;
    assert!(
        matches!(cancelled, Err(FindRunError::NotDurable(_))),
        "{cancelled:?}"
    );
    let why = loop {
        match events.next().await.expect("it says why it ends") {
            Ok(event) => seen.push(event),
            Err(why) => break why.to_string(),
        }
    };
    assert!(why.contains("disk is full"), "{why}");
    tokio::time::resume();
    let (record, stored) = stored(&fixture).await;
    let durable: Vec<_> = stored
        .iter()
        .map(|event| v1::RunEvent::decode(event.bytes.clone()).expect("is an event"))
        .collect();
    assert_eq!(seen, durable);
    let (ledger, tries) = cut(&record, &stored, stored.len()).await;
    let successor = fixture.successor(ledger).await;
    let _agent = successor.agent("a", script(&successor, &tries, &TESTS));
    let story = successor.watch(&run, seen.len() as u64).await;
    assert!(matches!(story.events[0], Event::RunResumed(_)), "{story:?}");
    let ends = story.events.iter();
    let ends = ends.filter(|event| matches!(event, Event::RunFinished(_)));
    assert_eq!(ends.count(), 1);
}

/// How many runs the ledger has that have not ended.
async fn open_runs(ledger: &FullLedger) -> usize {
    let query = RunQuery {
        active_only: true,
        limit: usize::MAX,
        ..RunQuery::default()
    };
    ledger.memory.find_runs(query).await.expect("finds").len()
}

/// Whether the ledger has at most so many open runs within a minute, in time that is paused.
async fn has_at_most(ledger: &FullLedger, runs: usize) -> bool {
    let mut ticks = tokio::time::interval(std::time::Duration::from_secs(1));
    for _ in 0..60 {
        ticks.tick().await;
        if open_runs(ledger).await <= runs {
            return true;
        }
    }
    false
}

/// A run whose submission the ledger has failed: it has one end, which follows what is durable of it, though
/// the ledger fails some more.
async fn check_abandoned(answers: &[Answer]) {
    let ledger = Arc::new(FullLedger::answering(answers.iter().copied()));
    let fixture = Fixture::with_ledger(Arc::clone(&ledger) as _).await;
    let registry = fixture.restarted().await;
    tokio::time::pause();
    let refused = registry.submit(None, pipeline()).await;
    assert!(refused.is_err(), "{answers:?}");
    assert!(has_at_most(&ledger, 0).await, "{answers:?}: it goes on");
    let (_, events) = stored(&fixture).await;
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    let expected: Vec<u64> = (1..).take(events.len()).collect();
    assert_eq!(sequences, expected, "{answers:?}");
    let ends = events.iter().filter(|event| {
        let event = v1::RunEvent::decode(event.bytes.clone()).expect("is an event");
        matches!(event.event, Some(Event::RunFinished(_)))
    });
    assert_eq!(ends.count(), 1, "{answers:?}");
    tokio::time::resume();
}

#[tokio::test]
async fn a_run_that_was_not_accepted_ends_once_and_without_a_restart() {
    use Answer::{Done, DoneAndFailed, Failed};
    // The run itself, its first event, its end, and its end once more.
    check_abandoned(&[DoneAndFailed]).await;
    check_abandoned(&[Done, Failed]).await;
    check_abandoned(&[Done, DoneAndFailed]).await;
    check_abandoned(&[Done, DoneAndFailed, Failed, Failed]).await;
    check_abandoned(&[Done, DoneAndFailed, DoneAndFailed]).await;
}

#[tokio::test]
async fn only_so_many_runs_that_were_not_accepted_are_tried_to_be_ended() {
    const TOO_MANY: usize = 5;
    // The run itself, its first event, and its end.
    let of_run = [Answer::Done, Answer::DoneAndFailed, Answer::Failed];
    let runs = MAX_ABANDONED_RUNS + TOO_MANY;
    let ledger = Arc::new(FullLedger::answering(of_run.repeat(runs)));
    let fixture = Fixture::with_ledger(Arc::clone(&ledger) as _).await;
    let registry = fixture.restarted().await;
    tokio::time::pause();
    for _ in 0..runs {
        assert!(registry.submit(None, pipeline()).await.is_err());
    }
    assert_eq!(open_runs(&ledger).await, runs);
    assert!(has_at_most(&ledger, TOO_MANY).await, "they go on");
    // Nor a minute later.
    assert!(
        !has_at_most(&ledger, TOO_MANY - 1).await,
        "the rest ends after a restart"
    );
    tokio::time::resume();
}
