//! One command, from request to exit, against any init.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use regatta_init::{EncodeError, Ending, Execute, Exited, Request, Response};
use regatta_model::RootDirectory;
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::control::{InitConnection, lost, unexpected};
use crate::port::{ContainerCommand, Exit, ExitStatus, RuntimeError, Usage};

/// How long a fork and an exec may take on a machine under load.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an init may take to confirm that everything is killed.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a wipe may take.
const WIPE_TIMEOUT: Duration = Duration::from_secs(30);

/// What came of an execution.
#[derive(Debug)]
pub(crate) enum Executed {
    /// The command ended and nothing of it is left.
    Ended(Exit),
    /// The command was to be killed and the init did not confirm it: the container must be killed.
    Stuck(Exit),
}

/// Where commands run in a container.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Where the view is.
    pub(crate) work_path: &'a Path,
    /// What is at `/`.
    pub(crate) root: RootDirectory,
}

/// Runs a command.
pub(crate) async fn execute(
    connection: &mut InitConnection,
    place: Place<'_>,
    command: ContainerCommand,
    cancel: &CancellationToken,
) -> Result<Executed, RuntimeError> {
    let request = request(place, &command);
    if let Err(EncodeError::TooLong) = request.encode() {
        return Ok(Executed::Ended(not_started(Errno::TOOBIG.raw_os_error())));
    }
    let outputs = [&command.stdout, &command.stderr];
    let streams = outputs.into_iter().chain(&command.stdin);
    let streams: Vec<_> = streams.map(AsFd::as_fd).collect();
    connection.send(&request, &streams).await?;
    // The init has its own copies: whoever has the other ends sees the end when the command ends.
    drop((command.stdout, command.stderr, command.stdin));
    let answer = tokio::time::timeout(START_TIMEOUT, connection.receive()).await;
    match answer.map_err(|_| lost("its init did not start the command in time"))?? {
        Response::Started => watch(connection, command.timeout, cancel).await,
        Response::NotStarted { errno } => Ok(Executed::Ended(not_started(errno))),
        other => Err(unexpected(&other)),
    }
}

async fn watch(
    connection: &mut InitConnection,
    timeout: Duration,
    cancel: &CancellationToken,
) -> Result<Executed, RuntimeError> {
    let started = Instant::now();
    let status = tokio::select! {
        response = connection.receive() => {
            return Ok(Executed::Ended(exit(response?, None)?));
        }
        () = tokio::time::sleep(timeout) => ExitStatus::TimedOut,
        () = cancel.cancelled() => ExitStatus::Cancelled,
    };
    connection.send(&Request::Kill, &[]).await?;
    match tokio::time::timeout(KILL_TIMEOUT, connection.receive()).await {
        Ok(response) => Ok(Executed::Ended(exit(response?, Some(status))?)),
        Err(_) => Ok(Executed::Stuck(Exit {
            status,
            usage: Usage::default(),
            wall_time: started.elapsed(),
        })),
    }
}

/// Kills stragglers and empties directories inside.
pub(crate) async fn wipe(
    connection: &mut InitConnection,
    directories: &[std::path::PathBuf],
) -> Result<(), RuntimeError> {
    let bytes = |path: &std::path::PathBuf| path.as_os_str().as_bytes().to_vec();
    let request = Request::Wipe {
        directories: directories.iter().map(bytes).collect(),
    };
    connection.send(&request, &[]).await?;
    let answer = tokio::time::timeout(WIPE_TIMEOUT, connection.receive()).await;
    match answer.map_err(|_| lost("its init did not finish the wipe in time"))?? {
        Response::Wiped => Ok(()),
        Response::NotWiped { errno } => {
            let source = std::io::Error::from_raw_os_error(errno);
            Err(RuntimeError::Io {
                operation: "wipe the scratch space",
                source,
            })
        }
        other => Err(unexpected(&other)),
    }
}

fn request(place: Place<'_>, command: &ContainerCommand) -> Request {
    let variable = |(name, value): (&String, &String)| format!("{name}={value}").into_bytes();
    let (root, base) = match place.root {
        RootDirectory::Image => (Path::new(""), place.work_path),
        RootDirectory::InputRoot => (place.work_path, Path::new("/")),
    };
    let directory = if command.working_directory.as_os_str().is_empty() {
        base.to_path_buf()
    } else {
        base.join(&command.working_directory)
    };
    Request::Execute(Execute {
        arguments: command
            .arguments
            .iter()
            .map(|word| word.clone().into_bytes())
            .collect(),
        environment: command.environment.iter().map(variable).collect(),
        working_directory: directory.as_os_str().as_bytes().to_vec(),
        root: root.as_os_str().as_bytes().to_vec(),
        has_stdin: command.stdin.is_some(),
    })
}

fn not_started(errno: i32) -> Exit {
    let status = ExitStatus::NotStarted { errno };
    Exit {
        status,
        usage: Usage::default(),
        wall_time: Duration::ZERO,
    }
}

/// `killed` is why the agent killed the command, if it did. A command that had ended by then is told as
/// killed all the same: it had used up its time.
fn exit(response: Response, killed: Option<ExitStatus>) -> Result<Exit, RuntimeError> {
    let Response::Exited(exited) = response else {
        return Err(unexpected(&response));
    };
    let Exited {
        ending,
        user_cpu,
        system_cpu,
        peak_memory_bytes,
        wall_time,
    } = exited;
    let own = match ending {
        Ending::Code(code) => ExitStatus::Code(code),
        Ending::Signal(signal) => ExitStatus::Signal(signal),
    };
    Ok(Exit {
        status: killed.unwrap_or(own),
        usage: Usage {
            user_cpu,
            system_cpu,
            peak_memory_bytes,
        },
        wall_time,
    })
}
