//! Which agent a task would best run on.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use regatta_model::Timestamp;

use super::{AgentKey, Fleet};
use crate::affinity::Mark;
use crate::task::Task;

/// How many warm agents are looked at for one task.
const WARM_LOOK_AHEAD: usize = 16;
/// How many agents of each kind, those with the most free, are looked at for one task.
const FREE_LOOK_AHEAD: usize = 4;

impl Fleet {
    /// Whether an agent has anything free.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready_kinds.is_empty()
    }

    /// The agent that a task would best run on now: one that has its input tree, else one that has its
    /// image, else the one with the most free.
    ///
    /// Of the agents that have the tree or the image a few are looked at, other ones for each task. One may be
    /// left out. Where the task was lost or has failed, it goes only if there is no other agent for it, and not
    /// if it must wait for another place.
    pub(crate) fn best_agent(
        &self,
        task: &Task,
        now: Timestamp,
        besides: Option<AgentKey>,
    ) -> Option<AgentKey> {
        if !self.is_ready() {
            return None;
        }
        let avoided = self.avoided_by(task, now).map(|avoided| avoided.agent);
        let others = |key: &AgentKey| Some(*key) != besides && Some(*key) != avoided;
        let other = self.best_agent_of(task, others);
        other.or_else(|| {
            let is_there = |key: &AgentKey| self.agents.get(*key).is_some();
            let avoided = avoided.filter(|key| Some(*key) != besides && is_there(key))?;
            let same = (!self.must_avoid(task, avoided, now)).then_some(avoided);
            self.best_of(task, same.into_iter())
        })
    }

    fn best_agent_of(
        &self,
        task: &Task,
        may_be: impl Fn(&AgentKey) -> bool + Copy,
    ) -> Option<AgentKey> {
        let of_tree = self.warm_agents(task, task.wish.tree);
        self.best_of(task, of_tree.filter(may_be)).or_else(|| {
            let of_image = self.warm_agents(task, task.wish.image);
            let of_image = of_image.filter(may_be);
            self.best_of(task, of_image.chain(self.most_free(task, may_be)))
        })
    }

    fn best_of(&self, task: &Task, agents: impl Iterator<Item = AgentKey>) -> Option<AgentKey> {
        agents
            .filter(|key| self.can_take(task, *key))
            .min_by_key(|key| {
                let agent = &self.agents[*key];
                let coldness = agent.warmth.coldness(task.wish);
                (coldness, Reverse(agent.listed.free), *key)
            })
    }

    fn can_take(&self, task: &Task, key: AgentKey) -> bool {
        let agent = &self.agents[key];
        let class = &self.classes[task.class];
        let free = agent.listed.free;
        free.is_some_and(|free| class.resources.fits_in(&free.resources))
            && self.can_run(agent, class)
    }

    /// Some of the agents that have something ready, beginning at a place that the task's arrival picks,
    /// so that of many that are equally warm each gets its share.
    fn warm_agents(&self, task: &Task, mark: Option<Mark>) -> impl Iterator<Item = AgentKey> {
        let warm = mark.and_then(|mark| self.warm.get(&mark));
        let begin = self.agents.scattered(task.arrival);
        let from = move |agents: &'_ BTreeSet<AgentKey>| {
            let (before, after) = (agents.range(..begin), agents.range(begin..));
            after.chain(before).take(WARM_LOOK_AHEAD).copied().collect()
        };
        warm.map_or_else(Vec::new, from).into_iter()
    }

    /// For each kind that is ready for a task, the few agents with the most free on which it fits.
    fn most_free(
        &self,
        task: &Task,
        may_be: impl Fn(&AgentKey) -> bool + Copy,
    ) -> impl Iterator<Item = AgentKey> {
        let class = &self.classes[task.class];
        let ready = self.ready_kinds.iter().map(|kind| &self.kinds[*kind]);
        let meeting = ready.filter(|kind| kind.asked.contains(&class.asked));
        meeting.flat_map(move |kind| {
            let fitting = kind.free.fitting(class.resources);
            fitting.filter(may_be).take(FREE_LOOK_AHEAD)
        })
    }
}
