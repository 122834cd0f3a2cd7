//! Cutting batches: guided self-scheduling, longest first.
//!
//! Each slot that asks takes a share of the work left (Polychronopoulos and Kuck, 1987), so batches
//! shrink as the work does and the last ones are short enough for all slots to end together. What is under
//! way counts as work left (factoring: Hummel, Schonberg and Flynn, 1992), so that a slot which is early does
//! not take too little. Units go longest first (Graham, 1969), so that nothing long is left for the end, but for
//! those whose answers are wanted first: they are cut as if there were no others.
//!
//! A share in time is worth nothing where times are guesses. What nobody has measured is divided by number: where a
//! batch is dear, among the slots that have none of it, so that no slot idles beside a batch that turns out to be long;
//! where it costs little, among all slots, whoever asks, and what is left is for those that turn out to be early.
//!
//! How near this comes to the shortest time possible is measured in [`crate::simulation::sharding`].

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use regatta_model::UnitIndex;

use crate::{ExpectedUnit, SchedulerConfig};

/// Units of which nothing is known are taken to last this long, so that each counts for something.
const SHORTEST_UNIT: Duration = Duration::from_millis(1);

/// A duration in whole nanoseconds, at most the greatest number there is.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Which of a task's units goes next: one that is wanted first, and then the longest.
pub(crate) type UnitRank = (bool, u64);

/// A unit that waits. The greatest goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct WaitingUnit {
    rank: UnitRank,
    unit: Reverse<UnitIndex>,
    /// Whether its length is a guess.
    guessed: bool,
}

/// The waiting units of one task, in the order of their ranks.
#[derive(Debug, Default)]
pub(crate) struct WaitingUnits {
    heap: BinaryHeap<WaitingUnit>,
    /// How many of them have guessed lengths.
    guessed: usize,
    total_nanos: u64,
    /// Of those that are wanted first.
    first_nanos: u64,
}

impl WaitingUnits {
    pub(crate) fn new(units: &[ExpectedUnit]) -> Self {
        let mut waiting = Self {
            heap: BinaryHeap::with_capacity(units.len()),
            guessed: 0,
            total_nanos: 0,
            first_nanos: 0,
        };
        for (unit, index) in units.iter().zip(0..) {
            let rank = (unit.first, expected_nanos(unit.expected));
            waiting.push(UnitIndex(index), rank, unit.guessed);
        }
        waiting
    }

    pub(crate) fn push(&mut self, unit: UnitIndex, rank: UnitRank, guessed: bool) {
        let (first, expected_nanos) = rank;
        self.heap.push(WaitingUnit {
            rank,
            unit: Reverse(unit),
            guessed,
        });
        self.guessed += usize::from(guessed);
        self.total_nanos = self.total_nanos.saturating_add(expected_nanos);
        if first {
            self.first_nanos = self.first_nanos.saturating_add(expected_nanos);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The rank of the unit that goes next; the least if there is none.
    pub(crate) fn next_rank(&self) -> UnitRank {
        self.heap.peek().map_or((false, 0), |next| next.rank)
    }

    pub(crate) fn clear(&mut self) -> Vec<UnitIndex> {
        let all = std::mem::take(self).heap.into_iter();
        let mut units: Vec<_> = all.map(|waiting| waiting.unit.0).collect();
        units.sort_unstable();
        units
    }

    /// Takes some out, wherever they are; returns those that were there.
    pub(crate) fn take(&mut self, units: &BTreeSet<UnitIndex>) -> Vec<UnitIndex> {
        let all = std::mem::take(self).heap;
        let mut taken = Vec::new();
        for waiting in all {
            let Reverse(unit) = waiting.unit;
            if units.contains(&unit) {
                taken.push(unit);
            } else {
                self.push(unit, waiting.rank, waiting.guessed);
            }
        }
        taken
    }

    fn pop(&mut self) -> Option<WaitingUnit> {
        let next = self.heap.pop()?;
        let (first, expected) = next.rank;
        self.guessed -= usize::from(next.guessed);
        self.total_nanos = self.total_nanos.saturating_sub(expected);
        if first {
            self.first_nanos = self.first_nanos.saturating_sub(expected);
        }
        Some(next)
    }

    /// Takes the next batch out: its units in the order to run them, and their expected nanoseconds.
    ///
    /// A unit for which `alone` holds shares its batch with no other, and one that is wanted first with none that
    /// is not.
    pub(crate) fn cut(
        &mut self,
        rule: &BatchRule,
        alone: impl Fn(UnitIndex) -> bool,
    ) -> (Vec<UnitIndex>, u64) {
        let (wanted_first, _) = self.next_rank();
        let target = rule.target_nanos(match wanted_first {
            true => self.first_nanos,
            false => self.total_nanos,
        });
        let most_guessed = rule.most_guessed(self.guessed);
        let Some(begin) = self.pop() else {
            return (Vec::new(), 0);
        };
        let (Reverse(begin), (_, mut length), mut guessed) =
            (begin.unit, begin.rank, usize::from(begin.guessed));
        let mut units = vec![begin];
        while !alone(begin) && units.len() < rule.max_units {
            let next = self.heap.peek();
            let fits = next.is_some_and(|next| {
                let (first, expected) = next.rank;
                let is_short = length.saturating_add(expected) <= target;
                let is_spread = next.guessed && guessed >= most_guessed;
                is_short && !is_spread && first == wanted_first && !alone(next.unit.0)
            });
            let Some(next) = fits.then(|| self.pop()).flatten() else {
                break;
            };
            let (_, expected) = next.rank;
            length = length.saturating_add(expected);
            guessed += usize::from(next.guessed);
            units.push(next.unit.0);
        }
        (units, length)
    }
}

/// How long a unit is expected to take, for arithmetic.
pub(crate) fn expected_nanos(expected: Duration) -> u64 {
    nanos(expected.max(SHORTEST_UNIT))
}

/// What decides the length of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchRule {
    slots: u64,
    /// How many of them have no batch.
    idle_slots: u64,
    share_percent: u64,
    shortest_nanos: u64,
    /// What is worth its overhead while there is other work.
    floor_nanos: u64,
    ceiling_nanos: u64,
    max_units: usize,
    /// Whether starting a batch costs so little that a second round of them is worth it whatever lengths turn out to be.
    is_cheap: bool,
    /// What is expected to be left of the batches that run.
    running_nanos: u64,
}

/// The batches of a task that run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Running {
    /// How many.
    pub(crate) batches: usize,
    /// What is expected to be left of them, in nanoseconds of a slot.
    pub(crate) nanos: u64,
}

impl BatchRule {
    pub(crate) fn new(
        config: &SchedulerConfig,
        slots: u64,
        overhead: Duration,
        running: Running,
    ) -> Self {
        let busy = u64::try_from(running.batches).unwrap_or(u64::MAX);
        let paid = overhead.saturating_mul(config.overhead_factor);
        let amortised = overhead.saturating_mul(config.amortised_factor);
        let shortest = config.minimum_batch.max(overhead);
        Self {
            slots: slots.max(1),
            idle_slots: slots.saturating_sub(busy).max(1),
            share_percent: u64::from(config.share_percent.clamp(1, 100)),
            shortest_nanos: nanos(shortest),
            floor_nanos: nanos(config.minimum_batch.max(paid)),
            ceiling_nanos: nanos(amortised),
            max_units: config.max_batch_units.max(1),
            is_cheap: overhead <= config.minimum_batch,
            running_nanos: running.nanos,
        }
    }

    /// How many of so many waiting units with guessed lengths a batch has at most: as many as go to each slot if those
    /// that have no batch take as many each, or if all do; at least one.
    fn most_guessed(&self, units: usize) -> usize {
        let slots = match self.is_cheap {
            true => self.slots,
            false => self.idle_slots,
        };
        let slots = usize::try_from(slots).unwrap_or(usize::MAX);
        units.div_ceil(slots).max(1)
    }

    /// How long a batch should be with so much waiting.
    ///
    /// If all slots end together, each still works for `even`. A batch takes a share of it, so that there are
    /// others to make up for what turns out to last longer. Once that share is not worth its overhead, what is
    /// left is divided evenly.
    fn target_nanos(&self, waiting_nanos: u64) -> u64 {
        let even = waiting_nanos.saturating_add(self.running_nanos) / self.slots;
        let share = even / 100 * self.share_percent;
        let target = if share >= self.floor_nanos {
            share
        } else {
            even.min(self.floor_nanos)
        };
        target.min(self.ceiling_nanos).max(self.shortest_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts everything for two slots, half of their share at a time; units in milliseconds.
    #[track_caller]
    fn check(units_ms: &[u64], overhead_ms: u64, running_ms: u64, expected: &[&[u32]]) {
        let units: Vec<_> = units_ms
            .iter()
            .copied()
            .map(|millis| Duration::from_millis(millis).into())
            .collect();
        let config = SchedulerConfig {
            share_percent: 50,
            minimum_batch: Duration::from_millis(10),
            overhead_factor: 4,
            amortised_factor: 100,
            max_batch_units: 4,
            ..SchedulerConfig::default()
        };
        let overhead = Duration::from_millis(overhead_ms);
        let running = Running {
            nanos: running_ms * 1_000_000,
            ..Running::default()
        };
        let rule = BatchRule::new(&config, 2, overhead, running);
        let mut waiting = WaitingUnits::new(&units);
        let mut batches = Vec::new();
        while !waiting.is_empty() {
            let (batch, _) = waiting.cut(&rule, |_| false);
            batches.push(batch.iter().map(|unit| unit.0).collect::<Vec<_>>());
        }
        assert_eq!(batches, expected);
    }

    #[test]
    fn batches_are_a_share_of_what_is_left_longest_first() {
        check(&[100], 1, 0, &[&[0]]);
        check(&[10, 400, 20], 5, 0, &[&[1], &[2], &[0]]);
        let rest: &[&[u32]] = &[&[0, 1], &[2], &[3], &[4], &[5], &[6], &[7]];
        check(&[40; 8], 1, 0, rest);
    }

    #[test]
    fn what_runs_is_left_too() {
        check(&[40; 4], 1, 0, &[&[0], &[1], &[2], &[3]]);
        check(&[40; 4], 1, 160, &[&[0, 1], &[2], &[3]]);
    }

    #[test]
    fn the_last_are_divided_evenly_rather_than_paid_for() {
        check(&[40; 4], 20, 0, &[&[0, 1], &[2], &[3]]);
        check(&[40; 4], 1000, 0, &[&[0, 1, 2, 3]]);
    }

    #[test]
    fn no_batch_is_longer_than_saves_anything_nor_wider_than_its_bound() {
        check(&[60; 4], 1, 10_000, &[&[0], &[1], &[2], &[3]]);
        check(&[40; 4], 1, 10_000, &[&[0, 1], &[2, 3]]);
        check(&[1; 6], 1000, 0, &[&[0, 1, 2, 3], &[4, 5]]);
        check(&[0, 0], 0, 0, &[&[0, 1]]);
        check(&[40, 40], 0, 0, &[&[0], &[1]]);
    }

    #[test]
    fn what_is_wanted_first_is_divided_first_and_shares_no_batch_with_the_rest() {
        let unit = |(millis, first)| ExpectedUnit {
            first,
            ..Duration::from_millis(millis).into()
        };
        let units = [
            (900, false),
            (20, true),
            (30, true),
            (800, false),
            (5, true),
        ]
        .map(unit);
        let rule = BatchRule::new(
            &SchedulerConfig::default(),
            2,
            Duration::ZERO,
            Running::default(),
        );
        let rule = BatchRule {
            shortest_nanos: 30_000_000,
            floor_nanos: 30_000_000,
            ceiling_nanos: 1_000_000_000,
            ..rule
        };
        let mut waiting = WaitingUnits::new(&units);
        let mut batches = Vec::new();
        while !waiting.is_empty() {
            let (batch, _) = waiting.cut(&rule, |_| false);
            batches.push(batch.iter().map(|unit| unit.0).collect::<Vec<_>>());
        }
        let expected: &[&[u32]] = &[&[2], &[1, 4], &[0], &[3]];
        assert_eq!(batches, expected);
        assert_eq!((waiting.total_nanos, waiting.first_nanos), (0, 0));
    }

    #[test]
    fn what_nobody_has_measured_is_divided_by_number() {
        let check = |overhead_ms: u64,
                     (measured, guessed): (usize, usize),
                     busy: usize,
                     expected: &[usize]| {
            let unit = |position: usize| ExpectedUnit {
                guessed: position >= measured,
                ..Duration::from_millis(20).into()
            };
            let units: Vec<_> = (0..measured + guessed).map(unit).collect();
            let mut waiting = WaitingUnits::new(&units);
            let mut batches = Vec::new();
            while !waiting.is_empty() {
                let running = Running {
                    batches: busy + batches.len(),
                    nanos: 0,
                };
                let (config, overhead) = (
                    SchedulerConfig::default(),
                    Duration::from_millis(overhead_ms),
                );
                let rule = BatchRule::new(&config, 4, overhead, running);
                batches.push(waiting.cut(&rule, |_| false).0.len());
            }
            assert_eq!(batches, expected, "{measured} and {guessed}, {busy} busy");
            assert_eq!(waiting.guessed, 0);
        };
        // Among idle slots,
        check(500, (0, 9), 0, &[3, 2, 2, 2]);
        check(500, (0, 3), 0, &[1, 1, 1]);
        check(500, (0, 9), 3, &[9]);
        check(500, (0, 40), 9, &[25, 15]);
        check(500, (9, 0), 0, &[9]);
        check(500, (6, 4), 0, &[7, 1, 1, 1]);
        // or in rounds.
        check(50, (0, 9), 0, &[3, 2, 1, 1, 1, 1]);
        check(50, (0, 3), 0, &[1, 1, 1]);
        check(50, (0, 20), 3, &[5, 4, 3, 2, 2, 1, 1, 1, 1]);
    }

    #[test]
    fn a_unit_on_its_last_attempt_runs_alone() {
        let units = [Duration::from_millis(5).into(); 4];
        let rule = BatchRule::new(
            &SchedulerConfig::default(),
            1,
            Duration::ZERO,
            Running::default(),
        );
        let mut waiting = WaitingUnits::new(&units);
        let alone = |unit| unit == UnitIndex(1);
        let mut cut = || waiting.cut(&rule, alone).0;
        assert_eq!(cut(), [UnitIndex(0)]);
        assert_eq!(cut(), [UnitIndex(1)]);
        assert_eq!(cut(), [UnitIndex(2), UnitIndex(3)]);
        assert_eq!(cut(), []);
    }
}
