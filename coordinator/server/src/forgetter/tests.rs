use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;

use regatta_ledger::{
    ForgottenSubject, MemoryLedger, NewRun, RunCounts, RunEnd, RunQuery, SqliteLedger, StoredEvent,
};
use regatta_model::Verdict;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const KEEP: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// More than one step deletes.
const EVENTS: u64 = 2 * MAX_EVENTS as u64 + 1;

fn at(days: u32) -> Timestamp {
    Timestamp::EPOCH + DAY * days
}

fn id(run: &str) -> RunId {
    run.parse().expect("is an id")
}

/// A run that ended on that day.
async fn ended(ledger: &dyn Ledger, run: &str, day: u32, events: u64) {
    let commit = match run {
        "young" => "another",
        _ => "c0ffee",
    };
    let new = NewRun {
        run: id(run),
        tenant: "".parse().expect("is a tenant"),
        description: String::new(),
        commit: commit.to_owned(),
        branch: String::new(),
        committed_at: None,
        submitted_at: at(day),
    };
    ledger.start_run(new).await.expect("starts");
    let event = |sequence| StoredEvent {
        sequence,
        bytes: vec![7; 100].into(),
        teaches: None,
    };
    let end = RunEnd {
        finished_at: at(day),
        verdict: Verdict::Releasable,
        counts: RunCounts::default(),
        times: None,
    };
    let events = (1..=events).map(event).collect();
    let appended = ledger.append_events(&id(run), events, Some(end)).await;
    appended.expect("ends");
}

async fn known(ledger: &dyn Ledger) -> Vec<String> {
    let query = RunQuery {
        limit: 100,
        ..RunQuery::default()
    };
    let found = ledger.find_runs(query).await.expect("finds");
    let mut known: Vec<_> = found.iter().map(|it| it.new.run.to_string()).collect();
    known.sort();
    known
}

async fn events(ledger: &dyn Ledger, run: &str) -> u64 {
    let events = ledger.read_events(&id(run), 0, 10_000).await;
    events.expect("reads").len() as u64
}

async fn is_forgotten(ledger: &dyn Ledger, run: &str) -> bool {
    let subject = ForgottenSubject::Run(id(run));
    ledger.is_forgotten(subject).await.expect("is asked")
}

fn forgetter(ledger: &Arc<dyn Ledger>, keep: Option<Duration>, day: u32) -> Forgetter {
    let clock = SteadyClock::starting_at(at(day));
    Forgetter::new(Arc::clone(ledger), keep, 4 * KEEP, clock)
}

#[tokio::test(start_paused = true)]
async fn runs_go_as_they_grow_old_while_the_coordinator_works() {
    let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
    ended(ledger.as_ref(), "old", 10, EVENTS).await;
    let ending = CancellationToken::new();
    let forgetting = tokio::spawn(forgetter(&ledger, Some(KEEP), 10).run(ending.clone()));
    tokio::time::sleep(KEEP - DAY).await;
    assert_eq!(known(ledger.as_ref()).await, ["old"]);
    assert_eq!(events(ledger.as_ref(), "old").await, EVENTS);
    tokio::time::sleep(2 * DAY).await;
    assert!(known(ledger.as_ref()).await.is_empty());
    assert_eq!(ledger.find_half_gone(10).await, Ok(Vec::new()));
    assert!(is_forgotten(ledger.as_ref(), "old").await);
    // One that ends meanwhile has its time before it.
    ended(ledger.as_ref(), "new", 101, 1).await;
    tokio::time::sleep(KEEP - DAY).await;
    assert_eq!(known(ledger.as_ref()).await, ["new"]);
    tokio::time::sleep(2 * DAY).await;
    assert!(!is_forgotten(ledger.as_ref(), "old").await, "nor its name");
    assert!(is_forgotten(ledger.as_ref(), "new").await);
    ending.cancel();
    forgetting.await.expect("ends");
}

#[tokio::test(start_paused = true)]
async fn all_is_kept_if_that_is_what_was_said_but_what_is_half_gone_goes() {
    let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
    ended(ledger.as_ref(), "gone", 10, EVENTS).await;
    let step = Forgetting::Run {
        run: id("gone"),
        ended_before: at(100),
        verdicts_since: at(0),
        now: at(100),
    };
    ledger.forget(step).await.expect("is forgotten");
    ended(ledger.as_ref(), "old", 10, EVENTS).await;
    let passed = forgetter(&ledger, None, 10_000).pass().await;
    assert_eq!(passed, Ok(1));
    assert_eq!(ledger.find_half_gone(10).await, Ok(Vec::new()));
    assert_eq!(known(ledger.as_ref()).await, ["old"]);
    assert_eq!(events(ledger.as_ref(), "old").await, EVENTS);
}

/// Polls a future so often; nothing if it is not done by then, and what it is in the middle of is left so.
async fn killed_after<Output>(
    polls: usize,
    future: impl Future<Output = Output>,
) -> Option<Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn open(path: &Path) -> Arc<dyn Ledger> {
    Arc::new(SqliteLedger::open(path).expect("opens"))
}

#[tokio::test]
async fn a_kill_between_any_two_steps_leaves_runs_whole_or_none_and_the_next_start_goes_on() {
    for polls in 1.. {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ledger.sqlite");
        let ledger = open(&path);
        for (run, day) in [("one", 10), ("other", 11)] {
            ended(ledger.as_ref(), run, day, EVENTS).await;
        }
        ended(ledger.as_ref(), "young", 200, 3).await;
        let first = forgetter(&ledger, Some(KEEP), 150);
        let passed = killed_after(polls, first.pass()).await;
        drop((first, ledger));
        let ledger = open(&path);
        let left = known(ledger.as_ref()).await;
        assert!(left.contains(&"young".to_owned()));
        for run in ["one", "other"] {
            let is_known = left.contains(&run.to_owned());
            let expected = if is_known { EVENTS } else { 0 };
            assert_eq!(events(ledger.as_ref(), run).await, expected, "{polls}");
            assert_eq!(is_forgotten(ledger.as_ref(), run).await, !is_known);
        }
        assert!(left.len() != 2, "of one commit all go or none: {left:?}");
        let second = forgetter(&ledger, Some(KEEP), 150);
        let gone = second.pass().await.expect("goes on");
        assert_eq!(known(ledger.as_ref()).await, ["young"]);
        assert_eq!(ledger.find_half_gone(10).await, Ok(Vec::new()));
        // Once their names are gone, too, nothing would hide what was left of them.
        let later = forgetter(&ledger, Some(2 * KEEP), 400);
        later.pass().await.expect("is done");
        for run in ["one", "other"] {
            assert!(!is_forgotten(ledger.as_ref(), run).await);
            assert_eq!(events(ledger.as_ref(), run).await, 0);
        }
        if let Some(passed) = passed {
            assert_eq!((passed, gone), (Ok(2), 0));
            assert!(polls > 5, "there are that many steps");
            return;
        }
    }
}
