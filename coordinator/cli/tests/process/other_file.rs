//! Runs of another file than the commit's own.

use super::fleet::Fleet;
use super::program::{Ended, write};
use super::repository::{commit, git};

const OWN: &str = "[jobs.check]\nrun = 'true'\n";
const SMOKE: &str = "[jobs.smoke]\nrun = 'true'\n";

#[test]
fn a_commit_is_judged_by_its_own_file_whichever_has_run() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    git(project.path(), &["init", "--quiet"]);
    let files = [
        ("regatta.toml", OWN),
        ("smoke.toml", SMOKE),
        ("part/regatta.toml", SMOKE),
    ];
    write(project.path(), &files);
    commit(project.path());
    let regatta_in = |directory: &str, arguments: &[&str]| {
        let mut command = fleet.command();
        let directory = project.path().join(directory);
        Ended::of(command.current_dir(directory).args(arguments))
    };
    let regatta = |arguments: &[&str]| regatta_in(".", arguments);

    regatta(&["run", "-f", "smoke.toml"]).expect_code(0);
    let verdict = regatta(&["verdict"]);
    verdict.expect_code(2);
    let lacks = "job `check`, which the policy requires, has not run";
    assert!(verdict.stdout.contains(lacks), "{verdict:#?}");
    regatta(&["run"]).expect_code(0);

    let elsewhere = tempfile::tempdir().expect("a directory");
    let at = |name: &str| elsewhere.path().join(name).display().to_string();
    let (key, bundle) = (at("key"), at("bundle"));
    std::fs::write(&key, regatta(&["keys"]).stdout).expect("written");
    regatta(&["verdict", "--output", &bundle]).expect_code(0);
    let verify = |policy: &str| regatta(&["verify", &bundle, "--key", &key, "--policy", policy]);
    verify("smoke.toml").expect_code(0);
    verify("regatta.toml")
        .expect_code(1)
        .expect_complaint(&["another policy, which requires check, smoke of smoke.toml"]);

    let part = regatta_in("part", &["run"]);
    part.expect_code(0);
    let said = "requires `check` of its own regatta.toml";
    let told = format!("{}{}", part.stdout, part.stderr);
    assert!(told.contains(said), "{part:#?}");
    fleet.stop();
}

#[test]
fn an_own_file_that_says_nothing_is_an_error_in_any_run() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    git(project.path(), &["init", "--quiet"]);
    let files = [("regatta.toml", "[jobs"), ("smoke.toml", SMOKE)];
    write(project.path(), &files);
    commit(project.path());
    let mut command = fleet.command();
    let ended = Ended::of(
        command
            .current_dir(project.path())
            .args(["run", "-f", "smoke.toml"]),
    );
    ended.expect_code(96).expect_complaint(&["regatta.toml"]);
    fleet.stop();
}
