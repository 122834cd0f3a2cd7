//! What is said of a test whose time was over, at each attempt.

use super::fleet::Fleet;
use super::shared_project::SharedProject;

/// A runner that says in its report which test it has begun, and one that reports when all is done.
const SUITE: &str = r#"
if [ "$1" = list ]; then echo "$2"; exit; fi
head='<testsuites><testsuite name="check">'
tail='</testsuite></testsuites>'
cases=
while read -r id; do
  if [ "$1" = tells ]; then
    begun='<error type="regatta.runner-ended" message="the runner ended while this test ran"/>'
    echo "$head$cases<testcase name=\"$id\">$begun</testcase>$tail" > junit.xml
  fi
  sleep 1000
  cases="$cases<testcase name=\"$id\" time=\"1000\"/>"
done < "${2#@}"
echo "$head$cases$tail" > junit.xml
"#;

fn pipeline() -> String {
    let job = |how: &str| {
        format!(
            r#"
[jobs.{how}]
inputs = ["suite.sh"]
retry = 1
timeout = "2s"
[jobs.{how}.suite]
discover = ["sh", "suite.sh", "list", "{how}"]
run = ["sh", "suite.sh", "{how}"]
junit = "junit.xml"
"#
        )
    };
    [job("tells"), job("silent")].concat()
}

#[test]
fn each_attempt_whose_time_is_over_says_so_and_how_long_it_took() {
    let fleet = Fleet::of(1);
    let project = SharedProject::new(&pipeline(), |_| SUITE.to_owned());
    let ended = project.told(&fleet, &["run"]);
    ended.expect_code(100);
    for (job, message) in [
        ("tells", "it still ran when 2s were over, the job's timeout"),
        (
            "silent",
            "ran longer than its limit of 2s and was killed; it wrote no JUnit report",
        ),
    ] {
        for kind in ["test-retried", "test"] {
            let lines = ended.lines(kind);
            let line = lines.iter().find(|line| line["job"] == job);
            let line = line.unwrap_or_else(|| panic!("no {kind} of {job}: {ended:#?}"));
            assert_eq!(line["failure_class"], "timeout", "{line}");
            let said = line["message"].as_str().expect("a text");
            assert!(said.contains(message), "{line}");
            let took = line["duration"].as_f64().expect("a number");
            assert!((2.0..20.0).contains(&took), "{line}");
        }
    }
    fleet.stop();
}
