//! What went wrong in a run, the most important first: what CI systems are told.

use std::collections::BTreeMap;

use regatta_wire::v1::{self, run_event::Event};

use super::place::{Place, Project, panic_place, place_of_test};
use super::tally::is_flaky;
use super::{Tally, class_name};
use crate::terminal::{visible, visible_lines};

/// Collects what is worth a note.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) tally: Tally,
    notes: Vec<Note>,
    /// What was run, if that is here: only of files that are there can it be told that something is said of them.
    project: Option<Project>,
    /// Where each job's processes run, from the root of the project.
    directories: BTreeMap<String, String>,
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

impl Notes {
    /// Notes of a run of this project.
    pub(super) fn of(project: Option<Project>) -> Self {
        Self {
            project,
            ..Self::default()
        }
    }

    pub(super) fn event(&mut self, event: &v1::RunEvent) {
        self.tally.event(event);
        match &event.event {
            Some(Event::RunStarted(started)) => {
                let jobs = started.spec.iter().flat_map(|spec| &spec.jobs);
                let directories = jobs.map(|job| (job.name.clone(), job.working_directory.clone()));
                self.directories = directories.collect();
            }
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
                let said = parts.map(|part| visible_lines(part.trim()));
                let said = said.iter().filter(|part| !part.is_empty());
                said.map(AsRef::as_ref).collect::<Vec<&str>>().join("\n")
            }
        };
        let place = outputs.iter().find_map(|text| panic_place(text));
        let place = place
            .or_else(|| place_of_test(&result.test_id, &parts))
            .or_else(|| self.place_in_project(&result.job, &parts));
        self.notes.push(Note {
            kind,
            what,
            title: visible(&format!("{} {}", result.job, result.test_id)).into_owned(),
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
            _ => visible_lines(finished.message.trim_end()).into_owned(),
        };
        let place = self.place_in_project(&finished.job, &[&message]);
        self.notes.push(Note {
            kind,
            what,
            title: visible(&finished.job).into_owned(),
            message,
            place,
        });
    }

    fn place_in_project(&mut self, job: &str, said: &[&str]) -> Option<Place> {
        let directory = self.directories.get(job).map_or("", String::as_str);
        self.project.as_mut()?.place(directory, said)
    }
}

/// As much of a text as may be, in bytes.
pub(super) fn shortened(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failure_says_of_a_file_is_where_it_is() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join("sum")).expect("it is made");
        std::fs::write(directory.path().join("sum/sum_test.go"), "").expect("it is written");
        let result = |said: &str| v1::TestResult {
            job: "unit".to_owned(),
            test_id: "TestSum".to_owned(),
            status: v1::TestStatus::Failed.into(),
            message: "exit code 1".to_owned(),
            stdout_tail: said.to_owned().into(),
            ..v1::TestResult::default()
        };
        let spec = v1::RunSpec {
            jobs: vec![v1::Job {
                name: "unit".to_owned(),
                working_directory: "sum".to_owned(),
                ..v1::Job::default()
            }],
            ..v1::RunSpec::default()
        };
        let results = vec![result("    sum_test.go:9: is 4"), result("gone.go:9: is 4")];
        let mut notes = Notes::of(Project::at(directory.path()));
        for event in [
            Event::RunStarted(v1::RunStarted { spec: Some(spec) }),
            Event::TestsFinished(v1::TestsFinished { results }),
        ] {
            notes.event(&v1::RunEvent {
                sequence: 1,
                time: None,
                event: Some(event),
            });
        }
        let place = |note: &Note| note.place.as_ref().map(|it| (it.file.clone(), it.line));
        let places: Vec<_> = notes.sorted().iter().map(place).collect();
        assert_eq!(places, [Some(("sum/sum_test.go".to_owned(), 9)), None]);
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
