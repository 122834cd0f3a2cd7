//! What runs in one process with a test. Pure.

use std::time::Duration;

/// For how many tests that take all their time a process has time, at most.
const MOST_SHARES: usize = 64;

/// Other tests that a test's process runs; none of most.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Company {
    /// Those that it depends on, and what they need: one of them that fails does so for itself alone.
    pub(super) companions: Vec<String>,
    /// How many its own fixtures are made of: it does not run without what sets them up.
    pub(super) fixtures: usize,
}

impl Company {
    /// How many they are.
    pub(super) fn others(&self) -> usize {
        self.companions.len() + self.fixtures
    }

    /// How long the process may take if each of its tests may take so long. Tests with much the same company have the
    /// same time, so that they run in common batches; and the runner has some for itself, so that it ends a test that
    /// takes too long before it is ended itself. However many they are, a slot is not held for longer than for
    /// [`MOST_SHARES`] of them.
    pub(super) fn time_limit(&self, of_each: Duration) -> Duration {
        match self.others() {
            0 => of_each,
            others => {
                let shares = others
                    .saturating_add(2)
                    .min(MOST_SHARES)
                    .next_power_of_two();
                of_each.saturating_mul(u32::try_from(shares).unwrap_or(u32::MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_of_a_process_has_its_own_time() {
        let check = |companions: usize, fixtures: usize, shares: u32| {
            let company = Company {
                companions: vec![String::new(); companions],
                fixtures,
            };
            let of_each = Duration::from_secs(5);
            assert_eq!(company.time_limit(of_each), of_each * shares);
        };
        check(0, 0, 1);
        check(1, 0, 4);
        check(1, 1, 4);
        check(2, 1, 8);
        check(900, 0, 64);
    }
}
