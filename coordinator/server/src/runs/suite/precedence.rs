//! Which tests run first, so that a failure is known soon. Pure.
//!
//! The shortest suite runs its longest tests first. Tests that may well fail go before them as long as they are a
//! small part of the work, so that the whole takes hardly longer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regatta_ledger::KnownTest;
use regatta_model::{Digest, Timestamp};

use super::Test;
use super::naming::NamedPaths;

/// How long a failure is remembered: a test that has passed since may fail again for a while.
const RECENT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many of a hundred parts of the expected work may go first.
const MOST_PERCENT: u32 = 10;
/// With how many earlier inputs those of now are compared, those first that most tests ran with last.
const MAX_EARLIER: usize = 4;

/// Why a test may fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Suspicion {
    /// When it did not pass at once, last.
    last_failure: Option<Timestamp>,
    /// Whether it had the key then that it has now.
    has_failed_so: bool,
    change: Change,
}

/// Whether what a test depends on is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Nothing,
    /// Its key is another than when it ran last, with the inputs that have this root if it is known.
    Since(Option<Digest>),
    /// It has not run yet.
    New,
}

impl Suspicion {
    /// What earlier runs, if any, make one suspect of a test that has this key now.
    pub(super) fn of(known: Option<&KnownTest>, key: Digest) -> Self {
        let change = match known {
            Some(known) if known.last_key.is_none_or(|last| last == key) => Change::Nothing,
            Some(known) => Change::Since(known.last_input_root),
            None => Change::New,
        };
        Self {
            last_failure: known.and_then(|known| known.last_failure),
            has_failed_so: known.is_some_and(|known| known.last_failed_key == Some(key)),
            change,
        }
    }

    /// Whether it failed lately though nothing that it depends on was another than it is now: then a pass says little
    /// of the next one, and is neither believed from the cache nor put there (ADR 50).
    pub(super) fn is_distrusted(&self, now: Timestamp) -> bool {
        self.has_failed_so && self.failed_lately(now).is_some()
    }

    /// When it failed, if that was lately.
    fn failed_lately(&self, now: Timestamp) -> Option<Timestamp> {
        self.last_failure
            .filter(|failure| now.since(*failure) <= RECENT)
    }
}

/// Which files are not what they were, by the root of the inputs that they were in then.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ChangedInputs {
    pub(super) since: BTreeMap<Digest, NamedPaths>,
}

impl ChangedInputs {
    /// Whether a test is new, or its id names a file that has changed since it ran last.
    fn concern(&self, test: &Candidate<'_>) -> bool {
        match test.suspicion.change {
            // Without a word on the files it is no more suspect than the others.
            Change::New => !self.since.is_empty(),
            Change::Since(Some(root)) => {
                let changed = self.since.get(&root);
                changed.is_some_and(|paths| paths.are_named_by(test.id))
            }
            Change::Since(None) | Change::Nothing => false,
        }
    }
}

/// A test that may go first.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    id: &'a str,
    suspicion: Suspicion,
    expected: Duration,
}

impl<'a> From<&'a Test> for Candidate<'a> {
    fn from(test: &'a Test) -> Self {
        Self {
            id: &test.id,
            suspicion: test.suspicion,
            expected: test.estimate.timing.expected,
        }
    }
}

/// The roots of the inputs with which those of now are to be compared: none if the order does not depend on it.
pub(super) fn earlier_inputs<'test>(
    tests: impl Iterator<Item = &'test Test>,
    now: Timestamp,
) -> Vec<Digest> {
    to_compare(&tests.map(Candidate::from).collect::<Vec<_>>(), now)
}

fn to_compare(tests: &[Candidate<'_>], now: Timestamp) -> Vec<Digest> {
    let Suspects { changed, .. } = Suspects::among(tests, now);
    if tests.len() < 2 || !tell_nothing(&changed, tests) {
        return Vec::new();
    }
    let mut counts: BTreeMap<Digest, usize> = BTreeMap::new();
    for position in changed {
        if let Change::Since(Some(root)) = tests[position].suspicion.change {
            *counts.entry(root).or_default() += 1;
        }
    }
    let mut roots: Vec<_> = counts.into_iter().collect();
    roots.sort_by_key(|(root, count)| (Reverse(*count), *root));
    let roots = roots.into_iter().map(|(root, _)| root);
    roots.take(MAX_EARLIER).collect()
}

/// The positions of the tests that go first: those that failed last, then those that changed, the shortest first.
pub(super) fn first<'test>(
    tests: impl Iterator<Item = &'test Test>,
    inputs: &ChangedInputs,
    now: Timestamp,
) -> BTreeSet<usize> {
    choose(&tests.map(Candidate::from).collect::<Vec<_>>(), inputs, now)
}

fn choose(tests: &[Candidate<'_>], inputs: &ChangedInputs, now: Timestamp) -> BTreeSet<usize> {
    let Suspects {
        failed,
        mut changed,
    } = Suspects::among(tests, now);
    if tell_nothing(&changed, tests) {
        changed.retain(|position| inputs.concern(&tests[*position]));
    }
    if tell_nothing(&changed, tests) {
        changed.clear();
    }
    changed.sort_unstable_by_key(|position| (tests[*position].expected, *position));
    let work: Duration = tests.iter().map(|test| test.expected).sum();
    let mut left = work * MOST_PERCENT / 100;
    let mut first = BTreeSet::new();
    for (rank, position) in failed.into_iter().chain(changed).enumerate() {
        let expected = tests[position].expected;
        // The most suspicious of all goes first, however long it takes.
        if expected <= left || rank == 0 {
            left = left.saturating_sub(expected);
            first.insert(position);
        }
    }
    first
}

/// If most tests have changed, as when all depend on each file, that tells nothing of any.
const fn tell_nothing(changed: &[usize], tests: &[Candidate<'_>]) -> bool {
    changed.len() * 2 > tests.len()
}

/// The positions of tests that may well fail.
struct Suspects {
    /// Those that failed lately, the last one first.
    failed: Vec<usize>,
    /// Those of the others that have changed, in no order.
    changed: Vec<usize>,
}

impl Suspects {
    fn among(tests: &[Candidate<'_>], now: Timestamp) -> Self {
        let (mut failed, mut changed) = (Vec::new(), Vec::new());
        for (position, test) in tests.iter().enumerate() {
            match test.suspicion.failed_lately(now) {
                Some(failure) => failed.push((Reverse(failure), test.expected, position)),
                None if test.suspicion.change != Change::Nothing => changed.push(position),
                None => {}
            }
        }
        failed.sort_unstable();
        let failed = failed.into_iter().map(|(_, _, position)| position);
        Self {
            failed: failed.collect(),
            changed,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);
    const DAY: u64 = 24 * 3600 * 1_000_000_000;

    fn failed(days_ago: u64) -> Suspicion {
        Suspicion {
            last_failure: Some(Timestamp::from_nanos(NOW.as_nanos() - days_ago * DAY)),
            has_failed_so: false,
            change: Change::Nothing,
        }
    }

    const fn suspicion(change: Change) -> Suspicion {
        Suspicion {
            last_failure: None,
            has_failed_so: false,
            change,
        }
    }

    const NEW: Suspicion = suspicion(Change::New);
    const CHANGED: Suspicion = suspicion(Change::Since(None));
    const GOOD: Suspicion = suspicion(Change::Nothing);

    fn since(inputs: &str) -> Suspicion {
        suspicion(Change::Since(Some(Digest::of(inputs.as_bytes()))))
    }

    const fn candidate(id: &str, suspicion: Suspicion, millis: u64) -> Candidate<'_> {
        Candidate {
            id,
            suspicion,
            expected: Duration::from_millis(millis),
        }
    }

    fn inputs(changed: &[(&str, &[&str])]) -> ChangedInputs {
        let since = changed.iter().map(|(root, paths)| {
            let paths = NamedPaths::new(paths.iter().copied(), "");
            (Digest::of(root.as_bytes()), paths)
        });
        ChangedInputs {
            since: since.collect(),
        }
    }

    #[track_caller]
    fn check(tests: &[(Suspicion, u64)], expected: &[usize]) {
        let tests = tests.iter();
        let tests: Vec<_> = tests
            .map(|(suspicion, millis)| candidate("a.py::test", *suspicion, *millis))
            .collect();
        let first = choose(&tests, &ChangedInputs::default(), NOW);
        assert_eq!(first.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_failed_lately_goes_first_then_what_changed_within_a_tenth_of_the_work() {
        check(&[], &[]);
        check(&[(GOOD, 10), (GOOD, 20)], &[]);
        check(&[(GOOD, 900), (failed(1), 10), (CHANGED, 20)], &[1, 2]);
        check(&[(GOOD, 900), (failed(8), 10), (GOOD, 20)], &[]);
        // What failed last, though it takes long; then no more fits.
        check(&[(GOOD, 500), (failed(2), 1), (failed(1), 400)], &[2]);
        check(&[(GOOD, 900), (CHANGED, 60), (NEW, 50), (GOOD, 9)], &[2]);
        check(&[(CHANGED, 9), (NEW, 9), (failed(1), 1)], &[2]);
        // All have changed, and nobody knows in what.
        check(&[(since("x"), 9), (since("x"), 9), (NEW, 1)], &[]);
    }

    /// Tests of these ids, all of which have changed but those that are new or failed, a hundred unnamed ones beside.
    #[track_caller]
    fn check_files(tests: &[(&str, Suspicion)], changed: &[(&str, &[&str])], expected: &[&str]) {
        let tests = tests.iter();
        let tests = tests.map(|(id, suspicion)| candidate(id, *suspicion, 10));
        let others = std::iter::repeat_n(candidate("other.py::test", since("x"), 10), 100);
        let tests: Vec<_> = tests.chain(others).collect();
        let first = choose(&tests, &inputs(changed), NOW).into_iter();
        let first: Vec<_> = first.map(|position| tests[position].id).collect();
        assert_eq!(first, expected);
    }

    #[test]
    fn if_all_have_changed_those_go_first_that_name_a_changed_file_or_are_new() {
        let tests = [
            ("a.py::x", since("x")),
            ("b.py::x", since("x")),
            ("c.py::x", NEW),
            ("d.py::x", failed(1)),
            ("e.py::x", since("y")),
            ("a.py::y", since("y")),
            ("a.py::z", CHANGED),
        ];
        check_files(
            &tests,
            &[("x", &["a.py"])],
            &["a.py::x", "c.py::x", "d.py::x"],
        );
        check_files(
            &tests,
            &[("x", &["b.py"]), ("y", &["a.py"])],
            &["b.py::x", "c.py::x", "d.py::x", "a.py::y"],
        );
        check_files(&tests, &[("x", &[])], &["c.py::x", "d.py::x"]);
        check_files(&tests, &[], &["d.py::x"]);
        check_files(&tests, &[("x", &["other.py", "a.py"])], &["d.py::x"]);
    }

    #[test]
    fn files_are_compared_only_if_most_have_changed_and_with_the_inputs_of_most() {
        let compared = |tests: &[(Suspicion, usize)]| {
            let tests = tests.iter();
            let tests: Vec<_> = tests
                .flat_map(|(suspicion, count)| std::iter::repeat_n(*suspicion, *count))
                .map(|suspicion| candidate("a", suspicion, 1))
                .collect();
            to_compare(&tests, NOW)
        };
        let roots = |names: &[&str]| {
            let names = names.iter();
            names
                .map(|name| Digest::of(name.as_bytes()))
                .collect::<Vec<_>>()
        };
        assert_eq!(compared(&[(since("x"), 3), (GOOD, 2)]), roots(&["x"]));
        for nothing in [
            &[(since("x"), 2), (GOOD, 2)][..],
            &[(since("x"), 2), (failed(1), 2)],
            &[(NEW, 3)],
            &[(CHANGED, 3)],
            &[(since("x"), 1)],
            &[],
        ] {
            assert_eq!(compared(nothing), []);
        }
        let many = ["a", "b", "c", "d", "e"].map(|name| (since(name), name.len()));
        assert_eq!(compared(&many).len(), MAX_EARLIER);
        let many = [(since("x"), 1), (since("y"), 3), (NEW, 1), (since("z"), 2)];
        assert_eq!(compared(&many), roots(&["y", "z", "x"]));
    }

    #[test]
    fn a_test_is_suspect_that_failed_or_has_another_key_or_is_new() {
        let key = Digest::of(b"now");
        let root = Some(Digest::of(b"inputs"));
        let known = |last_key| KnownTest {
            test: String::new(),
            timing: regatta_ledger::Timing::default(),
            last_failure: None,
            last_key,
            last_input_root: root,
            last_failed_key: None,
        };
        let change = |known: Option<&KnownTest>| Suspicion::of(known, key).change;
        assert_eq!(change(None), Change::New);
        let then = known(Some(Digest::of(b"then")));
        assert_eq!(change(Some(&then)), Change::Since(root));
        assert_eq!(change(Some(&known(Some(key)))), Change::Nothing);
        // Imported from elsewhere.
        assert_eq!(change(Some(&known(None))), Change::Nothing);
    }

    #[test]
    fn who_failed_lately_with_the_same_key_is_distrusted() {
        let suspicion = |days_ago, has_failed_so| Suspicion {
            has_failed_so,
            ..failed(days_ago)
        };
        assert!(suspicion(6, true).is_distrusted(NOW));
        assert!(!suspicion(8, true).is_distrusted(NOW));
        assert!(!suspicion(6, false).is_distrusted(NOW));
        assert!(!NEW.is_distrusted(NOW));
    }

    proptest! {
        #[test]
        fn little_goes_first_and_only_what_is_suspect(
            // Most tests are good: if most have changed, that tells nothing of any.
            tests in proptest::collection::vec((0u8..12, 0usize..3, 0u64..1000), 0..60),
            changed in proptest::option::of(proptest::collection::vec(0usize..3, 0..3)),
        ) {
            const FILES: [&str; 3] = ["a.py", "b.py", "c.py"];
            let suspicion = |kind| match kind {
                0 => failed(1),
                1 => NEW,
                2..6 => since("x"),
                _ => GOOD,
            };
            let tests: Vec<_> = tests
                .into_iter()
                .map(|(kind, file, millis)| candidate(FILES[file], suspicion(kind), millis))
                .collect();
            let changed: Option<Vec<_>> = changed.map(|them| them.into_iter().map(|file| FILES[file]).collect());
            let known = changed.as_ref().map(|paths| inputs(&[("x", paths)])).unwrap_or_default();
            let first = choose(&tests, &known, NOW);
            let work: Duration = tests.iter().map(|test| test.expected).sum();
            let ahead: Duration = first.iter().map(|position| tests[*position].expected).sum();
            let longest = first.iter().map(|position| tests[*position].expected).max();
            prop_assert!(first.iter().all(|position| tests[*position].suspicion != GOOD));
            prop_assert!(ahead <= (work * MOST_PERCENT / 100).max(longest.unwrap_or_default()) + longest.unwrap_or_default());
            let has_failed = tests.iter().any(|test| test.suspicion == failed(1));
            prop_assert!(!has_failed || first.iter().any(|position| tests[*position].suspicion == failed(1)));
            let suspect = tests.iter().filter(|test| !matches!(test.suspicion.change, Change::Nothing));
            let files = changed.unwrap_or_default();
            let is_narrowed = suspect.count() * 2 > tests.len();
            let is_named = |test: &Candidate<'_>| test.suspicion == NEW || files.contains(&test.id);
            let may_go = |test: &Candidate<'_>| test.suspicion == failed(1) || is_named(test);
            let all_may = first.iter().all(|position| may_go(&tests[*position]));
            prop_assert!(!is_narrowed || all_may);
        }
    }
}
