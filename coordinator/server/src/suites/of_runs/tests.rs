use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use regatta_ledger::{
    MemoryLedger, NewRun, Place, RunCounts, RunEnd, SuiteObservation, TestObservation,
};
use regatta_model::{RunId, Verdict};
use regatta_wire::convert::{duration_to_wire, timestamp_to_wire};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::*;
use crate::runs::{is_repetition, lesson, results_of};

/// Runs write their events into it as they happen, and have it learn.
#[derive(Default)]
struct Writer {
    ledger: MemoryLedger,
    /// The last event of each run, and which of its suites teach nothing.
    runs: std::collections::BTreeMap<RunId, (u64, Option<String>)>,
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn run(name: &str) -> RunId {
    name.parse().expect("is an id")
}

fn result(suite: &str, test: &str, status: v1::TestStatus, millis: u64) -> v1::TestResult {
    v1::TestResult {
        job: suite.to_owned(),
        test_id: test.to_owned(),
        status: status.into(),
        duration: Some(duration_to_wire(Duration::from_millis(millis))),
        ..Default::default()
    }
}

impl Writer {
    async fn begin(&mut self, name: &str, branch: &str, time: u64, repeated: Option<&str>) {
        let begun = self.ledger.start_run(NewRun {
            run: run(name),
            submitted_at: at(time),
            ..new(branch)
        });
        begun.await.expect("begins");
        self.runs.insert(run(name), (0, None));
        let job = |suite: &str| v1::Job {
            name: suite.to_owned(),
            kind: Some(v1::job::Kind::Suite(v1::Suite {
                repetition: (repeated == Some(suite)).then(v1::Repetition::default),
                ..Default::default()
            })),
            ..Default::default()
        };
        let jobs = vec![job("s0"), job("s1")];
        let silent = jobs.iter().find(|job| is_repetition(job));
        let silent = silent.map(|job| job.name.clone());
        let spec = Some(v1::RunSpec {
            jobs,
            ..Default::default()
        });
        self.tell(name, time, Event::RunStarted(v1::RunStarted { spec }))
            .await;
        self.runs.insert(run(name), (1, silent));
    }

    async fn tell(&mut self, name: &str, time: u64, event: Event) {
        let (last, silent) = self.runs.get_mut(&run(name)).expect("has begun");
        *last += 1;
        let results = results_of(&event).iter();
        let taught = results.filter(|it| Some(&it.job) != silent.as_ref());
        let tests: Vec<TestObservation> = taught.filter_map(|it| lesson(it, at(time))).collect();
        let suite = results_of(&event).first().map(|it| it.job.clone());
        let seen = SuiteObservation {
            tenant: tenant(),
            suite: suite.unwrap_or_default(),
            place: Place::default(),
            tests,
            batch_overhead: None,
        };
        let end = matches!(event, Event::RunFinished(_)).then_some(RunEnd {
            finished_at: at(time),
            verdict: Verdict::Unknown,
            counts: RunCounts::default(),
            times: None,
        });
        let stored = StoredEvent {
            sequence: *last,
            bytes: Bytes::from(
                v1::RunEvent {
                    sequence: *last,
                    time: Some(timestamp_to_wire(at(time))),
                    event: Some(event),
                }
                .encode_to_vec(),
            ),
            teaches: Some(Arc::new(seen)),
        };
        let stored = self
            .ledger
            .append_events(&run(name), vec![stored], end)
            .await;
        stored.expect("is stored");
    }

    async fn finished(&mut self, name: &str, time: u64, result: v1::TestResult) {
        let results = vec![result];
        let event = Event::TestsFinished(v1::TestsFinished { results });
        self.tell(name, time, event).await;
    }

    async fn end(&mut self, name: &str, time: u64) {
        let event = Event::RunFinished(v1::RunFinished::default());
        self.tell(name, time, event).await;
    }
}

fn new(branch: &str) -> NewRun {
    NewRun {
        run: run("r"),
        tenant: tenant(),
        description: String::new(),
        commit: String::new(),
        branch: branch.to_owned(),
        committed_at: None,
        submitted_at: at(0),
    }
}

fn tenant() -> TenantId {
    "".parse().expect("is a name")
}

fn all() -> Scope {
    Scope {
        tenant: tenant(),
        suite: None,
        branch: None,
        since: None,
    }
}

async fn shown(ledger: &dyn Ledger, scope: Scope) -> Shown {
    count(ledger, &scope, None).await.expect("is counted")
}

/// A run, and what it tells.
type Told = (usize, u64, Vec<v1::TestResult>, bool);

fn told() -> impl Strategy<Value = Told> {
    let result = (0..3u8, 0..9i32, 0..6i32, 0..500u64, any::<bool>());
    let result = result.prop_map(|(test, status, class, millis, is_measured)| {
        let test = format!("t{test}");
        let mut told = result_of(&test, millis);
        (told.status, told.failure_class) = (status, class);
        told.duration = told.duration.filter(|_| is_measured);
        told
    });
    let results = prop::collection::vec(result, 0..4);
    (0..5usize, 0..2u8, 1..4u64, results, any::<bool>()).prop_map(
        |(run, suite, pause, mut results, is_audit)| {
            for result in &mut results {
                result.job = format!("s{suite}");
            }
            (run, pause, results, is_audit)
        },
    )
}

fn result_of(test: &str, millis: u64) -> v1::TestResult {
    result("", test, v1::TestStatus::Passed, millis)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever happened in whichever of the runs that went on at the same time.
    #[test]
    fn runs_show_what_the_ledger_has_learnt(
        story in prop::collection::vec(told(), 0..200),
        ends in any::<bool>(),
        wanted in prop::option::of(0..2u8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("starts");
        runtime.block_on(async {
            let mut writer = Writer::default();
            let mut time = 1;
            for (number, pause, results, is_audit) in story {
                time += pause;
                let name = format!("r{number}");
                if !writer.runs.contains_key(&run(&name)) {
                    let repeated = (number == 3).then_some("s1");
                    writer.begin(&name, "main", time - 1, repeated).await;
                }
                let event = match is_audit {
                    true => Event::HitsExecuted(v1::HitsExecuted { results }),
                    false => Event::TestsFinished(v1::TestsFinished { results }),
                };
                writer.tell(&name, time, event).await;
            }
            let runs: Vec<_> = writer.runs.keys().cloned().collect();
            for run in runs.iter().filter(|_| ends) {
                writer.end(run.as_str(), time + 1).await;
            }
            let suite = wanted.map(|suite| format!("s{suite}"));
            let known = writer.ledger.read_history(&tenant(), suite.as_deref()).await;
            let known = known.expect("is read");
            let shown = shown(&writer.ledger, Scope { suite, ..all() }).await;
            assert_eq!(shown.tests, known);
            assert_eq!((shown.runs, shown.damage), (runs.len(), Vec::new()));
        });
    }
}

#[tokio::test]
async fn runs_of_others_show_nothing() {
    use v1::TestStatus::{Failed, Flaky, Passed};
    let mut writer = Writer::default();
    for (name, branch, time, status) in [
        ("old", "a", 10, Failed),
        ("flaky", "a", 20, Flaky),
        ("good", "b", 30, Passed),
        ("none", "", 40, Passed),
    ] {
        writer.begin(name, branch, time, None).await;
        let told = result("s0", "t", status, 100);
        writer.finished(name, time + 1, told).await;
        writer.end(name, time + 2).await;
    }
    let counts = async |branch: Option<&str>, since: Option<u64>| {
        let branch = branch.map(str::to_owned);
        let since = since.map(at);
        let scope = Scope {
            branch,
            since,
            ..all()
        };
        let shown = shown(&writer.ledger, scope).await;
        let tests = shown.tests.iter();
        let sums = tests.map(|it| (it.runs, it.failures, it.flakes));
        (shown.runs, sums.collect::<Vec<_>>())
    };
    assert_eq!(counts(None, None).await, (4, vec![(4, 1, 1)]));
    assert_eq!(counts(Some("a"), None).await, (2, vec![(2, 1, 1)]));
    assert_eq!(counts(Some("a"), Some(20)).await, (1, vec![(1, 0, 1)]));
    assert_eq!(counts(Some("b"), None).await, (1, vec![(1, 0, 0)]));
    assert_eq!(counts(Some(""), None).await, (1, vec![(1, 0, 0)]));
    assert_eq!(counts(Some("b"), Some(31)).await, (0, vec![]));
}

#[tokio::test]
async fn what_cannot_be_read_is_said() {
    let mut writer = Writer::default();
    let told = |test: &str| result("s0", test, v1::TestStatus::Passed, 100);
    writer.begin("r", "main", 10, None).await;
    writer.finished("r", 11, told("before")).await;
    let damaged = StoredEvent {
        sequence: 3,
        bytes: Bytes::from_static(b"\xff\xff"),
        teaches: None,
    };
    let stored = writer
        .ledger
        .append_events(&run("r"), vec![damaged], None)
        .await;
    stored.expect("is stored");
    // One that was never there, and one that came after it.
    writer.runs.insert(run("r"), (4, None));
    writer.finished("r", 12, told("later")).await;
    let end = RunEnd {
        finished_at: at(13),
        verdict: Verdict::Unknown,
        counts: RunCounts::default(),
        times: None,
    };
    let stored = writer
        .ledger
        .append_events(&run("r"), Vec::new(), Some(end))
        .await;
    stored.expect("is stored");
    let shown = shown(&writer.ledger, all()).await;
    let names: Vec<_> = shown.tests.iter().map(|it| it.test.as_str()).collect();
    assert_eq!(names, ["before", "later"]);
    let said = shown.damage.join("\n");
    for words in [
        "run r: event 3 cannot be read: ",
        "run r: the events from 4 to 4 are gone",
        "run r: what comes after event 5 is gone",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn of_a_run_whose_beginning_cannot_be_read_nothing_is_learnt() {
    let mut writer = Writer::default();
    let other = StoredEvent {
        sequence: 1,
        bytes: Bytes::from_static(b"\xff\xff"),
        teaches: None,
    };
    for (name, first) in [("t", 1), ("u", 2)] {
        let begun = NewRun {
            run: run(name),
            submitted_at: at(30),
            ..new("main")
        };
        writer.ledger.start_run(begun).await.expect("begins");
        let first = StoredEvent {
            sequence: first,
            ..other.clone()
        };
        let stored = writer
            .ledger
            .append_events(&run(name), vec![first], None)
            .await;
        stored.expect("is stored");
        writer.runs.insert(run(name), (2, None));
        let told = result("s0", name, v1::TestStatus::Passed, 100);
        writer.finished(name, 31, told).await;
    }
    let shown = shown(&writer.ledger, all()).await;
    assert_eq!(shown.tests, []);
    let so = "so nothing is learnt of this run";
    let said = shown.damage.iter().filter(|it| it.ends_with(so));
    assert_eq!(said.count(), 4, "{:?}", shown.damage);
}

#[tokio::test]
async fn since_when_runs_are_kept_is_said() {
    let ledger = MemoryLedger::new();
    assert_eq!(shown(&ledger, all()).await.complete_since, None);
    let kept = Duration::from_secs(60);
    let earliest = before(now(), kept);
    let shown = count(&ledger, &all(), Some(kept))
        .await
        .expect("is counted");
    let since = shown.complete_since.expect("is known");
    assert!(earliest <= since && since <= before(now(), kept));
    // Of more runs than are looked at, the newest are.
    let mut writer = Writer::default();
    for number in 0..=MAX_LIST as u64 {
        let name = format!("r{number}");
        writer.begin(&name, "main", 100 + number, None).await;
    }
    let shown = self::shown(&writer.ledger, all()).await;
    assert_eq!(
        (shown.runs, shown.complete_since),
        (MAX_LIST, Some(at(101)))
    );
}
