//! How much is kept, and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use regatta_model::TenantId;

/// What moments of use are rounded down by at least, and at most: what is used again and again is written down
/// once in this time.
const MIN_GRANULARITY: Duration = Duration::from_secs(1);
const MAX_GRANULARITY: Duration = Duration::from_secs(600);
/// A moment of use is rounded down by at most one of so many parts of the time that everything is kept for.
const GRANULARITY_DIVISOR: u32 = 6;
/// What runs have is used again so many times in that time.
const RENEWALS: u32 = 4;

/// What a tenant may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TenantCacheLimits {
    /// How many bytes; a blob that several tenants use counts for each of them. What the tenant's verdicts keep
    /// counts, too, and is at most half of it. Without a limit if `None`.
    pub max_bytes: Option<u64>,
    /// How long something is kept after the tenant used it last. Without a limit if `None`.
    pub max_age: Option<Duration>,
}

/// How much is kept of what can be made again, and for how long. [`CacheSettings::default`] has no limit but
/// the disk's.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// How many bytes of blobs, action results and assets there may be in all. Default: no limit.
    pub max_bytes: Option<u64>,
    /// How many bytes of the disk are left free, if everything is in a directory. Below half of it nothing
    /// more is stored. Default: 1 GiB, and at most a twentieth of the disk.
    pub min_free_bytes: Option<u64>,
    /// What tenants may have who are not named. Default: no limits.
    pub other_tenants: TenantCacheLimits,
    /// What tenants may have. Default: empty.
    pub tenants: BTreeMap<TenantId, TenantCacheLimits>,
    /// How long everything is kept after its last use, whatever the limits say: whoever was told that a blob
    /// is there may count on it for so long. Default: one hour.
    pub keep: Duration,
    /// How long artefacts are kept after a verdict was given that names them, as long as they take no more than
    /// half of what their tenant may have, and all of them no more than half of what there may be, or of the
    /// disk. Default: 365 days.
    pub keep_verdicts: Duration,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            max_bytes: None,
            min_free_bytes: None,
            other_tenants: TenantCacheLimits::default(),
            tenants: BTreeMap::new(),
            keep: Duration::from_secs(60 * 60),
            keep_verdicts: Duration::from_secs(365 * 24 * 60 * 60),
        }
    }
}

impl CacheSettings {
    /// Whether anything is to go for another reason than the disk.
    pub(crate) fn has_limits(&self) -> bool {
        let none = TenantCacheLimits::default();
        self.max_bytes.is_some()
            || self.other_tenants != none
            || self.tenants.values().any(|limits| *limits != none)
    }

    /// Whether anything is to go because of its age.
    pub(super) fn has_ages(&self) -> bool {
        let mut limits = self.tenants.values().chain([&self.other_tenants]);
        limits.any(|limits| limits.max_age.is_some())
    }

    /// What moments of use are rounded down by.
    pub(super) fn granularity(&self) -> Duration {
        let fine = self.keep / GRANULARITY_DIVISOR;
        fine.clamp(MIN_GRANULARITY, MAX_GRANULARITY)
    }

    /// How often what runs have counts as used.
    pub(crate) fn renewal_interval(&self) -> Duration {
        self.keep / RENEWALS
    }
}
