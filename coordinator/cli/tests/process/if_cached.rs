//! `regatta verdict --if-cached`, and what is said of runs that are not there.

use super::fleet::Fleet;
use super::program::{Ended, write};
use super::repository::{commit, git};

const PIPELINE: &str =
    "[jobs.make]\ninputs = ['source']\nrun = 'cp source out'\noutputs = ['out']\n";

#[test]
fn a_commit_of_which_all_is_cached_has_a_verdict_and_executes_nothing() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    git(project.path(), &["init", "--quiet"]);
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("source", "one")],
    );
    let first = commit(project.path());
    let run = |arguments: &[&str]| {
        let mut command = fleet.command();
        Ended::of(command.current_dir(project.path()).args(arguments))
    };
    let check = |arguments: &[&str], code: i32, words: &[&str]| {
        let ended = run(arguments);
        ended.expect_code(code);
        for words in words {
            assert!(ended.stdout.contains(words), "{words}: {ended:#?}");
        }
    };
    let not_cached = ["UNKNOWN", "the build `make`", "`regatta run` executes"];
    check(&["verdict", "--if-cached"], 2, &not_cached);
    check(&["verdict"], 2, &["`regatta verdict --if-cached` answers"]);
    run(&["run"]).expect_code(0);
    git(
        project.path(),
        &["commit", "--quiet", "--allow-empty", "--message", "again"],
    );
    let again = git(project.path(), &["rev-parse", "HEAD"]);
    check(&["verdict"], 2, &["UNKNOWN: no run of commit", &again]);
    let good = ["RELEASABLE\n", again.as_str(), "leases  0\n"];
    check(&["verdict", "--if-cached"], 0, &good);
    check(&["verdict"], 0, &good);
    check(&["verdict", "--if-cached", &first], 0, &[&first]);
    write(project.path(), &[("source", "two")]);
    let other = commit(project.path());
    check(&["verdict", "--if-cached"], 2, &["UNKNOWN", &other]);
    let elsewhere = "0".repeat(40);
    let refused = run(&["verdict", "--if-cached", &elsewhere]);
    refused
        .expect_code(96)
        .expect_complaint(&[&elsewhere, "is not checked out here"]);
    fleet.stop();
}

#[test]
fn whoever_names_no_run_is_told() {
    let fleet = Fleet::of(1);
    let questions: [&[&str]; 5] = [
        &["rerun", "nosuch"],
        &["rerun", "--failed", "nosuch"],
        &["cancel", "nosuch"],
        &["logs", "nosuch"],
        &["why", "test", "--run", "nosuch"],
    ];
    for question in questions {
        let ended = Ended::of(fleet.command().args(question));
        ended
            .expect_code(96)
            .expect_complaint(&["no run `nosuch` is known"]);
    }
    fleet.stop();
}
