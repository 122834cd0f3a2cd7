//! One execution by a persistent worker: as one by a process of its own, but for what comes before and after.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use regatta_cas::read_all;
use regatta_runtime::{ContainerCommand, Exit, ExitStatus, Usage};
use regatta_wire::v1;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::container_holder::ContainerHolder;
use super::execution::{Executed, ExecutionContext, Outputs};
use super::output_spool::{Captured, spool};
use super::persistent_worker::{Answer, PersistentWorker, Streams, UntilTold, quoted};
use super::program_message::Sought;
use super::view::{View, put_file, remove_file};
use crate::input_tree::PinnedTree;
use crate::lease_spec::{Execution, WorkerSpec};
use crate::outcome::Refusal;
use crate::timestamps::{Moments, now};

/// The largest file of a request, in bytes.
const MAX_REQUEST_FILE_BYTES: u64 = 64 << 20;
/// How long a worker may live: leases end it long before.
const WORKER_LIMIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a worker that has closed its output may take to end.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// What becomes of a worker that has to be ended.
const KILLED: ExitStatus = ExitStatus::Signal(9);

/// What a request came to.
struct Served {
    status: ExitStatus,
    /// What the command would have printed.
    output: String,
    log: Captured,
    /// What the worker did in place of a response; its name goes before.
    complaint: Option<String>,
    /// Whether it has ended without one.
    is_gone: bool,
}

/// Why a request was not served.
#[derive(Debug)]
pub(crate) enum Unserved {
    /// The worker was there before, and is of no use any more: the request is another one's.
    Spent,
    Refused(Refusal),
}

impl From<Refusal> for Unserved {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Why a worker is not asked any longer.
enum Stop {
    Answered(Answer),
    TimedOut,
    Cancelled,
}

impl ExecutionContext<'_> {
    /// Has a worker do an execution, one that is started for it if `tree` is there, and else the one that is there
    /// already; `None` if it was cancelled. If it is not there any more afterwards, the view still is.
    ///
    /// What earlier leases have made of a worker and its view is not this one's: if it cannot be asked, or has had its
    /// day and ends, with code 0, before it has made anything, it is [`Unserved::Spent`]. An end of another kind is this
    /// one's outcome: a test may have caused it, and whoever looks for that asks another worker.
    pub(crate) async fn run_in_worker(
        &self,
        holder: &mut ContainerHolder,
        (execution, worker): (&Execution, &WorkerSpec),
        mut moments: Moments,
        tree: Option<PinnedTree>,
    ) -> Result<Option<Executed>, Unserved> {
        let is_reused = tree.is_none();
        if let Some(tree) = tree
            && !self.begin_worker(holder, (execution, worker), tree).await?
        {
            return Ok(None);
        }
        // What one says that has not been asked for anything yet is its own fault.
        let usable = holder.worker_mut().filter(|it| !is_reused || it.is_quiet());
        let Some(view) = usable.map(|it| it.view().clone()) else {
            return Err(Unserved::Spent);
        };
        let files = tokio::select! {
            files = self.request_files(worker) => files?,
            () = self.cancel.cancelled() => return Ok(None),
        };
        match self.prepare_request(&view, files).await {
            Err(_) if is_reused => return Err(Unserved::Spent),
            prepared => prepared?,
        }
        let image_id = holder.image_id().to_owned();
        let begun = Instant::now();
        let served = self.serve(holder, execution).await?;
        let ended_at = Instant::now();
        moments.execution_end = now();
        let wall_time = ended_at.duration_since(begun);
        moments.execution_start = moments.execution_end - wall_time;
        moments.output_upload_start = moments.execution_end;
        metrics::histogram!("regatta_agent_exec_seconds").record(wall_time);
        if served.status == ExitStatus::Cancelled {
            return Ok(None);
        }
        let disk = &self.workshop.disk;
        disk.had_room_for(&served.status, begun).await?;
        let Some(mut outputs) = self.outputs(&view).await? else {
            return Ok(None);
        };
        let has_retired = served.is_gone && served.status == ExitStatus::Code(0);
        if is_reused && has_retired && outputs.are_none() {
            return Err(Unserved::Spent);
        }
        if let Some(what) = served.complaint {
            let command = quoted(worker.arguments.join(" ").as_bytes());
            let reason = format!("the persistent worker {command} {what}");
            outputs = Outputs::Unusable { reason };
        }
        Ok(Some(Executed {
            exit: Exit {
                status: served.status,
                // What is known is that of all requests.
                usage: Usage::default(),
                wall_time,
            },
            ended_at,
            stdout: Captured::of(served.output),
            stderr: served.log,
            outputs,
            image_id,
            moments,
        }))
    }

    /// Starts a worker on a view of the tree; `false` if that was cancelled.
    async fn begin_worker(
        &self,
        holder: &mut ContainerHolder,
        (execution, worker): (&Execution, &WorkerSpec),
        tree: PinnedTree,
    ) -> Result<bool, Refusal> {
        let Some(view) = self.mount(holder, tree.path()).await? else {
            return Ok(false);
        };
        self.prepare(&view).await?;
        let streams = Streams::new();
        let streams = streams
            .map_err(|error| Refusal::infrastructure(format!("no pipes for a worker: {error}")))?;
        let Streams {
            stdin,
            stdout,
            stderr,
            ends,
        } = streams;
        let command = ContainerCommand {
            arguments: worker.arguments.clone(),
            stdin: Some(stdin),
            timeout: WORKER_LIMIT,
            ..self.command(execution, holder.search_path(), [stdout, stderr])
        };
        let shape = &self.spec.shape;
        holder
            .lend(shape, |container| {
                let named = (worker.key.clone(), Sought::new(&command, shape));
                PersistentWorker::start(container, named, (view, tree), (command, ends))
            })
            .map_err(|error| Refusal::from(&error))?;
        tracing::debug!("a persistent worker is started");
        Ok(true)
    }

    async fn request_files(&self, worker: &WorkerSpec) -> Result<Vec<(PathBuf, Bytes)>, Refusal> {
        let mut files = Vec::new();
        for file in &worker.files {
            let bytes = read_all(self.store.as_ref(), &file.digest, MAX_REQUEST_FILE_BYTES).await;
            let bytes = bytes.map_err(|error| {
                Refusal::infrastructure(format!("a file of the request cannot be had: {error}"))
            })?;
            files.push((file.path.as_path().to_owned(), bytes));
        }
        Ok(files)
    }

    /// What the worker finds, and what it does not: the outputs of the request before.
    async fn prepare_request(
        &self,
        view: &View,
        files: Vec<(PathBuf, Bytes)>,
    ) -> Result<(), Refusal> {
        self.prepare(view).await?;
        let outputs = self.spec.outputs.iter();
        let outputs: Vec<_> = outputs.map(|it| it.path.as_path().to_owned()).collect();
        let view = view.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let in_view = |path: &Path, error: std::io::Error| {
                let message = format!(
                    "`{}` cannot be made ready in the input root: {error}",
                    path.display()
                );
                Refusal::in_view(&error, message)
            };
            for path in outputs {
                remove_file(&view, &path).map_err(|error| in_view(&path, error.into()))?;
            }
            for (path, bytes) in files {
                put_file(&view, &path, &bytes).map_err(|error| in_view(&path, error))?;
            }
            Ok(())
        });
        prepared
            .await
            .unwrap_or_else(|panic| Err(Refusal::infrastructure(panic.to_string())))
    }

    /// Asks the worker. One that does not answer as it should is ended.
    async fn serve(
        &self,
        holder: &mut ContainerHolder,
        execution: &Execution,
    ) -> Result<Served, Refusal> {
        let Some(worker) = holder.worker_mut() else {
            return Err(Refusal::infrastructure("the slot has no worker"));
        };
        let arguments = self.spec.arguments_of(execution);
        let live = self.live(execution, v1::OutputStream::Stderr);
        let settings = &self.workshop.spool;
        let (mut tell, over) = oneshot::channel();
        let (asking, log) = worker.parts();
        let asked = async {
            let stop = tokio::select! {
                biased;
                answer = asking.ask(&arguments) => Stop::Answered(answer),
                () = self.cancel.cancelled() => Stop::Cancelled,
                () = tokio::time::sleep(self.spec.timeout) => Stop::TimedOut,
            };
            if matches!(stop, Stop::Answered(Answer::Gone)) {
                // Until the log has ended by itself, if it does.
                tokio::time::timeout(END_PATIENCE, tell.closed()).await.ok();
            }
            // Nobody listens if it has.
            tell.send(()).ok();
            stop
        };
        let log = spool(UntilTold::new(log, over), settings, live);
        let (stop, log) = tokio::join!(asked, log);
        let log = log.map_err(|error| {
            Refusal::infrastructure(format!("the output could not be kept: {error}"))
        });
        match (stop, log) {
            (Stop::Answered(Answer::Response(response)), Ok(log)) => Ok(Served {
                status: ExitStatus::Code(response.exit_code),
                output: response.output,
                log,
                complaint: None,
                is_gone: false,
            }),
            (stop, log) => end(holder, stop, log).await,
        }
    }
}

/// Ends a worker that has no answer. Its container is the slot's again, with the view.
async fn end(
    holder: &mut ContainerHolder,
    stop: Stop,
    log: Result<Captured, Refusal>,
) -> Result<Served, Refusal> {
    let sought = holder.worker_mut().map(|worker| worker.sought().clone());
    let patience = match &stop {
        Stop::Answered(Answer::Gone) => END_PATIENCE,
        Stop::Answered(_) | Stop::TimedOut | Stop::Cancelled => Duration::ZERO,
    };
    let exit = holder.take_back(patience).await;
    let exit = exit.map_err(|error| Refusal::from(&error))?;
    let is_gone = matches!(&stop, Stop::Answered(Answer::Gone));
    let (status, complaint) = match (stop, exit.status) {
        (Stop::Cancelled, _) => (ExitStatus::Cancelled, None),
        (Stop::TimedOut, _) => (ExitStatus::TimedOut, None),
        (Stop::Answered(Answer::Malformed(why)), _) => {
            let complaint = format!("wrote what is no response: {why}");
            (KILLED, Some(complaint))
        }
        // It has not ended by itself.
        (_, ExitStatus::Cancelled) => {
            let complaint = "closed its standard output and gave no response";
            (KILLED, Some(complaint.to_owned()))
        }
        (_, status) => (status, None),
    };
    let log = match (&status, sought) {
        (ExitStatus::NotStarted { errno }, Some(sought)) => Captured::of(sought.explain(*errno)),
        _ => log?,
    };
    Ok(Served {
        status,
        output: String::new(),
        log,
        complaint,
        is_gone,
    })
}
