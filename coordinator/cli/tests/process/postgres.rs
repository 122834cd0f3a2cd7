//! A coordinator whose ledger is in PostgreSQL.

use std::path::Path;
use std::process::Command;

use super::fleet::Fleet;
use super::postgres_server::{DATABASE, PostgresServer, Stop, USER};
use super::program::{Ended, Running, regatta, write};
use super::repository::{commit, git};

const PASSWORD: &str = "s3cret";

/// Twenty tests, each of which takes a while.
const PIPELINE: &str = r#"
[jobs.unit]
inputs = ["suite.sh"]

[jobs.unit.suite]
discover = "seq 1 20"
run = ["sh", "suite.sh"]
junit = "junit.xml"
"#;
const SUITE: &str = r#"
{
  echo '<testsuites><testsuite name="unit">'
  while read -r id; do
    sleep 0.2
    echo "<testcase name=\"$id\" classname=\"\" time=\"0.2\"/>"
  done < "${1#@}"
  echo '</testsuite></testsuites>'
} > junit.xml
"#;

/// What whoever watches a run is told while its events cannot be stored.
const NOT_DURABLE: &str = "nothing more of the run can be stored";

/// A project in a commit of its own.
fn project() -> tempfile::TempDir {
    let project = tempfile::tempdir().expect("a directory");
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("suite.sh", SUITE)],
    );
    git(
        project.path(),
        &["init", "--quiet", "--initial-branch", "main"],
    );
    commit(project.path());
    project
}

/// A file with one line that nobody else can read.
fn secret(directory: &Path, name: &str, line: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join(name);
    std::fs::write(&path, format!("{line}\n")).expect("a file");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, mode).expect("it is ours");
    path.display().to_string()
}

fn in_project(fleet: &Fleet, project: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = fleet.command();
    command.current_dir(project.path()).args(arguments);
    command
}

#[test]
fn a_ledger_in_postgres_outlives_its_coordinator_and_is_nobody_elses() {
    let server = PostgresServer::on_tcp(PASSWORD);
    let (secrets, project) = (tempfile::tempdir().expect("a directory"), project());
    let authority = server.authority();
    let url = format!("postgres://{USER}:{PASSWORD}@{authority}/{DATABASE}");
    let reference = format!("file:{}", secret(secrets.path(), "ledger", &url));
    let mut fleet = Fleet::told(&["--ledger", &reference]);
    let run =
        |fleet: &Fleet, arguments: &[&str]| Ended::of(&mut in_project(fleet, &project, arguments));
    run(&fleet, &["run"]).expect_code(0);

    // Another coordinator, which has its password from another place.
    let password_file = secret(
        secrets.path(),
        "pgpass",
        &format!("{authority}:*:{USER}:{PASSWORD}"),
    );
    let open_url = format!("postgres://{USER}@{authority}/{DATABASE}");
    let another = |url: &str| {
        let mut another = regatta();
        another.args([
            "coordinator",
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
        ]);
        another
            .args(["--ledger", url, "--state-dir"])
            .arg(secrets.path().join("another"));
        Ended::of(another.env("PGPASSFILE", &password_file))
    };
    let complaint = another(&open_url);
    complaint.expect_code(99);
    complaint.expect_complaint(&[
        "in use by another coordinator (regatta coordinator, process",
        &authority,
    ]);
    let complaint = another(&url);
    complaint.expect_code(96).expect_complaint(&["PGPASSFILE"]);
    assert!(!complaint.stderr.contains(PASSWORD), "{complaint:#?}");

    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    fleet.kill_coordinator();
    fleet.start_coordinator(&address);
    let verdict = run(&fleet, &["verdict"]);
    verdict.expect_code(0);
    assert!(verdict.stdout.contains("RELEASABLE"), "{verdict:#?}");
    let history = run(&fleet, &["history", "--since", "1d"]);
    history.expect_code(0);
    assert!(history.stdout.contains("1 RELEASABLE"), "{history:#?}");
    let csv = run(&fleet, &["history", "--format", "csv", "--suite", "unit"]);
    assert_eq!(csv.stdout.lines().count(), 21, "{csv:#?}");
    assert_eq!(server.sql("SELECT count(*) FROM regatta.runs"), "1");
    let log = fleet.log_of("coordinator");
    assert!(log.contains(&authority) && !log.contains(PASSWORD), "{log}");
    fleet.stop();
}

#[test]
fn a_run_goes_on_though_its_postgres_is_restarted() {
    let mut server = PostgresServer::start();
    let fleet = Fleet::told(&["--ledger", &server.url(DATABASE)]);
    let project = project();
    for how in [Stop::Fast, Stop::Immediate] {
        let arguments = ["--message-format", "json", "run", "--no-cache"];
        let mut running = Running::begin(&mut in_project(&fleet, &project, &arguments));
        running.expect_words(r#""type":"test""#);
        server.stop(how);
        server.start_again();
        let ended = running.end();
        let finished = ended.expect_code(0).finished();
        assert_eq!(finished["counts"]["passed"], 20, "{how:?}: {finished}");
    }
    let runs =
        server.sql("SELECT verdict, count(*), sum(passed) FROM regatta.runs GROUP BY verdict");
    assert_eq!(runs, "RELEASABLE|2|40");
    let seen = server.sql("SELECT min(runs), max(runs) FROM regatta.test_history");
    assert_eq!(seen, "2|2", "each test was executed twice");
    fleet.stop();
}

#[test]
fn a_run_goes_on_though_its_postgres_was_away_for_longer_than_anybody_is_left_in_the_dark() {
    let mut server = PostgresServer::start();
    let fleet = Fleet::told(&["--ledger", &server.url(DATABASE)]);
    // Not below /tmp, of which each job has its own.
    let project = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let end = project.path().join("end");
    let talk = "echo and so on; sleep 0.05";
    let pipeline = format!(
        "[jobs.talk]\nrun = 'until [ -e {} ]; do {talk}; done'\n",
        end.display()
    );
    write(project.path(), &[("regatta.toml", &pipeline)]);
    let arguments = ["--message-format", "json", "run"];
    let mut running = Running::begin(&mut in_project(&fleet, &project, &arguments));
    running.expect_words(r#""type":"output""#);
    server.stop(Stop::Fast);
    running.expect_words(NOT_DURABLE);
    server.start_again();
    std::fs::write(&end, "").expect("is written");
    let ended = running.end();
    let finished = ended.expect_code(0).finished();
    assert_eq!(finished["verdict"], "RELEASABLE", "{finished}");
    let log = fleet.log_of("coordinator");
    assert!(!log.contains("NOTICE"), "{log}");
    fleet.stop();
}
