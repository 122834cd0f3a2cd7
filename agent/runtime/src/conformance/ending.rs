//! Nothing outlives its command.

use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio_util::sync::CancellationToken;

use super::subject::{Claims, Subject, Warm, command, drain, output};
use crate::port::ExitStatus;

/// Within which a kill must have worked.
const KILL_BOUND: Duration = Duration::from_secs(2);

/// Within which everything is gone after the agent hung up.
const HANG_UP_BOUND: Duration = Duration::from_secs(20);

fn pipe() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).expect("a pipe")
}

/// A command that runs too long is killed with all its processes; what it wrote is kept.
pub async fn timeouts_keep_output_and_kill_everything(subject: &Subject) {
    let mut warm = subject.warm().await;
    let timeout = Duration::from_millis(300);
    let (reader, writer) = pipe();
    let mut command = command(&["print-and-hang", "so far"], writer, output().0);
    command.timeout = timeout;
    let started = Instant::now();
    let exit = warm
        .container
        .execute(command, CancellationToken::new())
        .await
        .expect("works");
    assert_eq!(exit.status, ExitStatus::TimedOut);
    assert!(
        started.elapsed() < timeout + KILL_BOUND,
        "{:?}",
        started.elapsed()
    );
    assert_eq!(drain(reader, KILL_BOUND).await, b"so far");
    warm.run(&["exit", "4"]).await.expect_code(4);
    warm.stop().await;
}

/// A cancelled command is killed at once.
pub async fn cancellation_kills_everything(subject: &Subject) {
    let mut warm = subject.warm().await;
    let (reader, writer) = pipe();
    let command = command(&["print-and-hang", "x"], writer, output().0);
    let cancel = CancellationToken::new();
    let trigger = cancel.clone();
    // Cancels when the command has certainly started: its first byte has arrived.
    let first = tokio::task::spawn_blocking(move || {
        let mut byte = [0];
        rustix::io::read(&reader, &mut byte).expect("a byte");
        trigger.cancel();
        (reader, Instant::now())
    });
    let exit = warm
        .container
        .execute(command, cancel)
        .await
        .expect("works");
    let (reader, cancelled) = first.await.expect("a thread");
    assert_eq!(exit.status, ExitStatus::Cancelled);
    assert!(
        cancelled.elapsed() < KILL_BOUND,
        "{:?}",
        cancelled.elapsed()
    );
    assert_eq!(drain(reader, KILL_BOUND).await, b"");
    warm.run(&["exit", "0"]).await.expect_code(0);
    warm.stop().await;
}

/// A daemon with a session of its own dies when the command that started it ends.
pub async fn stragglers_die_with_their_command(subject: &Subject) {
    let mut warm = subject.warm().await;
    for _ in 0..5 {
        let (reader, writer) = pipe();
        let command = command(&["daemon", ""], writer, output().0);
        let exit = warm
            .container
            .execute(command, CancellationToken::new())
            .await
            .expect("works");
        assert_eq!(exit.status, ExitStatus::Code(0));
        drain(reader, KILL_BOUND).await;
    }
    expect_no_strangers(subject, &mut warm).await;
    warm.stop().await;
}

/// Orphans do not pile up while their command runs.
pub async fn orphans_are_reaped(subject: &Subject) {
    let mut warm = subject.warm().await;
    warm.run(&["orphans", "300"]).await.expect_code(0);
    expect_no_strangers(subject, &mut warm).await;
    warm.stop().await;
}

/// Dropping a container in the middle of a command, as the death of its agent does, ends everything.
pub async fn dropping_a_container_kills_everything(subject: &Subject) {
    let mut warm = subject.warm().await;
    let (reader, writer) = pipe();
    let command = command(&["print-and-hang", "x"], writer, output().0);
    let running = tokio::spawn(async move {
        let exit = warm
            .container
            .execute(command, CancellationToken::new())
            .await;
        drop(warm);
        exit
    });
    let reader = tokio::task::spawn_blocking(move || {
        rustix::io::read(&reader, &mut [0]).expect("a byte");
        reader
    });
    let reader = reader.await.expect("a thread");
    running.abort();
    assert!(running.await.expect_err("aborted").is_cancelled());
    drain(reader, HANG_UP_BOUND).await;
}

/// The processes inside are the init and the one that lists them.
pub(super) async fn expect_no_strangers(subject: &Subject, warm: &mut Warm) {
    if subject.claims < Claims::Namespaces {
        return;
    }
    let listing = warm.run(&["list", "/proc"]).await.expect_code(0).text();
    let processes: Vec<u32> = listing
        .lines()
        .filter_map(|name| name.parse().ok())
        .collect();
    assert_eq!(processes.len(), 2, "{processes:?}");
}
