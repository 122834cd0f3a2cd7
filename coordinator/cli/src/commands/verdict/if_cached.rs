//! A commit of which no run is known, and yet everything is cached: the run that says so executes nothing.

use regatta_wire::v1;

use crate::commands::blocking;
use crate::commands::plan::{planned, to_run};
use crate::commands::run::{How, load, prepare};
use crate::config;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::git;
use crate::interrupts::Interrupts;
use crate::options::{GlobalOptions, ReportArguments};
use crate::session::watch_failure;
use crate::submission::submit;
use crate::terminal::visible;
use crate::watch::follow;

/// For `regatta ps`.
const DESCRIPTION: &str = "regatta verdict --if-cached";

/// Adds to why nothing is known how it could be, at no cost.
pub(super) async fn advise(commit: &str, why: &mut String) -> Result<(), Failure> {
    let here = std::env::current_dir().or_exit(ExitCode::Local)?;
    let is_here = is_checked_out(commit).await? && config::find(&here).is_ok();
    *why += match is_here {
        true => {
            "; if all of it is cached, `regatta verdict --if-cached` answers, and executes nothing"
        }
        false => "; where it is checked out, `regatta run` executes only what is not cached",
    };
    Ok(())
}

async fn is_checked_out(commit: &str) -> Result<bool, Failure> {
    let here = std::env::current_dir().or_exit(ExitCode::Local)?;
    let head = blocking(move || git::resolve(&here, "HEAD")).await?;
    Ok(head.is_ok_and(|head| head == commit))
}

/// Makes a run of the commit that is checked out here if nothing would be executed; whether it did. If not, `why` says
/// what is not cached.
pub(super) async fn run(
    global: &GlobalOptions,
    commit: &str,
    why: &mut String,
) -> Result<bool, Failure> {
    if !is_checked_out(commit).await? {
        let message = format!("{commit} is not checked out here: --if-cached looks at its files");
        return Err(Failure::new(ExitCode::BadConfiguration, message));
    }
    let pipeline = load(None)?;
    let report = ReportArguments::default();
    let how = How {
        report: &report,
        junit: None,
        max_failures: 0,
        description: DESCRIPTION.to_owned(),
        chosen_tests: false,
    };
    let prepared = prepare(global, &pipeline, &pipeline.jobs, how).await?;
    let spec = v1::RunSpec {
        cached_only: true,
        ..prepared.spec
    };
    if spec.dirty || spec.commit != commit {
        *why += "; the files here are not those of the commit, so that what is cached of them says nothing of it";
        return Ok(false);
    }
    let plan = planned(&prepared.client, spec.clone()).await?;
    let lacking = lacking(&plan);
    if !lacking.is_empty() {
        *why = format!(
            "not all of {commit} is cached: {}; `regatta run` executes that",
            lacking.join("; ")
        );
        return Ok(false);
    }
    let mut interrupts =
        Interrupts::of_this_process(global.exit_with_stdin).or_exit(ExitCode::Local)?;
    let submitted = submit(&prepared.client, spec, &mut interrupts).await?;
    let run = submitted.run_id;
    let ended = follow(prepared.client.runs(), &run, &mut [], &mut interrupts).await;
    ended.map_err(|error| watch_failure(&run, error))?;
    Ok(true)
}

/// What a run would have to execute.
fn lacking(plan: &v1::PlanRunResponse) -> Vec<String> {
    let jobs = plan.jobs.iter().filter_map(|job| {
        let name = visible(&job.job);
        match (job.unplanned_reason.as_str(), to_run(job)) {
            ("", 0) if job.is_build && !job.is_build_cached => Some(format!("the build `{name}`")),
            ("", 0) => None,
            ("", 1) => Some(format!("1 of {} tests of `{name}`", job.planned)),
            ("", tests) => Some(format!("{tests} of {} tests of `{name}`", job.planned)),
            (reason, _) => Some(format!("`{name}`: {}", visible(reason))),
        }
    });
    jobs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_cached_is_named() {
        let job = v1::JobPlan {
            job: "unit".to_owned(),
            planned: 5,
            cached: 3,
            skipped: 2,
            ..v1::JobPlan::default()
        };
        let build = v1::JobPlan {
            job: "make".to_owned(),
            is_build: true,
            is_build_cached: true,
            ..v1::JobPlan::default()
        };
        let lacking = |jobs: &[&v1::JobPlan]| {
            lacking(&v1::PlanRunResponse {
                jobs: jobs.iter().map(|&job| job.clone()).collect(),
                ..v1::PlanRunResponse::default()
            })
        };
        assert_eq!(lacking(&[&job, &build]), [""; 0]);
        let (mut few, mut made, mut unplanned) = (job.clone(), build.clone(), job);
        few.cached = 1;
        made.is_build_cached = false;
        unplanned.unplanned_reason = "no list".to_owned();
        assert_eq!(
            lacking(&[&few, &made, &unplanned]),
            [
                "2 of 5 tests of `unit`",
                "the build `make`",
                "`unit`: no list"
            ]
        );
    }
}
