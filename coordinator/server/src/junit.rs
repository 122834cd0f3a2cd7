//! Reads JUnit XML, as many tools write it: any nesting of suites, nothing required but names. Pure.

mod counting;
mod known_ids;

use std::time::Duration;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use self::counting::Counting;
pub use self::known_ids::{KnownIds, StandsFor};

/// The type of error with which a report says that the test ended its runner.
const RUNNER_ENDED: &str = "regatta.runner-ended";
/// The same because its time was over.
const RUNNER_TIMED_OUT: &str = "regatta.runner-timed-out";
/// The type of failure with which a report says that the test ran out of time, and its runner went on.
const TIMED_OUT: &str = "regatta.timed-out";

/// What a test case's status or result is if it was run and nothing inside says that it failed.
const DID_RUN: [&str; 12] = [
    "",
    "run",
    "executed",
    "completed",
    "complete",
    "passed",
    "pass",
    "success",
    "successful",
    "succeeded",
    "ok",
    "true",
];
/// What a test case's status or result is if it was not run.
const DID_NOT_RUN: [&str; 6] = [
    "notrun",
    "suppressed",
    "skipped",
    "disabled",
    "ignored",
    "pending",
];

/// What a report says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Every test case, in order.
    pub cases: Vec<Case>,
    /// Failures and errors of no test case: of a fixture, or of a file that could not be loaded.
    pub errors: Vec<String>,
    /// Suites that count failures which nothing in them shows, for people.
    pub contradictions: Vec<String>,
}

/// A test case of a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// What it is called in its class.
    pub name: String,
    /// Its class: whatever the tool takes for one; empty if it has none.
    pub classname: String,
    /// How long it took, if the report says so.
    pub time: Option<Duration>,
    /// How it ended.
    pub status: CaseStatus,
    /// Whether its attributes are those that GoogleTest alone writes, if not CTest.
    pub is_googletest: bool,
    /// Whether the report says that it ended its runner.
    pub ends_runner: bool,
    /// Whether the report says that it failed because its time was over.
    pub is_timeout: bool,
    /// What it wrote, as far as the report has it.
    pub output: String,
}

/// How a test case ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CaseStatus {
    /// It passed.
    Passed,
    /// It failed before (Surefire's `flakyFailure` and the like).
    PassedAgain,
    /// With the reason, if the report has one.
    Skipped(String),
    /// With what the report says about it.
    Failed(String),
}

/// Why a report cannot be read. The runner has to be fixed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JunitError {
    /// It is not XML.
    #[error("it is no well-formed XML: {detail}")]
    Malformed {
        /// What is wrong, and where.
        detail: String,
    },
    /// A test case says nothing of which it is.
    #[error("it holds a test case without a name")]
    Nameless,
    /// It was not written to its end.
    #[error("it ends in the middle")]
    Truncated,
}

fn malformed(error: impl ToString) -> JunitError {
    JunitError::Malformed {
        detail: error.to_string(),
    }
}

/// Reads a report.
///
/// # Errors
/// If it is no XML, or a test case in it has no name.
pub fn parse(xml: &str) -> Result<Report, JunitError> {
    let mut reader = Reader::from_str(xml);
    let mut parser = Parser::default();
    loop {
        match reader.read_event().map_err(malformed)? {
            Event::Start(element) => {
                parser.open(&element)?;
                parser.depth += 1;
            }
            Event::Empty(element) => {
                parser.open(&element)?;
                parser.close(element.local_name().as_ref());
            }
            Event::End(element) => {
                parser.depth = parser.depth.saturating_sub(1);
                parser.close(element.local_name().as_ref());
            }
            Event::Text(text) => parser.text(&text.decode().map_err(malformed)?),
            Event::CData(text) => parser.text(&text.decode().map_err(malformed)?),
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(malformed)?;
                let character = reference.resolve_char_ref().map_err(malformed)?;
                let known = quick_xml::escape::resolve_predefined_entity(&name);
                match (character, known) {
                    (Some(character), _) => parser.text(character.encode_utf8(&mut [0; 4])),
                    (None, Some(text)) => parser.text(text),
                    (None, None) => {}
                }
            }
            Event::Eof if parser.depth > 0 => return Err(JunitError::Truncated),
            Event::Eof => return Ok(parser.report),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

#[derive(Default)]
struct Parser {
    report: Report,
    case: Option<Case>,
    /// Where it is, if its attributes say so: `tests/sum_test.cc:12`.
    place: Option<String>,
    /// Where text goes.
    text: Option<String>,
    depth: usize,
    counting: Counting,
}

impl Parser {
    fn open(&mut self, element: &BytesStart<'_>) -> Result<(), JunitError> {
        match element.local_name().as_ref() {
            b"testsuites" | b"testsuite" => {
                let counts = [
                    attribute(element, "failures")?,
                    attribute(element, "errors")?,
                ];
                let name = attribute(element, "name")?.unwrap_or_default();
                self.counting.begin_suite(name, &counts);
            }
            b"testcase" => {
                self.counting.begin_case();
                let name = attribute(element, "name")?.ok_or(JunitError::Nameless)?;
                // Some write a thousand seconds as 1,000.0, others a tenth of one as 0,1, which is told apart from nothing.
                let seconds = attribute(element, "time")?.map(|text| match text.contains('.') {
                    true => text.replace(',', ""),
                    false => text,
                });
                let seconds = seconds.and_then(|text| text.parse().ok());
                self.place = place_of(element)?;
                self.case = Some(Case {
                    name,
                    classname: attribute(element, "classname")?.unwrap_or_default(),
                    time: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
                    status: status_of(element)?,
                    is_googletest: is_googletest(element)?,
                    ends_runner: false,
                    is_timeout: false,
                    output: String::new(),
                });
            }
            b"failure" | b"error" => {
                self.counting.show();
                let message = attribute(element, "message")?.unwrap_or_default();
                let kind = attribute(element, "type")?;
                match &mut self.case {
                    Some(case) => {
                        case.status = CaseStatus::Failed(message);
                        let kind = kind.as_deref();
                        case.ends_runner = matches!(kind, Some(RUNNER_ENDED | RUNNER_TIMED_OUT));
                        case.is_timeout = matches!(kind, Some(TIMED_OUT | RUNNER_TIMED_OUT));
                    }
                    None => self.report.errors.push(message),
                }
                self.text = Some(String::new());
            }
            b"flakyFailure" | b"flakyError" => {
                self.counting.show();
                if let Some(case) = &mut self.case
                    && case.status == CaseStatus::Passed
                {
                    case.status = CaseStatus::PassedAgain;
                }
            }
            b"rerunFailure" | b"rerunError" => self.failed_again(element)?,
            b"skipped" | b"disabled" => {
                if let Some(case) = &mut self.case
                    && !matches!(case.status, CaseStatus::Failed(_))
                {
                    let reason = attribute(element, "message")?.unwrap_or_default();
                    case.status = CaseStatus::Skipped(reason);
                }
            }
            b"system-out" | b"system-err" => self.text = Some(String::new()),
            _ => {}
        }
        Ok(())
    }

    /// To Surefire that is one of several failures, the first of which is a `failure`: nothing says that it passed.
    fn failed_again(&mut self, element: &BytesStart<'_>) -> Result<(), JunitError> {
        self.counting.show();
        if let Some(case) = &mut self.case
            && matches!(case.status, CaseStatus::Passed | CaseStatus::PassedAgain)
        {
            let message = attribute(element, "message")?.unwrap_or_default();
            case.status = CaseStatus::Failed(failed_again(&message));
        }
        Ok(())
    }

    fn close(&mut self, name: &[u8]) {
        match name {
            b"testsuites" | b"testsuite" => {
                self.report.contradictions.extend(self.counting.end_suite());
            }
            b"testcase" => {
                let is_failed = |case: &Case| matches!(case.status, CaseStatus::Failed(_));
                self.counting
                    .end_case(self.case.as_ref().is_some_and(is_failed));
                let place = self.place.take();
                let case = self.case.take().map(|case| match place {
                    Some(place) => with_place(case, &place),
                    None => case,
                });
                self.report.cases.extend(case);
            }
            b"failure" | b"error" => {
                let text = self.text.take().unwrap_or_default();
                let message = match &mut self.case {
                    Some(case) => match &mut case.status {
                        CaseStatus::Failed(message) => Some(message),
                        CaseStatus::Passed | CaseStatus::PassedAgain | CaseStatus::Skipped(_) => {
                            None
                        }
                    },
                    None => self.report.errors.last_mut(),
                };
                if let Some(message) = message {
                    let separator = if message.is_empty() || text.is_empty() {
                        ""
                    } else {
                        "\n"
                    };
                    message.push_str(separator);
                    message.push_str(text.trim());
                }
            }
            b"system-out" | b"system-err" => {
                let text = self.text.take().unwrap_or_default();
                if let Some(case) = &mut self.case {
                    case.output.push_str(&text);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if let Some(collected) = &mut self.text {
            collected.push_str(text);
        }
    }
}

/// What is said of a test of which a report has only that it failed when it ran again.
fn failed_again(message: &str) -> String {
    let said = match message {
        "" => String::new(),
        message => format!(" ({message})"),
    };
    format!(
        "it failed when it ran again{said}, and the report has neither a pass nor a `failure` of it"
    )
}

/// Where a test case's attributes say that it is.
fn place_of(element: &BytesStart<'_>) -> Result<Option<String>, JunitError> {
    let file = attribute(element, "file")?.filter(|file| !file.is_empty());
    let line: Option<u32> = attribute(element, "line")?.and_then(|line| line.parse().ok());
    let place = file.zip(line.filter(|line| *line > 0));
    Ok(place.map(|(file, line)| format!("{file}:{line}")))
}

/// A failure is told with where it is, last: what the runner itself says of the file is nearer to it.
fn with_place(mut case: Case, place: &str) -> Case {
    if let CaseStatus::Failed(message) = &mut case.status {
        let file = place.rsplit_once(':').map_or(place, |(file, _line)| file);
        if !message.contains(&format!("{file}:")) {
            let separator = if message.is_empty() { "" } else { "\n" };
            message.push_str(separator);
            message.push_str(place);
        }
    }
    case
}

/// What a test case's attributes say. GoogleTest writes tests that it did not run as `notrun`, without
/// any element in them. What is neither known as that nor as a pass is none.
fn status_of(element: &BytesStart<'_>) -> Result<CaseStatus, JunitError> {
    let mut status = CaseStatus::Passed;
    for name in ["status", "result"] {
        let value = attribute(element, name)?.unwrap_or_default();
        let value = value.to_ascii_lowercase();
        if DID_NOT_RUN.contains(&value.as_str()) {
            return Ok(CaseStatus::Skipped(String::new()));
        }
        if !DID_RUN.contains(&value.as_str()) {
            status = CaseStatus::Failed(format!("its {name} is `{value}`"));
        }
    }
    Ok(status)
}

/// GoogleTest's `status` is `run` or `notrun`; of others, only CTest has such, whose classes are the names.
fn is_googletest(element: &BytesStart<'_>) -> Result<bool, JunitError> {
    let status = attribute(element, "status")?;
    Ok(matches!(status.as_deref(), Some("run" | "notrun")))
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, JunitError> {
    let Some(attribute) = element.try_get_attribute(name).map_err(malformed)? else {
        return Ok(None);
    };
    let value = attribute
        .normalized_value(XmlVersion::Implicit1_0)
        .map_err(malformed)?;
    Ok(Some(value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_several_tools_are_read() {
        let xml = r#"<?xml version="1.0"?>
            <testsuite><properties><property name="x" value="y"/></properties>
            <testcase classname="m" name="a &lt;b&gt;" time="0.5"/>
            <testcase name="c"><failure message="no">left &amp; <![CDATA[<right>]]></failure>
              <system-out>said &#65;</system-out></testcase>
            <testcase name="d"><skipped message="not here"/></testcase></testsuite>"#;
        let cases = parse(xml).expect("is a report").cases;
        assert_eq!(cases[0].name, "a <b>");
        assert_eq!(
            (cases[0].classname.as_str(), cases[0].time),
            ("m", Some(Duration::from_millis(500)))
        );
        assert_eq!(
            cases[1].status,
            CaseStatus::Failed("no\nleft & <right>".to_owned())
        );
        assert_eq!(cases[1].output, "said A");
        assert_eq!(cases[2].status, CaseStatus::Skipped("not here".to_owned()));
    }

    #[track_caller]
    fn check_status(attributes: &str, inside: &str, expected: &CaseStatus) {
        let xml = format!("<testcase name='a' {attributes}>{inside}</testcase>");
        let report = parse(&xml).expect("is a report");
        assert_eq!(&report.cases[0].status, expected, "{xml}");
    }

    #[test]
    fn what_is_not_known_as_a_pass_is_none() {
        for word in ["failed", "error", "Timeout", "broken", "something"] {
            for name in ["status", "result"] {
                let said = format!("its {name} is `{}`", word.to_lowercase());
                let attributes = format!("{name}='{word}'");
                check_status(&attributes, "", &CaseStatus::Failed(said));
            }
        }
        for word in ["Passed", "success", "OK", ""] {
            check_status(&format!("status='{word}'"), "", &CaseStatus::Passed);
        }
        let own = CaseStatus::Failed("why".to_owned());
        check_status("status='fail'", "<failure message='why'/>", &own);
    }

    #[test]
    fn a_failure_is_told_with_its_place() {
        let attributes = "file='t/sum.cc' line='12'";
        let failed = |message: &str| CaseStatus::Failed(message.to_owned());
        let told = failed("no\nwhy\nt/sum.cc:12");
        check_status(attributes, "<failure message='no'>why</failure>", &told);
        check_status(attributes, "<failure/>", &failed("t/sum.cc:12"));
        let own = "<failure>t/sum.cc:14: Failure</failure>";
        check_status(attributes, own, &failed("t/sum.cc:14: Failure"));
        check_status(attributes, "", &CaseStatus::Passed);
        for nowhere in ["file='' line='12'", "file='a.cc'", "file='a.cc' line='0'"] {
            check_status(nowhere, "<failure message='no'/>", &failed("no"));
        }
        let report = "<a><testcase name='a' file='a.cc' line='1'/><testcase name='b'><failure/></testcase></a>";
        assert_eq!(
            parse(report).expect("is a report").cases[1].status,
            failed("")
        );
    }

    #[test]
    fn a_pass_after_a_failure_is_told_apart() {
        let again = CaseStatus::PassedAgain;
        check_status("", "<flakyFailure message='no'>why</flakyFailure>", &again);
        check_status(
            "status='run'",
            "<flakyError/><system-out>x</system-out>",
            &again,
        );
        let failed = CaseStatus::Failed("no".to_owned());
        check_status(
            "",
            "<failure message='no'/><rerunFailure>why</rerunFailure>",
            &failed,
        );
        check_status("", "<flakyError/><failure message='no'/>", &failed);
        let skipped = CaseStatus::Skipped("late".to_owned());
        check_status("", "<flakyFailure/><skipped message='late'/>", &skipped);
    }

    #[test]
    fn what_only_failed_when_it_ran_again_has_not_passed() {
        let failed = |said: &str| {
            let text = format!(
                "it failed when it ran again{said}, and the report has neither a pass nor a `failure` of it"
            );
            CaseStatus::Failed(text)
        };
        let with_output = "<rerunError/><system-out>x</system-out>";
        check_status("status='run'", with_output, &failed(""));
        let why = "<rerunFailure message='no'>why</rerunFailure>";
        check_status("", why, &failed(" (no)"));
        check_status("", &format!("<flakyFailure/>{why}"), &failed(" (no)"));
        check_status("", &format!("{why}<flakyFailure/>"), &failed(" (no)"));
        let own = CaseStatus::Failed("own".to_owned());
        check_status("", &format!("{why}<failure message='own'/>"), &own);
    }

    #[test]
    fn what_a_failure_did_is_told_by_its_type() {
        for (kind, ends_runner, is_timeout) in [
            ("", false, false),
            ("regatta.runner-ended", true, false),
            ("regatta.timed-out", false, true),
            ("regatta.runner-timed-out", true, true),
            ("TimeoutError", false, false),
        ] {
            let xml = format!("<testcase name='a'><error type='{kind}' message='no'/></testcase>");
            let report = parse(&xml).expect("is a report");
            let case = &report.cases[0];
            assert_eq!(
                (case.ends_runner, case.is_timeout),
                (ends_runner, is_timeout),
                "{kind}"
            );
        }
    }

    #[test]
    fn what_did_not_run_is_no_pass() {
        check_status("status='run' result='completed'", "", &CaseStatus::Passed);
        for attributes in [
            "status='notrun' result='suppressed'",
            "status='run' result='skipped'",
            "result='suppressed'",
            "status='disabled'",
            "status='Skipped'",
        ] {
            check_status(attributes, "", &CaseStatus::Skipped(String::new()));
        }
        let failed = CaseStatus::Failed("no".to_owned());
        check_status("", "<failure message='no'/><skipped/>", &failed);
        check_status("status='skipped'", "<error message='no'/>", &failed);
    }

    #[test]
    fn errors_of_no_test_are_kept() {
        let xml = "<testsuites><testsuite><error message='setup'>it broke</error>\
            <testcase name='a'/><failure>late</failure></testsuite></testsuites>";
        let report = parse(xml).expect("is a report");
        assert_eq!(report.errors, ["setup\nit broke", "late"]);
        assert_eq!(report.cases[0].status, CaseStatus::Passed);
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        assert!(matches!(
            parse("<a></b>"),
            Err(JunitError::Malformed { .. })
        ));
        assert_eq!(
            parse("<testsuite><testcase name='a'/>"),
            Err(JunitError::Truncated)
        );
        assert_eq!(parse("<testcase/>"), Err(JunitError::Nameless));
    }
}
