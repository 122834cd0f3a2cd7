//! `regatta history`.

mod import;

use std::fmt::Write as _;
use std::io::Write;
use std::time::SystemTime;

use futures::TryStreamExt as _;
use regatta_wire::v1;
use regatta_wire::v1::history_of_runs::Piece;
use tonic::{Code, Status};

use super::table::table;
use crate::client::{Client, refused};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::history::{Group, Rate, Runs, Scope, Test, flakiest, groups, slowest, system_time};
use crate::options::{HistoryCommand, HistoryFormat, HistoryOptions};
use crate::standard_output::standard_output;
use crate::terminal::{HarmlessText, visible_json};

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
    let listed = client.list_runs(LOOKED_AT, false).await?.runs;
    let runs = Runs::of(&listed, &scope);
    let apart = options.by.map(|by| groups(&listed, &scope, by));
    let suite = options.suite.unwrap_or_default();
    let Tests { tests, notes } = match scope == Scope::default() {
        true => all_tests(client, suite).await?,
        false => tests_of_runs(client, suite, &scope).await?,
    };
    if options.format != HistoryFormat::Text {
        notes.iter().for_each(|note| tracing::warn!("{note}"));
    }
    let text = match (options.format, apart) {
        (HistoryFormat::Text, apart) => {
            let mut text = as_text(&runs, &notes, &tests, options.limit);
            text.push_str(
                &apart
                    .map(|apart| groups_as_text(&apart))
                    .unwrap_or_default(),
            );
            text
        }
        (HistoryFormat::Json, apart) => as_json(&runs, &apart.unwrap_or_default(), &tests),
        (HistoryFormat::Csv, Some(apart)) => groups_as_csv(&apart).or_exit(ExitCode::Local)?,
        (HistoryFormat::Csv, None) => as_csv(&tests).or_exit(ExitCode::Local)?,
    };
    let mut stdout = standard_output();
    // Names in a table for programs are whole.
    let text = match stdout.is_terminal() {
        true => HarmlessText::whole(text.as_bytes()),
        false => text.into_bytes(),
    };
    stdout.write_all(&text).or_exit(ExitCode::Local)?;
    Ok(ExitCode::Good)
}

/// What is known of tests.
#[derive(Default)]
struct Tests {
    tests: Vec<Test>,
    /// What is missing in it, for people.
    notes: Vec<String>,
}

/// Every test that was ever executed; of one suite, if its name is not empty.
async fn all_tests(client: &Client, suite: String) -> Result<Tests, Failure> {
    let is_all = suite.is_empty();
    let request = v1::GetHistoryRequest {
        instance_name: client.instance().to_owned(),
        suite,
    };
    match client.suites().get_history(request).await {
        Ok(known) => {
            let known = known.into_inner().map_ok(Test::from);
            let tests = known.try_collect().await.map_err(unread)?;
            let notes = Vec::new();
            Ok(Tests { tests, notes })
        }
        Err(status) => nothing_yet(is_all, status),
    }
}

/// The tests that the runs in scope have executed, with what these alone show of them.
async fn tests_of_runs(client: &Client, suite: String, scope: &Scope) -> Result<Tests, Failure> {
    let is_all = suite.is_empty();
    let request = v1::GetHistoryOfRunsRequest {
        instance_name: client.instance().to_owned(),
        suite,
        branch: scope.branch.clone(),
        since: scope.since.map(Into::into),
    };
    let mut shown = match client.suites().get_history_of_runs(request).await {
        Ok(shown) => shown.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => return Err(too_old()),
        Err(status) => return nothing_yet(is_all, status),
    };
    let mut tests = Tests::default();
    while let Some(piece) = shown.message().await.map_err(unread)? {
        match piece.piece {
            Some(Piece::LookedAt(looked_at)) => tests.notes = missing(&looked_at, scope),
            Some(Piece::Test(test)) => tests.tests.push(test.into()),
            None => {}
        }
    }
    Ok(tests)
}

fn unread(status: Status) -> Failure {
    refused("read the history", &status)
}

/// Before the first suite has run there is no history, which is no failure.
fn nothing_yet(is_all: bool, status: Status) -> Result<Tests, Failure> {
    match status.code() == Code::NotFound && is_all {
        true => Ok(Tests::default()),
        false => Err(unread(status)),
    }
}

fn too_old() -> Failure {
    let text = "this coordinator is of an earlier release, which knows of tests only on any branch at any time: bring it up to \
                date, or ask without --branch and --since";
    Failure::new(ExitCode::BadConfiguration, text)
}

/// What is missing of the runs that were asked for.
fn missing(looked_at: &v1::RunsLookedAt, scope: &Scope) -> Vec<String> {
    let complete = looked_at.complete_since.as_ref().and_then(system_time);
    let complete = complete.filter(|complete| scope.since.is_some_and(|since| since < *complete));
    let complete = complete.and_then(|time| jiff::Timestamp::try_from(time).ok());
    let complete = complete.and_then(|time| time.round(jiff::Unit::Second).ok());
    let older = complete.map(|complete| {
        format!(
            "runs that were submitted before {complete} may be missing: they are kept no longer (--keep-runs), or are not \
             among the newest {LOOKED_AT}"
        )
    });
    let damage = looked_at.damage.iter();
    let damage = damage.map(|text| format!("nothing is learnt from what cannot be read: {text}"));
    older.into_iter().chain(damage).collect()
}

fn as_text(runs: &Runs, notes: &[String], tests: &[Test], limit: usize) -> String {
    let mut text = String::new();
    let Runs {
        ended,
        releasable,
        not_releasable,
        unknown,
        ..
    } = runs;
    let mut line = |name: &str, value: String| {
        let _infallible = writeln!(text, "{name:<11}{value}");
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
    if let Some((middle, most)) = runs.lead_seconds_p50.zip(runs.lead_seconds_p95) {
        let times =
            format!("p50 {middle:.1} s, p95 {most:.1} s from the commit to its first answer");
        line("lead time", times);
    }
    if let Some((middle, most)) = runs.queued_seconds_p50.zip(runs.queued_seconds_p95) {
        let share = 100.0 * runs.queued_seconds / (runs.queued_seconds + runs.worked_seconds);
        let sum = if share.is_finite() { share } else { 0.0 };
        let times = format!(
            "p50 {middle:.1} s, p95 {most:.1} s a run, of all leases together; {sum:.1} % of their time"
        );
        line("queued", times);
    }
    if let Some((middle, most)) = runs.worked_seconds_p50.zip(runs.worked_seconds_p95) {
        line(
            "worked",
            format!("p50 {middle:.1} s, p95 {most:.1} s a run"),
        );
    }
    if runs.tests > 0 {
        let cached = format!("{} of {} tests", share(runs.cached, runs.tests), runs.tests);
        line("cached", cached);
    }
    text.push_str(&tests_as_text(notes, tests, limit));
    text
}

fn tests_as_text(notes: &[String], tests: &[Test], limit: usize) -> String {
    let mut text = String::new();
    if !notes.is_empty() {
        let _infallible = writeln!(text, "\n{}", notes.join("\n"));
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
    format!("{} {}", test.suite, test.test)
}

fn share(part: u64, of: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / of as f64)
}

/// A line for each group, and whence its time.
fn groups_as_text(groups: &[Group]) -> String {
    let seconds = |time: Option<f64>| time.map(|time| format!("{time:.1} s")).unwrap_or_default();
    let rows: Vec<_> = groups
        .iter()
        .map(|Group { name, runs }| {
            [
                name.clone(),
                runs.ended.to_string(),
                runs.releasable.to_string(),
                seconds(runs.seconds_p50),
                seconds(runs.seconds_p95),
                seconds(runs.lead_seconds_p50),
                seconds(runs.lead_seconds_p95),
                seconds(Some(runs.queued_seconds)),
                seconds(Some(runs.worked_seconds)),
                match runs.tests {
                    0 => String::new(),
                    tests => share(runs.cached, tests),
                },
                runs.failed.to_string(),
                runs.flaky.to_string(),
            ]
        })
        .collect();
    let headings = [
        "RUNS OF",
        "ENDED",
        "RELEASABLE",
        "P50",
        "P95",
        "LEAD P50",
        "LEAD P95",
        "QUEUED",
        "WORKED",
        "CACHED",
        "FAILED",
        "FLAKY",
    ];
    format!("\n{}", table(headings, &rows))
}

/// The groups, a line each, with every figure.
fn groups_as_csv(groups: &[Group]) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "name",
        "ended",
        "releasable",
        "not_releasable",
        "unknown",
        "seconds_p50",
        "seconds_p95",
        "lead_seconds_p50",
        "lead_seconds_p95",
        "queued_seconds_p50",
        "queued_seconds_p95",
        "worked_seconds_p50",
        "worked_seconds_p95",
        "queued_seconds",
        "worked_seconds",
        "tests",
        "cached",
        "failed",
        "flaky",
    ])?;
    for Group { name, runs } in groups {
        let counts = [
            runs.ended,
            runs.releasable,
            runs.not_releasable,
            runs.unknown,
        ];
        let times = [
            runs.seconds_p50,
            runs.seconds_p95,
            runs.lead_seconds_p50,
            runs.lead_seconds_p95,
            runs.queued_seconds_p50,
            runs.queued_seconds_p95,
            runs.worked_seconds_p50,
            runs.worked_seconds_p95,
            Some(runs.queued_seconds),
            Some(runs.worked_seconds),
        ];
        let counted = [runs.tests, runs.cached, runs.failed, runs.flaky];
        let times = times.map(|time| time.map(|time| time.to_string()).unwrap_or_default());
        let record = std::iter::once(name.clone())
            .chain(counts.map(|count| count.to_string()))
            .chain(times)
            .chain(counted.map(|count| count.to_string()));
        writer.write_record(record)?;
    }
    written(writer)
}

fn written(writer: csv::Writer<Vec<u8>>) -> Result<String, csv::Error> {
    let bytes = writer
        .into_inner()
        .map_err(csv::IntoInnerError::into_error)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `7.5 % (2.6 to 19.9)`
fn percent(rate: &Rate) -> String {
    let Rate { share, low, high } = rate;
    let of = |share: &f64| share * 100.0;
    format!("{:.1} % ({:.1} to {:.1})", of(share), of(low), of(high))
}

fn as_json(runs: &Runs, groups: &[Group], tests: &[Test]) -> String {
    let all = serde_json::json!({ "runs": runs, "groups": groups, "tests": tests });
    let mut text = visible_json(&all.to_string()).into_owned();
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
    written(writer)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::options::Grouping;

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
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
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
            committed_at: Some(prost_types::Timestamp::default()),
            times: Some(v1::RunTimes {
                queued: seconds(1),
                worked: seconds(3),
                took: seconds(2),
            }),
            counts: Some(v1::Counts {
                planned: 4,
                cached: 3,
                flaky: 1,
                ..v1::Counts::default()
            }),
            ..v1::RunSummary::default()
        };
        let runs = Runs::of(std::slice::from_ref(&summary), &Scope::default());
        let tests = [test("a\u{1b}[2J", 0), test("b", 3)];
        let text = as_text(&runs, &[], &tests, 1);
        assert_eq!(
            text,
            "runs       1: 1 RELEASABLE, 0 NOT_RELEASABLE, 0 UNKNOWN\n\
             time       p50 2.0 s, p95 2.0 s from submission to verdict\n\
             lead time  p50 12.0 s, p95 12.0 s from the commit to its first answer\n\
             queued     p50 1.0 s, p95 1.0 s a run, of all leases together; 25.0 % of their time\n\
             worked     p50 3.0 s, p95 3.0 s a run\n\
             cached     75.0 % of 4 tests\n\n\
             TIME    RUNS  SLOWEST TESTS\n\
             1.50 s  40    unit a\\u{1b}[2J\n\n\
             FLAKY (95 %)         RUNS     FLAKIEST TESTS\n\
             7.5 % (2.6 to 19.9)  3 of 40  unit b\n"
        );
        let noted = as_text(&runs, &["all of them".to_owned()], &tests, 1);
        assert!(noted.contains("tests\n\nall of them\n\nTIME "), "{noted}");
        let apart = groups(&[summary], &Scope::default(), Grouping::Month);
        assert_eq!(
            groups_as_text(&apart),
            "\nRUNS OF  ENDED  RELEASABLE  P50    P95    LEAD P50  LEAD P95  QUEUED  WORKED  CACHED  FAILED  FLAKY\n\
             1970-01  1      1           2.0 s  2.0 s  12.0 s    12.0 s    1.0 s   3.0 s   75.0 %  0       1\n"
        );
        let csv = groups_as_csv(&apart).expect("is written");
        assert!(
            csv.ends_with("\n1970-01,1,1,0,0,2,2,12,12,1,1,3,3,1,3,4,3,0,1\n"),
            "{csv}"
        );
        let nothing = as_text(&Runs::of(&[], &Scope::default()), &[], &[], 10);
        assert_eq!(nothing.lines().count(), 1, "{nothing}");
    }

    #[test]
    fn what_is_missing_is_said_to_whoever_asks_for_it() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let looked_at = v1::RunsLookedAt {
            complete_since: Some(at(86_400).into()),
            damage: vec!["run r: event 3 cannot be read".to_owned()],
            ..Default::default()
        };
        let of = |since: Option<u64>| {
            let scope = Scope {
                since: since.map(at),
                ..Scope::default()
            };
            missing(&looked_at, &scope)
        };
        let damage = "nothing is learnt from what cannot be read: run r: event 3 cannot be read";
        assert_eq!(of(None), [damage]);
        assert_eq!(of(Some(86_400)), [damage]);
        let [older, _] = &of(Some(86_399))[..] else {
            panic!("both are said");
        };
        assert!(older.contains("before 1970-01-02T00:00:00Z"), "{older}");
    }

    #[tokio::test]
    async fn a_coordinator_of_an_earlier_release_is_not_taken_for_one_without_tests() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let url = format!("grpc://{}", listener.local_addr().expect("it is bound"));
        let knows_nothing = tonic::service::Routes::default();
        let server = tonic::transport::Server::builder().add_routes(knows_nothing);
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let serving = tokio::spawn(server.serve_with_incoming(incoming));
        let client = Client::connect(&url, "").await.expect("connects");
        let scope = Scope {
            branch: Some("main".to_owned()),
            since: None,
        };
        let shown = tests_of_runs(&client, String::new(), &scope).await;
        let failure = shown.map(|it| it.tests).expect_err("it is not known");
        assert_eq!(failure.code, ExitCode::BadConfiguration);
        let said = failure.error.to_string();
        assert!(said.contains("of an earlier release"), "{said}");
        serving.abort();
    }

    #[test]
    fn machines_get_whole_names() {
        let csv = as_csv(&[test("a,\"b\"\nc", 0)]).expect("is written");
        assert!(
            csv.contains("unit,\"a,\"\"b\"\"\nc\",1.5,40,0,0,0,0,"),
            "{csv}"
        );
        let json = as_json(&Runs::of(&[], &Scope::default()), &[], &[test("a", 1)]);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["tests"][0]["flake_rate"]["share"], 0.025);
    }
}
