//! A suite whose tests are listed and run by a worker that stays.

use std::path::Path;

use super::fleet::{Fleet, processes_mentioning};
use super::program::{Ended, wait_until};
use super::shared_project::SharedProject;

const TESTS: usize = 40;

/// What each command does is written down. The worker leaves a process behind, and knows tests that do not pass in it.
fn suite(directory: &Path) -> String {
    format!(
        r#"
directory={directory}
echo "$1" >> $directory/started
# In the end both slots have a worker, though one would do to list tests.
list() {{
  if [ "$1" = both ]; then until [ "$(grep -c worker $directory/started)" -eq 2 ]; do sleep 0.05; done; fi
  seq 1 {TESTS} | sed 's/^/test-/'
}}
# The report is whole whenever it is read.
report() {{
  failed=0
  echo '<testsuites><testsuite name="check">' > junit.xml.new
  while read -r id; do
    echo "$1 $id" >> $directory/ran
    case "$id,$1,$2" in
    test-5,worker,ends)
      echo "<testcase name=\"$id\"><failure message=\"it ended the worker\"/></testcase>" >> junit.xml.new
      echo '</testsuite></testsuites>' >> junit.xml.new
      mv junit.xml.new junit.xml
      exit 7 ;;
    test-5,worker,hangs) sleep 1000 ;;
    test-5,worker,closes) exec 1>&-; sleep 1000 ;;
    test-5,worker,babbles) echo 'test-5 is running' ;;
    test-5,worker,fails)
      failed=1
      echo "<testcase name=\"$id\" time=\"0.01\"><failure message=\"it failed\"/></testcase>" >> junit.xml.new ;;
    *) echo "<testcase name=\"$id\" time=\"0.01\"/>" >> junit.xml.new ;;
    esac
  done < .regatta/tests
  echo '</testsuite></testsuites>' >> junit.xml.new
  mv junit.xml.new junit.xml
}}
case "$1" in
list) list ;;
run) report run "$2"; exit $failed ;;
worker)
  more= served=
  # In one piece with each answer.
  if [ "$2" = talks ]; then more=$(printf '{{"exitCode":0}}\n.'); more=${{more%.}}; fi
  sh -c 'sleep 1000; :' $directory > /dev/null 2>&1 &
  if [ "$2" = greets ]; then printf 'ready\033[2J\n'; fi
  while read -r request; do
    echo "log of $2" >&2
    id=${{request##*'"requestId":'}}; id=${{id%%[!0-9]*}}
    # Another answer to the request before, and only then that to this one.
    if [ "$2" = late ] && [ "$id" -gt 1 ]; then
      printf '{{"exitCode":3,"requestId":%d}}\n' $((id - 1))
      case "$request" in *'"list"'*) ;; *) report worker; printf '{{"requestId":%d}}\n' "$id"; continue ;; esac
    fi
    # Once, and not before it has done something for others.
    if [ "$2" = crashes ] && [ -n "$served" ] && mkdir $directory/crashed 2> /dev/null; then kill -9 $$; fi
    case "$request" in
    *'"list"'*) printf '{{"exitCode":0,"output":"%s"}}\n%s' "$(list "$2" | sed 's/$/\\n/' | tr -d '\n')" "$more" ;;
    *) report worker "$2"; printf '{{"exitCode":%d}}\n%s' $failed "$more"; served=1 ;;
    esac
    # What the next request finds.
    case "$2" in
    leaves) exit 0 ;;
    spoils) rm -rf .regatta; ln -s /nowhere .regatta ;;
    floods) yes >&2 & yes >&2 & yes >&2 & ;;
    esac
  done ;;
esac
"#,
        directory = directory.display()
    )
}

fn pipeline(how: &str) -> String {
    // Another job may want the other slot.
    let other = match how {
        "plain" => "[jobs.other]\nrun = 'true'\n",
        _ => "",
    };
    // All of a batch has the time of all its tests.
    let filters = if how == "hangs" { "test-5" } else { "" };
    let quarantine = match how {
        "quarantine" => {
            "[[jobs.check.suite.quarantine]]\ntest = 'test-5'\nowner = 'jane@example.org'\nexpires = 2999-12-31"
        }
        _ => "",
    };
    format!(
        r#"
{other}[jobs.check]
inputs = ["suite.sh"]
retry = 1
timeout = "2s"
[jobs.check.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run", "{how}"]
worker = ["sh", "suite.sh", "worker", "{how}"]
junit = "junit.xml"
filters = ["{filters}"]
{quarantine}
"#
    )
}

/// What ran, and what was written down of it.
struct Ran {
    /// How the last command ended.
    ended: Ended,
    /// What the coordinator has counted.
    metrics: String,
    /// How each command was started: `list`, `run`, `worker`.
    started: Vec<String>,
    /// Who ran which test.
    ran: Vec<String>,
}

impl Ran {
    fn started(&self, what: &str) -> usize {
        self.started.iter().filter(|it| *it == what).count()
    }

    fn counts(&self, part: &str) -> u64 {
        self.ended.finished()["counts"][part].as_u64().unwrap_or(0)
    }

    fn counted(&self, metric: &str) -> u64 {
        let mut lines = self.metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a number"))
    }

    /// Who ran a test, each time.
    fn runners_of(&self, test: &str) -> Vec<&str> {
        let ran = self.ran.iter().filter_map(|line| line.split_once(' '));
        let ran = ran.filter(|(_, it)| *it == test);
        ran.map(|(runner, _)| runner).collect()
    }
}

fn run(how: &str) -> Ran {
    run_all(how, &[&["run"]])
}

/// Runs commands of which all but the last are good.
fn run_all(how: &str, commands: &[&[&str]]) -> Ran {
    let fleet = Fleet::of(1);
    let project = SharedProject::new(&pipeline(how), suite);
    let ended = commands.iter().map(|command| project.told(&fleet, command));
    let mut before: Vec<_> = ended.collect();
    let ended = before.pop().expect("a command");
    for ended in before {
        ended.expect_code(0);
    }
    let (_, metrics) = fleet.page("/metrics");
    // A worker that nobody asks any more is ended after a while, with all that it has started.
    let mention = project.shared().display().to_string();
    wait_until("no process is left of it", || {
        processes_mentioning(&mention).is_empty()
    });
    fleet.stop();
    Ran {
        started: project.lines("started"),
        ran: project.lines("ran"),
        ended,
        metrics,
    }
}

#[test]
fn a_worker_is_started_once_for_each_slot_and_runs_all_batches() {
    for how in ["plain", "both"] {
        let ran = run(how);
        ran.ended.expect_code(0);
        assert_eq!(ran.counts("passed"), TESTS as u64, "{:#?}", ran.ended);
        let workers = ran.started("worker");
        assert!(workers == 2 || (workers == 1 && how == "plain"), "{how}");
        assert_eq!(ran.started.len(), workers, "{how}: {:?}", ran.started);
        let mut tests = ran.ran.clone();
        tests.sort();
        tests.dedup();
        assert_eq!((tests.len(), ran.ran.len()), (TESTS, TESTS), "{how}");
        // What is only done to start a worker is no lease that anybody counts.
        let leases = ran.ended.finished()["leases"].as_u64();
        assert_eq!(
            Some(ran.counted("regatta_leases_granted_total")),
            leases,
            "{how}"
        );
        let is_started_ahead = ran.counted("regatta_leases_ahead_total") > 0;
        assert_eq!(is_started_ahead, how == "both", "{}", ran.metrics);
    }
}

#[test]
fn whoever_is_looked_into_runs_in_a_process_of_its_own() {
    let quarantined = run("quarantine");
    quarantined.ended.expect_code(0);
    assert_eq!(quarantined.runners_of("test-5"), ["run"]);
    assert_eq!(quarantined.runners_of("test-6"), ["worker"]);

    let repeated = run_all("plain", &[&["flake", "test-5", "--times", "3"]]);
    repeated.ended.expect_code(0);
    assert_eq!(repeated.runners_of("test-5"), ["run"; 3]);

    let audited = run_all("plain", &[&["run"], &["run", "--audit-hits", "100"]]);
    audited.ended.expect_code(0);
    assert_eq!(
        audited.counts("cached"),
        TESTS as u64,
        "{:#?}",
        audited.ended
    );
    assert_eq!(audited.runners_of("test-5"), ["worker", "run"]);
}

#[test]
fn an_answer_that_comes_too_late_is_not_that_to_the_next_request() {
    let ran = run("late");
    ran.ended.expect_code(0);
    assert_eq!(ran.counts("passed"), TESTS as u64, "{:#?}", ran.ended);
    assert!(ran.started("worker") <= 2, "{:?}", ran.started);
}

#[test]
fn a_worker_that_speaks_before_it_is_asked_is_the_suites_own_fault() {
    let ran = run("greets");
    let ended = &ran.ended;
    let jobs = ended.lines("job-finished");
    let check = jobs.iter().find(|line| line["job"] == "check");
    let check = check.unwrap_or_else(|| panic!("{ended:#?}"));
    assert_eq!(check["failure_class"], "test", "{check}");
    let message = check["message"].as_str().expect("a message");
    for words in [
        "`sh suite.sh worker greets`",
        "no response",
        "`ready\\x1b[2J`",
    ] {
        assert!(message.contains(words), "{message}");
    }
    assert!(ended.lines("infrastructure-retry").is_empty(), "{ended:#?}");
}

#[test]
fn a_failed_test_is_tried_again_in_a_process_of_its_own() {
    let ran = run("fails");
    ran.ended.expect_code(0);
    assert_eq!(ran.counts("flaky"), 1, "{:#?}", ran.ended);
    assert_eq!(ran.counts("passed"), TESTS as u64 - 1, "{:#?}", ran.ended);
    assert_eq!(ran.started("run"), 1, "{:?}", ran.started);
    let again = ran.ran.iter().filter(|line| *line == "run test-5");
    assert_eq!(again.count(), 1);
}

#[test]
fn a_worker_that_ends_costs_what_it_was_at_and_nothing_else() {
    let ran = run("ends");
    ran.ended.expect_code(0);
    // What came after it in its batch ran elsewhere.
    assert_eq!(ran.counts("flaky"), 1, "{:#?}", ran.ended);
    assert_eq!(ran.counts("passed"), TESTS as u64 - 1, "{:#?}", ran.ended);
}

#[test]
fn a_crash_of_a_worker_that_others_have_used_is_not_forgotten() {
    let ran = run_all("crashes", &[&["run"], &["run"]]);
    ran.ended.expect_code(0);
    // Nobody knows what it was: no run of those tests was good.
    let counts = (ran.counts("passed"), ran.counts("cached"));
    assert!(counts.0 > 0 && counts.1 > 0, "{:#?}", ran.ended);
    assert_eq!(counts.0 + counts.1, TESTS as u64, "{:#?}", ran.ended);
}

#[test]
fn what_others_have_made_of_a_worker_is_not_the_next_ones() {
    for how in ["leaves", "spoils", "talks", "floods"] {
        let ran = run(how);
        ran.ended.expect_code(0);
        assert_eq!(
            ran.counts("passed"),
            TESTS as u64,
            "{how}: {:#?}",
            ran.ended
        );
        let retries = ran.ended.lines("infrastructure-retry");
        assert!(retries.is_empty(), "{how}: {retries:?}");
        if how != "floods" {
            assert!(ran.started("worker") > 2, "{how}: {:?}", ran.started);
        }
    }
}

#[test]
fn a_worker_that_does_not_answer_as_it_should_is_no_pass() {
    for (how, class, message) in [
        ("babbles", "test", "is no response"),
        ("closes", "test", "closed its standard output"),
        ("hangs", "timeout", "was killed"),
    ] {
        let ran = run(how);
        let retried = ran.ended.lines("test-retried");
        let first = retried.iter().find(|line| line["test"] == "test-5");
        let first = first.unwrap_or_else(|| panic!("{how}: {:#?}", ran.ended));
        assert_eq!(first["failure_class"], class, "{how}: {first}");
        let told = first["message"].as_str().expect("a message");
        assert!(told.contains(message), "{how}: {told}");
        // What has failed of its batch passes in processes of their own.
        ran.ended.expect_code(0);
        assert_eq!(ran.counts("flaky"), retried.len() as u64, "{how}");
        let planned = if how == "hangs" { 1 } else { TESTS as u64 };
        assert_eq!(ran.counts("passed") + ran.counts("flaky"), planned);
    }
}
