//! A plan as newline-delimited JSON.

use std::io::{self, Write};

use regatta_wire::convert::duration_from_wire;
use regatta_wire::v1;
use serde::Serialize;

use crate::terminal::visible_json;

/// A line.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Line<'a> {
    SuitePlan(Suite<'a>),
    BuildPlan {
        job: &'a str,
        cached: bool,
    },
    Unplanned {
        job: &'a str,
        message: &'a str,
    },
    RunPlan {
        slots: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        lower_bound: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        makespan: Option<f64>,
        warnings: &'a [String],
    },
}

#[derive(Debug, Serialize)]
struct Suite<'a> {
    job: &'a str,
    planned: u32,
    cached: u32,
    skipped: u32,
    from_history: u32,
    from_neighbours: u32,
    from_suite: u32,
    unknown: u32,
    work: f64,
    longest: f64,
    longest_test: &'a str,
    slots: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lower_bound: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    makespan: Option<f64>,
    batch_overhead: f64,
    batches: u32,
    first_batches: Vec<Batch<'a>>,
}

#[derive(Debug, Serialize)]
struct Batch<'a> {
    begins: f64,
    takes: f64,
    tests: u32,
    first_test: &'a str,
}

/// Writes a plan: a line for each job, and one for the run.
///
/// # Errors
/// It cannot be written.
pub(crate) fn json_plan(mut writer: impl Write, plan: &v1::PlanRunResponse) -> io::Result<()> {
    let jobs = plan.jobs.iter().map(of_job);
    let run = Line::RunPlan {
        slots: plan.slots,
        lower_bound: seconds(plan.lower_bound.as_ref()),
        makespan: seconds(plan.makespan.as_ref()),
        warnings: &plan.warnings,
    };
    for line in jobs.chain([run]) {
        let json = serde_json::to_string(&line)?;
        writer.write_all(visible_json(&json).as_bytes())?;
        writer.write_all(b"\n")?;
    }
    writer.flush()
}

fn of_job(job: &v1::JobPlan) -> Line<'_> {
    let name = job.job.as_str();
    if !job.unplanned_reason.is_empty() {
        let message = &job.unplanned_reason;
        return Line::Unplanned { job: name, message };
    }
    if job.is_build {
        let cached = job.is_build_cached;
        return Line::BuildPlan { job: name, cached };
    }
    let first = job.first_batches.iter().map(|batch| Batch {
        begins: seconds(batch.begins.as_ref()).unwrap_or_default(),
        takes: seconds(batch.takes.as_ref()).unwrap_or_default(),
        tests: batch.tests,
        first_test: &batch.first_test,
    });
    Line::SuitePlan(Suite {
        job: name,
        planned: job.planned,
        cached: job.cached,
        skipped: job.skipped,
        from_history: job.from_history,
        from_neighbours: job.from_neighbours,
        from_suite: job.from_suite,
        unknown: job.unknown,
        work: seconds(job.work.as_ref()).unwrap_or_default(),
        longest: seconds(job.longest.as_ref()).unwrap_or_default(),
        longest_test: &job.longest_test,
        slots: job.slots,
        lower_bound: seconds(job.lower_bound.as_ref()),
        makespan: seconds(job.makespan.as_ref()),
        batch_overhead: seconds(job.batch_overhead.as_ref()).unwrap_or_default(),
        batches: job.batches,
        first_batches: first.collect(),
    })
}

fn seconds(time: Option<&prost_types::Duration>) -> Option<f64> {
    Some(duration_from_wire(time?).ok()?.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_a_line_and_the_run_the_last() {
        let build = v1::JobPlan {
            job: "build".to_owned(),
            is_build: true,
            is_build_cached: true,
            ..v1::JobPlan::default()
        };
        let suite = v1::JobPlan {
            job: "unit".to_owned(),
            planned: 3,
            ..v1::JobPlan::default()
        };
        let plan = v1::PlanRunResponse {
            jobs: vec![build, suite],
            ..v1::PlanRunResponse::default()
        };
        let mut written = Vec::new();
        json_plan(&mut written, &plan).expect("written");
        let text = String::from_utf8(written).expect("UTF-8");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let types: Vec<_> = lines.iter().map(|line| line["type"].clone()).collect();
        assert_eq!(types, ["build-plan", "suite-plan", "run-plan"]);
        assert_eq!(lines[1]["planned"], 3);
        assert_eq!(lines[2].get("makespan"), None);
    }
}
