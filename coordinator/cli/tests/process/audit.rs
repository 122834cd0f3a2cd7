//! Cached passes that rest on what nobody declared.

use std::path::Path;

use super::fleet::Fleet;
use super::program::{Ended, write};

/// Its second test wants a file outside of the project, which a plain process can see.
fn suite(secret: &Path) -> String {
    format!(
        r#"case $1 in
list) printf 'one\ntwo\n';;
run)
  printf '<testsuite name="s">' > junit.xml
  while read -r id; do
    printf '<testcase name="%s" classname="">' "$id" >> junit.xml
    if [ "$id" = two ] && ! [ -e {secret} ]; then printf '<failure message="no file"/>' >> junit.xml; fi
    printf '</testcase>' >> junit.xml
  done < "${{2#@}}"
  printf '</testsuite>' >> junit.xml;;
esac
"#,
        secret = secret.display()
    )
}

const PIPELINE: &str = r#"
[jobs.check]
inputs = ["suite.sh"]

[jobs.check.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"
"#;

fn run(fleet: &Fleet, project: &Path, options: &[&str]) -> Ended {
    let mut command = fleet.command();
    Ended::of(command.current_dir(project).arg("run").args(options))
}

#[test]
fn a_wrong_cached_pass_is_found_and_fails_the_run() {
    let fleet = Fleet::of(1);
    // Not below /tmp, of which each job has its own.
    let directory = || tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let [project, elsewhere] = [(); 2].map(|()| directory().expect("a directory"));
    let (project, secret) = (project.path(), elsewhere.path().join("secret"));
    std::fs::write(&secret, "").expect("is written");
    write(
        project,
        &[("regatta.toml", PIPELINE), ("suite.sh", &suite(&secret))],
    );
    run(&fleet, project, &[]).expect_code(0);
    let agreed = run(&fleet, project, &["--audit-hits", "100"]);
    agreed.expect_code(0);
    let words = "2 cached; 2 cached results executed again, the same";
    assert!(agreed.stdout.contains(words), "{agreed:#?}");

    std::fs::remove_file(&secret).expect("was there");
    // Nobody looks, so that nobody sees.
    run(&fleet, project, &[]).expect_code(0);
    let junit = elsewhere.path().join("junit.xml").display().to_string();
    let wrong = run(&fleet, project, &["--audit-hits", "100", "--junit", &junit]);
    wrong.expect_code(100);
    for words in [
        "check two: a pass was cached, and does not hold: no file",
        "1 test run: 0 passed, 1 failed, 1 cached; 1 cached result executed again, the same",
        "the cached pass of `two` of `check` does not hold",
    ] {
        assert!(wrong.stdout.contains(words), "no {words:?} in {wrong:#?}");
    }
    let report = std::fs::read_to_string(&junit).expect("is there");
    assert!(
        report.contains(r#"tests="2" skipped="0" errors="0" failures="1""#),
        "{report}"
    );
    // It is forgotten.
    let next = run(&fleet, project, &[]);
    next.expect_code(100);
    assert!(next.stdout.contains("1 failed, 1 cached"), "{next:#?}");
    fleet.stop();
}
