//! Counts the requests that a build makes to a bucket: with nothing cached, and with everything cached by an
//! earlier coordinator, one that was killed included; small blobs packed, and not. The bucket is an S3 server in this process that counts what it is
//! asked; each coordinator is a process of its own.
//!
//! `cargo run --release -p regatta-server --example requests`, or `cargo xtask bench --only requests`; the
//! counts are much the same without `--release`.
#![expect(clippy::print_stdout, reason = "it prints its measurements")]

mod bucket;
mod build;
mod coordinator_process;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

use bucket::Bucket;
use build::Build;
use coordinator_process::CoordinatorProcess;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// How many actions a build has.
const ACTIONS: u32 = 2000;

/// What a part of a build asked of the bucket.
struct Measured {
    what: &'static str,
    is_packed: bool,
    requests: BTreeMap<String, u64>,
    seconds: f64,
}

#[tokio::main]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, state, url, packing] = arguments.as_slice() {
        assert_eq!(role, coordinator_process::ROLE, "the only role there is");
        return coordinator_process::serve(state, url, packing == "packed").await;
    }
    let mut measured = Vec::new();
    for is_packed in [false, true] {
        measured.extend(measure(is_packed).await?);
    }
    match arguments.iter().any(|argument| argument == "--json") {
        true => print_json(&measured),
        false => print_table(&measured),
    }
    Ok(())
}

/// The parts of builds on one bucket.
struct Measuring {
    bucket: Bucket,
    is_packed: bool,
    started: Instant,
    measured: Vec<Measured>,
}

impl Measuring {
    async fn start(is_packed: bool) -> Outcome<Self> {
        Ok(Self {
            bucket: Bucket::start().await?,
            is_packed,
            started: Instant::now(),
            measured: Vec::new(),
        })
    }

    /// One that knows nothing but the bucket.
    async fn coordinator(&self) -> Outcome<CoordinatorProcess> {
        CoordinatorProcess::start(&self.bucket, self.is_packed).await
    }

    /// Something has ended, and something else begins.
    fn note(&mut self, what: &'static str) {
        let started = std::mem::replace(&mut self.started, Instant::now());
        self.measured.push(Measured {
            what,
            is_packed: self.is_packed,
            requests: self.bucket.take_requests(),
            seconds: started.elapsed().as_secs_f64(),
        });
    }
}

async fn measure(is_packed: bool) -> Outcome<Vec<Measured>> {
    let build = Build::new(ACTIONS);
    let mut measured = after_orderly_stops(&build, is_packed).await?;
    measured.extend(after_kills(&build, is_packed).await?);
    Ok(measured)
}

async fn after_orderly_stops(build: &Build, is_packed: bool) -> Outcome<Vec<Measured>> {
    let mut measuring = Measuring::start(is_packed).await?;
    let coordinator = measuring.coordinator().await?;
    build.run_cold(coordinator.address()).await?;
    coordinator.stop().await?;
    measuring.note("cold");
    let coordinator = measuring.coordinator().await?;
    build.look_up(coordinator.address()).await?;
    measuring.note("warm, results");
    build.download(coordinator.address()).await?;
    coordinator.stop().await?;
    measuring.note("warm, outputs");
    Ok(measuring.measured)
}

/// Each time by one that has the files of the one that was killed, which say nothing of its last seconds.
async fn after_kills(build: &Build, is_packed: bool) -> Outcome<Vec<Measured>> {
    let mut measuring = Measuring::start(is_packed).await?;
    let coordinator = measuring.coordinator().await?;
    build.run_cold(coordinator.address()).await?;
    measuring.note("cold, killed");
    let coordinator = coordinator
        .kill_and_start(&measuring.bucket, is_packed)
        .await?;
    build.look_up(coordinator.address()).await?;
    measuring.note("killed, results");
    let coordinator = coordinator
        .kill_and_start(&measuring.bucket, is_packed)
        .await?;
    build.find_all(coordinator.address()).await?;
    measuring.note("killed, asking");
    build.download(coordinator.address()).await?;
    coordinator.stop().await?;
    measuring.note("killed, outputs");
    Ok(measuring.measured)
}

fn per_action(count: u64) -> f64 {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    f64::from(count) / f64::from(ACTIONS)
}

fn print_table(measured: &[Measured]) {
    println!(
        "{ACTIONS} actions with {} small outputs each; requests per action of a bucket that answers in {:?}",
        build::OUTPUTS,
        bucket::LATENCY
    );
    for part in measured {
        let packing = if part.is_packed { "packed" } else { "apart" };
        let all: u64 = part.requests.values().sum();
        print!(
            "{packing:<7} {:<15} {:7.3} in {:4.1} s:",
            part.what,
            per_action(all),
            part.seconds
        );
        for (operation, count) in &part.requests {
            print!(" {operation} {:.3}", per_action(*count));
        }
        println!();
    }
}

fn print_json(measured: &[Measured]) {
    let parts: Vec<serde_json::Value> = measured
        .iter()
        .map(|part| {
            serde_json::json!({
                "what": part.what,
                "packed": part.is_packed,
                "actions": ACTIONS,
                "outputs_per_action": build::OUTPUTS,
                "bucket_latency_ms": bucket::LATENCY.as_secs_f64() * 1e3,
                "requests": part.requests,
                "requests_per_action": per_action(part.requests.values().sum()),
                "seconds": part.seconds,
            })
        })
        .collect();
    println!("{:#}", serde_json::Value::from(parts));
}
