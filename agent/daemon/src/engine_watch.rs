//! The container engine: whether it is there. While it is away, which is how a daemon that is restarted looks, new
//! work is refused, and what a slot was given waits for it.

use std::sync::Arc;
use std::time::Duration;

use regatta_runtime::ContainerRuntime;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::availability::{Availability, Need};

/// How often the engine is asked when nobody doubts that it is there, or waits for it.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long it may take to answer. A busy one is slow.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long a lease waits for it to come back. A restart takes seconds.
const RETURN_LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked by who waits for it.
const RETURN_INTERVAL: Duration = Duration::from_millis(250);

/// Looks after the engine.
#[derive(Debug)]
pub(crate) struct EngineWatch {
    runtime: Arc<dyn ContainerRuntime>,
    availability: Arc<Availability>,
    /// One looks at a time, so that what was seen last is what is said last: when it began, and whether the engine was
    /// away.
    looking: Mutex<Option<(Instant, bool)>>,
}

impl EngineWatch {
    pub(crate) fn new(
        runtime: Arc<dyn ContainerRuntime>,
        availability: Arc<Availability>,
    ) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            availability,
            looking: Mutex::default(),
        })
    }

    /// Asks the engine again and again.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            self.is_away().await;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Asks the engine now. While it is away, new work is refused.
    pub(crate) async fn is_away(&self) -> bool {
        let asked_at = Instant::now();
        let mut looking = self.looking.lock().await;
        // Whoever looked meanwhile has seen it for everyone who waited.
        if let Some((_, away)) = looking.filter(|(begun, _)| *begun >= asked_at) {
            return away;
        }
        let begun = Instant::now();
        let reason = match tokio::time::timeout(ANSWER_LIMIT, self.runtime.ping()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!(
                "it did not answer for {} s",
                ANSWER_LIMIT.as_secs()
            )),
        };
        let away = reason.is_some();
        let reason = reason.map(|reason| {
            tracing::warn!(reason, "the container engine is away");
            format!("the container engine is away: {reason}; start it")
        });
        self.availability.tell(Need::Engine, reason).await;
        *looking = Some((begun, away));
        away
    }

    /// If the engine is away, waits until it is back. Whether it was and is.
    pub(crate) async fn returns(&self) -> bool {
        if !self.is_away().await {
            return false;
        }
        let back = async {
            while self.is_away().await {
                tokio::time::sleep(RETURN_INTERVAL).await;
            }
        };
        tokio::time::timeout(RETURN_LIMIT, back).await.is_ok()
    }
}
