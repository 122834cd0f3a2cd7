//! Cached passes and skips that are executed again once all else has ended.
//!
//! What a cache says is only as good as the declared inputs are complete. What does not hold is
//! forgotten, and its test's result is told anew: a wrong hit never passes silently. In a run that has failed otherwise
//! it is one more reason; what is not RELEASABLE never becomes so by an audit, nor does any other reason go.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use regatta_model::{Digest, FailureClass, RunId};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use tokio_util::sync::CancellationToken;

use super::execution::Execution;
use super::outbox::{Purpose, append_results};
use super::quarantine::in_quarantine;
use super::{PlannedTests, Test};
use crate::runs::action::{distrust, forget, may_be_retried};
use crate::runs::audit::AuditShare;
use crate::runs::context::{JobContext, RunContext};
use crate::runs::event::test_ending_of;
use crate::runs::plan::JobKind;
use crate::runs::recorded::Recorded;
use crate::runs::surroundings::Surroundings;
use crate::runs::tally::{Ending, Tally};

/// What is cached of a test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::runs) enum Claim {
    Pass,
    Skip,
}

impl Claim {
    /// What is cached of a test that was told to have ended so.
    pub(in crate::runs) fn of(told: Option<&Ending>) -> Self {
        match told == Some(&Ending::Skipped) {
            true => Self::Skip,
            false => Self::Pass,
        }
    }

    /// How a test ends of which it is cached.
    pub(in crate::runs) const fn ending(self) -> Ending {
        match self {
            Self::Pass => Ending::Cached,
            Self::Skip => Ending::Skipped,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skip => "skip",
        }
    }

    /// Whether a test that ended so shows that it does not hold.
    const fn is_refuted_by(self, ending: Ending) -> bool {
        match ending {
            Ending::Failed(FailureClass::Test | FailureClass::Timeout | FailureClass::Oom)
            | Ending::Quarantined(_)
            | Ending::Flaky => true,
            Ending::Passed => matches!(self, Self::Skip),
            Ending::Skipped => matches!(self, Self::Pass),
            Ending::Failed(FailureClass::Infra | FailureClass::Cancelled)
            | Ending::Cached
            | Ending::NotRun => false,
        }
    }
}

impl Purpose {
    pub(super) const fn is_audit(self) -> bool {
        matches!(self, Self::Audit(_))
    }
}

/// What a run knows of the cached passes and skips that it may execute again.
#[derive(Debug)]
pub(in crate::runs) struct Audit {
    share: AuditShare,
    /// Whether whoever submitted the run asked for this share.
    is_asked_for: bool,
    chosen: Mutex<Vec<ChosenHits>>,
    /// What has been told so far of passes that do not hold.
    disagreements: Mutex<Vec<Disagreement>>,
    /// Why runners failed though every test passed again.
    complaints: Mutex<Vec<String>>,
    /// What has not been looked into though that was asked for, for people.
    unanswered: Mutex<Vec<String>>,
}

/// Chosen cached passes of one suite, or skips, with what it ran in.
#[derive(Debug)]
struct ChosenHits {
    job: usize,
    claim: Claim,
    input_root: Digest,
    surroundings: Surroundings,
    tests: Vec<Test>,
}

/// A cached pass or skip that did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::runs) struct Disagreement {
    pub(in crate::runs) job: String,
    pub(in crate::runs) test: String,
    pub(in crate::runs) claim: Claim,
    /// How the test ended instead.
    pub(in crate::runs) ending: Ending,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (claim, Self { job, test, .. }) = (self.claim.name(), self);
        write!(f, "the cached {claim} of `{test}` of `{job}` does not hold")
    }
}

impl Audit {
    /// Executes the share that was asked for, else the usual one.
    pub(in crate::runs) fn new(asked_for: Option<AuditShare>, usual: AuditShare) -> Self {
        Self {
            share: asked_for.unwrap_or(usual),
            is_asked_for: asked_for.is_some(),
            chosen: Mutex::default(),
            disagreements: Mutex::default(),
            complaints: Mutex::default(),
            unanswered: Mutex::default(),
        }
    }

    /// With what came of it in earlier processes.
    pub(in crate::runs) fn going_on(self, recorded: &Recorded) -> Self {
        *lock(&self.disagreements) = recorded.disagreements();
        *lock(&self.complaints) = recorded.audit_complaints();
        self
    }

    /// Whether whoever submitted a run wants the pass of this key looked into.
    pub(in crate::runs) fn is_wanted(&self, run: &RunId, key: &Digest) -> bool {
        self.is_asked_for && self.share.chooses(run, key)
    }

    /// Chooses out of a suite's cached passes, or skips.
    pub(super) fn consider<'a>(
        &self,
        job: &JobContext,
        hits: impl Iterator<Item = &'a Test>,
        claim: Claim,
    ) {
        let chosen = hits.filter(|test| self.share.chooses(&job.run.run, &test.key));
        let tests: Vec<Test> = chosen.cloned().collect();
        if tests.is_empty() {
            return;
        }
        let hits = ChosenHits {
            job: job.index,
            claim,
            input_root: job.input_root,
            surroundings: job.surroundings.clone(),
            tests,
        };
        lock(&self.chosen).push(hits);
    }

    /// The cached passes and skips that do not hold, as far as they have been told.
    pub(in crate::runs) fn disagreements(&self) -> Vec<Disagreement> {
        lock(&self.disagreements).clone()
    }

    /// What has not been looked into though that was asked for, for people.
    pub(in crate::runs) fn unanswered(&self) -> Vec<String> {
        lock(&self.unanswered).clone()
    }

    /// What runners complained of besides.
    pub(in crate::runs) fn complaints(&self) -> Vec<String> {
        lock(&self.complaints).clone()
    }

    /// What there is to execute; nothing in a run that executed nothing else, unless it was asked for: a
    /// commit of which everything is known needs no agent.
    fn take(&self, has_executed: bool) -> Vec<ChosenHits> {
        if !self.is_asked_for && !has_executed {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&self.chosen))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Executes the chosen passes of a run, and tells what came of them. What the machines lose, or `cancel`
/// stops, is left as it was, unless it had failed by then.
pub(in crate::runs) async fn audit_hits(run: Arc<RunContext>, cancel: CancellationToken) {
    let suites = run.audit.take(run.has_executed());
    let audits = suites
        .into_iter()
        .map(|hits| audit_suite(&run, &cancel, hits));
    futures::future::join_all(audits).await;
}

/// A cached pass that had failed when it was looked into, before a restart, does not hold: another attempt would
/// not take that back.
pub(in crate::runs) async fn end_failed_audits(run: &RunContext) {
    for failed in run.recorded.failed_audits() {
        let mut jobs = run.plan.jobs.iter();
        let Some(job) = jobs.position(|job| job.name.as_str() == failed.job) else {
            continue;
        };
        let JobKind::Suite(suite) = &run.plan.jobs[job].kind else {
            continue;
        };
        let key = failed.key.as_ref().and_then(|key| key.try_into().ok());
        if let Some(key) = key {
            forget(run, &key).await;
        }
        let ending = test_ending_of(failed);
        let (ending, result) = in_quarantine(suite, &failed.test_id, ending, failed.clone());
        let claim = claim_of(&result);
        let Some(result) = audited(claim, ending, result) else {
            continue;
        };
        let disagreement = Disagreement {
            job: failed.job.clone(),
            test: failed.test_id.clone(),
            claim,
            ending,
        };
        lock(&run.audit.disagreements).push(disagreement);
        let results = vec![result];
        let event = Event::TestsFinished(v1::TestsFinished { results });
        append_results(run, job, None, event);
    }
}

async fn audit_suite(run: &Arc<RunContext>, cancel: &CancellationToken, hits: ChosenHits) {
    let JobKind::Suite(suite) = &run.plan.jobs[hits.job].kind else {
        return;
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
        // Whoever looks into a pass relies on nothing that was made for it.
        byproducts: None,
    };
    let mut execution = Execution::new(&job, suite, &planned, tally, Purpose::Audit(hits.claim));
    execution.run().await;
    let (tally, complaints) = execution.finish().await;
    let lost = tally.endings().filter(|it| **it == Some(Ending::NotRun));
    let lost = lost.count();
    if lost > 0 && run.audit.is_asked_for && !cancel.is_cancelled() {
        let (name, of) = (job.name(), planned.tests.len());
        lock(&run.audit.unanswered).push(format!(
            "{lost} of {of} results that are cached of `{name}` were to be looked into, and no machine did: run it again"
        ));
    }
    if !complaints.is_empty() {
        // With complaints nothing would have been cached: none of it can be relied on.
        let keys = planned.tests.iter().map(|test| test.key).collect();
        distrust(&job, keys).await;
        let name = job.name();
        let said = complaints;
        for text in said {
            let message = format!("`{name}`, executed again: {text}");
            run.log.append(Event::SuiteComplained(v1::SuiteComplained {
                job: name.clone(),
                message: message.clone(),
                is_audit: true,
            }));
            lock(&run.audit.complaints).push(message);
        }
        return;
    }
    if hits.claim == Claim::Skip {
        return;
    }
    let agreed = tally.endings().filter(|it| **it == Some(Ending::Passed));
    let agreed = u32::try_from(agreed.count()).unwrap_or(u32::MAX);
    if agreed > 0 {
        let job = job.name();
        let audited = v1::HitsAudited { job, agreed };
        run.log.append(Event::HitsAudited(audited));
    }
}

/// What a result of an audit takes the place of, or may come to.
const fn claim_of(result: &v1::TestResult) -> Claim {
    match result.replaces_skip {
        true => Claim::Skip,
        false => Claim::Pass,
    }
}

/// A result that takes the place of a cached one, if it shows that that does not hold.
fn audited(claim: Claim, ending: Ending, mut result: v1::TestResult) -> Option<v1::TestResult> {
    if !claim.is_refuted_by(ending) {
        return None;
    }
    let said = match result.message.as_str() {
        "" => String::new(),
        text => format!(": {text}"),
    };
    result.message = format!("a {} was cached, and does not hold{said}", claim.name());
    result.is_audit = true;
    Some(result)
}

/// A result that says what took its time, and how long.
fn without_output(result: v1::TestResult) -> v1::TestResult {
    v1::TestResult {
        stdout_tail: Bytes::new(),
        stderr_tail: Bytes::new(),
        stdout_digest: None,
        stderr_digest: None,
        message: String::new(),
        ..result
    }
}

impl Execution<'_> {
    /// Tells how a test of an audit ended, in place of what is cached of it if that does not hold.
    pub(super) fn tell_audited(
        &mut self,
        (test, claim): (usize, Claim),
        ending: Ending,
        result: v1::TestResult,
    ) {
        if ending == Ending::Passed && claim == Claim::Pass {
            self.outbox.agree(without_output(result));
            return;
        }
        let Some(result) = audited(claim, ending, result) else {
            return;
        };
        let disagreement = Disagreement {
            job: self.job.name(),
            test: self.tests[test].id.clone(),
            claim,
            ending,
        };
        lock(&self.job.run.audit.disagreements).push(disagreement);
        self.outbox.tell(result);
    }

    /// A test of an audit has no answer. If it has failed before, it has failed: what is cached does not hold,
    /// whatever another attempt would have come to.
    pub(super) fn end_unanswered_audit(&mut self, test: usize) {
        let Some((ending, result)) = self.failed_once.remove(&test) else {
            self.tally.record(test, Ending::NotRun);
            return;
        };
        let known = &self.tests[test];
        let (ending, result) = in_quarantine(self.suite, &known.id, ending, result);
        if self.tally.record(test, ending) {
            self.outbox.distrust(known.key);
            let claim = claim_of(&result);
            self.tell_audited((test, claim), ending, result);
        }
    }

    /// What is cached is forgotten if the same test has just shown that it does not hold.
    pub(super) fn compare(&mut self, test: usize, ending: Ending) {
        let may_be_cached = self.purpose.is_audit()
            || self.tests[test].repetition.is_some()
            || self.job.run.plan.spec.skip_cache_lookup;
        let is_wrong = match (self.purpose, ending) {
            (Purpose::Audit(claim), ending) => claim.is_refuted_by(ending),
            (Purpose::Answer, Ending::Failed(class)) => may_be_retried(class),
            // A pass after a failure is not cached, and an older one would hide the next time that it is flaky.
            (Purpose::Answer, ending) => ending == Ending::Flaky,
        };
        if may_be_cached && is_wrong {
            self.outbox.distrust(self.tests[test].key);
        }
    }
}
