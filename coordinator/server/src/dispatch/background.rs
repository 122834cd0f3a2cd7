//! What a dispatcher does by itself: it keeps time, and makes reservations durable.

use std::sync::{Arc, Weak};
use std::time::Duration;

use regatta_ledger::LedgerError;
use regatta_scheduler::Event;
use tokio::time::Instant;

use super::Dispatcher;
use super::board::Payloads;
use super::clock::BEAT;
use crate::ledger::LEDGER_PATIENCE;

/// How long to wait before a reservation that the ledger refused is tried again. It is tried until it
/// succeeds, for without it nothing may be leased; those who wait for that are told before long
/// ([`Dispatcher::stalled`]).
const COMMIT_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How the ledger takes reservations.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Commits {
    /// Why it did not take the last one.
    pub(super) trouble: Option<LedgerError>,
    /// Whether it has taken none for longer than an action should wait.
    pub(super) stalled: bool,
    /// Whether it has taken none for longer than runs wait.
    pub(super) failed: bool,
}

/// Gives the scheduler its ticks, and its clock its beats, until the dispatcher is gone.
pub(super) async fn keep_time(dispatcher: Weak<Dispatcher>) {
    let Some(mut wake_at) = dispatcher.upgrade().map(|it| it.wake_at.subscribe()) else {
        return;
    };
    loop {
        let next = *wake_at.borrow_and_update();
        let Some(deadline) = dispatcher
            .upgrade()
            .map(|dispatcher| next.map(|time| dispatcher.instant_of(time)))
        else {
            return;
        };
        let beat = Instant::now() + BEAT;
        let fired = tokio::select! {
            changed = wake_at.changed() => changed.map(|()| false),
            () = tokio::time::sleep_until(deadline.map_or(beat, |it| it.min(beat))) => Ok(true),
        };
        match (fired, dispatcher.upgrade()) {
            (Ok(true), Some(dispatcher)) => {
                let now = dispatcher.now();
                if next.is_some_and(|time| time <= now) {
                    dispatcher.take(Event::Tick, Payloads::new());
                }
            }
            (Ok(false), Some(_)) => {}
            (Err(_), _) | (_, None) => return,
        }
    }
}

/// Makes reservations durable and lets the effects behind them go, until the dispatcher is gone.
pub(super) async fn keep_commits(dispatcher: Weak<Dispatcher>) {
    let Some(commit) = dispatcher.upgrade().map(|it| Arc::clone(&it.commit)) else {
        return;
    };
    let mut failing_since = None;
    loop {
        commit.notified().await;
        while let Some(strong) = dispatcher.upgrade() {
            let next = strong.lock().next_commit();
            let Some(token) = next else { break };
            match strong.ledger.reserve_tokens(token.0).await {
                Ok(()) => {
                    failing_since = None;
                    // Every waiting action would wake up to hear what it knows.
                    strong.commits.send_if_modified(|commits| {
                        let was_in_trouble = commits.trouble.is_some();
                        *commits = Commits::default();
                        was_in_trouble
                    });
                    let now = strong.now();
                    strong.lock().committed(now);
                }
                Err(error) => {
                    tracing::error!(%error, "no fencing tokens could be reserved: nothing is leased");
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    strong.commits.send_replace(Commits {
                        trouble: Some(error),
                        stalled: since.elapsed() >= strong.commit_patience,
                        failed: since.elapsed() >= LEDGER_PATIENCE,
                    });
                    drop(strong);
                    tokio::time::sleep(COMMIT_RETRY_PAUSE).await;
                }
            }
        }
    }
}
