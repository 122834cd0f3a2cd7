//! One execution in a slot's container, from the view to the result.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_cas::{BlobStore, StoreError};
use regatta_model::SlotIndex;
use regatta_runtime::{ContainerCommand, Exit, ExitStatus, Usage};
use regatta_wire::{reapi, v1};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::collect::{CollectError, CollectLimits, Collected, collect};
use super::container_holder::ContainerHolder;
use super::output_spool::{Captured, CapturedBody};
use super::program_message::{Sought, exit_code as exit_code_of_exec};
use super::publish::{PublishError, publish_captured, publish_outputs};
use super::view::{View, make_directories};
use super::worker::Workshop;
use crate::lease_spec::{Execution, LeaseSpec};
use crate::outcome::{Outcome, Refusal, is_caused_by_files, usage_to_wire};
use crate::timestamps::{Moments, now};

/// Where programs are looked for when neither the command nor the image says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of each stream is in the result itself, so that nobody has to fetch it.
const INLINE_BYTES: usize = 4 << 10;
/// What a shell says of a process that a signal ended.
const SIGNAL_EXIT_CODE_BASE: i32 = 128;
const SIGKILL: i32 = 9;

/// What all executions of a lease have in common.
#[derive(Debug)]
pub(crate) struct ExecutionContext<'a> {
    pub(crate) workshop: &'a Workshop,
    pub(crate) key: regatta_agent_core::LeaseKey,
    pub(crate) spec: &'a LeaseSpec,
    pub(crate) store: &'a Arc<dyn BlobStore>,
    pub(crate) cancel: &'a CancellationToken,
}

/// An execution that has ended, with all that its view held of it stored.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(super) exit: Exit,
    pub(super) ended_at: Instant,
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
    pub(super) outputs: Outputs,
    pub(super) image_id: String,
    pub(super) moments: Moments,
}

/// What an execution left behind.
#[derive(Debug)]
pub(super) enum Outputs {
    /// Everything that was declared and is there; it is stored.
    Stored(Collected),
    /// They are such that they cannot be had, and why. How the command ended and what it wrote counts all
    /// the same.
    Unusable { reason: String },
}

impl Outputs {
    /// Whether there is nothing of what was declared.
    pub(super) fn are_none(&self) -> bool {
        match self {
            Self::Stored(found) => {
                found.files.is_empty() && found.symlinks.is_empty() && found.directories.is_empty()
            }
            Self::Unusable { .. } => false,
        }
    }
}

impl ExecutionContext<'_> {
    /// Runs one execution; `None` if it was cancelled. The view is still there afterwards.
    pub(crate) async fn run(
        &self,
        holder: &mut ContainerHolder,
        execution: &Execution,
        mut moments: Moments,
        tree: &Path,
    ) -> Result<Option<Executed>, Refusal> {
        let begun = Instant::now();
        let Some(view) = self.mount(holder, tree).await? else {
            return Ok(None);
        };
        self.prepare(&view).await?;
        let (streams, output) = self.output(execution)?;
        let command = self.command(execution, holder.search_path(), streams);
        let sought = Sought::new(&command, &self.spec.shape);
        let exit = holder.execute(command, self.cancel.clone()).await;
        let ended_at = Instant::now();
        let exit = exit.map_err(|error| Refusal::from(&error))?;
        moments.execution_end = now();
        moments.execution_start = moments.execution_end - exit.wall_time;
        moments.output_upload_start = moments.execution_end;
        metrics::histogram!("regatta_agent_exec_seconds").record(exit.wall_time);
        let (stdout, mut stderr) = output.finish().await?;
        let disk = &self.workshop.disk;
        disk.had_room_for(&exit.status, begun).await?;
        match exit.status {
            ExitStatus::Cancelled => return Ok(None),
            ExitStatus::NotStarted { errno } => stderr = Captured::of(sought.explain(errno)),
            ExitStatus::Code(_)
            | ExitStatus::Signal(_)
            | ExitStatus::TimedOut
            | ExitStatus::OutOfMemory => {}
        }
        let Some(outputs) = self.outputs(&view).await? else {
            return Ok(None);
        };
        let image_id = holder.image_id().to_owned();
        Ok(Some(Executed {
            exit,
            ended_at,
            stdout,
            stderr,
            outputs,
            image_id,
            moments,
        }))
    }

    /// A fresh view of a tree; `None` if it was cancelled.
    pub(super) async fn mount(
        &self,
        holder: &mut ContainerHolder,
        tree: &Path,
    ) -> Result<Option<View>, Refusal> {
        let shape = &self.spec.shape;
        let mounted = tokio::select! {
            mounted = holder.mount(shape, tree) => Some(mounted),
            () = self.cancel.cancelled() => None,
        };
        let Some(mounted) = mounted else {
            // It was left in the middle of something.
            holder.discard().await;
            return Ok(None);
        };
        let mounted = mounted.map_err(|error| Refusal::from(&error))?;
        Ok(Some(View::new(mounted, shape.root)))
    }

    /// The directories that a command may count on: its own, and those that its outputs go to.
    pub(super) async fn prepare(&self, view: &View) -> Result<(), Refusal> {
        let outputs = self.spec.outputs.iter();
        let directories = outputs.map(|output| match output.made_ahead {
            true => output.path.as_path(),
            false => output.path.parent(),
        });
        let mut needed: Vec<_> = directories.map(Path::to_owned).collect();
        needed.push(self.spec.working_directory.as_path().to_owned());
        needed.retain(|path| !path.as_os_str().is_empty());
        needed.sort();
        needed.dedup();
        if needed.is_empty() {
            return Ok(());
        }
        let view = view.clone();
        let made = tokio::task::spawn_blocking(move || {
            needed.iter().try_for_each(|path| {
                make_directories(&view, path).map_err(|error| (path.clone(), error))
            })
        });
        match made.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err((path, error))) => {
                let path = path.display();
                let message =
                    format!("directory `{path}` cannot be made in the input root: {error}");
                Err(Refusal::in_view(&error.into(), message))
            }
            Err(panic) => Err(Refusal::infrastructure(panic.to_string())),
        }
    }

    pub(super) fn command(
        &self,
        execution: &Execution,
        search_path: Option<&str>,
        [stdout, stderr]: [OwnedFd; 2],
    ) -> ContainerCommand {
        let mut environment = self.spec.environment_of(execution);
        // The image's `PATH`, if the command names none itself.
        environment
            .entry("PATH".to_owned())
            .or_insert_with(|| search_path.unwrap_or(DEFAULT_PATH).to_owned());
        ContainerCommand {
            arguments: self.spec.arguments_of(execution),
            environment,
            working_directory: self.spec.working_directory.as_path().to_owned(),
            stdout,
            stderr,
            stdin: None,
            timeout: self.spec.timeout,
        }
    }

    /// Collects and stores what only the view has; `None` if that was cancelled.
    pub(super) async fn outputs(&self, view: &View) -> Result<Option<Outputs>, Refusal> {
        if self.spec.outputs.is_empty() {
            return Ok(Some(Outputs::Stored(Collected::default())));
        }
        let collected = match self.collect(view).await? {
            Ok(collected) => collected,
            Err(CollectError::Cancelled) => return Ok(None),
            Err(error) => return unusable(&error).map(Some),
        };
        tokio::select! {
            stored = publish_outputs(self.store, view, &collected) => match stored {
                Ok(()) => Ok(Some(Outputs::Stored(collected))),
                Err(PublishError::Store(error)) => Err(not_stored(&error)),
                Err(error @ PublishError::Changed { .. }) => Ok(Some(Outputs::Unusable {
                    reason: format!("the outputs cannot be used: {error}"),
                })),
            },
            () = self.cancel.cancelled() => Ok(None),
        }
    }

    async fn collect(&self, view: &View) -> Result<Result<Collected, CollectError>, Refusal> {
        let (root, declared) = (view.clone(), self.spec.outputs.clone());
        let format = self.spec.directory_format;
        let limits = CollectLimits {
            max_bytes: self.workshop.max_output_bytes,
            cancel: self.cancel.clone(),
        };
        let collected =
            tokio::task::spawn_blocking(move || collect(&root, &declared, format, limits));
        collected
            .await
            .map_err(|panic| Refusal::infrastructure(panic.to_string()))
    }
}

impl Executed {
    /// Stores the output streams and says what became of the execution.
    pub(crate) async fn publish(
        self,
        store: Arc<dyn BlobStore>,
        execution: &Execution,
        spec_timeout: Duration,
        slot: SlotIndex,
        worker: &str,
    ) -> Outcome {
        let stored = tokio::try_join!(
            publish_captured(&store, &self.stdout),
            publish_captured(&store, &self.stderr)
        );
        if let Err(error) = stored {
            return not_stored(&error).outcome(execution.unit, slot);
        }
        metrics::histogram!("regatta_agent_publish_seconds").record(self.ended_at.elapsed());
        tracing::debug!(unit = %execution.unit, status = ?self.exit.status, "a result is stored");
        let (kind, exit_code, message) = self.verdict(spec_timeout);
        // Of one execution by a worker nothing is known.
        let is_known = self.exit.usage != Usage::default();
        let usage = is_known.then(|| usage_to_wire(&self.exit.usage));
        let image_id = self.image_id.clone();
        Arc::new(v1::ExecutionOutcome {
            unit: execution.unit.0,
            kind: kind.into(),
            result: Some(self.result(exit_code, worker)),
            message,
            usage,
            image_id,
            slot: slot.0,
            ..Default::default()
        })
    }

    /// As [`verdict`], with what is wrong with the outputs. A command that failed has failed whatever it
    /// left; one that succeeded has not, for nobody gets what it made.
    fn verdict(&self, timeout: Duration) -> (v1::OutcomeKind, i32, String) {
        let (kind, exit_code, message) = verdict(&self.exit.status, timeout);
        let Outputs::Unusable { reason } = &self.outputs else {
            return (kind, exit_code, message);
        };
        let kind = match kind {
            v1::OutcomeKind::Completed if exit_code == 0 => v1::OutcomeKind::Rejected,
            other => other,
        };
        let separator = if message.is_empty() { "" } else { "; " };
        (kind, exit_code, format!("{message}{separator}{reason}"))
    }

    fn result(self, exit_code: i32, worker: &str) -> reapi::ActionResult {
        let outputs = match self.outputs {
            Outputs::Stored(collected) => collected,
            Outputs::Unusable { .. } => Collected::default(),
        };
        reapi::ActionResult {
            output_files: outputs.files,
            output_symlinks: outputs.symlinks,
            output_directories: outputs.directories,
            exit_code,
            stdout_raw: inline(&self.stdout),
            stdout_digest: Some(self.stdout.digest.into()),
            stderr_raw: inline(&self.stderr),
            stderr_digest: Some(self.stderr.digest.into()),
            execution_metadata: Some(self.moments.metadata(worker)),
            ..Default::default()
        }
    }
}

/// The kind of outcome, the exit code and what a person should know.
fn verdict(status: &ExitStatus, timeout: Duration) -> (v1::OutcomeKind, i32, String) {
    let killed = SIGNAL_EXIT_CODE_BASE + SIGKILL;
    match status {
        ExitStatus::Code(code) => (v1::OutcomeKind::Completed, *code, String::new()),
        ExitStatus::Signal(signal) => (
            v1::OutcomeKind::Completed,
            SIGNAL_EXIT_CODE_BASE + signal,
            String::new(),
        ),
        ExitStatus::NotStarted { errno } => (
            v1::OutcomeKind::Completed,
            exit_code_of_exec(*errno),
            String::new(),
        ),
        ExitStatus::TimedOut => {
            let message = format!("it ran longer than its limit of {timeout:?} and was killed");
            (v1::OutcomeKind::TimedOut, killed, message)
        }
        ExitStatus::OutOfMemory => {
            let message = "it used more memory than it may and was killed".to_owned();
            (v1::OutcomeKind::OutOfMemory, killed, message)
        }
        ExitStatus::Cancelled => (
            v1::OutcomeKind::Cancelled,
            killed,
            "it was cancelled".to_owned(),
        ),
    }
}

fn inline(captured: &Captured) -> Bytes {
    match &captured.body {
        CapturedBody::Memory(bytes) if bytes.len() <= INLINE_BYTES => bytes.clone(),
        CapturedBody::Memory(_) | CapturedBody::File(_) => Bytes::new(),
    }
}

fn not_stored(error: &StoreError) -> Refusal {
    let message = format!("the result could not be stored: {error}");
    match error {
        StoreError::Exhausted { .. } => Refusal::StoreExhausted { message },
        StoreError::NotFound { .. }
        | StoreError::OutOfRange { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Undecodable { .. }
        | StoreError::Full { .. }
        | StoreError::Away { .. }
        | StoreError::Unavailable { .. } => Refusal::infrastructure(message),
    }
}

/// What a job has left behind is its own fault; that it cannot be read may be the machine's.
fn unusable(error: &CollectError) -> Result<Outputs, Refusal> {
    let reason = format!("the outputs cannot be used: {}", with_source(error));
    match error {
        CollectError::Io { source, .. } if !is_caused_by_files(source) => {
            Err(Refusal::infrastructure(reason))
        }
        CollectError::Io { .. }
        | CollectError::TooDeep { .. }
        | CollectError::TooMany
        | CollectError::NotUtf8 { .. }
        | CollectError::TooLarge { .. }
        | CollectError::Cancelled => Ok(Outputs::Unusable { reason }),
    }
}

fn with_source(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or(error.to_string(), |source| format!("{error}: {source}"))
}
