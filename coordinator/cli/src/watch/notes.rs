//! What went wrong in a run, the most important first: what CI systems are told.

use regatta_wire::v1::{self, run_event::Event};

use super::tally::is_flaky;
use super::{Tally, class_name};

/// Files of these languages, whose tests are named by them.
const FILES_OF_TESTS: [&str; 8] = [".py", ".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts"];

/// Collects what is worth a note.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) tally: Tally,
    notes: Vec<Note>,
}

/// Something worth a note.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Note {
    pub(super) kind: Kind,
    /// The same in a word or two.
    pub(super) what: &'static str,
    pub(super) title: String,
    pub(super) message: String,
    pub(super) place: Option<Place>,
}

/// In the order of importance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    FailedBuild,
    FailedSuite,
    FailedTest,
    NoAnswer,
    Flaky,
}

/// Where in the source something failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// From the root of the repository.
    pub(super) file: String,
    /// From 1.
    pub(super) line: u32,
}

impl Notes {
    pub(super) fn event(&mut self, event: &v1::RunEvent) {
        self.tally.event(event);
        match &event.event {
            Some(Event::TestsFinished(finished)) => {
                for result in &finished.results {
                    self.test_finished(result);
                }
            }
            Some(Event::JobFinished(finished)) => self.job_finished(finished),
            _ => {}
        }
    }

    /// All of them, the most important first; what comes first stays first within its kind.
    pub(super) fn sorted(&mut self) -> &[Note] {
        self.notes.sort_by_key(|note| note.kind);
        &self.notes
    }

    fn test_finished(&mut self, result: &v1::TestResult) {
        let class = result.failure_class();
        let (kind, what) = match (result.status(), class) {
            (v1::TestStatus::Failed, v1::FailureClass::Infra | v1::FailureClass::Cancelled) => {
                (Kind::NoAnswer, class_name(class))
            }
            (v1::TestStatus::Failed, _) => (Kind::FailedTest, class_name(class)),
            (v1::TestStatus::Flaky, _) => (Kind::Flaky, "flaky"),
            _ => return,
        };
        let outputs = [&result.stdout_tail, &result.stderr_tail];
        let outputs = outputs.map(|bytes| String::from_utf8_lossy(bytes));
        let parts = [result.message.as_str(), &outputs[0], &outputs[1]];
        let message = match kind {
            Kind::Flaky => format!("passed at attempt {}", result.attempts),
            _ => {
                let said = parts.map(str::trim);
                let said = said.iter().filter(|part| !part.is_empty());
                said.copied().collect::<Vec<_>>().join("\n")
            }
        };
        let place = outputs.iter().find_map(|text| panic_place(text));
        let place = place.or_else(|| place_of_test(&result.test_id, &parts));
        self.notes.push(Note {
            kind,
            what,
            title: format!("{} {}", result.job, result.test_id),
            place,
            message,
        });
    }

    fn job_finished(&mut self, finished: &v1::JobFinished) {
        let is_suite = self.tally.is_suite(&finished.job);
        if is_suite && self.tally.is_told_by_tests(finished) {
            return;
        }
        let (kind, what) = match finished.status() {
            v1::JobStatus::Failed if is_suite => (Kind::FailedSuite, "suite"),
            v1::JobStatus::Failed => (Kind::FailedBuild, "build"),
            v1::JobStatus::Unknown | v1::JobStatus::Unspecified => (Kind::NoAnswer, "no answer"),
            v1::JobStatus::Passed if is_flaky(finished) => (Kind::Flaky, "flaky"),
            v1::JobStatus::Passed | v1::JobStatus::Cancelled | v1::JobStatus::NotRun => return,
        };
        let message = match kind {
            Kind::Flaky => format!("passed at attempt {}", finished.attempts),
            _ => finished.message.trim_end().to_owned(),
        };
        self.notes.push(Note {
            kind,
            what,
            title: finished.job.clone(),
            message,
            place: None,
        });
    }
}

/// As much of a text as may be, in bytes.
pub(super) fn shortened(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Where a Rust test says that it panicked: `panicked at src/lib.rs:7:5:`.
pub(super) fn panic_place(output: &str) -> Option<Place> {
    let (_, rest) = output.split_once("panicked at ")?;
    let place = rest.lines().next()?.trim_end_matches(':');
    let (file_and_line, _column) = place.rsplit_once(':')?;
    let (file, line) = file_and_line.rsplit_once(':')?;
    let is_source = !file.starts_with('/') && !file.contains(char::is_whitespace);
    is_source.then_some(())?;
    Some(Place {
        file: file.to_owned(),
        line: line.parse().ok()?,
    })
}

/// The file that a test is named by, as pytest and Jest do it, and the last line of it that is spoken of: that is where a
/// trace ends. The first line of the file, if none is.
fn place_of_test(test: &str, said: &[&str]) -> Option<Place> {
    let file = test.split("::").next()?;
    let is_file = FILES_OF_TESTS.iter().any(|ending| file.ends_with(ending));
    let is_inside = !file.starts_with('/') && !file.split('/').any(|part| part == "..");
    (is_file && is_inside).then(|| Place {
        file: file.to_owned(),
        line: said
            .iter()
            .find_map(|text| last_line_of(file, text))
            .unwrap_or(1),
    })
}

fn last_line_of(file: &str, text: &str) -> Option<u32> {
    let mut after = text.rmatch_indices(file);
    after.find_map(|(at, _)| {
        let rest = text[at + file.len()..].strip_prefix(':')?;
        let digits = rest.find(|it: char| !it.is_ascii_digit());
        let number = &rest[..digits.unwrap_or(rest.len())];
        number.parse().ok().filter(|line| *line > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_in_the_repository() {
        let line = |output: &str| panic_place(output).map(|place| place.line);
        assert_eq!(line("thread 'x' panicked at src/lib.rs:7:5:\nno"), Some(7));
        assert_eq!(line("panicked at /rustc/x/library/core.rs:7:5:"), None);
        assert_eq!(line("panicked at midnight"), None);
        assert_eq!(line(""), None);
    }

    #[track_caller]
    fn check(test: &str, said: &[&str], expected: Option<(&str, u32)>) {
        let place = place_of_test(test, said);
        let place = place.as_ref().map(|it| (it.file.as_str(), it.line));
        assert_eq!(place, expected);
    }

    #[test]
    fn tests_that_are_named_by_files_are_in_them() {
        let trace = "x\nt/a.py:3: in test_b\n    c()\nt/a.py:17: AssertionError\n";
        check("t/a.py::test_b[x]", &["", trace], Some(("t/a.py", 17)));
        check("t/a.py::test_b", &["no trace"], Some(("t/a.py", 1)));
        check(
            "t/a.py::test_b",
            &["t/a.py:0", "t/a.py:x"],
            Some(("t/a.py", 1)),
        );
        let jest = "at src/sum.test.ts:9:5";
        check("src/sum.test.ts", &[jest], Some(("src/sum.test.ts", 9)));
        for test in ["module::test", "Sum.Holds", "/a/b.py::c", "../b.py::c", ""] {
            check(test, &[trace], None);
        }
    }

    #[test]
    fn the_most_important_comes_first() {
        let result = |id: &str, status: v1::TestStatus, class: v1::FailureClass| v1::TestResult {
            job: "unit".to_owned(),
            test_id: id.to_owned(),
            status: status.into(),
            failure_class: class.into(),
            attempts: 2,
            ..v1::TestResult::default()
        };
        let job = |job: &str, status: v1::JobStatus| {
            Event::JobFinished(v1::JobFinished {
                job: job.to_owned(),
                status: status.into(),
                message: "why".to_owned(),
                ..v1::JobFinished::default()
            })
        };
        let (failed, none) = (v1::TestStatus::Failed, v1::FailureClass::Unspecified);
        let results = vec![
            result("shaky", v1::TestStatus::Flaky, none),
            result("gone", failed, v1::FailureClass::Infra),
            result("slow", failed, v1::FailureClass::Timeout),
            result("bad", failed, v1::FailureClass::Test),
        ];
        let suites = v1::RunSpec {
            jobs: vec![v1::Job {
                name: "suite".to_owned(),
                kind: Some(v1::job::Kind::Suite(v1::Suite::default())),
                ..v1::Job::default()
            }],
            ..v1::RunSpec::default()
        };
        let events = [
            Event::RunStarted(v1::RunStarted { spec: Some(suites) }),
            Event::TestsFinished(v1::TestsFinished { results }),
            job("lost", v1::JobStatus::Unknown),
            job("suite", v1::JobStatus::Failed),
            job("compile", v1::JobStatus::Failed),
        ];
        let mut notes = Notes::default();
        for event in events {
            notes.event(&v1::RunEvent {
                sequence: 1,
                time: None,
                event: Some(event),
            });
        }
        let titles: Vec<_> = notes.sorted().iter().map(|it| it.title.as_str()).collect();
        let expected = [
            "compile",
            "suite",
            "unit slow",
            "unit bad",
            "unit gone",
            "lost",
            "unit shaky",
        ];
        assert_eq!(titles, expected);
    }
}
