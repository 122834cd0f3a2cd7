//! A client like a build: it connects, executes what is new, asks for all of it again, and goes away. Some of what it
//! asks for is cancelled, left alone, or watched by others.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use regatta_model::Digest;
use regatta_wire::longrunning::operation::Result as Ended;
use regatta_wire::longrunning::operations_client::OperationsClient;
use regatta_wire::longrunning::{CancelOperationRequest, Operation};
use regatta_wire::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use regatta_wire::reapi::execution_client::ExecutionClient;
use regatta_wire::reapi::execution_stage::Value as Stage;
use regatta_wire::reapi::{
    ActionResult, BatchReadBlobsRequest, Command, ExecuteOperationMetadata, ExecuteRequest,
    ExecuteResponse, WaitExecutionRequest, platform,
};
use tonic::Streaming;
use tonic::transport::Channel;

use super::Soak;
use crate::actions::{From, Invocation, action_of, execute, never_seen, upload};

/// How many actions with outputs a build has.
const ACTIONS: usize = 24;
/// How many more it has for the agent that is watched, so that it surely has work: the one that offers this.
const WATCHED_ACTIONS: usize = 2;
const WATCHED: (&str, &str) = ("soak", "watched");
/// Of so many builds, one leaves an action alone that would go on for long.
const ABANDONS_ONE_OF: usize = 5;

/// Leaves two files, of 8 KiB and of a few bytes, and more output than is told inline.
const WORK: &str = "mkdir -p out && head -c 8192 /dev/urandom > out/large && echo $NUMBER > out/small \
    && head -c 6000 out/large | od -An -tx1";
/// Goes on until it is stopped.
const ENDLESS: &str = "sleep 600";
/// Long enough to come and go meanwhile.
const SLOW: &str = "sleep 2; echo done > out";
const CANCELLED: i32 = tonic::Code::Cancelled as i32;

/// One build.
pub(super) async fn one(soak: Arc<Soak>, number: usize) -> Result<()> {
    let client = soak.connect().await?;
    let build = Build {
        invocation: Invocation::new(),
        client,
        soak: &soak,
    };
    let (name, value) = WATCHED;
    let watched = platform::Property {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let mut actions = build.new_actions(WORK, ACTIONS, None).await?;
    actions.extend(
        build
            .new_actions(WORK, WATCHED_ACTIONS, Some(watched))
            .await?,
    );
    let executed = build.all(&actions, "executed", From::Agent).await;
    build.all(&actions, "from the cache", From::Cache).await;
    let tally = &soak.tally;
    if let Some(result) = executed.first() {
        tally.ask("output read", build.read(result)).await;
    }
    let troubled = build.new_actions(ENDLESS, 2, None).await?;
    let slow = build.new_actions(SLOW, 1, None).await?;
    tokio::join!(
        tally.ask("cancelled", build.cancel(troubled[0])),
        tally.ask("watched again", build.come_back(slow[0])),
    );
    if number.is_multiple_of(ABANDONS_ONE_OF) {
        // Nobody waits for it; it must be gone at the end all the same.
        let left = build.begin(troubled[1]).await;
        tally.ask("abandoned", async { left.map(drop) }).await;
    }
    Ok(())
}

struct Build<'a> {
    soak: &'a Soak,
    client: Channel,
    invocation: Invocation,
}

impl Build<'_> {
    /// Uploads actions that nobody has seen, in one call.
    async fn new_actions(
        &self,
        script: &str,
        count: usize,
        property: Option<platform::Property>,
    ) -> Result<Vec<Digest>> {
        let command = |number| Command {
            arguments: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            environment_variables: vec![never_seen(number)],
            output_paths: vec!["out".to_owned()],
            ..Command::default()
        };
        let actions = (0..count).map(|number| action_of(&command(number), property.clone()));
        let (actions, blobs): (Vec<_>, Vec<_>) = actions.unzip();
        upload(&self.client, blobs.into_iter().flatten().collect()).await?;
        Ok(actions)
    }

    /// All of some actions at once; what came of those that were answered.
    async fn all(&self, actions: &[Digest], kind: &'static str, from: From) -> Vec<ActionResult> {
        let asked = actions.iter().copied().map(|action| {
            let answer = execute(&self.client, action, &self.invocation, from);
            self.soak.tally.ask(kind, answer)
        });
        let answers = futures::future::join_all(asked).await;
        answers.into_iter().flatten().collect()
    }

    /// Reads what an action printed.
    async fn read(&self, result: &ActionResult) -> Result<()> {
        let digest = result.stdout_digest.clone().context("it printed nothing")?;
        let size = digest.size_bytes;
        let request = BatchReadBlobsRequest {
            digests: vec![digest],
            ..Default::default()
        };
        let mut client = ContentAddressableStorageClient::new(self.client.clone());
        let read = client.batch_read_blobs(request).await?.into_inner();
        let length = read.responses.first().map_or(0, |it| it.data.len());
        ensure!(i64::try_from(length)? == size, "{length} bytes of {size}");
        Ok(())
    }

    /// Begins an action, and says which operation it is.
    async fn begin(&self, action: Digest) -> Result<(Operation, Streaming<Operation>)> {
        let request = self.invocation.request(ExecuteRequest {
            action_digest: Some(action.into()),
            ..Default::default()
        });
        let mut client = ExecutionClient::new(self.client.clone());
        let mut states = client.execute(request).await?.into_inner();
        let operation = states.message().await?.context("no operation")?;
        Ok((operation, states))
    }

    /// Begins an action, and cancels it once it executes.
    async fn cancel(&self, action: Digest) -> Result<()> {
        let (mut operation, mut states) = self.begin(action).await?;
        while !is_executing(&operation)? {
            operation = states.message().await?.context("it ended by itself")?;
        }
        let request = CancelOperationRequest {
            name: operation.name,
        };
        let mut operations = OperationsClient::new(self.client.clone());
        operations.cancel_operation(request).await?;
        let response = result_of(states).await?;
        let code = response.status.as_ref().map(|status| status.code);
        ensure!(code == Some(CANCELLED), "it was cancelled: {response:?}");
        Ok(())
    }

    /// Begins an action, goes away in the middle, and comes back with others, one of whom does not stay either.
    async fn come_back(&self, action: Digest) -> Result<()> {
        let (operation, states) = self.begin(action).await?;
        drop(states);
        let other = self.soak.connect().await?;
        let passing = wait(&other, &operation.name).await?;
        let staying = wait(&self.client, &operation.name).await?;
        drop(passing);
        let response = result_of(staying).await?;
        let code = response.result.as_ref().map(|result| result.exit_code);
        ensure!(code == Some(0), "expected success: {response:?}");
        Ok(())
    }
}

fn is_executing(operation: &Operation) -> Result<bool> {
    let metadata = operation.metadata.as_ref().context("no metadata")?;
    let stage = metadata.to_msg::<ExecuteOperationMetadata>()?.stage();
    Ok(stage >= Stage::Executing)
}

async fn wait(client: &Channel, name: &str) -> Result<Streaming<Operation>> {
    let request = WaitExecutionRequest {
        name: name.to_owned(),
    };
    let mut client = ExecutionClient::new(client.clone());
    let mut states = client.wait_execution(request).await?.into_inner();
    states.message().await?.context("no operation")?;
    Ok(states)
}

/// What an operation comes to that has not ended yet.
async fn result_of(mut states: Streaming<Operation>) -> Result<ExecuteResponse> {
    while let Some(operation) = states.message().await? {
        if let Some(Ended::Response(response)) = operation.result {
            return Ok(response.to_msg()?);
        }
    }
    anyhow::bail!("the stream ended without a result")
}
