//! A coordinator that waits for another one's ledger.

use std::time::{Duration, Instant};

use regatta_ledger::{
    CoordinatorIdentity, Inheritance, Ledger, LedgerError, LedgerTenure, NewRun, OpenPostgresError,
    PostgresAddress, PostgresLedger,
};
use regatta_model::Timestamp;
use tokio::runtime::Runtime;

use super::server::{DATABASE, PostgresServer, Stop};

/// Within this a coordinator that has died or hangs is replaced.
const PATIENCE: Duration = Duration::from_secs(10);

fn identity(url: &str) -> CoordinatorIdentity {
    CoordinatorIdentity {
        url: url.to_owned(),
        verdict_key: format!("key of {url}"),
        storage: "file:///s".to_owned(),
    }
}

/// A runtime on which nothing happens unless it is waited for, as in a process that is stopped.
fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

async fn take_over(
    server: &PostgresServer,
    url: &str,
) -> Result<PostgresLedger, OpenPostgresError> {
    let address = server.url(DATABASE).parse().expect("an address");
    PostgresLedger::take_over(address, &identity(url), Inheritance::OfTheSame).await
}

/// Tries until it succeeds; how long that took.
async fn stand_by(server: &PostgresServer, url: &str) -> (PostgresLedger, Duration) {
    let began = Instant::now();
    loop {
        match take_over(server, url).await {
            Ok(ledger) => return (ledger, began.elapsed()),
            Err(OpenPostgresError::Locked { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_coordinator_with_nothing_to_write_keeps_its_ledger_and_is_known() {
    let server = PostgresServer::start();
    let address = server.url(DATABASE).parse().expect("an address");
    let ours = identity("http://a:1");
    let first = PostgresLedger::open(address, &ours, Inheritance::OfTheSame).await;
    let first = first.expect("opens");
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match take_over(&server, "http://b:1").await {
            Err(OpenPostgresError::Locked { active, .. }) => {
                assert_eq!(active.as_deref(), Some(&identity("http://a:1")));
            }
            other => panic!("{other:?}"),
        }
    }
    let tenure = *first.tenure().borrow();
    let answers =
        matches!(tenure, LedgerTenure::Ours { answered } if answered.elapsed().as_secs() < 5);
    assert!(answers, "{tenure:?}");
    first.reserve_tokens(10).await.expect("it still writes");
    drop(first);
    let (second, took) = stand_by(&server, "http://b:1").await;
    assert!(took < Duration::from_secs(3), "given back, yet {took:?}");
    assert_eq!(second.reserved_tokens().await, Ok(10));
}

#[tokio::test]
async fn runs_are_left_to_nobody_with_another_storage_or_key_unless_that_is_meant() {
    let server = PostgresServer::start();
    let address: PostgresAddress = server.url(DATABASE).parse().expect("an address");
    let ours = identity("http://a:1");
    let elsewhere = CoordinatorIdentity {
        storage: "file:///t".to_owned(),
        ..ours.clone()
    };
    let other_key = identity("http://b:1");
    let first = PostgresLedger::open(address.clone(), &ours, Inheritance::OfTheSame).await;
    let first = first.expect("opens");
    let run = NewRun {
        run: "r".parse().expect("is an id"),
        tenant: "".parse().expect("is a name"),
        description: String::new(),
        commit: String::new(),
        branch: String::new(),
        submitted_at: Timestamp::EPOCH,
        committed_at: None,
    };
    first.start_run(run).await.expect("begins");
    drop(first);
    let terms = || server.sql("SELECT max(term) FROM regatta.terms");
    let before = terms();
    for other in [&elsewhere, &other_key] {
        let (address, same) = (address.clone(), Inheritance::OfTheSame);
        let opened = PostgresLedger::open(address.clone(), other, same).await;
        let taken = PostgresLedger::take_over(address, other, same).await;
        for refused in [opened, taken] {
            let error = refused.expect_err("is another's");
            assert!(
                matches!(error, OpenPostgresError::Foreign { .. }),
                "{error}"
            );
        }
    }
    assert_eq!(terms(), before, "nobody has had it meanwhile");
    // Whoever repairs says nothing of itself, and is no coordinator that others must be like.
    let nobody = CoordinatorIdentity::default();
    for (whose, inheritance, is_let_in) in [
        (&nobody, Inheritance::OfTheSame, true),
        (&elsewhere, Inheritance::OfTheSame, false),
        (&elsewhere, Inheritance::OfAnyone, true),
        (&elsewhere, Inheritance::OfTheSame, true),
        (&ours, Inheritance::OfTheSame, false),
    ] {
        let opened = PostgresLedger::open(address.clone(), whose, inheritance).await;
        assert_eq!(opened.is_ok(), is_let_in, "{whose:?}");
    }
}

#[test]
fn one_that_hangs_is_replaced_and_writes_nothing_when_it_wakes() {
    let server = PostgresServer::start();
    let (stopped, going) = (runtime(), runtime());
    let first = stopped
        .block_on(take_over(&server, "http://a:1"))
        .expect("opens");
    stopped
        .block_on(first.reserve_tokens(10))
        .expect("reserves");
    let (second, took) = going.block_on(stand_by(&server, "http://b:1"));
    assert!(took < PATIENCE, "{took:?}");
    going.block_on(second.reserve_tokens(20)).expect("reserves");
    assert_eq!(
        stopped.block_on(first.reserve_tokens(4000)),
        Err(LedgerError::Superseded)
    );
    assert_eq!(*first.tenure().borrow(), LedgerTenure::Superseded);
    assert_eq!(going.block_on(second.reserved_tokens()), Ok(20));
}

/// How soon after its session has ended another one may have a coordinator's ledger.
const PRECEDENCE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn one_whose_session_has_ended_says_so_before_another_can_have_its_ledger() {
    let mut server = PostgresServer::start();
    let first = take_over(&server, "http://a:1").await.expect("opens");
    first.reserve_tokens(10).await.expect("reserves");
    let mut tenure = first.tenure();
    server.stop(Stop::Immediate);
    let lost = tenure.wait_for(|told| matches!(told, LedgerTenure::Lost { .. }));
    let lost = tokio::time::timeout(PRECEDENCE, lost).await;
    drop(lost.expect("it is told in time").expect("it is served"));
    server.start_again();
    let ours = tenure.wait_for(|told| matches!(told, LedgerTenure::Ours { .. }));
    let ours = tokio::time::timeout(PATIENCE, ours).await;
    drop(ours.expect("it is had again").expect("it is served"));
    first.reserve_tokens(20).await.expect("it writes again");
}
