//! Tests that have been running for long, so that a test that hangs is seen before it ends. Pure: time is
//! an argument.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use regatta_model::{AgentId, LeaseId};
use tokio::time::Instant;

/// A test that has been running for this long is told, and again each time that it has once more.
const SLOW: Duration = Duration::from_secs(60);

/// The tests of leases that have not been answered.
#[derive(Debug, Default)]
pub(super) struct SlowTests {
    leases: HashMap<LeaseId, Running>,
    /// The leases that have a test: one, or two if one of them was late.
    leases_of: HashMap<usize, Vec<LeaseId>>,
}

#[derive(Debug)]
struct Running {
    agent: AgentId,
    /// In the order in which they run.
    tests: VecDeque<usize>,
    /// Whether one execution runs all of them.
    together: bool,
    /// When the first of them began.
    since: Instant,
    /// How often it was told.
    told: u32,
    /// The lease that was late with them, and is at them, too.
    duplicates: Option<LeaseId>,
    /// Whether it was told that another lease has overtaken it.
    is_overtaken: bool,
}

/// A lease of tests.
pub(super) struct Granted {
    pub(super) lease: LeaseId,
    pub(super) agent: AgentId,
    /// In the order in which they run.
    pub(super) tests: Vec<usize>,
    /// Whether one execution runs all of them.
    pub(super) together: bool,
    /// The lease that was late with them, and is at them, too.
    pub(super) duplicates: Option<LeaseId>,
}

/// An attempt that was late, and that another one has overtaken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Overtaken {
    pub(super) attempt: SlowTest,
    /// Whether it is the first test of its lease of which this is said.
    pub(super) is_news: bool,
}

/// A test that is slow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SlowTest {
    pub(super) test: usize,
    /// How many others the same execution runs.
    pub(super) others: usize,
    pub(super) running: Duration,
    pub(super) agent: AgentId,
}

impl SlowTests {
    /// Tests have been leased.
    pub(super) fn granted(&mut self, granted: Granted, now: Instant) {
        for test in &granted.tests {
            let leases = self.leases_of.entry(*test).or_default();
            leases.push(granted.lease);
        }
        let running = Running {
            agent: granted.agent,
            tests: granted.tests.into(),
            together: granted.together,
            since: now,
            told: 0,
            duplicates: granted.duplicates,
            is_overtaken: false,
        };
        self.leases.insert(granted.lease, running);
    }

    /// The attempt at a test that its answer from `lease` overtakes, if it was late with it: at it for so long.
    pub(super) fn overtaken(
        &mut self,
        lease: LeaseId,
        test: usize,
        late_after: Duration,
        now: Instant,
    ) -> Option<Overtaken> {
        let late = self.leases.get(&lease)?.duplicates?;
        let running = self.leases.get_mut(&late)?;
        let is_at_it = match running.together {
            true => running.tests.contains(&test),
            false => running.tests.front() == Some(&test),
        };
        let attempt = running.slow(test, now);
        (is_at_it && attempt.running > late_after).then(|| Overtaken {
            attempt,
            is_news: !std::mem::replace(&mut running.is_overtaken, true),
        })
    }

    /// A test has been answered or lost.
    pub(super) fn ended(&mut self, test: usize, now: Instant) {
        for lease in self.leases_of.remove(&test).unwrap_or_default() {
            let Some(running) = self.leases.get_mut(&lease) else {
                continue;
            };
            // Most end in the order in which they run: it is the first.
            let position = running.tests.iter().position(|it| *it == test);
            if position.and_then(|it| running.tests.remove(it)).is_none() {
                continue;
            }
            // What runs together goes on as long as any of it has no answer.
            if !running.together {
                (running.since, running.told) = (now, 0);
            }
            if running.tests.is_empty() {
                self.leases.remove(&lease);
            }
        }
    }

    /// What a lease is at.
    pub(super) fn running(&self, lease: LeaseId, now: Instant) -> Option<SlowTest> {
        let running = self.leases.get(&lease)?;
        let first = running.tests.front()?;
        Some(running.slow(*first, now))
    }

    /// When the next one is to be told.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = |running: &Running| running.since + SLOW * (running.told + 1);
        self.leases.values().map(due).min()
    }

    /// Those that are to be told now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<SlowTest> {
        let mut slow = Vec::new();
        for running in self.leases.values_mut() {
            let since = now.duration_since(running.since);
            let (Some(test), true) = (running.tests.front(), since >= SLOW * (running.told + 1))
            else {
                continue;
            };
            let test = *test;
            running.told += 1;
            slow.push(running.slow(test, now));
        }
        slow.sort_by_key(|slow| slow.test);
        slow
    }
}

impl Running {
    fn slow(&self, test: usize, now: Instant) -> SlowTest {
        let others = if self.together {
            self.tests.len() - 1
        } else {
            0
        };
        SlowTest {
            test,
            others,
            running: now.duration_since(self.since),
            agent: self.agent.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> AgentId {
        "a".parse().expect("valid")
    }

    fn granted(lease: u64, tests: &[usize], together: bool, duplicates: Option<u64>) -> Granted {
        Granted {
            lease: LeaseId(lease),
            agent: agent(),
            tests: tests.to_vec(),
            together,
            duplicates: duplicates.map(LeaseId),
        }
    }

    #[tokio::test]
    async fn the_test_that_runs_is_told_and_told_again() {
        let start = Instant::now();
        let mut slow = SlowTests::default();
        slow.granted(granted(1, &[4, 5], false, None), start);
        assert_eq!(slow.due(start + SLOW / 2), []);
        slow.ended(4, start + SLOW / 2);
        assert_eq!(slow.due(start + SLOW), [], "the next has just begun");
        assert_eq!(slow.next(), Some(start + SLOW / 2 + SLOW));
        let told = |running| SlowTest {
            test: 5,
            others: 0,
            running,
            agent: agent(),
        };
        for times in 1..3 {
            let now = start + SLOW / 2 + SLOW * times;
            assert_eq!(slow.due(now), [told(SLOW * times)]);
            assert_eq!(slow.due(now), [], "once is enough");
        }
        slow.ended(5, start);
        assert_eq!(slow.next(), None);
    }

    #[tokio::test]
    async fn tests_that_run_together_are_slow_together() {
        let start = Instant::now();
        let mut slow = SlowTests::default();
        slow.granted(granted(1, &[1, 2, 3], true, None), start);
        let due = slow.due(start + SLOW);
        assert_eq!((due[0].test, due[0].others), (1, 2));
    }

    /// Leases 1 and 2 are at tests 1 and 2, the second because the first is late; which are overtaken by the second's
    /// answers after ten and eleven seconds, and how long they had been running.
    #[track_caller]
    fn check_overtaken(together: bool, expected: [Option<(u64, bool)>; 2]) {
        let start = Instant::now();
        let mut slow = SlowTests::default();
        slow.granted(granted(1, &[1, 2], together, None), start);
        slow.granted(granted(2, &[1, 2], together, Some(1)), start + SLOW / 10);
        let after = [SLOW / 6, SLOW / 6 + SLOW / 60];
        let overtaken = [1, 2].into_iter().zip(after).map(|(test, after)| {
            let limit = Duration::from_secs(2);
            assert_eq!(
                slow.overtaken(LeaseId(1), test, limit, start + after),
                None,
                "the first overtakes nothing"
            );
            let found = slow.overtaken(LeaseId(2), test, limit, start + after);
            slow.ended(test, start + after);
            found.map(|it| (it.attempt.running.as_secs(), it.is_news))
        });
        assert_eq!(overtaken.collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn a_late_attempt_is_overtaken_once() {
        check_overtaken(false, [Some((10, true)), None]);
        check_overtaken(true, [Some((10, true)), Some((11, false))]);
    }
}
