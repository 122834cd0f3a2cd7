//! CTest, as its command line and its output are (its manual, ctest(1), and that of the properties of tests).
//!
//! Each test is a run of ctest, which brings the tests that set up and clean up its fixtures by itself. Those
//! are therefore no tests of their own: alone, what they clean up would not be there. What a test `DEPENDS` on ctest
//! does not bring, only runs before it: such a test is asked for with all that it depends on, and finds what they have
//! left. They are tests of their own as well, and one of them that fails beside it, or that what sets it up fails,
//! fails for itself alone: to ctest an order is no condition, and only a fixture of its own keeps a test from running.
//!
//! To ctest, each test has its own time: `TIMEOUT`, or what all have that have none. The job's timeout is what all have
//! (`--timeout`, unless the suite's command says it), and their process has it as often as it runs tests.
//!
//! `RUN_SERIAL`, `RESOURCE_LOCK` and `RESOURCE_GROUPS` keep tests apart that share a machine's directory, ports or
//! devices. No two tests share any of these here: each run of ctest has a view of the files of its own, and a container
//! that does nothing else meanwhile. Within a run, ctest has one test after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regatta_model::FailureClass;

use super::company::Company;
use super::harness::{CompanyByTest, Verdict, did_not_run_it};
use super::judged::Ended;
use crate::runs::plan::PlannedSuite;

/// Changes whenever tests are run or judged in another way.
pub(super) const VERSION: &str = "ctest 3";
/// How much of the end of an output is read, in bytes: what cleans up may print much after the test.
pub(super) const SUMMARY_BYTES: u64 = 1 << 20;
/// How ctest is told the time of tests that have none of their own.
const TIMEOUT: &str = "--timeout";
/// What ctest exits with if tests have failed, and nothing worse has happened.
const TESTS_FAILED: i32 = 8;
/// How long the pattern may be that names a test and what it depends on, in bytes: CMake compiles patterns of some 64
/// KiB, and Linux hands over arguments of 128.
const MOST_PATTERN_BYTES: usize = 32 << 10;
/// How long all names may be that a suite's tests depend on, each counted for each test, in bytes.
const MOST_DEPENDENCIES_BYTES: usize = 64 << 20;
/// What means something else to CMake's regular expressions.
const REGEX_SYNTAX: [char; 11] = ['^', '$', '.', '[', '(', ')', '|', '?', '+', '*', '\\'];

/// What `--show-only=json-v1` prints, as far as it is of use.
#[derive(serde::Deserialize)]
struct Listing {
    kind: String,
    tests: Vec<ListedTest>,
}

#[derive(serde::Deserialize)]
struct ListedTest {
    name: String,
    #[serde(default)]
    properties: Vec<Property>,
}

#[derive(serde::Deserialize)]
struct Property {
    name: String,
    #[serde(default)]
    value: serde_json::Value,
}

impl ListedTest {
    fn value(&self, property: &str) -> Option<&serde_json::Value> {
        let mut properties = self.properties.iter();
        let found = properties.find(|it| it.name == property)?;
        Some(&found.value)
    }

    fn is_disabled(&self) -> bool {
        self.value("DISABLED") == Some(&serde_json::Value::Bool(true))
    }

    /// What a property names: fixtures, or tests.
    fn names(&self, property: &str) -> impl Iterator<Item = &str> {
        let names = self.value(property).and_then(serde_json::Value::as_array);
        names
            .into_iter()
            .flatten()
            .filter_map(serde_json::Value::as_str)
    }

    /// The fixtures that it sets up or cleans up.
    fn served(&self) -> impl Iterator<Item = &str> {
        let sets_up = self.names("FIXTURES_SETUP");
        sets_up.chain(self.names("FIXTURES_CLEANUP"))
    }

    /// Whether ctest brings the other one, or this one, by itself. It says of such tests that one depends on the other.
    fn is_tied_by_fixture(&self, other: &Self) -> bool {
        let required: BTreeSet<&str> = self.names("FIXTURES_REQUIRED").collect();
        let cleaned: BTreeSet<&str> = self.names("FIXTURES_CLEANUP").collect();
        let mut concerned = other.names("FIXTURES_REQUIRED").chain(other.served());
        other.serves(&required) || concerned.any(|fixture| cleaned.contains(fixture))
    }

    /// Whether it runs with each test that requires one of these fixtures.
    fn serves(&self, required: &BTreeSet<&str>) -> bool {
        self.served().any(|fixture| required.contains(fixture))
    }
}

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

/// The names in a list, without those that only set up or clean up what others require.
pub(super) fn parse_listing(text: &str) -> Result<Vec<String>, String> {
    let tests = read(text)?;
    let enabled = || tests.iter().filter(|test| !test.is_disabled());
    let required = enabled().flat_map(|test| test.names("FIXTURES_REQUIRED"));
    let required: BTreeSet<&str> = required.collect();
    let is_own = |test: &&ListedTest| test.is_disabled() || !test.serves(&required);
    Ok(tests
        .iter()
        .filter(is_own)
        .map(|test| test.name.clone())
        .collect())
}

/// For each test that depends on others or has fixtures, directly or not, what runs with it; those that are disabled or
/// not there are waited for by nobody.
pub(super) fn parse_companies(text: &str) -> Result<CompanyByTest, String> {
    let mut tests = read(text)?;
    tests.retain(|test| !test.is_disabled());
    let by_name: BTreeMap<&str, &ListedTest> = tests
        .iter()
        .map(|test| (test.name.as_str(), test))
        .collect();
    let mut by_fixture: BTreeMap<&str, Vec<&ListedTest>> = BTreeMap::new();
    for test in &tests {
        for fixture in test.served() {
            by_fixture.entry(fixture).or_default().push(test);
        }
    }
    let mut companies = BTreeMap::new();
    let mut left_bytes = MOST_DEPENDENCIES_BYTES;
    for test in &tests {
        let company = company_of(test, &by_name, &by_fixture)?;
        let bytes = company.companions.iter().map(String::len).sum();
        left_bytes = left_bytes.checked_sub(bytes).ok_or_else(|| {
            "its tests depend on too many others altogether; let them share fixtures instead"
                .to_owned()
        })?;
        if company.others() > 0 {
            companies.insert(test.name.clone(), company);
        }
    }
    Ok(companies)
}

/// The tests that a test's fixtures are made of, and those of theirs: ctest runs it only if these have set them up.
fn fixtures_of<'listed>(
    test: &'listed ListedTest,
    by_fixture: &BTreeMap<&str, Vec<&'listed ListedTest>>,
) -> BTreeSet<&'listed str> {
    let mut found = BTreeSet::new();
    let mut left = vec![test];
    while let Some(next) = left.pop() {
        for other in serving(next, by_fixture) {
            if other.name != test.name && found.insert(other.name.as_str()) {
                left.push(other);
            }
        }
    }
    found
}

/// What sets up and cleans up what a test requires.
fn serving<'listed>(
    test: &ListedTest,
    by_fixture: &BTreeMap<&str, Vec<&'listed ListedTest>>,
) -> impl Iterator<Item = &'listed ListedTest> {
    let fixtures = test.names("FIXTURES_REQUIRED");
    let serving = fixtures.filter_map(|fixture| by_fixture.get(fixture));
    serving.flatten().copied()
}

/// What its fixtures depend on it depends on, too.
fn company_of(
    test: &ListedTest,
    by_name: &BTreeMap<&str, &ListedTest>,
    by_fixture: &BTreeMap<&str, Vec<&ListedTest>>,
) -> Result<Company, String> {
    let own = fixtures_of(test, by_fixture);
    let mut pattern_bytes = escaped(&test.name).len();
    let mut companions = BTreeSet::new();
    let mut seen = BTreeSet::from([test.name.as_str()]);
    let mut left = vec![test];
    while let Some(next) = left.pop() {
        let needed = next.names("DEPENDS");
        let needed = needed.filter_map(|name| by_name.get(name).copied());
        let needed = needed.filter(|other| !next.is_tied_by_fixture(other));
        for other in needed.chain(serving(next, by_fixture)) {
            if !seen.insert(other.name.as_str()) {
                continue;
            }
            left.push(other);
            if !own.contains(other.name.as_str()) {
                pattern_bytes += 1 + escaped(&other.name).len();
                companions.insert(other.name.clone());
            }
        }
        if pattern_bytes > MOST_PATTERN_BYTES {
            let name = &test.name;
            return Err(format!(
                "`{name}` depends on more tests than can be named to ctest; let it require a fixture instead"
            ));
        }
    }
    Ok(Company {
        companions: companions.into_iter().collect(),
        fixtures: own.len(),
    })
}

/// The names of those in a list that are not to be run.
pub(super) fn parse_disabled(text: &str) -> Result<Vec<String>, String> {
    let mut tests = read(text)?;
    tests.retain(ListedTest::is_disabled);
    Ok(tests.into_iter().map(|test| test.name).collect())
}

fn read(text: &str) -> Result<Vec<ListedTest>, String> {
    let listing: Listing = serde_json::from_str(text)
        .map_err(|error| format!("it is not what ctest 3.14 or later prints ({error})"))?;
    match listing.kind.as_str() {
        "ctestInfo" => Ok(listing.tests),
        other => Err(format!("it is a list of `{other}`, not of ctest's")),
    }
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

/// What ctest says of this test if it exited like this: that the test passed all the same, and only companions failed; or
/// that it failed itself, or something that runs with it for a fixture of its own. `None` if nothing more is known.
pub(super) fn beside_failed(
    (id, company): (&str, &Company),
    (exit_code, stdout): (i32, &str),
) -> Option<Verdict> {
    let good = ["Passed", "***Skipped", "***Not Run (Disabled)"];
    let bad = stdout.lines().filter_map(line);
    let bad = bad.filter(|line| !good.contains(&line.status));
    let is_companion = |line: &Line<'_>| company.companions.iter().any(|name| name == line.name);
    let (companions_too, bad): (Vec<_>, Vec<_>) = bad.partition(is_companion);
    match bad.first() {
        None if companions_too.is_empty() || exit_code != TESTS_FAILED => None,
        None => Some(ran_one(id, stdout)),
        Some(first) => why_failed(id, first).map(Err),
    }
}

fn why_failed(id: &str, first: &Line<'_>) -> Option<(FailureClass, String)> {
    let said = first.status.trim_start_matches('*');
    if first.name != id {
        let text = format!("`{}`, which runs with it for a fixture: {said}", first.name);
        return Some((FailureClass::Test, text));
    }
    match said {
        "Timeout" => Some((FailureClass::Timeout, "its time was over".to_owned())),
        // Nobody needs to be told.
        "Failed" => None,
        _ => Some((FailureClass::Test, said.to_owned())),
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
    let after = printed
        .by_ref()
        .skip_while(|line| !line.starts_with("Test timeout"));
    let last = after.skip(1).filter(|line| !line.trim().is_empty()).last();
    last.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTING: &str = r#"{"kind": "ctestInfo", "version": {"major": 1, "minor": 0}, "tests": [
        {"name": "plain", "command": ["/b/ok"], "properties": [{"name": "TIMEOUT", "value": 1.5}]},
        {"name": "off", "properties": [{"name": "DISABLED", "value": true},
            {"name": "FIXTURES_REQUIRED", "value": ["unused"]}]},
        {"name": "setup", "properties": [{"name": "FIXTURES_SETUP", "value": ["db", "x"]},
            {"name": "FIXTURES_REQUIRED", "value": ["disk"]}]},
        {"name": "disk", "properties": [{"name": "FIXTURES_SETUP", "value": ["disk"]}]},
        {"name": "cleanup", "properties": [{"name": "FIXTURES_CLEANUP", "value": ["db"]}]},
        {"name": "uses", "properties": [{"name": "FIXTURES_REQUIRED", "value": ["db"]}]},
        {"name": "for nobody", "properties": [{"name": "FIXTURES_SETUP", "value": ["unused"]}]}]}"#;

    #[test]
    fn lists_are_read() {
        let ids = parse_listing(LISTING).expect("is a list");
        assert_eq!(ids, ["plain", "off", "uses", "for nobody"]);
        assert_eq!(parse_disabled(LISTING).expect("is a list"), ["off"]);
        for text in ["", "Hello", "{}", r#"{"kind": "other", "tests": []}"#] {
            assert!(parse_listing(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_test_depends_on_is_found_through_others_and_fixtures() {
        let test = |name: &str, properties: &[(&str, &str)]| {
            let properties = properties.iter().map(|(name, value)| {
                serde_json::json!({"name": name, "value": value.split(' ').collect::<Vec<_>>()})
            });
            let properties: Vec<_> = properties.collect();
            serde_json::json!({"name": name, "properties": properties})
        };
        let off =
            serde_json::json!({"name": "off", "properties": [{"name": "DISABLED", "value": true}]});
        let tests = serde_json::json!({"kind": "ctestInfo", "tests": [
            test("c", &[("DEPENDS", "b")]),
            test("b", &[("DEPENDS", "a gone off")]),
            test("a", &[]),
            off,
            test("round", &[("DEPENDS", "about")]),
            test("about", &[("DEPENDS", "round")]),
            test("set", &[("FIXTURES_SETUP", "db"), ("DEPENDS", "a")]),
            // What ctest makes of fixtures.
            test("uses", &[("FIXTURES_REQUIRED", "db"), ("DEPENDS", "set")]),
            test("uses too", &[("FIXTURES_REQUIRED", "db"), ("DEPENDS", "set")]),
            test("after", &[("DEPENDS", "uses")]),
            test("uses after", &[("DEPENDS", "set c"), ("FIXTURES_REQUIRED", "db")]),
            test("clean", &[("FIXTURES_CLEANUP", "db"), ("DEPENDS", "set uses"), ("FIXTURES_REQUIRED", "disk")]),
        ]});
        let found = parse_companies(&tests.to_string()).expect("is a list");
        let found: Vec<_> = found
            .iter()
            .map(|(test, with)| (test.as_str(), with.companions.join(" "), with.fixtures))
            .collect();
        let expected = [
            ("about", "round", 0),
            ("after", "a clean set uses", 0),
            ("b", "a", 0),
            ("c", "a b", 0),
            ("round", "about", 0),
            ("set", "a", 0),
            ("uses", "a", 2),
            ("uses after", "a b c", 2),
            ("uses too", "a", 2),
        ];
        assert_eq!(
            found,
            expected.map(|(test, needed, fixtures)| (test, needed.to_owned(), fixtures))
        );
    }

    #[test]
    fn a_companion_fails_for_itself_alone() {
        let lines = |own: &str, fixture: &str| {
            format!(
                "1/3 Test #1: first ....***Failed    0.01 sec\n\
                 2/3 Test #2: setup ....{fixture}    0.01 sec\n\
                 3/3 Test #3: own ......{own}    0.01 sec\n"
            )
        };
        let with = |companions: &[&str]| Company {
            companions: companions.iter().map(|&it| it.to_owned()).collect(),
            fixtures: 1,
        };
        let company = with(&["first"]);
        let named = ("own", &company);
        let said = |own, fixture| beside_failed(named, (8, &lines(own, fixture)));
        assert_eq!(said("   Passed", "   Passed"), Some(Ok(Ended::Passed)));
        assert_eq!(said("***Failed", "   Passed"), None, "it shows why");
        let text = "`setup`, which runs with it for a fixture: Failed".to_owned();
        let expected = Some(Err((FailureClass::Test, text)));
        assert_eq!(said("   Passed", "***Failed"), expected);
        let others = with(&["first", "setup"]);
        let of_others = beside_failed(("own", &others), (8, &lines("   Passed", "***Failed")));
        assert_eq!(of_others, Some(Ok(Ended::Passed)));
        assert_eq!(beside_failed(named, (8, "")), None);
        let crashed = (139, &*lines("   Passed", "   Passed"));
        assert_eq!(beside_failed(named, crashed), None);
    }

    #[test]
    fn more_than_ctest_can_be_told_of_is_refused() {
        let depending = |needed: &[String]| {
            let tests = needed.iter().map(|name| serde_json::json!({"name": name}));
            let depends = serde_json::json!([{"name": "DEPENDS", "value": needed}]);
            let last = serde_json::json!({"name": "last", "properties": depends});
            let tests: Vec<_> = tests.chain([last]).collect();
            serde_json::json!({"kind": "ctestInfo", "tests": tests}).to_string()
        };
        let long = |count: usize| -> Vec<_> {
            (0..count).map(|number| format!("{number:0>99}")).collect()
        };
        let most = MOST_PATTERN_BYTES / 100;
        let found = parse_companies(&depending(&long(most - 1))).expect("fits");
        assert_eq!(found["last"].others(), most - 1);
        let error = parse_companies(&depending(&long(most + 1))).expect_err("is too long");
        assert!(error.contains("`last`"), "{error}");
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
        let (class, _) = why("Timeout ").expect("it is said");
        assert_eq!(class, FailureClass::Timeout);
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
