//! Test times that other tools have measured: JUnit XML, and pytest-split's `.test_durations`. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

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
    #[error("it is no well-formed XML: {detail}")]
    Xml { detail: String },
    #[error("it has a test case without a name")]
    Nameless,
    #[error("it has no test case")]
    NoTests,
    #[error(
        "it is not what pytest-split writes, an object of node ids and their seconds: {detail}"
    )]
    Durations { detail: String },
}

/// Reads a file, of whichever kind it is.
pub(crate) fn read(text: &str, suite: &str) -> Result<Imported, ImportError> {
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

/// A test case that is being read.
struct Case {
    id: String,
    took: Option<Duration>,
    failed: bool,
}

fn of_junit(text: &str, suite: &str) -> Result<Imported, ImportError> {
    let mut reader = Reader::from_str(text);
    let (mut imported, mut case) = (Imported::default(), None);
    loop {
        let event = reader.read_event().map_err(malformed)?;
        let is_empty = matches!(event, Event::Empty(_));
        match event {
            Event::Eof => return Ok(imported),
            Event::Start(element) | Event::Empty(element) => {
                open(&element, suite, &mut case)?;
                if is_empty && element.local_name().as_ref() == b"testcase" {
                    imported.end(case.take());
                }
            }
            Event::End(element) if element.local_name().as_ref() == b"testcase" => {
                imported.end(case.take());
            }
            // Text, comments and the rest of XML say nothing of times.
            _ => {}
        }
    }
}

fn open(element: &BytesStart<'_>, suite: &str, case: &mut Option<Case>) -> Result<(), ImportError> {
    match (element.local_name().as_ref(), case.as_mut()) {
        (b"testcase", _) => {
            let name = attribute(element, "name")?.ok_or(ImportError::Nameless)?;
            let classname = attribute(element, "classname")?.unwrap_or_default();
            // Some write a thousand seconds as 1,000.
            let seconds = attribute(element, "time")?.map(|text| text.replace(',', ""));
            let seconds = seconds.and_then(|text| text.parse().ok());
            *case = Some(Case {
                id: id_of(suite, &classname, &name),
                took: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
                failed: false,
            });
        }
        (b"failure" | b"error", Some(case)) => case.failed = true,
        (b"skipped" | b"disabled", Some(case)) => case.took = None,
        _ => {}
    }
    Ok(())
}

impl Imported {
    fn end(&mut self, case: Option<Case>) {
        if let Some(Case { id, took, failed }) = case {
            self.take(id, took, failed);
        }
    }

    fn take(&mut self, id: String, took: Option<Duration>, failed: bool) {
        match took.filter(|_| !id.is_empty()) {
            Some(took) => self.tests.push(ImportedTest { id, took, failed }),
            None => self.left_out += 1,
        }
    }
}

/// The id by which the suite knows a test case. Regatta's own reports have the suite as class. pytest's have
/// the file's path with dots, and the classes in it: by pytest's rule, the file is called `test_*.py` or
/// `*_test.py`. Other tools' classes are joined to the name by two colons.
fn id_of(suite: &str, classname: &str, name: &str) -> String {
    if classname.is_empty() || classname == suite {
        return name.to_owned();
    }
    let parts: Vec<&str> = classname.split('.').collect();
    let is_module = |part: &&str| part.starts_with("test_") || part.ends_with("_test");
    match parts.iter().position(is_module) {
        Some(module) if parts.iter().all(|part| !part.is_empty()) => {
            let file = format!("{}.py", parts[..=module].join("/"));
            let classes = &parts[module + 1..];
            let words = [file.as_str()];
            let words = words.iter().chain(classes).chain([&name]);
            words.copied().collect::<Vec<_>>().join("::")
        }
        Some(_) | None => format!("{classname}::{name}"),
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, ImportError> {
    let Some(attribute) = element.try_get_attribute(name).map_err(malformed)? else {
        return Ok(None);
    };
    let value = attribute.normalized_value(XmlVersion::Implicit1_0);
    Ok(Some(value.map_err(malformed)?.into_owned()))
}

fn malformed(error: impl ToString) -> ImportError {
    ImportError::Xml {
        detail: error.to_string(),
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
        assert_eq!(read(xml, "unit"), Ok(expected));
    }

    #[test]
    fn what_pytest_split_stores_is_understood() {
        let text = "\n{\"tests/test_a.py::test_b\": 0.25, \"tests/test_a.py::test_c\": 1e400}";
        assert!(matches!(
            read(text, "unit"),
            Err(ImportError::Durations { .. })
        ));
        let text = "{\"tests/test_a.py::test_b\": 0.25, \"t.py::c\": -1}";
        let expected = Imported {
            tests: vec![test("tests/test_a.py::test_b", 250, false)],
            left_out: 1,
        };
        assert_eq!(read(text, "unit"), Ok(expected));
    }

    #[track_caller]
    fn check_refused(text: &str, words: &str) {
        let error = read(text, "unit").expect_err("is nothing to learn from");
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
