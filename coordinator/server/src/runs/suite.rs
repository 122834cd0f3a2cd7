//! A test job: discover, look up, run the rest, judge, count.

mod adapter;
mod audit;
mod changes;
mod company;
mod contract;
mod ctest;
mod discovery;
mod estimate;
mod execution;
mod foresee;
mod googletest;
mod gotest;
mod harness;
mod ids_file;
mod judged;
mod libtest;
mod live;
mod naming;
mod observed;
mod outbox;
mod overhead;
mod precedence;
mod quarantine;
mod reports;
mod resumption;
mod runner_exit;
pub(super) mod sharding;
mod slow;
mod submission;
mod suspects;
mod unanswered;
mod worker;

use std::collections::BTreeSet;
use std::time::Duration;

use regatta_ledger::{Place, SuiteKnowledge};
use regatta_model::{Digest, FailureClass};
use regatta_wire::convert::duration_to_wire;
use regatta_wire::{reapi, v1};

use super::context::{JobContext, JobOutcome, cancelled};
use super::event;
use super::hits::is_own;
use super::keys::action_key;
use super::log::now;
use super::origin::origin_of;
use super::plan::{Adapter, Plan, PlannedSuite};
use super::state::{JobEnd, JobStatus};
use super::tally::{Ending, Tally};
pub(super) use audit::{Audit, Claim, Disagreement, audit_hits, end_failed_audits};
use company::Company;
use discovery::Listing;
use estimate::{Estimate, Estimates};
use execution::Execution;
pub(super) use foresee::{Foreseen, foresee};
use judged::reason_of_skip;
use observed::untold;
use outbox::{Purpose, tell};
use precedence::Suspicion;
use resumption::{listed_before, replay, tell_plan};
#[cfg(test)]
pub(super) use suspects::{MOST_IN_A_ROW, MOST_SILENT};

/// Results that one event holds at most.
const MAX_RESULTS_PER_EVENT: usize = 256;

/// A test of the suite.
#[derive(Clone, Debug)]
struct Test {
    id: String,
    /// Which of its runs this is, if it runs many times.
    repetition: Option<u32>,
    company: Company,
    key: Digest,
    estimate: Estimate,
    suspicion: Suspicion,
}

/// The tests of a suite before any of them has run.
#[derive(Clone, Debug)]
struct PlannedTests {
    tests: Vec<Test>,
    /// What starting a batch of them costs, as far as is known.
    batch_overhead: Duration,
    /// What discovery left for the batches.
    byproducts: Option<Digest>,
}

impl Test {
    /// What it is called in results.
    fn name(&self) -> String {
        match self.repetition {
            Some(number) => format!("{} (run {number})", self.id),
            None => self.id.clone(),
        }
    }
}

/// What a suite's command gets to run one test.
struct OwnPart {
    arguments: Vec<String>,
    environment: Vec<reapi::command::EnvironmentVariable>,
}

impl PlannedSuite {
    /// `limit` is how long a test may take.
    fn own_part(&self, (id, company): (&str, &Company), limit: Duration) -> OwnPart {
        let (arguments, environment) = match &self.adapter {
            Adapter::Harness(harness) => {
                let arguments = harness.run_arguments(self, (id, company), limit);
                (arguments, Vec::new())
            }
            Adapter::Sharding { shards } => (Vec::new(), sharding::environment(id, *shards)),
            // In the end it is in a file, with others; but it makes the test what it is.
            Adapter::Contract { .. } => (vec![id.to_owned()], Vec::new()),
        };
        OwnPart {
            arguments,
            environment,
        }
    }
}

/// Carries a suite out.
pub(super) async fn run_suite(job: &JobContext, suite: &PlannedSuite) -> JobOutcome {
    // What was only begun for it ends with it.
    let cancel = job.cancel.child_token();
    let _ends = cancel.clone().drop_guard();
    let job = JobContext {
        cancel,
        ..job.clone()
    };
    match run(&job, suite).await {
        Ok(end) | Err(end) => end.into(),
    }
}

async fn run(job: &JobContext, suite: &PlannedSuite) -> Result<JobEnd, JobEnd> {
    let recorded = job.recorded_suite().filter(|it| it.is_planned());
    let listing = match listed_before(job, recorded).await {
        Some(listing) => listing,
        None => discovery::discover(job, suite).await?,
    };
    let planned = plan_tests(job, suite, &listing).await?;
    let mut tally = Tally::new(planned.tests.len());
    if let Some(recorded) = recorded {
        replay(job, recorded, &planned.tests, &mut tally)?;
    }
    let known = count_known(job, &listing, &planned.tests, &mut tally).await;
    if recorded.is_none() {
        tell_plan(job, &listing, &tally).await;
    }
    tell(job, known).await;
    let mut execution = Execution::new(job, suite, &planned, tally, Purpose::Answer);
    if let Some(recorded) = recorded {
        execution.go_on_from(recorded);
    }
    execution.run().await;
    let (tally, complaints) = execution.finish().await;
    Ok(conclude(job, &tally, &complaints))
}

/// Counts the tests of which nothing has to run, and says how they end.
async fn count_known(
    job: &JobContext,
    listing: &Listing,
    tests: &[Test],
    tally: &mut Tally,
) -> Vec<v1::TestResult> {
    let mut known = Vec::new();
    for (index, test) in tests.iter().enumerate() {
        if listing.ignored.contains(&test.id) && tally.record(index, Ending::Skipped) {
            known.push(bare_result(job, test, Ending::Skipped));
        }
    }
    known.extend(record_cached(job, tests, tally).await);
    known
}

fn conclude(job: &JobContext, tally: &Tally, complaints: &[String]) -> JobEnd {
    let counts = tally.counts();
    let (status, class, message) = if counts.failed > 0 {
        let text = format!("{} of {} tests failed", counts.failed, counts.planned);
        let text = std::iter::once(&text).chain(complaints);
        let text = text.map(String::as_str).collect::<Vec<_>>().join("; ");
        (JobStatus::Failed, Some(FailureClass::Test), text)
    } else if !complaints.is_empty() {
        (
            JobStatus::Failed,
            Some(FailureClass::Test),
            complaints.join("; "),
        )
    } else if job.cancel.is_cancelled() && counts.not_run > 0 {
        let end = cancelled();
        (end.status, end.class, end.message)
    } else if counts.not_run > 0 {
        let text = format!(
            "{} of {} tests have no answer",
            counts.not_run, counts.planned
        );
        (JobStatus::Unknown, Some(FailureClass::Infra), text)
    } else if counts.planned == 0 {
        (JobStatus::Passed, None, "it has no tests".to_owned())
    } else {
        (JobStatus::Passed, None, String::new())
    };
    JobEnd {
        status,
        class,
        message,
        counts,
    }
}

/// The tests with their keys, and with what earlier runs teach about their duration.
async fn plan_tests(
    job: &JobContext,
    suite: &PlannedSuite,
    listing: &Listing,
) -> Result<PlannedTests, JobEnd> {
    let ids = &listing.ids[..];
    let known = knowledge(job).await;
    let wanted: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let estimates = Estimates::new(&known.tests, suite.adapter.usual_duration(), |id| {
        wanted.contains(id)
    });
    let companies = discovery::companies(job, suite).await?;
    let test = |id: &String| {
        let company = companies.get(id).cloned().unwrap_or_default();
        let key = key_of(job, suite, (id, &company));
        Test {
            id: id.clone(),
            repetition: None,
            company,
            key,
            estimate: estimates.of(id),
            suspicion: Suspicion::of(estimates.known(id), key),
        }
    };
    let tests = ids.iter().map(test);
    Ok(PlannedTests {
        tests: match &suite.repetition {
            Some(wanted) => tests
                .flat_map(|test| repeated(&test, wanted.times))
                .collect(),
            None => tests.collect(),
        },
        batch_overhead: known
            .batch_overhead
            .unwrap_or_else(|| suite.adapter.usual_overhead()),
        byproducts: listing.byproducts,
    })
}

fn repeated(test: &Test, times: u32) -> Vec<Test> {
    let copies = (1..=times).map(|number| Test {
        repetition: Some(number),
        ..test.clone()
    });
    copies.collect()
}

/// What earlier runs teach of a job's tests.
async fn knowledge(job: &JobContext) -> SuiteKnowledge {
    let (tenant, name, place) = (
        &job.run.plan.tenant,
        job.name(),
        place_of(&job.run.plan, job.index),
    );
    let known = job.run.ledger.read_suite(tenant, &name, &place);
    known.await.unwrap_or_else(|error| {
        tracing::warn!(run = %job.run.run, %error, "test timings cannot be read");
        SuiteKnowledge::default()
    })
}

/// What the times of a job's tests are kept apart by.
fn place_of(plan: &Plan, job: usize) -> Place {
    let image = plan.jobs[job].settings.image.as_ref();
    Place {
        image: image.map(ToString::to_string).unwrap_or_default(),
        branch: plan.spec.branch.clone(),
    }
}

/// The digest of the action that would run this test alone.
fn key_of(job: &JobContext, suite: &PlannedSuite, named: (&str, &Company)) -> Digest {
    let own = suite.own_part(named, job.job().timeout);
    let arguments = suite.run_arguments.iter().cloned().chain(own.arguments);
    let mut command = job.command(arguments.collect());
    let own_names: Vec<_> = own.environment.iter().map(|it| it.name.clone()).collect();
    let environment = &mut command.environment_variables;
    environment.retain(|variable| !own_names.contains(&variable.name));
    environment.extend(own.environment);
    environment.sort_by(|one, other| one.name.cmp(&other.name));
    let is_unknown = !job.surroundings.are_known();
    action_key(job, &command, &suite.adapter.version(), is_unknown)
}

/// Records the tests whose passes and skips are known.
async fn record_cached(job: &JobContext, tests: &[Test], tally: &mut Tally) -> Vec<v1::TestResult> {
    let is_repetition = tests.iter().any(|test| test.repetition.is_some());
    if is_repetition || job.run.plan.spec.skip_cache_lookup || !job.surroundings.are_known() {
        return Vec::new();
    }
    // A pass after a failure is flaky, whoever found it: what has failed already, or may have, is not looked up.
    let now = now();
    let may_have_failed = |index: &usize| {
        if tests[*index].suspicion.is_distrusted(now) {
            return true;
        }
        let name = tests[*index].name();
        let recorded = job.recorded_suite();
        recorded.is_some_and(|it| it.tried(&name).attempts > 0 || it.unexplained().has(&name))
    };
    let open = tally.open().filter(|index| !may_have_failed(index));
    let open: Vec<usize> = open.collect();
    let keys: Vec<Digest> = open.iter().map(|index| tests[*index].key).collect();
    let found = job.run.results.get_many(&job.run.plan.tenant, &keys).await;
    let found = found.unwrap_or_else(|error| {
        tracing::warn!(run = %job.run.run, %error, "the action cache cannot be asked");
        Vec::new()
    });
    let mut results = Vec::new();
    let (mut hits, mut skips) = (Vec::new(), Vec::new());
    for (index, found) in open.into_iter().zip(found) {
        let Some(found) = found else { continue };
        let v1::ResultOrigin {
            run_id: cached_from,
            r#where: cached_where,
        } = origin_of(&found);
        // Nobody has to look into what this very run has executed.
        let is_own = is_own(&job.run.run, &cached_from);
        if let Some(reason) = reason_of_skip(&found) {
            tally.record(index, Ending::Skipped);
            skips.extend((!is_own).then_some(&tests[index]));
            let skip = v1::TestResult {
                message: reason,
                cached_from,
                cached_where,
                ..bare_result(job, &tests[index], Ending::Skipped)
            };
            results.push(skip);
            continue;
        }
        tally.record(index, Ending::Cached);
        hits.extend((!is_own).then_some(&tests[index]));
        let duration = untold(job, &found, is_own).map(duration_to_wire);
        results.push(v1::TestResult {
            duration,
            cached_from,
            cached_where,
            exit_code: Some(found.exit_code),
            stdout_digest: found.stdout_digest.clone(),
            stderr_digest: found.stderr_digest.clone(),
            ..bare_result(job, &tests[index], Ending::Cached)
        });
    }
    let audit = &job.run.audit;
    audit.consider(job, hits.into_iter(), Claim::Pass);
    audit.consider(job, skips.into_iter(), Claim::Skip);
    results
}

/// A result of a test of which nothing ran.
fn bare_result(job: &JobContext, test: &Test, ending: Ending) -> v1::TestResult {
    let (status, class) = event::test_status(ending);
    v1::TestResult {
        job: job.name(),
        test_id: test.name(),
        status: status.into(),
        failure_class: class.into(),
        key: Some(test.key.into()),
        ..Default::default()
    }
}
