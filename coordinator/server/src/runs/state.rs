//! The life of a run: which job starts when, and what the verdict is. Pure.

use std::num::NonZeroU32;

use regatta_ledger::RunCounts;
use regatta_model::{FailureClass, Verdict};

use super::conclusion::{CANCELLED, Conclusion, SuiteCounts};
use super::tally::{adds_up, plus};

/// How a job ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct JobEnd {
    pub(crate) status: JobStatus,
    pub(crate) class: Option<FailureClass>,
    pub(crate) message: String,
    pub(crate) counts: RunCounts,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum JobStatus {
    Passed,
    Failed,
    Cancelled,
    /// A job that it needs did not pass, or the run was stopped before it could start.
    NotRun,
    /// The machines lost it too often.
    Unknown,
}

impl JobEnd {
    pub(crate) fn without_tests(
        status: JobStatus,
        class: Option<FailureClass>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            class,
            message: message.into(),
            counts: RunCounts::default(),
        }
    }
}

/// Something that happened in a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RunInput {
    Started,
    /// So much of running jobs has failed by now, though they go on.
    FailuresSeen(u32),
    JobEnded(usize, JobEnd),
    Cancelled,
}

/// What is to be done about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RunOutput {
    Start(usize),
    /// Stop a running job; it ends as usual.
    Stop(usize),
    /// A job has ended that never started.
    NeverStarted(usize, JobEnd),
    Finish(Conclusion),
}

/// A job, as a run's state sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct JobNode {
    pub(crate) name: String,
    pub(crate) needs: Vec<usize>,
    pub(crate) is_suite: bool,
    /// Whether a release requires it, with all of its tests.
    pub(crate) is_required: bool,
    /// How it ends if it does not start again after a restart.
    pub(crate) told: Option<JobEnd>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    Waiting,
    Running,
    Ended(JobEnd),
}

/// The state of a run. Jobs are named by their index; their needs have no circle.
#[derive(Clone, Debug)]
pub(crate) struct RunState {
    jobs: Vec<(JobNode, Phase)>,
    /// How many failures stop the run, if any do.
    max_failures: Option<NonZeroU32>,
    /// How much had failed when it was last told.
    failures_seen: u32,
    stop: Option<Stop>,
    finished: bool,
}

/// Why nothing new starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    FailedFast,
    Cancelled,
}

impl RunState {
    pub(crate) fn new(jobs: Vec<JobNode>, max_failures: Option<NonZeroU32>) -> Self {
        let jobs = jobs.into_iter().map(|job| (job, Phase::Waiting)).collect();
        Self {
            jobs,
            max_failures,
            failures_seen: 0,
            stop: None,
            finished: false,
        }
    }

    /// Takes in, before anything else, that a job ended in an earlier process.
    pub(crate) fn recall(&mut self, job: usize, end: JobEnd) {
        self.end(job, end);
    }

    /// Takes in what happened. Input that comes too late changes nothing.
    pub(crate) fn step(&mut self, input: RunInput) -> Vec<RunOutput> {
        let mut outputs = Vec::new();
        if self.finished {
            return outputs;
        }
        match input {
            // What was recalled may be enough.
            RunInput::Started => self.fail_fast(&mut outputs),
            RunInput::FailuresSeen(failures) => {
                self.failures_seen = self.failures_seen.max(failures);
                self.fail_fast(&mut outputs);
            }
            RunInput::Cancelled => self.stop(Stop::Cancelled, &mut outputs),
            RunInput::JobEnded(job, end) => {
                self.end(job, end);
                self.fail_fast(&mut outputs);
            }
        }
        self.advance(&mut outputs);
        outputs
    }

    fn end(&mut self, job: usize, end: JobEnd) {
        if let Some((_, phase @ (Phase::Waiting | Phase::Running))) = self.jobs.get_mut(job) {
            *phase = Phase::Ended(end);
        }
    }

    fn fail_fast(&mut self, outputs: &mut Vec<RunOutput>) {
        if self
            .max_failures
            .is_some_and(|most| self.failures() >= most.get())
        {
            self.stop(Stop::FailedFast, outputs);
        }
    }

    /// What has failed: tests, and jobs without a failed test. Tests of jobs that have ended may have been
    /// told before.
    fn failures(&self) -> u32 {
        let ended = self.jobs.iter().filter_map(|(_, phase)| match phase {
            Phase::Ended(end) if end.status == JobStatus::Failed => Some(end.counts.failed),
            _ => None,
        });
        let (mut jobs, mut tests) = (0u32, 0u32);
        for failed_tests in ended {
            jobs += u32::from(failed_tests == 0);
            tests = tests.saturating_add(failed_tests);
        }
        jobs.saturating_add(tests.max(self.failures_seen))
    }

    fn stop(&mut self, why: Stop, outputs: &mut Vec<RunOutput>) {
        let first = self.stop.is_none();
        // A person's cancellation is what is told, whatever else stops the run.
        if first || why == Stop::Cancelled {
            self.stop = Some(why);
        }
        if first {
            let running = self.jobs.iter().enumerate();
            let running = running.filter(|(_, (_, phase))| *phase == Phase::Running);
            outputs.extend(running.map(|(index, _)| RunOutput::Stop(index)));
        }
    }

    /// Starts or ends whatever waits no longer, until nothing changes.
    fn advance(&mut self, outputs: &mut Vec<RunOutput>) {
        loop {
            let mut changed = false;
            for index in 0..self.jobs.len() {
                let Some(next) = self.next_phase(index) else {
                    continue;
                };
                outputs.push(match &next {
                    Phase::Ended(end) => RunOutput::NeverStarted(index, end.clone()),
                    Phase::Waiting | Phase::Running => RunOutput::Start(index),
                });
                self.jobs[index].1 = next;
                changed = true;
            }
            if !changed {
                break;
            }
        }
        if self
            .jobs
            .iter()
            .all(|(_, phase)| matches!(phase, Phase::Ended(_)))
        {
            self.finished = true;
            outputs.push(RunOutput::Finish(self.conclude()));
        }
    }

    /// What a waiting job becomes; `None` if it goes on to wait, or does not wait.
    fn next_phase(&self, index: usize) -> Option<Phase> {
        let (job, Phase::Waiting) = &self.jobs[index] else {
            return None;
        };
        let not_run = |message: String| {
            let told = job.told.clone();
            let end =
                told.unwrap_or_else(|| JobEnd::without_tests(JobStatus::NotRun, None, message));
            Some(Phase::Ended(end))
        };
        match self.stop {
            Some(Stop::Cancelled) => return not_run("the run was cancelled".to_owned()),
            Some(Stop::FailedFast) => return not_run("the run failed fast".to_owned()),
            None => {}
        }
        let mut ready = true;
        for need in &job.needs {
            match &self.jobs[*need] {
                (_, Phase::Ended(end)) if end.status == JobStatus::Passed => {}
                (needed, Phase::Ended(_)) => {
                    return not_run(format!("`{}`, which it needs, did not pass", needed.name));
                }
                (_, Phase::Waiting | Phase::Running) => ready = false,
            }
        }
        ready.then_some(Phase::Running)
    }

    fn conclude(&self) -> Conclusion {
        let mut counts = RunCounts::default();
        let mut reasons = Vec::new();
        let mut failed = false;
        for (job, phase) in &self.jobs {
            let Phase::Ended(end) = phase else { continue };
            counts = plus(counts, end.counts);
            failed |= end.status == JobStatus::Failed;
            reasons.extend(reason(&job.name, end));
            if !adds_up(&end.counts) {
                reasons.push(format!("the tests of `{}` do not add up", job.name));
            }
        }
        let mut conclusion = Conclusion {
            verdict: Verdict::Unknown,
            reasons,
            counts,
            suites: self.jobs.iter().filter_map(suite).collect(),
            cancelled: self.stop == Some(Stop::Cancelled),
            failed_fast: self.stop == Some(Stop::FailedFast),
        };
        if conclusion.reasons.is_empty() {
            conclusion.reasons = conclusion.silences();
        }
        if conclusion.cancelled {
            conclusion.reasons.insert(0, CANCELLED.to_owned());
        }
        conclusion.verdict = match (failed, conclusion.reasons.is_empty()) {
            (true, _) => Verdict::NotReleasable,
            (false, true) => Verdict::Releasable,
            (false, false) => Verdict::Unknown,
        };
        conclusion
    }
}

/// What became of a job if it is a suite, by its name.
fn suite((job, phase): &(JobNode, Phase)) -> Option<(String, SuiteCounts)> {
    let counts = match phase {
        Phase::Ended(end) => end.counts,
        Phase::Waiting | Phase::Running => RunCounts::default(),
    };
    let suite = SuiteCounts {
        counts,
        is_required: job.is_required,
    };
    job.is_suite.then(|| (job.name.clone(), suite))
}

fn reason(job: &str, end: &JobEnd) -> Option<String> {
    let what = match end.status {
        JobStatus::Passed => return None,
        JobStatus::Failed => "failed",
        JobStatus::Cancelled => "was stopped",
        JobStatus::NotRun => "was not run",
        JobStatus::Unknown => "has no answer",
    };
    let detail = if end.message.is_empty() {
        String::new()
    } else {
        format!(": {}", end.message.lines().next().unwrap_or_default())
    };
    Some(format!("`{job}` {what}{detail}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str, needs: &[usize]) -> JobNode {
        JobNode {
            name: name.to_owned(),
            needs: needs.to_vec(),
            is_suite: false,
            is_required: false,
            told: None,
        }
    }

    fn ended(status: JobStatus) -> JobEnd {
        JobEnd::without_tests(status, None, "")
    }

    /// Whatever the order in which they are taken in.
    #[test]
    fn what_ended_before_a_restart_stays_though_the_run_fails_fast() {
        let jobs = vec![
            node("a", &[]),
            node("b", &[]),
            node("c", &[1]),
            node("d", &[]),
        ];
        let mut state = RunState::new(jobs, NonZeroU32::new(1));
        state.recall(0, ended(JobStatus::Failed));
        state.recall(1, ended(JobStatus::Passed));
        let counts = RunCounts {
            planned: 100,
            passed: 100,
            ..RunCounts::default()
        };
        let passed = ended(JobStatus::Passed);
        state.recall(2, JobEnd { counts, ..passed });
        let outputs = state.step(RunInput::Started);
        let [RunOutput::NeverStarted(3, _), RunOutput::Finish(conclusion)] = &outputs[..] else {
            panic!("{outputs:?}");
        };
        assert_eq!(conclusion.counts, counts);
        assert_eq!(conclusion.verdict, Verdict::NotReleasable);
    }

    #[test]
    fn a_job_starts_when_what_it_needs_has_passed() {
        let mut state = RunState::new(vec![node("a", &[]), node("b", &[0])], None);
        assert_eq!(state.step(RunInput::Started), [RunOutput::Start(0)]);
        let passed = RunInput::JobEnded(0, ended(JobStatus::Passed));
        assert_eq!(state.step(passed), [RunOutput::Start(1)]);
        let outputs = state.step(RunInput::JobEnded(1, ended(JobStatus::Passed)));
        let [RunOutput::Finish(conclusion)] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!(conclusion.verdict, Verdict::Releasable);
        assert_eq!(conclusion.reasons, Vec::<String>::new());
    }

    #[test]
    fn losses_are_unknown_and_failures_are_not_releasable() {
        for (status, verdict) in [
            (JobStatus::Unknown, Verdict::Unknown),
            (JobStatus::Cancelled, Verdict::Unknown),
            (JobStatus::Failed, Verdict::NotReleasable),
        ] {
            let mut state = RunState::new(vec![node("a", &[]), node("b", &[0])], None);
            state.step(RunInput::Started);
            let outputs = state.step(RunInput::JobEnded(0, ended(status)));
            let Some(RunOutput::Finish(conclusion)) = outputs.last() else {
                panic!()
            };
            assert_eq!(conclusion.verdict, verdict);
            assert!(matches!(&outputs[0], RunOutput::NeverStarted(1, _)));
        }
    }

    #[test]
    fn failing_fast_stops_what_runs_and_starts_nothing() {
        let jobs = vec![node("a", &[]), node("b", &[]), node("c", &[1])];
        let mut state = RunState::new(jobs, NonZeroU32::new(1));
        state.step(RunInput::Started);
        let outputs = state.step(RunInput::FailuresSeen(1));
        assert_eq!(outputs[..2], [RunOutput::Stop(0), RunOutput::Stop(1)]);
        assert!(matches!(&outputs[2], RunOutput::NeverStarted(2, _)));
    }

    #[test]
    fn so_many_failures_stop_a_run_and_none_counts_twice() {
        let jobs = ["a", "b", "c", "d"].map(|name| node(name, &[])).to_vec();
        let stops = |outputs: &[RunOutput]| outputs.contains(&RunOutput::Stop(3));
        let mut state = RunState::new(jobs, NonZeroU32::new(3));
        state.step(RunInput::Started);
        assert!(!stops(&state.step(RunInput::FailuresSeen(1))));
        // One test, which was told; one job without tests makes two.
        let mut of_tests = ended(JobStatus::Failed);
        of_tests.counts.failed = 1;
        assert!(!stops(&state.step(RunInput::JobEnded(0, of_tests))));
        let outputs = state.step(RunInput::JobEnded(1, ended(JobStatus::Failed)));
        assert!(!stops(&outputs));
        assert!(stops(&state.step(RunInput::FailuresSeen(2))));
    }

    #[test]
    fn a_suite_that_is_required_has_to_run_something() {
        let of = |planned: u32, skipped: u32| RunCounts {
            planned,
            passed: planned - skipped,
            skipped,
            ..RunCounts::default()
        };
        for (counts, is_required, expected) in [
            (of(0, 0), true, Verdict::Unknown),
            (of(2, 2), true, Verdict::Unknown),
            (of(2, 1), true, Verdict::Releasable),
            (of(0, 0), false, Verdict::Releasable),
        ] {
            let suite = |name| JobNode {
                is_suite: true,
                is_required,
                ..node(name, &[])
            };
            let mut state = RunState::new(vec![suite("a"), suite("b")], None);
            state.step(RunInput::Started);
            let end = |counts| JobEnd {
                counts,
                ..ended(JobStatus::Passed)
            };
            state.step(RunInput::JobEnded(0, end(of(1, 0))));
            let outputs = state.step(RunInput::JobEnded(1, end(counts)));
            let [RunOutput::Finish(conclusion)] = &outputs[..] else {
                panic!("{outputs:?}")
            };
            assert_eq!(conclusion.verdict, expected, "{counts:?}");
            let is_unknown = expected == Verdict::Unknown;
            assert_eq!(conclusion.reasons.len(), usize::from(is_unknown));
        }
    }

    #[test]
    fn tests_that_do_not_add_up_are_never_releasable() {
        let mut state = RunState::new(vec![node("a", &[])], None);
        state.step(RunInput::Started);
        let counts = RunCounts {
            planned: 2,
            passed: 1,
            ..RunCounts::default()
        };
        let end = JobEnd {
            counts,
            ..ended(JobStatus::Passed)
        };
        let outputs = state.step(RunInput::JobEnded(0, end));
        let [RunOutput::Finish(conclusion)] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!(conclusion.verdict, Verdict::Unknown);
    }

    fn status() -> impl Strategy<Value = JobStatus> {
        prop_oneof![
            6 => Just(JobStatus::Passed),
            1 => Just(JobStatus::Failed),
            1 => Just(JobStatus::Cancelled),
            1 => Just(JobStatus::Unknown),
        ]
    }

    #[derive(Clone, Debug)]
    enum Chance {
        End(prop::sample::Index, JobStatus),
        EndFirst,
        Cancel,
        FailuresSeen(u32),
    }

    fn chance() -> impl Strategy<Value = Chance> {
        prop_oneof![
            20 => (any::<prop::sample::Index>(), status())
                .prop_map(|(which, status)| Chance::End(which, status)),
            1 => Just(Chance::Cancel),
            1 => (0..5u32).prop_map(Chance::FailuresSeen),
        ]
    }

    /// Needs only of earlier jobs, so that there is no circle.
    fn graph() -> impl Strategy<Value = Vec<JobNode>> {
        prop::collection::vec(
            prop::collection::vec(any::<prop::sample::Index>(), 0..3),
            1..12,
        )
        .prop_map(|needs| {
            let job = |(index, needs): (usize, Vec<prop::sample::Index>)| {
                let earlier = needs.iter().filter(|_| index > 0);
                let needs: Vec<_> = earlier.map(|need| need.index(index)).collect();
                node(&index.to_string(), &needs)
            };
            needs.into_iter().enumerate().map(job).collect()
        })
    }

    proptest! {
        #[test]
        fn every_job_ends_once_and_the_run_ends(
            jobs in graph(),
            max_failures in 0..4u32,
            chances in prop::collection::vec(chance(), 0..40),
        ) {
            let count = jobs.len();
            let mut state = RunState::new(jobs.clone(), NonZeroU32::new(max_failures));
            let mut running: Vec<usize> = Vec::new();
            let mut ends = vec![None; count];
            let mut conclusions = Vec::new();
            let finish = std::iter::repeat_n(Chance::EndFirst, count);
            let mut inputs = vec![RunInput::Started];
            let mut chances = chances.into_iter().chain(finish);
            loop {
                for input in inputs.drain(..) {
                    for output in state.step(input) {
                        match output {
                            RunOutput::Start(job) => {
                                prop_assert!(ends[job].is_none() && !running.contains(&job));
                                for need in &jobs[job].needs {
                                    prop_assert_eq!(ends[*need], Some(JobStatus::Passed));
                                }
                                running.push(job);
                            }
                            RunOutput::Stop(job) => prop_assert!(running.contains(&job)),
                            RunOutput::NeverStarted(job, end) => {
                                prop_assert!(!running.contains(&job));
                                prop_assert!(ends[job].replace(end.status).is_none());
                            }
                            RunOutput::Finish(conclusion) => conclusions.push(conclusion),
                        }
                    }
                }
                let Some(chance) = chances.next() else { break };
                inputs.push(match chance {
                    Chance::Cancel => RunInput::Cancelled,
                    Chance::FailuresSeen(failures) => RunInput::FailuresSeen(failures),
                    Chance::End(..) | Chance::EndFirst if running.is_empty() => continue,
                    end => {
                        let (place, status) = match end {
                            Chance::End(which, status) => (which.index(running.len()), status),
                            _ => (0, JobStatus::Passed),
                        };
                        let job = running.remove(place);
                        prop_assert!(ends[job].replace(status).is_none());
                        RunInput::JobEnded(job, ended(status))
                    }
                });
            }
            prop_assert_eq!(conclusions.len(), 1);
            let all_passed = ends.iter().all(|end| *end == Some(JobStatus::Passed));
            let releasable = conclusions[0].verdict == Verdict::Releasable;
            prop_assert_eq!(releasable, all_passed && !conclusions[0].cancelled);
        }
    }
}
