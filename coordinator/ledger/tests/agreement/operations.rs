//! Anything that can be asked of a ledger, at random, and its answer in a form that can be compared.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use regatta_ledger::{
    Forgetting, ForgottenSubject, GivenVerdict, KeptBlob, Ledger, LedgerError, NamedArtefact,
    NewRun, OldRun, OldRunPlace, OldRunsQuery, Place, RunCounts, RunEnd, RunQuery, RunRecord,
    RunTimes, StoredEvent, SuiteKnowledge, SuiteObservation, TestHistory, TestObservation,
    VerdictQuery,
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
    FindOldRuns(OldRunsQuery),
    Forget(Forgetting),
    FindHalfGone(usize),
    IsForgotten(ForgottenSubject),
    KeepVerdict(GivenVerdict, Vec<NamedArtefact>, Vec<RunId>),
    FindVerdicts(VerdictQuery),
    ReadKeptBlobs(Timestamp, usize),
    Reserve(u64),
    Reserved,
}

/// What came of it.
#[derive(PartialEq, Debug)]
pub(crate) enum Answer {
    Done(Result<(), LedgerError>),
    Events(Result<Vec<StoredEvent>, LedgerError>),
    Runs(Result<Vec<RunRecord>, LedgerError>),
    OldRuns(Result<Vec<OldRun>, LedgerError>),
    HalfGone(Result<Vec<RunId>, LedgerError>),
    IsForgotten(Result<bool, LedgerError>),
    Suite(Result<SuiteKnowledge, LedgerError>),
    History(Result<Vec<TestHistory>, LedgerError>),
    Verdicts(Result<Vec<GivenVerdict>, LedgerError>),
    KeptBlobs(Result<Vec<KeptBlob>, LedgerError>),
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
            Self::FindOldRuns(query) => Answer::OldRuns(ledger.find_old_runs(query).await),
            Self::Forget(step) => Answer::Done(ledger.forget(step).await),
            Self::FindHalfGone(limit) => Answer::HalfGone(ledger.find_half_gone(limit).await),
            Self::IsForgotten(subject) => Answer::IsForgotten(ledger.is_forgotten(subject).await),
            Self::KeepVerdict(given, artefacts, runs) => {
                Answer::Done(ledger.keep_verdict(given, artefacts, runs).await)
            }
            Self::FindVerdicts(query) => Answer::Verdicts(ledger.find_verdicts(query).await),
            Self::ReadKeptBlobs(since, limit) => {
                Answer::KeptBlobs(ledger.read_kept_blobs(since, limit).await)
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
    let mut questions = vec![
        Operation::Reserved,
        Operation::FindVerdicts(VerdictQuery {
            limit: 1000,
            ..VerdictQuery::default()
        }),
        Operation::ReadKeptBlobs(Timestamp::EPOCH, 1000),
        Operation::FindHalfGone(1000),
        Operation::FindOldRuns(OldRunsQuery {
            ended_before: Timestamp::EPOCH + Duration::from_secs(1000),
            verdicts_since: Timestamp::EPOCH,
            after: None,
            limit: 1000,
        }),
    ];
    questions.push(Operation::FindRuns(RunQuery {
        limit: 1000,
        ..RunQuery::default()
    }));
    let mut tenants = BTreeSet::new();
    for operation in operations {
        match operation {
            Operation::Append(run, events, _) => {
                questions.push(Operation::ReadEvents(run.clone(), 0, 1000));
                questions.push(Operation::IsForgotten(ForgottenSubject::Run(run.clone())));
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
        4 => (given(), vec(run(), 0..3)).prop_map(|(given, runs)| {
            let artefacts = artefacts_of(&given.bundle);
            Operation::KeepVerdict(given, artefacts, runs)
        }),
        4 => old_runs_query().prop_map(Operation::FindOldRuns),
        8 => forgetting().prop_map(Operation::Forget),
        1 => (0..4_usize).prop_map(Operation::FindHalfGone),
        2 => forgotten_subject().prop_map(Operation::IsForgotten),
        2 => verdict_query().prop_map(Operation::FindVerdicts),
        2 => (time(), 0..4_usize).prop_map(|(since, limit)| Operation::ReadKeptBlobs(since, limit)),
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

fn verdict() -> impl Strategy<Value = Verdict> {
    proptest::sample::select(vec![
        Verdict::Releasable,
        Verdict::NotReleasable,
        Verdict::Unknown,
    ])
}

fn digest() -> impl Strategy<Value = Digest> {
    (0..6_u8).prop_map(|seed| Digest::of(&[seed]))
}

fn given() -> impl Strategy<Value = GivenVerdict> {
    let said = (verdict(), option::of(digest()), text());
    let times = (time(), time());
    (tenant(), digest(), text(), run(), said, times).prop_map(
        |(tenant, bundle, commit, run, (verdict, policy, public_key), (first, last))| {
            GivenVerdict {
                tenant,
                bundle,
                commit,
                run,
                verdict,
                policy,
                public_key,
                first_given_at: first,
                last_given_at: last,
            }
        },
    )
}

/// What a bundle names is always the same.
fn artefacts_of(bundle: &Digest) -> Vec<NamedArtefact> {
    let seeds = bundle.hash().iter().take(3).filter(|seed| **seed < 128);
    let artefact = |seed: &u8| NamedArtefact {
        name: format!("make/\0{seed}"),
        digest: Digest::of(&[seed % 6]),
        is_tree: seed.is_multiple_of(2),
    };
    seeds.map(artefact).collect()
}

fn verdict_query() -> impl Strategy<Value = VerdictQuery> {
    (
        option::of(tenant()),
        option::of(text()),
        option::of(run()),
        option::of(digest()),
        0..4_usize,
    )
        .prop_map(|(tenant, commit, run, bundle, limit)| VerdictQuery {
            tenant,
            commit,
            run,
            bundle,
            limit,
        })
}

fn end() -> impl Strategy<Value = RunEnd> {
    let times = option::of((0..9_u64, 0..9_u64)).prop_map(|times| {
        times.map(|(queued, worked)| RunTimes {
            queued: Duration::from_nanos(queued),
            worked: Duration::from_millis(worked),
            took: (worked > 0).then(|| Duration::from_secs(worked)),
        })
    });
    let end = (time(), verdict(), any::<u32>(), times);
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

fn old_runs_query() -> impl Strategy<Value = OldRunsQuery> {
    let after = option::of((time(), run()));
    (time(), time(), after, 0..4_usize).prop_map(|(ended_before, verdicts_since, after, limit)| {
        OldRunsQuery {
            ended_before,
            verdicts_since,
            after: after.map(|(finished_at, run)| OldRunPlace { finished_at, run }),
            limit,
        }
    })
}

/// Runs go often, and their names seldom.
fn forgetting() -> impl Strategy<Value = Forgetting> {
    prop_oneof![
        6 => (run(), time(), time(), time()).prop_map(|(run, ended_before, verdicts_since, now)| {
            Forgetting::Run { run, ended_before, verdicts_since, now }
        }),
        4 => (run(), 0..4_usize).prop_map(|(run, limit)| Forgetting::Events { run, limit }),
        1 => (time(), 0..2_usize)
            .prop_map(|(forgotten_before, limit)| Forgetting::Names { forgotten_before, limit }),
    ]
}

fn forgotten_subject() -> impl Strategy<Value = ForgottenSubject> {
    prop_oneof![
        run().prop_map(ForgottenSubject::Run),
        (tenant(), text()).prop_map(|(tenant, commit)| ForgottenSubject::Commit(tenant, commit)),
    ]
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
        option::of(any::<u8>()),
    )
        .prop_map(
            |(test, millis, failed, flaky, finished_at, key, root)| TestObservation {
                test,
                duration: Duration::from_millis(millis),
                failed,
                flaky,
                finished_at,
                key: key.map(|key| Digest::of(&[key])),
                input_root: root.map(|root| Digest::of(&[root])),
            },
        )
}
