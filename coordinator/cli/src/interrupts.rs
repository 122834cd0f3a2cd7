//! Ctrl-C and SIGTERM, counted.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Interrupts that have not been looked at: more than two make no difference.
const QUEUE: usize = 2;

/// Ctrl-C and SIGTERM as a queue. Once it exists, neither ends the process by itself.
#[derive(Debug)]
pub struct Interrupts {
    queue: mpsc::Receiver<()>,
}

impl Interrupts {
    /// Those that this process receives from now on.
    ///
    /// # Errors
    /// The handlers cannot be set.
    pub fn of_this_process() -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (sender, queue) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            loop {
                let signal = tokio::select! {
                    signal = interrupt.recv() => signal,
                    signal = terminate.recv() => signal,
                };
                if signal.is_none() || sender.is_closed() {
                    return;
                }
                // A full queue holds enough interrupts to leave at once.
                let _full = sender.try_send(());
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
}
