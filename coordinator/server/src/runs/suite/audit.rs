//! Cached passes that are executed again once all else has passed.
//!
//! What a cache says is only as good as the declared inputs are complete. A pass that does not hold is
//! forgotten, and its test's result is told anew: a wrong hit never passes silently.

use std::sync::{Arc, Mutex, PoisonError};

use regatta_model::{Digest, FailureClass};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use tokio_util::sync::CancellationToken;

use super::execution::Execution;
use super::outbox::Purpose;
use super::{PlannedTests, Test};
use crate::runs::action::may_be_retried;
use crate::runs::audit::AuditShare;
use crate::runs::context::{JobContext, RunContext};
use crate::runs::plan::JobKind;
use crate::runs::surroundings::Surroundings;
use crate::runs::tally::{Ending, Tally};

/// What a run knows of the cached passes that it may execute again.
#[derive(Debug)]
pub(in crate::runs) struct Audit {
    share: AuditShare,
    /// Whether whoever submitted the run asked for this share.
    is_asked_for: bool,
    chosen: Mutex<Vec<ChosenHits>>,
}

/// Chosen cached passes of one suite, with what it ran in.
#[derive(Debug)]
struct ChosenHits {
    job: usize,
    input_root: Digest,
    surroundings: Surroundings,
    tests: Vec<Test>,
}

/// A cached pass that did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::runs) struct Disagreement {
    pub(in crate::runs) job: String,
    pub(in crate::runs) test: String,
    /// How the test ended instead.
    pub(in crate::runs) ending: Ending,
}

impl Audit {
    /// Executes the share that was asked for, else the usual one.
    pub(in crate::runs) fn new(asked_for: Option<AuditShare>, usual: AuditShare) -> Self {
        Self {
            share: asked_for.unwrap_or(usual),
            is_asked_for: asked_for.is_some(),
            chosen: Mutex::default(),
        }
    }

    /// Chooses out of a suite's cached passes.
    pub(super) fn consider<'a>(&self, job: &JobContext, hits: impl Iterator<Item = &'a Test>) {
        let chosen = hits.filter(|test| self.share.chooses(&job.run.run, &test.key));
        let tests: Vec<Test> = chosen.cloned().collect();
        if tests.is_empty() {
            return;
        }
        let hits = ChosenHits {
            job: job.index,
            input_root: job.input_root,
            surroundings: job.surroundings.clone(),
            tests,
        };
        let mut all = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(hits);
    }

    /// What there is to execute; nothing in a run that executed nothing else, unless it was asked for: a
    /// commit of which everything is known needs no agent.
    fn take(&self, has_executed: bool) -> Vec<ChosenHits> {
        if !self.is_asked_for && !has_executed {
            return Vec::new();
        }
        let mut all = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *all)
    }
}

/// Executes the chosen passes of a run, and tells what came of them. What the machines lose, or `cancel`
/// stops, is left as it was.
pub(in crate::runs) async fn audit_hits(
    run: &Arc<RunContext>,
    cancel: &CancellationToken,
) -> Vec<Disagreement> {
    let suites = run.audit.take(run.has_executed());
    let audits = suites
        .into_iter()
        .map(|hits| audit_suite(run, cancel, hits));
    futures::future::join_all(audits).await.concat()
}

async fn audit_suite(
    run: &Arc<RunContext>,
    cancel: &CancellationToken,
    hits: ChosenHits,
) -> Vec<Disagreement> {
    let JobKind::Suite(suite) = &run.plan.jobs[hits.job].kind else {
        return Vec::new();
    };
    let job = JobContext {
        run: Arc::clone(run),
        index: hits.job,
        input_root: hits.input_root,
        surroundings: hits.surroundings,
        cancel: cancel.clone(),
    };
    let tally = Tally::new(hits.tests.len());
    let planned = PlannedTests {
        tests: hits.tests,
        batch_overhead: suite.adapter.usual_overhead(),
    };
    let mut execution = Execution::new(&job, suite, &planned, tally, Purpose::Audit);
    execution.run().await;
    let (tally, _) = execution.finish().await;
    let endings = planned.tests.iter().zip(tally.endings());
    let agreed = endings
        .clone()
        .filter(|(_, it)| **it == Some(Ending::Passed));
    let agreed = u32::try_from(agreed.count()).unwrap_or(u32::MAX);
    if agreed > 0 {
        let job = job.name();
        let audited = v1::HitsAudited { job, agreed };
        run.log.append(Event::HitsAudited(audited));
    }
    let disagreement = |(test, ending): (&Test, &Option<Ending>)| {
        let ending = ending.filter(|ending| is_disagreement(*ending))?;
        Some(Disagreement {
            job: job.name(),
            test: test.id.clone(),
            ending,
        })
    };
    endings.filter_map(disagreement).collect()
}

/// Whether a test that ended so shows that its cached pass does not hold.
pub(super) const fn is_disagreement(ending: Ending) -> bool {
    match ending {
        Ending::Failed(FailureClass::Test | FailureClass::Timeout | FailureClass::Oom)
        | Ending::Quarantined(_)
        | Ending::Flaky
        | Ending::Skipped => true,
        Ending::Failed(FailureClass::Infra | FailureClass::Cancelled)
        | Ending::Passed
        | Ending::Cached
        | Ending::NotRun => false,
    }
}

/// A result that takes the place of a cached pass, if it shows that that does not hold.
pub(super) fn audited(ending: Ending, mut result: v1::TestResult) -> Option<v1::TestResult> {
    if !is_disagreement(ending) {
        return None;
    }
    let said = match result.message.as_str() {
        "" => String::new(),
        text => format!(": {text}"),
    };
    result.message = format!("a pass was cached, and does not hold{said}");
    result.is_audit = true;
    Some(result)
}

impl Execution<'_> {
    /// A pass that is cached is forgotten if the same test has just shown that it does not hold.
    pub(super) fn compare(&mut self, test: usize, ending: Ending) {
        let may_be_cached = self.purpose == Purpose::Audit
            || self.tests[test].repetition.is_some()
            || self.job.run.plan.spec.skip_cache_lookup;
        // What passes in the end is cached anew, unless it was known to pass at once.
        let is_wrong = match self.purpose {
            Purpose::Audit => is_disagreement(ending),
            Purpose::Answer => matches!(ending, Ending::Failed(class) if may_be_retried(class)),
        };
        if may_be_cached && is_wrong {
            self.outbox.distrust(self.tests[test].key);
        }
    }
}
