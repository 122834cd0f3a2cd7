//! The fewest faults with which a seed fails.

use std::io;

use super::{Arguments, Told, finish, start};
use crate::plan::Plan;

/// Leaves out one fault after the other as long as the same invariant is broken all the same. What is told then,
/// and which are left out.
pub(super) fn shrink(arguments: &Arguments, seed: u64) -> io::Result<(Told, Vec<usize>)> {
    let play = |omitted: &[usize]| {
        let child = start(arguments, arguments.plant, omitted, seed)?;
        finish(seed, child)
    };
    let mut omitted = arguments.omit.clone();
    let mut told = play(&omitted)?;
    let faults = Plan::of_seed(seed, arguments.faults).faults.len();
    for place in (0..faults).filter(|place| !arguments.omit.contains(place)) {
        omitted.push(place);
        let without = play(&omitted)?;
        if !without.good && without.broken() == told.broken() {
            told = without;
        } else {
            omitted.pop();
        }
    }
    Ok((told, omitted))
}
