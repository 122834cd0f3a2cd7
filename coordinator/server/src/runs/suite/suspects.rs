//! Batches whose runner ended and left no report, or one that lacks tests and has no failed one: a test may have ended it,
//! and nobody knows which.
//!
//! Nobody is blamed before it is known. The tests run again, as their first attempt: what ended the runner at once is
//! looked for by halves, which finds one of n in 2·log2(n) starts of the runner. What ran out of time runs alone: a half
//! that hangs would wait for the time of all its tests, and one test for its own.
//!
//! Nor is a pass of such a batch remembered before that: if nobody is found, what ended the runner may come again. Both
//! outlast a restart, as the tests that run again for it are told of.
//!
//! A runner that never reports is not the work of a test, and must not be started for each of them: see [`MOST_IN_A_ROW`]
//! and [`MOST_SILENT`].
//!
//! What is remembered of all that is bounded ([`MOST_INQUIRED_BYTES`], and what passes take that wait). Beyond it, nothing
//! more is cached of a suite, which is always right, and what ended a runner is complained of at once.

mod held_passes;

use std::collections::BTreeSet;

use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use self::held_passes::HeldPasses;
use super::contract::BatchReport;
use super::execution::Execution;
use super::judged::Judged;
use crate::runs::action::{Pass, may_be_retried};

/// So many batches one after the other that left no report run again, and their tests are blamed from then on: it is the
/// runner. Each costs two more starts, unless it ran out of time.
pub(in crate::runs) const MOST_IN_A_ROW: u32 = 16;
/// The same for those that ended well, of a runner that has not reported anything yet: it reports elsewhere.
pub(in crate::runs) const MOST_SILENT: u32 = 2;

/// How much may be remembered of a suite's batches whose end nobody has explained, in bytes: a million tests, or fewer
/// that were in several.
const MOST_INQUIRED_BYTES: usize = 32 << 20;
/// What a test takes of it.
const INQUIRED_TEST_BYTES: usize = 32;

/// How a runner ended that left no report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unreported {
    /// As if all were well.
    Well,
    Badly,
    OutOfTime,
}

impl Unreported {
    /// `None` if no test can have ended it.
    pub(super) fn of(outcome: &v1::ExecutionOutcome) -> Option<Self> {
        match outcome.kind() {
            v1::OutcomeKind::Completed => {
                match outcome.result.as_ref().map_or(0, |it| it.exit_code) {
                    0 => Some(Self::Well),
                    _ => Some(Self::Badly),
                }
            }
            v1::OutcomeKind::OutOfMemory => Some(Self::Badly),
            v1::OutcomeKind::TimedOut => Some(Self::OutOfTime),
            v1::OutcomeKind::Rejected
            | v1::OutcomeKind::ImageAbsent
            | v1::OutcomeKind::Infrastructure
            | v1::OutcomeKind::RegistryUnreachable
            | v1::OutcomeKind::StoreExhausted
            | v1::OutcomeKind::Unspecified
            | v1::OutcomeKind::Cancelled => None,
        }
    }
}

/// What is known of a suite's batches without a report.
#[derive(Debug)]
pub(super) struct Suspects {
    /// Whether the suite's runner has left a report.
    has_reported: bool,
    /// How many batches have left none since.
    in_a_row: u32,
    /// How many of them, at the end, ended well.
    silent: u32,
    inquiries: Vec<Inquiry>,
    most_inquired_bytes: usize,
    /// Whether there was one that could not be remembered: whose pass may hold is not known any more.
    has_lost_one: bool,
    /// What is cached once it is known who ended each batch that its test was in.
    held: HeldPasses,
}

impl Default for Suspects {
    fn default() -> Self {
        Self {
            has_reported: false,
            in_a_row: 0,
            silent: 0,
            inquiries: Vec::new(),
            most_inquired_bytes: MOST_INQUIRED_BYTES,
            has_lost_one: false,
            held: HeldPasses::default(),
        }
    }
}

/// What an inquiry is beside those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Inquired {
    News,
    /// Its tests run again already.
    Part,
    /// It cannot be remembered.
    TooMuch,
}

/// A batch without a report, of which no test has failed since. Its tests run with no others until all are answered. They
/// may be a part of another's: one that ended its runner in the whole explains nothing of a part that it is not in.
#[derive(Debug)]
struct Inquiry {
    tests: BTreeSet<usize>,
    /// Those that have not been answered; none if nobody was found.
    open: BTreeSet<usize>,
    /// How its runner ended.
    message: String,
}

impl Inquiry {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.message.len() + self.tests.len() * INQUIRED_TEST_BYTES
    }
}

/// What an answer says of how the runners of its test's batches had ended.
#[derive(PartialEq, Debug, Default)]
struct Found {
    /// The passes that hold: somebody did it.
    passes: Vec<Pass>,
    /// How those ended of which all tests are answered, and none has failed.
    nobody: Vec<String>,
}

impl Suspects {
    /// A runner has left a report.
    fn reported(&mut self) {
        self.has_reported = true;
        (self.in_a_row, self.silent) = (0, 0);
    }

    /// The batches in which the tests of one run again that left no report; none if they are to blame, all of them.
    fn split(&mut self, tests: &[usize], end: Unreported) -> Vec<Vec<usize>> {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.silent = match end {
            Unreported::Well => self.silent.saturating_add(1),
            Unreported::Badly | Unreported::OutOfTime => 0,
        };
        let is_elsewhere = !self.has_reported && self.silent > MOST_SILENT;
        if tests.len() < 2 || self.in_a_row > MOST_IN_A_ROW || is_elsewhere {
            return Vec::new();
        }
        let size = match end {
            Unreported::Well | Unreported::Badly => tests.len().div_ceil(2),
            Unreported::OutOfTime => 1,
        };
        tests.chunks(size).map(<[usize]>::to_vec).collect()
    }

    /// Remembers why these tests run again, if there is room for that.
    pub(super) fn inquire(&mut self, tests: &[usize], message: &str) -> Inquired {
        let is_known = |inquiry: &Inquiry| tests.iter().any(|test| inquiry.open.contains(test));
        let inquired = match self.inquiries.iter().any(is_known) {
            true => Inquired::Part,
            false => Inquired::News,
        };
        let tests: BTreeSet<usize> = tests.iter().copied().collect();
        let inquiry = Inquiry {
            open: tests.clone(),
            tests,
            message: message.to_owned(),
        };
        let bytes: usize = self.inquiries.iter().map(Inquiry::bytes).sum();
        if bytes + inquiry.bytes() > self.most_inquired_bytes {
            self.has_lost_one = true;
            return Inquired::TooMuch;
        }
        self.inquiries.push(inquiry);
        inquired
    }

    /// The first inquiry for which a test runs again, if there is one.
    pub(super) fn inquiry_of(&self, test: usize) -> Option<usize> {
        let mut inquiries = self.inquiries.iter();
        inquiries.position(|inquiry| inquiry.tests.contains(&test))
    }

    /// A test was answered for the first time.
    fn answered(&mut self, test: usize, has_failed: bool) -> Found {
        let mut found = Found::default();
        if has_failed {
            self.inquiries
                .retain(|inquiry| !inquiry.tests.contains(&test));
            for (test, pass) in self.held.take() {
                if let Some(pass) = self.hold_back(test, pass) {
                    found.passes.push(pass);
                }
            }
            return found;
        }
        for inquiry in &mut self.inquiries {
            if inquiry.open.remove(&test) && inquiry.open.is_empty() {
                found.nobody.push(inquiry.message.clone());
                self.held.forget(&inquiry.tests);
            }
        }
        found
    }

    /// A pass that may be cached. One of an inquiry waits for its end, and is never if nobody was found.
    pub(super) fn hold_back(&mut self, test: usize, pass: Pass) -> Option<Pass> {
        if self.has_lost_one {
            return None;
        }
        let of_it = |inquiry: &&Inquiry| inquiry.tests.contains(&test);
        let inquiries: Vec<_> = self.inquiries.iter().filter(of_it).collect();
        if inquiries.is_empty() {
            return Some(pass);
        }
        if inquiries.iter().all(|inquiry| !inquiry.open.is_empty()) {
            self.held.hold(test, pass);
        }
        None
    }
}

impl Execution<'_> {
    /// The batches in which tests of a batch run again because its runner ended without a report of them; none if there is
    /// no need to.
    pub(super) fn suspected(&mut self, report: &BatchReport, tests: &[usize]) -> Vec<Vec<usize>> {
        self.suspects.has_reported |= report.is_read();
        let Some((end, message)) = report.unreported() else {
            if report.is_read() {
                self.suspects.reported();
            }
            return Vec::new();
        };
        let suspects = tests.iter().copied();
        let suspects: Vec<usize> = suspects
            .filter(|test| !report.has(&self.tests[*test].id))
            .collect();
        let parts = self.suspects.split(&suspects, end);
        if parts.is_empty() {
            return parts;
        }
        let (left, all) = (suspects.len(), tests.len());
        let message = match report.is_read() {
            true => format!("the runner {message}; it did not report {left} of its {all} tests"),
            false => format!("{message}, of {all} tests"),
        };
        let inquired = self.suspects.inquire(&suspects, &message);
        if inquired == Inquired::TooMuch {
            let message = format!(
                "{message}; there are too many such batches to remember which tests may have done it"
            );
            if let Some(test) = suspects.first() {
                self.remain_unexplained(*test, message);
            }
            return parts;
        }
        self.tell_unexplained(&suspects, &message);
        if inquired == Inquired::News {
            self.warn(format!(
                "{message}: which of them did it is not known, so that they run again, in smaller batches"
            ));
        }
        parts
    }

    /// What a report says of a test. If its runner had ended without a report before and no test has failed since, what
    /// ended it may come again: only a job that may try again what failed lets it pass, or one of tests in quarantine.
    pub(super) fn judge_reported(&mut self, report: &BatchReport, test: usize) -> Judged {
        let judged = report.judge(&self.tests[test].id);
        let has_failed = match &judged.verdict {
            Ok(_) => false,
            Err((class, _)) if may_be_retried(*class) => true,
            // Of the test nothing is known.
            Err(_) => return judged,
        };
        if self.attempts[test] > 0 {
            return judged;
        }
        let Found { passes, nobody } = self.suspects.answered(test, has_failed);
        passes.into_iter().for_each(|pass| self.outbox.cache(pass));
        for message in nobody {
            let message = format!("{message}, none of which failed when they ran again");
            self.remain_unexplained(test, message);
        }
        judged
    }

    /// Nobody knows what ended the runner of some tests, of which this is one: only a job that may try again what failed
    /// passes all the same. A batch has tests in quarantine, or others: whichever of those did it, it does not count.
    fn remain_unexplained(&mut self, test: usize, message: String) {
        let may_pass = self.job.job().retries > 0 || self.is_in_quarantine(test);
        match may_pass {
            true => self.warn(message),
            false => self.complain(message),
        }
    }

    /// It is told before the tests run again, so that a restart does not lose it.
    fn tell_unexplained(&self, tests: &[usize], message: &str) {
        if self.purpose.is_audit() {
            return;
        }
        let tests = tests.iter().map(|test| self.tests[*test].name());
        let unexplained = v1::BatchUnexplained {
            job: self.job.name(),
            message: message.to_owned(),
            test_ids: tests.collect(),
        };
        let event = Event::BatchUnexplained(unexplained);
        self.job.run.log.append(event);
    }

    fn warn(&self, message: String) {
        let message = format!("`{}`: {message}", self.job.name());
        self.job.run.warn_once(message);
    }
}

#[cfg(test)]
mod tests {
    use regatta_model::Digest;
    use regatta_wire::reapi::ActionResult;

    use super::*;

    /// How many batches run if those do not report of which `ends` says how they end.
    fn batches(
        tests: usize,
        ends: impl Fn(&[usize]) -> Option<Unreported>,
    ) -> (usize, BTreeSet<usize>) {
        let mut suspects = Suspects::default();
        let mut waiting = std::collections::VecDeque::from([(0..tests).collect::<Vec<_>>()]);
        let (mut batches, mut blamed) = (0, BTreeSet::new());
        while let Some(batch) = waiting.pop_front() {
            batches += 1;
            let Some(end) = ends(&batch) else {
                suspects.reported();
                continue;
            };
            let parts = suspects.split(&batch, end);
            if parts.is_empty() {
                blamed.extend(batch);
            }
            waiting.extend(parts);
        }
        (batches, blamed)
    }

    #[test]
    fn the_one_of_many_is_found_in_few_batches_whatever_it_does() {
        for culprit in [0, 1, 250, 499] {
            for end in [Unreported::Well, Unreported::Badly] {
                let (batches, blamed) =
                    batches(500, |batch| batch.contains(&culprit).then_some(end));
                assert_eq!(blamed, BTreeSet::from([culprit]), "{end:?}");
                assert!(batches <= 1 + 2 * 9, "{batches}");
            }
            let hangs = |batch: &[usize]| batch.contains(&culprit);
            let (batches, blamed) =
                batches(500, |batch| hangs(batch).then_some(Unreported::OutOfTime));
            assert_eq!(blamed, BTreeSet::from([culprit]));
            assert_eq!(batches, 501, "each for no longer than a test may take");
        }
    }

    #[test]
    fn a_few_of_many_are_found() {
        let culprits = BTreeSet::from([3, 120, 121, 307, 499]);
        let ends = |batch: &[usize]| {
            let dies = batch.iter().any(|test| culprits.contains(test));
            dies.then_some(Unreported::Badly)
        };
        assert_eq!(batches(500, ends).1, culprits);
    }

    #[test]
    fn a_runner_that_never_reports_is_not_started_for_each_test() {
        for (end, most) in [
            (Unreported::Well, MOST_SILENT),
            (Unreported::Badly, MOST_IN_A_ROW),
        ] {
            let (batches, blamed) = batches(10_000, |_| Some(end));
            assert_eq!(blamed.len(), 10_000);
            assert!(batches <= 1 + 2 * most as usize, "{end:?}: {batches}");
        }
    }

    #[test]
    fn only_what_runs_can_be_ended_by_a_test() {
        use v1::OutcomeKind as Kind;
        let of = |kind: Kind, exit_code| {
            Unreported::of(&v1::ExecutionOutcome {
                kind: kind.into(),
                result: Some(ActionResult {
                    exit_code,
                    ..Default::default()
                }),
                ..Default::default()
            })
        };
        assert_eq!(of(Kind::Completed, 0), Some(Unreported::Well));
        assert_eq!(of(Kind::Completed, 137), Some(Unreported::Badly));
        assert_eq!(of(Kind::OutOfMemory, 0), Some(Unreported::Badly));
        assert_eq!(of(Kind::TimedOut, 0), Some(Unreported::OutOfTime));
        for kind in [Kind::Rejected, Kind::Infrastructure, Kind::Cancelled] {
            assert_eq!(of(kind, 1), None, "{kind:?}");
        }
    }

    fn nobody(message: &str) -> Found {
        Found {
            nobody: vec![message.to_owned()],
            ..Found::default()
        }
    }

    fn somebody(passes: &[&str]) -> Found {
        Found {
            passes: passes.iter().map(|text| pass(text)).collect(),
            ..Found::default()
        }
    }

    fn pass(text: &str) -> Pass {
        (Digest::of(text.as_bytes()), ActionResult::default(), None)
    }

    #[test]
    fn what_nobody_did_is_known_when_the_last_is_answered() {
        let mut suspects = Suspects::default();
        assert_eq!(suspects.inquire(&[1, 2, 3], "it died"), Inquired::News);
        assert_eq!(suspects.inquire(&[4, 5], "another died"), Inquired::News);
        assert_eq!(suspects.answered(7, false), Found::default());
        for test in [1, 3] {
            assert_eq!(suspects.answered(test, false), Found::default());
        }
        assert_eq!(suspects.answered(2, false), nobody("it died"));
        assert_eq!(suspects.answered(4, true), somebody(&[]));
        let other = suspects.answered(5, false);
        assert_eq!(other, Found::default(), "it was the other");
    }

    #[test]
    fn passes_wait_until_it_is_known_who_ended_the_runner() {
        let mut suspects = Suspects::default();
        suspects.inquire(&[1, 2], "it died");
        suspects.inquire(&[3, 4], "another died");
        assert_eq!(suspects.hold_back(7, pass("7")), Some(pass("7")));
        for test in [1, 3] {
            assert_eq!(suspects.answered(test, false), Found::default());
            assert_eq!(suspects.hold_back(test, pass("first")), None);
        }
        assert_eq!(suspects.answered(2, true), somebody(&["first"]));
        assert_eq!(suspects.answered(4, false), nobody("another died"));
        assert_eq!(suspects.hold_back(4, pass("last")), None);
    }

    #[test]
    fn one_that_ended_a_batch_explains_no_part_of_it_that_it_is_not_in() {
        for part_is_first in [false, true] {
            let mut suspects = Suspects::default();
            assert_eq!(suspects.inquire(&[1, 2, 3, 4], "it died"), Inquired::News);
            assert_eq!(suspects.inquire(&[3, 4], "it died again"), Inquired::Part);
            let answer = |suspects: &mut Suspects, test: usize, has_failed| {
                let found = suspects.answered(test, has_failed);
                let pass = (!has_failed).then(|| suspects.hold_back(test, pass("pass")));
                assert_eq!(pass.flatten(), None, "{test}");
                found
            };
            assert_eq!(answer(&mut suspects, 2, false), Found::default());
            if part_is_first {
                assert_eq!(answer(&mut suspects, 3, false), Found::default());
                assert_eq!(answer(&mut suspects, 4, false), nobody("it died again"));
                assert_eq!(answer(&mut suspects, 1, true), somebody(&["pass"]));
            } else {
                assert_eq!(answer(&mut suspects, 1, true), somebody(&["pass"]));
                assert_eq!(answer(&mut suspects, 3, false), Found::default());
                assert_eq!(answer(&mut suspects, 4, false), nobody("it died again"));
            }
        }
    }

    #[test]
    fn passes_that_take_too_much_are_not_remembered_and_the_others_are() {
        let mut suspects = Suspects {
            // For three, of which one is large.
            held: HeldPasses::of_at_most(3 * size_of::<Pass>() + 3000),
            ..Suspects::default()
        };
        suspects.inquire(&[1, 2, 3, 4], "it died");
        let mut large = pass("large");
        large.1.stdout_raw = vec![0; 2000].into();
        for (test, pass) in [(1, pass("1")), (2, large.clone()), (3, large)] {
            assert_eq!(suspects.answered(test, false), Found::default());
            assert_eq!(suspects.hold_back(test, pass), None);
        }
        let found = suspects.answered(4, true);
        let sizes = found.passes.iter().map(|(_, it, _)| it.stdout_raw.len());
        assert_eq!(sizes.collect::<Vec<_>>(), [0, 2000]);
        // Once it is known there is room again.
        suspects.inquire(&[5, 6], "another died");
        suspects.answered(5, false);
        assert_eq!(suspects.hold_back(5, pass("5")), None);
        assert_eq!(suspects.answered(6, true), somebody(&["5"]));
    }

    #[test]
    fn nothing_is_cached_once_there_is_too_much_to_remember() {
        let mut suspects = Suspects {
            most_inquired_bytes: 500,
            ..Suspects::default()
        };
        assert_eq!(suspects.inquire(&[1, 2], "it died"), Inquired::News);
        assert_eq!(suspects.hold_back(7, pass("7")), Some(pass("7")));
        assert_eq!(suspects.answered(1, false), Found::default());
        assert_eq!(suspects.hold_back(1, pass("1")), None);
        let many: Vec<usize> = (10..30).collect();
        assert_eq!(suspects.inquire(&many, "it died, too"), Inquired::TooMuch);
        assert_eq!(suspects.answered(2, true), somebody(&[]));
        assert_eq!(suspects.hold_back(7, pass("7")), None);
    }
}
