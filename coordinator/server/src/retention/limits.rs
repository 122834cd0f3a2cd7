//! How much there may be, by the settings and the disk.

use std::collections::BTreeMap;

use super::entry::Claimant;
use super::plan::{ClaimantLimits, PlanLimits, VERDICTS_DIVISOR};
use super::settings::TenantCacheLimits;
use super::{Retention, seconds};

/// How many things may be stored, each of which takes some 150 bytes of memory.
const MAX_ENTRIES: u64 = 1 << 22;

fn limits_of(limits: &TenantCacheLimits) -> ClaimantLimits {
    ClaimantLimits {
        max_bytes: limits.max_bytes,
        max_age: limits.max_age.map(seconds),
    }
}

impl Retention {
    /// The limits as of now. `lacking_bytes` is what the disk lacks.
    pub(super) fn limits(&self, lacking_bytes: u64) -> PlanLimits {
        let granularity = seconds(self.settings.granularity());
        let others = limits_of(&self.settings.other_tenants);
        let tenants = self.settings.tenants.iter();
        let claimants: BTreeMap<Claimant, ClaimantLimits> = tenants
            .map(|(tenant, limits)| (self.claimant_of(tenant), limits_of(limits)))
            // What nobody is known to use grows old like anything else, but is nobody's too much.
            .chain([(
                Claimant::NOBODY,
                ClaimantLimits {
                    max_bytes: None,
                    ..others
                },
            )])
            .collect();
        PlanLimits {
            others,
            claimants,
            max_bytes: self.settings.max_bytes,
            max_entries: Some(MAX_ENTRIES),
            lacking_bytes,
            keep_verdicts: Some(seconds(self.settings.keep_verdicts)),
            max_verdict_bytes: self.max_verdict_bytes(),
            // A moment that was rounded down may be this much later.
            keep: seconds(self.settings.keep).saturating_add(granularity),
        }
    }

    /// How many bytes verdicts may keep in all.
    fn max_verdict_bytes(&self) -> Option<u64> {
        let limits = [self.settings.max_bytes, self.room.size_bytes()];
        let least = limits.into_iter().flatten().min();
        least.map(|limit| limit / VERDICTS_DIVISOR)
    }
}
