//! `regatta history`.

mod import;

use std::fmt::Write as _;
use std::io::Write;
use std::time::SystemTime;

use futures::TryStreamExt as _;
use regatta_wire::v1;
use tonic::Code;

use super::table::table;
use crate::client::{Client, refused};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::history::{Rate, Runs, Scope, Test, flakiest, slowest};
use crate::options::{HistoryCommand, HistoryFormat, HistoryOptions};

/// How many of the newest runs are looked at; the coordinator lists no more.
const LOOKED_AT: u32 = 1000;

pub(super) async fn history(client: &Client, options: HistoryOptions) -> Result<ExitCode, Failure> {
    if let Some(HistoryCommand::Import(options)) = options.command {
        return import::import(client, options).await;
    }
    let since = options
        .since
        .map(|since| SystemTime::now().checked_sub(since));
    let scope = Scope {
        branch: options.branch,
        since: since.flatten(),
    };
    let listed = client.list_runs(LOOKED_AT, false).await?;
    let runs = Runs::of(&listed, &scope);
    let tests = tests(client, options.suite.unwrap_or_default()).await?;
    let text = match options.format {
        HistoryFormat::Text => as_text(&runs, &tests, options.limit),
        HistoryFormat::Json => as_json(&runs, &tests),
        HistoryFormat::Csv => as_csv(&tests).or_exit(ExitCode::Local)?,
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .or_exit(ExitCode::Local)?;
    Ok(ExitCode::Good)
}

/// Every test that was ever executed; of one suite, if its name is not empty.
async fn tests(client: &Client, suite: String) -> Result<Vec<Test>, Failure> {
    let failed = |status| refused("read the history", &status);
    let is_all = suite.is_empty();
    let request = v1::GetHistoryRequest {
        instance_name: client.instance().to_owned(),
        suite,
    };
    match client.suites().get_history(request).await {
        Ok(known) => {
            let known = known.into_inner().map_ok(Test::from);
            known.try_collect().await.map_err(failed)
        }
        // Before the first suite has run.
        Err(status) if status.code() == Code::NotFound && is_all => Ok(Vec::new()),
        Err(status) => Err(failed(status)),
    }
}

fn as_text(runs: &Runs, tests: &[Test], limit: usize) -> String {
    let mut text = String::new();
    let Runs {
        ended,
        releasable,
        not_releasable,
        unknown,
        ..
    } = runs;
    let mut line = |name: &str, value: String| {
        let _infallible = writeln!(text, "{name:<9}{value}");
    };
    line(
        "runs",
        format!(
            "{ended}: {releasable} RELEASABLE, {not_releasable} NOT_RELEASABLE, {unknown} UNKNOWN"
        ),
    );
    if let Some((middle, most)) = runs.seconds_p50.zip(runs.seconds_p95) {
        let times = format!("p50 {middle:.1} s, p95 {most:.1} s from submission to verdict");
        line("time", times);
    }
    if runs.tests > 0 {
        let share = runs.cached as f64 / runs.tests as f64;
        let cached = format!("{:.1} % of {} tests", share * 100.0, runs.tests);
        line("cached", cached);
    }
    let rows: Vec<_> = slowest(tests, limit)
        .into_iter()
        .map(|test| {
            let time = format!("{:.2} s", test.expected_seconds);
            [time, test.runs.to_string(), name(test)]
        })
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(["TIME", "RUNS", "SLOWEST TESTS"], &rows));
    }
    let rows: Vec<_> = flakiest(tests, limit)
        .into_iter()
        .map(|test| {
            let often = format!("{} of {}", test.flakes, test.runs);
            [percent(&test.flake_rate), often, name(test)]
        })
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        let headings = ["FLAKY (95 %)", "RUNS", "FLAKIEST TESTS"];
        text.push_str(&table(headings, &rows));
    }
    text
}

fn name(test: &Test) -> String {
    let text = format!("{} {}", test.suite, test.test);
    // What a test is called is its project's choice; a terminal is not to act on it.
    text.chars()
        .map(|it| if it.is_control() { '?' } else { it })
        .collect()
}

/// `7.5 % (2.6 to 19.9)`
fn percent(rate: &Rate) -> String {
    let Rate { share, low, high } = rate;
    let of = |share: &f64| share * 100.0;
    format!("{:.1} % ({:.1} to {:.1})", of(share), of(low), of(high))
}

fn as_json(runs: &Runs, tests: &[Test]) -> String {
    let mut text = serde_json::json!({ "runs": runs, "tests": tests }).to_string();
    text.push('\n');
    text
}

/// The tests, a line each.
fn as_csv(tests: &[Test]) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "suite",
        "test",
        "expected_seconds",
        "runs",
        "failures",
        "flakes",
        "flake_rate",
        "flake_rate_low",
        "flake_rate_high",
    ])?;
    for test in tests {
        let Rate { share, low, high } = test.flake_rate;
        let figures = [test.expected_seconds, share, low, high].map(|it| it.to_string());
        let [expected, share, low, high] = figures;
        let counts = [test.runs, test.failures, test.flakes].map(|it| it.to_string());
        let [runs, failures, flakes] = counts;
        let (suite, id) = (test.suite.clone(), test.test.clone());
        writer.write_record([
            suite, id, expected, runs, failures, flakes, share, low, high,
        ])?;
    }
    let bytes = writer
        .into_inner()
        .map_err(csv::IntoInnerError::into_error)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str, flakes: u64) -> Test {
        Test::from(v1::TestHistory {
            suite: "unit".to_owned(),
            test_id: name.to_owned(),
            expected: Some(prost_types::Duration {
                seconds: 1,
                nanos: 500_000_000,
            }),
            runs: 40,
            flakes,
            ..v1::TestHistory::default()
        })
    }

    #[test]
    fn people_see_where_time_and_trust_go() {
        let summary = v1::RunSummary {
            submitted_at: Some(prost_types::Timestamp {
                seconds: 10,
                nanos: 0,
            }),
            finished_at: Some(prost_types::Timestamp {
                seconds: 12,
                nanos: 0,
            }),
            verdict: v1::Verdict::Releasable.into(),
            counts: Some(v1::Counts {
                planned: 4,
                cached: 3,
                ..v1::Counts::default()
            }),
            ..v1::RunSummary::default()
        };
        let runs = Runs::of(&[summary], &Scope::default());
        let text = as_text(&runs, &[test("a\u{1b}[2J", 0), test("b", 3)], 1);
        assert_eq!(
            text,
            "runs     1: 1 RELEASABLE, 0 NOT_RELEASABLE, 0 UNKNOWN\n\
             time     p50 2.0 s, p95 2.0 s from submission to verdict\n\
             cached   75.0 % of 4 tests\n\n\
             TIME    RUNS  SLOWEST TESTS\n\
             1.50 s  40    unit a?[2J\n\n\
             FLAKY (95 %)         RUNS     FLAKIEST TESTS\n\
             7.5 % (2.6 to 19.9)  3 of 40  unit b\n"
        );
        let nothing = as_text(&Runs::of(&[], &Scope::default()), &[], 10);
        assert_eq!(nothing.lines().count(), 1, "{nothing}");
    }

    #[test]
    fn machines_get_whole_names() {
        let csv = as_csv(&[test("a,\"b\"\nc", 0)]).expect("is written");
        assert!(
            csv.contains("unit,\"a,\"\"b\"\"\nc\",1.5,40,0,0,0,0,"),
            "{csv}"
        );
        let json = as_json(&Runs::of(&[], &Scope::default()), &[test("a", 1)]);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["tests"][0]["flake_rate"]["share"], 0.025);
    }
}
