//! The lines that people read, in the shape that nextest's users know.

use std::fmt::Write as _;
use std::time::Duration;

use regatta_wire::v1;

use super::tally::is_flaky;
use super::{class_name, shown_duration};
use crate::terminal::{visible, visible_lines};
use crate::watch::Tally;

/// How wide the first word of a line is; it is aligned to the right.
const STATUS_WIDTH: usize = 12;
/// How many of the tests are named that are too many for a policy.
const MOST_NAMED: usize = 10;

/// Whether lines are coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paint {
    /// With the colours of ANSI terminals.
    Coloured,
    /// As they are.
    Plain,
}

/// Colours by what they mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tone {
    Good,
    Bad,
    Doubtful,
    Known,
    Name,
}

impl Paint {
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32;1",
            Tone::Bad => "31;1",
            Tone::Doubtful => "33;1",
            Tone::Known => "34;1",
            Tone::Name => "36",
        };
        match self {
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }

    /// A line's first word.
    pub(super) fn status(self, tone: Tone, word: &str) -> String {
        self.paint(tone, &format!("{word:>STATUS_WIDTH$}"))
    }

    /// `        PASS [   0.012s] job test`
    pub(crate) fn result_line(self, result: &v1::TestResult) -> String {
        let (tone, word) = word_of(result);
        let mut line = self.line_of(tone, word, result);
        if !result.message.is_empty() {
            let _infallible = write!(line, ": {}", visible(first_line(&result.message)));
        }
        line
    }

    /// `  TRY 1 FAIL [   0.012s] job test`
    pub(crate) fn retry_line(self, result: &v1::TestResult) -> String {
        let (tone, word) = word_of(result);
        let word = format!("TRY {} {word}", result.attempts.max(1));
        self.line_of(tone, &word, result)
    }

    /// An attempt of a build has no test.
    fn line_of(self, tone: Tone, word: &str, result: &v1::TestResult) -> String {
        let line = format!(
            "{} {} {} {}",
            self.status(tone, word),
            seconds(shown_duration(result.duration.as_ref())),
            self.paint(Tone::Name, &visible(&result.job)),
            visible(&result.test_id)
        );
        line.trim_end().to_owned()
    }

    /// `        SLOW [> 60.000s] job test`
    pub(super) fn slow_line(self, slow: &v1::TestSlow) -> String {
        let running = shown_duration(slow.running.as_ref()).as_secs_f64();
        let mut line = format!(
            "{} [>{running:>7.3}s] {} {}",
            self.status(Tone::Doubtful, "SLOW"),
            self.paint(Tone::Name, &visible(&slow.job)),
            visible(&slow.test_id)
        );
        if slow.others > 0 {
            let _infallible = write!(line, " or one of {} others of its batch", slow.others);
        }
        let again = match slow.duplicate_agent_id.as_str() {
            "" => String::new(),
            agent => format!("; begun again on {}, since it is late", visible(agent)),
        };
        let _infallible = write!(
            line,
            " (still running, on {}{again})",
            visible(&slow.agent_id)
        );
        line
    }

    /// `        PASS [   1.200s] job`
    pub(super) fn job_line(self, finished: &v1::JobFinished) -> String {
        let (tone, word) = word_of_job(finished);
        self.job_line_of(tone, word, finished)
    }

    /// `  TRY 1 FAIL [   1.200s] job: exited with code 2`
    pub(super) fn job_retry_line(self, attempt: &v1::JobFinished) -> String {
        let (tone, word) = word_of_job(attempt);
        let word = format!("TRY {} {word}", attempt.attempts.max(1));
        self.job_line_of(tone, &word, attempt)
    }

    fn job_line_of(self, tone: Tone, word: &str, finished: &v1::JobFinished) -> String {
        let mut line = format!(
            "{} {} {}",
            self.status(tone, word),
            seconds(shown_duration(finished.duration.as_ref())),
            self.paint(Tone::Name, &visible(&finished.job)),
        );
        if !finished.message.is_empty() {
            let _infallible = write!(line, ": {}", visible(first_line(&finished.message)));
        }
        line
    }

    /// What a failure says at length, and its captured output.
    pub(super) fn output_block(self, result: &v1::TestResult) -> String {
        let mut block = self.message_block(result);
        for (name, digest, tail) in [
            ("STDOUT", &result.stdout_digest, &result.stdout_tail),
            ("STDERR", &result.stderr_digest, &result.stderr_tail),
        ] {
            if tail.is_empty() {
                continue;
            }
            let whole = digest.as_ref().map_or(0, |digest| digest.size_bytes);
            let shown = i64::try_from(tail.len()).unwrap_or(i64::MAX);
            self.stream_block(&mut block, &result.job, &result.test_id, name, tail);
            if whole > shown {
                let omitted = whole - shown;
                let _infallible = writeln!(
                    block,
                    "(the first {omitted} bytes are left out; `regatta logs` has all of it)"
                );
            }
        }
        block
    }

    /// A message of more than the line that is in the result's own.
    pub(crate) fn message_block(self, result: &v1::TestResult) -> String {
        self.message_block_of(&result.job, &result.test_id, &result.message)
    }

    pub(super) fn message_block_of(self, job: &str, test: &str, message: &str) -> String {
        let mut block = String::new();
        if message.trim_end().contains('\n') {
            let message = visible_lines(message);
            self.stream_block(&mut block, job, test, "MESSAGE", message.as_bytes());
        }
        block
    }

    pub(super) fn stream_block(
        self,
        block: &mut String,
        job: &str,
        test: &str,
        name: &str,
        bytes: &[u8],
    ) {
        let label = format!("--- {name}: ");
        let (job, test) = (self.paint(Tone::Name, &visible(job)), visible(test));
        let rule = format!("{label:<28}{job} {test} ---");
        let text = String::from_utf8_lossy(bytes);
        let _infallible = writeln!(
            block,
            "{}\n{}",
            rule.trim_end(),
            text.trim_end_matches('\n')
        );
    }

    /// `     Summary [   1.234s] 123 tests run: 120 passed (2 flaky), 3 failed, 400 cached`
    pub(super) fn summary_line(self, tally: &Tally) -> String {
        let counts = tally
            .finished
            .as_ref()
            .and_then(|finished| finished.counts)
            .unwrap_or_default();
        let tone = match tally.builds {
            builds if counts.failed > 0 || builds.failed > 0 => Tone::Bad,
            builds if builds.unknown > 0 => Tone::Doubtful,
            _ => Tone::Good,
        };
        let head = self.status(tone, "Summary");
        let mut parts = Vec::new();
        if tally.builds != super::tally::BuildTally::default() {
            parts.push(self.builds_part(tally));
        }
        if counts.planned > 0 || parts.is_empty() {
            parts.push(self.tests_part(&counts));
        }
        if tally.audited > 0 {
            let hits = plural(tally.audited, "cached result");
            parts.push(format!("{hits} executed again, the same"));
        }
        format!("{head} {} {}", seconds(tally.duration()), parts.join("; "))
    }

    fn builds_part(self, tally: &Tally) -> String {
        let builds = &tally.builds;
        let total = builds.passed + builds.cached + builds.failed + builds.unknown + builds.not_run;
        let mut parts = vec![self.passed_part(builds.passed, builds.flaky)];
        for (tone, count, word) in [
            (Tone::Bad, builds.failed, "failed"),
            (Tone::Doubtful, builds.unknown, "unknown"),
            (Tone::Known, builds.cached, "cached"),
            (Tone::Doubtful, builds.not_run, "not run"),
        ] {
            if count > 0 {
                parts.push(self.count(tone, count, word));
            }
        }
        format!("{}: {}", plural(total, "job"), parts.join(", "))
    }

    fn tests_part(self, counts: &v1::Counts) -> String {
        let passed = u64::from(counts.passed) + u64::from(counts.flaky);
        let run = passed + u64::from(counts.failed) + u64::from(counts.quarantined);
        let mut parts = vec![self.passed_part(passed, counts.flaky.into())];
        for (tone, count, word) in [
            (Tone::Bad, counts.failed, "failed"),
            (Tone::Known, counts.cached, "cached"),
            (Tone::Doubtful, counts.skipped, "skipped"),
            (Tone::Doubtful, counts.not_run, "not run"),
            (Tone::Doubtful, counts.quarantined, "quarantined"),
        ] {
            if count > 0 {
                parts.push(self.count(tone, count.into(), word));
            }
        }
        format!("{} run: {}", plural(run, "test"), parts.join(", "))
    }

    fn passed_part(self, passed: u64, flaky: u64) -> String {
        let passed = self.count(Tone::Good, passed, "passed");
        match flaky {
            0 => passed,
            _ => format!("{passed} ({})", self.count(Tone::Doubtful, flaky, "flaky")),
        }
    }

    fn count(self, tone: Tone, count: u64, word: &str) -> String {
        format!("{count} {}", self.paint(tone, word))
    }

    /// `     Verdict RELEASABLE`, with what keeps the commit from being so; or the reasons if it is not, with the tests that
    /// are too many for the policy.
    pub(super) fn verdict_lines(self, finished: &v1::RunFinished, tally: &Tally) -> Vec<String> {
        let (tone, word) = verdict_word(finished.verdict());
        let head = format!(
            "{} {}",
            self.status(tone, "Verdict"),
            self.paint(tone, word)
        );
        let indent = " ".repeat(STATUS_WIDTH + 1);
        let is_good = finished.verdict() == v1::Verdict::Releasable;
        let less = tally.says_less.as_ref();
        let less = less.filter(|_| is_good || tally.is_of_other_files);
        let less = less.map(|less| format!("{indent}{}", visible(less)));
        let reasons = finished
            .reasons
            .iter()
            .map(|reason| format!("{indent}{}", visible(reason)));
        let beyond = tally.beyond_policy().into_iter();
        let beyond = beyond.map(|(what, tests)| format!("{indent}{what}: {}", some_of(tests)));
        let lines = [head].into_iter().chain(less);
        lines.chain(reasons).chain(beyond).collect()
    }
}

/// `unit a, unit b and 3 more`
fn some_of(tests: &[String]) -> String {
    let shown = &tests[..tests.len().min(MOST_NAMED)];
    let named: Vec<_> = shown.iter().map(|test| visible(test)).collect();
    let named = named.join(", ");
    match tests.len().saturating_sub(MOST_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// A verdict as design decision D10 spells it.
pub(crate) fn verdict_word(verdict: v1::Verdict) -> (Tone, &'static str) {
    match verdict {
        v1::Verdict::Releasable => (Tone::Good, "RELEASABLE"),
        v1::Verdict::NotReleasable => (Tone::Bad, "NOT_RELEASABLE"),
        v1::Verdict::Unknown | v1::Verdict::Unspecified => (Tone::Doubtful, "UNKNOWN"),
    }
}

fn word_of(result: &v1::TestResult) -> (Tone, &'static str) {
    match result.status() {
        v1::TestStatus::Passed => (Tone::Good, "PASS"),
        v1::TestStatus::Cached => (Tone::Known, "CACHED"),
        v1::TestStatus::Flaky => (Tone::Doubtful, "FLAKY"),
        v1::TestStatus::Skipped => (Tone::Doubtful, "SKIP"),
        v1::TestStatus::Failed => (Tone::Bad, failure_word(result.failure_class())),
        v1::TestStatus::NotRun => (Tone::Doubtful, "NOT RUN"),
        v1::TestStatus::Quarantined => (Tone::Doubtful, "QUARANTINED"),
        v1::TestStatus::Unspecified => (Tone::Doubtful, "UNKNOWN"),
    }
}

fn word_of_job(finished: &v1::JobFinished) -> (Tone, &'static str) {
    match finished.status() {
        v1::JobStatus::Passed if is_flaky(finished) => (Tone::Doubtful, "FLAKY"),
        v1::JobStatus::Passed if finished.cached => (Tone::Known, "CACHED"),
        v1::JobStatus::Passed => (Tone::Good, "PASS"),
        v1::JobStatus::Failed => (Tone::Bad, failure_word(finished.failure_class())),
        v1::JobStatus::Cancelled => (Tone::Doubtful, "CANCELLED"),
        v1::JobStatus::NotRun => (Tone::Doubtful, "NOT RUN"),
        v1::JobStatus::Unknown | v1::JobStatus::Unspecified => (Tone::Doubtful, "UNKNOWN"),
    }
}

fn failure_word(class: v1::FailureClass) -> &'static str {
    match class_name(class) {
        "timeout" => "TIMEOUT",
        "oom" => "OOM",
        "infra" => "INFRA",
        "cancelled" => "CANCELLED",
        _ => "FAIL",
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

pub(crate) fn plural(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// `[   0.012s]`
pub(super) fn seconds(duration: Duration) -> String {
    format!("[{:>8.3}s]", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_tests_the_first_are_named() {
        let tests: Vec<_> = (0..12).map(|index| format!("unit t{index}")).collect();
        assert_eq!(some_of(&tests[..2]), "unit t0, unit t1");
        assert!(some_of(&tests).ends_with(", unit t9 and 2 more"));
    }
}
