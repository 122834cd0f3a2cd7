//! Measures a running fleet through its REAPI services, as a client sees it, and prints JSON.
//! `cargo xtask bench` runs it; by hand:
//! `cargo run --release --example measure -- --image IMAGE http://127.0.0.1:8980 coordinator=PID agent=PID`;
//! with `--only blobs http://127.0.0.1:8980` a coordinator alone is enough.

#![expect(clippy::print_stdout, reason = "its result goes to standard output")]

mod actions;
mod blobs;
mod calls;
mod load;
mod processor;
mod soak;
mod times;

use std::time::Duration;

use anyhow::Result;
use clap::Parser as _;
use regatta_cas::for_blobs;
use tonic::transport::{Channel, Endpoint};

use actions::Actions;
use processor::Processes;

/// What to measure.
#[derive(clap::Parser)]
struct Arguments {
    /// Measure this alone.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// The image of the actions that are measured.
    #[arg(long)]
    image: Option<String>,
    /// How long the soak takes.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Where the coordinator listens.
    url: String,
    /// Processes whose processor time is measured, as NAME=PID.
    processes: Vec<String>,
}

/// What can be measured apart.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    /// Calls of the storage services.
    Calls,
    /// One large blob.
    Blobs,
    /// A full queue.
    Load,
    /// Work of all kinds, for long.
    Soak,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let endpoint = Channel::from_shared(arguments.url.replace("grpc://", "http://"))?;
    let channel = for_blobs(endpoint.clone()).connect().await?;
    println!("{}", measure(&endpoint, &channel, &arguments).await?);
    Ok(())
}

async fn measure(
    endpoint: &Endpoint,
    channel: &Channel,
    arguments: &Arguments,
) -> Result<serde_json::Value> {
    let fleet = Processes::parse(arguments.processes.iter())?;
    match arguments.only {
        Some(Part::Calls) => {
            return Ok(serde_json::json!({ "call": calls::times(channel, None).await? }));
        }
        Some(Part::Blobs) => {
            return Ok(serde_json::json!({ "blob": blobs::throughput(channel, &fleet).await? }));
        }
        Some(Part::Load) => {
            let load = load::measure(endpoint, channel, &fleet).await?;
            return Ok(serde_json::json!({ "load": load }));
        }
        Some(Part::Soak) => {
            let length = Duration::from_secs(arguments.minutes * 60);
            let soak = soak::measure(endpoint, channel, length).await?;
            return Ok(serde_json::json!({ "soak": soak }));
        }
        None => {}
    }
    let actions = Actions {
        channel,
        image: arguments.image.as_deref(),
        fleet: &fleet,
    };
    let (action, cached) = actions.measure().await?;
    Ok(serde_json::json!({
        "action": action,
        "call": calls::times(channel, Some(cached)).await?,
        "blob": blobs::throughput(channel, &fleet).await?,
    }))
}
