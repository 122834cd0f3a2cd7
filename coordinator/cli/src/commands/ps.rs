//! `regatta ps`.

use std::io::Write;
use std::time::{Duration, SystemTime};

use regatta_wire::v1;

use super::table::table;
use crate::client::Client;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::history::system_time;
use crate::options::ListFormat;
use crate::standard_output::standard_output;
use crate::terminal::visible_json;

pub(super) async fn ps(
    client: &Client,
    all: bool,
    limit: u32,
    format: ListFormat,
) -> Result<ExitCode, Failure> {
    let v1::ListRunsResponse { runs, held } = client.list_runs(limit, !all).await?;
    if !held.is_empty() {
        tracing::warn!("nothing new is begun: {held}");
    }
    let text = match format {
        ListFormat::Table => as_table(&runs, SystemTime::now()),
        ListFormat::Json => as_json(&runs),
    };
    standard_output()
        .write_all(text.as_bytes())
        .or_exit(ExitCode::Local)?;
    Ok(ExitCode::Good)
}

fn as_table(runs: &[v1::RunSummary], now: SystemTime) -> String {
    let rows: Vec<_> = runs
        .iter()
        .map(|run| {
            let submitted = run.submitted_at.as_ref().and_then(system_time);
            let age = submitted.and_then(|time| now.duration_since(time).ok());
            [
                run.run_id.clone(),
                state(run).to_owned(),
                tests(run.counts.as_ref()),
                age.map(short).unwrap_or_default(),
                run.branch.clone(),
                run.commit.chars().take(10).collect(),
                run.description.clone(),
            ]
        })
        .collect();
    table(
        [
            "RUN",
            "STATE",
            "TESTS",
            "AGE",
            "BRANCH",
            "COMMIT",
            "DESCRIPTION",
        ],
        &rows,
    )
}

fn state(run: &v1::RunSummary) -> &'static str {
    if run.finished_at.is_none() {
        return "RUNNING";
    }
    match run.verdict() {
        v1::Verdict::Releasable => "RELEASABLE",
        v1::Verdict::NotReleasable => "NOT_RELEASABLE",
        v1::Verdict::Unknown | v1::Verdict::Unspecified => "UNKNOWN",
    }
}

/// `120 passed, 3 failed of 130`
fn tests(counts: Option<&v1::Counts>) -> String {
    let Some(counts) = counts.filter(|counts| counts.planned > 0) else {
        return String::new();
    };
    let good = u64::from(counts.passed) + u64::from(counts.flaky) + u64::from(counts.cached);
    match counts.failed {
        0 => format!("{good}/{}", counts.planned),
        failed => format!("{good}/{} ({failed} failed)", counts.planned),
    }
}

/// A duration in its largest unit.
pub(super) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

fn as_json(runs: &[v1::RunSummary]) -> String {
    let mut text = String::new();
    for run in runs {
        let time = |timestamp: &Option<prost_types::Timestamp>| {
            let time = timestamp.as_ref().and_then(system_time);
            time.and_then(|time| jiff::Timestamp::try_from(time).ok())
                .map(|time| time.to_string())
        };
        let counts = run.counts.unwrap_or_default();
        let object = serde_json::json!({
            "run_id": run.run_id,
            "state": state(run),
            "description": run.description,
            "commit": run.commit,
            "branch": run.branch,
            "submitted_at": time(&run.submitted_at),
            "finished_at": time(&run.finished_at),
            "counts": {
                "planned": counts.planned,
                "passed": counts.passed,
                "flaky": counts.flaky,
                "failed": counts.failed,
                "cached": counts.cached,
                "skipped": counts.skipped,
                "not_run": counts.not_run,
                "quarantined": counts.quarantined,
            },
        });
        text.push_str(&visible_json(&object.to_string()));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> v1::RunSummary {
        v1::RunSummary {
            run_id: "r1".to_owned(),
            description: "regatta test".to_owned(),
            commit: "0123456789abcdef".to_owned(),
            branch: "main".to_owned(),
            committed_at: None,
            times: None,
            submitted_at: Some(prost_types::Timestamp {
                seconds: 100,
                nanos: 0,
            }),
            finished_at: Some(prost_types::Timestamp {
                seconds: 160,
                nanos: 0,
            }),
            verdict: v1::Verdict::NotReleasable.into(),
            counts: Some(v1::Counts {
                planned: 3,
                passed: 2,
                failed: 1,
                ..v1::Counts::default()
            }),
        }
    }

    #[test]
    fn a_run_is_a_row() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(300);
        assert_eq!(
            as_table(&[run()], now),
            "RUN  STATE           TESTS           AGE  BRANCH  COMMIT      DESCRIPTION\n\
             r1   NOT_RELEASABLE  2/3 (1 failed)  3m   main    0123456789  regatta test\n"
        );
    }

    #[test]
    fn a_run_is_an_object() {
        let text = as_json(&[run(), v1::RunSummary::default()]);
        let first: serde_json::Value =
            serde_json::from_str(text.lines().next().unwrap_or_default()).expect("JSON");
        assert_eq!(first["submitted_at"], "1970-01-01T00:01:40Z");
        assert_eq!(first["counts"]["failed"], 1);
        assert_eq!(text.lines().count(), 2);
    }
}
