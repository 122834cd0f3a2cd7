//! Tests that have been running for long, so that a test that hangs is seen before it ends. Pure: time is
//! an argument.

use std::collections::HashMap;
use std::time::Duration;

use regatta_model::{AgentId, LeaseId};
use tokio::time::Instant;

/// A test that has been running for this long is told, and again each time that it has once more.
const SLOW: Duration = Duration::from_secs(60);

/// The tests of leases that have not been answered.
#[derive(Debug, Default)]
pub(super) struct SlowTests {
    leases: HashMap<LeaseId, Running>,
}

#[derive(Debug)]
struct Running {
    agent: AgentId,
    /// In the order in which they run.
    tests: Vec<usize>,
    /// Whether one execution runs all of them.
    together: bool,
    /// When the first of them began.
    since: Instant,
    /// How often it was told.
    told: u32,
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
    pub(super) fn granted(
        &mut self,
        lease: LeaseId,
        agent: AgentId,
        tests: Vec<usize>,
        together: bool,
        now: Instant,
    ) {
        let running = Running {
            agent,
            tests,
            together,
            since: now,
            told: 0,
        };
        self.leases.insert(lease, running);
    }

    /// A test has been answered or lost.
    pub(super) fn ended(&mut self, test: usize, now: Instant) {
        for running in self.leases.values_mut() {
            let before = running.tests.len();
            running.tests.retain(|it| *it != test);
            if running.tests.len() < before {
                (running.since, running.told) = (now, 0);
            }
        }
        self.leases.retain(|_, running| !running.tests.is_empty());
    }

    /// What a lease is at.
    pub(super) fn running(&self, lease: LeaseId, now: Instant) -> Option<SlowTest> {
        let running = self.leases.get(&lease)?;
        let first = running.tests.first()?;
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
            let (Some(test), true) = (running.tests.first(), since >= SLOW * (running.told + 1))
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

    #[tokio::test]
    async fn the_test_that_runs_is_told_and_told_again() {
        let start = Instant::now();
        let mut slow = SlowTests::default();
        slow.granted(LeaseId(1), agent(), vec![4, 5], false, start);
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
        slow.granted(LeaseId(1), agent(), vec![1, 2, 3], true, start);
        let due = slow.due(start + SLOW);
        assert_eq!((due[0].test, due[0].others), (1, 2));
    }
}
