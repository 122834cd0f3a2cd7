//! Go's test programs, as `go test -c` makes them (documentation of the commands `go test`, "Testing flags",
//! and of the package `testing`).

use regatta_model::FailureClass;

use super::harness::{Verdict, did_not_run_it};
use super::judged::Ended;
use crate::runs::plan::PlannedSuite;

/// Changes whenever tests are run or judged in another way.
pub(super) const VERSION: &str = "go 1";
/// How much of the end of an output is read, in bytes: a test's own line comes before those of its subtests,
/// of which it may have very many.
pub(super) const SUMMARY_BYTES: u64 = 16 << 20;
/// What the name of a function that is run begins with.
const TESTS: [&str; 3] = ["Test", "Example", "Fuzz"];
/// What the name of one begins with that is only measured.
const BENCHMARK: &str = "Benchmark";

/// What runs the tests, of which it may speak itself.
const MAIN: &str = "TestMain";

/// Lists every test, example, fuzz target and benchmark.
pub(super) fn list_arguments(suite: &PlannedSuite) -> Vec<String> {
    let given = match suite.discover_arguments.is_empty() {
        true => &suite.run_arguments,
        false => &suite.discover_arguments,
    };
    let list = ["-test.list=.".to_owned()];
    given.iter().cloned().chain(list).collect()
}

/// What makes the suite's command run exactly one test, in a process of its own. As with `go test`, a test
/// may not end its process as if all were well.
pub(super) fn run_arguments(id: &str) -> Vec<String> {
    // Names are Go's identifiers, in which no character means anything to a regular expression.
    let run = format!("-test.run=^{id}$");
    ["-test.v=true", "-test.paniconexit0", &run]
        .map(str::to_owned)
        .into()
}

/// The ids in a list, which has one name a line. Benchmarks are left out, and so is what a `TestMain` prints.
pub(super) fn parse_listing(text: &str) -> Result<Vec<String>, String> {
    let mut ids = Vec::new();
    let mut foreign = None;
    let mut benchmarks = 0;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if TESTS.iter().any(|kind| is_name(line, kind)) {
            ids.push(line.to_owned());
        } else if is_name(line, BENCHMARK) {
            benchmarks += 1;
        } else if ends_in_name(line) {
            return Err(format!(
                "`{line}` may hide a test; let TestMain end each line that it prints, or print to standard error"
            ));
        } else {
            foreign = Some(line);
        }
    }
    match foreign {
        Some(line) if ids.is_empty() && benchmarks == 0 => Err(format!(
            "`{line}` is no line of a list that a Go test program prints"
        )),
        Some(_) | None => Ok(ids),
    }
}

/// Whether a text is the name of a function of this kind: what follows begins with no lower-case letter.
fn is_name(text: &str, kind: &str) -> bool {
    text.strip_prefix(kind).is_some_and(|rest| {
        let is_part = |character: char| character == '_' || character.is_alphanumeric();
        !rest.starts_with(char::is_lowercase) && rest.chars().all(is_part)
    })
}

/// Whether a name follows on what was printed before it in the same line.
fn ends_in_name(line: &str) -> bool {
    let kinds = TESTS.into_iter().chain([BENCHMARK]);
    kinds.into_iter().any(|kind| {
        let mut places = line.match_indices(kind);
        places.any(|(place, _)| is_name(&line[place..], kind) && &line[place..] != MAIN)
    })
}

/// Whether an output says that this test passed, or that it skipped itself.
///
/// The last line about it counts: what a test prints itself comes before what is said of it. `PASS` after
/// that says that the program came to its end.
pub(super) fn ran_one(id: &str, stdout: &str) -> Verdict {
    let said = |status: &str| stdout.rfind(&format!("--- {status}: {id} ("));
    let (passed, skipped, failed) = (said("PASS"), said("SKIP"), said("FAIL"));
    let last = passed.max(skipped).max(failed);
    let (Some(last), false) = (last, failed == last) else {
        return Err(did_not_pass(id, stdout));
    };
    let (before, after) = stdout.split_at(last);
    if !after.lines().skip(1).any(|line| line == "PASS") {
        return Err(did_not_pass(id, stdout));
    }
    match skipped == Some(last) {
        true => Ok(Ended::Skipped(reason_of_skip(before))),
        false => Ok(Ended::Passed),
    }
}

/// Why exit code 0 is no pass: the process ended in the middle of the test, or ran something else.
fn did_not_pass(id: &str, stdout: &str) -> (FailureClass, String) {
    let began = format!("=== RUN   {id}");
    if stdout.lines().any(|line| line == began) {
        let text = "the process exited with code 0 before it said that the test passed";
        return (FailureClass::Test, text.to_owned());
    }
    let mut lines = stdout.lines().rev();
    did_not_run_it(lines.find(|line| !line.trim().is_empty()))
}

/// What a test said last before it was skipped: `    file.go:12: why`, and deeper lines that go on with it.
fn reason_of_skip(before: &str) -> String {
    let mut reason = Vec::new();
    for line in before.lines().rev() {
        let Some(text) = line.strip_prefix("    ") else {
            break;
        };
        if let Some(rest) = text.strip_prefix("    ") {
            reason.push(rest);
            continue;
        }
        reason.push(without_place(text).unwrap_or(text));
        reason.reverse();
        return reason.join("\n").trim().to_owned();
    }
    String::new()
}

/// The text of a message behind its file and line.
fn without_place(text: &str) -> Option<&str> {
    let (place, message) = text.split_once(": ")?;
    let (_, line) = place.rsplit_once(':')?;
    line.parse::<u64>().ok().map(|_| message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_read() {
        let text =
            "TestSum\nTest\nTest_x\nTestÜber\nFuzzParse\nExample\nExampleSum_small\nBenchmarkSum\n";
        let wanted = [
            "TestSum",
            "Test",
            "Test_x",
            "TestÜber",
            "FuzzParse",
            "Example",
            "ExampleSum_small",
        ];
        assert_eq!(parse_listing(text).expect("is a list"), wanted);
        assert_eq!(parse_listing(""), Ok(Vec::new()));
        assert_eq!(parse_listing("BenchmarkSum\n"), Ok(Vec::new()));
        let with_main = format!("starting the database\nin TestMain\n{text}");
        assert_eq!(parse_listing(&with_main).expect("is a list"), wanted);
        for text in [
            "Hello, world!\n",
            "Testing\n",
            "TestA\nsetup ... TestB\n",
            "setupFuzzC\n",
        ] {
            assert!(parse_listing(text).is_err(), "{text}");
        }
    }

    #[track_caller]
    fn check(stdout: &str, expected: Result<Ended, &str>) {
        match (ran_one("TestA", stdout), expected) {
            (Ok(ended), Ok(expected)) => assert_eq!(ended, expected),
            (Err((_, said)), Err(expected)) => assert!(said.contains(expected), "{said}"),
            (verdict, expected) => panic!("{verdict:?} is not {expected:?}"),
        }
    }

    #[test]
    fn a_runner_that_ran_nothing_is_caught() {
        let run = "=== RUN   TestA\n";
        let passed = "--- PASS: TestA (0.00s)\n    --- PASS: TestA/b (0.00s)\nPASS\n";
        check(&format!("{run}{passed}"), Ok(Ended::Passed));
        check(&format!("{run}no newline{passed}done\n"), Ok(Ended::Passed));
        check("PASS\n", Err("exactly this test: PASS"));
        check("", Err("did not say"));
        check(run, Err("before it said"));
        check("--- PASS: TestAB (0.00s)\nPASS\n", Err("exactly"));
        check("--- PASS: TestA (0.00s)\n", Err("exactly"));
        // What a test prints itself comes before what is said of it.
        let late = "--- FAIL: TestA (0.00s)\nPASS\n";
        check(&format!("{passed}{late}"), Err("exactly"));
    }

    #[test]
    fn a_test_that_skips_itself_says_why() {
        let skipped =
            |said: &str| format!("=== RUN   TestA\n{said}--- SKIP: TestA (0.00s)\nPASS\n");
        let why = |text: &str| Ok(Ended::Skipped(text.to_owned()));
        let log = "    a_test.go:3: earlier\n    a_test.go:4: not on: this\n        system\n";
        check(&skipped(log), why("not on: this\nsystem"));
        check(&skipped(""), why(""));
        check(&skipped("printed\n"), why(""));
    }

    proptest! {
        #[test]
        fn whatever_is_printed_before_changes_nothing(noise in "[ -~\n]{0,80}") {
            let stdout = format!("{noise}--- PASS: TestA (0.00s)\nPASS\n");
            prop_assert_eq!(ran_one("TestA", &stdout), Ok(Ended::Passed));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*(\n\\PC*)*") {
            let ids = parse_listing(&text).unwrap_or_default();
            prop_assert!(ids.iter().all(|id| text.lines().any(|line| line == id)));
            let is_said = |_: &Ended| text.contains("TestA (");
            prop_assert!(ran_one("TestA", &text).as_ref().map_or(true, is_said));
        }
    }
}
