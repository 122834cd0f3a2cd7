//! How large and how late things may be.

use std::time::Duration;

use super::pack::MAX_RECORDS;

/// The bounds of packing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The largest value that is packed, in bytes.
    pub(super) max_value_bytes: u64,
    /// The most values of a pack, in bytes: with its footer it still is one part of an upload.
    pub(super) max_pack_bytes: u64,
    /// The most records of a pack.
    pub(super) max_records: usize,
    /// How long the first write of a pack waits for others, at most. While a pack is being written, the next
    /// one collects in any case.
    pub(super) linger: Duration,
    /// How old the answer may be that another process's small blob is absent, or still present.
    pub(super) max_age: Duration,
    /// How long after one listing the next may begin.
    pub(super) listing_interval: Duration,
    /// How many small or dead packs are put together, so that there never are many.
    pub(super) merged_packs: usize,
    /// How many bytes are kept in memory that were read beside others.
    pub(super) neighbours_bytes: u64,
    /// How long it is remembered that a key was forgotten, at least: longer than anybody may be at writing a
    /// copy of what was forgotten.
    pub(super) forgotten_for: Duration,
}

impl Limits {
    pub(super) const DEFAULT: Self = Self {
        max_value_bytes: 64 << 10,
        max_pack_bytes: 4 << 20,
        max_records: MAX_RECORDS,
        linger: Duration::from_millis(5),
        max_age: Duration::from_secs(10),
        listing_interval: Duration::from_millis(100),
        merged_packs: 16,
        neighbours_bytes: 8 << 20,
        forgotten_for: Duration::from_secs(24 * 60 * 60),
    };

    /// Below this, in values and in records, a pack is small, in either.
    pub(super) const fn small(&self) -> (u64, usize) {
        (self.max_pack_bytes / 4, self.max_records / 4)
    }
}
