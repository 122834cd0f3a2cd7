//! How far the log of a run is.

use regatta_model::PlantedBug;

/// Events that wait to become durable; a run that has more pauses.
const MAX_UNSTORED_EVENTS: usize = 4096;
/// And how many bytes of them.
const MAX_UNSTORED_BYTES: usize = 16 << 20;

/// How far a log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Progress {
    /// The last event there is.
    pub(super) last: u64,
    /// The last event that is durable.
    pub(super) stored: u64,
    /// No event follows `last`.
    pub(super) ended: bool,
    /// The ledger has failed for longer than runs wait at some time.
    pub(super) failed: bool,
    /// It has failed for some time, and goes on to.
    pub(super) stalled: bool,
    /// How much waits to become durable.
    pub(super) unstored_bytes: usize,
}

impl Progress {
    /// The last event that may be seen.
    pub(super) fn visible(&self) -> u64 {
        if PlantedBug::SeenBeforeDurable.is_planted() {
            self.last
        } else {
            self.stored
        }
    }

    /// Whether more events may wait to become durable.
    pub(super) const fn has_room(&self) -> bool {
        self.last - self.stored < MAX_UNSTORED_EVENTS as u64
            && self.unstored_bytes < MAX_UNSTORED_BYTES
    }

    /// Whether all has been seen that there will be.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.visible() == self.last
    }
}
