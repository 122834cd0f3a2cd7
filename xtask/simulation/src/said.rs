//! What a coordinator says to the world around it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regatta_model::Digest;
use regatta_wire::v1;
use tokio::sync::Notify;

/// A connection of a machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Link {
    pub(crate) machine: usize,
    /// Counts the connections of a machine over all its lives.
    pub(crate) number: u64,
}

/// Something that leaves the coordinator.
#[derive(Debug)]
pub(crate) enum Said {
    /// It serves from now on.
    Started,
    /// It could not start, and has ended.
    FailedToStart(String),
    /// It has ended in the middle of something.
    Crashed,
    /// A desired state goes to an agent.
    State(Link, Box<v1::DesiredState>),
    /// It has ended a connection.
    HungUp(Link, String),
    /// A blob that an agent uploaded is stored, or not.
    Uploaded { upload: u64, stored: bool },
    /// A run was accepted, or not.
    Submitted {
        run: usize,
        answer: Result<String, String>,
    },
    /// A watcher of a run sees an event.
    Event {
        run: usize,
        event: Box<v1::RunEvent>,
    },
    /// A watcher of a run hears no more.
    WatchEnded { run: usize, failure: Option<String> },
    /// An action result was served, and these of the blobs that it names were absent meanwhile.
    Served { key: Digest, absent: Vec<Digest> },
    /// A large blob was read to its end.
    Read { digest: Digest, is_right: bool },
    /// Somebody was told that these blobs are there.
    Promised(Promise),
    /// Something is about to be removed from the bucket.
    Removing { key: Digest },
    /// Something was stored or removed in the bucket.
    StoreChanged { removed: bool },
    /// A read of something from the bucket returned something else.
    Spoilt { key: Digest },
}

/// That blobs are there, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    pub(crate) blobs: Vec<Digest>,
    /// When that was asked.
    pub(crate) asked: Duration,
    /// How long from then on they are there.
    pub(crate) lasts: Duration,
    /// By whom, for people.
    pub(crate) by: &'static str,
}

/// What was said and not heard yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct SaidQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    said: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Said>,
    closed: bool,
}

impl SaidQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn say(&self, said: Said) {
        let mut state = self.lock();
        if !state.closed {
            state.queue.push_back(said);
            self.0.said.notify_one();
        }
    }

    /// Nothing that is said from now on is heard.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    pub(crate) fn take(&self) -> VecDeque<Said> {
        std::mem::take(&mut self.lock().queue)
    }

    /// Waits until something was said.
    pub(crate) async fn heard(&self) {
        self.0.said.notified().await;
    }
}
