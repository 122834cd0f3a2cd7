//! Runs the tests whose results are not known, and tries failed ones again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use regatta_model::{AgentId, AttemptNumber, Digest, FailureClass, LeaseId, SlotIndex, UnitIndex};
use regatta_scheduler::FailedAt;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use tokio::time::Instant;

use super::audit::Claim;
use super::changes::changed_inputs;
use super::judged::{Ended, Judged};
use super::live::{MAX_STREAMED_BYTES, at, overtaken_text};
use super::observed::timed;
use super::outbox::{Outbox, Purpose};
use super::overhead::Overheads;
use super::precedence::ChangedInputs;
use super::quarantine::in_quarantine;
use super::reports::Reports;
use super::sharding::ReportedCases;
use super::slow::{Granted, SlowTest, SlowTests};
use super::suspects::Suspects;
use super::{PlannedTests, Test, bare_result};
use crate::dispatch::TaskEvent;
use crate::runs::action::may_be_retried;
use crate::runs::context::JobContext;
use crate::runs::event;
use crate::runs::log::now;
use crate::runs::plan::{Adapter, PlannedSuite};
use crate::runs::tally::{Ending, Tally};

/// The execution of a suite's open tests.
pub(super) struct Execution<'a> {
    pub(super) job: &'a JobContext,
    pub(super) suite: &'a PlannedSuite,
    pub(super) tests: &'a [Test],
    pub(super) batch_overhead: Duration,
    pub(super) byproducts: Option<Digest>,
    pub(super) overheads: Overheads,
    pub(super) tally: Tally,
    /// How often each test has been answered.
    pub(super) attempts: Vec<u32>,
    /// Where tests failed last, in an earlier process, that are to be tried again.
    pub(super) failed_before: HashMap<usize, FailedAt>,
    /// For each submission, the tests that are its units.
    pub(super) submissions: Vec<Arc<[usize]>>,
    pub(super) events: SelectAll<BoxStream<'static, (usize, TaskEvent)>>,
    /// The units of each lease, for adapters that report by batch.
    pub(super) leases: HashMap<LeaseId, Vec<UnitIndex>>,
    pub(super) reports: Reports,
    pub(super) suspects: Suspects,
    pub(super) complaints: Vec<String>,
    pub(super) outbox: Outbox<'a>,
    pub(super) slow: SlowTests,
    /// How much of the tests' output has been told as it came, in bytes.
    streamed_bytes: usize,
    pub(super) purpose: Purpose,
    /// What has changed since the tests ran last, as far as their order depends on it.
    pub(super) changed_inputs: ChangedInputs,
    /// In an audit, the tests that have failed and are tried again.
    pub(super) failed_once: BTreeMap<usize, (Ending, v1::TestResult)>,
    /// What shards have reported.
    pub(super) reported_cases: ReportedCases,
}

/// Where an answer comes from.
struct Origin {
    lease: LeaseId,
    agent: AgentId,
    slot: SlotIndex,
    /// The late attempt that it overtakes.
    overtaken: Option<SlowTest>,
}

impl<'a> Execution<'a> {
    pub(super) fn new(
        job: &'a JobContext,
        suite: &'a PlannedSuite,
        planned: &'a PlannedTests,
        tally: Tally,
        purpose: Purpose,
    ) -> Self {
        let tests = &planned.tests[..];
        Self {
            job,
            suite,
            tests,
            batch_overhead: planned.batch_overhead,
            byproducts: planned.byproducts,
            overheads: Overheads::default(),
            tally,
            attempts: vec![0; tests.len()],
            failed_before: HashMap::new(),
            submissions: Vec::new(),
            events: SelectAll::new(),
            leases: HashMap::new(),
            reports: Reports::default(),
            suspects: Suspects::default(),
            complaints: Vec::new(),
            outbox: Outbox::new(job),
            slow: SlowTests::default(),
            streamed_bytes: 0,
            purpose,
            changed_inputs: ChangedInputs::default(),
            failed_once: BTreeMap::new(),
            reported_cases: ReportedCases::default(),
        }
    }

    /// Runs every open test to its end, or until the job is cancelled.
    pub(super) async fn run(&mut self) {
        let open: Vec<usize> = self.tally.open().collect();
        if open.is_empty() {
            return;
        }
        if self.purpose == Purpose::Answer {
            let tests = open.iter().map(|test| &self.tests[*test]);
            self.changed_inputs = changed_inputs(self.job, tests).await;
        }
        self.take_in_known_shards().await;
        if let Err(end) = self.submit_all(open).await {
            self.give_up(self.tally.open().collect(), &end);
            return;
        }
        let cancel = self.job.cancel.clone();
        while self.tally.open_count() > 0 && !cancel.is_cancelled() {
            let event = match self.events.next().now_or_never() {
                Some(event) => event,
                None => {
                    self.outbox.flush().await;
                    let slow = self.slow.next();
                    tokio::select! {
                        () = cancel.cancelled() => break,
                        event = self.events.next() => event,
                        () = at(slow) => {
                            self.tell_slow();
                            continue;
                        }
                    }
                }
            };
            let Some((submission, event)) = event else {
                break;
            };
            self.take(submission, event).await;
            self.outbox.flush_if_full().await;
        }
    }

    /// Ends what is open, and tells and stores what is left to.
    pub(super) async fn finish(mut self) -> (Tally, Vec<String>) {
        self.events.clear();
        let open: Vec<usize> = self.tally.open().collect();
        for test in open {
            if self.purpose.is_audit() {
                self.end_unanswered_audit(test);
                continue;
            }
            self.tally.record(test, Ending::NotRun);
            let result = v1::TestResult {
                attempts: self.attempts[test],
                ..bare_result(self.job, &self.tests[test], Ending::NotRun)
            };
            self.outbox.tell(result);
        }
        self.outbox.close(self.overheads.measured()).await;
        (self.tally, self.complaints)
    }

    async fn take(&mut self, submission: usize, event: TaskEvent) {
        self.job.run.times.take(&event);
        match event {
            TaskEvent::Granted {
                lease,
                units,
                agent,
                duplicates,
                ..
            } => {
                self.tell_duplicate(duplicates, &agent);
                self.granted(submission, units, (lease, agent, duplicates));
            }
            TaskEvent::Answered {
                unit,
                outcome,
                lease,
                agent,
                slot,
                ..
            } => {
                let overtaken = self.test_of(submission, unit);
                let overtaken = overtaken.and_then(|test| self.overtaken_by(lease, test));
                if let Some(test) = self.ended(submission, unit) {
                    let origin = Origin {
                        lease,
                        agent,
                        slot,
                        overtaken,
                    };
                    self.answered(submission, test, outcome, origin).await;
                }
            }
            TaskEvent::Retried {
                unit,
                agent,
                attempt,
                reason,
            } => self.retried((submission, unit), &agent, attempt, reason),
            TaskEvent::Returned { unit } => {
                self.ended(submission, unit);
            }
            TaskEvent::Failed { unit, error } => {
                if let Some(test) = self.ended(submission, unit) {
                    self.lost(test, &error);
                }
            }
            TaskEvent::Output {
                unit,
                stream,
                offset,
                data,
            } => {
                self.streamed_bytes += data.len();
                let test = self.test_of(submission, unit);
                if let Some(test) = test.filter(|_| self.streamed_bytes <= MAX_STREAMED_BYTES) {
                    self.tell_output(test, stream, offset, data).await;
                }
            }
            TaskEvent::Finished => {}
        }
    }

    fn retried(
        &mut self,
        (submission, unit): (usize, UnitIndex),
        agent: &AgentId,
        attempt: AttemptNumber,
        reason: String,
    ) {
        if let Some(test) = self.ended(submission, unit) {
            let retry = v1::InfrastructureRetry {
                job: self.job.name(),
                test_id: self.tests[test].name(),
                agent_id: agent.to_string(),
                message: reason,
                next_attempt: attempt.0 + 1,
            };
            self.job.run.log.append(Event::InfrastructureRetry(retry));
        }
    }

    fn granted(
        &mut self,
        submission: usize,
        units: Vec<UnitIndex>,
        (lease, agent, duplicates): (LeaseId, AgentId, Option<LeaseId>),
    ) {
        if self.purpose == Purpose::Answer {
            self.job.count_lease();
        }
        let together = self.suite.adapter.runs_together();
        let tests = units.iter();
        let tests = tests.filter_map(|unit| self.test_of(submission, *unit));
        let tests = tests.collect();
        let now = Instant::now();
        self.overheads.granted(lease, now);
        let granted = Granted {
            lease,
            agent,
            tests,
            together,
            duplicates,
        };
        self.slow.granted(granted, now);
        if together {
            self.leases.insert(lease, units);
        }
    }

    /// The test that a unit stands for, which does not run any more.
    fn ended(&mut self, submission: usize, unit: UnitIndex) -> Option<usize> {
        let test = self.test_of(submission, unit)?;
        self.slow.ended(test, Instant::now());
        Some(test)
    }

    pub(super) fn test_of(&self, submission: usize, unit: UnitIndex) -> Option<usize> {
        let unit = usize::try_from(unit.0).ok()?;
        self.submissions.get(submission)?.get(unit).copied()
    }

    async fn answered(
        &mut self,
        submission: usize,
        test: usize,
        outcome: v1::ExecutionOutcome,
        origin: Origin,
    ) {
        let mut judged = match &self.suite.adapter {
            Adapter::Harness(harness) => {
                let took = event::duration_of(&outcome);
                self.overheads.answered(origin.lease, took, Instant::now());
                let test = &self.tests[test];
                let named = (test.id.as_str(), &test.company);
                harness.judge(self.job, named, &outcome).await
            }
            Adapter::Sharding { shards } => self.judge_shard(test, *shards, &outcome).await,
            Adapter::Contract { junit_path, .. } => {
                let path = junit_path.clone();
                let report = self.report(submission, &path, &outcome, origin.lease).await;
                if report.leaves(&self.tests[test].id) {
                    return;
                }
                self.judge_reported(&report, test)
            }
        };
        if let Some(complaint) = judged.complaint.take() {
            self.complain(complaint);
        }
        let is_comparable = self.job.surroundings.produced(&outcome);
        judged.cacheable = judged.cacheable.filter(|_| is_comparable);
        self.attempts[test] += 1;
        let attempts = self.attempts[test];
        judged.refuse_late_skip(attempts);
        if let Some(overtaken) = &origin.overtaken {
            judged.note_overtaken(overtaken_text(&self.tests[test].name(), overtaken));
        }
        let ending = match &judged.verdict {
            Ok(Ended::Passed) if attempts == 1 => Ending::Passed,
            Ok(Ended::Passed | Ended::PassedAgain) => Ending::Flaky,
            Ok(Ended::Skipped(_)) => Ending::Skipped,
            Err((class, _)) => Ending::Failed(*class),
        };
        let result = v1::TestResult {
            attempts,
            r#where: Some(event::provenance(&origin.agent, origin.slot, &outcome)),
            replaces_skip: self.purpose == Purpose::Audit(Claim::Skip),
            ..judged.result(bare_result(self.job, &self.tests[test], ending))
        };
        let may_pass = matches!(ending, Ending::Failed(class) if may_be_retried(class));
        if may_pass && attempts <= self.job.job().retries {
            self.job.run.log.append(Event::TestRetried(v1::TestRetried {
                result: Some(result.clone()),
                next_attempt: attempts + 1,
            }));
            if self.purpose.is_audit() && is_comparable {
                self.failed_once.insert(test, (ending, result.clone()));
            }
            let (agent, slot) = (origin.agent, origin.slot);
            let failed_at = Some(FailedAt { agent, slot });
            if self.submit_besides(vec![test], failed_at).await.is_ok() {
                return;
            }
        }
        if is_comparable {
            self.compare(test, ending);
        }
        let id = &self.tests[test].id;
        let (ending, result) = in_quarantine(self.suite, id, ending, result);
        self.settle(test, ending, result, judged);
    }

    /// A test has its final answer.
    fn settle(&mut self, test: usize, ending: Ending, result: v1::TestResult, judged: Judged) {
        if !self.tally.record(test, ending) {
            tracing::error!(
                test = self.tests[test].id,
                "a test was answered twice; report this"
            );
            return;
        }
        let known = &self.tests[test];
        let place = result.r#where.clone();
        match self.purpose {
            Purpose::Answer => self.outbox.tell(result),
            Purpose::Audit(claim) => self.tell_audited((test, claim), ending, result),
        }
        // One of many runs may pass by chance, and so may a test that has just failed: a pass that is remembered
        // would hide the next time that it is flaky.
        let may_cache = self.purpose == Purpose::Answer
            && known.repetition.is_none()
            && !known.suspicion.is_distrusted(now())
            && ending != Ending::Flaky;
        if let Some(pass) = judged.cacheable.filter(|_| may_cache) {
            let pass = (known.key, timed(pass, judged.duration), place);
            let pass = self.suspects.hold_back(test, pass);
            pass.into_iter().for_each(|pass| self.outbox.cache(pass));
        }
        let counts = self.purpose == Purpose::Answer;
        if counts && matches!(ending, Ending::Failed(class) if class != FailureClass::Infra) {
            self.job.run.failures.add_one();
        }
    }
}
