//! Measures how long it takes to learn anew what runs of a branch show of their tests.
//!
//! `cargo run --release -p regatta-server --example history_of_runs -- RUNS TESTS`, by default 1,000 runs of 1,000 tests.
#![expect(clippy::print_stdout, reason = "it prints its measurements")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use prost::Message as _;
use regatta_ledger::{Ledger, NewRun, RunCounts, RunEnd, SqliteLedger, StoredEvent};
use regatta_model::{RunId, Timestamp, Verdict};
use regatta_server::suites::SuitesService;
use regatta_wire::convert::timestamp_to_wire;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use regatta_wire::v1::suites_server::Suites as _;
use tonic::Request;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// As a coordinator tells them.
const RESULTS_PER_EVENT: u64 = 256;
/// What a result says besides, in bytes.
const OUTPUT_BYTES: usize = 100;

#[tokio::main]
async fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().map_or(Ok(1000), |text| text.parse());
    let (runs, tests): (u64, u64) = (number()?, number()?);
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("ledger.db");
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(&file)?);
    for run in 0..runs {
        tell(ledger.as_ref(), run, tests).await?;
    }
    let bytes = std::fs::metadata(&file)?.len();
    println!("{runs} runs of {tests} tests take {} MB", bytes / 1_000_000);
    let suites = SuitesService::new(ledger, None);
    for branch in [None, Some("main".to_owned())] {
        let request = v1::GetHistoryOfRunsRequest {
            branch,
            ..Default::default()
        };
        let begun = Instant::now();
        let shown = suites.get_history_of_runs(Request::new(request)).await?;
        let pieces: Vec<_> = shown.into_inner().try_collect().await?;
        let (took, shown) = (begun.elapsed(), pieces.len() - 1);
        println!("{shown} tests are learnt anew in {took:.2?}");
    }
    Ok(())
}

/// Has a run tell that all of its tests were executed, while two others go on.
async fn tell(ledger: &dyn Ledger, number: u64, tests: u64) -> Outcome {
    let run: RunId = format!("run{number}").parse()?;
    let begun = Timestamp::EPOCH + Duration::from_secs(100 * number);
    let time = |seconds| begun + Duration::from_secs(seconds);
    let new = NewRun {
        run: run.clone(),
        tenant: "".parse()?,
        description: String::new(),
        commit: String::new(),
        branch: "main".to_owned(),
        committed_at: None,
        submitted_at: begun,
    };
    ledger.start_run(new).await?;
    let started = Event::RunStarted(v1::RunStarted::default());
    let mut told = vec![(time(0), started)];
    for first in (0..tests).step_by(usize::try_from(RESULTS_PER_EVENT)?) {
        let of_event = first..tests.min(first + RESULTS_PER_EVENT);
        let results = of_event.map(result).collect();
        let event = Event::TestsFinished(v1::TestsFinished { results });
        told.push((time(1 + first * 300 / tests), event));
    }
    told.push((time(300), Event::RunFinished(v1::RunFinished::default())));
    let events = told.into_iter().zip(1..).map(|((time, event), sequence)| {
        let event = v1::RunEvent {
            sequence,
            time: Some(timestamp_to_wire(time)),
            event: Some(event),
        };
        StoredEvent {
            sequence,
            bytes: event.encode_to_vec().into(),
            teaches: None,
        }
    });
    let end = RunEnd {
        finished_at: time(300),
        verdict: Verdict::Releasable,
        counts: RunCounts::default(),
        times: None,
    };
    ledger
        .append_events(&run, events.collect(), Some(end))
        .await?;
    Ok(())
}

fn result(number: u64) -> v1::TestResult {
    v1::TestResult {
        job: "unit".to_owned(),
        test_id: format!("crate::module::tests::what_is_tested_{number:05}"),
        status: v1::TestStatus::Passed.into(),
        duration: Some(prost_types::Duration {
            seconds: 0,
            nanos: i32::try_from(number % 1000).unwrap_or_default() * 1_000_000,
        }),
        attempts: 1,
        stdout_tail: vec![b'x'; OUTPUT_BYTES].into(),
        key: Some(regatta_model::Digest::EMPTY.into()),
        ..Default::default()
    }
}
