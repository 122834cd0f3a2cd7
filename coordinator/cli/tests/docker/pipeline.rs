//! `regatta run` and `regatta test`, from configuration to verdict.

use std::collections::BTreeMap;

use super::RUNTIME;
use super::fleet::{Fleet, Runtime};
use super::program::{Ended, write};

pub(crate) const PIPELINE: &str = r#"
[jobs.build]
inputs = ["words"]
run = "mkdir -p out && sort words > out/sorted"
outputs = ["out"]

[jobs.check]
needs = ["build"]
inputs = ["**"]

[jobs.check.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"
"#;

/// Lists a test for each word, and writes JUnit for those that it is given in a file.
const SUITE: &str = r#"
if [ "$1" = list ]; then cat out/sorted; exit; fi
{
  echo '<testsuites><testsuite name="words" tests="1">'
  while read -r id; do echo "<testcase name=\"$id\" classname=\"\" time=\"0.01\"/>"; done < "${2#@}"
  echo '</testsuite></testsuites>'
} > junit.xml
"#;

#[test]
fn a_pipeline_of_a_build_and_a_suite_is_releasable_and_cached() {
    let fleet = Fleet::of(2);
    let project = tempfile::tempdir().expect("a directory");
    let words = "pear\napple\nfig\nplum\n";
    write(
        project.path(),
        &[
            ("regatta.toml", PIPELINE),
            ("suite.sh", SUITE),
            ("words", words),
        ],
    );
    let run = || {
        let mut run = fleet.command();
        Ended::of(
            run.current_dir(project.path())
                .args(["--message-format", "json", "run"])
                .args(["--junit", "report.xml"]),
        )
    };
    let first = run();
    first.expect_code(0);
    assert_eq!(first.finished()["verdict"], "RELEASABLE");
    assert_eq!(first.finished()["counts"]["passed"], 4, "{first:#?}");
    let second = run();
    assert_eq!(second.finished()["leases"], 0, "{second:#?}");
    assert_eq!(second.finished()["counts"]["cached"], 4, "{second:#?}");
    let submitted = first.lines("run-submitted");
    let id = submitted[0]["run_id"].as_str().expect("an id");
    let logs = Ended::of(fleet.command().args(["logs", &id[..8]]));
    logs.expect_code(0);
    let passed = logs.stdout.lines().filter(|line| line.contains("PASS"));
    assert_eq!(passed.count(), 4, "{logs:#?}");
    fleet.stop();
}

#[test]
fn a_build_job_that_fails_has_its_own_exit_code_and_says_why() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let text = "[jobs.make]\nrun = 'echo the reason >&2; exit 2'\n[jobs.late]\nneeds = ['make']\nrun = 'true'\n";
    write(project.path(), &[("regatta.toml", text)]);
    let ended = Ended::of(fleet.command().current_dir(project.path()).arg("run"));
    ended.expect_code(101);
    assert!(ended.stdout.contains("the reason"), "{ended:#?}");
    fleet.stop();
}

#[test]
fn ci_systems_are_told_without_being_asked() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let text = "[jobs.make]\nrun = 'echo the reason >&2; exit 2'\n";
    write(project.path(), &[("regatta.toml", text)]);
    let summary = project.path().join("summary.md");
    let mut run = fleet.command();
    run.current_dir(project.path())
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", &summary);
    let ended = Ended::of(run.arg("run"));
    ended
        .expect_code(101)
        .expect_complaint(&["::error title=make::exited with code 2%0Athe reason\n"]);
    let summary = std::fs::read_to_string(summary).expect("a summary");
    assert!(summary.contains("## Regatta: NOT_RELEASABLE"), "{summary}");
    let junit = std::fs::read_to_string(project.path().join("regatta-junit.xml"));
    assert!(junit.expect("JUnit").contains("<failure "));

    let mut run = fleet.command();
    run.current_dir(project.path()).env("GITLAB_CI", "true");
    let ended = Ended::of(run.arg("run"));
    let section = "[collapsed=true]\r\x1b[0Kmake\nexited with code 2\nthe reason\n";
    ended
        .expect_code(101)
        .expect_complaint(&["Regatta: what went wrong", section]);
    let findings = std::fs::read_to_string(project.path().join("gl-code-quality-report.json"));
    assert_eq!(findings.expect("a report"), "[]", "a build is in no file");
    fleet.stop();
}

#[test]
fn a_build_job_that_passes_on_retry_is_flaky() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("a clock");
    // The first attempt begins before this, and the second after.
    let turn = now.as_secs() + 8;
    let text = format!(
        "[jobs.make]\nretry = 1\nrun = '[ $(date +%s) -ge {turn} ] && exit; echo the reason >&2; \
         while [ $(date +%s) -lt {turn} ]; do sleep 0.1; done; exit 7'\n"
    );
    write(project.path(), &[("regatta.toml", &text)]);
    let mut run = fleet.command();
    run.current_dir(project.path()).arg("run");
    let ended = Ended::of(run.args(["--junit", "report.xml"]));
    ended.expect_code(0);
    for words in [
        "TRY 1 FAIL",
        "exited with code 7",
        "the reason",
        "FLAKY",
        "1 passed (1 flaky)",
    ] {
        assert!(ended.stdout.contains(words), "no {words:?} in {ended:#?}");
    }
    let report = std::fs::read_to_string(project.path().join("report.xml")).expect("JUnit");
    assert!(report.contains("<flakyFailure "), "{report}");
    fleet.stop();
}

const MANIFEST: &str = "[workspace]\nmembers = ['left', 'right']\nresolver = '3'\n";
const LEFT: &str = "#[test]\nfn passes() {}\n#[test]\n#[cfg(feature = \"fail\")]\nfn fails() { println!(\"the reason\"); assert_eq!(1, 2) }\n";
const RIGHT: &str = "#[test]\nfn reads_its_fixture() {\n    assert_eq!(std::fs::read_to_string(\"fixture\").unwrap(), \"here\");\n    assert!(MANIFEST_DIR.join(\"fixture\").exists());\n}\n";
/// Where tests find their package's files. Containers show them at the place where they were built,
/// processes do not.
const MANIFEST_DIR: &str = match RUNTIME {
    Runtime::Docker => "std::path::Path::new(env!(\"CARGO_MANIFEST_DIR\"))",
    Runtime::Process => "std::path::Path::new(\".\")",
};

fn cargo_project() -> tempfile::TempDir {
    let project = tempfile::tempdir().expect("a directory");
    let manifest = |name: &str| {
        format!("[package]\nname = '{name}'\nedition = '2024'\n[features]\nfail = []\n")
    };
    let files = [
        ("Cargo.toml", MANIFEST),
        ("left/Cargo.toml", &manifest("left")),
        ("left/src/lib.rs", LEFT),
        ("right/Cargo.toml", &manifest("right")),
        (
            "right/src/lib.rs",
            &RIGHT.replace("MANIFEST_DIR", MANIFEST_DIR),
        ),
        ("right/fixture", "here"),
    ];
    write(project.path(), &files);
    project
}

fn test(fleet: &Fleet, project: &tempfile::TempDir, options: &[&str]) -> Ended {
    let mut command = fleet.command();
    command
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(project.path());
    Ended::of(
        command
            .args(["--message-format", "json", "test", "--no-fail-fast"])
            .args(options),
    )
}

#[test]
fn a_cargo_workspace_needs_no_configuration_and_a_leaf_runs_alone() {
    let fleet = Fleet::of(2);
    let project = cargo_project();
    // A report among the files of the package does not make the next run another one.
    let junit = ["--junit", "right/report.xml"];
    let first = test(&fleet, &project, &junit);
    first.expect_code(0);
    assert_eq!(first.finished()["counts"]["passed"], 2, "{first:#?}");
    let second = test(&fleet, &project, &junit);
    assert_eq!(
        (
            &second.finished()["leases"],
            &second.finished()["counts"]["cached"]
        ),
        (&0.into(), &2.into())
    );
    write(project.path(), &[("right/fixture", "gone")]);
    let third = test(&fleet, &project, &junit);
    third.expect_code(100);
    let status = |line: &serde_json::Value| (line["job"].to_string(), line["status"].to_string());
    let statuses: BTreeMap<_, _> = third.lines("test").iter().map(status).collect();
    assert_eq!(statuses["\"left\""], "\"cached\"", "{third:#?}");
    assert_eq!(statuses["\"right\""], "\"failed\"", "{third:#?}");
    fleet.stop();
}

#[test]
fn a_failure_shows_its_output_and_is_in_junit() {
    let fleet = Fleet::of(1);
    let project = cargo_project();
    let ended = test(
        &fleet,
        &project,
        &["--features", "left/fail", "--junit", "report.xml"],
    );
    ended
        .expect_code(100)
        .expect_complaint(&["FAIL", "the reason"]);
    assert_eq!(ended.finished()["verdict"], "NOT_RELEASABLE");
    let junit = std::fs::read_to_string(project.path().join("report.xml")).expect("JUnit");
    assert!(
        junit.contains("<failure") && junit.contains("the reason"),
        "{junit}"
    );
    fleet.stop();
}

#[test]
fn what_does_not_compile_has_its_own_exit_code() {
    let fleet = Fleet::of(1);
    let project = cargo_project();
    write(project.path(), &[("left/src/lib.rs", "fn x( {}")]);
    test(&fleet, &project, &[]).expect_code(101);
    fleet.stop();
}

#[test]
fn a_filter_that_selects_nothing_has_its_own_exit_code() {
    let fleet = Fleet::of(1);
    let project = cargo_project();
    test(&fleet, &project, &["no-such-test"]).expect_code(4);
    fleet.stop();
}
