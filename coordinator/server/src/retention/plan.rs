//! What goes: a pure function of what there is, what was used when, and how much there may be.
//!
//! Invariants, which the tests check:
//! - What was used within the time that everything is kept for stays, whatever the limits say.
//! - What goes of a tenant was used before, or at the same time as, anything of it that stays.
//! - Whenever a blob goes, every result that was used no later by one of those who used the blob goes before
//!   it, or is gone: as a result is used before the blobs that it names, none is left that names it.
//! - Verdicts keep no more than their part, but for what the last hours named; what they keep goes for all only
//!   after everything else, and as far as that would not be enough once the time of all of it is over.
//! - Of what was used in the same moment, what was used first goes first; of what is not known, what names others.
//! - Nothing goes if no limit is exceeded, and no more than a limit asks for, but for a margin.

mod fair_level;

use std::collections::{BTreeMap, BTreeSet};

use self::fair_level::fair_level;

use super::entry::{Claim, Claimant, Entry, Key, Kind, Seconds};

/// A limit that was exceeded is met by a margin, so that it is not exceeded again at once: one of so many
/// parts of it.
const MARGIN_DIVISOR: u64 = 10;

/// Verdicts may keep one of so many parts of what their tenant, or all together, may have.
pub(crate) const VERDICTS_DIVISOR: u64 = 2;

/// What one claimant may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ClaimantLimits {
    /// How many bytes; what several use counts for each of them, and what verdicts keep for who was given them.
    pub(crate) max_bytes: Option<u64>,
    /// For how many seconds without a use.
    pub(crate) max_age: Option<Seconds>,
}

/// How much there may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlanLimits {
    /// Of those that are not named.
    pub(crate) others: ClaimantLimits,
    pub(crate) claimants: BTreeMap<Claimant, ClaimantLimits>,
    /// Of all together, in bytes.
    pub(crate) max_bytes: Option<u64>,
    /// Of all together, in things stored.
    pub(crate) max_entries: Option<u64>,
    /// What the disk lacks, in bytes.
    pub(crate) lacking_bytes: u64,
    /// For how many seconds verdicts keep what they name.
    pub(crate) keep_verdicts: Option<Seconds>,
    /// How many bytes all verdicts together may keep.
    pub(crate) max_verdict_bytes: Option<u64>,
    /// For how many seconds after its last use everything is kept.
    pub(crate) keep: Seconds,
}

impl PlanLimits {
    /// Those of a claimant.
    pub(crate) fn of(&self, claimant: Claimant) -> ClaimantLimits {
        let own = self.claimants.get(&claimant.payer()).copied();
        let own = own.unwrap_or(self.others);
        match claimant.is_for_verdicts() {
            false => own,
            true => ClaimantLimits {
                max_bytes: own.max_bytes.map(|limit| limit / VERDICTS_DIVISOR),
                max_age: self.keep_verdicts,
            },
        }
    }
}

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// Nobody who used it used it within the age that is set for them.
    Age,
    /// Those who used it have too much.
    TenantSize,
    /// Verdicts keep too much.
    Verdicts,
    /// There is too much.
    Size,
    /// There are too many things.
    Count,
    /// The disk has too little room.
    Disk,
}

impl Reason {
    /// Its name in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::TenantSize => "tenant-size",
            Self::Verdicts => "verdicts",
            Self::Size => "size",
            Self::Count => "count",
            Self::Disk => "disk",
        }
    }
}

/// Something that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Eviction {
    pub(crate) key: Key,
    pub(crate) size_bytes: u64,
    /// When it was used last: if it is used again before it goes, it stays.
    pub(crate) last_used: Seconds,
    pub(crate) reason: Reason,
}

/// What to do, evictions in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    pub(crate) evictions: Vec<Eviction>,
    /// What stays because others use it, and no longer counts for these.
    pub(crate) released: Vec<(Key, Claim)>,
    /// How many things verdicts keep no longer though their time is not over.
    pub(crate) unkept: usize,
}

/// Says what goes at `now`.
pub(crate) fn plan(entries: &[Entry], limits: &PlanLimits, now: Seconds) -> Plan {
    let mut work = Work {
        entries,
        kept_since: now.saturating_sub(limits.keep),
        released: BTreeMap::new(),
        evicted: BTreeMap::new(),
    };
    work.release(limits, now);
    work.evict_what_nobody_has();
    work.evict_for_all(limits);
    work.finish()
}

/// A plan in the making. Entries go by their index.
struct Work<'a> {
    entries: &'a [Entry],
    /// What was used since then stays.
    kept_since: Seconds,
    /// The claims that end, by entry and claim.
    released: BTreeMap<(usize, usize), Reason>,
    evicted: BTreeMap<usize, Reason>,
}

impl Work<'_> {
    /// Ends the claims of those who have too much, or have used something too long ago.
    fn release(&mut self, limits: &PlanLimits, now: Seconds) {
        let mut of_claimant: BTreeMap<Claimant, Vec<(usize, usize)>> = BTreeMap::new();
        for (index, entry) in self.entries.iter().enumerate() {
            for (place, claim) in entry.claims.iter().enumerate() {
                let limits = limits.of(claim.claimant);
                if claim.claimant.is_for_verdicts() || limits != ClaimantLimits::default() {
                    of_claimant
                        .entry(claim.claimant)
                        .or_default()
                        .push((index, place));
                }
            }
        }
        for claims in of_claimant.values_mut() {
            claims.sort_unstable_by_key(|&(index, place)| {
                let entry = &self.entries[index];
                (entry.claims[place].used, entry.order, entry.key)
            });
        }
        let (for_verdicts, others): (Vec<_>, Vec<_>) = of_claimant
            .into_iter()
            .partition(|(claimant, _)| claimant.is_for_verdicts());
        let level = self.level(&for_verdicts, limits, now);
        let mut beside: BTreeMap<Claimant, u64> = BTreeMap::new();
        // First, as it counts for tenants only for as long as verdicts keep it.
        for (claimant, claims) in for_verdicts {
            let own = limits.of(claimant);
            let max_bytes = own.max_bytes.into_iter().chain(level).min();
            let own = ClaimantLimits { max_bytes, ..own };
            self.release_of(claimant, (own, 0), &claims, now);
            let payer = claimant.payer();
            beside.insert(payer, self.bytes_beside(payer, &claims));
        }
        for (claimant, claims) in others {
            let beside = beside.get(&claimant).copied().unwrap_or(0);
            self.release_of(claimant, (limits.of(claimant), beside), &claims, now);
        }
    }

    /// What verdicts that were given to anybody may keep at most, if they keep too much together.
    fn level(
        &self,
        for_verdicts: &[(Claimant, Vec<(usize, usize)>)],
        limits: &PlanLimits,
        now: Seconds,
    ) -> Option<u64> {
        let oldest = limits.keep_verdicts.map(|age| now.saturating_sub(age));
        let amounts = for_verdicts.iter().map(|(_, claims)| {
            let used = |&&(index, place): &&(usize, usize)| self.entries[index].claims[place].used;
            let kept = claims
                .iter()
                .filter(|it| oldest.is_none_or(|oldest| used(it) >= oldest));
            kept.map(|&(index, _)| self.entries[index].size_bytes).sum()
        });
        fair_level(amounts.collect(), limits.max_verdict_bytes?)
    }

    /// Ends claims of one claimant, which are in the order of use; so many bytes count for it besides.
    fn release_of(
        &mut self,
        claimant: Claimant,
        (limits, beside): (ClaimantLimits, u64),
        claims: &[(usize, usize)],
        now: Seconds,
    ) {
        let own = claims
            .iter()
            .map(|&(index, _)| self.entries[index].size_bytes);
        let mut excess = Excess::of(own.sum::<u64>() + beside, limits.max_bytes);
        let oldest = limits.max_age.map(|age| now.saturating_sub(age));
        let too_much = match claimant.is_for_verdicts() {
            true => Reason::Verdicts,
            false => Reason::TenantSize,
        };
        for &(index, place) in claims {
            let entry = &self.entries[index];
            let used = entry.claims[place].used;
            let reason = match () {
                () if used >= self.kept_since => return,
                () if oldest.is_some_and(|oldest| used < oldest) => Reason::Age,
                () if excess.is_left() => too_much,
                () => return,
            };
            if !self.is_kept_beside(index, claimant) {
                excess.less(entry.size_bytes);
            }
            self.released.insert((index, place), reason);
        }
    }

    /// How much verdicts keep by these claims that who was given them does not use.
    fn bytes_beside(&self, payer: Claimant, claims: &[(usize, usize)]) -> u64 {
        let beside = claims.iter().filter(|&&(index, place)| {
            let mut all = self.entries[index].claims.iter();
            all.all(|claim| claim.claimant != payer) && !self.released.contains_key(&(index, place))
        });
        beside
            .map(|&(index, _)| self.entries[index].size_bytes)
            .sum()
    }

    /// Whether a verdict that was given to somebody keeps something beside the claim that this one may have.
    fn is_kept_beside(&self, index: usize, claimant: Claimant) -> bool {
        let keeper = claimant.for_verdicts();
        keeper != claimant && self.is_claimed(index, |it| it == keeper)
    }

    /// Whether a claim is left.
    fn is_claimed(&self, index: usize, by: impl Fn(Claimant) -> bool) -> bool {
        let claims = self.entries[index].claims.iter().enumerate();
        let mut places = claims.filter(|(_, claim)| by(claim.claimant));
        places.any(|(place, _)| !self.released.contains_key(&(index, place)))
    }

    fn evict_what_nobody_has(&mut self) {
        let mut left: BTreeMap<usize, (usize, Reason)> = BTreeMap::new();
        for (&(index, _), &reason) in &self.released {
            let (count, worst) = left.entry(index).or_insert((0, reason));
            *count += 1;
            *worst = reason.max(*worst);
        }
        let gone = left.into_iter();
        let gone = gone.filter(|(index, (count, _))| *count == self.entries[*index].claims.len());
        self.evicted
            .extend(gone.map(|(index, (_, reason))| (index, reason)));
    }

    /// Evicts what was used least recently by anybody until there is little enough of everything.
    fn evict_for_all(&mut self, limits: &PlanLimits) {
        let left = |index: &usize| !self.evicted.contains_key(index);
        let mut order: Vec<usize> = (0..self.entries.len()).filter(left).collect();
        let size_of = |index: &usize| self.entries[*index].size_bytes;
        let total_bytes: u64 = order.iter().map(size_of).sum();
        let freed_bytes: u64 = self.evicted.keys().map(size_of).sum();
        let mut excess = Excess::of(total_bytes, limits.max_bytes);
        let mut too_many = Excess::of(order.len() as u64, limits.max_entries);
        let mut lacking_bytes = limits.lacking_bytes.saturating_sub(freed_bytes);
        let is_kept = |index| self.is_claimed(index, Claimant::is_for_verdicts);
        order.sort_by_cached_key(|&index| {
            let entry = &self.entries[index];
            (is_kept(index), entry.last_used(), entry.order, entry.key)
        });
        let mut evicted = Vec::new();
        for index in order {
            let entry = &self.entries[index];
            let stays = entry.last_used() >= self.kept_since;
            if stays && is_kept(index) {
                continue;
            }
            let reason = match () {
                () if lacking_bytes > 0 => Reason::Disk,
                () if excess.is_left() => Reason::Size,
                () if too_many.is_left() => Reason::Count,
                () => break,
            };
            // What stays as it was used lately will go, and so what verdicts keep need not go for it.
            lacking_bytes = lacking_bytes.saturating_sub(entry.size_bytes);
            excess.less(entry.size_bytes);
            too_many.less(1);
            if !stays {
                evicted.push((index, reason));
            }
        }
        self.evicted.extend(evicted);
    }

    /// How many things verdicts keep no longer though their time is not over.
    fn unkept(&self) -> usize {
        let released = self.released.values();
        let released = released.filter(|reason| **reason == Reason::Verdicts);
        let evicted = self.evicted.keys();
        let evicted = evicted.filter(|index| self.is_claimed(**index, Claimant::is_for_verdicts));
        released.count() + evicted.count()
    }

    fn finish(self) -> Plan {
        let unkept = self.unkept();
        let stays = |index: &usize| !self.evicted.contains_key(index);
        let released = self.released.keys().filter(|(index, _)| stays(index));
        let released = released.map(|&(index, place)| {
            let entry = &self.entries[index];
            (entry.key, entry.claims[place])
        });
        let released = released.collect();
        let evicted = self.evicted.iter().map(|(&index, &reason)| {
            let entry = &self.entries[index];
            Eviction {
                key: entry.key,
                size_bytes: entry.size_bytes,
                last_used: entry.last_used(),
                reason,
            }
        });
        let mut evictions: Vec<Eviction> = evicted.collect();
        evictions.sort_unstable_by_key(|it| (it.key.kind, it.last_used, it.key));
        Plan {
            evictions,
            released,
            unkept,
        }
    }
}

/// How much too much there is, once there is.
struct Excess(u64);

impl Excess {
    /// Nothing as long as the limit is kept; else what it takes to keep it by the margin.
    fn of(total: u64, limit: Option<u64>) -> Self {
        let Some(limit) = limit.filter(|limit| total > *limit) else {
            return Self(0);
        };
        Self(total - (limit - limit / MARGIN_DIVISOR))
    }

    const fn is_left(&self) -> bool {
        self.0 > 0
    }

    const fn less(&mut self, amount: u64) {
        self.0 = self.0.saturating_sub(amount);
    }
}

/// The kinds of things in a plan, in their order.
pub(crate) fn kinds_of(evictions: &[Eviction]) -> BTreeSet<Kind> {
    evictions.iter().map(|eviction| eviction.key.kind).collect()
}

#[cfg(test)]
mod tests;
