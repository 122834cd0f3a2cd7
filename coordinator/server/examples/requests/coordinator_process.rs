//! A coordinator in a process of its own: credentials of buckets come from the environment, and what it knows
//! ends with it.

use std::process::Stdio;

use regatta_server::{Coordinator, CoordinatorConfig};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::Outcome;
use super::bucket::Bucket;

/// The first argument of such a process.
pub(super) const ROLE: &str = "coordinator";
/// The tenant whose clients write what they have executed.
pub(super) const TENANT: &str = "main";

pub(super) struct CoordinatorProcess {
    process: Child,
    address: String,
    state: tempfile::TempDir,
}

impl CoordinatorProcess {
    /// Starts one that knows nothing but the bucket.
    pub(super) async fn start(bucket: &Bucket, is_packed: bool) -> Outcome<Self> {
        Self::start_with(tempfile::tempdir()?, bucket, is_packed).await
    }

    async fn start_with(
        state: tempfile::TempDir,
        bucket: &Bucket,
        is_packed: bool,
    ) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let packing = if is_packed { "packed" } else { "apart" };
        command.args([ROLE.as_ref(), state.path().as_os_str()]);
        command.args([&bucket.url(), packing]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.kill_on_drop(true);
        bucket.introduce_to(&mut command);
        let mut process = command.spawn()?;
        let output = process.stdout.take().ok_or("it was asked for")?;
        let line = BufReader::new(output).lines().next_line().await?;
        Ok(Self {
            process,
            address: line.ok_or("the coordinator did not start")?,
            state,
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Kills it, and starts another with its files.
    pub(super) async fn kill_and_start(
        mut self,
        bucket: &Bucket,
        is_packed: bool,
    ) -> Outcome<Self> {
        self.process.kill().await?;
        Self::start_with(self.state, bucket, is_packed).await
    }

    pub(super) async fn stop(mut self) -> Outcome {
        drop(self.process.stdin.take());
        let ended = self.process.wait().await?;
        match ended.success() {
            true => Ok(()),
            false => Err(format!("the coordinator ended with {ended}").into()),
        }
    }
}

/// Is a coordinator until standard input ends.
pub(super) async fn serve(state: &str, url: &str, pack_small_blobs: bool) -> Outcome {
    let mut config = CoordinatorConfig::new(state);
    config.listen.set_port(0);
    config.http_listen = None;
    config.storage = Some(url.to_owned());
    config.pack_small_blobs = pack_small_blobs;
    config.clients_may_write = [TENANT.parse()?].into();
    let coordinator = Coordinator::start(config).await?;
    println!("http://{}", coordinator.grpc_address());
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(coordinator.serve_until(shutdown.clone()));
    let input_ends = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    tokio::task::spawn_blocking(input_ends).await??;
    shutdown.cancel();
    served.await??;
    Ok(())
}
