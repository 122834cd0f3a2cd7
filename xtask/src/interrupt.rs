//! Ctrl-C, for every chore: it is passed on to the child in the foreground, and whatever waits for that
//! child fails, so that everything on the stack is put away.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// Whether somebody pressed Ctrl-C (or sent SIGTERM).
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// To whom that is passed on: the process group of the running child; 0 for none, which no group is
/// called.
static CHILD: AtomicU32 = AtomicU32::new(0);

/// Catches Ctrl-C for the rest of the process. `main` does this once, for all chores.
pub(crate) fn install() -> Result<()> {
    let interrupt = || {
        INTERRUPTED.store(true, Ordering::SeqCst);
        pass_on();
    };
    ctrlc::set_handler(interrupt).context("catching Ctrl-C")
}

/// Fails once Ctrl-C was pressed. Loops that start nothing ask this.
pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// Runs a command to its end.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    wait(spawn(command)?)
}

/// Runs a command to its end, and returns what it wrote to its standard output.
pub(crate) fn capture(command: &mut Command) -> Result<(ExitStatus, String)> {
    let mut child = spawn(command.stdout(Stdio::piped()))?;
    let text = read(child.stdout.take())?;
    Ok((wait(child)?, text))
}

/// The same with what it complained of.
pub(crate) fn capture_both(command: &mut Command) -> Result<(ExitStatus, String, String)> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command)?;
    let stderr = child.stderr.take();
    let complaint = std::thread::spawn(move || read(stderr));
    let text = read(child.stdout.take())?;
    let status = wait(child)?;
    let complaint = complaint
        .join()
        .map_err(|_| anyhow::anyhow!("reading the child's errors panicked"))?;
    Ok((status, text, complaint?))
}

fn read(stream: Option<impl Read>) -> Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let read = stream.read_to_end(&mut bytes);
        read.context("reading the child's output")?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn spawn(command: &mut Command) -> Result<Child> {
    check()?;
    // A group of its own: the terminal's Ctrl-C does not reach it, so it gets exactly one.
    let child = command.process_group(0).spawn();
    let child = child.with_context(|| format!("starting `{}`", crate::process::show(command)))?;
    CHILD.store(child.id(), Ordering::SeqCst);
    if INTERRUPTED.load(Ordering::SeqCst) {
        pass_on();
    }
    Ok(child)
}

fn wait(mut child: Child) -> Result<ExitStatus> {
    let status = child.wait();
    CHILD.store(0, Ordering::SeqCst);
    check()?;
    Ok(status?)
}

fn pass_on() {
    let child = i32::try_from(CHILD.load(Ordering::SeqCst))
        .ok()
        .and_then(Pid::from_raw);
    if let Some(Err(error)) = child.map(|child| kill_process_group(child, Signal::INT)) {
        // Most likely it ended just now, and there is nobody left to tell.
        eprintln!("passing Ctrl-C on: {error}");
    }
}
