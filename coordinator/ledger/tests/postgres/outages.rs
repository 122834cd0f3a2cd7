//! The database goes away, refuses, or is taken over.

use std::future::Future;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use regatta_ledger::{
    CoordinatorIdentity, Inheritance, Ledger, LedgerError, Place, PostgresLedger, StoredEvent,
    SuiteObservation, TestObservation,
};
use regatta_model::{RunId, TenantId, Timestamp};
use tokio::task::JoinSet;

use super::open;
use super::proxy::{Cut, CuttingProxy};
use super::server::{DATABASE, PostgresServer, Stop, give_away};
use super::small_disk::SmallDisk;

/// The longest that anything may take until it is so.
const PATIENCE: Duration = Duration::from_secs(60);

fn nobody() -> CoordinatorIdentity {
    CoordinatorIdentity::default()
}

fn run_id(text: &str) -> RunId {
    text.parse().expect("valid")
}

fn tenant() -> TenantId {
    "".parse().expect("valid")
}

fn event(sequence: u64) -> StoredEvent {
    StoredEvent {
        sequence,
        bytes: vec![b'x'; 4096].into(),
        teaches: None,
    }
}

fn observation(test: &str) -> SuiteObservation {
    SuiteObservation {
        tenant: tenant(),
        suite: "s".to_owned(),
        place: Place::default(),
        tests: vec![TestObservation {
            test: test.to_owned(),
            duration: Duration::from_millis(1),
            failed: false,
            flaky: false,
            finished_at: Timestamp::EPOCH,
            key: None,
            input_root: None,
        }],
        batch_overhead: None,
    }
}

#[track_caller]
fn is_unavailable<Answer: std::fmt::Debug>(
    answer: &Result<Answer, LedgerError>,
    words: &str,
) -> bool {
    match answer {
        Ok(_) => false,
        Err(LedgerError::Unavailable { detail }) => {
            assert!(detail.contains(words), "{detail}");
            true
        }
        Err(error) => panic!("{error}"),
    }
}

/// Asks until it is so; what is asked waits itself.
async fn until<Asked: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> Asked) {
    let deadline = Instant::now() + PATIENCE;
    while !ask().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::task::yield_now().await;
    }
}

/// Observes until told to stop. How often it was told that it was learnt.
async fn observe(ledger: Arc<PostgresLedger>, stop: Arc<AtomicBool>, test: String) -> u64 {
    let mut learnt = 0;
    while !stop.load(Ordering::Relaxed) {
        ledger
            .observe_suite(observation(&test))
            .await
            .expect("it waits");
        learnt += 1;
    }
    learnt
}

/// The ledger's own patience is longer than the server takes to come back; if this fails with what it says
/// when that ends, this machine is too slow for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_counts_nothing_twice_and_fails_nothing() {
    let mut server = PostgresServer::start();
    let ledger = Arc::new(open(&server).await);
    let stop = Arc::new(AtomicBool::new(false));
    let tests = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut observers = JoinSet::new();
    for test in tests {
        let observing = observe(Arc::clone(&ledger), Arc::clone(&stop), test.to_owned());
        observers.spawn(async move { (test, observing.await) });
    }
    let runs = |test: &'static str| {
        let ledger = Arc::clone(&ledger);
        async move {
            let history = ledger.read_history(&tenant(), None).await.expect("reads");
            history
                .iter()
                .find(|it| it.test == test)
                .map_or(0, |it| it.runs)
        }
    };
    for how in [Stop::Immediate, Stop::Fast, Stop::Immediate] {
        let before = runs("a").await;
        until("more is learnt", || async { runs("a").await > before + 5 }).await;
        server.stop(how);
        server.start_again();
    }
    let before = runs("a").await;
    until("more is learnt", || async { runs("a").await > before + 5 }).await;
    stop.store(true, Ordering::Relaxed);
    for (test, learnt) in observers.join_all().await {
        assert_eq!(runs(test).await, learnt, "{test}");
    }
}

/// Neither a commit of which nobody heard, nor one that never arrived, is done twice or not at all.
#[tokio::test]
async fn a_commit_that_is_in_doubt_is_done_once() {
    for cut in [Cut::BeforeTheCommitArrives, Cut::BeforeItsAnswerArrives] {
        let server = PostgresServer::start();
        let proxy = CuttingProxy::start(server.directory(), cut);
        let (real, cutting) = (server.directory(), proxy.directory());
        let url = server.url(DATABASE);
        let url = url.replace(&real.display().to_string(), &cutting.display().to_string());
        let address = url.parse().expect("an address");
        let ledger = PostgresLedger::open(address, &nobody(), Inheritance::OfTheSame)
            .await
            .expect("opens");
        proxy.arm();
        let learnt = ledger.observe_suite(observation("a")).await;
        assert_eq!(learnt, Ok(()), "{cut:?}");
        assert!(proxy.has_cut(), "{cut:?}");
        let history = ledger.read_history(&tenant(), None).await.expect("reads");
        let runs: Vec<_> = history.iter().map(|test| test.runs).collect();
        assert_eq!(runs, [1], "{cut:?}");
    }
}

/// What was answered with `Ok` is in the server's log, and no more than what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_the_servers_death() {
    let mut server = PostgresServer::start();
    let ledger = Arc::new(open(&server).await);
    let acknowledged = Arc::new(tokio::sync::watch::Sender::new(0));
    let writing = tokio::spawn({
        let (ledger, acknowledged) = (Arc::clone(&ledger), Arc::clone(&acknowledged));
        async move {
            let run = run_id("r");
            for sequence in 1.. {
                // A server that is away for long is asked again, as runs do.
                while let Err(error) = ledger
                    .append_events(&run, vec![event(sequence)], None)
                    .await
                {
                    assert!(matches!(error, LedgerError::Unavailable { .. }), "{error}");
                }
                acknowledged.send_replace(sequence);
            }
        }
    });
    let mut progress = acknowledged.subscribe();
    progress
        .wait_for(|sequence| *sequence > 100)
        .await
        .expect("it writes");
    server.stop(Stop::Immediate);
    // Whatever is acknowledged from here on was written before, or is a lie.
    let known = *acknowledged.borrow();
    server.start_again();
    let stored = server.sql("SELECT max(sequence), count(*) FROM regatta.events");
    let (last, count) = stored.split_once('|').expect("two columns");
    assert_eq!(last, count, "none is missing");
    assert!(
        last.parse::<u64>().expect("a number") >= known,
        "{last} of {known}"
    );
    let goes_on = progress.wait_for(|sequence| *sequence > known + 10);
    let goes_on = tokio::time::timeout(PATIENCE, goes_on).await;
    let goes_on = goes_on.expect("it goes on in time");
    goes_on.expect("it goes on by itself");
    writing.abort();
}

#[tokio::test]
async fn a_read_only_database_is_unavailable_and_recovers() {
    let server = PostgresServer::start();
    let ledger = open(&server).await;
    let settle = |value: &str| {
        server.sql(&format!(
            "ALTER SYSTEM SET default_transaction_read_only = {value}"
        ));
        server.sql("SELECT pg_reload_conf()");
    };
    ledger.reserve_tokens(1).await.expect("reserves");
    settle("on");
    until("writes are refused", || async {
        is_unavailable(&ledger.reserve_tokens(2).await, "takes no writes")
    })
    .await;
    assert_eq!(ledger.reserved_tokens().await, Ok(1), "it can be read");
    server.sql("SET default_transaction_read_only = off; ALTER SYSTEM RESET ALL");
    server.sql("SELECT pg_reload_conf()");
    until("writes are taken", || async {
        ledger.reserve_tokens(3).await.is_ok()
    })
    .await;
    assert_eq!(ledger.reserved_tokens().await, Ok(3));
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_recovers() {
    let server = PostgresServer::start();
    let directory = server.directory().join("small");
    let disk = SmallDisk::mount(&directory);
    give_away(&directory);
    let directory = directory.display();
    server.sql(&format!("CREATE TABLESPACE small LOCATION '{directory}'"));
    server.sql("CREATE DATABASE small TABLESPACE small");
    let address = server.url("small").parse().expect("an address");
    let ledger = PostgresLedger::open(address, &nobody(), Inheritance::OfTheSame)
        .await
        .expect("opens");
    disk.fill();
    let mut asked = 0;
    let mut stored = 0;
    let mut refused = false;
    while !refused {
        asked += 1;
        assert!(asked < 1000, "the disk is not full");
        let appended = ledger
            .append_events(&run_id("r"), vec![event(asked)], None)
            .await;
        refused = is_unavailable(&appended, "make room");
        stored += u64::from(!refused);
    }
    let read = ledger
        .read_events(&run_id("r"), 0, 1000)
        .await
        .expect("reads");
    assert_eq!(read.len() as u64, stored);
    disk.make_room();
    let appended = ledger
        .append_events(&run_id("r"), vec![event(asked)], None)
        .await;
    appended.expect("there is room");
}

/// Another session, which takes the lock away and has it until it is dropped.
struct Usurper(Child);

/// What coordinators lock: `regatta` in ASCII.
const LOCK: i64 = i64::from_be_bytes(*b"regatta\0");

impl Usurper {
    fn take_lock(server: &PostgresServer) -> Self {
        let mut ask = Command::new("psql");
        ask.args([
            "--no-psqlrc",
            "--quiet",
            "--username",
            "regatta",
            "--dbname",
            DATABASE,
        ]);
        ask.arg("--host").arg(server.directory());
        ask.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut usurper = Self(ask.spawn().expect("psql starts"));
        usurper.say(&format!(
            "SELECT pg_terminate_backend(pid), pg_advisory_lock({LOCK}) FROM pg_locks
             WHERE locktype = 'advisory' AND granted;\n"
        ));
        usurper
    }

    fn say(&mut self, statement: &str) {
        let stdin = self.0.stdin.as_mut().expect("it is piped");
        stdin.write_all(statement.as_bytes()).expect("it is read");
    }

    fn leave(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("it ends");
    }
}

#[tokio::test]
async fn no_token_is_reserved_while_the_lock_is_lost() {
    let server = PostgresServer::start();
    let ledger = open(&server).await;
    ledger.reserve_tokens(10).await.expect("reserves");
    let usurper = Usurper::take_lock(&server);
    until("reservations are refused", || async {
        let reserved = ledger.reserve_tokens(10).await;
        is_unavailable(&reserved, "")
            && reserved.is_err_and(|error| error.to_string().contains("another session"))
    })
    .await;
    assert!(is_unavailable(&ledger.reserve_tokens(20).await, "lock"));
    assert_eq!(ledger.reserved_tokens().await, Ok(10), "reading goes on");
    usurper.leave();
    until("reservations are taken", || async {
        ledger.reserve_tokens(20).await.is_ok()
    })
    .await;
    assert_eq!(ledger.reserved_tokens().await, Ok(20));
}

/// Tokens that the other one reserved may be in use: none of ours may be any more.
#[tokio::test]
async fn a_ledger_that_another_has_had_meanwhile_is_written_no_more() {
    let server = PostgresServer::start();
    let ledger = open(&server).await;
    ledger.reserve_tokens(10).await.expect("reserves");
    let mut usurper = Usurper::take_lock(&server);
    usurper.say("UPDATE regatta.numbers SET value = value + 1 WHERE name = 'term';\n");
    usurper.leave();
    until("it is known", || async {
        ledger.reserve_tokens(20).await == Err(LedgerError::Superseded)
    })
    .await;
    assert_eq!(ledger.reserved_tokens().await, Ok(10));
    drop(ledger);
    until("it can be opened again", || async {
        let address = server.url(DATABASE).parse().expect("an address");
        PostgresLedger::open(address, &nobody(), Inheritance::OfTheSame)
            .await
            .is_ok()
    })
    .await;
}

/// The process of the server that holds the lock stands still: nothing waits for ever, and once it is gone,
/// the ledger goes on.
#[tokio::test]
async fn a_server_that_hangs_is_unavailable() {
    let server = PostgresServer::start();
    let ledger = open(&server).await;
    let backend = server.sql("SELECT pid FROM pg_locks WHERE locktype = 'advisory'");
    let send = |signal: &str| {
        let sent = Command::new("kill").args(["-s", signal, &backend]).status();
        assert!(sent.expect("kill starts").success());
    };
    send("STOP");
    let asked = Instant::now();
    let refused = ledger.reserve_tokens(10).await;
    send("CONT");
    assert!(is_unavailable(&refused, "another session"), "{refused:?}");
    assert!(
        asked.elapsed() < Duration::from_secs(30),
        "{:?}",
        asked.elapsed()
    );
    until("it goes on", || async {
        ledger.reserve_tokens(10).await.is_ok()
    })
    .await;
}
