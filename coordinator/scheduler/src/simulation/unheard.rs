//! What has ended and the scheduler does not know of yet.

use std::collections::BTreeSet;
use std::time::Duration;

use regatta_model::{LeaseId, Timestamp};

/// When there was something that the scheduler did not know of.
#[derive(Debug, Default)]
pub(crate) struct Unheard {
    /// Leases that have ended at their machines, and of which no report has come.
    leases: BTreeSet<LeaseId>,
    /// Since when there are any.
    since: Option<Timestamp>,
    /// From when until when there were any before.
    spans: Vec<(Timestamp, Timestamp)>,
}

impl Unheard {
    /// A lease has ended.
    pub(crate) fn ends(&mut self, now: Timestamp, lease: LeaseId) {
        self.leases.insert(lease);
        self.since.get_or_insert(now);
    }

    /// The scheduler hears of that, or never will.
    pub(crate) fn hears(&mut self, now: Timestamp, leases: impl Iterator<Item = LeaseId>) {
        leases.for_each(|lease| {
            self.leases.remove(&lease);
        });
        if self.leases.is_empty()
            && let Some(since) = self.since.take()
        {
            self.spans.push((since, now));
        }
    }

    /// How much of some time there was something.
    pub(crate) fn within(&self, from: Timestamp, until: Timestamp) -> Duration {
        let first = self.spans.partition_point(|(_, end)| *end <= from);
        let spans = self.spans[first..].iter().copied();
        let open = self.since.map(|since| (since, until));
        let spans = spans.take_while(|(begin, _)| *begin < until).chain(open);
        let parts = spans.map(|(begin, end)| end.min(until).since(begin.max(from)));
        parts.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_counts_once_and_what_is_outside_not_at_all() {
        let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
        let mut unheard = Unheard::default();
        let hears = |unheard: &mut Unheard, now, leases: &[u64]| {
            unheard.hears(at(now), leases.iter().map(|id| LeaseId(*id)));
        };
        unheard.ends(at(10), LeaseId(1));
        unheard.ends(at(12), LeaseId(2));
        hears(&mut unheard, 13, &[1, 7]);
        hears(&mut unheard, 15, &[1, 2]);
        unheard.ends(at(20), LeaseId(3));
        hears(&mut unheard, 20, &[3]);
        unheard.ends(at(30), LeaseId(4));
        let within = |from, until| unheard.within(at(from), at(until)).as_secs();
        assert_eq!(within(0, 40), 15);
        assert_eq!(within(11, 14), 3);
        assert_eq!((within(15, 30), within(0, 10)), (0, 0));
    }
}
