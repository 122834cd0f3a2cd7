//! The report of a run for people.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use regatta_wire::v1::{self, run_event::Event};

use super::lines::{Paint, Tone};
use super::live::LiveOutput;
use super::{EventSink, Screen, Tally, shown_duration};
use crate::terminal::{visible, visible_lines};

/// Which results are shown as they happen; each level shows those before it, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, clap::ValueEnum)]
pub enum StatusLevel {
    /// None.
    None,
    /// Failures.
    Fail,
    /// Tests and builds that failed and are tried again.
    Retry,
    /// Tests that took long.
    #[default]
    Slow,
    /// Tests that passed.
    Pass,
    /// Tests whose pass is known from the cache.
    Cached,
    /// Everything, skipped tests included.
    All,
}

/// What a report shows.
#[derive(Clone, Copy, Debug)]
pub struct ReportOptions {
    /// Whether lines are coloured.
    pub paint: Paint,
    /// Which results are shown.
    pub level: StatusLevel,
    /// Whether the output of jobs and tests is shown as it appears, or only if they fail.
    pub live_output: bool,
}

/// A test that ran for longer is shown as slow.
const SLOW: Duration = Duration::from_secs(60);
/// How much of a build job's output is kept here, to be shown if it fails.
const OUTPUT_KEPT_BYTES: usize = 64 << 10;

/// Shows failures as they happen, and in the end the summary and the verdict.
#[derive(Debug)]
pub struct HumanReport<S> {
    options: ReportOptions,
    screen: S,
    tally: Tally,
    failures: Vec<String>,
    outputs: BTreeMap<String, Vec<u8>>,
    /// Set if output is shown as it appears.
    live: Option<LiveOutput>,
}

impl<S: Screen> HumanReport<S> {
    /// A report of a run of which nothing is known yet.
    pub fn new(options: ReportOptions, screen: S) -> Self {
        Self {
            options,
            screen,
            tally: Tally::default(),
            failures: Vec::new(),
            outputs: BTreeMap::new(),
            live: options.live_output.then(LiveOutput::default),
        }
    }

    /// How far the run has come.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    fn test_finished(&mut self, result: &v1::TestResult) -> io::Result<()> {
        if let Some(live) = &mut self.live {
            live.rest_of_test(&mut self.screen, result)?;
        }
        let paint = self.options.paint;
        let line = paint.result_line(result);
        if result.status() == v1::TestStatus::Failed {
            self.failures.push(line.clone());
        }
        if level_of(result) > self.options.level {
            return Ok(());
        }
        self.screen.result(&line)?;
        if result.is_audit || result.status() == v1::TestStatus::Failed {
            self.screen_block(&paint.output_block(result))?;
        }
        Ok(())
    }

    fn screen_block(&mut self, block: &str) -> io::Result<()> {
        if block.is_empty() {
            return Ok(());
        }
        self.screen.result(&format!("{block}\n"))
    }

    fn test_retried(&mut self, retried: &v1::TestRetried) -> io::Result<()> {
        let Some(result) = &retried.result else {
            return Ok(());
        };
        if let Some(live) = &mut self.live {
            live.rest_of_test(&mut self.screen, result)?;
        }
        if self.options.level < StatusLevel::Retry {
            return Ok(());
        }
        self.screen.result(&self.options.paint.retry_line(result))?;
        let block = self.options.paint.output_block(result);
        self.screen_block(&block)
    }

    fn build_retried(&mut self, retried: &v1::BuildRetried) -> io::Result<()> {
        let Some(attempt) = &retried.attempt else {
            return Ok(());
        };
        if let Some(live) = &mut self.live {
            live.rest_of_job(&mut self.screen, attempt)?;
        }
        let output = self.outputs.remove(&attempt.job).unwrap_or_default();
        if self.options.level < StatusLevel::Retry {
            return Ok(());
        }
        let line = self.options.paint.job_retry_line(attempt);
        self.screen.result(&line)?;
        let block = self.job_output_block(attempt, &output);
        self.screen_block(&block)
    }

    fn test_slow(&mut self, slow: &v1::TestSlow) -> io::Result<()> {
        if self.options.level < StatusLevel::Slow {
            return Ok(());
        }
        self.screen.note(&self.options.paint.slow_line(slow))
    }

    fn job_output(&mut self, output: &v1::JobOutput) -> io::Result<()> {
        if let Some(live) = &mut self.live {
            return live.piece(&mut self.screen, output);
        }
        if !output.test_id.is_empty() {
            return Ok(());
        }
        let kept = self.outputs.entry(output.job.clone()).or_default();
        kept.extend_from_slice(&output.data);
        let excess = kept.len().saturating_sub(OUTPUT_KEPT_BYTES);
        kept.drain(..excess);
        Ok(())
    }

    fn job_finished(&mut self, finished: &v1::JobFinished) -> io::Result<()> {
        if let Some(live) = &mut self.live {
            live.rest_of_job(&mut self.screen, finished)?;
        }
        let output = self.outputs.remove(&finished.job).unwrap_or_default();
        let good = finished.status() == v1::JobStatus::Passed;
        // A suite's failures are its tests'; it has a line of its own only if it says why itself.
        if self.tally.is_suite(&finished.job) && (good || self.tally.is_told_by_tests(finished)) {
            return Ok(());
        }
        let line = self.options.paint.job_line(finished);
        if !good {
            self.failures.push(line.clone());
        }
        self.screen.result(&line)?;
        if good {
            return Ok(());
        }
        let block = self.job_output_block(finished, &output);
        self.screen_block(&block)
    }

    /// What a job that failed had said: the recorded output if the event has it, else what was live. A
    /// build's message quotes its output and is for those who have no other; a suite's has its own reasons.
    fn job_output_block(&self, finished: &v1::JobFinished, live: &[u8]) -> String {
        let paint = self.options.paint;
        let message = paint.message_block_of(&finished.job, "", &finished.message);
        let mut block = String::new();
        let recorded = finished.result.as_ref();
        let stdout = recorded.map_or(&[][..], |result| &result.stdout_raw);
        let stderr = recorded.map_or(&[][..], |result| &result.stderr_raw);
        let parts = match stdout.is_empty() && stderr.is_empty() {
            true => vec![("OUTPUT", live)],
            false => vec![("STDOUT", stdout), ("STDERR", stderr)],
        };
        for (name, bytes) in parts.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            paint.stream_block(&mut block, &finished.job, "", name, bytes);
        }
        match self.tally.is_suite(&finished.job) {
            true => message + &block,
            false if block.is_empty() => message,
            false => block,
        }
    }

    fn infrastructure_retry(&mut self, retry: &v1::InfrastructureRetry) -> io::Result<()> {
        if let Some(live) = &mut self.live {
            live.lost(retry);
        }
        let head = self.options.paint.status(Tone::Doubtful, "RETRY");
        let agent = visible(&retry.agent_id);
        let what = format!("{} {}", retry.job, retry.test_id);
        let line = format!(
            "{head} {} (agent {agent}: {})",
            visible(what.trim_end()),
            visible_lines(&retry.message)
        );
        self.screen.note(&line)
    }

    fn warning(&mut self, warning: &v1::Warning) -> io::Result<()> {
        let head = self.options.paint.status(Tone::Doubtful, "WARNING");
        let place = match warning.job.as_str() {
            "" => String::new(),
            job => format!("{}: ", visible(job)),
        };
        self.screen.note(&format!(
            "{head} {place}{}",
            visible_lines(&warning.message)
        ))
    }

    fn run_finished(&mut self, finished: &v1::RunFinished) -> io::Result<()> {
        let paint = self.options.paint;
        self.screen.clear();
        self.screen.result(&"-".repeat(12))?;
        self.screen.result(&paint.summary_line(&self.tally))?;
        for line in std::mem::take(&mut self.failures) {
            self.screen.result(&line)?;
        }
        if finished.cancelled {
            self.screen.result(&format!(
                "{} by request",
                paint.status(Tone::Doubtful, "Cancelled")
            ))?;
        }
        for line in paint.verdict_lines(finished, &self.tally) {
            self.screen.result(&line)?;
        }
        Ok(())
    }
}

impl<S: Screen> EventSink for HumanReport<S> {
    fn event(&mut self, event: &v1::RunEvent) -> io::Result<()> {
        self.tally.event(event);
        self.screen.progress(&self.tally);
        match &event.event {
            Some(Event::TestsFinished(finished)) => finished
                .results
                .iter()
                .try_for_each(|result| self.test_finished(result)),
            Some(Event::TestRetried(retried)) => self.test_retried(retried),
            Some(Event::BuildRetried(retried)) => self.build_retried(retried),
            Some(Event::JobOutput(output)) => self.job_output(output),
            Some(Event::JobFinished(finished)) => self.job_finished(finished),
            Some(Event::InfrastructureRetry(retry)) => self.infrastructure_retry(retry),
            Some(Event::TestSlow(slow)) => self.test_slow(slow),
            Some(Event::Warning(warning)) => self.warning(warning),
            Some(Event::RunResumed(_)) => self
                .screen
                .note("the coordinator was started again; the run goes on"),
            Some(Event::RunFinished(finished)) => self.run_finished(finished),
            Some(
                Event::RunStarted(_)
                | Event::JobStarted(_)
                | Event::JobLeased(_)
                | Event::SuitePlanned(_)
                | Event::HitsAudited(_)
                | Event::HitsExecuted(_)
                | Event::BatchUnexplained(_)
                | Event::CancelRequested(_)
                | Event::SuiteComplained(_),
            )
            | None => Ok(()),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.screen.clear();
        Ok(())
    }
}

/// The least level that shows a result.
fn level_of(result: &v1::TestResult) -> StatusLevel {
    let slow = shown_duration(result.duration.as_ref()) >= SLOW;
    match result.status() {
        _ if result.is_audit => StatusLevel::Fail,
        v1::TestStatus::Failed => StatusLevel::Fail,
        v1::TestStatus::Flaky | v1::TestStatus::Quarantined => StatusLevel::Retry,
        v1::TestStatus::Passed if slow => StatusLevel::Slow,
        v1::TestStatus::Passed => StatusLevel::Pass,
        v1::TestStatus::Cached => StatusLevel::Cached,
        v1::TestStatus::Skipped | v1::TestStatus::NotRun | v1::TestStatus::Unspecified => {
            StatusLevel::All
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::super::screen::memory::MemoryScreen;
    use super::*;

    fn rendered(level: StatusLevel, events: &[v1::RunEvent]) -> String {
        let options = ReportOptions {
            paint: Paint::Plain,
            level,
            live_output: false,
        };
        rendered_with(options, events)
    }

    fn rendered_with(options: ReportOptions, events: &[v1::RunEvent]) -> String {
        let screen = MemoryScreen::default();
        let mut report = HumanReport::new(options, screen.clone());
        for event in events {
            report.event(event).expect("memory takes it");
        }
        report.finish().expect("memory takes it");
        screen.text.borrow().clone()
    }

    #[test]
    fn failures_are_shown_with_their_output_and_told_again_in_the_end() {
        assert_eq!(
            rendered(StatusLevel::Slow, &recorded::mixed_run()),
            "\
|  TRY 1 FAIL [   0.500s] alpha shaky
|--- STDERR:                 alpha shaky ---
|first try
|
|        FAIL [   1.250s] alpha broken: exit code 101
|--- MESSAGE:                alpha broken ---
|exit code 101
|where it was
|--- STDOUT:                 alpha broken ---
|assertion failed
|(the first 100 bytes are left out; `regatta logs` has all of it)
|--- STDERR:                 alpha broken ---
|a note
|
|       FLAKY [   0.250s] alpha shaky
#       RETRY alpha slow (agent one: the machine went away)
#        SLOW [> 60.000s] alpha slow (still running, on two; begun again on three, since it is late)
|        PASS [  61.000s] alpha slow
|------------
|     Summary [  70.000s] 4 tests run: 3 passed (1 flaky), 1 failed, 1 cached, 1 skipped
|        FAIL [   1.250s] alpha broken: exit code 101
|     Verdict NOT_RELEASABLE
|             1 of 6 tests failed
"
        );
    }

    #[test]
    fn levels_choose_what_is_shown() {
        let text = rendered(StatusLevel::All, &recorded::mixed_run());
        assert!(
            text.contains("|        PASS [   0.010s] alpha quick\n"),
            "{text}"
        );
        assert!(
            text.contains("|      CACHED [   0.000s] alpha known\n"),
            "{text}"
        );
        assert!(
            text.contains("|        SKIP [   0.000s] alpha ignored\n"),
            "{text}"
        );
        let text = rendered(StatusLevel::None, &recorded::mixed_run());
        assert!(text.starts_with("#       RETRY"), "{text}");
    }

    #[test]
    fn builds_have_a_line_each_and_their_output_if_they_fail() {
        assert_eq!(
            rendered(StatusLevel::Slow, &recorded::build_run()),
            "\
|      CACHED [   0.000s] configure
|  TRY 1 FAIL [   0.500s] fetch: exit code 6
|--- STDERR:                 fetch  ---
|no such host
|
|       FLAKY [   0.900s] fetch
|        FAIL [   2.000s] compile: exit code 2
|--- OUTPUT:                 compile  ---
|cc: no such file
|
|     NOT RUN [   0.000s] pack: `compile` did not pass
|------------
|     Summary [   3.000s] 4 jobs: 1 passed (1 flaky), 1 failed, 1 cached, 1 not run
|        FAIL [   2.000s] compile: exit code 2
|     NOT RUN [   0.000s] pack: `compile` did not pass
|     Verdict NOT_RELEASABLE
|             job `compile` failed
"
        );
    }

    #[test]
    fn output_that_was_not_shown_live_is_shown_in_the_end() {
        let options = ReportOptions {
            paint: Paint::Plain,
            level: StatusLevel::None,
            live_output: true,
        };
        let text = rendered_with(options, &recorded::mixed_run());
        let expected = "\
#alpha shaky | first try
#alpha broken | (100 bytes are left out; `regatta logs` has all of it)
#alpha broken | assertion failed
#alpha broken | a note
";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_good_run_ends_releasable() {
        let text = rendered(StatusLevel::Slow, &recorded::cached_run());
        assert_eq!(
            text,
            "|------------\n\
             |     Summary [   0.100s] 0 tests run: 0 passed, 2 cached\n\
             |     Verdict RELEASABLE\n"
        );
    }
}
