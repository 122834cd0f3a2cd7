//! A ledger whose coordinator is started with another storage, or another key.

use std::path::Path;
use std::process::Stdio;

use super::fleet::Fleet;
use super::postgres_server::{DATABASE, PostgresServer};
use super::program::{Ended, regatta};

/// A coordinator that is not expected to start.
fn coordinator(state: &Path, options: &[&str]) -> Ended {
    let mut command = regatta();
    command.args(["coordinator", "--listen", "127.0.0.1:0"]);
    command.args(["--http-listen", "127.0.0.1:0", "--state-dir"]);
    command.arg(state).args(options);
    if !options.contains(&"--standby") {
        // One that starts all the same stops at once.
        command.arg("--exit-with-stdin").stdin(Stdio::null());
    }
    Ended::of(&mut command)
}

fn run_something(fleet: &Fleet) {
    Ended::of(fleet.command().args(["exec", "--", "true"])).expect_code(0);
}

#[test]
fn a_shared_ledger_goes_on_with_its_storage_and_its_key_alone() {
    let server = PostgresServer::start();
    let url = server.url(DATABASE);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let storage = format!("file://{}/storage", elsewhere.path().display());
    let mut fleet = Fleet::told(&["--ledger", &url]);
    run_something(&fleet);
    fleet.kill_coordinator();
    let terms = || server.sql("SELECT max(term) FROM regatta.terms");
    let before = terms();

    // Another state directory has another key, and is another storage as well.
    let refused = coordinator(&elsewhere.path().join("a"), &["--ledger", &url]);
    let words = [
        "signs verdicts with the key",
        "--state-dir",
        "--adopt-ledger",
    ];
    refused.expect_code(96).expect_complaint(&words);
    let key = fleet.state().join("coordinator/verdict-key.pem");
    let key = key.display().to_string();
    let with_key = ["--ledger", &url, "--verdict-key", &key];
    let refused = coordinator(&elsewhere.path().join("b"), &with_key);
    let words = ["stores blobs at", "--storage", "--adopt-ledger"];
    refused.expect_code(96).expect_complaint(&words);
    let standby = [&["--standby", "--storage", &storage], &with_key[..]].concat();
    let refused = coordinator(&elsewhere.path().join("c"), &standby);
    let words = [&storage, "stores blobs at", "--adopt-ledger"];
    refused.expect_code(96).expect_complaint(&words);
    assert_eq!(terms(), before, "nobody has had it");

    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    fleet.start_coordinator(&address);
    run_something(&fleet);
    fleet.kill_coordinator();
    fleet.tell(&["--ledger", &url, "--storage", &storage, "--adopt-ledger"]);
    fleet.start_coordinator(&address);
    run_something(&fleet);
    // It is that storage's from now on.
    fleet.kill_coordinator();
    fleet.tell(&["--ledger", &url, "--storage", &storage]);
    fleet.start_coordinator(&address);
    run_something(&fleet);
    fleet.stop();
}

#[test]
fn so_does_the_one_in_a_state_directory() {
    let mut fleet = Fleet::told(&[]);
    let state = fleet.state().join("coordinator");
    run_something(&fleet);
    fleet.kill_coordinator();
    let storage = format!("file://{}/storage", fleet.state().display());
    let refused = coordinator(&state, &["--storage", &storage]);
    let words = [
        "stores blobs at the state directory",
        &storage,
        "--adopt-ledger",
    ];
    refused.expect_code(96).expect_complaint(&words);
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    fleet.start_coordinator(&address);
    run_something(&fleet);
    fleet.stop();
}
