//! Ctrl-C, passed on to the one child in the foreground.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// Whether somebody pressed Ctrl-C (or sent SIGTERM), and to whom that is passed on.
#[derive(Default)]
struct State {
    interrupted: AtomicBool,
    /// The process group of the running child; 0 for none, which no group is called.
    child: AtomicU32,
}

/// Catches Ctrl-C for the rest of the process.
pub(crate) struct Interrupt(Arc<State>);

impl Interrupt {
    pub(crate) fn install() -> Result<Self> {
        let state = Arc::new(State::default());
        let handler = Arc::clone(&state);
        ctrlc::set_handler(move || handler.interrupt()).context("catching Ctrl-C")?;
        Ok(Self(state))
    }

    /// Fails once Ctrl-C was pressed, so that everything on the stack is put away.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.interrupted.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Runs a command to its end, and fails if it failed.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let status = self.wait(self.spawn(command)?)?;
        if !status.success() {
            bail!("`{}` failed: {status}", crate::process::show(command));
        }
        Ok(())
    }

    /// Runs a command to its end, and returns what it wrote to its standard output.
    pub(crate) fn capture(&self, command: &mut Command) -> Result<(ExitStatus, String)> {
        let mut child = self.spawn(command.stdout(Stdio::piped()))?;
        let mut text = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout
                .read_to_string(&mut text)
                .context("reading the child's output")?;
        }
        Ok((self.wait(child)?, text))
    }

    fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.check()?;
        // A group of its own: the terminal's Ctrl-C does not reach it, so it gets exactly one.
        let child = command.process_group(0).spawn();
        let child =
            child.with_context(|| format!("starting `{}`", crate::process::show(command)))?;
        self.0.child.store(child.id(), Ordering::SeqCst);
        if self.0.interrupted.load(Ordering::SeqCst) {
            self.0.pass_on();
        }
        Ok(child)
    }

    fn wait(&self, mut child: Child) -> Result<ExitStatus> {
        let status = child.wait();
        self.0.child.store(0, Ordering::SeqCst);
        self.check()?;
        Ok(status?)
    }
}

impl State {
    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        self.pass_on();
    }

    fn pass_on(&self) {
        let child = i32::try_from(self.child.load(Ordering::SeqCst))
            .ok()
            .and_then(Pid::from_raw);
        if let Some(Err(error)) = child.map(|child| kill_process_group(child, Signal::INT)) {
            // Most likely it ended just now, and there is nobody left to tell.
            eprintln!("passing Ctrl-C on: {error}");
        }
    }
}
