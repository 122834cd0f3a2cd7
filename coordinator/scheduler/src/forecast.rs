//! What would come of work if it were submitted: the cutting rule, played in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use regatta_model::UnitIndex;

use crate::batch::{BatchRule, Running, WaitingUnits, nanos};
use crate::scheduler::Scheduler;
use crate::{ExpectedUnit, SchedulerConfig, Submission};

/// What would come of the tasks of a run, if they were submitted together and had the fleet to themselves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Forecast {
    /// How many slots there are for the task that has most: all of them are taken to run any of the tasks.
    pub slots: u64,
    /// What nobody can beat: the longest unit, or all units divided by the slots. None without a slot.
    pub lower_bound: Option<Duration>,
    /// When the last batch would end. None without a slot.
    pub makespan: Option<Duration>,
    /// Each task, in the order of the submissions.
    pub tasks: Vec<TaskForecast>,
}

/// What would come of one task.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TaskForecast {
    /// How many of its leases the agents that take work now can have at once.
    pub slots: u64,
    /// All of its units together.
    pub work: Duration,
    /// The unit that is expected to take longest.
    pub longest: Option<UnitIndex>,
    /// What nobody can beat for this task alone. None without a slot.
    pub lower_bound: Option<Duration>,
    /// When its last batch would end, among the batches of the other tasks. None without a slot.
    pub makespan: Option<Duration>,
    /// Its batches, in the order in which they would be granted.
    pub batches: Vec<BatchForecast>,
}

/// A batch that would be cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchForecast {
    /// When it would begin, from now.
    pub begins: Duration,
    /// How long it would take, what it costs to start included.
    pub takes: Duration,
    /// Its units, in the order to run them.
    pub units: Vec<UnitIndex>,
}

/// A task that is played.
struct Played<'a> {
    submission: &'a Submission,
    waiting: WaitingUnits,
    slots: u64,
    running: usize,
    /// The sum of the ends of the batches that run.
    ends_nanos: u128,
    batches: Vec<BatchForecast>,
}

impl Scheduler {
    /// Says what would come of submissions. Nothing is submitted.
    ///
    /// It knows which agents take work, and neither what else waits nor what is warm.
    #[must_use]
    pub fn forecast(&self, submissions: &[Submission]) -> Forecast {
        let with_slots = submissions.iter().map(|it| (it, self.slots_for(it)));
        forecast(&self.config, with_slots)
    }

    /// How many leases of a submission the agents that take work now can have at once.
    fn slots_for(&self, submission: &Submission) -> u64 {
        let agents = self.fleet.agents_by_id();
        let able = agents.filter(|agent| {
            agent.listed.willing && submission.platform.unmet_by(&agent.platform).is_empty()
        });
        able.map(|agent| u64::from(agent.concurrency_of(&submission.resources)))
            .sum()
    }
}

fn forecast<'a>(
    config: &SchedulerConfig,
    submissions: impl Iterator<Item = (&'a Submission, u64)>,
) -> Forecast {
    let mut tasks: Vec<_> = submissions
        .map(|(submission, slots)| Played {
            submission,
            waiting: WaitingUnits::new(&submission.units),
            slots,
            running: 0,
            ends_nanos: 0,
            batches: Vec::new(),
        })
        .collect();
    let slots = tasks.iter().map(|task| task.slots).max().unwrap_or(0);
    play(config, &mut tasks, slots);
    let units = tasks.iter().flat_map(|task| &task.submission.units);
    let lower_bound = lower_bound(units, slots);
    let tasks: Vec<_> = tasks.into_iter().map(Played::forecast).collect();
    Forecast {
        slots,
        lower_bound,
        makespan: tasks.iter().filter_map(|task| task.makespan).max(),
        tasks,
    }
}

/// Lets every slot take batches until nothing waits. As in a run, the task goes next that has the unit waiting
/// which is wanted first, or the longest.
fn play(config: &SchedulerConfig, tasks: &mut [Played<'_>], slots: u64) {
    let units: usize = tasks.iter().map(|task| task.waiting.len()).sum();
    let useful = slots.min(u64::try_from(units).unwrap_or(u64::MAX));
    // When each is free, and the task that it works for until then.
    let mut free: BinaryHeap<_> = (0..useful).map(|slot| Reverse((0, slot, None))).collect();
    while let Some(Reverse((now, slot, ended))) = free.pop() {
        if let Some(task) = ended.and_then(|task: usize| tasks.get_mut(task)) {
            task.running -= 1;
            task.ends_nanos -= u128::from(now);
        }
        let waiting = tasks.iter().enumerate();
        let waiting = waiting.filter(|(_, task)| task.slots > 0 && !task.waiting.is_empty());
        let next = waiting.max_by_key(|(index, task)| (task.waiting.next_rank(), Reverse(*index)));
        let Some(next) = next.map(|(index, _)| index) else {
            continue;
        };
        let end = tasks[next].grant(config, now);
        free.push(Reverse((end, slot, Some(next))));
    }
}

/// max(longest, total / slots).
fn lower_bound<'a>(units: impl Iterator<Item = &'a ExpectedUnit>, slots: u64) -> Option<Duration> {
    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
    let (sum, longest) = units.fold((Duration::ZERO, Duration::ZERO), |(sum, longest), unit| {
        (sum + unit.expected, longest.max(unit.expected))
    });
    Some(sum.checked_div(slots)?.max(longest))
}

impl Played<'_> {
    /// Cuts a batch, and says when it ends.
    fn grant(&mut self, config: &SchedulerConfig, now: u64) -> u64 {
        let overhead = self.submission.batch_overhead;
        let begun = u128::from(now) * self.running as u128;
        let left = self.ends_nanos.saturating_sub(begun);
        let running = Running {
            batches: self.running,
            nanos: u64::try_from(left).unwrap_or(u64::MAX),
        };
        let rule = BatchRule::new(config, self.slots, overhead, running);
        let (units, length) = self.waiting.cut(&rule, |_| false);
        let takes = length.saturating_add(nanos(overhead));
        let end = now.saturating_add(takes);
        self.running += 1;
        self.ends_nanos += u128::from(end);
        self.batches.push(BatchForecast {
            begins: Duration::from_nanos(now),
            takes: Duration::from_nanos(takes),
            units,
        });
        end
    }

    fn forecast(self) -> TaskForecast {
        let units = &self.submission.units;
        let longest = units
            .iter()
            .zip(0..)
            .max_by_key(|(unit, index)| (unit.expected, Reverse(*index)));
        let ends = self.batches.iter().map(|batch| batch.begins + batch.takes);
        TaskForecast {
            slots: self.slots,
            work: units.iter().map(|unit| unit.expected).sum(),
            longest: longest.map(|(_, index)| UnitIndex(index)),
            lower_bound: lower_bound(units.iter(), self.slots),
            makespan: (self.slots > 0).then(|| ends.max().unwrap_or_default()),
            batches: self.batches,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::sharding::{Scenario, Split, log_normal};
    use crate::tests::fixture::{Fixture, offer, submission};

    fn of(units_ms: &[u64]) -> Submission {
        Submission {
            units: units_ms
                .iter()
                .copied()
                .map(|millis| Duration::from_millis(millis).into())
                .collect(),
            batch_overhead: Duration::from_millis(10),
            ..submission(1)
        }
    }

    #[test]
    fn it_says_what_the_slots_make_of_it() {
        let mut fixture = Fixture::new(SchedulerConfig::default());
        let nobody = fixture.scheduler.forecast(&[of(&[100])]);
        assert_eq!(
            (nobody.slots, nobody.makespan, nobody.lower_bound),
            (0, None, None)
        );
        fixture.connect("a", offer(2));
        let told = fixture
            .scheduler
            .forecast(&[of(&[300, 900, 200]), of(&[400])]);
        assert_eq!(told.slots, 2);
        assert_eq!(told.lower_bound, Some(Duration::from_millis(900)));
        assert_eq!(told.makespan, Some(Duration::from_millis(930)));
        let [first, second] = &told.tasks[..] else {
            panic!("{told:?}");
        };
        assert_eq!(first.longest, Some(UnitIndex(1)));
        assert_eq!(first.work, Duration::from_millis(1400));
        assert_eq!(first.batches[0].units, [UnitIndex(1)]);
        assert_eq!(second.makespan, Some(Duration::from_millis(410)));
        assert_eq!(
            fixture.scheduler.forecast(&[]),
            Forecast {
                slots: 0,
                ..Forecast::default()
            }
        );
    }

    #[test]
    fn it_spreads_what_nobody_has_measured() {
        let mut fixture = Fixture::new(SchedulerConfig::default());
        fixture.connect("a", offer(2));
        let unit = |guessed| ExpectedUnit {
            guessed,
            ..Duration::from_millis(20).into()
        };
        let batches = |guessed| {
            let told = fixture.scheduler.forecast(&[Submission {
                units: vec![unit(guessed); 8],
                batch_overhead: Duration::from_millis(500),
                ..submission(1)
            }]);
            let batches = told.tasks[0].batches.iter();
            batches.map(|batch| batch.units.len()).collect::<Vec<_>>()
        };
        assert_eq!(batches(true), [4, 4]);
        assert_eq!(batches(false), [8]);
    }

    /// What is foretold is what happens, if history is exact.
    #[test]
    fn it_comes_true() {
        let overhead = Duration::from_millis(20);
        let timings = log_normal(7, 500, Duration::from_millis(200), 1.0);
        let race = Scenario::ExactHistory.race(&timings, 4, overhead, 7);
        let played = race.play(Split::Guided, SchedulerConfig::default());
        let played = played.expect("everything runs");
        let mut fixture = Fixture::new(SchedulerConfig::default());
        fixture.connect("a", offer(4));
        let told = fixture.scheduler.forecast(&[Submission {
            units: race.tests.iter().map(|test| test.expected.into()).collect(),
            batch_overhead: overhead,
            ..submission(1)
        }]);
        let told = told.makespan.expect("there are slots");
        let off = told.abs_diff(played.makespan);
        assert!(off < overhead, "{told:?}, {played:?}");
    }
}
