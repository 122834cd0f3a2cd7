//! `regatta run --plan`: what a run would do.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use regatta_wire::convert::duration_from_wire;
use regatta_wire::v1;

use super::table::table;
use crate::client::{Client, refused};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::options::{GlobalOptions, MessageFormat};
use crate::standard_output::standard_output;
use crate::terminal::visible;
use crate::watch::json_plan;

/// Asks what a run would do, and shows it.
pub(super) async fn plan(
    global: &GlobalOptions,
    client: &Client,
    spec: v1::RunSpec,
) -> Result<ExitCode, Failure> {
    let plan = planned(client, spec).await?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let mut stdout = standard_output();
    match global.message_format {
        MessageFormat::Human => stdout.write_all(as_text(&plan).as_bytes()),
        MessageFormat::Json => json_plan(&mut stdout, &plan),
    }
    .or_exit(ExitCode::Local)?;
    Ok(exit_code(&plan))
}

/// What a run would do.
pub(super) async fn planned(
    client: &Client,
    spec: v1::RunSpec,
) -> Result<v1::PlanRunResponse, Failure> {
    let request = v1::PlanRunRequest { spec: Some(spec) };
    let plan = client.runs().plan_run(request).await;
    let plan = plan.map_err(|status| refused("plan the run", &status))?;
    Ok(plan.into_inner())
}

/// A plan with a job that cannot be planned is not whole; if a run would fail by that, it is as that run.
fn exit_code(plan: &v1::PlanRunResponse) -> ExitCode {
    if plan.jobs.iter().any(|job| job.would_fail) {
        return ExitCode::TestsFailed;
    }
    match plan.jobs.iter().all(|job| job.unplanned_reason.is_empty()) {
        true => ExitCode::Good,
        false => ExitCode::Infrastructure,
    }
}

fn as_text(plan: &v1::PlanRunResponse) -> String {
    let is_suite = |job: &&v1::JobPlan| !job.is_build && job.unplanned_reason.is_empty();
    let suites: Vec<_> = plan.jobs.iter().filter(is_suite).collect();
    let mut text = String::new();
    if !suites.is_empty() {
        let headings = [
            "SUITE", "TESTS", "CACHED", "SKIPPED", "TO RUN", "WORK", "LONGEST", "SLOTS",
            "AT LEAST", "EXPECTED",
        ];
        let rows: Vec<_> = suites.iter().map(|job| row(job)).collect();
        text.push_str(&table(headings, &rows));
        text.push('\n');
    }
    for job in &plan.jobs {
        for line in lines(job) {
            let _infallible = writeln!(text, "{line}");
        }
    }
    let _infallible = match (seconds(plan.makespan.as_ref()), plan.slots) {
        (Some(makespan), slots) => writeln!(
            text,
            "{} on {slots} slots; at least {} (the longest test, or all work divided by the slots)",
            makespan,
            seconds(plan.lower_bound.as_ref()).unwrap_or_default(),
        ),
        (None, _) if suites.iter().any(|job| to_run(job) > 0) => writeln!(
            text,
            "no agent takes this work now, so that nobody knows how long it will take; start one with \
             `regatta agent`"
        ),
        (None, _) => writeln!(text, "no test would run"),
    };
    text.push_str("nothing was run but what lists tests, where that was not cached\n");
    text
}

fn row(job: &v1::JobPlan) -> [String; 10] {
    let time =
        |time: Option<&prost_types::Duration>| seconds(time).unwrap_or_else(|| "-".to_owned());
    [
        job.job.clone(),
        job.planned.to_string(),
        job.cached.to_string(),
        job.skipped.to_string(),
        to_run(job).to_string(),
        time(job.work.as_ref()),
        time(job.longest.as_ref()),
        job.slots.to_string(),
        time(job.lower_bound.as_ref()),
        time(job.makespan.as_ref()),
    ]
}

/// What a table has no room for.
fn lines(job: &v1::JobPlan) -> Vec<String> {
    let name = visible(&job.job);
    if !job.unplanned_reason.is_empty() {
        return vec![format!(
            "{name}: cannot be planned: {}",
            visible(&job.unplanned_reason)
        )];
    }
    if job.is_build {
        let what = match job.is_build_cached {
            true => "is cached",
            false => "would run",
        };
        return vec![format!("{name}: a build that {what}")];
    }
    if to_run(job) == 0 {
        return Vec::new();
    }
    let mut lines = vec![format!(
        "{name}: the longest is {}; {}",
        visible(&job.longest_test),
        how_known(job)
    )];
    let batch = |batch: &v1::BatchPlan| {
        let more = match batch.tests {
            0 | 1 => String::new(),
            tests => format!(" and {} more", tests - 1),
        };
        let takes = seconds(batch.takes.as_ref()).unwrap_or_default();
        format!("{takes} for {}{more}", visible(&batch.first_test))
    };
    let first: Vec<_> = job.first_batches.iter().map(batch).collect();
    lines.push(format!(
        "{name}: {} batches, each {} to start, the first: {}",
        job.batches,
        seconds(job.batch_overhead.as_ref()).unwrap_or_default(),
        first.join("; ")
    ));
    lines
}

/// `18 tests have run before, 2 are taken to be like their neighbours`
fn how_known(job: &v1::JobPlan) -> String {
    let parts = [
        (job.from_history, "have run before"),
        (
            job.from_neighbours,
            "are taken to last as long as their neighbours",
        ),
        (job.from_suite, "as long as the suite's others"),
        (
            job.unknown,
            "are unknown, and taken to last as long as is usual",
        ),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<_> = parts
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    format!("of its tests {}", parts.join(", "))
}

pub(super) const fn to_run(job: &v1::JobPlan) -> u32 {
    job.planned
        .saturating_sub(job.cached)
        .saturating_sub(job.skipped)
}

fn seconds(time: Option<&prost_types::Duration>) -> Option<String> {
    let time: Duration = duration_from_wire(time?).ok()?;
    Some(match time.as_millis() {
        0..1000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Option<prost_types::Duration> {
        let time = Duration::from_millis(millis);
        Some(regatta_wire::convert::duration_to_wire(time))
    }

    fn suite() -> v1::JobPlan {
        v1::JobPlan {
            job: "unit".to_owned(),
            planned: 10,
            cached: 6,
            skipped: 1,
            from_history: 2,
            unknown: 1,
            work: millis(2500),
            longest: millis(2000),
            longest_test: "a::b\u{1b}".to_owned(),
            slots: 4,
            lower_bound: millis(2000),
            makespan: millis(2020),
            batch_overhead: millis(20),
            batches: 2,
            first_batches: vec![v1::BatchPlan {
                begins: millis(0),
                takes: millis(2020),
                tests: 1,
                first_test: "a::b".to_owned(),
            }],
            ..v1::JobPlan::default()
        }
    }

    #[test]
    fn people_see_how_a_suite_would_be_split() {
        let build = v1::JobPlan {
            job: "build".to_owned(),
            is_build: true,
            ..v1::JobPlan::default()
        };
        let plan = v1::PlanRunResponse {
            jobs: vec![build, suite()],
            slots: 4,
            lower_bound: millis(2000),
            makespan: millis(2020),
            warnings: Vec::new(),
        };
        assert_eq!(exit_code(&plan), ExitCode::Good);
        assert_eq!(
            as_text(&plan),
            "SUITE  TESTS  CACHED  SKIPPED  TO RUN  WORK   LONGEST  SLOTS  AT LEAST  EXPECTED\n\
             unit   10     6       1        3       2.5 s  2.0 s    4      2.0 s     2.0 s\n\n\
             build: a build that would run\n\
             unit: the longest is a::b\\u{1b}; of its tests 2 have run before, 1 are unknown, and taken to last \
             as long as is usual\n\
             unit: 2 batches, each 20 ms to start, the first: 2.0 s for a::b\n\
             2.0 s on 4 slots; at least 2.0 s (the longest test, or all work divided by the slots)\n\
             nothing was run but what lists tests, where that was not cached\n"
        );
    }

    #[test]
    fn what_cannot_be_planned_is_told_with_the_reason() {
        let job = v1::JobPlan {
            job: "unit".to_owned(),
            unplanned_reason: "no agent".to_owned(),
            ..v1::JobPlan::default()
        };
        let failing = v1::JobPlan {
            would_fail: true,
            ..job.clone()
        };
        let plan = |jobs| v1::PlanRunResponse {
            jobs,
            ..v1::PlanRunResponse::default()
        };
        let would_fail = plan(vec![job.clone(), failing]);
        assert_eq!(exit_code(&would_fail), ExitCode::TestsFailed);
        let plan = plan(vec![job]);
        assert_eq!(exit_code(&plan), ExitCode::Infrastructure);
        let text = as_text(&plan);
        assert!(
            text.starts_with("unit: cannot be planned: no agent\n"),
            "{text}"
        );
    }
}
