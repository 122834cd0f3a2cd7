//! Annotations and a step summary, for GitHub Actions.
//!
//! Source: GitHub's documentation, "Workflow commands for GitHub Actions" (escapes, the file in
//! `GITHUB_STEP_SUMMARY`) and "Usage limits" of annotations.

mod markdown;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use regatta_wire::v1;
use uuid::Uuid;

use super::EventSink;
use super::notes::{Kind, Note, Notes, shortened};
use super::place::Project;

/// How many errors, and how many warnings, GitHub shows of one step.
const MOST_ANNOTATIONS: usize = 10;
/// How long a message of an annotation may become, in bytes; GitHub cuts those of more than 4 KiB.
const MOST_MESSAGE_BYTES: usize = 3 << 10;

/// Collects what went wrong, and in the end annotates the commit with it and writes the summary.
///
/// Annotations go to standard error, where GitHub reads them as well: standard output may be a program's. What tests
/// print is in the same log, and GitHub obeys what looks like one of its commands: until the annotations are written,
/// it is told not to.
#[derive(Debug)]
pub struct GithubReport<W: Write> {
    annotations: W,
    /// What has GitHub obey commands again, as long as it does not.
    resume: Option<String>,
    summary: Option<PathBuf>,
    notes: Notes,
}

impl GithubReport<io::Stderr> {
    /// A report of a project's run for the step that this process runs in; `None` outside of GitHub Actions.
    pub(crate) fn of_this_step(project: &Path) -> Option<Self> {
        let is_there = std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true");
        is_there.then(|| {
            let summary = std::env::var_os("GITHUB_STEP_SUMMARY").map(PathBuf::from);
            let mut report = Self::new(io::stderr(), summary);
            report.notes = Notes::of(Project::at(project));
            report.stop_commands(&Uuid::new_v4().simple().to_string());
            report
        })
    }
}

impl<W: Write> GithubReport<W> {
    /// A report whose annotations are written to `annotations`, and its summary added to a file.
    #[must_use]
    pub fn new(annotations: W, summary: Option<PathBuf>) -> Self {
        Self {
            annotations,
            resume: None,
            summary,
            notes: Notes::default(),
        }
    }

    /// Has GitHub obey no command ("Stopping and starting workflow commands") before it meets a token that nobody else
    /// knows.
    fn stop_commands(&mut self, token: &str) {
        if writeln!(self.annotations, "::stop-commands::{token}").is_ok() {
            self.resume = Some(format!("::{token}::"));
        }
    }

    fn resume_commands(&mut self) -> io::Result<()> {
        match self.resume.take() {
            Some(resume) => writeln!(self.annotations, "{resume}"),
            None => Ok(()),
        }
    }
}

/// Whatever comes after this in the same step may have commands of its own.
impl<W: Write> Drop for GithubReport<W> {
    fn drop(&mut self) {
        // Nobody is left to be told.
        drop(self.resume_commands());
    }
}

fn annotate(annotations: &mut impl Write, notes: &[Note]) -> io::Result<()> {
    let (warnings, errors): (Vec<_>, Vec<_>) =
        notes.iter().partition(|note| note.kind == Kind::Flaky);
    for (command, notes) in [("error", errors), ("warning", warnings)] {
        for note in notes.iter().take(MOST_ANNOTATIONS) {
            writeln!(annotations, "{}", annotation(command, note))?;
        }
    }
    Ok(())
}

impl<W: Write> EventSink for GithubReport<W> {
    fn event(&mut self, event: &v1::RunEvent) -> io::Result<()> {
        self.notes.event(event);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.resume_commands()?;
        annotate(&mut self.annotations, self.notes.sorted())?;
        let Some(path) = &self.summary else {
            return Ok(());
        };
        let tally = self.notes.tally.clone();
        let text = markdown::summary(&tally, self.notes.sorted());
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

#[cfg(test)]
mod tests {
    use regatta_wire::v1::run_event::Event;

    use super::super::place::panic_place;
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
        drop(report);
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
    fn what_tests_print_is_no_command() {
        for is_finished in [true, false] {
            let mut annotations = Vec::new();
            let mut report = GithubReport::new(&mut annotations, None);
            report.stop_commands("secret");
            if is_finished {
                report.finish().expect("memory takes it");
            }
            drop(report);
            let annotations = String::from_utf8(annotations).expect("UTF-8");
            assert_eq!(annotations, "::stop-commands::secret\n::secret::\n");
        }
    }

    #[test]
    fn builds_come_before_tests_and_flakes_last() {
        // The failed test and the flaky one are told before any build, and the flaky build before the failed one.
        let [tests, builds] = [recorded::mixed_run(), recorded::build_run()];
        let events: Vec<_> = tests.into_iter().chain(builds).collect();
        let (annotations, summary) = written(&events);
        let titles = |line: &str| {
            let (command, rest) = line.split_once(" title=").expect("a title");
            format!("{command} {}", rest.split("::").next().unwrap_or_default())
        };
        let titles: Vec<_> = annotations.lines().map(titles).collect();
        let expected = [
            "::error compile",
            "::error alpha broken",
            "::warning alpha shaky",
            "::warning fetch",
        ];
        assert_eq!(titles, expected);
        let places = [
            "| build | compile |",
            "| test | alpha broken |",
            "| flaky | fetch |",
        ];
        let places = places.map(|row| summary.find(row).expect(row));
        assert!(places.is_sorted(), "{summary}");
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
