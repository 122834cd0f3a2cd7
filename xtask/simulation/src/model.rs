//! What may be told of runs, known from outside: from what went into the coordinator and what machines did.
//!
//! It shares no code with what it judges, and believes nothing that the coordinator says of itself.

mod fences;
mod packs;
mod promises;
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regatta_model::Digest;
use regatta_wire::v1::run_event::Event;
use regatta_wire::{reapi, v1};

pub(crate) use fences::Fences;
pub(crate) use packs::packed_in;
pub(crate) use promises::{BY_VERDICT, Promises};
pub(crate) use story::{Story, check_whole};

use crate::job;
use crate::violation::{Checked, Invariant};

/// Something that a machine has carried out.
#[derive(Clone, Debug)]
pub(crate) struct Executed {
    pub(crate) machine: usize,
    pub(crate) lease: u64,
    pub(crate) token: u64,
    /// Each of its tests, and whether it passed; none of a build.
    pub(crate) tests: BTreeMap<String, bool>,
    /// Whether it was told to the coordinator while its lease was in force.
    pub(crate) counts: bool,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) fences: Fences,
    pub(crate) promises: Promises,
    executed: Vec<Executed>,
    /// The executions whose output is kept as this blob.
    printed: BTreeMap<Digest, usize>,
    /// Tests of which some execution has passed.
    passed: BTreeSet<String>,
    /// The leases that each life of an agent has begun.
    begun: BTreeSet<(usize, u64, u64, u64)>,
}

impl Model {
    /// An agent begins a lease.
    pub(crate) fn begins(&mut self, machine: usize, life: u64, lease: u64, token: u64) -> Checked {
        let is_new = self.begun.insert((machine, life, lease, token));
        Invariant::NoLeaseRunsTwice
            .holds(is_new, || format!("m{machine} begins lease {lease} again"))
    }

    /// The name of the next execution.
    pub(crate) fn next_execution(&self) -> usize {
        self.executed.len()
    }

    /// A machine has carried something out, and what it printed may be a blob.
    pub(crate) fn executes(&mut self, executed: Executed, printed: Option<Digest>) {
        let number = self.executed.len();
        let passed = executed.tests.iter().filter(|(_, passed)| **passed);
        self.passed.extend(passed.map(|(test, _)| test.clone()));
        self.printed.extend(printed.map(|digest| (digest, number)));
        self.executed.push(executed);
    }

    /// A report comes in, while the coordinator is there.
    pub(crate) fn arrives(&mut self, now: Duration, machine: usize, report: &v1::AgentReport) {
        self.fences.hear(now, machine);
        for lease in &report.leases {
            let is_valid = self
                .fences
                .is_valid(machine, lease.lease_id, lease.fencing_token);
            for outcome in lease.outcomes.iter().filter(|_| is_valid) {
                for number in self.executions_of(outcome.result.as_ref()) {
                    if let Some(executed) = self.executed.get_mut(number) {
                        executed.counts = true;
                    }
                }
            }
        }
    }

    fn executions_of(&self, result: Option<&reapi::ActionResult>) -> Vec<usize> {
        let Some(result) = result else {
            return Vec::new();
        };
        let printed = job::blobs_of(result).filter_map(|digest| self.printed.get(&digest).copied());
        let said = job::execution_in(&result.stdout_raw);
        printed.chain(said).collect()
    }

    /// An event of a run becomes known.
    pub(crate) fn seen(&self, event: &v1::RunEvent) -> Checked {
        match &event.event {
            Some(Event::TestsFinished(finished)) => finished
                .results
                .iter()
                .try_for_each(|result| self.judge(result)),
            Some(Event::TestRetried(retried)) => retried
                .result
                .iter()
                .try_for_each(|result| self.judge(result)),
            Some(Event::JobFinished(finished)) => self.judge_build(finished),
            _ => Ok(()),
        }
    }

    /// A result of a test has to be what an execution of it came to, which counted.
    fn judge(&self, result: &v1::TestResult) -> Checked {
        let test = &result.test_id;
        let needs = match result.status() {
            v1::TestStatus::Passed | v1::TestStatus::Flaky => Some(true),
            v1::TestStatus::Failed | v1::TestStatus::Quarantined => match result.failure_class() {
                v1::FailureClass::Test => Some(false),
                _ => None,
            },
            v1::TestStatus::Cached => {
                let rests = self.passed.contains(test);
                return Invariant::ResultsAreTrue
                    .holds(rests, || format!("{test} is cached and has never passed"));
            }
            v1::TestStatus::Skipped | v1::TestStatus::NotRun | v1::TestStatus::Unspecified => None,
        };
        let Some(passed) = needs else {
            return Ok(());
        };
        let blob = result.stdout_digest.as_ref();
        let blob = blob.and_then(|it| Digest::try_from(it).ok());
        let blob = blob.and_then(|digest| self.printed.get(&digest).copied());
        let number = blob.or_else(|| job::execution_in(&result.stdout_tail));
        let executed = number.and_then(|number| Some((number, self.executed.get(number)?)));
        let Some((number, executed)) = executed else {
            return Err(Invariant::ResultsAreTrue.violated(format!(
                "a result of {test} comes from no execution: {result:?}"
            )));
        };
        Invariant::ResultsAreTrue.holds(executed.tests.get(test) == Some(&passed), || {
            format!(
                "{test} is told to be {:?}, and execution {number} was {executed:?}",
                result.status()
            )
        })?;
        self.counted(number, executed, test)
    }

    fn judge_build(&self, finished: &v1::JobFinished) -> Checked {
        let is_new = finished.status() == v1::JobStatus::Passed && !finished.cached;
        let result = finished.result.as_ref().filter(|_| is_new);
        let number = result.and_then(|result| job::execution_in(&result.stdout_raw));
        match number.and_then(|number| Some((number, self.executed.get(number)?))) {
            Some((number, executed)) => self.counted(number, executed, &finished.job),
            None => Ok(()),
        }
    }

    fn counted(&self, number: usize, executed: &Executed, what: &str) -> Checked {
        Invariant::NoResultOfAnExpiredFence.holds(executed.counts, || {
            format!(
                "a result of {what} comes from execution {number} under lease {} of m{}, whose fence had expired: {}",
                executed.lease, executed.machine, self.fences.describe(executed.lease, executed.token)
            )
        })
    }

    /// An action result was served.
    pub(crate) fn served(&self, key: &Digest, absent: &[Digest]) -> Checked {
        Invariant::ServedResultsAreComplete.holds(absent.is_empty(), || {
            format!("the result of {key} was served and names {absent:?}, which are gone")
        })
    }
}
