//! Tests become units of work for the fleet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use regatta_scheduler::{ExpectedUnit, FailedAt};

use super::Test;
use super::execution::Execution;
use super::ids_file::IdsFile;
use super::live::events_of;
use super::outbox::Purpose;
use super::precedence;
use super::worker::worker_of;
use crate::dispatch::{BatchShape, UnitPlan};
use crate::runs::action::ACTION;
use crate::runs::context::JobWork;
use crate::runs::keys::{action_key, attempt_key};
use crate::runs::log::now;
use crate::runs::plan::Adapter;
use crate::runs::state::JobEnd;

impl Execution<'_> {
    /// Submits tests that nothing is under way for.
    pub(super) async fn submit_all(&mut self, tests: Vec<usize>) -> Result<(), JobEnd> {
        // A batch has no test twice, which its report could not tell apart; and none in quarantine beside
        // others, or its failure would explain how the runner ended, and that of the others would not count. Nor has
        // it any beside one that runs again for an inquiry, of which each batch is a part. One time limit holds for all
        // of a batch.
        let mut rounds: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for test in tests {
            // What was tried before a restart is alone, as it was then.
            if self.attempts[test] > 0 {
                let failed_at = self.failed_before.remove(&test);
                self.submit_besides(vec![test], failed_at).await?;
                continue;
            }
            let known = &self.tests[test];
            let apart = self.is_in_quarantine(test);
            let inquiry = self.suspects.inquiry_of(test);
            let key = (known.repetition, apart, self.time_limit(test), inquiry);
            let round = rounds.entry(key).or_default();
            round.push(test);
        }
        for round in rounds.into_values() {
            self.submit(round).await?;
        }
        Ok(())
    }

    /// Submits tests, each of which is a unit.
    pub(super) async fn submit(&mut self, tests: Vec<usize>) -> Result<(), JobEnd> {
        self.submit_besides(tests, None).await
    }

    /// Submits tests that run anywhere but where they have just failed, if they can.
    pub(super) async fn submit_besides(
        &mut self,
        tests: Vec<usize>,
        failed_at: Option<FailedAt>,
    ) -> Result<(), JobEnd> {
        let shape = self.shape(&tests);
        let may_duplicate = self.may_duplicate();
        let first = precedence::first(
            tests.iter().map(|test| &self.tests[*test]),
            &self.changed_inputs,
            now(),
        );
        // An audit is not resumed. What a test runs on is a part of what it is: a build may have come to something else.
        let is_resumed = self.purpose == Purpose::Answer;
        // A pass that is looked into owes nothing to what runs in one process with it.
        let is_alone = self.purpose.is_audit() && self.suite.adapter.runs_together();
        let command = self.job.command(self.suite.run_arguments.clone());
        let limit = self.job.job().timeout;
        let action = action_key(self.job, &command, ACTION, true);
        let unit = |(position, test): (usize, &usize)| {
            let known = &self.tests[*test];
            let Test {
                id,
                estimate,
                company,
                ..
            } = known;
            let attempt = self.attempts[*test].saturating_add(1);
            let own = self.suite.own_part((id, company), limit);
            UnitPlan {
                expected: ExpectedUnit {
                    expected: estimate.timing.expected,
                    guessed: estimate.is_guess(),
                    late_after: estimate.late_after().filter(|_| may_duplicate),
                    first: first.contains(&position),
                    alone: is_alone,
                    key: is_resumed
                        .then(|| attempt_key(self.job, (&action, &known.name()), attempt)),
                },
                extra_arguments: own.arguments,
                extra_environment: own.environment,
            }
        };
        let work = JobWork {
            command,
            units: tests.iter().enumerate().map(unit).collect(),
            shape,
            batch_overhead: self.batch_overhead,
            merge_key: None,
            stream_output: self.job.run.plan.spec.stream_tests,
            failed_at,
            time_limit: tests.iter().map(|test| self.time_limit(*test)).max(),
            worker: None,
        };
        let handle = self.job.submit(work).await?;
        let submission = self.submissions.len();
        self.submissions.push(tests.into());
        self.events.push(
            events_of(handle)
                .map(move |event| (submission, event))
                .boxed(),
        );
        Ok(())
    }

    /// How a slot runs a batch of these tests.
    fn shape(&self, tests: &[usize]) -> BatchShape {
        let Adapter::Contract { junit_path, .. } = &self.suite.adapter else {
            return BatchShape::ExecutionPerUnit;
        };
        let ids = tests.iter().map(|test| self.tests[*test].id.clone());
        let is_suspected = |test: &usize| self.suspects.inquiry_of(*test).is_some();
        BatchShape::OneExecution(Arc::new(IdsFile {
            blobs: Arc::clone(&self.job.run.blobs),
            junit_path: junit_path.clone(),
            ids: ids.collect(),
            byproducts: self.byproducts,
            worker: worker_of(self.job, self.suite).filter(|_| self.may_stay(tests)),
            has_new_worker: tests.iter().any(is_suspected),
        }))
    }

    /// Whether tests may run in a process that has run others before. One that is tried again, looked into or known to
    /// fail has one of its own. One that may have ended its runner does not, but a worker that is new: it may do so in a
    /// worker alone, and not because of what others have made of it.
    fn may_stay(&self, tests: &[usize]) -> bool {
        let is_plain = |test: &usize| {
            let is_repeated = self.tests[*test].repetition.is_some();
            self.attempts[*test] == 0 && !is_repeated && !self.is_in_quarantine(*test)
        };
        self.purpose == Purpose::Answer && tests.iter().all(is_plain)
    }

    pub(super) fn is_in_quarantine(&self, test: usize) -> bool {
        let quarantine = &self.suite.quarantine;
        quarantine.contains_key(&self.tests[test].id)
    }

    /// How long an execution of this test may take, with whatever runs with it.
    fn time_limit(&self, test: usize) -> Duration {
        let of_each = self.job.job().timeout;
        self.tests[test].company.time_limit(of_each)
    }

    /// Whether a batch that is late may be begun again elsewhere. Whoever looks into how a test behaves wants to
    /// know how each run of it ends, and a slow one is no accident then.
    fn may_duplicate(&self) -> bool {
        self.suite.may_duplicate
            && !self.job.run.plan.spec.no_duplicates
            && self.suite.repetition.is_none()
            && self.purpose == Purpose::Answer
    }
}
