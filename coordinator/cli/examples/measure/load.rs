//! A queue that is full, and all who wait in it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use regatta_cas::for_blobs;
use regatta_model::Digest;
use regatta_wire::reapi::execution_client::ExecutionClient;
use regatta_wire::reapi::execution_stage::Value as Stage;
use regatta_wire::reapi::{
    ExecuteOperationMetadata, ExecuteRequest, ExecuteResponse, ExecutionPolicy,
};
use regatta_wire::v1;
use regatta_wire::v1::fleet_client::FleetClient;
use tonic::transport::{Channel, Endpoint};

use crate::actions::{Invocation, new_action, upload};
use crate::processor::Processes;
use crate::times::Times;

/// How many agents there must be.
pub(super) const AGENTS: usize = 200;
/// How many clients wait, each on a connection of its own.
const CLIENTS: usize = 500;
/// How many actions each of them has in the queue.
const ACTIONS_PER_CLIENT: usize = 100;
/// How many actions go before all others while the queue is full, one after the other.
const URGENT: usize = 200;
/// How many uploads and connections are under way at once.
const AT_ONCE: usize = 16;
/// How long the agents may take to connect.
const PATIENCE: Duration = Duration::from_secs(120);

/// When an action was leased, and when it had ended, since it was asked for.
struct Course {
    leased: Duration,
    ended: Duration,
}

/// What 50,000 actions cost that are queued at once, and how long those wait that go before them.
pub(super) async fn measure(
    endpoint: &Endpoint,
    channel: &Channel,
    fleet: &Processes,
) -> Result<serde_json::Value> {
    await_agents(channel).await?;
    let clients: Vec<Channel> = stream::iter(0..CLIENTS)
        .map(|_| async { for_blobs(endpoint.clone()).connect().await })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let actions: Vec<Vec<Digest>> = stream::iter(0..CLIENTS)
        .map(|_| new_actions(channel, ACTIONS_PER_CLIENT))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let urgent = new_actions(channel, URGENT).await?;
    let before = fleet.used()?;
    let started = Instant::now();
    let waiting = stream::iter(clients.iter().zip(&actions))
        .map(|(client, actions)| all_of(client, actions))
        .buffer_unordered(CLIENTS)
        .try_collect::<Vec<Vec<Course>>>();
    let (waiting, hurried) = tokio::join!(waiting, hurry(channel, &urgent));
    let (waiting, hurried) = (waiting?, hurried?);
    let took = started.elapsed().as_secs_f64();
    let count = CLIENTS * ACTIONS_PER_CLIENT;
    let (mut leased, mut ended) = (Times::default(), Times::default());
    for course in waiting.into_iter().flatten() {
        leased.add(course.leased);
        ended.add(course.ended);
    }
    Ok(serde_json::json!({
        "agents": AGENTS, "clients": CLIENTS, "seconds": took,
        "actions_per_second": count as f64 / took,
        "queue_to_lease": leased.summary(), "queue_to_result": ended.summary(),
        "urgent_queue_to_lease": hurried.summary(),
        "processor_ms": fleet.each_ms(&before, count + URGENT)?,
    }))
}

/// Waits until the whole fleet is connected.
pub(super) async fn await_agents(channel: &Channel) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut fleet = FleetClient::new(channel.clone());
        let list = fleet.list_agents(v1::ListAgentsRequest {}).await?;
        let agents = list.into_inner().agents;
        let connected = agents.iter().filter(|agent| agent.connected).count();
        if connected >= AGENTS {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{connected} of {AGENTS} agents are connected after {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Uploads actions, a few to a call.
async fn new_actions(channel: &Channel, count: usize) -> Result<Vec<Digest>> {
    let (actions, blobs): (Vec<_>, Vec<_>) = (0..count).map(|it| new_action(None, it)).unzip();
    upload(channel, blobs.into_iter().flatten().collect()).await?;
    Ok(actions)
}

/// Everything that one client asks for, at once.
async fn all_of(client: &Channel, actions: &[Digest]) -> Result<Vec<Course>> {
    let invocation = Invocation::new();
    stream::iter(actions)
        .map(|action| execute(client, *action, &invocation, 0))
        .buffer_unordered(actions.len())
        .try_collect()
        .await
}

/// Actions that go before all others, one after the other.
async fn hurry(channel: &Channel, actions: &[Digest]) -> Result<Times> {
    let invocation = Invocation::new();
    let mut times = Times::default();
    for action in actions {
        let course = execute(channel, *action, &invocation, -1).await?;
        times.add(course.leased);
    }
    Ok(times)
}

async fn execute(
    channel: &Channel,
    action: Digest,
    invocation: &Invocation,
    priority: i32,
) -> Result<Course> {
    let request = ExecuteRequest {
        action_digest: Some(action.into()),
        execution_policy: Some(ExecutionPolicy { priority }),
        ..Default::default()
    };
    let started = Instant::now();
    let mut client = ExecutionClient::new(channel.clone());
    let stream = client.execute(invocation.request(request)).await;
    let mut stream = stream.context("an action was not taken")?.into_inner();
    let mut leased = None;
    while let Some(operation) = stream.message().await? {
        let metadata = operation.metadata.as_ref();
        let metadata = metadata.map(|any| any.to_msg::<ExecuteOperationMetadata>());
        let stage = metadata.transpose()?.map(|metadata| metadata.stage());
        if stage.is_some_and(|stage| stage >= Stage::Executing) {
            leased.get_or_insert_with(|| started.elapsed());
        }
        let Some(regatta_wire::longrunning::operation::Result::Response(response)) =
            operation.result
        else {
            continue;
        };
        let response = response.to_msg::<ExecuteResponse>()?;
        let code = response.result.as_ref().map(|result| result.exit_code);
        ensure!(code == Some(0), "expected success: {response:?}");
        let ended = started.elapsed();
        let leased = leased.context("an action was never leased")?;
        return Ok(Course { leased, ended });
    }
    bail!("the stream ended without a result")
}
