//! One clear error each, with what to do, the right exit code, and nothing left behind.

use super::fleet::Fleet;
use super::program::{Ended, regatta, write};

#[test]
fn a_command_that_the_image_lacks() {
    let fleet = Fleet::of(1);
    let ended = Ended::of(fleet.command().args(["exec", "--", "no-such-program"]));
    ended
        .expect_code(127)
        .expect_complaint(&["no-such-program", "PATH"]);
    fleet.stop();
}

#[test]
fn an_image_that_cannot_be_had() {
    let fleet = Fleet::of(1);
    let ended =
        Ended::of(
            fleet
                .command()
                .args(["exec", "--image", "no-such-image:1", "--", "true"]),
        );
    assert_ne!(ended.code, Some(0), "{ended:#?}");
    ended.expect_complaint(&["no-such-image:1"]);
    fleet.stop();
}

#[test]
fn a_port_in_use() {
    let fleet = Fleet::coordinator();
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    let mut second = regatta();
    second.args([
        "coordinator",
        "--listen",
        &address,
        "--http-listen",
        "127.0.0.1:0",
        "--state-dir",
    ]);
    let ended = Ended::of(second.arg(fleet.state().join("second")));
    ended
        .expect_code(99)
        .expect_complaint(&[&address, "in use"]);
    fleet.stop();
}

#[test]
fn a_coordinator_that_is_not_there() {
    let ended = Ended::of(regatta().args(["--coordinator", "grpc://127.0.0.1:1", "ps"]));
    ended.expect_code(97).expect_complaint(&["127.0.0.1:1"]);
}

#[test]
fn a_glob_that_matches_nothing_a_key_that_does_not_exist_and_a_circle() {
    let fleet = Fleet::coordinator();
    let check = |text: &str, words: &[&str]| {
        let project = tempfile::tempdir().expect("a directory");
        write(project.path(), &[("regatta.toml", text)]);
        let ended = Ended::of(fleet.command().current_dir(project.path()).arg("run"));
        ended.expect_code(96).expect_complaint(words);
    };
    check("[jobs.a]\nrun = 'true'\ninputs = ['src/**']\n", &["src/**"]);
    check(
        "[jobs.a]\nrun = 'true'\nimput = []\n",
        &["regatta.toml:3:1", "imput", "inputs"],
    );
    let circle = "[jobs.a]\nrun = 'true'\nneeds = ['b']\n[jobs.b]\nrun = 'true'\nneeds = ['a']\n";
    check(circle, &["a", "b", "needs"]);
    fleet.stop();
}

#[test]
fn a_disk_with_no_room() {
    let mut fleet = Fleet::coordinator();
    let name = fleet.add_agent(&["--minimum-free", "1000000GiB"]);
    let agent = fleet.agent(&name).expect("it is known");
    assert!(agent.to_string().contains("disk"), "{agent}");
    fleet.stop();
}
