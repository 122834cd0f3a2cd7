//! How a run is accepted: once, however often it is submitted.

use std::sync::Arc;
use std::time::Duration;

use regatta_ledger::{ForgottenSubject, LedgerError, RunQuery, RunRecord};
use regatta_model::RunId;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::claims::Claim;
use super::{Active, MAX_ACTIVE_RUNS, RunRegistry, SubmitRunError, new_id};
use crate::runs::log::{RunLog, now, read_first};
use crate::runs::plan::Plan;
use crate::runs::recorded::Recorded;

/// How long a submission waits for an earlier one of the same run; then it is to come back later.
const CLAIM_PATIENCE: Duration = Duration::from_secs(10);
/// How many of a run's events say whether it began: what it is to do, and that it never did.
const TELLING_EVENTS: usize = 2;

impl RunRegistry {
    /// Accepts a run and starts it; the warnings are for whoever submitted it. One that has been accepted under
    /// the `chosen` id, with the same specification, is answered for as it was then.
    ///
    /// # Errors
    /// [`SubmitRunError`]: nothing was started.
    pub async fn submit(
        self: &Arc<Self>,
        chosen: Option<RunId>,
        spec: v1::RunSpec,
    ) -> Result<(RunId, Vec<String>), SubmitRunError> {
        let plan = Plan::new(spec, &self.services.defaults)?;
        let warnings = plan.warnings.clone();
        let may_be_known = chosen.is_some();
        let run = chosen.map_or_else(new_id, Ok)?;
        let claim = timeout(CLAIM_PATIENCE, self.claims.claim(&run)).await;
        let claim = claim.map_err(|_| SubmitRunError::Undecided { run: run.clone() })?;
        if may_be_known && self.has_accepted(&run, &plan).await? {
            return Ok((run, warnings));
        }
        plan.check_dates(now())?;
        self.check_inputs(&plan).await?;
        self.accept(claim, plan).await?;
        Ok((run, warnings))
    }

    async fn accept(self: &Arc<Self>, claim: Claim, plan: Plan) -> Result<(), SubmitRunError> {
        let run = claim.run().clone();
        let log = RunLog::new(run.clone(), Arc::clone(&self.services.ledger));
        let cancel = CancellationToken::new();
        let active = Active {
            log: Arc::clone(&log),
            cancel: cancel.clone(),
        };
        // A run that was accepted once has its place.
        if !self.admit(&run, active, self.left_open.len()) {
            return Err(SubmitRunError::TooMany {
                limit: MAX_ACTIVE_RUNS,
            });
        }
        // A task of its own: whoever submits may go away in the middle.
        let registry = Arc::clone(self);
        let begun = tokio::spawn(async move {
            if let Err(error) = registry.begin(&run, &plan, &log).await {
                registry.lock().remove(&run);
                registry.abandon(claim).await;
                return Err(error);
            }
            tracing::info!(%run, jobs = plan.jobs.len(), "a run has been submitted");
            registry.spawn(run, plan, Recorded::default(), log, cancel);
            Ok(())
        });
        Ok(begun.await.map_err(|_| LedgerError::Closed)??)
    }

    /// Whether a run of this id goes on, or has ended, that is to do just this. Nobody else submits it meanwhile.
    async fn has_accepted(&self, run: &RunId, plan: &Plan) -> Result<bool, SubmitRunError> {
        // Ahead of the ledger: a run is no more under way once its end is stored.
        let Ok(active) = self.under_way(run).await else {
            return Err(SubmitRunError::Undecided { run: run.clone() });
        };
        let is_active = active.is_some();
        let ledger = self.services.ledger.as_ref();
        let query = RunQuery {
            run: Some(run.clone()),
            limit: 1,
            ..RunQuery::default()
        };
        let record = ledger.find_runs(query).await?.into_iter().next();
        let subject = ForgottenSubject::Run(run.clone());
        if record.is_none() && ledger.is_forgotten(subject).await? {
            return Err(SubmitRunError::Forgotten { run: run.clone() });
        }
        let events = read_first(ledger, run, TELLING_EVENTS).await?;
        let known = Known::of(plan, record.as_ref(), &events, is_active);
        let run = run.clone();
        match known {
            Known::Nothing => Ok(false),
            Known::Accepted => Ok(true),
            Known::Other => Err(SubmitRunError::Taken { run }),
            Known::Undecided => Err(SubmitRunError::Undecided { run }),
            Known::NeverBegan => Err(SubmitRunError::NeverBegan { run }),
        }
    }
}

/// What is known of a run that is submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// Nothing, or no more than what it is to do.
    Nothing,
    /// It goes on, or has ended.
    Accepted,
    /// Something else has its id.
    Other,
    /// It was refused, and some of it is stored all the same: it goes on after a restart, or gets its end before.
    Undecided,
    /// It was refused, and has ended.
    NeverBegan,
}

impl Known {
    fn of(
        plan: &Plan,
        record: Option<&RunRecord>,
        events: &[v1::RunEvent],
        is_active: bool,
    ) -> Self {
        let mut spec = None;
        let mut never_began = false;
        for event in events {
            match &event.event {
                Some(Event::RunStarted(started)) => spec = started.spec.as_ref(),
                Some(Event::RunFinished(finished)) => never_began |= finished.never_began,
                _ => {}
            }
        }
        if record.is_some_and(|record| record.new.tenant != plan.tenant)
            || spec.is_some_and(|spec| *spec != plan.spec)
        {
            return Self::Other;
        }
        if never_began {
            return Self::NeverBegan;
        }
        let has_ended = record.is_some_and(|record| record.end.is_some());
        match record {
            Some(_) if spec.is_some() && (is_active || has_ended) => Self::Accepted,
            Some(_) => Self::Undecided,
            None => Self::Nothing,
        }
    }
}
