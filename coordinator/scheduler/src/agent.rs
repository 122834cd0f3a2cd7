//! What is known of one agent.

use std::collections::BTreeSet;

use regatta_model::{AgentId, LeaseId, Platform, Resources, SlotIndex, Timestamp};

use crate::Offer;
use crate::affinity::Warmth;
use crate::class::Class;
use crate::fleet::{ClassKey, KindKey};
use crate::free_index::FreeShape;

/// One agent, connected or not.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) connected: bool,
    pub(crate) lost: bool,
    pub(crate) draining: bool,
    /// Why it takes no new work, in its own words; nothing if it does.
    pub(crate) refusal: Option<String>,
    pub(crate) last_report: Timestamp,
    /// The last report of this connection.
    pub(crate) sequence: u64,
    /// The desired state that the last report took into account.
    pub(crate) observed: u64,
    /// The last desired state that was sent.
    pub(crate) version: u64,
    /// The last report that it took into account; none on this connection yet.
    pub(crate) answered_sequence: Option<u64>,
    /// Whether it was absent when it had to be told something.
    pub(crate) missed_state: bool,
    /// Its leases, those that it need not hold any more included, until it says that they are gone.
    pub(crate) leases: BTreeSet<LeaseId>,
    /// Leases that it holds and that are not its own to hold, and the report that had each first.
    pub(crate) foreign: Vec<(LeaseId, u64)>,
    /// Since when one of those may be running, on capacity that nobody has accounted for.
    pub(crate) foreign_since: Option<Timestamp>,
    /// The slots that it has said its leases are in that may still be running.
    pub(crate) working: BTreeSet<SlotIndex>,
    /// What its leases use that may still be running.
    pub(crate) used_slots: u32,
    pub(crate) used_resources: Resources,
    /// What it was to let go of and has not for so long that nobody counts on it any more.
    pub(crate) stuck: Stuck,
    /// How many events in a row lost leases of it.
    pub(crate) consecutive_losses: u32,
    /// The event that it was last blamed for.
    pub(crate) blamed_for: u64,
    pub(crate) cooling_off_until: Option<Timestamp>,
    pub(crate) silent_at: Option<Timestamp>,
    pub(crate) forget_at: Option<Timestamp>,
    /// When what it has to let go of is looked at next.
    pub(crate) overdue_at: Option<Timestamp>,
    /// The class that it takes tasks of and of no other, until one fits.
    pub(crate) reserved_for: Option<ClassKey>,
    pub(crate) reserved_until: Option<Timestamp>,
    pub(crate) slots: u32,
    pub(crate) resources: Resources,
    pub(crate) platform: Platform,
    pub(crate) warmth: Warmth,
    /// The kind that its platform makes it; none as long as it has offered nothing.
    pub(crate) kind: Option<KindKey>,
    /// How the indexes count it.
    pub(crate) listed: Listing,
}

/// What an agent occupies against the scheduler's will.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stuck {
    pub(crate) leases: BTreeSet<LeaseId>,
    pub(crate) resources: Resources,
    /// Whether it holds leases that are not its own.
    pub(crate) foreign: bool,
}

/// How an agent stands in the indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Listing {
    pub(crate) live: bool,
    pub(crate) willing: bool,
    /// What anyone can be granted there.
    pub(crate) free: Option<FreeShape>,
}

impl Agent {
    pub(crate) fn new(id: AgentId) -> Self {
        Self {
            id,
            connected: false,
            lost: true,
            draining: false,
            refusal: None,
            last_report: Timestamp::EPOCH,
            sequence: 0,
            observed: 0,
            version: 0,
            answered_sequence: None,
            missed_state: false,
            leases: BTreeSet::new(),
            foreign: Vec::new(),
            foreign_since: None,
            working: BTreeSet::new(),
            used_slots: 0,
            used_resources: Resources::default(),
            stuck: Stuck::default(),
            consecutive_losses: 0,
            blamed_for: 0,
            cooling_off_until: None,
            silent_at: None,
            forget_at: None,
            overdue_at: None,
            reserved_for: None,
            reserved_until: None,
            slots: 0,
            resources: Resources::default(),
            platform: Platform::default(),
            warmth: Warmth::default(),
            kind: None,
            listed: Listing::default(),
        }
    }

    pub(crate) fn offer(&mut self, offer: &Offer) {
        self.slots = offer.slots;
        self.resources = offer.resources;
        self.platform.clone_from(&offer.platform);
    }

    /// Whether an offer says nothing new but of what is warm.
    pub(crate) fn has_offered(&self, offer: &Offer) -> bool {
        (self.slots, self.resources) == (offer.slots, offer.resources)
            && self.platform == offer.platform
    }

    pub(crate) fn free_slots(&self) -> u32 {
        self.slots.saturating_sub(self.used_slots)
    }

    /// Whether it is sure to have a slot free other than this one, if it has any.
    pub(crate) fn has_free_besides(&self, slot: SlotIndex) -> bool {
        self.free_slots() > 1 || self.working.contains(&slot)
    }

    fn free_resources(&self) -> Resources {
        self.resources.minus(&self.used_resources)
    }

    pub(crate) fn occupy(&mut self, resources: &Resources) {
        self.used_slots = self.used_slots.saturating_add(1);
        self.used_resources = self.used_resources.plus(resources);
    }

    pub(crate) fn vacate(&mut self, resources: &Resources) {
        self.used_slots = self.used_slots.saturating_sub(1);
        self.used_resources = self.used_resources.minus(resources);
    }

    /// Whether a lease of `class` fits on it when it does nothing else.
    pub(crate) fn has_size_for(&self, class: &Class) -> bool {
        self.slots > 0 && class.resources.fits_in(&self.resources)
    }

    /// How many leases of `class` it can be counted on to have at once.
    pub(crate) fn concurrency(&self, class: &Class) -> u32 {
        self.concurrency_of(&class.resources)
    }

    /// How many leases that need so much it can be counted on to have at once.
    pub(crate) fn concurrency_of(&self, needs: &Resources) -> u32 {
        let stuck_slots = u32::try_from(self.stuck.leases.len()).unwrap_or(u32::MAX);
        let resources = self.resources.minus(&self.stuck.resources);
        let by_cpu = ratio(resources.cpu_milli, needs.cpu_milli);
        let by_memory = ratio(resources.memory_bytes, needs.memory_bytes);
        let slots = self.slots.saturating_sub(stuck_slots);
        slots.min(by_cpu).min(by_memory)
    }

    /// What it can be granted now, whomever it is reserved for.
    pub(crate) fn free(&self) -> Option<FreeShape> {
        let able = self.is_willing()
            && self.connected
            && self.cooling_off_until.is_none()
            && self.foreign_since.is_none()
            && self.free_slots() > 0;
        able.then(|| FreeShape {
            slots: self.free_slots(),
            resources: self.free_resources(),
        })
    }

    fn is_live(&self) -> bool {
        !self.lost && self.kind.is_some()
    }

    pub(crate) fn is_willing(&self) -> bool {
        self.is_live() && self.refusal.is_none() && !self.draining && !self.stuck.foreign
    }

    /// How it should stand in the indexes.
    pub(crate) fn listing(&self) -> Listing {
        Listing {
            live: self.is_live(),
            willing: self.is_willing(),
            free: self.free().filter(|_| self.reserved_for.is_none()),
        }
    }
}

fn ratio(offered: u64, needed: u64) -> u32 {
    let times = offered.checked_div(needed).unwrap_or(u64::MAX);
    u32::try_from(times).unwrap_or(u32::MAX)
}
