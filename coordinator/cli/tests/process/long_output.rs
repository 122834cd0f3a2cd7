//! Tests that write half a gigabyte.

use super::fleet::Fleet;
use super::program::{Ended, write};

/// What each of them writes.
const WRITTEN_BYTES: u64 = 500_000_000;
/// What is kept of the end of an output that is too long.
const END_BYTES: u64 = 64 << 10;
/// The most that the coordinator, or the agent, may have resident at any time: a part of what one test writes.
const MOST_RESIDENT_BYTES: u64 = WRITTEN_BYTES / 2;

const PIPELINE: &str = r#"
[jobs.contract]
inputs = ["*.sh"]
[jobs.contract.suite]
discover = ["sh", "contract.sh", "list"]
run = ["sh", "contract.sh", "run"]
junit = "junit.xml"

[jobs.libtest]
inputs = ["*.sh"]
suite = { adapter = "libtest", run = ["sh", "libtest.sh"] }

[jobs.googletest]
inputs = ["*.sh"]
suite = { adapter = "googletest", run = ["sh", "googletest.sh"] }
"#;
/// Each program has a test that passes and one that fails, both after they have written all that.
const WRITES: &str = "yes 'a line of output' | head -c 500000000; echo; echo the end is here\n";
const CONTRACT: &str = r#"
if [ "$1" = list ]; then printf 'passes\nfails\n'; exit; fi
{
  echo '<testsuite>'
  while read -r id; do
    . ./writes.sh >&2
    inside=
    if [ "$id" = fails ]; then inside='<failure message="it said so"/>'; fi
    echo "<testcase name=\"$id\" classname=\"\" time=\"1\">$inside</testcase>"
  done < "${2#@}"
  echo '</testsuite>'
} > junit.xml
! grep -q '<failure' junit.xml
"#;
/// As the harness of Rust's standard library speaks.
const LIBTEST: &str = r#"
case "$*" in
*--ignored*--list* | *--list*--ignored*) exit;;
*--list*) printf 'passes: test\nfails: test\n'; exit;;
esac
case "$*" in *passes*) id=passes end=ok code=0;; *) id=fails end=FAILED code=101;; esac
printf '\nrunning 1 test\n'
. ./writes.sh
if [ $code = 0 ]; then counts='1 passed; 0 failed'; else counts='0 passed; 1 failed'; fi
printf 'test %s ... %s\n\ntest result: %s. %s; 0 ignored; 0 measured; 1 filtered out; finished in 1.00s\n\n' \
  $id $end $end "$counts"
exit $code
"#;
/// As GoogleTest's programs speak.
const GOOGLETEST: &str = r#"
case "$*" in *--gtest_list_tests*) printf 'Long.\n  passes\n  fails\n'; exit;; esac
case "$*" in *passes*) id=Long.passes code=0;; *) id=Long.fails code=1;; esac
echo "[==========] Running 1 test from 1 test suite."
. ./writes.sh
echo "[==========] 1 test from 1 test suite ran. (1 ms total)"
if [ $code = 0 ]; then echo "[  PASSED  ] 1 test."; else echo "[  FAILED  ] 1 test, listed below:"; echo "[  FAILED  ] $id"; fi
exit $code
"#;

#[test]
fn a_long_output_changes_no_result_and_keeps_its_end() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    let files = [
        ("regatta.toml", PIPELINE),
        ("writes.sh", WRITES),
        ("contract.sh", CONTRACT),
        ("libtest.sh", LIBTEST),
        ("googletest.sh", GOOGLETEST),
    ];
    write(project.path(), &files);
    let mut command = fleet.command();
    command.args(["--message-format", "json", "run"]);
    let ended = Ended::of(command.current_dir(project.path()));
    assert_eq!(ended.code, Some(100), "{}", ended.stderr);
    let tests = ended.lines("test");
    assert_eq!(tests.len(), 6, "{tests:#?}");
    for test in tests {
        let id = test["test"].as_str().unwrap_or_default();
        let expected = if id.ends_with("passes") {
            "passed"
        } else {
            "failed"
        };
        assert_eq!(test["status"], expected, "{test}");
        if test["job"] == "contract" {
            continue;
        }
        let digest = test["stdout_digest"].as_str().unwrap_or_default();
        let (_, size) = digest.rsplit_once('/').expect("a digest");
        let size: u64 = size.parse().expect("a size");
        assert!(size > END_BYTES && size < WRITTEN_BYTES, "{size}");
        if expected == "failed" {
            let tail = test["stdout"].as_str().unwrap_or_default();
            assert!(tail.contains("the end is here"), "{tail}");
        }
    }
    let resident = fleet.peak_memory_bytes();
    println!("at most {} MiB resident", resident >> 20);
    assert!(resident < MOST_RESIDENT_BYTES, "{} MiB", resident >> 20);
    fleet.stop();
}
