//! The places where leases work, and the containers in them.

use regatta_model::{Isolation, SlotIndex, Timestamp};

use crate::container::{Demand, Held, Shape};
use crate::effect::ContainerPlan;
use crate::event::{ContainerFate, LeaseKey};

/// Every slot of the agent, by index.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Vec<Slot>);

/// One slot.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) index: SlotIndex,
    occupant: Option<Occupant>,
    held: Held,
    /// What the slot last had a container for: the best guess of what comes next. One that could not be
    /// had is never started ahead.
    last_shape: Option<Shape>,
    idle_since: Timestamp,
    /// No container is started ahead before this.
    pub(crate) warm_after: Timestamp,
}

#[derive(Clone, Debug)]
struct Occupant {
    lease: LeaseKey,
    demand: Demand,
}

impl Slots {
    pub(crate) fn new(count: u32, default_shape: Option<&Shape>) -> Self {
        let slot = |index| Slot {
            index: SlotIndex(index),
            occupant: None,
            held: Held::Nothing,
            last_shape: default_shape.cloned(),
            idle_since: Timestamp::EPOCH,
            warm_after: Timestamp::EPOCH,
        };
        Self((0..count).map(slot).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.0.iter_mut()
    }

    pub(crate) fn get_mut(&mut self, index: SlotIndex) -> Option<&mut Slot> {
        self.0.get_mut(usize::try_from(index.0).ok()?)
    }

    /// Notes that a lease has the container that it asked for. Slots that have had none expect to be asked for
    /// the same.
    pub(crate) fn note_container(&mut self, index: SlotIndex, lease: LeaseKey) {
        let slot = self.get_mut(index);
        let occupant = slot.and_then(|slot| slot.occupant.as_ref());
        let Some(occupant) = occupant.filter(|occupant| occupant.lease == lease) else {
            return;
        };
        let shape = occupant.demand.key.shape.clone();
        for slot in &mut self.0 {
            if slot.index == index || slot.last_shape.is_none() {
                slot.last_shape = Some(shape.clone());
            }
        }
    }

    pub(crate) fn all_idle(&self) -> bool {
        self.0.iter().all(|slot| slot.occupant.is_none())
    }

    /// The idle slot that a lease is best put in: one with a container for it, then one without a
    /// container, then the one whose container has been idle for longest; but the one to avoid last.
    pub(crate) fn best_for(
        &mut self,
        demand: &Demand,
        avoid: Option<SlotIndex>,
    ) -> Option<&mut Slot> {
        self.0
            .iter_mut()
            .filter(|slot| slot.occupant.is_none())
            .min_by_key(|slot| {
                let is_avoided = Some(slot.index) == avoid;
                let cost = slot.held.cost_for(demand);
                (is_avoided, cost, slot.idle_since, slot.index)
            })
    }
}

impl Slot {
    pub(crate) fn is_occupied(&self) -> bool {
        self.occupant.is_some()
    }

    pub(crate) fn has_idle_container(&self) -> bool {
        self.occupant.is_none() && self.held != Held::Nothing
    }

    /// The lease that works in it, or that is being ended.
    pub(crate) fn lease(&self) -> Option<LeaseKey> {
        self.occupant.as_ref().map(|occupant| occupant.lease)
    }

    pub(crate) fn is_occupied_by(&self, lease: LeaseKey) -> bool {
        self.occupant
            .as_ref()
            .is_some_and(|occupant| occupant.lease == lease)
    }

    /// Puts a lease into the slot, which is idle.
    pub(crate) fn occupy(&mut self, lease: LeaseKey, demand: Demand) -> ContainerPlan {
        let plan = if self.held.serves(&demand) {
            ContainerPlan::Reuse
        } else {
            ContainerPlan::Replace
        };
        self.held = Held::Nothing;
        self.occupant = Some(Occupant { lease, demand });
        plan
    }

    /// Takes the lease out; tells whether its container must be ended.
    pub(crate) fn vacate(&mut self, now: Timestamp, fate: ContainerFate) -> bool {
        self.idle_since = now;
        let Some(occupant) = self.occupant.take() else {
            return false;
        };
        let kept = fate == ContainerFate::Kept;
        match occupant.demand.isolation {
            Isolation::Run if kept => {
                self.held = Held::Bound(occupant.demand.key);
                false
            }
            Isolation::Run | Isolation::Fresh => kept,
        }
    }

    /// Notes that an idle slot's container is gone.
    pub(crate) fn lose_container(&mut self, warm_after: Timestamp) {
        if self.occupant.is_none() {
            self.held = Held::Nothing;
            self.warm_after = warm_after;
        }
    }

    /// When an idle container of a run that may have ended is to be replaced by an unused one.
    pub(crate) fn bound_since(&self) -> Option<Timestamp> {
        match &self.held {
            Held::Bound(_) => Some(self.idle_since),
            Held::Nothing | Held::Unused(_) => None,
        }
    }

    /// Whether a container should be started ahead, now or from [`Slot::warm_after`] on.
    pub(crate) fn wants_container(&self) -> bool {
        self.occupant.is_none() && self.held == Held::Nothing && self.last_shape.is_some()
    }

    /// Decides to start a container ahead; tells its shape.
    pub(crate) fn warm(&mut self, now: Timestamp) -> Option<Shape> {
        let shape = self.last_shape.clone()?;
        self.held = Held::Unused(shape.clone());
        self.idle_since = now;
        Some(shape)
    }
}

#[cfg(test)]
mod tests {
    use regatta_model::{FencingToken, LeaseId, NetworkAccess, Resources, RootDirectory};

    use super::*;
    use crate::container::ShareKey;

    fn shape(image: &str) -> Shape {
        Shape {
            image: image.parse().ok(),
            work_path: "/work".to_owned(),
            root: RootDirectory::Image,
            resources: Resources::default(),
            network: NetworkAccess::Off,
        }
    }

    fn demand(image: &str) -> Demand {
        let (tenant, run) = ("t".parse().ok(), "r".parse().ok());
        let (Some(tenant), Some(run)) = (tenant, run) else {
            panic!("these are ids");
        };
        let key = ShareKey {
            tenant,
            run,
            shape: shape(image),
        };
        Demand {
            key,
            isolation: Isolation::Run,
        }
    }

    const LEASE: LeaseKey = LeaseKey {
        lease: LeaseId(1),
        token: FencingToken(1),
    };

    #[test]
    fn only_what_could_be_had_once_is_started_ahead() {
        let now = Timestamp::EPOCH;
        let mut slots = Slots::new(1, Some(&shape("default:1")));
        slots.0[0].occupy(LEASE, demand("absent:1"));
        slots.0[0].vacate(now, ContainerFate::Gone);
        assert_eq!(slots.0[0].warm(now), Some(shape("default:1")));
        slots.0[0].occupy(LEASE, demand("present:1"));
        slots.note_container(SlotIndex(0), LEASE);
        slots.0[0].vacate(now, ContainerFate::Gone);
        assert_eq!(slots.0[0].warm(now), Some(shape("present:1")));
    }

    #[test]
    fn slots_that_know_nothing_expect_what_another_was_asked_for() {
        let mut slots = Slots::new(3, None);
        for (index, image) in [(1, "first:1"), (0, "second:1")] {
            let index = SlotIndex(index);
            let slot = slots.get_mut(index).expect("it is there");
            slot.occupy(LEASE, demand(image));
            slots.note_container(index, LEASE);
        }
        let expected: Vec<_> = slots.iter().map(|slot| slot.last_shape.clone()).collect();
        let images = ["second:1", "first:1", "first:1"];
        assert_eq!(expected, images.map(|image| Some(shape(image))));
        assert!(slots.0[2].wants_container());
    }
}
