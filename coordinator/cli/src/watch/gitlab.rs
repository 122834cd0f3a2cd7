//! A Code Quality report and sections of the job's log, for GitLab CI.
//!
//! Source: GitLab's documentation, "Code Quality" (the report's format) and "CI/CD job logs" (custom collapsible
//! sections). A job has the report shown in its merge request by naming it under `artifacts:reports:codequality`.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use regatta_model::Digest;
use regatta_wire::v1;
use serde::Serialize;

use super::EventSink;
use super::notes::{Kind, Note, Notes, shortened};
use super::place::{Place, Project};
use crate::files::FINDINGS_OF_CI;

/// How many findings the report has.
const MOST_FINDINGS: usize = 1000;
/// How many notes the log lists, and of how many it has the output.
const MOST_LINES: usize = 50;
const MOST_OUTPUTS: usize = 20;
/// How much of an output the log repeats, and how much of a message the report, in bytes.
const MOST_OUTPUT_BYTES: usize = 8 << 10;
const MOST_DESCRIPTION_BYTES: usize = 1 << 10;

/// Collects what went wrong, and in the end writes the report and sums up in the job's log.
#[derive(Debug)]
pub struct GitlabReport<W> {
    log: W,
    report: PathBuf,
    /// In seconds since 1970, for the log.
    time: u64,
    notes: Notes,
}

/// What Code Quality calls an issue.
#[derive(Serialize)]
struct Finding<'a> {
    description: String,
    check_name: &'static str,
    fingerprint: String,
    severity: &'static str,
    location: Location<'a>,
}

#[derive(Serialize)]
struct Location<'a> {
    path: &'a str,
    lines: Lines,
}

#[derive(Serialize)]
struct Lines {
    begin: u32,
}

impl GitlabReport<io::Stderr> {
    /// A report of a project's run for the job that this process runs in; `None` outside of GitLab CI.
    pub(crate) fn of_this_job(project: &Path) -> Option<Self> {
        let is_there = std::env::var_os("GITLAB_CI").is_some_and(|value| value == "true");
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = time.map_or(0, |since| since.as_secs());
        is_there.then(|| Self {
            notes: Notes::of(Project::at(project)),
            ..Self::new(io::stderr(), FINDINGS_OF_CI.into(), time)
        })
    }
}

impl<W: Write> GitlabReport<W> {
    /// A report whose sections are written to `log` as of `time`, in seconds since 1970, and its findings to a file.
    #[must_use]
    pub fn new(log: W, report: PathBuf, time: u64) -> Self {
        Self {
            log,
            report,
            time,
            notes: Notes::default(),
        }
    }
}

impl<W: Write> EventSink for GitlabReport<W> {
    fn event(&mut self, event: &v1::RunEvent) -> io::Result<()> {
        self.notes.event(event);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let notes = self.notes.sorted();
        // Without findings as well: a job that names it wants it to be there.
        let json = serde_json::to_vec(&findings(notes)).map_err(io::Error::other)?;
        crate::files::write_atomically(&self.report, &json).map_err(|error| {
            let message = format!("the Code Quality report {}: {error}", self.report.display());
            io::Error::new(error.kind(), message)
        })?;
        let text = sections(notes, self.time);
        self.log.write_all(text.as_bytes())
    }
}

/// Those that are somewhere in the source; nothing else can be shown beside it.
fn findings(notes: &[Note]) -> Vec<Finding<'_>> {
    let mut known = BTreeSet::new();
    let placed = notes.iter().filter_map(|note| {
        let finding = finding(note, note.place.as_ref()?);
        known.insert(finding.fingerprint.clone()).then_some(finding)
    });
    placed.take(MOST_FINDINGS).collect()
}

fn finding<'a>(note: &Note, place: &'a Place) -> Finding<'a> {
    let (check_name, severity) = match note.kind {
        Kind::FailedBuild => ("regatta/failed-build", "blocker"),
        Kind::FailedSuite => ("regatta/failed-suite", "blocker"),
        Kind::FailedTest => ("regatta/failed-test", "critical"),
        Kind::NoAnswer => ("regatta/no-answer", "info"),
        Kind::Flaky => ("regatta/flaky", "minor"),
    };
    // What it said is not a part of it, nor the line: that differs from run to run.
    let identity = format!("{check_name}\0{}\0{}", note.title, place.file);
    let first = note.message.lines().next().unwrap_or_default();
    let description = format!("{} ({}): {first}", note.title, note.what);
    Finding {
        description: shortened(&description, MOST_DESCRIPTION_BYTES).to_owned(),
        check_name,
        fingerprint: Digest::of(identity.as_bytes()).hash_hex(),
        severity,
        location: Location {
            path: &place.file,
            lines: Lines { begin: place.line },
        },
    }
}

/// A section with a line for each note, and a closed one with the output of each that has any.
fn sections(notes: &[Note], time: u64) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let line = |note: &Note| {
        let first = note.message.lines().next().unwrap_or_default();
        let said = format!("{:<9} {}: {first}", note.what, note.title);
        format!("{}\n", shortened(&said, MOST_DESCRIPTION_BYTES))
    };
    let mut lines: String = notes.iter().take(MOST_LINES).map(line).collect();
    if notes.len() > MOST_LINES {
        lines += &format!("and {} more\n", notes.len() - MOST_LINES);
    }
    let mut text = section("regatta", time, "Regatta: what went wrong", &lines);
    let long = notes.iter().filter(|note| note.message.contains('\n'));
    for (note, number) in long.take(MOST_OUTPUTS).zip(1..) {
        let name = format!("regatta_{number}[collapsed=true]");
        let mut output = shortened(&note.message, MOST_OUTPUT_BYTES).to_owned();
        output.push('\n');
        let title = shortened(&note.title, MOST_DESCRIPTION_BYTES);
        text += &section(&name, time, title, &output);
    }
    text
}

/// A section as GitLab's log has it. Options of its name stand at its beginning alone.
fn section(name: &str, time: u64, title: &str, text: &str) -> String {
    let end = name.split('[').next().unwrap_or(name);
    format!(
        "\x1b[0Ksection_start:{time}:{name}\r\x1b[0K{}\n{}\x1b[0Ksection_end:{time}:{end}\r\x1b[0K\n",
        plain(title),
        plain(text)
    )
}

/// A text that cannot begin or end a section.
fn plain(text: &str) -> String {
    text.replace(['\x1b', '\r'], "")
}

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::*;

    fn written(events: &[v1::RunEvent]) -> (String, serde_json::Value) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join(FINDINGS_OF_CI);
        let mut log = Vec::new();
        let mut report = GitlabReport::new(&mut log, file.clone(), 7);
        for event in events {
            report.event(event).expect("memory takes it");
        }
        report.finish().expect("it is written");
        let json = std::fs::read(file).expect("it is there");
        (
            String::from_utf8(log).expect("UTF-8"),
            serde_json::from_slice(&json).expect("JSON"),
        )
    }

    #[test]
    fn the_log_has_what_went_wrong_first_and_outputs_closed() {
        let (log, findings) = written(&recorded::mixed_run());
        let expected = "\x1b[0Ksection_start:7:regatta\r\x1b[0KRegatta: what went wrong\n\
            test      alpha broken: exit code 101\n\
            flaky     alpha shaky: passed at attempt 2\n\
            \x1b[0Ksection_end:7:regatta\r\x1b[0K\n\
            \x1b[0Ksection_start:7:regatta_1[collapsed=true]\r\x1b[0Kalpha broken\n\
            exit code 101\nwhere it was\nassertion failed\na note\n\
            \x1b[0Ksection_end:7:regatta_1\r\x1b[0K\n";
        assert_eq!(log, expected);
        assert_eq!(findings, serde_json::json!([]), "they are nowhere");
    }

    #[test]
    fn a_good_run_leaves_an_empty_report_and_the_log_alone() {
        let (log, findings) = written(&recorded::cached_run());
        assert_eq!((log.as_str(), findings), ("", serde_json::json!([])));
    }

    fn in_pytest(status: v1::TestStatus, message: &str) -> v1::RunEvent {
        let result = v1::TestResult {
            job: "unit".to_owned(),
            test_id: "t/a.py::test_b".to_owned(),
            status: status.into(),
            message: message.to_owned(),
            attempts: 2,
            ..v1::TestResult::default()
        };
        v1::RunEvent {
            sequence: 1,
            time: None,
            event: Some(v1::run_event::Event::TestsFinished(v1::TestsFinished {
                results: vec![result],
            })),
        }
    }

    #[test]
    fn what_is_in_a_file_is_a_finding_beside_it() {
        let (_, findings) = written(&[in_pytest(
            v1::TestStatus::Failed,
            "it is 3\nt/a.py:12: AssertionError",
        )]);
        let finding = &findings[0];
        assert_eq!(
            finding["description"],
            "unit t/a.py::test_b (test): it is 3"
        );
        assert_eq!(finding["check_name"], "regatta/failed-test");
        assert_eq!(finding["severity"], "critical");
        let location = serde_json::json!({"path": "t/a.py", "lines": {"begin": 12}});
        assert_eq!(finding["location"], location);

        let (_, moved) = written(&[in_pytest(v1::TestStatus::Failed, "it is 4\nt/a.py:13: no")]);
        assert_eq!(moved[0]["fingerprint"], finding["fingerprint"]);
        let (_, flaky) = written(&[in_pytest(v1::TestStatus::Flaky, "")]);
        assert_eq!(flaky[0]["severity"], "minor");
        assert_ne!(flaky[0]["fingerprint"], finding["fingerprint"]);
    }

    #[test]
    fn an_output_cannot_end_its_section() {
        let evil = "no\n\x1b[0Ksection_end:7:regatta_1\r\x1b[0K\nstill inside";
        let (log, _) = written(&[in_pytest(v1::TestStatus::Failed, evil)]);
        let ends = log.matches("\x1b[0Ksection_end:").count();
        assert_eq!(ends, 2, "{log:?}");
    }

    #[test]
    fn no_more_is_found_than_the_report_has() {
        let result = |number: usize| v1::TestResult {
            job: "j".to_owned(),
            test_id: format!("t.py::t{number}"),
            status: v1::TestStatus::Failed.into(),
            ..v1::TestResult::default()
        };
        let results = (0..MOST_FINDINGS + 5).map(result).collect();
        let event = v1::run_event::Event::TestsFinished(v1::TestsFinished { results });
        let (log, findings) = written(&[v1::RunEvent {
            sequence: 1,
            time: None,
            event: Some(event),
        }]);
        assert_eq!(findings.as_array().map(Vec::len), Some(MOST_FINDINGS));
        assert!(log.contains("and 955 more\n"), "{log}");
    }
}
