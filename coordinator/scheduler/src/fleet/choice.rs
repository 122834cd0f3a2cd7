//! Which agent a task would best run on.

use std::cmp::Reverse;

use regatta_model::Timestamp;

use super::{AgentKey, Fleet, KindKey};
use crate::kind::FreeShape;
use crate::task::Task;

/// How many warm agents are looked at for one task.
const WARM_LOOK_AHEAD: usize = 16;
/// How many agents with equally much free are looked at for one task.
const FREE_LOOK_AHEAD: usize = 4;

impl Fleet {
    /// Whether `agent` is the one that lost all that waits of `task`, while another could take it.
    pub(crate) fn must_avoid(&self, task: &Task, agent: AgentKey, now: Timestamp) -> bool {
        task.avoid == Some(agent)
            && task.avoid_until > now
            && task.lost_waiting >= task.waiting.len()
            && self.classes[task.class].willing > 1
    }

    /// The agent that a task would best run on now: one that has its input tree or its image if there
    /// is one among the first few, else one of those with the most slots free.
    pub(crate) fn best_agent(&self, task: &Task, now: Timestamp) -> Option<AgentKey> {
        let class = &self.classes[task.class];
        if class.ready_kinds.is_empty() {
            return None;
        }
        [task.wish.tree, task.wish.image]
            .into_iter()
            .filter_map(|mark| self.warm.get(&mark?))
            .find_map(|warm| self.best_of(task, now, warm.iter().copied().take(WARM_LOOK_AHEAD)))
            .or_else(|| self.best_of(task, now, self.most_free(task, now)))
    }

    fn best_of(
        &self,
        task: &Task,
        now: Timestamp,
        agents: impl Iterator<Item = AgentKey>,
    ) -> Option<AgentKey> {
        agents
            .filter(|key| self.can_take(task, *key, now))
            .min_by_key(|key| {
                let agent = &self.agents[*key];
                let coldness = agent.warmth.coldness(task.wish);
                (coldness, Reverse(agent.free_slots()), *key)
            })
    }

    fn can_take(&self, task: &Task, key: AgentKey, now: Timestamp) -> bool {
        let agent = &self.agents[key];
        let class = &self.classes[task.class];
        let fits = |free: FreeShape| class.resources.fits_in(&free.resources);
        agent.listed.free.is_some_and(fits)
            && agent
                .kind
                .is_some_and(|kind| class.kinds.contains_key(&kind))
            && !self.must_avoid(task, key, now)
    }

    /// For each kind that is ready for a task, a few of the agents with the most slots free on which
    /// it fits. What does not fit is passed over by shape, not by agent.
    fn most_free(&self, task: &Task, now: Timestamp) -> impl Iterator<Item = AgentKey> {
        let class = &self.classes[task.class];
        let first_fit = move |kind: &KindKey| {
            let shapes = self.kinds[*kind].free.iter().rev();
            let fitting =
                shapes.filter(move |(shape, _)| class.resources.fits_in(&shape.resources));
            let agents = fitting.flat_map(|(_, agents)| agents.iter().copied());
            agents
                .filter(move |agent| !self.must_avoid(task, *agent, now))
                .take(FREE_LOOK_AHEAD)
        };
        class
            .ready_kinds
            .iter()
            .flat_map(first_fit)
            .take(WARM_LOOK_AHEAD)
    }
}
