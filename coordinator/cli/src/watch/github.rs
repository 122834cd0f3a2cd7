//! Annotations and a step summary, for GitHub Actions.
//!
//! Source: GitHub's documentation, "Workflow commands for GitHub Actions" (escapes, the file in
//! `GITHUB_STEP_SUMMARY`) and "Usage limits" of annotations.

mod markdown;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use regatta_wire::v1::{self, run_event::Event};

use super::tally::is_flaky;
use super::{EventSink, Tally, class_name};

/// How many errors, and how many warnings, GitHub shows of one step.
const MOST_ANNOTATIONS: usize = 10;
/// How long a message of an annotation may become, in bytes; GitHub cuts those of more than 4 KiB.
const MOST_MESSAGE_BYTES: usize = 3 << 10;

/// Collects what went wrong, and in the end annotates the commit with it and writes the summary.
///
/// Annotations go to standard error, where GitHub reads them as well: standard output may be a program's.
#[derive(Debug)]
pub struct GithubReport<W> {
    annotations: W,
    summary: Option<PathBuf>,
    tally: Tally,
    notes: Vec<Note>,
}

/// Something worth an annotation.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Note {
    kind: Kind,
    /// The same in a word or two.
    what: &'static str,
    title: String,
    message: String,
    place: Option<Place>,
}

/// In the order of importance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    FailedBuild,
    FailedSuite,
    FailedTest,
    NoAnswer,
    Flaky,
}

/// Where in the source something failed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    file: String,
    line: u32,
}

impl GithubReport<io::Stderr> {
    /// A report for the step that this process runs in; `None` outside of GitHub Actions.
    #[must_use]
    pub fn of_this_step() -> Option<Self> {
        let is_there = std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true");
        is_there.then(|| {
            let summary = std::env::var_os("GITHUB_STEP_SUMMARY").map(PathBuf::from);
            Self::new(io::stderr(), summary)
        })
    }
}

impl<W: Write> GithubReport<W> {
    /// A report whose annotations are written to `annotations`, and its summary added to a file.
    #[must_use]
    pub fn new(annotations: W, summary: Option<PathBuf>) -> Self {
        Self {
            annotations,
            summary,
            tally: Tally::default(),
            notes: Vec::new(),
        }
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
        let message = match kind {
            Kind::Flaky => format!("passed at attempt {}", result.attempts),
            _ => {
                let parts = [result.message.as_str(), &outputs[0], &outputs[1]];
                let said = parts.map(str::trim);
                let said = said.iter().filter(|part| !part.is_empty());
                said.copied().collect::<Vec<_>>().join("\n")
            }
        };
        self.notes.push(Note {
            kind,
            what,
            title: format!("{} {}", result.job, result.test_id),
            place: outputs.iter().find_map(|text| panic_place(text)),
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

    fn annotate(&mut self) -> io::Result<()> {
        let (warnings, errors): (Vec<_>, Vec<_>) =
            self.notes.iter().partition(|note| note.kind == Kind::Flaky);
        for (command, notes) in [("error", errors), ("warning", warnings)] {
            for note in notes.iter().take(MOST_ANNOTATIONS) {
                writeln!(self.annotations, "{}", annotation(command, note))?;
            }
        }
        Ok(())
    }
}

impl<W: Write> EventSink for GithubReport<W> {
    fn event(&mut self, event: &v1::RunEvent) -> io::Result<()> {
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
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        // What comes first stays first within its kind.
        self.notes.sort_by_key(|note| note.kind);
        self.annotate()?;
        let Some(path) = &self.summary else {
            return Ok(());
        };
        let text = markdown::summary(&self.tally, &self.notes);
        let file = File::options().create(true).append(true).open(path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| {
            let message = format!("the step summary {}: {error}", path.display());
            io::Error::new(error.kind(), message)
        })
    }
}

/// `::error file=src/lib.rs,line=7,title=job test::what it said`
fn annotation(command: &str, note: &Note) -> String {
    let place = note.place.as_ref().map(|place| {
        let file = escaped_property(&place.file);
        format!("file={file},line={},", place.line)
    });
    format!(
        "::{command} {}title={}::{}",
        place.unwrap_or_default(),
        escaped_property(&note.title),
        escaped(shortened(&note.message, MOST_MESSAGE_BYTES))
    )
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn escaped_property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}

/// As much of a text as may be, in bytes.
fn shortened(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Where a Rust test says that it panicked: `panicked at src/lib.rs:7:5:`.
fn panic_place(output: &str) -> Option<Place> {
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

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::*;

    fn written(events: &[v1::RunEvent]) -> (String, String) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let summary = directory.path().join("summary.md");
        std::fs::write(&summary, "what another step wrote\n").expect("it is written");
        let mut annotations = Vec::new();
        let mut report = GithubReport::new(&mut annotations, Some(summary.clone()));
        for event in events {
            report.event(event).expect("memory takes it");
        }
        report.finish().expect("it is written");
        let annotations = String::from_utf8(annotations).expect("UTF-8");
        (
            annotations,
            std::fs::read_to_string(summary).expect("it is there"),
        )
    }

    #[test]
    fn failures_annotate_the_commit_and_the_summary_has_all() {
        let (annotations, summary) = written(&recorded::mixed_run());
        assert_eq!(
            annotations,
            "::error title=alpha broken::exit code 101%0Awhere it was%0Aassertion failed%0Aa note\n\
             ::warning title=alpha shaky::passed at attempt 2\n"
        );
        assert_eq!(summary, include_str!("github/mixed_run.md"));
    }

    #[test]
    fn builds_come_before_tests_and_flakes_last() {
        let (annotations, summary) = written(&recorded::build_run());
        assert_eq!(
            annotations,
            "::error title=compile::exit code 2\n::warning title=fetch::passed at attempt 2\n"
        );
        assert!(summary.contains("| build | compile |"), "{summary}");
    }

    #[test]
    fn a_good_run_annotates_nothing() {
        let (annotations, summary) = written(&recorded::cached_run());
        assert_eq!(annotations, "");
        assert!(summary.contains("## Regatta: RELEASABLE"), "{summary}");
    }

    #[test]
    fn what_would_end_a_command_is_escaped() {
        let note = Note {
            kind: Kind::FailedTest,
            what: "test",
            title: "a:b, c".to_owned(),
            message: "100%\r\n::error::no".to_owned(),
            place: panic_place("thread 'x' panicked at src/a,b.rs:12:5:\nno"),
        };
        assert_eq!(
            annotation("error", &note),
            "::error file=src/a%2Cb.rs,line=12,title=a%3Ab%2C c::100%25%0D%0A::error::no"
        );
    }

    #[test]
    fn a_place_is_one_in_the_repository() {
        let line = |output: &str| panic_place(output).map(|place| place.line);
        assert_eq!(line("thread 'x' panicked at src/lib.rs:7:5:\nno"), Some(7));
        assert_eq!(line("panicked at /rustc/x/library/core.rs:7:5:"), None);
        assert_eq!(line("panicked at midnight"), None);
        assert_eq!(line(""), None);
    }

    #[test]
    fn no_more_is_annotated_than_is_shown() {
        let result = |number: usize| v1::TestResult {
            job: "j".to_owned(),
            test_id: format!("t{number:03}"),
            status: v1::TestStatus::Failed.into(),
            ..v1::TestResult::default()
        };
        let finished = v1::TestsFinished {
            results: (0..500).map(result).collect(),
        };
        let event = v1::RunEvent {
            sequence: 1,
            time: None,
            event: Some(Event::TestsFinished(finished)),
        };
        let (annotations, summary) = written(&[event]);
        assert_eq!(annotations.lines().count(), MOST_ANNOTATIONS);
        assert!(summary.contains("and 450 more"), "{summary}");
    }
}
