//! What must be true after every step, checked in the simplest way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regatta_model::{FencingToken, LeaseId, TaskId, Timestamp, UnitIndex};

use crate::{Effect, Event, Grant, Record, Scheduler, Step, Submission};

/// Watches events and effects, and knows what may follow.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Units without an end, of everyone who waits.
    open: BTreeMap<TaskId, BTreeSet<UnitIndex>>,
    /// Which piece of work a task is part of.
    work_of: BTreeMap<TaskId, TaskId>,
    works: BTreeMap<TaskId, Work>,
    pub(crate) grants: BTreeMap<LeaseId, Grant>,
    /// When each task was submitted, and how long it waited for its first lease.
    pub(crate) submitted_at: BTreeMap<TaskId, Timestamp>,
    pub(crate) waits: BTreeMap<TaskId, Duration>,
    last_token: FencingTokenOrNone,
    reserved: FencingTokenOrNone,
    /// The first token of the scheduler that runs now.
    first_token: FencingTokenOrNone,
    pub(crate) answered: usize,
    pub(crate) failed: usize,
    pub(crate) retried: usize,
    pub(crate) returned: usize,
    pub(crate) fenced: usize,
    pub(crate) duplicated: usize,
    pub(crate) adopted: usize,
    pub(crate) lost_agents: usize,
}

type FencingTokenOrNone = Option<FencingToken>;

/// What several submitters may share.
#[derive(Debug, Default)]
struct Work {
    submitters: BTreeSet<TaskId>,
    open: BTreeSet<UnitIndex>,
    /// Those that share their batches with no other.
    alone: BTreeSet<UnitIndex>,
    /// The leases whose tokens are valid for each unit: one, or one that was late and its duplicate.
    valid: BTreeMap<UnitIndex, BTreeSet<LeaseId>>,
    /// The leases that have, or had, a duplicate.
    duplicated: BTreeSet<LeaseId>,
    answers: BTreeMap<UnitIndex, LeaseId>,
    /// When a machine last lost some of it, or it came because it had failed somewhere: it may wait for another
    /// place since then.
    elsewhere_since: Option<Timestamp>,
}

type Checked = Result<(), String>;

fn ensure(holds: bool, invariant: &str, what: impl std::fmt::Debug) -> Checked {
    if holds {
        return Ok(());
    }
    Err(format!("{invariant}: {what:?}"))
}

impl Model {
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn is_open(&self, task: TaskId) -> bool {
        self.open.contains_key(&task)
    }

    pub(crate) fn open_tasks(&self) -> Vec<TaskId> {
        self.open.keys().copied().collect()
    }

    /// Work of which something waits, by the task that stands for it, and since when for another place,
    /// if it does.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (TaskId, Option<Timestamp>)> {
        let waits = |work: &Work| work.open.len() > work.valid.len();
        let waiting = self.works.iter().filter(move |(_, work)| waits(work));
        waiting.map(|(task, work)| (*task, work.elsewhere_since))
    }

    /// Forgets what a new scheduler does not know. Returns the first token that it may grant.
    pub(crate) fn restarted(&mut self) -> FencingToken {
        self.works.clear();
        self.work_of.clear();
        let reserved = self.reserved.map_or(0, |token| token.0);
        let first_token = FencingToken(reserved + 1);
        self.first_token = Some(first_token);
        first_token
    }

    /// Checks one step and what it leaves behind.
    ///
    /// What takes time in proportion to all work is left out unless it is to be thorough.
    pub(crate) fn check(
        &mut self,
        now: Timestamp,
        event: &Event,
        step: &Step,
        scheduler: &Scheduler,
        thorough: bool,
    ) -> Checked {
        if let Event::Submit(submission) = event {
            self.submitted(now, submission);
        }
        for record in &step.commit {
            let Record::TokensReserved(last) = record;
            ensure(self.reserved < Some(*last), "tokens_strictly_grow", record)?;
            self.reserved = Some(*last);
        }
        for effect in &step.effects {
            self.check_effect(now, effect)?;
        }
        if !thorough {
            return Ok(());
        }
        let open: usize = self.works.values().map(|work| work.open.len()).sum();
        let leased: usize = self.works.values().map(|work| work.valid.len()).sum();
        let kept = (
            scheduler.queued_units + scheduler.leased_units,
            scheduler.leased_units,
        );
        ensure(
            kept == (open, leased),
            "no_task_lost",
            (kept, (open, leased)),
        )
    }

    fn submitted(&mut self, now: Timestamp, submission: &Submission) {
        self.submitted_at.entry(submission.task).or_insert(now);
        let units: BTreeSet<_> = (0..).map(UnitIndex).take(submission.units.len()).collect();
        let alone = (0..).map(UnitIndex).zip(&submission.units);
        let alone = alone.filter(|(_, unit)| unit.alone).map(|(unit, _)| unit);
        let work = Work {
            alone: alone.collect(),
            submitters: BTreeSet::from([submission.task]),
            open: units.clone(),
            elsewhere_since: submission.failed_at.is_some().then_some(now),
            ..Work::default()
        };
        self.open.insert(submission.task, units);
        self.work_of.insert(submission.task, submission.task);
        self.works.insert(submission.task, work);
    }

    fn check_effect(&mut self, now: Timestamp, effect: &Effect) -> Checked {
        match effect {
            Effect::Granted(grant) => self.granted(now, grant),
            Effect::Merged { task, into } => self.merged(*task, *into),
            Effect::UnitAnswered {
                task, unit, lease, ..
            } => self.unit_answered(*task, *unit, *lease),
            Effect::UnitFailed { task, unit, error } => {
                self.failed += 1;
                self.close(*task, *unit)?;
                if *error != crate::UnitError::Cancelled
                    && let Some(work) = self.work(*task)
                {
                    work.open.remove(unit);
                    work.valid.remove(unit);
                }
                Ok(())
            }
            Effect::UnitRetried { task, unit, .. } => {
                self.retried += 1;
                if let Some(work) = self.work(*task) {
                    work.valid.remove(unit);
                    work.elsewhere_since = Some(now);
                }
                Ok(())
            }
            Effect::UnitReturned { task, unit } => {
                self.returned += 1;
                if let Some(work) = self.work(*task) {
                    work.valid.remove(unit);
                }
                Ok(())
            }
            Effect::TaskFinished(task) => self.finished(*task),
            Effect::Refused { task, .. } => {
                self.open.remove(task);
                self.leave(*task);
                Ok(())
            }
            Effect::Fenced { .. } => {
                self.fenced += 1;
                Ok(())
            }
            Effect::AgentLost(_) => {
                self.lost_agents += 1;
                Ok(())
            }
            Effect::Desire(_) => Ok(()),
        }
    }

    fn work(&mut self, task: TaskId) -> Option<&mut Work> {
        self.works.get_mut(self.work_of.get(&task)?)
    }

    fn granted(&mut self, now: Timestamp, grant: &Grant) -> Checked {
        if let Some(since) = self.submitted_at.get(&grant.task) {
            self.waits
                .entry(grant.task)
                .or_insert_with(|| now.since(*since));
        }
        if let Some(own) = &grant.adopted {
            return self.adopted(grant, own);
        }
        let token = Some(grant.token);
        let fresh = self.last_token < token && token <= self.reserved;
        ensure(fresh, "tokens_strictly_grow", grant)?;
        self.last_token = token;
        let leased_before = self.grants.insert(grant.lease, grant.clone());
        ensure(
            leased_before.is_none(),
            "none_leased_twice_under_valid_tokens",
            grant,
        )?;
        let Some(work) = self.work(grant.task) else {
            return Err(format!("no_task_lost: {grant:?} is for no task"));
        };
        let has_company = grant.units.len() > 1;
        for (unit, _) in &grant.units {
            let is_crowded = has_company && work.alone.contains(unit);
            ensure(!is_crowded, "what_is_alone_shares_no_batch", grant)?;
            ensure(work.open.contains(unit), "each_unit_answered_once", grant)?;
            let holders = work.valid.entry(*unit).or_default();
            ensure(
                holders.iter().copied().eq(grant.duplicates),
                "none_leased_twice_under_valid_tokens",
                (grant, &holders),
            )?;
            holders.insert(grant.lease);
        }
        let Some(original) = grant.duplicates else {
            return Ok(());
        };
        let all_are_leased = work.open.len() == work.valid.len();
        let is_first = work.duplicated.insert(original) && work.duplicated.insert(grant.lease);
        let elsewhere = self.grants.get(&original).map(|it| &it.agent) != Some(&grant.agent);
        self.duplicated += 1;
        ensure(
            all_are_leased && is_first && elsewhere,
            "at_most_one_duplicate_elsewhere_and_with_nothing_left_to_cut",
            grant,
        )
    }

    /// A lease of an earlier scheduler takes the place of whatever has its units now.
    fn adopted(&mut self, grant: &Grant, own: &[UnitIndex]) -> Checked {
        self.adopted += 1;
        let before = self.grants.get(&grant.lease);
        let is_that = before.is_some_and(|before| {
            let had = |unit: &UnitIndex| before.units.iter().any(|(had, _)| had == unit);
            let units = grant.units.iter().map(|(unit, _)| unit);
            (before.token, &before.agent) == (grant.token, &grant.agent)
                && own.iter().all(had)
                && units.eq(own)
        });
        let is_old = Some(grant.token) < self.first_token;
        ensure(is_that && is_old, "only_what_was_granted_is_adopted", grant)?;
        let Some(work) = self.work(grant.task) else {
            return Err(format!("no_task_lost: {grant:?} is for no task"));
        };
        let has_company = grant.units.len() > 1;
        for (unit, _) in &grant.units {
            let is_crowded = has_company && work.alone.contains(unit);
            ensure(!is_crowded, "what_is_alone_shares_no_batch", grant)?;
            ensure(work.open.contains(unit), "each_unit_answered_once", grant)?;
            work.valid.insert(*unit, BTreeSet::from([grant.lease]));
        }
        Ok(())
    }

    fn merged(&mut self, task: TaskId, into: TaskId) -> Checked {
        let Some(target) = self.work_of.get(&into).copied() else {
            return Err(format!(
                "no_task_lost: {task:?} merged into {into:?}, which is gone"
            ));
        };
        self.works.remove(&task);
        self.work_of.insert(task, target);
        if let Some(work) = self.works.get_mut(&target) {
            work.submitters.insert(task);
        }
        Ok(())
    }

    fn unit_answered(&mut self, task: TaskId, unit: UnitIndex, lease: LeaseId) -> Checked {
        self.answered += 1;
        self.close(task, unit)?;
        let Some(work) = self.work(task) else {
            return Err(format!(
                "no_task_lost: an answer for {task:?}, which is gone"
            ));
        };
        let valid = match work.valid.remove(&unit) {
            Some(holders) => holders.contains(&lease),
            None => work.answers.get(&unit) == Some(&lease),
        };
        ensure(
            valid,
            "none_leased_twice_under_valid_tokens",
            (task, unit, lease),
        )?;
        work.open.remove(&unit);
        work.answers.insert(unit, lease);
        Ok(())
    }

    fn close(&mut self, task: TaskId, unit: UnitIndex) -> Checked {
        let open = self.open.get_mut(&task);
        let was_open = open.is_some_and(|units| units.remove(&unit));
        ensure(was_open, "each_unit_answered_once", (task, unit))
    }

    fn finished(&mut self, task: TaskId) -> Checked {
        let open = self.open.remove(&task);
        let ended = open.as_ref().is_some_and(BTreeSet::is_empty);
        ensure(ended, "no_task_lost", (task, open))?;
        self.leave(task);
        Ok(())
    }

    fn leave(&mut self, task: TaskId) {
        let Some(key) = self.work_of.remove(&task) else {
            return;
        };
        if let Some(work) = self.works.get_mut(&key) {
            work.submitters.remove(&task);
            if work.submitters.is_empty() {
                self.works.remove(&key);
            }
        }
    }
}
