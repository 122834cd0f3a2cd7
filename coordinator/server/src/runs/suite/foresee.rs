//! What a suite would run, without running it.

use std::time::Duration;

use regatta_ledger::RunCounts;
use regatta_scheduler::ExpectedUnit;

use super::changes::changed_inputs;
use super::estimate::Source;
use super::{count_known, discovery, plan_tests, precedence};
use crate::dispatch::{BatchShape, UnitPlan, Work};
use crate::runs::context::{JobContext, JobWork};
use crate::runs::log::now;
use crate::runs::plan::PlannedSuite;
use crate::runs::state::JobEnd;
use crate::runs::tally::Tally;

/// What is known of a suite before it runs.
#[derive(Clone, Debug)]
pub(in crate::runs) struct Foreseen {
    pub(in crate::runs) counts: RunCounts,
    /// The ids of the tests that would run: the units of `work`.
    pub(in crate::runs) to_run: Vec<String>,
    /// How many of those have run before.
    pub(in crate::runs) from_history: u32,
    /// How many are taken to be like their neighbours,
    pub(in crate::runs) from_neighbours: u32,
    /// like the suite's other tests,
    pub(in crate::runs) from_suite: u32,
    /// and how many nothing at all is known of.
    pub(in crate::runs) unknown: u32,
    pub(in crate::runs) batch_overhead: Duration,
    /// What would be submitted, if anything.
    pub(in crate::runs) work: Option<Work>,
}

/// Lists a suite's tests and looks up what is known of them.
pub(in crate::runs) async fn foresee(
    job: &JobContext,
    suite: &PlannedSuite,
) -> Result<Foreseen, JobEnd> {
    let listing = discovery::discover(job, suite).await?;
    let planned = plan_tests(job, suite, &listing).await?;
    let mut tally = Tally::new(planned.tests.len());
    count_known(job, &listing, &planned.tests, &mut tally).await;
    let open: Vec<_> = tally.open().map(|index| &planned.tests[index]).collect();
    let from = |source: Source| {
        let found = open.iter().filter(|test| test.estimate.source == source);
        u32::try_from(found.count()).unwrap_or(u32::MAX)
    };
    let inputs = changed_inputs(job, open.iter().copied()).await;
    let first = precedence::first(open.iter().copied(), &inputs, now());
    let unit = |(position, test): (usize, &&super::Test)| UnitPlan {
        expected: ExpectedUnit {
            first: first.contains(&position),
            guessed: test.estimate.is_guess(),
            ..test.estimate.timing.expected.into()
        },
        extra_arguments: Vec::new(),
        extra_environment: Vec::new(),
    };
    let work = JobWork {
        failed_at: None,
        time_limit: None,
        worker: None,
        command: job.command(Vec::new()),
        units: open.iter().enumerate().map(unit).collect(),
        shape: BatchShape::ExecutionPerUnit,
        batch_overhead: planned.batch_overhead,
        merge_key: None,
        stream_output: false,
    };
    Ok(Foreseen {
        counts: tally.counts(),
        to_run: open.iter().map(|test| test.id.clone()).collect(),
        from_history: from(Source::History),
        from_neighbours: from(Source::Neighbours),
        from_suite: from(Source::Suite),
        unknown: from(Source::Nothing),
        batch_overhead: planned.batch_overhead,
        work: (!open.is_empty()).then(|| job.dispatched(work)),
    })
}
