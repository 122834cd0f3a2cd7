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
    (1u32..4, 1u32..4, 3usize..60).prop_map(|(attempts, losses, limit)| SchedulerConfig {
        max_attempts: attempts,
        max_consecutive_losses: losses,
        queue_limit_units: limit,
        token_block: 3,
        forget_agents_after: Duration::from_secs(20),
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
        let fleet_was_in_trouble = first.retried > 0 && first.fenced > 0 && first.lost_agents > 0;
        assert!(fleet_was_in_trouble, "{first:?}");
    }
}
