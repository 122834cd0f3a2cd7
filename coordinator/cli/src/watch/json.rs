//! Runs as newline-delimited JSON, for programs (`--message-format json`).
//!
//! Each line of standard output is one object with a `type`. The first is
//! `{"type":"hello","version":1,"regatta":"0.1.0"}`; `version` changes when a reader would have to. New
//! types and new fields may appear without that: ignore what you do not know. Durations are seconds,
//! digests `hash/size`, output text with what is no UTF-8 replaced.
//!
//! | type | fields |
//! | --- | --- |
//! | `hello` | `version`, `regatta` (the program's version) |
//! | `run-submitted` | `run_id`, `warnings` |
//! | `run-started` | `jobs` (names) |
//! | `job-started` | `job`: what it needs has passed |
//! | `job-leased` | `job`: a slot has taken the first of its work |
//! | `suite-planned` | `job`, `planned`, `cached`, `skipped` |
//! | `test` | `job`, `test`, `status` (`passed`, `cached`, `flaky`, `skipped`, `failed`, `not-run`, `quarantined`), `failure_class`?, `duration`, `attempts`, `exit_code`?, `message`?, `agent`?, `slot`?, `image`?, `key`?, `stdout`?, `stderr`?, `stdout_digest`?, `stderr_digest`?, `cached_from`? (the run), `is_audit`? (in the place of a cached pass or skip that did not hold) |
//! | `hits-audited` | `job`, `agreed`: cached passes that were executed again, and passed |
//! | `test-retried` | as `test`, of the failed attempt, and `next_attempt` |
//! | `build-retried` | as `job-finished`, of the failed attempt, and `next_attempt` |
//! | `test-slow` | `job`, `test`, `others`, `running`, `agent`, `duplicate_agent`?: it still runs, and `others` with it; another agent begins them again |
//! | `output` | `job`, `test`?, `stream` (`stdout`, `stderr`), `offset`, `text` |
//! | `job-finished` | `job`, `status` (`passed`, `failed`, `cancelled`, `not-run`, `unknown`), `failure_class`?, `message`?, `cached`, `duration`, `attempts`? (of a build; more than one that ends in `passed` are flaky), `counts`?, `exit_code`?, `agent`?, `slot`?, `image`? |
//! | `warning` | `job`?, `message` |
//! | `infrastructure-retry` | `job`, `test`?, `agent`, `message`, `next_attempt` |
//! | `run-finished` | `verdict` (`RELEASABLE`, `NOT_RELEASABLE`, `UNKNOWN`), `reasons`, `counts`, `duration`, `leases`, `cancelled` |
//! | `suite-plan` (of `--plan`, instead of a run) | `job`, `planned`, `cached`, `skipped`, `from_history`, `from_neighbours`, `from_suite`, `unknown`, `work`, `longest`, `longest_test`, `slots`, `lower_bound`?, `makespan`?, `batch_overhead`, `batches`, `first_batches` (`begins`, `takes`, `tests`, `first_test`) |
//! | `build-plan` | `job`, `cached` |
//! | `unplanned` | `job`, `message`: why nothing can be said of it |
//! | `run-plan` | `slots`, `lower_bound`?, `makespan`?, `warnings` |
//! | `error` | `message`, `exit_code` |
//!
//! Fields marked `?` are left out when there is nothing to say.

mod line;
mod plan;

use std::io::{self, Write};

use regatta_wire::reapi;
use regatta_wire::v1::{self, run_event::Event};

use super::lines::verdict_word;
use line::{Counts, InfrastructureRetry, Job, Line, Output, Provenance, Run, Test, write_line};
pub(crate) use plan::json_plan;

use super::{EventSink, class_name, shown_duration};

/// The version of the schema.
pub const VERSION: u32 = 1;

/// Writes the first line, which says which version this is.
///
/// # Errors
/// It cannot be written.
pub fn hello(mut writer: impl Write) -> io::Result<()> {
    let hello = Line::Hello {
        version: VERSION,
        regatta: env!("CARGO_PKG_VERSION"),
    };
    write_line(&mut writer, &hello)
}

/// Writes that the command failed and ends with this exit code.
///
/// # Errors
/// It cannot be written.
pub fn error(mut writer: impl Write, message: &str, exit_code: u8) -> io::Result<()> {
    write_line(&mut writer, &Line::Error { message, exit_code })
}

/// Writes a run as NDJSON.
#[derive(Debug)]
pub struct JsonReport<W> {
    writer: W,
    /// Whether somebody else writes the output of jobs.
    without_output: bool,
}

impl<W: Write> JsonReport<W> {
    /// A report whose first line, [`hello`], has been written.
    pub const fn new(writer: W) -> Self {
        Self {
            writer,
            without_output: false,
        }
    }

    /// Leaves the output of jobs to a [`JsonOutput`], which has all of it.
    #[must_use]
    pub fn without_output(self) -> Self {
        Self {
            without_output: true,
            ..self
        }
    }

    /// The run has been accepted.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn submitted(&mut self, run_id: &str, warnings: &[String]) -> io::Result<()> {
        self.write(&Line::RunSubmitted { run_id, warnings })
    }

    fn write(&mut self, line: &Line<'_>) -> io::Result<()> {
        write_line(&mut self.writer, line)
    }

    fn write_event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::RunStarted(started) => {
                let jobs = started.spec.as_ref().map_or(&[][..], |spec| &spec.jobs);
                let jobs = jobs.iter().map(|job| job.name.as_str()).collect();
                self.write(&Line::RunStarted { jobs })
            }
            Event::JobStarted(started) => self.write(&Line::JobStarted { job: &started.job }),
            Event::JobLeased(leased) => self.write(&Line::JobLeased { job: &leased.job }),
            Event::SuitePlanned(suite) => self.write(&planned(suite)),
            Event::TestsFinished(finished) => finished
                .results
                .iter()
                .try_for_each(|result| self.write(&Line::Test(test(result)))),
            Event::HitsAudited(v1::HitsAudited { job, agreed }) => self.write(&Line::HitsAudited {
                job,
                agreed: *agreed,
            }),
            Event::RunResumed(v1::RunResumed {}) => self.write(&Line::RunResumed {}),
            Event::CancelRequested(v1::CancelRequested {}) => self.write(&Line::CancelRequested {}),
            Event::SuiteComplained(complained) => self.write(&Line::SuiteComplained {
                job: &complained.job,
                message: &complained.message,
            }),
            // How many held is told once all of them have ended.
            Event::HitsExecuted(_) => Ok(()),
            // A warning says the same.
            Event::BatchUnexplained(_) => Ok(()),
            Event::TestRetried(retried) => match &retried.result {
                Some(result) => self.write(&Line::TestRetried {
                    attempt: test(result),
                    next_attempt: retried.next_attempt,
                }),
                None => Ok(()),
            },
            Event::BuildRetried(retried) => match &retried.attempt {
                Some(attempt) => self.write(&Line::BuildRetried {
                    attempt: job(attempt),
                    next_attempt: retried.next_attempt,
                }),
                None => Ok(()),
            },
            Event::JobOutput(_) if self.without_output => Ok(()),
            Event::JobOutput(piece) => self.write(&Line::Output(output(piece))),
            Event::JobFinished(finished) => self.write(&Line::JobFinished(job(finished))),
            Event::InfrastructureRetry(retry) => {
                self.write(&Line::InfrastructureRetry(infrastructure_retry(retry)))
            }
            Event::TestSlow(slow) => self.write(&Line::TestSlow {
                job: &slow.job,
                test: &slow.test_id,
                others: slow.others,
                running: shown_duration(slow.running.as_ref()).as_secs_f64(),
                agent: &slow.agent_id,
                duplicate_agent: &slow.duplicate_agent_id,
            }),
            Event::Warning(warning) => self.write(&Line::Warning {
                job: &warning.job,
                message: &warning.message,
            }),
            Event::RunFinished(finished) => self.write(&Line::RunFinished(run(finished))),
        }
    }
}

fn planned(suite: &v1::SuitePlanned) -> Line<'_> {
    let v1::SuitePlanned {
        job,
        planned,
        cached,
        skipped,
        plan: _,
    } = suite;
    let (planned, cached, skipped) = (*planned, *cached, *skipped);
    Line::SuitePlanned {
        job,
        planned,
        cached,
        skipped,
    }
}

fn infrastructure_retry(retry: &v1::InfrastructureRetry) -> InfrastructureRetry<'_> {
    InfrastructureRetry {
        job: &retry.job,
        test: &retry.test_id,
        agent: &retry.agent_id,
        message: &retry.message,
        next_attempt: retry.next_attempt,
    }
}

/// Takes the bytes of an output stream and writes them as `output` lines.
#[derive(Debug)]
pub struct JsonOutput<W> {
    writer: W,
    job: &'static str,
    stream: &'static str,
    offset: u64,
}

impl<W: Write> JsonOutput<W> {
    /// A stream of `job`, from its beginning.
    pub fn new(writer: W, job: &'static str, stream: v1::OutputStream) -> Self {
        Self {
            writer,
            job,
            stream: stream_name(stream),
            offset: 0,
        }
    }
}

impl<W: Write> Write for JsonOutput<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = Line::Output(Output {
            job: self.job,
            test: "",
            stream: self.stream,
            offset: self.offset,
            text: String::from_utf8_lossy(bytes).into_owned(),
        });
        if !bytes.is_empty() {
            write_line(&mut self.writer, &line)?;
        }
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl<W: Write> EventSink for JsonReport<W> {
    fn event(&mut self, event: &v1::RunEvent) -> io::Result<()> {
        match &event.event {
            Some(event) => self.write_event(event),
            None => Ok(()),
        }
    }
}

fn test(result: &v1::TestResult) -> Test<'_> {
    let failed = matches!(
        result.status(),
        v1::TestStatus::Failed | v1::TestStatus::Quarantined
    );
    Test {
        job: &result.job,
        test: &result.test_id,
        status: status_name(result.status()),
        failure_class: failed.then(|| class_name(result.failure_class())),
        duration: shown_duration(result.duration.as_ref()).as_secs_f64(),
        attempts: result.attempts,
        exit_code: result.exit_code,
        message: &result.message,
        provenance: provenance(result.r#where.as_ref()),
        key: result.key.as_ref().map(digest),
        stdout: String::from_utf8_lossy(&result.stdout_tail).into_owned(),
        stderr: String::from_utf8_lossy(&result.stderr_tail).into_owned(),
        stdout_digest: result.stdout_digest.as_ref().map(digest),
        stderr_digest: result.stderr_digest.as_ref().map(digest),
        cached_from: &result.cached_from,
        is_audit: result.is_audit,
    }
}

fn output(piece: &v1::JobOutput) -> Output<'_> {
    Output {
        job: &piece.job,
        test: &piece.test_id,
        stream: stream_name(piece.stream()),
        offset: piece.offset,
        text: String::from_utf8_lossy(&piece.data).into_owned(),
    }
}

fn run(finished: &v1::RunFinished) -> Run<'_> {
    Run {
        verdict: verdict_word(finished.verdict()).1,
        reasons: &finished.reasons,
        counts: finished.counts.as_ref().map(counts).unwrap_or_default(),
        duration: shown_duration(finished.duration.as_ref()).as_secs_f64(),
        leases: finished.leases,
        cancelled: finished.cancelled,
    }
}

fn job(finished: &v1::JobFinished) -> Job<'_> {
    let failed = finished.status() == v1::JobStatus::Failed;
    Job {
        job: &finished.job,
        status: match finished.status() {
            v1::JobStatus::Passed => "passed",
            v1::JobStatus::Failed => "failed",
            v1::JobStatus::Cancelled => "cancelled",
            v1::JobStatus::NotRun => "not-run",
            v1::JobStatus::Unknown | v1::JobStatus::Unspecified => "unknown",
        },
        failure_class: failed.then(|| class_name(finished.failure_class())),
        message: &finished.message,
        cached: finished.cached,
        duration: shown_duration(finished.duration.as_ref()).as_secs_f64(),
        attempts: Some(finished.attempts).filter(|attempts| *attempts > 0),
        counts: finished.counts.as_ref().map(counts),
        exit_code: finished.result.as_ref().map(|result| result.exit_code),
        provenance: provenance(finished.r#where.as_ref()),
        cached_from: &finished.cached_from,
    }
}

fn provenance(provenance: Option<&v1::Provenance>) -> Provenance<'_> {
    provenance.map_or_else(Provenance::default, |provenance| Provenance {
        agent: Some(&provenance.agent_id),
        slot: Some(provenance.slot),
        image: Some(provenance.image_id.as_str()).filter(|image| !image.is_empty()),
    })
}

fn digest(digest: &reapi::Digest) -> String {
    format!("{}/{}", digest.hash, digest.size_bytes)
}

fn counts(counts: &v1::Counts) -> Counts {
    let v1::Counts {
        planned,
        passed,
        flaky,
        failed,
        cached,
        skipped,
        not_run,
        quarantined,
    } = *counts;
    Counts {
        planned,
        passed,
        flaky,
        failed,
        cached,
        skipped,
        not_run,
        quarantined,
    }
}

fn status_name(status: v1::TestStatus) -> &'static str {
    match status {
        v1::TestStatus::Passed => "passed",
        v1::TestStatus::Cached => "cached",
        v1::TestStatus::Flaky => "flaky",
        v1::TestStatus::Skipped => "skipped",
        v1::TestStatus::Failed => "failed",
        v1::TestStatus::Quarantined => "quarantined",
        v1::TestStatus::NotRun => "not-run",
        v1::TestStatus::Unspecified => "unknown",
    }
}

fn stream_name(stream: v1::OutputStream) -> &'static str {
    match stream {
        v1::OutputStream::Stdout | v1::OutputStream::Unspecified => "stdout",
        v1::OutputStream::Stderr => "stderr",
    }
}

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::*;

    #[test]
    fn a_run_is_one_object_a_line_and_the_first_says_the_version() {
        let mut bytes = Vec::new();
        hello(&mut bytes).expect("memory takes it");
        let mut report = JsonReport::new(&mut bytes);
        report.submitted("r1", &[]).expect("memory takes it");
        for event in recorded::mixed_run() {
            report.event(&event).expect("memory takes it");
        }
        error(&mut bytes, "it broke", 98).expect("memory takes it");
        let text = String::from_utf8(bytes).expect("JSON is UTF-8");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let kinds: Vec<_> = lines
            .iter()
            .map(|line| line["type"].as_str().unwrap_or("?"))
            .collect();
        assert_eq!(
            kinds,
            [
                "hello",
                "run-submitted",
                "run-started",
                "job-started",
                "suite-planned",
                "test",
                "test",
                "test",
                "test-retried",
                "test",
                "test",
                "infrastructure-retry",
                "test-slow",
                "test",
                "job-finished",
                "run-finished",
                "error"
            ]
        );
        let hello = text.lines().next().expect("there is one");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            hello,
            format!(r#"{{"type":"hello","version":1,"regatta":"{version}"}}"#)
        );
        let broken = &lines[9];
        assert_eq!(broken["test"], "broken");
        assert_eq!(broken["failure_class"], "test");
        assert_eq!(broken["stdout"], "assertion failed\n");
        assert_eq!(broken["agent"], "one");
        assert_eq!(lines[8]["next_attempt"], 2);
        assert_eq!(lines[15]["verdict"], "NOT_RELEASABLE");
    }
}
