//! Measures a running fleet through its REAPI services, as a client sees it, and prints JSON.
//! `cargo xtask bench` runs it; by hand:
//! `cargo run --release --example measure -- http://127.0.0.1:8980 IMAGE coordinator=PID agent=PID`

#![expect(clippy::print_stdout, reason = "its result goes to standard output")]

mod actions;
mod blobs;
mod calls;
mod processor;
mod times;

use anyhow::{Context, Result};
use tonic::transport::Channel;

use actions::Actions;
use processor::Processes;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .context("usage: measure URL [IMAGE [NAME=PID ...]]")?;
    let image = arguments.next();
    let fleet = Processes::parse(arguments)?;
    let channel = Channel::from_shared(url.replace("grpc://", "http://"))?
        .tcp_nodelay(true)
        .connect()
        .await?;
    let actions = Actions {
        channel: &channel,
        image: image.as_deref(),
        fleet: &fleet,
    };
    let (action, cached) = actions.measure().await?;
    let measured = serde_json::json!({
        "action": action,
        "call": calls::times(&channel, cached).await?,
        "blob": blobs::throughput(&channel).await?,
    });
    println!("{measured}");
    Ok(())
}
