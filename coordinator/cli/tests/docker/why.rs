//! `regatta why`.

use super::fleet::Fleet;
use super::program::{Ended, write};

const SUITE: &str = r#"
if [ "$1" = list ]; then echo one; exit; fi
echo '<testsuite name="s"><testcase name="one" classname=""/></testsuite>' > junit.xml
"#;

const PIPELINE: &str = r#"
[jobs.build]
inputs = ["words"]
run = "sort words > sorted"
outputs = ["sorted"]
[jobs.check]
needs = ["build"]
inputs = ["suite.sh", "data/**"]
[jobs.check.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"
"#;

#[test]
fn a_test_says_why_it_ran() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let project = project.path();
    std::fs::create_dir(project.join("data")).expect("is made");
    let files = [
        ("regatta.toml", PIPELINE),
        ("suite.sh", SUITE),
        ("words", "b\na\n"),
    ];
    write(project, &files);
    write(project, &[("data/a", "1"), ("data/b", "1")]);
    let regatta = |arguments: &[&str]| {
        let mut command = fleet.command();
        Ended::of(command.current_dir(project).args(arguments))
    };
    let run = |options: &[&str]| {
        let options = [&["--message-format", "json", "run"], options].concat();
        let ended = regatta(&options);
        ended.expect_code(0);
        let submitted = &ended.lines("run-submitted")[0];
        submitted["run_id"].as_str().expect("a text").to_owned()
    };
    let first = run(&[]);
    let said = |arguments: &[&str]| regatta(arguments).expect_code(0).stdout.clone();
    let text = said(&["why", "one"]);
    assert!(
        text.contains(&format!("check one in run {first} ran on e2e-")),
        "{text}"
    );
    assert!(text.contains("has this test"), "{text}");

    let second = run(&[]);
    let expected = format!(
        "check one in run {second} did not run: it had passed with the same key in run {first}\n"
    );
    assert_eq!(said(&["why", "one"]), expected);
    run(&["--no-cache"]);
    assert!(said(&["why", "one", "--job", "check"]).contains("--no-cache"));

    write(
        project,
        &[("data/b", "2"), ("data/c", "1"), ("words", "c\n")],
    );
    std::fs::remove_file(project.join("data/a")).expect("was there");
    let changed = PIPELINE.replace("[jobs.check.suite]", "timeout = \"1m\"\n[jobs.check.suite]");
    write(project, &[("regatta.toml", &changed)]);
    run(&[]);
    let text = said(&["why", "one"]);
    for words in [
        "  timeout: the coordinator's -> 60s\n",
        "  output of a job it needs build: sorted is another\n",
        "  file data/c is new\n",
        "  file data/a is gone\n",
        "  file data/b has changed\n",
    ] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    // An older run is compared with the one before it, and not with what came later.
    assert_eq!(said(&["why", "one", "--run", &second]), expected);
    regatta(&["why", "two"])
        .expect_code(4)
        .expect_complaint(&["no test `two`", "regatta logs RUN"]);
    fleet.stop();
}
