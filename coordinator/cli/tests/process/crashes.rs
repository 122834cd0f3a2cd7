//! A coordinator that is killed again and again, at any instant.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::fleet::Fleet;
use super::program::{Ended, Running, wait_until, write};

const TESTS: usize = 2000;
const KILLS: u64 = 50;
/// How long the coordinator lives after it has begun to listen, at most.
const LONGEST_LIFE: Duration = Duration::from_millis(1000);
/// The test ends in this time, or something has come to a standstill.
const LIMIT: Duration = Duration::from_secs(600);

const PIPELINE: &str = r#"
[jobs.many]
inputs = ["suite.sh"]
retry = 1
[jobs.many.suite]
adapter = "libtest"
run = ["sh", "suite.sh"]
"#;

/// Two thousand tests, of which one fails however often it is tried, and one lasts until all the kills are over.
const SUITE: &str = r#"
until_all_is_over() { until [ -e "$ALL_IS_OVER" ]; do sleep 0.05; done; }
for last; do :; done
case "$*" in
*--list*--ignored*|*--ignored*--list*) exit ;;
*--list*) seq 1 2000 | sed 's/.*/test-&: test/'; exit ;;
esac
case "$last" in
test-7) verdict=FAILED; passed=0; failed=1; code=101 ;;
*) verdict=ok; passed=1; failed=0; code=0 ;;
esac
sleep 0.1
case "$last" in test-2000) until_all_is_over ;; esac
echo; echo "running 1 test"; echo
echo "test result: $verdict. $passed passed; $failed failed; 0 ignored"
exit $code
"#;

/// A sequence without a pattern that matters, the same for a seed (Lehmer's generator of Park and Miller).
struct Lives(u64);

impl Iterator for Lives {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0 = self.0 * 48_271 % 0x7fff_ffff;
        let longest = u64::try_from(LONGEST_LIFE.as_micros()).expect("is short");
        Some(Duration::from_micros(self.0 % longest))
    }
}

#[test]
fn fifty_times_killed_a_coordinator_loses_nothing_and_counts_nothing_twice() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut fleet = Fleet::of(2);
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    let project = tempfile::tempdir().expect("a directory");
    // A job has a temporary directory of its own.
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let all_is_over = place.path().join("all-is-over");
    let suite = format!("ALL_IS_OVER={}\n{SUITE}", all_is_over.display());
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("suite.sh", &suite)],
    );
    let mut run = fleet.command();
    // What the run itself has left in the cache is looked into by nobody: that would be one more execution for the history.
    run.args(["--message-format", "json", "run", "--junit", "report.xml"])
        .args(["--audit-hits", "100"])
        .current_dir(project.path());
    let mut begun = Running::begin(&mut run);
    begun.expect_words(r#""type":"run-submitted""#);
    let started = Instant::now();
    let lives = Lives(seed).take(usize::try_from(KILLS).expect("few"));
    let mut said = 0;
    for life in lives {
        // The instant is the test's input; nothing is waited for.
        std::thread::sleep(life);
        fleet.kill_coordinator();
        said += usize::from(has_taken_up(&fleet));
        fleet.start_coordinator(&address);
        assert!(started.elapsed() < LIMIT, "it takes too long");
    }
    // It was going on whenever the coordinator was killed: whoever lived for long enough has taken it up, and the last
    // one does.
    wait_until("the last one has taken it up", || has_taken_up(&fleet));
    std::fs::write(&all_is_over, "").expect("can be written");
    let ended = begun.end();
    ended.expect_code(100);
    let resumed = ended.lines("run-resumed").len();
    // It is killed after it has made that durable, or before it has said so.
    let kills = usize::try_from(KILLS).expect("few");
    let said = said + 1;
    assert!((said..=kills).contains(&resumed), "{said} {resumed}");
    // It does not wait for long: most of those that were killed had done so.
    assert!(said > kills / 2, "{said} of {kills}");
    let mut told = BTreeMap::new();
    for line in ended.lines("test") {
        *told.entry(line["test"].to_string()).or_insert(0) += 1;
    }
    assert_eq!(told.len(), TESTS);
    assert!(told.values().all(|count| *count == 1), "{told:?}");
    let finished = ended.finished();
    let counts = &finished["counts"];
    assert_eq!(finished["verdict"], "NOT_RELEASABLE", "{finished}");
    assert_eq!(counts["planned"], TESTS, "{counts}");
    assert_eq!(counts["failed"], 1, "{counts}");
    // A pass that was stored and not told yet is found in the cache.
    let passed = ["passed", "cached"].map(|part| counts[part].as_u64());
    let passed: u64 = passed.into_iter().flatten().sum();
    assert_eq!(passed, TESTS as u64 - 1, "{counts}");
    let report = std::fs::read_to_string(project.path().join("report.xml")).expect("JUnit");
    assert_eq!(report.matches("<testcase ").count(), TESTS);
    check_history(&fleet);
    fleet.stop();
}

/// Whether the coordinator has said that it has taken the run up, which it does once that is durable.
fn has_taken_up(fleet: &Fleet) -> bool {
    let log = fleet.log_of("coordinator");
    log.contains("a run of an earlier process goes on")
}

/// The ledger has learnt from each test once, and from the one that failed that it has.
fn check_history(fleet: &Fleet) {
    let mut history = fleet.command();
    let history = Ended::of(history.args(["history", "--suite", "many", "--format", "csv"]));
    history.expect_code(0);
    let mut tests = 0;
    for line in history.stdout.lines().skip(1) {
        let columns: Vec<&str> = line.split(',').collect();
        let [_, test, _, runs, failures, ..] = columns[..] else {
            panic!("{line}");
        };
        let has_failed = if test == "test-7" { "1" } else { "0" };
        assert_eq!((runs, failures), ("1", has_failed), "{line}");
        tests += 1;
    }
    assert_eq!(tests, TESTS, "{history:#?}");
}
