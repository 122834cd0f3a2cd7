//! Work of all kinds, a little of it at a time and for long, to see what grows.
//!
//! Everything comes in waves at a pace that does not depend on how fast the fleet is, so that what is measured in one
//! quarter of an hour can be compared with another.

mod builds;
mod runs;
mod tally;
mod visits;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use regatta_cas::for_blobs;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::transport::{Channel, Endpoint};

use crate::load::await_agents;
use tally::Tally;

/// How often a build comes, a run of tests, and a client that only looks.
const BUILD_INTERVAL: Duration = Duration::from_millis(800);
const RUN_INTERVAL: Duration = Duration::from_secs(4);
const VISIT_INTERVAL: Duration = Duration::from_millis(500);
/// How many of each kind are under way at most; then the next has to wait.
const MOST_AT_ONCE: usize = 64;

/// A fleet in use.
#[derive(Clone)]
pub(super) struct Soak {
    endpoint: Endpoint,
    tally: Arc<Tally>,
}

impl Soak {
    /// A connection of a client's own.
    async fn connect(&self) -> Result<Channel> {
        Ok(for_blobs(self.endpoint.clone()).connect().await?)
    }
}

/// Uses the fleet for so long, then waits for all answers. Says what was asked for and what had no answer.
pub(super) async fn measure(
    endpoint: &Endpoint,
    channel: &Channel,
    length: Duration,
) -> Result<serde_json::Value> {
    await_agents(channel).await?;
    let soak = Soak {
        endpoint: endpoint.clone(),
        tally: Arc::default(),
    };
    let started = Instant::now();
    let end = started + length;
    let repeat_builds = waves(&soak, BUILD_INTERVAL, end, builds::one);
    let repeat_runs = waves(&soak, RUN_INTERVAL, end, runs::one);
    let repeat_visits = waves(&soak, VISIT_INTERVAL, end, visits::one);
    tokio::join!(repeat_builds, repeat_runs, repeat_visits);
    Ok(soak.tally.summary(started.elapsed()))
}

/// Begins something again and again until `end`, and waits until all of it has ended.
async fn waves<F>(
    soak: &Soak,
    interval: Duration,
    end: Instant,
    begin: impl Fn(Arc<Soak>, usize) -> F,
) where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut under_way, shared) = (JoinSet::new(), Arc::new(soak.clone()));
    for number in 0.. {
        if ticks.tick().await >= end {
            break;
        }
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= MOST_AT_ONCE {
            under_way.join_next().await;
        }
        let (wave, tally) = (begin(Arc::clone(&shared), number), Arc::clone(&soak.tally));
        under_way.spawn(async move { tally.note(wave.await) });
    }
    while under_way.join_next().await.is_some() {}
}
