//! Which of CTest's tests run in one process, and why. Pure.
//!
//! ctest itself brings what sets up and cleans up the fixtures of a test. What a test `DEPENDS` on has to be named, and so
//! has what sets up a fixture beside its cleanup, which ctest runs after it if both are there. A cleanup without a setup
//! runs after a test that requires its fixture: there is nothing else that it could clean up.
//!
//! A command that chooses tests may leave out what sets up and cleans up, and ctest brings them all the same, and counts
//! them. Each of them can then be asked for only with a test that requires it.

use std::collections::{BTreeMap, BTreeSet};

use super::listing::{ListedTest, read};
use super::{MOST_DEPENDENCIES_BYTES, MOST_PATTERN_BYTES, escaped};
use crate::runs::plan::PlannedSuite;
use crate::runs::suite::company::Company;
use crate::runs::suite::harness::CompanyByTest;

/// Arguments of ctest that choose no tests, and how many words follow each.
const CHOOSE_NOTHING: [(&str, usize); 8] = [
    ("--test-dir", 1),
    ("-C", 1),
    ("--build-config", 1),
    ("--timeout", 1),
    ("--output-on-failure", 0),
    ("-V", 0),
    ("--verbose", 0),
    ("-VV", 0),
];

/// What reads the companies of a suite's tests out of the list of them.
pub(in crate::runs::suite) fn companies_parser(
    suite: &PlannedSuite,
) -> fn(&str) -> Result<CompanyByTest, String> {
    match may_choose(&suite.run_arguments) {
        true => parse_companies_of_chosen,
        false => parse_companies,
    }
}

/// Whether a command may leave tests out.
fn may_choose(command: &[String]) -> bool {
    let mut words = command.iter().skip(1);
    while let Some(word) = words.next() {
        let mut known = CHOOSE_NOTHING.iter();
        let Some((_, values)) = known.find(|(name, _)| name == word) else {
            return true;
        };
        words.by_ref().take(*values).for_each(drop);
    }
    false
}

/// For each test that does not run alone, what runs with it; those that are disabled or not there are waited for by nobody.
fn parse_companies(text: &str) -> Result<CompanyByTest, String> {
    companies(text, false)
}

/// The same of a command that may leave tests out, and have ctest bring them all the same.
fn parse_companies_of_chosen(text: &str) -> Result<CompanyByTest, String> {
    companies(text, true)
}

fn companies(text: &str, are_chosen: bool) -> Result<CompanyByTest, String> {
    let mut tests = read(text)?;
    tests.retain(|test| !test.is_disabled());
    let listed = Listed::of(&tests);
    let mut companies = BTreeMap::new();
    let mut left_bytes = MOST_DEPENDENCIES_BYTES;
    for test in &tests {
        let company = listed.company_of(test, are_chosen)?;
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

/// Tests by how others find them.
#[derive(Default)]
struct Listed<'listed> {
    by_name: BTreeMap<&'listed str, &'listed ListedTest>,
    /// What sets up each fixture,
    setups: BTreeMap<&'listed str, Vec<&'listed ListedTest>>,
    /// and what cleans it up,
    cleanups: BTreeMap<&'listed str, Vec<&'listed ListedTest>>,
    /// and what requires it.
    users: BTreeMap<&'listed str, Vec<&'listed ListedTest>>,
}

impl<'listed> Listed<'listed> {
    fn of(tests: &'listed [ListedTest]) -> Self {
        let mut listed = Self::default();
        for test in tests {
            listed.by_name.insert(&test.name, test);
            for (property, by_fixture) in [
                ("FIXTURES_SETUP", &mut listed.setups),
                ("FIXTURES_CLEANUP", &mut listed.cleanups),
                ("FIXTURES_REQUIRED", &mut listed.users),
            ] {
                for fixture in test.names(property) {
                    by_fixture.entry(fixture).or_default().push(test);
                }
            }
        }
        listed
    }

    /// What sets up and cleans up what a test requires.
    fn serving(&self, test: &ListedTest) -> impl Iterator<Item = &'listed ListedTest> {
        let fixtures = test.names("FIXTURES_REQUIRED");
        let serving = fixtures.flat_map(move |fixture| {
            let both = [self.setups.get(fixture), self.cleanups.get(fixture)];
            both.into_iter().flatten().flatten()
        });
        serving.copied()
    }

    /// What sets up what a test cleans up.
    fn set_up_before(&self, test: &ListedTest) -> impl Iterator<Item = &'listed ListedTest> {
        let fixtures = test.names("FIXTURES_CLEANUP");
        let setups = fixtures.filter_map(move |fixture| self.setups.get(fixture));
        setups.flatten().copied()
    }

    /// The tests that a test's fixtures are made of, and those of theirs: ctest runs it only if these have set them up.
    fn fixtures_of(&self, test: &ListedTest) -> BTreeSet<&'listed str> {
        let mut found = BTreeSet::new();
        let mut left: Vec<_> = self.serving(test).collect();
        while let Some(next) = left.pop() {
            if next.name != test.name && found.insert(next.name.as_str()) {
                left.extend(self.serving(next));
            }
        }
        found
    }

    /// The first test that requires what a test sets up or cleans up, if the latter is not to run without one: its
    /// fixture has no setup, or it may not be among the tests that the command chooses.
    fn user_of(&self, test: &ListedTest, are_chosen: bool) -> Option<&'listed ListedTest> {
        let cleaned = test.names("FIXTURES_CLEANUP");
        let lone = cleaned.filter(|fixture| !self.setups.contains_key(*fixture));
        let served = test.served().filter(|_| are_chosen);
        let users = lone
            .chain(served)
            .filter_map(|fixture| self.users.get(fixture));
        users.flatten().copied().find(|user| user.name != test.name)
    }

    /// What its fixtures depend on it depends on, too.
    fn company_of(&self, test: &'listed ListedTest, are_chosen: bool) -> Result<Company, String> {
        let own = self.fixtures_of(test);
        let mut pattern_bytes = escaped(&test.name).len();
        let mut companions = BTreeSet::new();
        let mut seen = BTreeSet::new();
        // The test that requires it may itself be there for another.
        let users = std::iter::successors(Some(test), |it| self.user_of(it, are_chosen));
        let mut left: Vec<_> = users.take(self.by_name.len()).collect();
        while let Some(next) = left.pop() {
            let name = next.name.as_str();
            if !seen.insert(name) {
                continue;
            }
            if name != test.name && !own.contains(name) {
                pattern_bytes += 1 + escaped(name).len();
                companions.insert(name.to_owned());
            }
            if pattern_bytes > MOST_PATTERN_BYTES {
                let name = &test.name;
                return Err(format!(
                    "`{name}` depends on more tests than can be named to ctest; let it require a fixture instead"
                ));
            }
            let needed = next.names("DEPENDS");
            let needed = needed.filter_map(|name| self.by_name.get(name).copied());
            let needed = needed.filter(|other| !next.is_tied_by_fixture(other));
            let by_fixture = self.serving(next).chain(self.set_up_before(next));
            left.extend(needed.chain(by_fixture));
        }
        Ok(Company {
            companions: companions.into_iter().collect(),
            fixtures: own.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of tests, each with its properties, which name others or fixtures.
    fn listing(tests: &[(&str, &[(&str, &str)])]) -> String {
        let test = |(name, properties): &(&str, &[(&str, &str)])| {
            let properties = properties.iter().map(|(name, value)| {
                let value = match *value {
                    "TRUE" => true.into(),
                    names => serde_json::json!(names.split(' ').collect::<Vec<_>>()),
                };
                serde_json::json!({"name": name, "value": value})
            });
            let properties: Vec<_> = properties.collect();
            serde_json::json!({"name": name, "properties": properties})
        };
        let tests: Vec<_> = tests.iter().map(test).collect();
        serde_json::json!({"kind": "ctestInfo", "tests": tests}).to_string()
    }

    #[track_caller]
    fn check(
        parse: fn(&str) -> Result<CompanyByTest, String>,
        tests: &[(&str, &[(&str, &str)])],
        expected: &[(&str, &str, usize)],
    ) {
        let found = parse(&listing(tests)).expect("is a list");
        let found = found.iter();
        let found: Vec<_> = found
            .map(|(test, with)| (test.as_str(), with.companions.join(" "), with.fixtures))
            .collect();
        let expected = expected.iter();
        let expected: Vec<_> = expected
            .map(|(test, needed, fixtures)| (*test, (*needed).to_owned(), *fixtures))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_a_test_depends_on_is_found_through_others_and_fixtures() {
        let clean: &[_] = &[
            ("FIXTURES_CLEANUP", "db"),
            ("DEPENDS", "set uses"),
            ("FIXTURES_REQUIRED", "disk"),
        ];
        let tests: &[(&str, &[(&str, &str)])] = &[
            ("c", &[("DEPENDS", "b")]),
            ("b", &[("DEPENDS", "a gone off")]),
            ("a", &[]),
            ("off", &[("DISABLED", "TRUE")]),
            ("round", &[("DEPENDS", "about")]),
            ("about", &[("DEPENDS", "round")]),
            ("set", &[("FIXTURES_SETUP", "db"), ("DEPENDS", "a")]),
            // What ctest makes of fixtures.
            ("uses", &[("FIXTURES_REQUIRED", "db"), ("DEPENDS", "set")]),
            (
                "uses too",
                &[("FIXTURES_REQUIRED", "db"), ("DEPENDS", "set")],
            ),
            ("after", &[("DEPENDS", "uses")]),
            (
                "uses after",
                &[("DEPENDS", "set c"), ("FIXTURES_REQUIRED", "db")],
            ),
            ("clean", clean),
        ];
        let expected = [
            ("about", "round", 0),
            ("after", "a clean set uses", 0),
            ("b", "a", 0),
            ("c", "a b", 0),
            ("clean", "a set", 0),
            ("round", "about", 0),
            ("set", "a", 0),
            ("uses", "a", 2),
            ("uses after", "a b c", 2),
            ("uses too", "a", 2),
        ];
        check(parse_companies, tests, &expected);
    }

    /// A disk for a database, of which a log is left by those that use it.
    const FIXTURES: &[(&str, &[(&str, &str)])] = &[
        ("mount", &[("FIXTURES_SETUP", "disk")]),
        ("unmount", &[("FIXTURES_CLEANUP", "disk")]),
        (
            "start",
            &[("FIXTURES_SETUP", "db"), ("FIXTURES_REQUIRED", "disk")],
        ),
        ("stop", &[("FIXTURES_CLEANUP", "db")]),
        ("off", &[("FIXTURES_REQUIRED", "log"), ("DISABLED", "TRUE")]),
        ("one", &[("FIXTURES_REQUIRED", "db log")]),
        ("two", &[("FIXTURES_REQUIRED", "db log")]),
        ("remove log", &[("FIXTURES_CLEANUP", "log")]),
        ("for nobody", &[("FIXTURES_SETUP", "unused")]),
    ];

    #[test]
    fn what_cleans_up_runs_after_what_sets_up_or_else_after_one_test() {
        let expected = [
            ("one", "", 5),
            ("remove log", "mount one start stop unmount", 0),
            ("start", "", 2),
            ("stop", "mount start unmount", 0),
            ("two", "", 5),
            ("unmount", "mount", 0),
        ];
        check(parse_companies, FIXTURES, &expected);
    }

    #[test]
    fn what_a_command_may_leave_out_is_brought_by_a_test_that_requires_it() {
        let expected = [
            ("mount", "one remove log start stop unmount", 0),
            ("one", "", 5),
            ("remove log", "mount one start stop unmount", 0),
            ("start", "one remove log stop", 2),
            ("stop", "mount one remove log start unmount", 0),
            ("two", "", 5),
            ("unmount", "mount one remove log start stop", 0),
        ];
        check(parse_companies_of_chosen, FIXTURES, &expected);
    }

    #[test]
    fn a_command_that_may_choose_is_told_from_one_that_does_not() {
        let check = |text: &str, expected| {
            let command: Vec<_> = text.split(' ').map(str::to_owned).collect();
            assert_eq!(may_choose(&command), expected, "{text}");
        };
        for plain in [
            "ctest",
            "ctest --test-dir build",
            "ctest -C L -V --timeout 5",
        ] {
            check(plain, false);
        }
        for other in [
            "ctest -L fast",
            "ctest --preset ci",
            "xvfb-run ctest",
            "ctest --test-dir b -E x",
        ] {
            check(other, true);
        }
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
}
