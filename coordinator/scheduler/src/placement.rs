//! Bringing tasks and agents together.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::fleet::{AgentKey, ClassKey};
use crate::queue::{Lane, Queued, Turn};
use crate::scheduler::Scheduler;
use crate::task::TaskKey;

/// How many tasks are looked at for one slot of an agent: what affinity may cost.
const TASK_LOOK_AHEAD: usize = 8;
/// How often a task may be passed over for one that is warmer, before it goes first come what may.
const PASS_OVER_LIMIT: u8 = 16;

impl Scheduler {
    /// Fills what has become free and places what has become due.
    ///
    /// Nothing else needs to be looked at, because at the end of each step no agent has room for a task
    /// that waits, unless it is reserved for others, or nothing is to be begun. Agents come first: they
    /// choose among all classes by fairness.
    pub(crate) fn place(&mut self) {
        if self.hold.is_some() {
            // Once that is over, every agent is filled.
            self.agents_to_fill.clear();
            self.classes_to_place.clear();
            return;
        }
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
    /// speaks for all behind it, and so do two that avoid different ones.
    fn placement_in(&self, class: ClassKey) -> Option<(Turn, TaskKey, AgentKey)> {
        if !self.fleet.is_ready() {
            return None;
        }
        let in_vain = RefCell::new(BTreeSet::new());
        let mut only_free = None;
        let skips = |group, _| in_vain.borrow().contains(&group);
        for (turn, queued) in self.queue.due_but(class, &skips) {
            let task = &self.tasks[queued.task];
            if let Some(agent) = self.fleet.best_agent(task, self.now, None) {
                return Some((turn, queued.task, agent));
            }
            let avoided = self.fleet.avoided_by(task, self.now)?;
            if *only_free.get_or_insert(avoided.agent) != avoided.agent {
                return None;
            }
            in_vain.borrow_mut().extend(avoided.group());
        }
        None
    }

    /// An agent that could be granted a task now, which at the end of a step there must not be.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn idle_agent(&self) -> Option<regatta_model::AgentId> {
        if self.hold.is_some() {
            return None;
        }
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
    pub(crate) fn first_for(&self, class: ClassKey, agent: AgentKey) -> Option<(Turn, Queued)> {
        self.due_for(class, agent).next()
    }

    /// The tasks of a class that need not avoid an agent, in the order in which they are due.
    ///
    /// No more are passed over than the agent has lost of late, which is a few: for more it gets a pause. Those that
    /// have failed in one of its slots count as one for each run.
    fn due_for(&self, class: ClassKey, agent: AgentKey) -> impl Iterator<Item = (Turn, Queued)> {
        let any_to_avoid = self.fleet.classes[class].retry_anywhere_at.is_some();
        let must_avoid = move |task: TaskKey| {
            any_to_avoid && self.fleet.must_avoid(&self.tasks[task], agent, self.now)
        };
        let due = self.queue.due_but(class, move |_, first| must_avoid(first));
        due.filter(move |(_, queued)| !must_avoid(queued.task))
    }

    /// The task for an agent whose turn has come: the first, unless another agent has what this one would have to
    /// fetch for it, and one of the next few of the same run and priority is better off here. What nobody has
    /// costs the same now as later, and later the order in which tasks are due is worth less.
    fn warmest_near(&self, turn: &Turn, first: &Queued, agent: AgentKey) -> TaskKey {
        let coldness = |queued: &Queued| self.fleet.colder_than_another(agent, queued.wish);
        let task = &self.tasks[first.task];
        if coldness(first) == 0 || task.passed_over >= PASS_OVER_LIMIT {
            return first.task;
        }
        let due = self.due_for(task.class, agent);
        let near = due.take(TASK_LOOK_AHEAD).take_while(|(other, _)| {
            other.run == turn.run && other.place.priority == turn.place.priority
        });
        let warmest = near.min_by_key(|(_, queued)| coldness(queued));
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
    pub(crate) fn end_passing_over(&mut self, class: ClassKey, agent: AgentKey) {
        if self.fleet.agents[agent].reserved_for == Some(class) {
            self.end_reservation(agent);
            return;
        }
        let class = &mut self.fleet.classes[class];
        class.passed_over_since = None;
        class.reserved_in_vain = None;
    }
}
