//! How long tests are expected to take. Pure.
//!
//! A test that has not run yet is taken to last as long as its neighbours do: those that share most of its
//! name. Their median counts, so that one slow neighbour does not make all that is new seem slow.

use std::collections::BTreeMap;
use std::time::Duration;

use regatta_ledger::{KnownTest, Timing};

/// What joins the parts of a test's name: modules, classes, files, parameters.
const SEPARATORS: [char; 5] = [':', '.', '/', '#', '['];
/// By how many spreads a test may exceed what is expected of it before it is late,
const LATE_SPREADS: u32 = 4;
/// and how many times what is expected it may take in any case.
const LATE_FACTOR: u32 = 2;

/// Where an expectation comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Source {
    /// The test itself has run.
    History,
    /// Tests of its module, class or file have.
    Neighbours,
    /// Other tests of its suite have.
    Suite,
    /// Nothing is known of the suite.
    Nothing,
}

/// How long a test is expected to take, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Estimate {
    pub(super) timing: Timing,
    pub(super) source: Source,
}

impl Estimate {
    /// Whether it is what any test is taken to last, for nothing like this one has been measured.
    pub(super) fn is_guess(&self) -> bool {
        self.source == Source::Nothing
    }

    /// How long the test takes at most if nothing is amiss; `None` if it has never been measured.
    ///
    /// Four times its spread beyond what is expected, as TCP waits for an answer (RFC 6298), and at least twice
    /// what is expected: a machine that is a little slower than usual is not amiss.
    pub(super) fn late_after(&self) -> Option<Duration> {
        let Timing { expected, spread } = self.timing;
        let by_spread = expected.saturating_add(spread.saturating_mul(LATE_SPREADS));
        let at_least = expected.saturating_mul(LATE_FACTOR);
        (self.source == Source::History).then(|| by_spread.max(at_least))
    }
}

/// What is known of the tests of a suite.
#[derive(Debug)]
pub(super) struct Estimates<'a> {
    known: BTreeMap<&'a str, &'a KnownTest>,
    /// The medians of those whose names begin so; of all of them under the empty name.
    medians: BTreeMap<&'a str, Duration>,
    /// What is expected if nothing is known of a test or its neighbours.
    usual: Duration,
}

impl<'a> Estimates<'a> {
    /// Learns from the tests that the suite still has, whose ids are `wanted`.
    pub(super) fn new(
        known: &'a [KnownTest],
        usual: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Self {
        let mut expected: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
        for test in known.iter().filter(|test| wanted(&test.test)) {
            for prefix in prefixes(&test.test) {
                let there = expected.entry(prefix).or_default();
                there.push(test.timing.expected);
            }
        }
        Self {
            usual,
            known: known
                .iter()
                .map(|test| (test.test.as_str(), test))
                .collect(),
            medians: expected
                .into_iter()
                .filter_map(|(prefix, times)| Some((prefix, median(times)?)))
                .collect(),
        }
    }

    /// What earlier runs teach of the test itself.
    pub(super) fn known(&self, id: &str) -> Option<&'a KnownTest> {
        self.known.get(id).copied()
    }

    pub(super) fn of(&self, id: &str) -> Estimate {
        if let Some(known) = self.known(id) {
            return Estimate {
                timing: known.timing,
                source: Source::History,
            };
        }
        let nearest = prefixes(id).find_map(|prefix| Some((prefix, self.medians.get(prefix)?)));
        let (expected, source) = match nearest {
            Some(("", expected)) => (*expected, Source::Suite),
            Some((_, expected)) => (*expected, Source::Neighbours),
            None => (self.usual, Source::Nothing),
        };
        Estimate {
            timing: Timing::begin(expected),
            source,
        }
    }
}

/// What a name and its neighbours' may begin with, the longest first, and nothing at last.
fn prefixes(id: &str) -> impl Iterator<Item = &str> {
    let ends = id.char_indices().rev();
    let ends = ends.filter(|(_, character)| SEPARATORS.contains(character));
    let prefixes = ends.map(|(end, _)| &id[..end]);
    // Two colons are one separator.
    let prefixes = prefixes.filter(|prefix| !prefix.is_empty() && !prefix.ends_with(':'));
    prefixes.chain([""])
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(known: &[(&str, u64)], id: &str, expected_ms: u128, source: Source) {
        let test = |(id, millis): &(&str, u64)| KnownTest {
            test: (*id).to_owned(),
            timing: Timing::begin(Duration::from_millis(*millis)),
            last_failure: None,
            last_key: None,
            last_input_root: None,
            last_failed_key: None,
        };
        let known: Vec<_> = known.iter().map(test).collect();
        let estimate = Estimates::new(&known, Duration::from_millis(100), |id| id != "gone").of(id);
        let found = (estimate.timing.expected.as_millis(), estimate.source);
        assert_eq!(estimate.is_guess(), source == Source::Nothing, "{id}");
        assert_eq!(found, (expected_ms, source), "{id}");
    }

    #[test]
    fn what_was_measured_is_late_by_its_spread() {
        let late_after = |expected, spread, source| {
            let timing = Timing {
                expected: Duration::from_millis(expected),
                spread: Duration::from_millis(spread),
            };
            let late = Estimate { timing, source }.late_after();
            late.map(|late| late.as_millis())
        };
        assert_eq!(late_after(100, 50, Source::History), Some(300));
        assert_eq!(late_after(100, 1, Source::History), Some(200));
        assert_eq!(late_after(0, 0, Source::History), Some(0));
        for source in [Source::Neighbours, Source::Suite, Source::Nothing] {
            assert_eq!(late_after(100, 1, source), None);
        }
    }

    #[test]
    fn a_test_that_ran_is_known_and_others_are_like_their_neighbours() {
        let known = [
            ("a::b::one", 10),
            ("a::b::two", 20),
            ("a::b::three", 9000),
            ("a::c", 500),
            ("t/x.py::test[1]", 70),
            ("gone", 77_777),
        ];
        check(&known, "a::c", 500, Source::History);
        check(&known, "a::b::new", 20, Source::Neighbours);
        check(&known, "a::new", 500, Source::Neighbours);
        check(&known, "t/x.py::test[2]", 70, Source::Neighbours);
        check(&known, "t/x.py::other", 70, Source::Neighbours);
        check(&known, "t/y.py::other", 70, Source::Neighbours);
        check(&known, "z", 70, Source::Suite);
        check(&[], "a::b", 100, Source::Nothing);
        check(&[("gone", 5)], "::", 100, Source::Nothing);
    }
}
