//! How close a suite comes to the shortest time it could take.

use std::time::Duration;

use crate::SchedulerConfig;
use crate::simulation::sharding::{
    Played, Race, RacingMachine, RacingTest, Scenario, Split, Stall, log_normal, small_unknown,
    small_unknown_of_worker,
};

/// A process for each test: staging what it needs.
const OF_A_PROCESS: Duration = Duration::from_millis(20);
/// A runner that starts and finds its tests, pytest say.
const OF_A_RUNNER: Duration = Duration::from_millis(500);

/// Tests that take 200 ms at the median, as in most suites; the longest take some seconds.
fn races(
    scenario: Scenario,
    tests: usize,
    slots: u32,
    overhead: Duration,
    seeds: u64,
) -> impl Iterator<Item = Race> {
    (1..=seeds).map(move |seed| {
        let timings = log_normal(seed, tests, Duration::from_millis(200), 1.0);
        scenario.race(&timings, slots, overhead, seed)
    })
}

fn play(race: &Race, split: Split) -> Played {
    race.play(split, SchedulerConfig::default())
        .expect("everything runs")
}

/// Every seed keeps the scenario's aim, overhead included.
#[track_caller]
fn check(scenario: Scenario, tests: usize, slots: u32, overhead: Duration, seeds: u64) {
    for (race, seed) in races(scenario, tests, slots, overhead, seeds).zip(1..) {
        let played = play(&race, Split::Guided);
        let ratio = played.ratio(&race);
        assert!(
            ratio <= scenario.aim(),
            "{scenario:?}, seed {seed}: {ratio:.4} with {} batches",
            played.batches
        );
        assert_eq!(played, play(&race, Split::Guided), "seed {seed} twice");
    }
}

#[test]
fn suites_of_processes_keep_the_aims() {
    for scenario in Scenario::ALL {
        check(scenario, 2000, 16, OF_A_PROCESS, 20);
    }
}

#[test]
fn suites_of_a_runner_keep_the_aims() {
    for scenario in Scenario::ALL {
        check(scenario, 10_000, 16, OF_A_RUNNER, 3);
    }
}

/// The mean over many suites, however long their tests turn out to take.
#[test]
fn small_suites_of_which_nothing_is_known_keep_the_aim() {
    let (mut all, mut taken_for_measured) = (Vec::new(), Vec::new());
    for mean_ms in [1, 5, 20, 100, 500, 2000] {
        let mut ratios = Vec::new();
        for seed in 1..=200 {
            let mut race = small_unknown(seed, Duration::from_millis(mean_ms));
            ratios.push(play(&race, Split::Guided).ratio_with_start(&race));
            for test in &mut race.tests {
                test.guessed = false;
            }
            taken_for_measured.push(play(&race, Split::Guided).ratio_with_start(&race));
        }
        let of_mean = mean(&ratios);
        assert!(of_mean <= 1.4, "tests of {mean_ms} ms: {of_mean:.4}");
        all.append(&mut ratios);
    }
    let (of_all, otherwise) = (mean(&all), mean(&taken_for_measured));
    let aim = Scenario::NoHistory.aim();
    assert!(
        of_all <= aim && otherwise > 2.0,
        "{of_all:.4}, {otherwise:.4}"
    );
}

/// Where a runner stays, no slot has a batch that is much longer than the others'.
#[test]
fn small_suites_of_a_runner_that_stays_keep_the_aim_whatever_their_tests_take() {
    for mean_ms in [1, 5, 20, 100, 500, 2000] {
        let races =
            (1..=200).map(|seed| small_unknown_of_worker(seed, Duration::from_millis(mean_ms)));
        let ratios: Vec<_> = races
            .map(|race| play(&race, Split::Guided).ratio_with_start(&race))
            .collect();
        let of_mean = mean(&ratios);
        assert!(
            of_mean <= Scenario::NoHistory.aim(),
            "tests of {mean_ms} ms: {of_mean:.4}"
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "there are few")]
fn mean(ratios: &[f64]) -> f64 {
    ratios.iter().sum::<f64>() / ratios.len() as f64
}

#[test]
fn few_tests_that_were_measured_once_keep_the_aim() {
    for (tests, takes_ms) in [(8_u32, 1000), (9, 1000), (26, 500), (60, 1000)] {
        for start in [Duration::from_millis(100), OF_A_RUNNER] {
            let takes = Duration::from_millis(takes_ms);
            let timings: Vec<_> = (0..tests).map(|test| (test.to_string(), takes)).collect();
            let race = Scenario::ExactHistory.race(&timings, 2, start, 1);
            let makespan = play(&race, Split::Guided).makespan;
            // Nobody cuts a test in two.
            let least = takes * tests.div_ceil(2) + start;
            assert!(
                makespan * 4 <= least * 5,
                "{tests} tests of {takes_ms} ms, {start:?}: {makespan:?} of {least:?}"
            );
        }
    }
}

/// Equal tests of which nothing is known, of a runner whose start costs nothing.
#[test]
fn few_long_tests_without_history_begin_in_every_slot() {
    for (tests, slots, takes_ms, expected_ms) in [
        (8, 2, 1000, 4000),
        (9, 2, 1000, 5000),
        (26, 2, 500, 6500),
        (60, 2, 1000, 30_000),
        (9, 8, 1000, 2000),
        (25, 200, 1, 1),
    ] {
        let takes = Duration::from_millis(takes_ms);
        let timings: Vec<_> = (0..tests).map(|test| (test.to_string(), takes)).collect();
        let mut race = Scenario::NoHistory.race(&timings, slots, Duration::ZERO, 1);
        race.assumed_overhead = OF_A_RUNNER;
        for test in &mut race.tests {
            test.expected = Duration::from_millis(20);
        }
        let makespan = play(&race, Split::Guided).makespan;
        let expected = Duration::from_millis(expected_ms);
        assert_eq!(makespan, expected, "{tests} tests, {slots} slots");
    }
}

#[test]
fn guided_beats_every_plan_where_the_plan_is_not_exact() {
    for scenario in [Scenario::NoisyHistory, Scenario::NoHistory] {
        for race in races(scenario, 2000, 16, OF_A_PROCESS, 5) {
            let guided = play(&race, Split::Guided).makespan;
            for split in [Split::LongestFirst, Split::RoundRobin, Split::Hash] {
                let planned = play(&race, split).makespan;
                assert!(
                    guided < planned,
                    "{scenario:?}: {guided:?}, {split:?} {planned:?}"
                );
            }
        }
    }
}

#[test]
fn machines_that_come_late_find_something_to_do() {
    let timings = log_normal(1, 10_000, Duration::from_millis(200), 1.0);
    let mut race = Scenario::ExactHistory.race(&timings, 64, OF_A_PROCESS, 1);
    for machine in race.machines.iter_mut().skip(1) {
        machine.joins_after = Duration::from_secs(5);
    }
    let ratio = play(&race, Split::Guided).ratio(&race);
    assert!(ratio <= 1.05, "{ratio:.4}");
}

/// A tenth of all work, in tests of any length, is wanted first.
#[test]
fn what_is_wanted_first_comes_early_and_costs_little() {
    for scenario in Scenario::ALL {
        for overhead in [OF_A_PROCESS, OF_A_RUNNER] {
            for mut race in races(scenario, 5000, 16, overhead, 3) {
                let before = play(&race, Split::Guided).ratio(&race);
                for test in race.tests.iter_mut().step_by(10) {
                    test.first = true;
                }
                let played = play(&race, Split::Guided);
                let (ratio, early) = (played.ratio(&race), played.first_answered);
                assert!(
                    ratio <= before + 0.02,
                    "{scenario:?}, {overhead:?}: {ratio:.4}, {before:.4} otherwise"
                );
                assert!(
                    early.is_some_and(|early| early < played.makespan / 4),
                    "{scenario:?}, {overhead:?}: {early:?} of {:?}",
                    played.makespan
                );
            }
        }
    }
}

#[test]
fn what_a_machine_has_begun_that_stops_is_done_elsewhere() {
    for mut race in races(Scenario::Stall, 2000, 16, OF_A_PROCESS, 5) {
        let twice = play(&race, Split::Guided).ratio(&race);
        for test in &mut race.tests {
            test.late_after = None;
        }
        let once = play(&race, Split::Guided).ratio(&race);
        assert!(twice <= 1.06 && once > 1.5, "{twice:.4}, {once:.4}");
    }
}

#[test]
fn the_bound_knows_machines() {
    let test = |seconds| RacingTest {
        name: String::new(),
        takes: Duration::from_secs(seconds),
        expected: Duration::ZERO,
        guessed: false,
        late_after: None,
        first: false,
    };
    let machine = |slots, joins, speed_percent| RacingMachine {
        slots,
        joins_after: Duration::from_secs(joins),
        speed_percent,
        stall: None,
    };
    let bound = |tests: &[u64], machines: &[RacingMachine]| {
        let race = Race {
            tests: tests.iter().copied().map(test).collect(),
            machines: machines.to_vec(),
            overhead: Duration::from_secs(1),
            overhead_again: Duration::from_secs(1),
            assumed_overhead: Duration::from_secs(1),
        };
        race.lower_bound().as_secs_f64()
    };
    assert_eq!(bound(&[1, 2, 3], &[machine(2, 0, 100)]), 3.0);
    assert_eq!(bound(&[1, 4], &[machine(2, 0, 100)]), 4.0);
    assert_eq!(bound(&[8, 8], &[machine(1, 0, 50)]), 32.0);
    assert_eq!(
        bound(&[4; 4], &[machine(1, 0, 100), machine(1, 8, 100)]),
        12.0
    );
    assert_eq!(bound(&[4], &[machine(1, 0, 50), machine(1, 2, 100)]), 6.0);
    assert_eq!(bound(&[], &[]), 0.0);
    let stalled = |after, lasts| RacingMachine {
        stall: Some(Stall {
            after: Duration::from_secs(after),
            lasts: Duration::from_secs(lasts),
        }),
        ..machine(1, 0, 100)
    };
    assert_eq!(bound(&[6], &[stalled(2, 10)]), 16.0);
    assert_eq!(bound(&[2], &[stalled(2, 10)]), 2.0);
    let both = [stalled(2, 10), machine(1, 0, 100)];
    assert_eq!(bound(&[2; 4], &both), 6.0);
    assert_eq!(bound(&[2; 8], &both), 13.0);
}
