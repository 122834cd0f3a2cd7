//! Anything that can be asked of a ledger, at random, and its answer in a form that can be compared.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use regatta_ledger::{
    Ledger, LedgerError, NewRun, Place, RunCounts, RunEnd, RunQuery, RunRecord, RunTimes,
    StoredEvent, SuiteKnowledge, SuiteObservation, TestHistory, TestObservation,
};
use regatta_model::{Digest, RunId, TenantId, Timestamp, Verdict};

/// One call.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Start(NewRun),
    Append(RunId, Vec<StoredEvent>, Option<RunEnd>),
    ReadEvents(RunId, u64, usize),
    FindRuns(RunQuery),
    Observe(SuiteObservation),
    ReadSuite(TenantId, String, Place),
    ReadHistory(TenantId, Option<String>),
    Reserve(u64),
    Reserved,
}

/// What came of it.
#[derive(PartialEq, Debug)]
pub(crate) enum Answer {
    Done(Result<(), LedgerError>),
    Events(Result<Vec<StoredEvent>, LedgerError>),
    Runs(Result<Vec<RunRecord>, LedgerError>),
    Suite(Result<SuiteKnowledge, LedgerError>),
    History(Result<Vec<TestHistory>, LedgerError>),
    Reserved(Result<u64, LedgerError>),
}

impl Operation {
    pub(crate) async fn ask(self, ledger: &dyn Ledger) -> Answer {
        match self {
            Self::Start(run) => Answer::Done(ledger.start_run(run).await),
            Self::Append(run, events, end) => {
                Answer::Done(ledger.append_events(&run, events, end).await)
            }
            Self::ReadEvents(run, after, limit) => {
                Answer::Events(ledger.read_events(&run, after, limit).await)
            }
            Self::FindRuns(query) => Answer::Runs(ledger.find_runs(query).await),
            Self::Observe(seen) => Answer::Done(ledger.observe_suite(seen).await),
            Self::ReadSuite(tenant, suite, place) => {
                Answer::Suite(ledger.read_suite(&tenant, &suite, &place).await)
            }
            Self::ReadHistory(tenant, suite) => {
                Answer::History(ledger.read_history(&tenant, suite.as_deref()).await)
            }
            Self::Reserve(last) => Answer::Done(ledger.reserve_tokens(last).await),
            Self::Reserved => Answer::Reserved(ledger.reserved_tokens().await),
        }
    }
}

/// Asks every ledger the same and compares; the first one is right.
pub(crate) async fn compare(ledgers: &[&dyn Ledger], operations: Vec<Operation>) {
    let (first, others) = ledgers.split_first().expect("ledgers");
    for (number, operation) in operations.iter().enumerate() {
        let expected = operation.clone().ask(*first).await;
        for other in others {
            let answer = operation.clone().ask(*other).await;
            assert_eq!(answer, expected, "{number}: {operation:?} of {other:?}");
        }
    }
    compare_all(ledgers, &operations).await;
}

/// Compares what can be read at the end of everything that was written.
async fn compare_all(ledgers: &[&dyn Ledger], operations: &[Operation]) {
    let mut questions = vec![Operation::Reserved];
    questions.push(Operation::FindRuns(RunQuery {
        limit: 1000,
        ..RunQuery::default()
    }));
    let mut tenants = BTreeSet::new();
    for operation in operations {
        match operation {
            Operation::Append(run, events, _) => {
                questions.push(Operation::ReadEvents(run.clone(), 0, 1000));
                let taught = events.iter().filter_map(|event| event.teaches.as_ref());
                tenants.extend(taught.map(|seen| seen.tenant.clone()));
            }
            Operation::Observe(seen) => {
                let place = seen.place.clone();
                let (tenant, suite) = (seen.tenant.clone(), seen.suite.clone());
                questions.push(Operation::ReadSuite(tenant, suite, place));
                tenants.insert(seen.tenant.clone());
            }
            _ => {}
        }
    }
    let histories = tenants.into_iter();
    questions.extend(histories.map(|tenant| Operation::ReadHistory(tenant, None)));
    let (first, others) = ledgers.split_first().expect("ledgers");
    for question in questions {
        let expected = question.clone().ask(*first).await;
        for other in others {
            let answer = question.clone().ask(*other).await;
            assert_eq!(answer, expected, "at the end: {question:?} of {other:?}");
        }
    }
}

/// Calls about few runs, suites and tests, so that they meet.
pub(crate) fn operations(count: usize) -> impl Strategy<Value = Vec<Operation>> {
    let place = |seen: SuiteObservation| (seen.tenant, seen.suite, seen.place);
    let one = prop_oneof![
        3 => new_run().prop_map(Operation::Start),
        4 => (run(), vec(event(), 0..4), option::of(end()))
            .prop_map(|(run, events, end)| Operation::Append(run, events, end)),
        2 => (run(), 0..6_u64, 0..4_usize)
            .prop_map(|(run, after, limit)| Operation::ReadEvents(run, after, limit)),
        3 => query().prop_map(Operation::FindRuns),
        20 => observation().prop_map(Operation::Observe),
        4 => observation().prop_map(move |seen| {
            let (tenant, suite, place) = place(seen);
            Operation::ReadSuite(tenant, suite, place)
        }),
        2 => (tenant(), option::of(text())).prop_map(|(tenant, suite)| {
            Operation::ReadHistory(tenant, suite)
        }),
        1 => prop_oneof![0..10_u64, Just(u64::MAX), Just(1 << 63)].prop_map(Operation::Reserve),
        1 => Just(Operation::Reserved),
    ];
    vec(one, count)
}

fn run() -> impl Strategy<Value = RunId> {
    (0..5_u8).prop_map(|number| format!("r{number}").parse().expect("valid"))
}

fn tenant() -> impl Strategy<Value = TenantId> {
    prop_oneof![Just(""), Just("b")].prop_map(|name| name.parse().expect("valid"))
}

/// What orders differently by bytes than by any language, and what databases may not like.
fn text() -> impl Strategy<Value = String> {
    const TEXTS: [&str; 12] = [
        "a", "B", "b", "ä", "", "a b", "\0", "\u{1}", "a\0b", "'", "\\", "$1",
    ];
    proptest::sample::select(&TEXTS[..]).prop_map(str::to_owned)
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0..50_u64).prop_map(|second| Timestamp::EPOCH + Duration::from_secs(second))
}

fn new_run() -> impl Strategy<Value = NewRun> {
    let times = (time(), option::of(time()));
    (run(), tenant(), text(), text(), text(), times).prop_map(
        |(run, tenant, description, commit, branch, (submitted_at, committed_at))| NewRun {
            run,
            tenant,
            description,
            commit,
            branch,
            submitted_at,
            committed_at,
        },
    )
}

fn event() -> impl Strategy<Value = StoredEvent> {
    let seen = option::of(observation().prop_map(Arc::new));
    (1..8_u64, vec(any::<u8>(), 0..4), seen).prop_map(|(sequence, bytes, teaches)| StoredEvent {
        sequence,
        bytes: bytes.into(),
        teaches,
    })
}

fn end() -> impl Strategy<Value = RunEnd> {
    let verdict = proptest::sample::select(vec![
        Verdict::Releasable,
        Verdict::NotReleasable,
        Verdict::Unknown,
    ]);
    let times = option::of((0..9_u64, 0..9_u64)).prop_map(|times| {
        times.map(|(queued, worked)| RunTimes {
            queued: Duration::from_nanos(queued),
            worked: Duration::from_millis(worked),
            took: (worked > 0).then(|| Duration::from_secs(worked)),
        })
    });
    let end = (time(), verdict, any::<u32>(), times);
    end.prop_map(|(finished_at, verdict, number, times)| RunEnd {
        finished_at,
        verdict,
        times,
        counts: RunCounts {
            planned: number,
            flaky: number / 2,
            quarantined: 1,
            ..RunCounts::default()
        },
    })
}

fn query() -> impl Strategy<Value = RunQuery> {
    (
        option::of(run()),
        option::of(tenant()),
        option::of(text()),
        any::<bool>(),
        0..4_usize,
    )
        .prop_map(|(run, tenant, commit, active_only, limit)| RunQuery {
            run,
            tenant,
            commit,
            active_only,
            limit,
        })
}

fn observation() -> impl Strategy<Value = SuiteObservation> {
    // More branches than are kept apart.
    let branch = prop_oneof![1 => text(), 6 => (0..60_u8).prop_map(|number| number.to_string())];
    let place = (proptest::sample::select(&["", "i"][..]), branch);
    // Most of one suite, whose tests are then at home in many places.
    let suite = prop_oneof![4 => Just("s".to_owned()), 1 => text()];
    let overhead = option::of((0..1000_u64).prop_map(Duration::from_millis));
    (tenant(), suite, place, vec(test(), 0..4), overhead).prop_map(
        |(tenant, suite, (image, branch), tests, batch_overhead)| SuiteObservation {
            tenant,
            suite,
            place: Place {
                image: image.to_owned(),
                branch,
            },
            tests,
            batch_overhead,
        },
    )
}

fn test() -> impl Strategy<Value = TestObservation> {
    (
        prop_oneof![4 => Just("a".to_owned()), 1 => text()],
        0..10_000_u64,
        any::<bool>(),
        any::<bool>(),
        time(),
        option::of(any::<u8>()),
    )
        .prop_map(
            |(test, millis, failed, flaky, finished_at, key)| TestObservation {
                test,
                duration: Duration::from_millis(millis),
                failed,
                flaky,
                finished_at,
                key: key.map(|key| Digest::of(&[key])),
            },
        )
}
