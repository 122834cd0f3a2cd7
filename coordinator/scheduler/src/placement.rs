//! Bringing tasks and agents together.

use crate::batch::BatchRule;
use crate::fleet::{AgentKey, ClassKey};
use crate::lease::Lease;
use crate::queue::{Lane, Queued, Turn};
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
    /// that waits, unless it is reserved for others. Agents come first: they choose among all classes by
    /// fairness.
    pub(crate) fn place(&mut self) {
        loop {
            if let Some(agent) = self.agents_to_fill.pop_first() {
                self.fill(agent);
            } else if let Some(class) = self.classes_to_place.pop_first() {
                self.place_class(class);
            } else {
                return;
            }
        }
    }

    fn fill(&mut self, agent: AgentKey) {
        self.review_reservation(agent);
        while let Some((turn, task)) = self.task_for(agent) {
            if self.reserves(agent, &turn) {
                return;
            }
            self.pass_over(task);
            self.grant(task, agent);
        }
    }

    fn place_class(&mut self, class: ClassKey) {
        while let Some((turn, task, agent)) = self.placement_in(class) {
            if !self.reserves(agent, &turn) {
                self.grant(task, agent);
            }
        }
    }

    /// The first task of a class that has an agent, and that agent.
    ///
    /// Tasks of a class are alike but for the agents that they avoid, so that one which avoids none
    /// speaks for all behind it.
    fn placement_in(&self, class: ClassKey) -> Option<(Turn, TaskKey, AgentKey)> {
        if !self.fleet.is_ready() {
            return None;
        }
        for (turn, queued) in self.queue.due(class) {
            let task = &self.tasks[queued.task];
            if let Some(agent) = self.fleet.best_agent(task, self.now) {
                return Some((turn, queued.task, agent));
            }
            if !self.fleet.avoids_any(task, self.now) {
                return None;
            }
        }
        None
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

    /// The task that an agent's next slot is for, and the turn that it takes.
    fn task_for(&self, key: AgentKey) -> Option<(Turn, TaskKey)> {
        let agent = &self.fleet.agents[key];
        let free = agent.free()?;
        let is_open = |class: &ClassKey| {
            let fits = self.fleet.classes[*class]
                .resources
                .fits_in(&free.resources);
            fits && agent.reserved_for.is_none_or(|only| only == *class)
        };
        let classes = self.fleet.queued_classes_for(key).filter(is_open);
        let firsts = classes.filter_map(|class| self.first_for(class, key));
        let (turn, first) = firsts.min_by_key(|(turn, _)| *turn)?;
        Some((turn, self.warmest_near(&turn, &first, key)))
    }

    /// The first task of a class that need not avoid an agent.
    ///
    /// No more are passed over than the agent has lost of late, which is a few: for more it gets a pause.
    pub(crate) fn first_for(&self, class: ClassKey, agent: AgentKey) -> Option<(Turn, Queued)> {
        self.queue.due(class).find(self.may_take(class, agent))
    }

    fn may_take(&self, class: ClassKey, agent: AgentKey) -> impl Fn(&(Turn, Queued)) -> bool {
        let any_to_avoid = self.fleet.classes[class].retry_anywhere_at.is_some();
        move |(_, queued)| {
            !any_to_avoid
                || !self
                    .fleet
                    .must_avoid(&self.tasks[queued.task], agent, self.now)
        }
    }

    /// The task for an agent whose turn has come: the first, unless one of the next few of the same run
    /// and priority finds more of what it needs there.
    fn warmest_near(&self, turn: &Turn, first: &Queued, agent: AgentKey) -> TaskKey {
        let warmth = &self.fleet.agents[agent].warmth;
        let first_coldness = warmth.coldness(first.wish);
        let task = &self.tasks[first.task];
        if first_coldness == 0 || task.passed_over >= PASS_OVER_LIMIT {
            return first.task;
        }
        let due = self.queue.due(task.class);
        let due = due.filter(self.may_take(task.class, agent));
        let near = due.take(TASK_LOOK_AHEAD).take_while(|(other, _)| {
            other.run == turn.run && other.place.priority == turn.place.priority
        });
        let warmest = near.min_by_key(|(_, queued)| warmth.coldness(queued.wish));
        warmest.map_or(first.task, |(_, warmest)| warmest.task)
    }

    /// Notes that a task goes before the first of its run, if it does.
    fn pass_over(&mut self, taken: TaskKey) {
        let task = &self.tasks[taken];
        let lane = Lane::new(task.class, task.priority);
        let first = self.queue.first_of_run(lane, task.run);
        if let Some(first) = first.filter(|first| *first != taken) {
            let passed_over = &mut self.tasks[first].passed_over;
            *passed_over = passed_over.saturating_add(1);
        }
    }

    /// Notes that a class is granted something: it is passed over no longer, unless it took a reservation
    /// to bring it about.
    fn end_passing_over(&mut self, class: ClassKey, agent: AgentKey) {
        if self.fleet.agents[agent].reserved_for == Some(class) {
            self.end_reservation(agent);
            return;
        }
        let class = &mut self.fleet.classes[class];
        class.passed_over_since = None;
        class.reserved_in_vain = None;
    }

    /// Leases the next batch of a task to an agent.
    fn grant(&mut self, key: TaskKey, agent_key: AgentKey) {
        self.end_passing_over(self.tasks[key].class, agent_key);
        let task = &mut self.tasks[key];
        let class = &self.fleet.classes[task.class];
        let running_nanos = task.running_nanos(self.now);
        let rule = BatchRule::new(&self.config, class.slots, task.overhead, running_nanos);
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
        task.begin_lease(id, self.now, charged_nanos);
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
                released_at: None,
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
