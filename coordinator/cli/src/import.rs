//! Test times that other tools have measured: JUnit XML, and pytest-split's `.test_durations`. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regatta_server::junit::{self, Case, CaseStatus, JunitError, KnownIds, StandsFor};

/// The suite whose tests a file is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ImportingSuite<'a> {
    pub(crate) name: &'a str,
    /// Of its tests, those that it has run.
    pub(crate) ids: BTreeSet<&'a str>,
}

/// A test that was executed elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ImportedTest {
    pub(crate) id: String,
    pub(crate) took: Duration,
    pub(crate) failed: bool,
}

/// What a file says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Imported {
    pub(crate) tests: Vec<ImportedTest>,
    /// How many tests did not run, or without a time.
    pub(crate) left_out: usize,
}

/// Why nothing can be learnt of a file. Fix it, or leave it out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("it is neither JUnit XML nor the JSON of a .test_durations file")]
    Unknown,
    #[error(transparent)]
    Junit(#[from] JunitError),
    #[error("it has no test case")]
    NoTests,
    #[error(
        "it is not what pytest-split writes, an object of node ids and their seconds: {detail}"
    )]
    Durations { detail: String },
}

/// Reads a file, of whichever kind it is.
pub(crate) fn read(text: &str, suite: &ImportingSuite<'_>) -> Result<Imported, ImportError> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let imported = match text.chars().next() {
        Some('<') => of_junit(text, suite)?,
        Some('{') => of_durations(text)?,
        Some(_) | None => return Err(ImportError::Unknown),
    };
    if imported.tests.is_empty() && imported.left_out == 0 {
        return Err(ImportError::NoTests);
    }
    Ok(imported)
}

fn of_durations(text: &str) -> Result<Imported, ImportError> {
    let durations: Result<BTreeMap<String, f64>, _> = serde_json::from_str(text);
    let durations = durations.map_err(|error| ImportError::Durations {
        detail: error.to_string(),
    })?;
    let mut imported = Imported::default();
    for (id, seconds) in durations {
        imported.take(id, Duration::try_from_secs_f64(seconds).ok(), false);
    }
    Ok(imported)
}

fn of_junit(text: &str, suite: &ImportingSuite<'_>) -> Result<Imported, ImportError> {
    let mut imported = Imported::default();
    let known = KnownIds::of(suite.ids.iter().copied());
    for case in junit::parse(text)?.cases {
        let did_run = !matches!(case.status, CaseStatus::Skipped(_));
        let failed = matches!(case.status, CaseStatus::Failed(_));
        imported.take(
            suite.id_of(&case, &known),
            case.time.filter(|_| did_run),
            failed,
        );
    }
    Ok(imported)
}

impl Imported {
    fn take(&mut self, id: String, took: Option<Duration>, failed: bool) {
        match took.filter(|_| !id.is_empty()) {
            Some(took) => self.tests.push(ImportedTest { id, took, failed }),
            None => self.left_out += 1,
        }
    }
}

impl ImportingSuite<'_> {
    /// The id by which the suite knows a test case. Regatta's own reports have the suite as class.
    fn id_of(&self, case: &Case, known: &KnownIds) -> String {
        if case.classname == self.name {
            return case.name.clone();
        }
        match known.meant_by(case) {
            StandsFor::One(id) => id,
            // Their times are all that is learnt here.
            StandsFor::Several(ids) => ids.into_iter().next().unwrap_or_default(),
            StandsFor::Nothing => usual_id(case),
        }
    }

    /// The tests that it is not known to have; `None` if none of its own is known.
    pub(crate) fn strangers<'a>(&self, tests: &'a [ImportedTest]) -> Option<Vec<&'a str>> {
        let ids = tests.iter().map(|test| test.id.as_str());
        let strangers = || ids.filter(|id| !self.ids.contains(id)).collect();
        (!self.ids.is_empty()).then(strangers)
    }
}

/// The id of a test case that the suite is not known to have, by who wrote it. CTest's class is the name again. pytest's
/// has the file's path with dots, and the classes in it: by pytest's rule, the file is called `test_*.py` or
/// `*_test.py`. GoogleTest joins its suites to the names by dots, and others' classes are joined by two colons.
fn usual_id(case: &Case) -> String {
    let Case {
        classname, name, ..
    } = case;
    if classname.is_empty() || classname == name {
        return name.clone();
    }
    let parts: Vec<&str> = classname.split('.').collect();
    let is_module = |part: &&str| part.starts_with("test_") || part.ends_with("_test");
    match parts.iter().position(is_module) {
        _ if case.is_googletest => format!("{classname}.{name}"),
        Some(module) if parts.iter().all(|part| !part.is_empty()) => {
            let file = format!("{}.py", parts[..=module].join("/"));
            let classes = &parts[module + 1..];
            let words = [file.as_str()];
            let words = words.iter().chain(classes);
            let words = words.copied().chain([name.as_str()]);
            words.collect::<Vec<_>>().join("::")
        }
        Some(_) | None => format!("{classname}::{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(id: &str, millis: u64, failed: bool) -> ImportedTest {
        ImportedTest {
            id: id.to_owned(),
            took: Duration::from_millis(millis),
            failed,
        }
    }

    fn suite(ids: &[&'static str]) -> ImportingSuite<'static> {
        ImportingSuite {
            name: "unit",
            ids: ids.iter().copied().collect(),
        }
    }

    #[track_caller]
    fn check_ids(cases: &str, known: &[&'static str], expected: &[&str]) {
        let xml = format!("<testsuites><testsuite>{cases}</testsuite></testsuites>");
        let imported = read(&xml, &suite(known)).expect("is a report");
        let ids: Vec<_> = imported.tests.iter().map(|test| test.id.as_str()).collect();
        assert_eq!(ids, expected, "{cases}, known {known:?}");
    }

    #[test]
    fn a_case_is_called_as_the_adapters_call_it() {
        let googletest = r#"<testcase name="Holds/0" file="sum.cc" line="3" status="run" result="completed"
            time="0.1" timestamp="2026-01-01T00:00:00.000" classname="All/Sum"/>
            <testcase name="DISABLED_X" status="notrun" result="suppressed" time="0." classname="Sum"/>"#;
        check_ids(googletest, &[], &["All/Sum.Holds/0"]);
        let ctest = r#"<testcase name="sum" classname="sum" time="0.1" status="run"><system-out/></testcase>
            <testcase name="bad.x" classname="bad.x" time="1" status="fail"><failure message=""/></testcase>
            <testcase name="off" classname="off" time="0" status="disabled"><skipped message="Disabled"/></testcase>"#;
        check_ids(ctest, &[], &["sum", "bad.x"]);
        let nextest = r#"<testcase name="a::b" classname="my-crate::bin" time="0.1"/>"#;
        check_ids(nextest, &[], &["my-crate::bin::a::b"]);
    }

    #[test]
    fn what_the_suite_is_known_to_have_decides() {
        let case = r#"<testcase name="run" classname="a.B" time="1"/>"#;
        for known in ["a.B.run", "a.B::run", "a.B/run", "a.B run", "run"] {
            check_ids(case, &[known, "other"], &[known]);
        }
        check_ids(case, &["other"], &["a.B::run"]);
        let pytest = r#"<testcase name="test_x[1]" classname="tests.test_a.TestB" time="1"/>"#;
        let id = "tests/test_a.py::TestB::test_x[1]";
        check_ids(pytest, &[id], &[id]);
    }

    #[test]
    fn tests_that_the_suite_is_not_known_to_have_are_told() {
        let tests = [test("a", 1, false), test("b", 1, false)];
        assert_eq!(suite(&["a", "c"]).strangers(&tests), Some(vec!["b"]));
        assert_eq!(suite(&["a", "b"]).strangers(&tests), Some(Vec::new()));
        assert_eq!(suite(&[]).strangers(&tests), None);
    }

    #[test]
    fn junit_of_several_tools_is_understood() {
        let xml = r#"<?xml version="1.0"?><testsuites><testsuite name="pytest">
            <testcase classname="unit" name="a::b &lt;1&gt;" time="0.5"/>
            <testcase classname="tests.unit.test_x.TestY" name="test_z[1.5]" time="1,001.5">
              <failure message="no">why</failure></testcase>
            <testcase classname="pkg.x_test" name="test_w" time="0"/>
            <testcase classname="com.example.Foo" name="bar" time="2"><system-out>x</system-out></testcase>
            <testcase name="skipped" time="0.1"><skipped/></testcase>
            <testcase name="untimed"/>
            </testsuite></testsuites>"#;
        let expected = Imported {
            tests: vec![
                test("a::b <1>", 500, false),
                test("tests/unit/test_x.py::TestY::test_z[1.5]", 1_001_500, true),
                test("pkg/x_test.py::test_w", 0, false),
                test("com.example.Foo::bar", 2000, false),
            ],
            left_out: 2,
        };
        assert_eq!(read(xml, &suite(&[])), Ok(expected));
    }

    #[test]
    fn what_pytest_split_stores_is_understood() {
        let text = "\n{\"tests/test_a.py::test_b\": 0.25, \"tests/test_a.py::test_c\": 1e400}";
        assert!(matches!(
            read(text, &suite(&[])),
            Err(ImportError::Durations { .. })
        ));
        let text = "{\"tests/test_a.py::test_b\": 0.25, \"t.py::c\": -1}";
        let expected = Imported {
            tests: vec![test("tests/test_a.py::test_b", 250, false)],
            left_out: 1,
        };
        assert_eq!(read(text, &suite(&[])), Ok(expected));
    }

    #[track_caller]
    fn check_refused(text: &str, words: &str) {
        let error = read(text, &suite(&[])).expect_err("is nothing to learn from");
        assert!(error.to_string().contains(words), "{text}: {error}");
    }

    #[test]
    fn what_teaches_nothing_is_refused_with_the_reason() {
        check_refused("", "neither JUnit XML nor");
        check_refused("a,b\n1,2", "neither JUnit XML nor");
        check_refused("<testsuite></oops>", "no well-formed XML");
        check_refused("<testsuite/>", "no test case");
        check_refused(
            "<testsuite><testcase time='1'/></testsuite>",
            "without a name",
        );
        check_refused("{}", "no test case");
        check_refused("{\"a\": \"b\"}", "not what pytest-split writes");
    }
}
