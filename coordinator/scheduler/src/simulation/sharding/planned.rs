//! Splitting ahead: every slot is given its share at the start, as one batch.

use std::cmp::Reverse;
use std::time::Duration;

use super::race::{Played, Race, RacingMachine};

/// The tests of each slot.
pub(super) type Shares = Vec<Vec<usize>>;

/// Runs each share on its slot. An empty one costs nothing.
pub(super) fn play(race: &Race, shares: Shares) -> Result<Played, String> {
    let slots = slots(race);
    if slots.len() != shares.len() || slots.is_empty() {
        return Err("there is no slot to run the tests on".to_owned());
    }
    let shares = slots.iter().zip(&shares);
    let busy = shares.filter(|(_, share)| !share.is_empty());
    let ends = busy.map(|(machine, share)| {
        let work: Duration = share.iter().map(|test| race.tests[*test].takes).sum();
        machine.end_of(machine.joins_after, race.overhead + work)
    });
    let ends: Vec<_> = ends.collect();
    Ok(Played {
        makespan: ends.iter().max().copied().unwrap_or_default(),
        first_answered: None,
        batches: ends.len(),
    })
}

/// The machine of every slot.
fn slots(race: &Race) -> Vec<&RacingMachine> {
    let machines = race.machines.iter();
    machines
        .flat_map(|machine| (0..machine.slots).map(move |_| machine))
        .collect()
}

/// Planners know how long tests are expected to take, and neither how fast machines are nor when they come.
pub(super) fn longest_first(race: &Race) -> Shares {
    let mut tests: Vec<_> = (0..race.tests.len()).collect();
    tests.sort_by_key(|test| (Reverse(race.tests[*test].expected), *test));
    let mut shares = vec![(Duration::ZERO, Vec::new()); slots(race).len()];
    for test in tests {
        if let Some((length, share)) = shares.iter_mut().min_by_key(|(length, _)| *length) {
            *length += race.tests[test].expected;
            share.push(test);
        }
    }
    shares.into_iter().map(|(_, share)| share).collect()
}

pub(super) fn round_robin(race: &Race) -> Shares {
    by_slot(race, |test, slots| test % slots)
}

pub(super) fn hash(race: &Race) -> Shares {
    by_slot(race, |test, slots| {
        let hash = fnv1a(race.tests[test].name.as_bytes());
        usize::try_from(hash % u64::try_from(slots).unwrap_or(1)).unwrap_or_default()
    })
}

fn by_slot(race: &Race, slot_of: impl Fn(usize, usize) -> usize) -> Shares {
    let mut shares = vec![Vec::new(); slots(race).len()];
    let count = shares.len();
    for test in (0..race.tests.len()).filter(|_| count > 0) {
        shares[slot_of(test, count)].push(test);
    }
    shares
}

/// FNV-1a (Fowler, Noll and Vo).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
