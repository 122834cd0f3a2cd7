//! What is known of leases beyond what the scheduler cares about: how to do them.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use regatta_model::{AgentId, FencingToken, LeaseId, SlotIndex, TaskId, Timestamp, UnitIndex};
use regatta_scheduler::{DesiredLease, HeldLease, UnitOutcome};
use regatta_wire::v1;

use super::report::{ReportedLease, outcome_kind, slot_of};
use super::work::{BatchPreparer, BatchShape, PrepareError, Work};

/// How often a batch's preparation is tried.
const PREPARE_ATTEMPTS: u32 = 3;
/// How long one try may take.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait between tries.
const PREPARE_PAUSE: Duration = Duration::from_millis(200);

pub(super) type Preparation = Shared<BoxFuture<'static, Result<v1::LeaseSpec, PrepareError>>>;

/// A lease that was granted and has not ended.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) token: FencingToken,
    pub(super) agent: AgentId,
    /// The first of the tasks that it is for.
    pub(super) task: TaskId,
    pub(super) work: Arc<Work>,
    pub(super) units: Vec<UnitIndex>,
    /// What its agent calls them, if an earlier coordinator granted it.
    pub(super) called: Option<Vec<UnitIndex>>,
    /// The slot of its agent in which its work has failed before.
    pub(super) avoid_slot: Option<SlotIndex>,
    /// Whether another lease has the same units, and began them first.
    pub(super) is_duplicate: bool,
    pub(super) granted_at: Timestamp,
    /// Whether a unit of it has been answered.
    pub(super) answered: bool,
    pub(super) phase: v1::LeasePhase,
    pub(super) recipe: Recipe,
}

/// Where a lease's specification comes from.
#[derive(Clone, Debug)]
pub(super) enum Recipe {
    /// From the work and the units alone.
    PerUnit,
    /// From a preparation that is under way.
    Prepared(Preparation),
    /// From an earlier coordinator: its agent knows it.
    Known {
        /// Whether its units share one execution.
        one_execution: bool,
    },
}

impl Lease {
    /// Whether its units share one execution.
    pub(super) const fn is_one_execution(&self) -> bool {
        match self.recipe {
            Recipe::PerUnit => false,
            Recipe::Prepared(_) => true,
            Recipe::Known { one_execution } => one_execution,
        }
    }

    /// Starts to make the specification of a lease of `units`, if it takes making.
    pub(super) fn recipe(work: &Arc<Work>, lease: LeaseId, units: &[UnitIndex]) -> Recipe {
        match &work.shape {
            BatchShape::ExecutionPerUnit => Recipe::PerUnit,
            BatchShape::OneExecution(preparer) => {
                let (preparer, work) = (Arc::clone(preparer), Arc::clone(work));
                Recipe::Prepared(
                    prepare(preparer, work, lease, units.to_vec())
                        .boxed()
                        .shared(),
                )
            }
        }
    }

    /// The report of this lease as the scheduler understands it, and the outcomes apart, each under
    /// its index.
    pub(super) fn held(
        &self,
        reported: ReportedLease,
    ) -> (HeldLease, Vec<(u32, v1::ExecutionOutcome)>) {
        if self.is_one_execution() {
            fan_out(self.called.as_ref().unwrap_or(&self.units), reported)
        } else {
            one_to_one(reported)
        }
    }

    /// Which unit its agent calls `called`, if it is one of it.
    pub(super) fn unit_of(&self, called: UnitIndex) -> Option<UnitIndex> {
        let names = self.called.as_ref().unwrap_or(&self.units);
        let place = names.iter().position(|name| *name == called)?;
        self.units.get(place).copied()
    }

    /// How many outcomes, as the agent counts them, are taken when the scheduler has taken so many.
    pub(super) fn acknowledged(&self, desired: &DesiredLease) -> u32 {
        if !self.is_one_execution() {
            return desired.acknowledged_outcomes;
        }
        u32::from(
            usize::try_from(desired.acknowledged_outcomes)
                .is_ok_and(|count| count >= self.units.len()),
        )
    }
}

/// A report whose outcomes are the scheduler's.
pub(super) fn one_to_one(reported: ReportedLease) -> (HeldLease, Vec<(u32, v1::ExecutionOutcome)>) {
    let header = Header::of(&reported);
    let indexed = (reported.first_index..).zip(reported.outcomes);
    let (outcomes, payloads) = indexed
        .map(|(index, outcome)| {
            (
                unit_outcome(UnitIndex(outcome.unit), index, &outcome),
                (index, outcome),
            )
        })
        .unzip();
    (header.with(outcomes), payloads)
}

/// What a report says of a lease besides its outcomes.
struct Header {
    lease: LeaseId,
    token: FencingToken,
    slot: Option<SlotIndex>,
    phase: v1::LeasePhase,
}

impl Header {
    const fn of(reported: &ReportedLease) -> Self {
        Self {
            lease: reported.lease,
            token: reported.token,
            slot: reported.slot,
            phase: reported.phase,
        }
    }

    fn with(self, outcomes: Vec<UnitOutcome>) -> HeldLease {
        HeldLease {
            lease: self.lease,
            token: self.token,
            slot: self.slot,
            outcomes,
            finished: self.phase == v1::LeasePhase::Finished,
            claim: None,
        }
    }
}

/// A report of one execution whose outcome is that of every unit.
pub(super) fn fan_out(
    units: &[UnitIndex],
    reported: ReportedLease,
) -> (HeldLease, Vec<(u32, v1::ExecutionOutcome)>) {
    let header = Header::of(&reported);
    let only = (reported.first_index == 0)
        .then(|| reported.outcomes.into_iter().next())
        .flatten();
    let (outcomes, payloads) = only
        .iter()
        .flat_map(|outcome| {
            (0..)
                .zip(units)
                .map(move |(index, unit)| (index, *unit, outcome))
        })
        .map(|(index, unit, outcome)| {
            (unit_outcome(unit, index, outcome), (index, outcome.clone()))
        })
        .unzip();
    (header.with(outcomes), payloads)
}

fn unit_outcome(unit: UnitIndex, index: u32, outcome: &v1::ExecutionOutcome) -> UnitOutcome {
    UnitOutcome {
        unit,
        index,
        slot: slot_of(outcome),
        kind: outcome_kind(outcome),
    }
}

/// The specification of a lease of `units`, one execution for each.
pub(super) fn spec_per_unit(work: &Work, units: &[UnitIndex]) -> v1::LeaseSpec {
    let plan = |unit: &UnitIndex| work.units.get(usize::try_from(unit.0).ok()?);
    let execution = |unit: &UnitIndex| v1::Execution {
        unit: unit.0,
        extra_arguments: plan(unit).map_or_else(Vec::new, |plan| plan.extra_arguments.clone()),
        extra_environment: plan(unit).map_or_else(Vec::new, |plan| plan.extra_environment.clone()),
    };
    v1::LeaseSpec {
        executions: units.iter().map(execution).collect(),
        ..work.spec.clone()
    }
}

async fn prepare(
    preparer: Arc<dyn BatchPreparer>,
    work: Arc<Work>,
    lease: LeaseId,
    units: Vec<UnitIndex>,
) -> Result<v1::LeaseSpec, PrepareError> {
    let mut attempt = 1;
    let mut spec = loop {
        let preparation = preparer.prepare(lease, &units, work.spec.clone());
        let error = match tokio::time::timeout(PREPARE_TIMEOUT, preparation).await {
            Ok(Ok(spec)) => break spec,
            Ok(Err(error)) => error,
            Err(_) => PrepareError::Failed {
                detail: format!("it took longer than {PREPARE_TIMEOUT:?}"),
            },
        };
        tracing::warn!(lease = lease.0, attempt, %error, "a batch could not be prepared");
        if attempt == PREPARE_ATTEMPTS {
            return Err(error);
        }
        attempt += 1;
        tokio::time::sleep(PREPARE_PAUSE).await;
    };
    let unit = units.first().map_or(0, |unit| unit.0);
    spec.executions = vec![v1::Execution {
        unit,
        ..v1::Execution::default()
    }];
    Ok(spec)
}
