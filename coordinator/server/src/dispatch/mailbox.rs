//! The queue between the dispatcher and one submitter.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::TaskEvent;

/// Live output that waits for one submitter to listen, in bytes; what comes beyond it is dropped.
pub const MAX_BUFFERED_OUTPUT_BYTES: usize = 1 << 20;

/// Events for one submitter, in order.
///
/// Its bound: output by [`MAX_BUFFERED_OUTPUT_BYTES`], everything else by what a task can ever have: an
/// answer for each unit, as many grants and retries as the scheduler allows attempts, and one more of each, and a
/// return, each time that nothing is begun for a while.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<TaskEvent>,
    output_bytes: usize,
    finished: bool,
}

impl Mailbox {
    /// Adds an event without waiting. Nothing follows [`TaskEvent::Finished`].
    pub(super) fn push(&self, event: TaskEvent) {
        let mut state = self.lock();
        if state.finished {
            return;
        }
        if let TaskEvent::Output { data, .. } = &event {
            if state.output_bytes + data.len() > MAX_BUFFERED_OUTPUT_BYTES {
                metrics::counter!("regatta_live_output_dropped_bytes_total")
                    .increment(data.len() as u64);
                return;
            }
            state.output_bytes += data.len();
        }
        state.finished = matches!(event, TaskEvent::Finished);
        state.events.push_back(event);
        drop(state);
        self.arrived.notify_one();
    }

    /// Whether [`TaskEvent::Finished`] has been added.
    pub(super) fn is_finished(&self) -> bool {
        self.lock().finished
    }

    /// The next event; `None` once everything was taken and nothing can follow.
    pub(super) async fn next(&self) -> Option<TaskEvent> {
        loop {
            {
                let mut state = self.lock();
                if let Some(event) = state.events.pop_front() {
                    if let TaskEvent::Output { data, .. } = &event {
                        state.output_bytes -= data.len();
                    }
                    return Some(event);
                }
                if state.finished {
                    return None;
                }
            }
            // One submitter listens, so a notification between the look and the wait is kept for it.
            self.arrived.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use regatta_model::UnitIndex;
    use regatta_wire::v1::OutputStream;

    use super::*;

    fn output(length: usize) -> TaskEvent {
        TaskEvent::Output {
            unit: UnitIndex(0),
            stream: OutputStream::Stdout,
            offset: 0,
            data: Bytes::from(vec![b'x'; length]),
        }
    }

    #[tokio::test]
    async fn output_beyond_the_bound_is_lost_and_nothing_else_is() {
        let mailbox = Mailbox::default();
        mailbox.push(output(MAX_BUFFERED_OUTPUT_BYTES));
        mailbox.push(output(1));
        mailbox.push(TaskEvent::Finished);
        assert!(matches!(
            mailbox.next().await,
            Some(TaskEvent::Output { .. })
        ));
        assert!(matches!(mailbox.next().await, Some(TaskEvent::Finished)));
        assert!(mailbox.next().await.is_none());
    }

    #[tokio::test]
    async fn room_comes_back_when_output_is_taken() {
        let mailbox = Mailbox::default();
        for _ in 0..3 {
            mailbox.push(output(MAX_BUFFERED_OUTPUT_BYTES));
            assert!(matches!(
                mailbox.next().await,
                Some(TaskEvent::Output { .. })
            ));
        }
    }
}
