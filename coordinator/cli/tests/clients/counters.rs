//! What a coordinator counts, read from its metrics.

use super::fleet::Fleet;

/// What a coordinator has counted up to some moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    /// Work given to agents: what really ran.
    pub(crate) leases: u64,
    /// Look-ups in the action cache that found something.
    pub(crate) hits: u64,
}

impl Counters {
    pub(crate) fn of(fleet: &Fleet) -> Self {
        let (status, text) = fleet.page("/metrics");
        assert_eq!(status, 200, "{text}");
        Self {
            leases: counter(&text, "regatta_leases_granted_total"),
            hits: counter(&text, "regatta_action_cache_hits_total"),
        }
    }

    /// What was counted since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            leases: self.leases - earlier.leases,
            hits: self.hits - earlier.hits,
        }
    }
}

/// A counter's value; what was never counted is not on the page.
fn counter(text: &str, name: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter(|(it, _)| *it == name)
        .map(|(_, value)| value.trim().parse::<u64>().expect(value))
        .sum()
}
