//! GoogleTest, as its command line and its output are (its documentation: "Advanced Topics").

use super::harness::{Verdict, did_not_run_it};
use super::judged::Ended;
use crate::runs::plan::PlannedSuite;

/// Changes whenever tests are run or judged in another way.
pub(super) const VERSION: &str = "googletest 1";
/// What GoogleTest's own `main` says before anything else.
const BANNER: &str = "Running main() from";
/// What a test's name, or that of what it is in, begins with if it is not to be run.
const DISABLED: &str = "DISABLED_";
/// What means something else to `--gtest_filter`.
const FILTER_SYNTAX: [char; 4] = ['*', '?', ':', '-'];

/// Lists every test.
pub(super) fn list_arguments(suite: &PlannedSuite) -> Vec<String> {
    let given = match suite.discover_arguments.is_empty() {
        true => &suite.run_arguments,
        false => &suite.discover_arguments,
    };
    let list = ["--gtest_list_tests", "--gtest_color=no"].map(str::to_owned);
    given.iter().cloned().chain(list).collect()
}

/// What makes the suite's command run exactly one test, in a process of its own.
pub(super) fn run_arguments(suite: &PlannedSuite, id: &str) -> Vec<String> {
    let mut arguments = vec![
        format!("--gtest_filter={id}"),
        "--gtest_color=no".to_owned(),
    ];
    if suite.include_ignored {
        arguments.push("--gtest_also_run_disabled_tests".to_owned());
    }
    arguments
}

/// Whether a test is one of those that GoogleTest runs only if it is told to.
pub(super) fn is_disabled(id: &str) -> bool {
    id.split(['.', '/']).any(|part| part.starts_with(DISABLED))
}

/// The ids in a list: a line `Suite.` is followed by its tests, each with two spaces before it; what comes
/// after `#` is a comment.
pub(super) fn parse_listing(text: &str) -> Result<Vec<String>, String> {
    let mut suite = None;
    let mut ids = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let name = line.split_once("  # ").map_or(line, |(name, _)| name);
        match (name.strip_prefix("  "), suite) {
            (Some(test), Some(suite)) => ids.push(format!("{suite}{}", test.trim_end())),
            (None, _) if name.ends_with('.') && !name.contains(' ') => suite = Some(name),
            (None, None) if line.starts_with(BANNER) => {}
            (_, _) => {
                return Err(format!(
                    "`{line}` is no line of a list that GoogleTest prints"
                ));
            }
        }
    }
    match ids.iter().find(|id| id.contains(FILTER_SYNTAX)) {
        Some(id) => Err(format!(
            "`--gtest_filter` cannot choose a test named `{id}`"
        )),
        None => Ok(ids),
    }
}

/// Whether a summary says that exactly one test was run and passed, or that it skipped itself.
pub(super) fn ran_one(stdout: &str) -> Verdict {
    let summary = |status: &str| {
        let mut lines = stdout.lines().rev();
        lines.find(|line| line.strip_prefix(status).is_some_and(is_count))
    };
    let passed = summary("[  PASSED  ] ");
    match passed {
        Some("[  PASSED  ] 1 test.") => Ok(Ended::Passed),
        Some("[  PASSED  ] 0 tests.")
            if summary("[  SKIPPED ] ") == Some("[  SKIPPED ] 1 test, listed below:") =>
        {
            Ok(Ended::Skipped(reason_of_skip(stdout)))
        }
        line => Err(did_not_run_it(line)),
    }
}

/// `1 test.`, `2 tests, listed below:`
fn is_count(text: &str) -> bool {
    let number = text.split(' ').next().unwrap_or_default();
    number.parse::<u64>().is_ok() && text.contains(" test")
}

/// What a test said when it skipped itself: between the line that says where, and the next of GoogleTest's own.
fn reason_of_skip(stdout: &str) -> String {
    let lines = stdout.lines();
    let mut after = lines
        .skip_while(|line| !line.ends_with(": Skipped"))
        .skip(1);
    let reason: Vec<_> = after
        .by_ref()
        .take_while(|line| !line.starts_with('['))
        .collect();
    reason.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let text = "Running main() from ./googletest/src/gtest_main.cc\nSum.\n  Small\n  DISABLED_Large\n\
                    Typed/0.  # TypeParam = int\n  Works\nAll/Each.\n  Holds/0  # GetParam() = \"a  # b\"\n";
        let ids = parse_listing(text).expect("is a list");
        let wanted = [
            "Sum.Small",
            "Sum.DISABLED_Large",
            "Typed/0.Works",
            "All/Each.Holds/0",
        ];
        assert_eq!(ids, wanted);
        let disabled: Vec<_> = ids.iter().filter(|id| is_disabled(id)).collect();
        assert_eq!(disabled, ["Sum.DISABLED_Large"]);
        assert!(is_disabled("All/DISABLED_Each.Holds/0") && !is_disabled("A.NOT_DISABLED_B"));
        assert_eq!(parse_listing(""), Ok(Vec::new()));
        for text in ["Hello, world!\n", "  Lost\n", "A.\n  B*\n", "A.\nHello\n"] {
            assert!(parse_listing(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_runner_that_ran_nothing_is_caught() {
        let passed =
            "[==========] 1 test from 1 test suite ran. (0 ms total)\n[  PASSED  ] 1 test.\n";
        let nothing =
            "[==========] 0 tests from 0 test suites ran. (0 ms total)\n[  PASSED  ] 0 tests.\n";
        assert_eq!(ran_one(passed), Ok(Ended::Passed));
        let with_note = format!("{passed}\n  YOU HAVE 1 DISABLED TEST\n\n");
        assert_eq!(ran_one(&with_note), Ok(Ended::Passed));
        assert!(ran_one("").is_err());
        assert!(ran_one(nothing).is_err());
        // What a test prints itself comes before what GoogleTest says of it.
        assert!(ran_one(&format!("{passed}{nothing}")).is_err());
        assert!(ran_one("[  PASSED  ] 2 tests.\n").is_err());
    }

    #[test]
    fn a_test_that_skips_itself_says_why() {
        let text = "[ RUN      ] A.B\na.cc:10: Skipped\nnot on\nthis system\n\n[  SKIPPED ] A.B (0 ms)\n\
                    [==========] 1 test from 1 test suite ran. (0 ms total)\n[  PASSED  ] 0 tests.\n\
                    [  SKIPPED ] 1 test, listed below:\n[  SKIPPED ] A.B\n";
        let why = "not on\nthis system".to_owned();
        assert_eq!(ran_one(text), Ok(Ended::Skipped(why)));
    }
}
