//! CTest, as its command line and its output are (its manual, ctest(1), and that of the properties of tests).
//!
//! Each test is a run of ctest, which brings the tests that set up and clean up its fixtures by itself. What a test
//! `DEPENDS` on ctest does not bring, only runs before it: such a test is asked for with all that it depends on, and finds
//! what they have left. All of these are tests of their own as well, as they are to ctest, which counts them; what cleans
//! up is asked for with what sets up, or else nothing of it would be there (see [`companies`]).
//!
//! What fails beside a test fails for itself alone: to ctest an order is no condition, and only what sets up its fixtures
//! keeps a test from running, which then counts as failed. But what has to clean up after a test, and cannot, may do so
//! where it is a test of its own: that it failed here fails the suite.
//!
//! To ctest, each test has its own time: `TIMEOUT`, or what all have that have none. The job's timeout is what all have
//! (`--timeout`, unless the suite's command says it), and their process has it as often as it runs tests.
//!
//! `RUN_SERIAL`, `RESOURCE_LOCK` and `RESOURCE_GROUPS` keep tests apart that share a machine's directory, ports or
//! devices. No two tests share any of these here: each run of ctest has a view of the files of its own, and a container
//! that does nothing else meanwhile. Within a run, ctest has one test after the other.

mod companies;
mod listing;

use std::time::Duration;

use regatta_model::FailureClass;

use super::company::Company;
use super::harness::{Verdict, did_not_run_it};
use super::judged::Ended;
use crate::runs::plan::PlannedSuite;
pub(super) use companies::companies_parser;
pub(super) use listing::{parse_disabled, parse_listing};

/// Changes whenever tests are run or judged in another way.
pub(super) const VERSION: &str = "ctest 4";
/// How much of the end of an output is read, in bytes: what cleans up may print much after the test.
pub(super) const SUMMARY_BYTES: u64 = 1 << 20;
/// How ctest is told the time of tests that have none of their own.
const TIMEOUT: &str = "--timeout";
/// What it says of how long a test may take, before it begins.
const TIME: &str = "Test timeout computed to be:";
/// What it says of tests that have not failed.
const GOOD: [&str; 3] = ["Passed", "***Skipped", "***Not Run (Disabled)"];
/// What it says of a test without what it needs: a program, or a fixture.
const NOT_RUN: &str = "***Not Run";
/// What ctest exits with if tests have failed, and nothing worse has happened.
const TESTS_FAILED: i32 = 8;
/// How long the pattern may be that names a test and what it depends on, in bytes: CMake compiles patterns of some 64
/// KiB, and Linux hands over arguments of 128.
const MOST_PATTERN_BYTES: usize = 32 << 10;
/// How long all names may be that a suite's tests depend on, each counted for each test, in bytes.
const MOST_DEPENDENCIES_BYTES: usize = 64 << 20;
/// What means something else to CMake's regular expressions.
const REGEX_SYNTAX: [char; 11] = ['^', '$', '.', '[', '(', ')', '|', '?', '+', '*', '\\'];

/// Lists every test.
pub(super) fn list_arguments(suite: &PlannedSuite) -> Vec<String> {
    let given = match suite.discover_arguments.is_empty() {
        true => &suite.run_arguments,
        false => &suite.discover_arguments,
    };
    let list = ["--show-only=json-v1".to_owned()];
    given.iter().cloned().chain(list).collect()
}

/// What makes the suite's command run exactly one test, what it depends on, and what its fixtures need, each of which
/// may take so long.
pub(super) fn run_arguments(
    suite: &PlannedSuite,
    (id, company): (&str, &Company),
    limit: Duration,
) -> Vec<String> {
    let mut arguments = vec!["-V".to_owned(), "--no-tests=error".to_owned()];
    let mut given = suite.run_arguments.iter();
    if company.others() > 0 && !given.any(|it| it.starts_with(TIMEOUT)) {
        arguments.extend([TIMEOUT.to_owned(), limit.as_secs_f64().to_string()]);
    }
    arguments.extend(["-R".to_owned(), pattern(id, &company.companions)]);
    arguments
}

/// What matches these names and no other.
fn pattern(id: &str, companions: &[String]) -> String {
    match companions {
        [] => format!("^{}$", escaped(id)),
        more => {
            let names = std::iter::once(id).chain(more.iter().map(String::as_str));
            let names: Vec<_> = names.map(escaped).collect();
            format!("^({})$", names.join("|"))
        }
    }
}

/// A regular expression of CMake's for this text.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if REGEX_SYNTAX.contains(&character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

/// What ctest says of one of the tests that it ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Line<'a> {
    /// What ctest counts it as.
    number: &'a str,
    name: &'a str,
    /// `Passed`, `***Failed`, `***Not Run` and the like, without the time.
    status: &'a str,
}

impl<'a> Line<'a> {
    fn is_good(&self) -> bool {
        GOOD.contains(&self.status)
    }

    /// The status without what marks it.
    fn said(&self) -> &'a str {
        self.status.trim_start_matches('*')
    }
}

/// `1/3 Test #12: name ......   Passed    0.02 sec`. What tests print has their number before it, so that no
/// test can write such a line.
fn line(text: &str) -> Option<Line<'_>> {
    let (counts, rest) = text.trim_start().split_once(" Test ")?;
    let (one, all) = counts.split_once('/')?;
    let is_number = |text: &str| !text.is_empty() && text.chars().all(|it| it.is_ascii_digit());
    if !is_number(one) || !is_number(all) {
        return None;
    }
    let (number, rest) = rest.trim_start().strip_prefix('#')?.split_once(": ")?;
    let (rest, seconds) = rest.strip_suffix(" sec")?.rsplit_once(' ')?;
    seconds.parse::<f64>().ok()?;
    // A name may have dots and stars itself: the last of them are ctest's.
    let passed = rest.trim_end().strip_suffix("   Passed");
    let (name, status) = match passed.filter(|name| name.ends_with('.')) {
        Some(name) => rest.split_at(name.len()),
        None => rest.split_at(rest.rfind("***")?),
    };
    Some(Line {
        number,
        name: name.trim_end_matches('.').strip_suffix(' ')?,
        status: status.trim(),
    })
}

/// What an output of exit code 0 says of this test: that it passed, or was skipped.
pub(super) fn ran_one(id: &str, stdout: &str) -> Verdict {
    let Some(line) = line_of(id, stdout) else {
        return Err(did_not_run_it(last_line(stdout)));
    };
    match line.status {
        "Passed" => Ok(Ended::Passed),
        "***Skipped" => Ok(Ended::Skipped(last_words(line.number, stdout))),
        "***Not Run (Disabled)" => Ok(Ended::Skipped("it is disabled".to_owned())),
        status => Err(did_not_run_it(Some(status))),
    }
}

/// What ctest says of this test if it exited like this: that the test passed all the same, and only others failed; or that
/// it failed itself, or what sets up a fixture of its own. `None` if nothing more is known.
pub(super) fn beside_failed(
    (id, company): (&str, &Company),
    (exit_code, stdout): (i32, &str),
) -> Option<Verdict> {
    match line_of(id, stdout) {
        Some(own) if own.is_good() => {
            let are_others = exit_code == TESTS_FAILED && failed(stdout).next().is_some();
            are_others.then(|| ran_one(id, stdout))
        }
        Some(own) if own.status != NOT_RUN => why_failed(&own, stdout).map(Err),
        // What sets up a fixture comes before whatever requires it.
        Some(_) | None => {
            let mut failed = failed(stdout).filter(|line| !is_companion(company, line));
            let first = failed.next()?;
            match first.name == id {
                true => why_failed(&first, stdout).map(Err),
                false => Some(Err(without(&first))),
            }
        }
    }
}

/// What failed though the test passed, and is to fail the suite: what should have cleaned up after it, for people. What it
/// comes to where it is a test of its own says nothing of this: it may find less to clean up there.
pub(super) fn left_behind((id, company): (&str, &Company), stdout: &str) -> Option<String> {
    let is_good = line_of(id, stdout).is_some_and(|own| own.is_good());
    let mut failed = failed(stdout).filter(|line| !is_companion(company, line));
    let first = failed.next().filter(|_| is_good)?;
    let (name, said) = (first.name, first.said());
    Some(format!(
        "`{name}` failed where it runs with a test for a fixture: {said}"
    ))
}

/// What ctest says of the tests that failed.
fn failed(stdout: &str) -> impl Iterator<Item = Line<'_>> {
    let lines = stdout.lines().filter_map(line);
    lines.filter(|line| !line.is_good())
}

fn is_companion(company: &Company, line: &Line<'_>) -> bool {
    company.companions.iter().any(|name| name == line.name)
}

fn without(setup: &Line<'_>) -> (FailureClass, String) {
    let (name, said) = (setup.name, setup.said());
    let text = format!("`{name}`, which runs with it for a fixture: {said}");
    (FailureClass::Test, text)
}

fn why_failed(own: &Line<'_>, stdout: &str) -> Option<(FailureClass, String)> {
    match own.said() {
        "Timeout" => {
            let said = format!("{}: {TIME}", own.number);
            let mut limits = stdout.lines().filter_map(|line| line.strip_prefix(&said));
            let limit = limits.next_back().map(|limit| {
                let limit = limit.trim();
                format!(": {limit} s, by its own TIMEOUT or the job's")
            });
            let text = format!("its time was over{}", limit.unwrap_or_default());
            Some((FailureClass::Timeout, text))
        }
        // Nobody needs to be told.
        "Failed" => None,
        said => Some((FailureClass::Test, said.to_owned())),
    }
}

fn line_of<'a>(id: &str, stdout: &'a str) -> Option<Line<'a>> {
    let mut lines = stdout.lines().rev().filter_map(line);
    lines.find(|line| line.name == id)
}

fn last_line(stdout: &str) -> Option<&str> {
    stdout.lines().rev().find(|line| !line.trim().is_empty())
}

/// What a test printed last: more is not known of why it is skipped.
fn last_words(number: &str, stdout: &str) -> String {
    let prefix = format!("{number}: ");
    let mut printed = stdout.lines().filter_map(|line| line.strip_prefix(&prefix));
    // Before that, ctest speaks of the test.
    let after = printed.by_ref().skip_while(|line| !line.starts_with(TIME));
    let last = after.skip(1).filter(|line| !line.trim().is_empty()).last();
    last.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What ctest prints of the companion `first`, of what sets up and cleans up a fixture, and of `own`.
    fn lines([first, setup, own, cleanup]: [&str; 4]) -> String {
        format!(
            "1/4 Test #1: first ....{first}    0.01 sec\n\
             2/4 Test #2: setup ....{setup}    0.01 sec\n\
             3/4 Test #3: own ......{own}    0.01 sec\n\
             4/4 Test #4: cleanup ..{cleanup}    0.01 sec\n"
        )
    }

    const PASSED: &str = "   Passed";
    const FAILED: &str = "***Failed";

    fn with(companions: &[&str]) -> Company {
        Company {
            companions: companions.iter().map(|&it| it.to_owned()).collect(),
            fixtures: 2,
        }
    }

    #[test]
    fn what_fails_beside_a_test_fails_for_itself_alone() {
        let company = with(&["first"]);
        let named = ("own", &company);
        let said = |of| beside_failed(named, (TESTS_FAILED, &lines(of)));
        let passed = Some(Ok(Ended::Passed));
        assert_eq!(said([FAILED, PASSED, PASSED, PASSED]), passed);
        assert_eq!(said([PASSED, PASSED, PASSED, FAILED]), passed);
        assert_eq!(said([FAILED, PASSED, FAILED, FAILED]), None, "it shows why");
        let text = "`setup`, which runs with it for a fixture: Failed".to_owned();
        let expected = Some(Err((FailureClass::Test, text)));
        assert_eq!(said([FAILED, FAILED, NOT_RUN, PASSED]), expected);
        let text = Some(Err((FailureClass::Test, "Not Run".to_owned())));
        assert_eq!(said([FAILED, PASSED, NOT_RUN, FAILED]), text);
        let crashed = (139, &*lines([PASSED; 4]));
        assert_eq!(beside_failed(named, crashed), None);
        assert_eq!(beside_failed(named, (TESTS_FAILED, "")), None);
    }

    #[test]
    fn what_cannot_clean_up_after_a_test_is_complained_of() {
        let left = |company: &[&str], of| left_behind(("own", &with(company)), &lines(of));
        let cleanup = "`cleanup` failed where it runs with a test for a fixture: Failed".to_owned();
        let not_cleaned = [FAILED, PASSED, PASSED, FAILED];
        assert_eq!(left(&["first"], not_cleaned), Some(cleanup));
        assert_eq!(left(&["first"], [FAILED, PASSED, PASSED, PASSED]), None);
        assert_eq!(left(&["cleanup", "first"], not_cleaned), None);
        let failed = [PASSED, PASSED, FAILED, FAILED];
        assert_eq!(left(&["first"], failed), None, "the test has failed");
    }

    #[test]
    fn names_are_taken_as_they_are() {
        assert_eq!(pattern("a.b", &[]), r"^a\.b$");
        let companions = ["c|d".to_owned(), "e".to_owned()];
        assert_eq!(pattern("a.b", &companions), r"^(a\.b|c\|d|e)$");
        assert_eq!(
            escaped(r"S/T.é [x] (1+2)*?$|\"),
            r"S/T\.é \[x] \(1\+2\)\*\?\$\|\\"
        );
    }

    #[track_caller]
    fn check(text: &str, name: &str, status: &str) {
        let line = line(text).expect("it is one");
        assert_eq!((line.name, line.status), (name, status));
    }

    #[test]
    fn lines_are_read() {
        check(
            "1/1 Test #1: passes ...........   Passed    0.00 sec",
            "passes",
            "Passed",
        );
        check(
            " 2/13 Test  #2: a...b ..***Failed    0.10 sec",
            "a...b",
            "***Failed",
        );
        check(
            "1/1 Test #4: x y ...***Not Run (Disabled)   0.00 sec",
            "x y",
            "***Not Run (Disabled)",
        );
        check(
            "1/1 Test #8: ***x ...***Exception: SegFault  0.01 sec",
            "***x",
            "***Exception: SegFault",
        );
        for text in [
            "1: 1/1 Test #1: faked ...   Passed    0.00 sec",
            "    Start 1: passes",
            "1/1 Test #1: passes",
            "100% tests passed, 0 tests failed out of 1",
        ] {
            assert_eq!(line(text), None, "{text}");
        }
    }

    #[test]
    fn a_test_is_judged_by_its_own_line() {
        let output = "1/3 Test #10: setup ....   Passed    0.00 sec\n\
                      12: Test timeout computed to be: 100\n12: a\n12: no disk\n\
                      2/3 Test #12: uses .....***Skipped    0.02 sec\n\
                      3/3 Test #11: cleanup ..   Passed    0.01 sec\n100% tests passed\n";
        let skipped = Ended::Skipped("no disk".to_owned());
        assert_eq!(ran_one("uses", output), Ok(skipped));
        assert_eq!(ran_one("setup", output), Ok(Ended::Passed));
        assert!(ran_one("other", output).is_err() && ran_one("uses", "").is_err());
        assert_eq!(
            beside_failed(("uses", &Company::default()), (8, output)),
            None
        );
    }

    #[test]
    fn a_failure_is_blamed_on_what_failed() {
        let why = |status: &str| {
            let output = format!("1/1 Test #1: a ...***{status}  1.00 sec\n");
            beside_failed(("a", &Company::default()), (8, &output)).and_then(Result::err)
        };
        assert_eq!(why("Failed  "), None);
        let timed_out = (FailureClass::Timeout, "its time was over".to_owned());
        assert_eq!(why("Timeout "), Some(timed_out));
        let output =
            "12: Test timeout computed to be: 5\n1/1 Test #12: a ...***Timeout  5.01 sec\n";
        let said = beside_failed(("a", &Company::default()), (TESTS_FAILED, output));
        let text = "its time was over: 5 s, by its own TIMEOUT or the job's".to_owned();
        assert_eq!(said, Some(Err((FailureClass::Timeout, text))));
        let segfault = (FailureClass::Test, "Exception: SegFault".to_owned());
        assert_eq!(why("Exception: SegFault"), Some(segfault));
        let output =
            "1/2 Test #1: setup ...***Failed  0.01 sec\n2/2 Test #2: a ...***Not Run   0.00 sec\n";
        let failed = beside_failed(("a", &Company::default()), (8, output));
        let failed = failed.and_then(Result::err);
        let (_, text) = failed.expect("it is said");
        assert_eq!(text, "`setup`, which runs with it for a fixture: Failed");
    }

    #[test]
    fn stars_in_a_name_are_no_failure() {
        let read = line("1/1 Test #7: ***! ..   Passed    0.00 sec").expect("it is one");
        assert_eq!((read.name, read.status), ("***!", "Passed"));
    }

    proptest! {
        #[test]
        fn any_name_is_read_as_it_was_written(name in "[ -~é]{0,20}[!-~é]", width in 2usize..40) {
            let dots = ".".repeat(width);
            for (written, status) in [("   Passed  ", "Passed"), ("***Failed  ", "***Failed")] {
                let text = format!("1/1 Test #7: {name} {dots}{written}  0.00 sec");
                let read = line(&text).expect("it is one");
                prop_assert_eq!((read.name, read.status), (name.as_str(), status));
            }
        }

        #[test]
        fn an_escaped_name_has_no_syntax_left(name in "\\PC*") {
            let pattern = escaped(&name);
            let mut characters = pattern.chars();
            let mut plain = String::new();
            while let Some(character) = characters.next() {
                match character {
                    '\\' => plain.extend(characters.next()),
                    other => {
                        prop_assert!(!REGEX_SYNTAX.contains(&other));
                        plain.push(other);
                    }
                }
            }
            prop_assert_eq!(plain, name);
        }
    }
}
