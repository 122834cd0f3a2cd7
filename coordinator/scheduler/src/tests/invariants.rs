//! Any work, any machines, any faults: the model of [`crate::simulation`] finds nothing to object to.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::SchedulerConfig;
use crate::simulation::{Fault, FaultKind, MachinePlan, Plan, WorkPlan, run};

fn millis(up_to: u64) -> impl Strategy<Value = Duration> {
    (0..=up_to).prop_map(Duration::from_millis)
}

fn machine() -> impl Strategy<Value = MachinePlan> {
    (0u32..4, 0u64..5, 0u8..3).prop_map(|(slots, cpus, arch)| MachinePlan {
        slots,
        cpu_milli: cpus * 1000,
        arch,
    })
}

fn work() -> impl Strategy<Value = WorkPlan> {
    let who = (millis(20_000), 0u8..3, 0u8..3, -1i8..2);
    let what = (vec(0u16..9000, 0..12), 0u64..5, option::of(0u8..3));
    let how = (
        option::of(0u8..4),
        option::of(0u8..4),
        option::weighted(0.2, millis(20_000)),
        option::of(0u8..150),
        option::weighted(0.3, (any::<u8>(), 0u8..4)),
    );
    (who, what, how).prop_map(|(who, what, how)| WorkPlan {
        at: who.0,
        tenant: who.1,
        run: who.2,
        priority: who.3,
        units_ms: what.0,
        cpu_milli: what.1 * 500,
        arch: what.2,
        merge: how.0,
        tree: how.1,
        cancel_after: how.2,
        late_percent: how.3,
        failed_at: how.4,
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    let kind = prop_oneof![
        millis(40_000).prop_map(FaultKind::Crash),
        millis(40_000).prop_map(FaultKind::Disconnect),
        millis(40_000).prop_map(FaultKind::Silence),
        Just(FaultKind::BreakUnits),
        millis(90_000).prop_map(FaultKind::Drain),
        (0u8..3, 0u8..3).prop_map(|(tenant, run)| FaultKind::CancelRun(tenant, run)),
        Just(FaultKind::Restart),
        millis(90_000).prop_map(FaultKind::Hold),
    ];
    (millis(60_000), 0usize..8, kind).prop_map(|(at, machine, kind)| Fault { at, machine, kind })
}

fn plan() -> impl Strategy<Value = Plan> {
    let parts = (
        any::<u64>(),
        vec(machine(), 0..6),
        vec(work(), 1..30),
        vec(fault(), 0..12),
    );
    parts.prop_map(|(seed, machines, work, faults)| Plan {
        seed,
        machines,
        work,
        faults,
    })
}

fn config() -> impl Strategy<Value = SchedulerConfig> {
    let bounds = (1u32..4, 1u32..4, 3usize..60, 0u64..30, 0u64..60);
    bounds.prop_map(|(attempts, losses, limit, window, held)| SchedulerConfig {
        hold_limit: Duration::from_secs(held),
        max_attempts: attempts,
        max_consecutive_losses: losses,
        queue_limit_units: limit,
        token_block: 3,
        forget_agents_after: Duration::from_secs(20),
        earliest_late: Duration::from_millis(100),
        adoption_window: Duration::from_secs(window),
        ..SchedulerConfig::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_invariant_holds_after_every_event(plan in plan(), config in config()) {
        run(&plan, config).map_err(|violation| TestCaseError::fail(format!("{violation:?}")))?;
    }
}

#[test]
fn a_thousand_machines_in_trouble_give_the_same_effects_twice() {
    for seed in [1, 2] {
        let plan = Plan::of_seed(seed, 1000);
        let first = run(&plan, SchedulerConfig::default()).unwrap();
        let second = run(&plan, SchedulerConfig::default()).unwrap();
        assert_eq!(first, second, "seed {seed}");
        let fleet_was_in_trouble =
            first.retried > 0 && first.fenced > 0 && first.lost_agents > 0 && first.restarts > 0;
        assert!(first.duplicated > 0 && first.adopted > 0, "{first:?}");
        assert!(fleet_was_in_trouble, "{first:?}");
    }
}

/// Work that keeps machines busy for ever, and work that needs one of them to itself.
#[derive(Clone, Debug)]
struct Streams {
    machines: usize,
    /// CPUs of a machine, and its slots.
    cpus: u32,
    /// How long a piece of the work goes that takes one CPU; there is a tenth more of it than can be done.
    narrow_ms: u16,
    wide_ms: u16,
    wide_every: Duration,
    /// Whether the wide work is another tenant's, or only another run's.
    wide_tenant: u8,
    seed: u64,
}

/// How long the streams flow.
const FLOW: Duration = Duration::from_secs(300);

fn streams() -> impl Strategy<Value = Streams> {
    let fleet = (1usize..5, 1u32..6, any::<u64>());
    let work = (500u16..6000, 500u16..6000, 30u64..90, 0u8..2);
    (fleet, work).prop_map(|(fleet, work)| Streams {
        machines: fleet.0,
        cpus: fleet.1,
        seed: fleet.2,
        narrow_ms: work.0,
        wide_ms: work.1,
        wide_every: Duration::from_secs(work.2),
        wide_tenant: work.3,
    })
}

impl Streams {
    fn plan(&self) -> Plan {
        let cpu_milli = u64::from(self.cpus) * 1000;
        let work = |at: Duration, run, cpu_milli, unit_ms| WorkPlan {
            at,
            tenant: if run == 1 { self.wide_tenant } else { 0 },
            run,
            priority: 0,
            units_ms: vec![unit_ms],
            cpu_milli,
            arch: None,
            merge: None,
            tree: None,
            late_percent: None,
            failed_at: None,
            cancel_after: None,
        };
        let at_once = u32::try_from(self.machines).expect("few") * self.cpus;
        let pause = Duration::from_millis(self.narrow_ms.into()) * 10 / 11 / at_once;
        let times = |pause: Duration| {
            let times = (1..).map(move |number| pause * number);
            times.take_while(|at| *at < FLOW)
        };
        let narrow = times(pause).map(|at| work(at, 0, 1000, self.narrow_ms));
        let wide = times(self.wide_every).map(|at| work(at, 1, cpu_milli, self.wide_ms));
        let machine = MachinePlan {
            slots: self.cpus,
            cpu_milli,
            arch: 0,
        };
        Plan {
            seed: self.seed,
            machines: vec![machine; self.machines],
            work: narrow.chain(wide).collect(),
            faults: Vec::new(),
        }
    }
}

/// No wide work waits longer than it may; how long one waited that did so for longest, and for how much of that
/// something had ended that the scheduler did not know of.
///
/// Until something narrow has taken what it could have had, and so passed it over, takes as long as narrow work goes;
/// after a while a machine is reserved, and drains: whatever it does then must end. What waits behind other wide work
/// waits for that, too. Of all that, the scheduler knows nothing before a report has come: a machine that has drained
/// has nothing more to tell of, so that one which is lost is made up for by a heartbeat, up to five seconds later.
fn check_waits(streams: &Streams) -> Result<(Duration, Duration), TestCaseError> {
    let plan = streams.plan();
    let config = SchedulerConfig::default();
    let ends = Duration::from_millis(u64::from(streams.narrow_ms) + u64::from(streams.wide_ms));
    let bound = config.reserve_after + ends * 2;
    let violated = |violation| TestCaseError::fail(format!("{violation:?}"));
    let summary = run(&plan, config).map_err(violated)?;
    prop_assert_eq!(summary.answered, plan.work.len());
    let mut longest = (Duration::ZERO, Duration::ZERO);
    let waits = summary.waits.iter().zip(&summary.unheard);
    for (work, (wait, unheard)) in plan.work.iter().zip(waits) {
        let wait = wait.expect("everything ran");
        if work.run == 1 {
            prop_assert!(
                wait <= bound + *unheard,
                "{:?} waited {:?}, and the scheduler knew of everything but for {:?}",
                work,
                wait,
                unheard
            );
            longest = longest.max((wait, *unheard));
        }
    }
    Ok(longest)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn no_starvation_however_much_else_there_is_to_do(streams in streams()) {
        check_waits(&streams)?;
    }
}

#[test]
fn a_report_that_is_lost_when_a_machine_has_drained_is_waited_for_and_nothing_else() {
    let streams = Streams {
        machines: 1,
        cpus: 2,
        narrow_ms: 700,
        wide_ms: 500,
        wide_every: Duration::from_secs(30),
        wide_tenant: 0,
        seed: 44,
    };
    let (wait, unheard) = check_waits(&streams).expect("holds");
    let known = SchedulerConfig::default().reserve_after + Duration::from_millis(2 * (700 + 500));
    assert!(wait > known, "or nothing is shown: {wait:?}, {unheard:?}");
}
