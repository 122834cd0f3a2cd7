//! What storage is like just now.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::random::Random;
use crate::said::{Said, SaidQueue};
use crate::trace::Trace;

/// How long an operation takes in good weather, in milliseconds.
const USUAL_MILLIS: (u64, u64) = (0, 3);
/// How long it takes in bad weather.
const SLOW_MILLIS: (u64, u64) = (20, 3000);

/// The mood of all storage, which every operation of every process asks.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    state: Arc<Mutex<State>>,
    trace: Trace,
    process: Arc<Process>,
}

/// Who asks.
#[derive(Debug, Default)]
struct Process {
    said: SaidQueue,
    clock: Option<(Instant, Duration)>,
    crashed: AtomicBool,
}

#[derive(Debug)]
struct State {
    random: Random,
    slow: bool,
    /// No write to the ledger is done.
    full: bool,
    /// Of a thousand operations, how many fail, half of them after they were done.
    failing: u64,
    /// Of a thousand reads, how many return something else.
    lying: u64,
    crash: Option<Crash>,
    /// Whether the coordinator ends at the next list of chunks that it stores: before it, or after it.
    crash_at_list: Option<bool>,
}

/// When the coordinator ends without a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Crash {
    /// At which of its writes to the ledger, counted from 1.
    pub(crate) write: u32,
    /// Whether that write is durable.
    pub(crate) after: bool,
}

/// What becomes of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Done,
    /// It says that it failed.
    Failed,
    /// It says so, though it was done.
    DoneAndFailed,
    /// The process ends before it, or after it.
    Crashed {
        done: bool,
    },
}

impl Weather {
    pub(crate) fn new(seed: u64, trace: Trace) -> Self {
        let state = State {
            random: Random::new(seed, 2),
            slow: false,
            full: false,
            failing: 0,
            lying: 0,
            crash: None,
            crash_at_list: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            trace,
            process: Arc::default(),
        }
    }

    /// As a process knows it that begins now, and says things to the world.
    pub(crate) fn over(&self, said: SaidQueue, instant: Instant, now: Duration) -> Self {
        let process = Process {
            said,
            clock: Some((instant, now)),
            crashed: AtomicBool::new(false),
        };
        Self {
            process: Arc::new(process),
            ..self.clone()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_slow(&self, slow: bool) {
        self.lock().slow = slow;
    }

    pub(crate) fn set_failing(&self, permille: u64) {
        self.lock().failing = permille;
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Whether nothing is the matter.
    pub(crate) fn is_fine(&self) -> bool {
        let state = self.lock();
        !state.slow && !state.full && state.failing == 0 && state.lying == 0
    }

    pub(crate) fn set_lying(&self, permille: u64) {
        self.lock().lying = permille;
    }

    pub(crate) fn plan_crash(&self, crash: Option<Crash>) {
        self.lock().crash = crash;
    }

    /// The coordinator ends at the next list of chunks: after it is stored, or before.
    pub(crate) fn plan_crash_at_list(&self, after: Option<bool>) {
        self.lock().crash_at_list = after;
    }

    /// Waits as long as an operation takes; for ever once the process has ended.
    pub(crate) async fn pass(&self) {
        let delay = {
            let mut state = self.lock();
            let (first, last) = if state.slow {
                SLOW_MILLIS
            } else {
                USUAL_MILLIS
            };
            state.random.millis(first, last)
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if self.process.crashed.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// What becomes of a write to the ledger.
    pub(crate) fn fate_of_write(&self, what: &str) -> Fate {
        let mut state = self.lock();
        if let Some(crash) = state.crash.as_mut() {
            crash.write = crash.write.saturating_sub(1);
            if crash.write == 0 {
                let done = crash.after;
                state.crash = None;
                return Fate::Crashed { done };
            }
        }
        if state.full {
            self.tell(&format!("ledger: {what} finds no room"));
            return Fate::Failed;
        }
        let failing = state.failing;
        if state.random.chance(failing) {
            let done = state.random.chance(500);
            self.tell(&format!(
                "ledger: {what} fails{}",
                if done { ", though it is done" } else { "" }
            ));
            return if done {
                Fate::DoneAndFailed
            } else {
                Fate::Failed
            };
        }
        Fate::Done
    }

    /// What becomes of the list of a blob's chunks that is to be stored.
    pub(crate) fn fate_of_list(&self) -> Fate {
        let planned = self.lock().crash_at_list.take();
        planned.map_or_else(
            || self.fate("a write of a list of chunks"),
            |done| Fate::Crashed { done },
        )
    }

    /// What becomes of any other operation.
    pub(crate) fn fate(&self, what: &str) -> Fate {
        let mut state = self.lock();
        let failing = state.failing;
        if !state.random.chance(failing) {
            return Fate::Done;
        }
        let done = state.random.chance(500);
        self.tell(&format!(
            "store: {what} fails{}",
            if done { ", though it is done" } else { "" }
        ));
        if done {
            Fate::DoneAndFailed
        } else {
            Fate::Failed
        }
    }

    /// Whether what is read now is something else.
    pub(crate) fn lies(&self, what: &str) -> bool {
        let mut state = self.lock();
        let lying = state.lying;
        let lies = state.random.chance(lying);
        if lies {
            self.tell(&format!("store: {what} is answered with something else"));
        }
        lies
    }

    /// The process ends here: nothing that it does from now on happens.
    pub(crate) async fn crash(&self, what: &str, done: bool) {
        let when = if done { "after" } else { "before" };
        self.tell(&format!("the coordinator crashes {when} {what}"));
        self.process.crashed.store(true, Ordering::Relaxed);
        self.process.said.say(Said::Crashed);
        self.process.said.close();
        std::future::pending::<()>().await;
    }

    pub(crate) fn tell(&self, what: &str) {
        let clock = self.process.clock;
        let now = clock.map_or(Duration::ZERO, |(begun, now)| now + begun.elapsed());
        self.trace.tell(now, what);
    }

    pub(crate) fn say(&self, said: Said) {
        self.process.said.say(said);
    }
}
