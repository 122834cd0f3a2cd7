//! How many threads a process has.

use tokio::runtime::Builder;

use crate::options::Command;

/// Threads for everything that waits; what computes or blocks has threads of its own.
const WORKER_THREADS: usize = 2;
/// An agent shares its machine with its jobs: on two processors, a second thread to hand work to costs it
/// a tenth more of their time for each action, and gains nothing (`cargo xtask bench`).
const WORKER_THREADS_OF_AGENT: usize = 1;
/// How many threads wait for the disk, and for what else blocks, at most: what there is more of waits for them. None
/// of it waits for the rest. tokio's own bound is 512, and steady work keeps as many as one burst of it ever needed.
const BLOCKING_THREADS: usize = 64;

/// The threads for a command.
pub(crate) fn builder(command: &Command) -> Builder {
    let workers = match command {
        Command::Agent(_) => WORKER_THREADS_OF_AGENT,
        _ => WORKER_THREADS,
    };
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all();
    builder
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use clap::Parser as _;

    use super::*;
    use crate::options::Options;

    #[test]
    fn a_burst_of_what_blocks_starts_no_more_threads_than_are_allowed() {
        let started = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&started);
        let options = Options::try_parse_from(["regatta", "coordinator"]).expect("a command");
        let runtime = builder(&options.command)
            .on_thread_start(move || {
                counter.fetch_add(1, Ordering::SeqCst);
            })
            .build()
            .expect("threads");
        // Nobody sends: each ends once the sender is gone, after all have been asked for.
        let (hold, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let blocked: Vec<_> = (0..BLOCKING_THREADS * 3)
            .map(|_| {
                let held = Arc::clone(&held);
                runtime.spawn_blocking(move || {
                    let held = held.lock().expect("nobody panics");
                    assert!(held.recv().is_err(), "nobody sends");
                })
            })
            .collect();
        drop(hold);
        runtime.block_on(async {
            for blocked in blocked {
                blocked.await.expect("it ends");
            }
        });
        // Waits for all threads: each has been counted.
        drop(runtime);
        let started = started.load(Ordering::SeqCst);
        assert_eq!(started, BLOCKING_THREADS + WORKER_THREADS);
    }
}
