//! Agents kept free for work that needs more than ever becomes free by itself.
//!
//! Work that needs four CPUs is due, but wherever one CPU becomes free, work that needs one takes it. Once
//! a class has been passed over for [`SchedulerConfig::reserve_after`](crate::SchedulerConfig), the next
//! agent that would pass it over is reserved for it: it takes tasks of that class and no others, so that
//! it drains until one fits. A reservation never waits for another one, so none can wait for ever.

use regatta_model::Resources;

use crate::fleet::{AgentKey, ClassKey};
use crate::queue::Turn;
use crate::scheduler::Scheduler;
use crate::timers::Timer;

/// Of the agents that could run a class, one in so many may be reserved for it; one always may.
const RESERVED_SHARE: usize = 16;

impl Scheduler {
    /// Reserves an agent that is about to be granted a task of the given turn, if that would pass over
    /// work that was due before and has been passed over for too long. Whether it did.
    pub(crate) fn reserves(&mut self, key: AgentKey, turn: &Turn) -> bool {
        let Some(free) = self.fleet.agents[key].listed.free else {
            return false;
        };
        for class in self.passed_over(key, free.resources, turn) {
            let since = &mut self.fleet.classes[class].passed_over_since;
            let since = *since.get_or_insert(self.now);
            let is_due = since + self.config.reserve_after <= self.now;
            if is_due && self.may_reserve(key, class) {
                self.reserve(key, class);
                return true;
            }
        }
        false
    }

    /// The classes with a task for an agent that was due before a turn, and for which what the agent has
    /// free is too little.
    fn passed_over(&self, key: AgentKey, free: Resources, turn: &Turn) -> Vec<ClassKey> {
        let agent = &self.fleet.agents[key];
        let queued = self.fleet.queued_classes_for(key);
        let too_large = queued.filter(|class| {
            let class = &self.fleet.classes[*class];
            !class.resources.fits_in(&free) && agent.concurrency(class) > 0
        });
        let due_before = too_large.filter(|class| {
            let first = self.first_for(*class, key);
            first.is_some_and(|(first, _)| first < *turn)
        });
        due_before.collect()
    }

    fn may_reserve(&self, key: AgentKey, class: ClassKey) -> bool {
        let class = &self.fleet.classes[class];
        let share = (class.willing / RESERVED_SHARE).max(1);
        let is_alone = class.willing == 1;
        class.reserved.len() < share.min(class.waiting)
            && (is_alone || class.reserved_in_vain != Some(key))
    }

    fn reserve(&mut self, key: AgentKey, class: ClassKey) {
        self.fleet.classes[class].reserved.insert(key);
        let until = self.after(self.config.reservation_limit);
        let agent = &mut self.fleet.agents[key];
        agent.reserved_for = Some(class);
        let timer = Timer::Reserved(key);
        self.timers
            .set(timer, &mut agent.reserved_until, Some(until));
        self.fleet.relist(key);
    }

    /// Lets an agent take any work again.
    pub(crate) fn end_reservation(&mut self, key: AgentKey) {
        let agent = &mut self.fleet.agents[key];
        let Some(class) = agent.reserved_for.take() else {
            return;
        };
        let timer = Timer::Reserved(key);
        self.timers.set(timer, &mut agent.reserved_until, None);
        self.fleet.classes[class].reserved.remove(&key);
        self.fleet.relist(key);
        self.agents_to_fill.insert(key);
    }

    /// Lets every agent that is reserved for a class take any work again.
    pub(crate) fn end_reservations(&mut self, class: ClassKey) {
        let class = &mut self.fleet.classes[class];
        class.passed_over_since = None;
        class.reserved_in_vain = None;
        for agent in std::mem::take(&mut class.reserved) {
            self.end_reservation(agent);
        }
    }

    /// Gives up on an agent that did not drain in time, so that another is tried.
    pub(crate) fn end_reservation_in_vain(&mut self, key: AgentKey) {
        if let Some(class) = self.fleet.agents[key].reserved_for {
            self.fleet.classes[class].reserved_in_vain = Some(key);
        }
        self.end_reservation(key);
    }

    /// Ends an agent's reservation if it can be of no use any more.
    pub(crate) fn review_reservation(&mut self, key: AgentKey) {
        let agent = &self.fleet.agents[key];
        let Some(class) = agent.reserved_for else {
            return;
        };
        let class = &self.fleet.classes[class];
        let is_able = agent.connected && agent.is_willing() && agent.cooling_off_until.is_none();
        let is_fit = self.fleet.can_run(agent, class) && agent.concurrency(class) > 0;
        if !is_able || !is_fit {
            self.end_reservation(key);
        }
    }
}
