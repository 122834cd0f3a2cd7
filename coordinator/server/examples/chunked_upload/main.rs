//! Measures what a large file costs that changed a little: the bytes that a client sends, over TCP, to bring
//! it to a coordinator, and that another receives to have it as a file, as agents do.
//!
//! `cargo run --release -p regatta-server --example chunked_upload`; the bytes are the same without `--release`.
#![expect(clippy::print_stdout, reason = "it prints its measurements")]

mod counting_proxy;
mod edits;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use counting_proxy::CountingProxy;
use edits::{edited, noise};
use regatta_cas::{DiskCache, DiskCacheSettings, DiskTier, GrpcBlobStore, put_bytes};
use regatta_model::Digest;
use regatta_server::{Coordinator, CoordinatorConfig};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const FILE_BYTES: usize = 200_000_000;

#[tokio::main]
async fn main() -> Outcome {
    let state = tempfile::tempdir()?;
    let mut config = CoordinatorConfig::new(state.path());
    config.listen.set_port(0);
    config.http_listen = None;
    let coordinator = Coordinator::start(config).await?;
    let proxy = CountingProxy::start(coordinator.grpc_address()).await?;
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(coordinator.serve_until(shutdown.clone()));
    measure(&proxy, &state.path().join("agent")).await?;
    shutdown.cancel();
    served.await??;
    Ok(())
}

async fn measure(proxy: &CountingProxy, agent: &Path) -> Outcome {
    let endpoint = Endpoint::from_shared(format!("http://{}", proxy.address()))?;
    let store = GrpcBlobStore::new(endpoint.connect().await?, "");
    let files = files(endpoint.connect().await?, agent)?;
    let file = noise(FILE_BYTES, 1);
    let contiguous = edited(&file, 1, 2);
    let spread = edited(&file, 10, 3);
    let versions = [
        ("the file, new", file.clone()),
        ("the file again", file),
        ("1% edited in one place", contiguous),
        ("1% edited in 10 places", spread),
    ];
    for (name, file) in versions {
        let (file_bytes, started) = (file.len(), Instant::now());
        let digest = put_bytes(&store, file.into()).await?;
        report(name, file_bytes, ("sent", proxy.take_sent_bytes()), started);
        proxy.take_received_bytes();
        let started = Instant::now();
        files.file(&digest, true).await?;
        report(
            name,
            file_bytes,
            ("received", proxy.take_received_bytes()),
            started,
        );
        proxy.take_sent_bytes();
    }
    Ok(())
}

/// Where an agent keeps the files of its jobs.
fn files(channel: Channel, directory: &Path) -> Outcome<DiskTier> {
    let cache = DiskCache::open(DiskCacheSettings {
        directory: directory.to_owned(),
        capacity_bytes: u64::MAX,
        min_free_bytes: 0,
    })?;
    let server = Arc::new(GrpcBlobStore::new(channel, ""));
    let tier = cache.tier(Arc::clone(&server) as _, &Digest::EMPTY);
    Ok(tier.with_chunks(server))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(name: &str, file_bytes: usize, (way, bytes): (&str, u64), started: Instant) {
    let share = 100.0 * bytes as f64 / file_bytes as f64;
    let took = started.elapsed();
    println!(
        "{name:<26} {file_bytes:>11} bytes: {bytes:>11} {way:<8} ({share:6.2}%) in {took:.1?}"
    );
}
