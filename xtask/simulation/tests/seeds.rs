//! The simulation, as `cargo xtask simulate` runs it: a few seeds of those that CI plays.

use std::process::{Command, Output};

/// How many seeds are played here, and for each bug at most.
const SEEDS: &str = "100";
const SEEDS_FOR_A_BUG: &str = "300";

/// How many blobs have to be let go in those, whose promises have run out, at least.
const LET_GO_AT_LEAST: u32 = 300;

fn simulate(arguments: &[&str]) -> Output {
    let mut simulation = Command::new(env!("CARGO_BIN_EXE_regatta-simulation"));
    simulation.args(arguments).output().expect("starts")
}

#[track_caller]
fn check(arguments: &[&str]) -> String {
    let output = simulate(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

#[test]
fn every_invariant_holds_whatever_fails() {
    let said = check(&["--seeds", SEEDS]);
    // It checks what is promised only if something goes.
    let gone = said.split_once("held; ");
    let gone = gone.and_then(|(_, rest)| rest.split_once(" blobs were let go"));
    let gone: u32 = gone
        .and_then(|(gone, _)| gone.parse().ok())
        .expect("a number");
    assert!(gone > LET_GO_AT_LEAST, "{said}");
}

#[test]
fn without_faults_every_run_comes_to_its_verdict() {
    check(&["--seeds", "20", "--faults", "none"]);
}

#[test]
fn a_seed_is_played_again_to_the_last_message() {
    for seed in ["4", "19", "37"] {
        let (once, again) = (check(&["--seed", seed]), check(&["--seed", seed]));
        assert!(once.lines().count() > 100, "{once}");
        assert_eq!(once, again);
    }
}

#[test]
fn each_planted_bug_is_found() {
    check(&["--bugs", "--seeds", SEEDS_FOR_A_BUG]);
}

#[test]
fn a_bug_that_is_found_comes_with_its_trace_and_its_seed() {
    // In earlier ones, it may break something else first.
    let output = simulate(&["--plant", "RunsForgotten", "--first-seed", "3"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("ledger: events "), "{text}");
    assert!(text.contains("VIOLATION every_run_ends: "), "{text}");
    let last = text.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("cargo xtask simulate --seed "), "{text}");
    assert!(last.ends_with("--plant RunsForgotten"), "{text}");
    // What is left of its faults is enough.
    let (_, arguments) = last.split_once("simulate ").expect("is a command");
    let again = simulate(&arguments.split(' ').collect::<Vec<_>>());
    let again = String::from_utf8_lossy(&again.stdout);
    assert!(again.contains("VIOLATION every_run_ends: "), "{again}");
}
