//! What work requires of agents, and how many of them meet it.

use regatta_model::{Platform, Resources};

use super::{AgentKey, ClassKey, Fleet};
use crate::agent::{Agent, Listing};
use crate::class::Class;

/// How many requirements without tasks are remembered. To meet a new one takes a look at every agent
/// that meets its platform; to meet it again takes none.
const MAX_IDLE_CLASSES: usize = 256;

impl Fleet {
    /// How many requirements have tasks.
    pub(crate) fn busy_classes(&self) -> usize {
        self.class_keys.len() - self.idle_classes.len()
    }

    /// The class of a requirement that is known.
    pub(crate) fn known_class(
        &self,
        platform: &Platform,
        resources: Resources,
    ) -> Option<ClassKey> {
        let asked = *self.asked_keys.get(platform)?;
        self.class_keys.get(&(asked, resources)).copied()
    }

    /// What a class asks of an agent's platform.
    pub(crate) fn platform_of(&self, class: &Class) -> &Platform {
        &self.asked[class.asked].platform
    }

    /// The first property that a class asks for and of which no agent that is remembered offers any
    /// value.
    pub(crate) fn unknown_property(&self, class: ClassKey) -> Option<&str> {
        let platform = self.platform_of(&self.classes[class]);
        let mut names = platform.iter().map(|(name, _)| name);
        names.find(|name| !self.offered.has_name(name))
    }

    /// Whether an agent's platform and size are enough for a class, whatever else it does.
    pub(crate) fn can_run(&self, agent: &Agent, class: &Class) -> bool {
        let kind = agent.kind.map(|kind| &self.kinds[kind]);
        kind.is_some_and(|kind| kind.asked.contains(&class.asked)) && agent.has_size_for(class)
    }

    /// The class of a requirement, with one task more in it.
    pub(crate) fn join_class(&mut self, platform: &Platform, resources: Resources) -> ClassKey {
        let asked = self.ask(platform);
        let known = self.class_keys.get(&(asked, resources)).copied();
        let key = known.unwrap_or_else(|| {
            let key = self.classes.insert(Class::new(asked, resources));
            self.class_keys.insert((asked, resources), key);
            self.asked[asked].classes.insert(key);
            self.count_agents_of(key);
            key
        });
        let class = &mut self.classes[key];
        class.tasks += 1;
        if let Some(since) = class.idle_since.take() {
            self.idle_classes.remove(&(since, key));
        }
        self.changed_classes.insert(key);
        key
    }

    fn count_agents_of(&mut self, key: ClassKey) {
        let kinds = &self.asked[self.classes[key].asked].kinds;
        let agents = kinds.iter().flat_map(|kind| &self.kinds[*kind].agents);
        for agent in agents {
            let agent = &self.agents[*agent];
            count(
                &mut self.classes[key],
                agent,
                Listing::default(),
                agent.listed,
            );
        }
    }

    /// Takes one task out of a class; whether it was the last.
    pub(crate) fn leave_class(&mut self, key: ClassKey) -> bool {
        let class = &mut self.classes[key];
        class.tasks -= 1;
        if class.tasks > 0 {
            return false;
        }
        self.idled += 1;
        class.idle_since = Some(self.idled);
        self.idle_classes.insert((self.idled, key));
        true
    }

    /// Forgets requirements that have had no tasks for longest, if too many are remembered. Those that
    /// are still to be looked at are so first.
    pub(crate) fn forget_idle_classes(&mut self) {
        while self.idle_classes.len() > MAX_IDLE_CLASSES {
            let Some((_, key)) = self.idle_classes.pop_first() else {
                return;
            };
            self.changed_classes.remove(&key);
            let Some(class) = self.classes.remove(key) else {
                continue;
            };
            self.class_keys.remove(&(class.asked, class.resources));
            let asked = &mut self.asked[class.asked];
            asked.classes.remove(&key);
            if asked.classes.is_empty() {
                self.forget_asked(class.asked);
            }
        }
    }

    /// Notes whether tasks of a class wait.
    pub(crate) fn set_queued(&mut self, key: ClassKey, queued: bool) {
        self.classes[key].queued = queued;
        if queued {
            self.queued_classes.insert(key);
        } else {
            self.queued_classes.remove(&key);
        }
    }

    /// Classes of which tasks wait and that an agent could run if it had enough free.
    pub(crate) fn queued_classes_for(&self, key: AgentKey) -> impl Iterator<Item = ClassKey> {
        let agent = &self.agents[key];
        let classes = self.queued_classes.iter().copied();
        classes.filter(move |class| self.can_run(agent, &self.classes[*class]))
    }

    /// Tells the classes that an agent could run that it came or went.
    pub(super) fn recount(&mut self, key: AgentKey, old: Listing, new: Listing) {
        let agent = &self.agents[key];
        let Some(kind) = agent.kind else {
            return;
        };
        for asked in &self.kinds[kind].asked {
            for class in &self.asked[*asked].classes {
                count(&mut self.classes[*class], agent, old, new);
                self.changed_classes.insert(*class);
            }
        }
    }
}

/// Counts an agent whose platform a class asks for as `new`, where it counted as `old`.
fn count(class: &mut Class, agent: &Agent, old: Listing, new: Listing) {
    if agent.has_size_for(class) {
        class.live = class.live + usize::from(new.live) - usize::from(old.live);
    }
    let concurrency = u64::from(agent.concurrency(class));
    if concurrency > 0 {
        class.willing = class.willing + usize::from(new.willing) - usize::from(old.willing);
        class.slots = class.slots + concurrency * u64::from(new.willing)
            - concurrency * u64::from(old.willing);
    }
}
