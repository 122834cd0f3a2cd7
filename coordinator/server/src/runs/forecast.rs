//! What a run would do, without doing it: `PlanRun`.
//!
//! Tests are listed as a run lists them, which is an action that runs on the fleet unless its result is
//! cached; nothing else runs. A build's outputs are taken from the cache; what needs a build that is not
//! there cannot be planned. Nothing of it is remembered as a run.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use regatta_ledger::MemoryLedger;
use regatta_scheduler::{Forecast, TaskForecast};
use regatta_wire::convert::duration_to_wire;
use regatta_wire::{reapi, v1};
use tokio_util::sync::CancellationToken;

use super::build::known_result;
use super::context::{JobContext, RunContext};
use super::plan::JobKind;
use super::preparation::{inputs_of, prepare};
use super::registry::{MAX_PLANS, RunRegistry, SubmitRunError};
use super::state::{JobEnd, JobStatus};
use super::suite::{Foreseen, foresee};
use crate::dispatch::Work;

/// How many suites list their tests at once.
const CONCURRENT_SUITES: usize = 16;
/// How many of a suite's batches are told.
const TOLD_BATCHES: usize = 5;

/// What is known of a job beforehand.
enum Planned {
    /// A build, whose result is known or not.
    Build(Option<Box<reapi::ActionResult>>),
    Suite(Box<Foreseen>),
    Unplanned(Unplanned),
}

/// Why a job cannot be planned.
struct Unplanned {
    reason: String,
    /// Whether a run would fail by it.
    would_fail: bool,
}

impl Unplanned {
    /// Nobody knows how a run would end.
    fn unknown(reason: String) -> Self {
        Self {
            reason,
            would_fail: false,
        }
    }
}

impl From<JobEnd> for Unplanned {
    fn from(end: JobEnd) -> Self {
        Self {
            would_fail: end.status == JobStatus::Failed,
            reason: end.message,
        }
    }
}

impl RunRegistry {
    /// Says what a run would do.
    ///
    /// # Errors
    /// [`SubmitRunError`]: it would not be accepted.
    pub async fn plan(&self, spec: v1::RunSpec) -> Result<v1::PlanRunResponse, SubmitRunError> {
        let _permit = self
            .plans
            .try_acquire()
            .map_err(|_| SubmitRunError::TooMany { limit: MAX_PLANS })?;
        let run = self.context_of(spec, Arc::new(MemoryLedger::new())).await?;
        let builds = plan_builds(&run).await;
        let jobs = stream::iter(0..run.plan.jobs.len()).map(|index| {
            let (run, builds) = (&run, &builds);
            async move {
                match builds.get(&index) {
                    Some(result) => Planned::Build(result.clone().map(Box::new)),
                    None => plan_suite(run, index, builds).await,
                }
            }
        });
        let jobs: Vec<_> = jobs.buffered(CONCURRENT_SUITES).collect().await;
        let works: Vec<Work> = jobs.iter().filter_map(Planned::work).cloned().collect();
        let forecast = run.dispatcher.forecast(&works);
        Ok(response(&run, &jobs, &forecast))
    }
}

/// The results of builds that are in the cache, and none for the others.
async fn plan_builds(run: &Arc<RunContext>) -> HashMap<usize, Option<reapi::ActionResult>> {
    let mut planned: HashMap<usize, Option<reapi::ActionResult>> = HashMap::new();
    let mut left: Vec<usize> = (0..run.plan.jobs.len())
        .filter(|index| matches!(run.plan.jobs[*index].kind, JobKind::Build { .. }))
        .collect();
    // Jobs need each other in no circle, so each round plans one at least.
    while !left.is_empty() {
        let is_next = |index: &usize| {
            let inputs = &run.plan.jobs[*index].inputs;
            inputs.iter().all(|input| planned.contains_key(&input.job))
        };
        let (next, later): (Vec<_>, Vec<_>) = left.into_iter().partition(is_next);
        if next.is_empty() {
            break;
        }
        for index in next {
            let result = match prepared(run, index, &planned).await {
                Ok(job) => known_result(&job).await,
                Err(_) => None,
            };
            planned.insert(index, result);
        }
        left = later;
    }
    planned
}

async fn plan_suite(
    run: &Arc<RunContext>,
    index: usize,
    builds: &HashMap<usize, Option<reapi::ActionResult>>,
) -> Planned {
    let JobKind::Suite(suite) = &run.plan.jobs[index].kind else {
        let reason = "a build that it needs cannot be planned".to_owned();
        return Planned::Unplanned(Unplanned::unknown(reason));
    };
    let job = match prepared(run, index, builds).await {
        Ok(job) => job,
        Err(problem) => return Planned::Unplanned(problem),
    };
    match foresee(&job, suite).await {
        Ok(foreseen) => Planned::Suite(Box::new(foreseen)),
        Err(end) => Planned::Unplanned(end.into()),
    }
}

/// A job with the outputs of builds that are known laid in.
async fn prepared(
    run: &Arc<RunContext>,
    index: usize,
    builds: &HashMap<usize, Option<reapi::ActionResult>>,
) -> Result<JobContext, Unplanned> {
    let jobs = &run.plan.jobs;
    let known = |job: usize| builds.get(&job).and_then(Option::as_ref);
    let inputs = &jobs[index].inputs;
    if let Some(missing) = inputs.iter().find(|input| known(input.job).is_none()) {
        return Err(Unplanned::unknown(format!(
            "it takes files from `{}`, whose result is not cached; run that first",
            jobs[missing.job].name
        )));
    }
    let results = inputs_of(run, index, |job| known(job).cloned());
    let prepared = prepare(Arc::clone(run), index, &results, CancellationToken::new()).await;
    prepared.map_err(Unplanned::from)
}

impl Planned {
    /// What a suite would submit, if anything of it would run.
    fn work(&self) -> Option<&Work> {
        match self {
            Self::Suite(foreseen) => foreseen.work.as_ref(),
            Self::Build(_) | Self::Unplanned(_) => None,
        }
    }
}

fn response(run: &RunContext, jobs: &[Planned], forecast: &Forecast) -> v1::PlanRunResponse {
    let mut tasks = forecast.tasks.iter();
    let named = run.plan.jobs.iter().zip(jobs);
    let jobs = named.map(|(job, planned)| {
        let name = job.name.to_string();
        let plan = match planned {
            Planned::Build(result) => v1::JobPlan {
                is_build: true,
                // Known as it may be, a run without the cache makes it again.
                is_build_cached: result.is_some() && !run.plan.spec.skip_cache_lookup,
                ..Default::default()
            },
            Planned::Unplanned(unplanned) => v1::JobPlan {
                unplanned_reason: unplanned.reason.clone(),
                would_fail: unplanned.would_fail,
                ..Default::default()
            },
            Planned::Suite(foreseen) => {
                let task = foreseen.work.as_ref().and_then(|_| tasks.next());
                suite_plan(foreseen, task)
            }
        };
        v1::JobPlan { job: name, ..plan }
    });
    v1::PlanRunResponse {
        jobs: jobs.collect(),
        slots: forecast.slots,
        lower_bound: forecast.lower_bound.map(duration_to_wire),
        makespan: forecast.makespan.map(duration_to_wire),
        warnings: run.plan.warnings.clone(),
    }
}

fn suite_plan(foreseen: &Foreseen, task: Option<&TaskForecast>) -> v1::JobPlan {
    let counts = &foreseen.counts;
    let plan = v1::JobPlan {
        planned: counts.planned,
        cached: counts.cached,
        skipped: counts.skipped,
        batch_overhead: Some(duration_to_wire(foreseen.batch_overhead)),
        ..Default::default()
    };
    let Some(task) = task else {
        return plan;
    };
    let name = |unit: Option<&regatta_model::UnitIndex>| {
        let index = unit.and_then(|unit| usize::try_from(unit.0).ok());
        let test = index.and_then(|index| foreseen.to_run.get(index));
        test.cloned().unwrap_or_default()
    };
    let longest = task.longest.as_ref();
    let longest_takes = longest.and_then(|unit| {
        let index = usize::try_from(unit.0).ok()?;
        Some(foreseen.work.as_ref()?.units.get(index)?.expected.expected)
    });
    let first = task.batches.iter().take(TOLD_BATCHES);
    v1::JobPlan {
        from_history: foreseen.from_history,
        from_neighbours: foreseen.from_neighbours,
        from_suite: foreseen.from_suite,
        unknown: foreseen.unknown,
        work: Some(duration_to_wire(task.work)),
        longest: longest_takes.map(duration_to_wire),
        longest_test: name(longest),
        slots: task.slots,
        lower_bound: task.lower_bound.map(duration_to_wire),
        makespan: task.makespan.map(duration_to_wire),
        batches: count(task.batches.len()),
        first_batches: first
            .map(|batch| v1::BatchPlan {
                begins: Some(duration_to_wire(batch.begins)),
                takes: Some(duration_to_wire(batch.takes)),
                tests: count(batch.units.len()),
                first_test: name(batch.units.first()),
            })
            .collect(),
        ..plan
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
