//! Rust's libtest, as its command line and its output are.

use super::harness::{Verdict, did_not_run_it};
use super::judged::Ended;
use crate::runs::plan::PlannedSuite;

/// Changes whenever tests are run or judged in another way.
pub(super) const VERSION: &str = "libtest 1";

/// Lists every test.
pub(super) fn list_arguments(suite: &PlannedSuite) -> Vec<String> {
    let mut arguments = suite.discover_arguments.clone();
    if arguments.is_empty() {
        arguments.clone_from(&suite.run_arguments);
    }
    add_missing(&mut arguments, &["--list"]);
    if !arguments
        .iter()
        .any(|argument| argument.starts_with("--format"))
    {
        arguments.extend(["--format".to_owned(), "terse".to_owned()]);
    }
    arguments
}

/// Lists the tests marked as ignored.
pub(super) fn list_ignored_arguments(suite: &PlannedSuite) -> Vec<String> {
    let mut arguments = list_arguments(suite);
    add_missing(&mut arguments, &["--ignored"]);
    arguments
}

/// What makes the suite's command run exactly one test, in a process of its own.
pub(super) fn run_arguments(suite: &PlannedSuite, id: &str) -> Vec<String> {
    let mut wanted = vec!["--exact", "--nocapture"];
    if suite.include_ignored {
        wanted.push("--include-ignored");
    }
    // libtest refuses an option that is given twice.
    wanted.retain(|option| !suite.run_arguments.iter().any(|given| given == option));
    wanted.into_iter().chain([id]).map(str::to_owned).collect()
}

fn add_missing(arguments: &mut Vec<String>, options: &[&str]) {
    for option in options {
        if !arguments.iter().any(|given| given == option) {
            arguments.push((*option).to_owned());
        }
    }
}

/// The ids in a terse list: a line is `id: test`. Benchmarks are left out.
pub(super) fn parse_listing(text: &str) -> Result<Vec<String>, String> {
    let mut ids = Vec::new();
    for line in text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
    {
        if let Some(id) = line.strip_suffix(": test") {
            ids.push(id.to_owned());
        } else if !line.ends_with(": benchmark") && !is_total(line) {
            return Err(format!("`{line}` is no line of a list that libtest prints"));
        }
    }
    Ok(ids)
}

/// The line that older versions close a list with: `3 tests, 0 benchmarks`.
fn is_total(line: &str) -> bool {
    let counts = |part: &str, noun: &str| {
        part.strip_suffix(noun)
            .or_else(|| part.strip_suffix(noun.trim_end_matches('s')))
            .is_some_and(|number| number.trim_end().parse::<u64>().is_ok())
    };
    line.split_once(", ")
        .is_some_and(|(tests, rest)| counts(tests, "tests") && counts(rest, "benchmarks"))
}

/// Whether a summary says that exactly one test was run and passed.
pub(super) fn ran_one(stdout: &str) -> Verdict {
    let summary = stdout
        .lines()
        .rev()
        .find(|line| line.contains("test result: "));
    match summary {
        Some(line) if line.contains("test result: ok. 1 passed; 0 failed;") => Ok(Ended::Passed),
        line => Err(did_not_run_it(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let text = "a::b: test\nwith space - should panic: test\nfast: benchmark\n\n2 tests, 1 benchmark\n";
        let ids = parse_listing(text).expect("is a list");
        assert_eq!(ids, ["a::b", "with space - should panic"]);
        assert_eq!(parse_listing(""), Ok(Vec::new()));
        assert!(parse_listing("Hello, world!\n").is_err());
    }

    #[test]
    fn a_runner_that_ran_nothing_is_caught() {
        let summary =
            |counts: &str| format!("\nrunning\n\ntest result: ok. {counts}; 0 ignored;\n");
        assert_eq!(ran_one(&summary("1 passed; 0 failed")), Ok(Ended::Passed));
        assert!(ran_one(&summary("0 passed; 0 failed")).is_err());
        assert!(ran_one(&summary("2 passed; 0 failed")).is_err());
        assert!(ran_one("").is_err());
        // What a test prints itself comes before what libtest says of it.
        let faked = format!(
            "test result: ok. 1 passed; 0 failed;{}",
            summary("0 passed; 0 failed")
        );
        assert!(ran_one(&faked).is_err());
    }
}
