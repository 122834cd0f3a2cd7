//! Two coordinators with one ledger and one storage, of which one stands by for the other.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::adoption::{PIPELINE, begun, is_busy, suite};
use super::fleet::Fleet;
use super::postgres_server::{DATABASE, PostgresServer, Stop};
use super::program::{Ended, Running, regatta, wait_until, write};
use super::s3_server::{self, S3Server};

/// Within this a coordinator that is dead or hangs is replaced, who watches a run sees it go on, and the agents are back.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);
/// What a client prints when its run goes on with another coordinator.
const GOES_ON: &str = r#""type":"run-resumed""#;

/// Two coordinators: the one that has the ledger, with two agents of three slots, and the one that stands by. What
/// they share goes when it is dropped.
struct Pair {
    active: Fleet,
    standby: Fleet,
    agents: Vec<String>,
    server: PostgresServer,
    _shared: TempDir,
    _bucket: Option<S3Server>,
}

impl Pair {
    /// Two that share a directory.
    fn start() -> Self {
        let shared = tempfile::tempdir().expect("a directory");
        let storage = directory(shared.path());
        Self::sharing(shared, &storage, None)
    }

    /// Two that share a bucket of an S3 server.
    fn with_bucket() -> Self {
        let shared = tempfile::tempdir().expect("a directory");
        Self::sharing(shared, &S3Server::url(), Some(S3Server::start()))
    }

    fn sharing(shared: TempDir, storage: &str, bucket: Option<S3Server>) -> Self {
        let server = PostgresServer::start();
        let key = new_key(&shared.path().join("key.pem"));
        let options = options(&server, storage, &key);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let endpoint = bucket.as_ref().map(|it| format!("http://{}", it.address()));
        let environment = endpoint.as_deref().map(s3_server::environment);
        let environment = environment.as_ref().map_or(&[][..], |it| &it[..]);
        let mut active = Fleet::coordinator_in(environment, &options);
        wait_until("the first has the ledger", || {
            Ended::of(active.command().args(["agents", "--format", "json"])).code == Some(0)
        });
        let standby = Fleet::coordinator_in(environment, &options);
        wait_until("the second passes connections on", || {
            standby.page("/readyz") == (200, "standing by, ready\n".to_owned())
        });
        active.also_at(standby.url());
        // As many slots as there is to do: one that is free may begin for a moment what another agent is at.
        let slots = ["--slots", "3", "--cpus", "3"];
        let agents = (0..2).map(|_| active.add_agent(&slots)).collect();
        Self {
            active,
            standby,
            agents,
            server,
            _shared: shared,
            _bucket: bucket,
        }
    }

    /// Waits until the one that stood by has taken over, whoever watches the run has seen it go on, and all agents are
    /// there.
    fn until_taken_over(&self, since: Instant, running: &mut Running) {
        wait_until("the other has the ledger", || {
            self.standby.log_of("coordinator").contains("taking over")
        });
        let taken_over = since.elapsed();
        assert!(taken_over < TAKEN_OVER_WITHIN, "{taken_over:?}");
        running.expect_words(GOES_ON);
        let noticed = since.elapsed();
        eprintln!("taken over after {taken_over:?}, seen to go on after {noticed:?}");
        assert!(noticed < TAKEN_OVER_WITHIN, "{noticed:?}");
        wait_until("it has the agents", || {
            let is_back = |it: &String| {
                let agent = self.standby.agent(it);
                agent.is_some_and(|agent| agent["state"] != "lost")
            };
            self.agents.iter().all(is_back)
        });
        let complete = since.elapsed();
        eprintln!("all agents are there after {complete:?}");
        assert!(complete < TAKEN_OVER_WITHIN, "{complete:?}");
    }
}

/// What `--storage` is told of a directory.
fn directory(shared: &Path) -> String {
    format!("file://{}/storage", shared.display())
}

fn new_key(path: &Path) -> String {
    let path = path.display().to_string();
    Ended::of(regatta().args(["keys", "--new", &path])).expect_code(0);
    path
}

fn options(server: &PostgresServer, storage: &str, key: &str) -> [String; 7] {
    [
        "--standby".to_owned(),
        "--ledger".to_owned(),
        server.url(DATABASE),
        "--storage".to_owned(),
        storage.to_owned(),
        "--verdict-key".to_owned(),
        key.to_owned(),
    ]
}

/// A project whose jobs go on until they are told to end. Not below /tmp, of which each job has its own.
fn project() -> TempDir {
    let project = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let suite = suite(project.path());
    let files = [("regatta.toml", PIPELINE), ("suite.sh", &suite)];
    write(project.path(), &files);
    project
}

fn run(fleet: &Fleet, project: &Path) -> Running {
    let mut run = fleet.command();
    let run = run.args(["--message-format", "json", "run"]);
    Running::begin(run.current_dir(project))
}

fn end(project: &Path) {
    std::fs::write(project.join("end"), "").expect("is written");
}

/// Everything that a run of the project did, once each.
fn expect_once(ended: &Ended, project: &Path) {
    ended.expect_code(0);
    let counts = &ended.finished()["counts"];
    assert_eq!(counts["planned"], 5, "{counts}");
    assert_eq!(counts["passed"], 5, "{counts}");
    assert_eq!(begun(project), ["a", "b", "build", "x", "y", "z"]);
}

#[test]
fn a_coordinator_that_stands_by_takes_over_from_one_that_is_killed() {
    let mut pair = Pair::with_bucket();
    // Whoever comes to the one that stands by gets to the other.
    let exec = ["exec", "--", "echo", "passed on"];
    let passed_on = Ended::of(pair.standby.command().args(exec));
    passed_on.expect_code(0);
    assert_eq!(passed_on.stdout, "passed on\n");

    let project = project();
    let mut running = run(&pair.active, project.path());
    wait_until("everything is under way", || is_busy(project.path()));
    let address = pair.active.url().split(',').next().expect("an address");
    let address = address.trim_start_matches("grpc://").to_owned();
    let killed = Instant::now();
    pair.active.kill_coordinator();
    pair.until_taken_over(killed, &mut running);
    end(project.path());
    expect_once(&running.end(), project.path());

    // The one that was killed stands by in its turn, and is as good an address as the other.
    pair.active.start_coordinator(&address);
    wait_until("it stands by", || pair.active.page("/readyz").0 == 200);
    assert_eq!(pair.active.page("/readyz").1, "standing by, ready\n");
    let again = Ended::of(
        pair.active
            .command()
            .args(["--message-format", "json", "run"])
            .current_dir(project.path()),
    );
    again.expect_code(0);
    assert_eq!(again.finished()["counts"]["cached"], 5);
    // A command, a run, and the run again.
    let runs = "SELECT count(*), count(finished_at), sum(passed) FROM regatta.runs";
    assert_eq!(pair.server.sql(runs), "3|3|5");
    pair.active.stop();
    pair.standby.stop();
}

#[test]
fn a_coordinator_that_hangs_is_replaced_and_ends_when_it_wakes() {
    let mut pair = Pair::with_bucket();
    let project = project();
    let mut running = run(&pair.active, project.path());
    wait_until("everything is under way", || is_busy(project.path()));
    let stopped = Instant::now();
    pair.active.signal_coordinator(Signal::STOP);
    pair.until_taken_over(stopped, &mut running);
    end(project.path());
    expect_once(&running.end(), project.path());
    // It hangs yet, and accepts connections all the same.
    Ended::of(pair.active.command().arg("agents")).expect_code(0);
    pair.active.signal_coordinator(Signal::CONT);
    assert_eq!(pair.active.coordinator_end(), Some(98));
    let log = pair.active.log_of("coordinator");
    assert!(log.contains("waits for its turn"), "{log}");
    let runs = "SELECT verdict, passed FROM regatta.runs";
    assert_eq!(pair.server.sql(runs), "RELEASABLE|5");
    pair.active.stop();
    pair.standby.stop();
}

#[test]
fn two_coordinators_outlive_a_restart_of_their_database() {
    let mut pair = Pair::start();
    for how in [Stop::Fast, Stop::Immediate] {
        pair.server.stop(how);
        pair.server.start_again();
        let project = project();
        end(project.path());
        expect_once(&run(&pair.active, project.path()).end(), project.path());
    }
    // Each ends well when it is told to, so both are there.
    pair.active.stop();
    pair.standby.stop();
}

#[test]
fn what_a_coordinator_cannot_stand_by_with_is_refused() {
    let server = PostgresServer::start();
    let shared = tempfile::tempdir().expect("a directory");
    let [first, second] = ["first.pem", "second.pem"].map(|it| new_key(&shared.path().join(it)));
    let stand_by = |state: &str, changed: &[(&str, &str)]| {
        let mut options = options(&server, &directory(shared.path()), &second);
        for (option, value) in changed {
            let place = options
                .iter()
                .position(|it| it == option)
                .expect("it is there");
            options[place + 1] = (*value).to_owned();
        }
        let mut command = regatta();
        command.args(["coordinator", "--listen", "127.0.0.1:0"]);
        command.args(["--http-listen", "127.0.0.1:0", "--state-dir"]);
        command.arg(shared.path().join(state)).args(&options);
        Ended::of(&mut command)
    };
    let nowhere = format!("file://{}/first.pem/storage", shared.path().display());
    let refused = stand_by("nowhere", &[("--storage", &nowhere)]);
    refused.expect_code(99).expect_complaint(&["storage"]);

    let ours = options(&server, &directory(shared.path()), &first);
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    let active = Fleet::coordinator_told(&ours);
    wait_until("the first has the ledger", || {
        active.log_of("coordinator").contains("taking over")
    });
    let refused = stand_by("other", &[]);
    let words = ["signs verdicts with the key", "the same --verdict-key"];
    refused.expect_code(96).expect_complaint(&words);

    let mut alone = regatta();
    let refused = Ended::of(alone.args(["coordinator", "--standby"]));
    let words = ["--ledger", "--storage", "--verdict-key"];
    refused.expect_code(2).expect_complaint(&words);
    active.stop();
}

/// A blob that is stored with other bytes than its name says.
fn spoilt_blob(storage: &Path) -> std::path::PathBuf {
    let hash = "ab".repeat(32);
    let folder = storage.join("cas/ab");
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join(format!("{hash}-5"));
    std::fs::write(&file, "wrong").expect("is written");
    file
}

#[test]
fn nothing_is_repaired_while_a_coordinator_works_on_the_storage() {
    let server = PostgresServer::start();
    let shared = tempfile::tempdir().expect("a directory");
    let key = new_key(&shared.path().join("key.pem"));
    let told = options(&server, &directory(shared.path()), &key);
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    let mut active = Fleet::coordinator_told(&told);
    wait_until("it has the ledger", || {
        Ended::of(active.command().args(["agents", "--format", "json"])).code == Some(0)
    });
    let spoilt = spoilt_blob(&shared.path().join("storage"));
    // Of another coordinator, that does not run.
    let state = tempfile::tempdir().expect("a directory");
    std::fs::write(state.path().join("lock"), "").expect("is written");
    let state = state.path().display().to_string();
    let repair = |ledger: &[&str]| {
        let mut repair = regatta();
        repair.args(["cas", "verify", "--repair", "--state-dir", &state]);
        // `--storage` and its value are told to coordinators in the same way.
        Ended::of(repair.args(&told[3..5]).args(ledger))
    };
    repair(&[])
        .expect_code(96)
        .expect_complaint(&["name it with --ledger"]);
    let with_ledger = &told[1..3];
    repair(with_ledger)
        .expect_code(99)
        .expect_complaint(&["is in use by another coordinator"]);
    assert!(spoilt.exists());
    active.kill_coordinator();
    let mut repaired = None;
    wait_until("the ledger is nobody's", || {
        let ended = repair(with_ledger);
        let is_done = ended.code == Some(0);
        repaired = Some(ended);
        is_done
    });
    assert!(!spoilt.exists(), "{repaired:?}");
    // Whoever repairs says nothing of a storage: which one the ledger's coordinators had is known all the same.
    let terms = server.sql("SELECT max(term) FROM regatta.terms");
    let elsewhere = format!("file://{}/elsewhere", shared.path().display());
    let of_another = ["--storage", &elsewhere, "--ledger", told[2]];
    let mut repair = regatta();
    repair.args(["cas", "verify", "--repair", "--state-dir", &state]);
    let refused = Ended::of(repair.args(of_another));
    let words = [&elsewhere, told[4], "--storage", "--ledger"];
    refused.expect_code(96).expect_complaint(&words);
    let terms_then = server.sql("SELECT max(term) FROM regatta.terms");
    assert_eq!(terms_then, terms, "nobody lost the ledger for it");
    active.stop();
}
