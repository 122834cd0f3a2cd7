//! The output of a command that runs: where it goes, and what keeps it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use regatta_wire::v1;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::execution::ExecutionContext;
use super::output_spool::{Captured, LiveStream, output_pipe, spool};
use crate::lease_spec::Execution;
use crate::outcome::Refusal;

/// How long an execution lasts before its output is sent as it comes.
const LIVE_OUTPUT_AFTER: Duration = Duration::from_millis(200);
/// How long output may still come after the last process has ended.
const OUTPUT_END_LIMIT: Duration = Duration::from_secs(5);

impl ExecutionContext<'_> {
    /// Where an execution writes to, and what keeps it.
    pub(super) fn output(&self, execution: &Execution) -> Result<([OwnedFd; 2], Output), Refusal> {
        let opened = |error: io::Error| Refusal::infrastructure(format!("no pipe: {error}"));
        let (stdout, stdout_reader) = output_pipe().map_err(opened)?;
        let (stderr, stderr_reader) = output_pipe().map_err(opened)?;
        let keep = |reader, stream| {
            let live = self.live(execution, stream);
            let settings = self.workshop.spool.clone();
            let keep = async move { spool(reader, &settings, live).await };
            tokio::spawn(keep.in_current_span())
        };
        let output = Output {
            stdout: keep(stdout_reader, v1::OutputStream::Stdout),
            stderr: keep(stderr_reader, v1::OutputStream::Stderr),
        };
        Ok(([stdout, stderr], output))
    }

    /// Where a stream of an execution goes as it comes, if that is wanted.
    pub(super) fn live(
        &self,
        execution: &Execution,
        stream: v1::OutputStream,
    ) -> Option<LiveStream> {
        self.spec.stream_output.then(|| LiveStream {
            sender: self.workshop.live.clone(),
            lease: self.key.lease,
            token: self.key.token,
            unit: execution.unit,
            stream,
            begins_at: Instant::now() + LIVE_OUTPUT_AFTER,
        })
    }
}

/// The output streams of a command that runs.
#[derive(Debug)]
pub(super) struct Output {
    stdout: JoinHandle<io::Result<Captured>>,
    stderr: JoinHandle<io::Result<Captured>>,
}

impl Output {
    pub(super) async fn finish(mut self) -> Result<(Captured, Captured), Refusal> {
        let both = async { tokio::join!(&mut self.stdout, &mut self.stderr) };
        let Ok((stdout, stderr)) = tokio::time::timeout(OUTPUT_END_LIMIT, both).await else {
            self.stdout.abort();
            self.stderr.abort();
            let message = "a process that outlived its command holds its output open";
            return Err(Refusal::infrastructure(message));
        };
        let kept = |ended: Result<io::Result<Captured>, _>| {
            let ended = ended.map_err(io::Error::other).flatten();
            ended.map_err(|error| {
                Refusal::infrastructure(format!("the output could not be kept: {error}"))
            })
        };
        Ok((kept(stdout)?, kept(stderr)?))
    }
}
