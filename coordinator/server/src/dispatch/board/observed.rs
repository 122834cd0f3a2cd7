//! What is measured and logged of leased work.

use regatta_model::{AgentId, AttemptNumber, LeaseId, RunId, TaskId, Timestamp, UnitIndex};
use regatta_scheduler::Grant;
use regatta_wire::v1;

use super::super::{TaskEvent, Work, leases::Lease, timings};
use super::Board;

impl Board {
    /// Why nothing new is leased, if so.
    pub(in super::super) fn held(&self) -> Option<String> {
        self.scheduler.held().map(str::to_owned)
    }

    /// Until when an agent gets nothing because it has lost too many leases in a row.
    pub(in super::super) fn cooling_off_until(&self, agent: &AgentId) -> Option<Timestamp> {
        self.scheduler.cooling_off_until(agent)
    }

    /// Counts an answer and records how long its execution took; one that answers all units of a lease once.
    pub(super) fn measure(
        &mut self,
        now: Timestamp,
        lease: LeaseId,
        outcome: &v1::ExecutionOutcome,
    ) {
        let Some(lease) = self.leases.get_mut(lease) else {
            return;
        };
        if lease.work.is_ahead {
            return;
        }
        metrics::counter!("regatta_units_answered_total").increment(1);
        let first = !std::mem::replace(&mut lease.answered, true);
        if first || !lease.is_one_execution() {
            timings::record(outcome, first.then_some(lease.granted_at), now);
        }
    }

    /// The lease by which an agent had a unit, for logs, and the run that it is of.
    fn lease_of(&self, task: TaskId, unit: UnitIndex, agent: &AgentId) -> Option<(LeaseId, RunId)> {
        let group = self.tasks.get(&task).map_or(task, |task| task.group);
        let held = |lease: &Lease| lease.task == group && lease.units.contains(&unit);
        let mut leases = self.leases.of_agent(agent);
        let (id, lease) = leases.find(|(_, lease)| held(lease))?;
        Some((id, lease.work.run.clone()))
    }

    /// Whether a task's answers are read by nobody.
    pub(super) fn is_ahead(&self, task: TaskId) -> bool {
        let task = self.tasks.get(&task);
        let group = task.and_then(|task| self.groups.get(&task.group));
        group.is_some_and(|group| group.work.is_ahead)
    }

    pub(super) fn retried(
        &self,
        (task, unit): (TaskId, UnitIndex),
        agent: AgentId,
        attempt: AttemptNumber,
        reason: String,
    ) {
        if !self.is_ahead(task) {
            metrics::counter!("regatta_units_retried_total").increment(1);
        }
        let (lease, run) = self.lease_of(task, unit, &agent).unzip();
        tracing::warn!(
            run = run.map(tracing::field::display), task = task.0, unit = unit.0,
            lease = lease.map(|lease| lease.0), %agent, reason, "a unit was lost"
        );
        let event = TaskEvent::Retried {
            unit,
            agent,
            attempt,
            reason,
        };
        self.tell(task, event);
    }
}

/// A duplicate has not waited in the queue, nor has what an agent had already.
pub(super) fn count_grant(grant: &Grant, work: &Work) {
    if work.is_ahead {
        metrics::counter!("regatta_leases_ahead_total").increment(1);
        return;
    }
    if grant.adopted.is_some() {
        metrics::counter!("regatta_leases_adopted_total").increment(1);
        return;
    }
    metrics::counter!("regatta_leases_granted_total").increment(1);
    if grant.duplicates.is_some() {
        metrics::counter!("regatta_leases_duplicated_total").increment(1);
    } else {
        metrics::histogram!("regatta_queue_seconds").record(grant.queued.as_secs_f64());
    }
}
