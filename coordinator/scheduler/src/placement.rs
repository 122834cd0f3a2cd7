//! Bringing tasks and agents together.

use crate::batch::BatchRule;
use crate::fleet::{AgentKey, ClassKey};
use crate::lease::Lease;
use crate::scheduler::Scheduler;
use crate::task::TaskKey;
use crate::{Effect, Grant};

/// How many tasks are looked at for one slot of an agent: what affinity may cost.
const TASK_LOOK_AHEAD: usize = 8;
/// How often a task may be passed over for one that is warmer, before it goes first come what may.
const PASS_OVER_LIMIT: u8 = 16;

fn was_lost(unit: &crate::task::Unit) -> bool {
    unit.attempts > 0
}

impl Scheduler {
    /// Fills what has become free and places what has become due.
    ///
    /// Nothing else needs to be looked at, because at the end of each step no agent has room for a task
    /// that waits. Agents come first: they choose among all classes by fairness.
    pub(crate) fn place(&mut self) {
        for agent in std::mem::take(&mut self.agents_to_fill) {
            while let Some(task) = self.task_for(agent) {
                self.pass_over(task);
                self.grant(task, agent);
            }
        }
        for class in std::mem::take(&mut self.classes_to_place) {
            while let Some((task, agent)) = self.placement_in(class) {
                self.grant(task, agent);
            }
        }
    }

    /// One of the first tasks of a class that has an agent, and that agent.
    fn placement_in(&self, class: ClassKey) -> Option<(TaskKey, AgentKey)> {
        if self.fleet.classes.get(class)?.ready_kinds.is_empty() {
            return None;
        }
        let due = self.queue.due(class).take(TASK_LOOK_AHEAD);
        due.map(|(_, queued)| queued.task).find_map(|task| {
            let agent = self.fleet.best_agent(&self.tasks[task], self.now)?;
            Some((task, agent))
        })
    }

    /// An agent that could be granted a task now, which at the end of a step there must not be.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn idle_agent(&self) -> Option<regatta_model::AgentId> {
        let agents = self.fleet.agents.iter().map(|(key, _)| key);
        let idle = agents
            .into_iter()
            .find(|key| self.task_for(*key).is_some())?;
        Some(self.fleet.agents[idle].id.clone())
    }

    /// The task that an agent's next slot is for.
    fn task_for(&self, agent: AgentKey) -> Option<TaskKey> {
        let mut classes: Vec<_> = self
            .fleet
            .queued_classes_for(agent)
            .filter_map(|class| Some((self.queue.due(class).next()?.0, class)))
            .collect();
        classes.sort_unstable();
        classes
            .into_iter()
            .find_map(|(_, class)| self.task_in(class, agent))
    }

    /// Of the first few tasks of a class, the one for an agent: the first, unless one of the same run
    /// and priority finds more of what it needs there.
    fn task_in(&self, class: ClassKey, agent: AgentKey) -> Option<TaskKey> {
        let any_to_avoid = self.fleet.classes[class].retry_anywhere_at.is_some();
        let may_take = |task: TaskKey| {
            !any_to_avoid || !self.fleet.must_avoid(&self.tasks[task], agent, self.now)
        };
        let due = self.queue.due(class).take(TASK_LOOK_AHEAD);
        let mut due = due.filter(|(_, queued)| may_take(queued.task));
        let (turn, first) = due.next()?;
        let warmth = &self.fleet.agents[agent].warmth;
        let first_coldness = warmth.coldness(first.wish);
        if first_coldness == 0 || self.tasks[first.task].passed_over >= PASS_OVER_LIMIT {
            return Some(first.task);
        }
        let near = due.take_while(|(other, _)| {
            other.run == turn.run && other.place.priority == turn.place.priority
        });
        let warmest = near
            .map(|(_, queued)| (warmth.coldness(queued.wish), queued.task))
            .reduce(|best, next| if next.0 < best.0 { next } else { best })
            .filter(|(coldness, _)| *coldness < first_coldness);
        Some(warmest.map_or(first.task, |(_, warmest)| warmest))
    }

    /// Notes that a task goes before the first of its run, if it does.
    fn pass_over(&mut self, taken: TaskKey) {
        let task = &self.tasks[taken];
        let first = self.queue.first_of_run(task.class, task.run);
        if let Some(first) = first.filter(|first| *first != taken) {
            let passed_over = &mut self.tasks[first].passed_over;
            *passed_over = passed_over.saturating_add(1);
        }
    }

    /// Leases the next batch of a task to an agent.
    fn grant(&mut self, key: TaskKey, agent_key: AgentKey) {
        let task = &mut self.tasks[key];
        let class = &self.fleet.classes[task.class];
        let rule = BatchRule::new(&self.config, class.slots, task.overhead);
        let (units, last_try) = (&task.units, self.config.max_attempts.saturating_sub(1));
        let alone = |unit: regatta_model::UnitIndex| {
            let entry = units.get(unit.0 as usize);
            entry.is_some_and(|entry| entry.attempts > 0 && entry.attempts >= last_try)
        };
        let (batch, length_nanos) = task.waiting.cut(&rule, alone);
        let lost = batch
            .iter()
            .filter(|unit| units.get(unit.0 as usize).is_some_and(was_lost));
        task.lost_waiting = task.lost_waiting.saturating_sub(lost.count());
        let charged_nanos = length_nanos.saturating_add(crate::batch::nanos(task.overhead));
        let attempts = batch.iter().map(|unit| (*unit, task.begin_attempt(*unit)));
        let attempts: Vec<_> = attempts.collect();
        let (run, waiting_since) = (task.run, task.waiting_since);
        let granted_for = task.submitters.first().map(|submitter| submitter.task);
        let Some(granted_for) = granted_for else {
            return;
        };
        let (id, token, reserved) = self.tokens.grant();
        task.leases.push(id);
        self.step.commit.extend(reserved);
        let resources = class.resources;
        self.end_waiting(key, batch.len());
        self.file(key);
        self.queue.charge(run, batch.len(), charged_nanos);
        self.leased_units += batch.len();
        let agent = &mut self.fleet.agents[agent_key];
        agent.leases.insert(id);
        agent.occupy(&resources);
        let granted = Grant {
            lease: id,
            token,
            agent: agent.id.clone(),
            task: granted_for,
            units: attempts,
            queued: self.now.since(waiting_since),
        };
        self.fleet.relist(agent_key);
        self.leases.insert(
            id,
            Lease {
                id,
                token,
                agent: agent_key,
                granted_for,
                task: Some(key),
                run,
                pending: batch,
                resources,
                granted_at: self.now,
                charged_nanos,
                acknowledged: 0,
                first_version: None,
                first_reported: None,
                was_held: false,
                vacated: false,
                blamed: false,
            },
        );
        self.agents_to_tell.insert(agent_key);
        self.effect(Effect::Granted(granted));
    }
}
