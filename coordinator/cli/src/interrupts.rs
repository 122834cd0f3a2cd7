//! Ctrl-C and SIGTERM, counted.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::exit_code::ExitCode;

/// Interrupts that wait to be looked at. One more says that nobody looks, and the process ends.
const QUEUE: usize = 1;

/// How long a process may take to end whose standard input was closed.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(30);

/// Ctrl-C and SIGTERM as a queue. While it is looked at, neither ends the process by itself; if it is not,
/// because something blocks or it is gone, the next one does.
#[derive(Debug)]
pub struct Interrupts {
    queue: mpsc::Receiver<()>,
}

impl Interrupts {
    /// Those that this process receives from now on; if `with_stdin`, two once standard input is closed.
    ///
    /// # Errors
    /// The handlers cannot be set.
    pub fn of_this_process(with_stdin: bool) -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (sender, queue) = mpsc::channel(QUEUE);
        if with_stdin {
            tokio::spawn(end_with_stdin(sender.clone()));
        }
        tokio::spawn(async move {
            loop {
                let signal = tokio::select! {
                    signal = interrupt.recv() => signal,
                    signal = terminate.recv() => signal,
                };
                if signal.is_none() {
                    return;
                }
                if sender.try_send(()).is_err() {
                    leave();
                }
            }
        });
        Ok(Self { queue })
    }

    /// Those that the other end sends.
    #[must_use]
    pub fn channel() -> (mpsc::Sender<()>, Self) {
        let (sender, queue) = mpsc::channel(QUEUE);
        (sender, Self { queue })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        if self.queue.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Does `work`, unless the next interrupt comes first; dropping it must lose nothing.
    pub async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.next() => None,
        }
    }
}

/// Whoever started this process is gone: it shall end without losing anything, but in any case.
async fn end_with_stdin(sender: mpsc::Sender<()>) {
    let (closed, when_closed) = oneshot::channel();
    // A thread, not a task: a read that never ends must not keep the runtime from ending.
    std::thread::spawn(move || {
        let drained = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(drained);
        // Nobody waits any more if the process is about to end anyway.
        let _unheard = closed.send(());
    });
    if when_closed.await.is_err() {
        return;
    }
    tracing::info!("standard input is closed: ending");
    let ending = async {
        for _ in 0..2 {
            if sender.send(()).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    drop(tokio::time::timeout(ORPHAN_PATIENCE, ending).await);
    leave();
}

fn leave() -> ! {
    std::process::exit(ExitCode::Cancelled.number().into())
}
