//! Actions, from Execute to their results.

use std::time::Instant;

use anyhow::{Result, ensure};
use futures::{StreamExt, TryFutureExt, TryStreamExt, stream};
use prost::Message;
use regatta_model::Digest;
use regatta_wire::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use regatta_wire::reapi::execution_client::ExecutionClient;
use regatta_wire::reapi::{
    Action, ActionResult, BatchUpdateBlobsRequest, Command, Directory, ExecuteRequest,
    ExecuteResponse, Platform, RequestMetadata, batch_update_blobs_request, command, platform,
};
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use crate::processor::Processes;
use crate::times::Times;

/// How many actions of one invocation are timed, and how many go before them to warm the slots.
const ACTIONS: usize = 1000;
const WARM_UP: usize = 50;
/// How many are under way at once where many are.
const JOBS: usize = 50;
/// How many invocations of one action are timed: each needs a container of its own.
const INVOCATIONS: usize = 30;

/// What a client calls one build: slots are shared within it and with nothing else.
#[derive(Clone)]
pub(super) struct Invocation(String);

impl Invocation {
    pub(super) fn new() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    /// A request of it.
    pub(super) fn request(&self, request: ExecuteRequest) -> Request<ExecuteRequest> {
        let metadata = RequestMetadata {
            tool_invocation_id: self.0.clone(),
            ..RequestMetadata::default()
        };
        let value = MetadataValue::from_bytes(&metadata.encode_to_vec());
        let mut request = Request::new(request);
        let header = "build.bazel.remote.execution.v2.requestmetadata-bin";
        request.metadata_mut().insert_bin(header, value);
        request
    }
}

/// Whether an action's result is to come from the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum From {
    Agent,
    Cache,
}

/// A fleet to measure, and the image of its jobs.
pub(super) struct Actions<'a> {
    pub(super) channel: &'a Channel,
    pub(super) image: Option<&'a str>,
    pub(super) fleet: &'a Processes,
}

impl Actions<'_> {
    /// Measures actions in every way, and returns one whose result is cached.
    pub(super) async fn measure(&self) -> Result<(serde_json::Value, Digest)> {
        let warm = Invocation::new();
        self.one_by_one(&self.upload(WARM_UP).await?, |_| warm.clone(), From::Agent)
            .await?;
        let actions = self.upload(ACTIONS).await?;
        let alone = self
            .one_by_one(&actions, |_| warm.clone(), From::Agent)
            .await?;
        let cached = self
            .one_by_one(&actions, |_| warm.clone(), From::Cache)
            .await?;
        let together = self.together(&self.upload(ACTIONS).await?, &warm).await?;
        let fresh = self.upload(INVOCATIONS).await?;
        let fresh = self
            .one_by_one(&fresh, |_| Invocation::new(), From::Agent)
            .await?;
        let measured = serde_json::json!({
            "one_by_one": alone, "cached": cached, "fifty_at_once": together, "fresh": fresh,
        });
        Ok((measured, actions[0]))
    }

    /// Uploads that many actions, each new to the cache.
    async fn upload(&self, count: usize) -> Result<Vec<Digest>> {
        stream::iter(0..count)
            .then(|number| upload_action(self.channel, self.image, number))
            .try_collect()
            .await
    }

    /// One action after another.
    async fn one_by_one(
        &self,
        actions: &[Digest],
        invocation: impl Fn(usize) -> Invocation,
        from: From,
    ) -> Result<serde_json::Value> {
        let mut times = Times::default();
        let before = self.fleet.used()?;
        for (number, action) in actions.iter().enumerate() {
            let invocation = invocation(number);
            let started = Instant::now();
            execute(self.channel, *action, &invocation, from).await?;
            times.add(started.elapsed());
        }
        let mut summary = times.summary();
        summary["processor_ms"] = serde_json::json!(self.fleet.each_ms(&before, actions.len())?);
        Ok(summary)
    }

    /// Many actions at once.
    async fn together(
        &self,
        actions: &[Digest],
        invocation: &Invocation,
    ) -> Result<serde_json::Value> {
        let before = self.fleet.used()?;
        let started = Instant::now();
        stream::iter(actions.iter().map(Ok))
            .try_for_each_concurrent(JOBS, |action| {
                execute(self.channel, *action, invocation, From::Agent).map_ok(drop)
            })
            .await?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(serde_json::json!({
            "count": actions.len(),
            "actions_per_second": actions.len() as f64 / seconds,
            "processor_ms": self.fleet.each_ms(&before, actions.len())?,
        }))
    }
}

async fn upload_action(channel: &Channel, image: Option<&str>, number: usize) -> Result<Digest> {
    let (digest, blobs) = new_action(image, number);
    upload(channel, blobs.into()).await?;
    Ok(digest)
}

/// An action that nobody has seen, and what has to be uploaded for it.
pub(super) fn new_action(image: Option<&str>, number: usize) -> (Digest, [Vec<u8>; 3]) {
    let image = image.map(|image| platform::Property {
        name: "container-image".to_owned(),
        value: image.to_owned(),
    });
    let command = Command {
        arguments: vec!["/bin/true".to_owned()],
        environment_variables: vec![never_seen(number)],
        ..Command::default()
    };
    action_of(&command, image)
}

/// A variable that makes a command new to the cache.
pub(super) fn never_seen(number: usize) -> command::EnvironmentVariable {
    command::EnvironmentVariable {
        name: "NUMBER".to_owned(),
        value: format!("{number} {}", uuid::Uuid::new_v4()),
    }
}

/// The action of a command without inputs, and what has to be uploaded for it.
pub(super) fn action_of(
    command: &Command,
    image: Option<platform::Property>,
) -> (Digest, [Vec<u8>; 3]) {
    let (command, root) = (
        command.encode_to_vec(),
        Directory::default().encode_to_vec(),
    );
    let action = Action {
        command_digest: Some(Digest::of(&command).into()),
        input_root_digest: Some(Digest::of(&root).into()),
        platform: Some(Platform {
            properties: image.into_iter().collect(),
        }),
        ..Action::default()
    };
    let action = action.encode_to_vec();
    (Digest::of(&action), [command, root, action])
}

/// Uploads small blobs in one call.
pub(super) async fn upload(channel: &Channel, blobs: Vec<Vec<u8>>) -> Result<()> {
    let request = |bytes: Vec<u8>| batch_update_blobs_request::Request {
        digest: Some(Digest::of(&bytes).into()),
        data: bytes.into(),
        ..Default::default()
    };
    let request = BatchUpdateBlobsRequest {
        requests: blobs.into_iter().map(request).collect(),
        ..Default::default()
    };
    ContentAddressableStorageClient::new(channel.clone())
        .batch_update_blobs(request)
        .await?;
    Ok(())
}

/// Executes an action, which must succeed, and says what came of it.
pub(super) async fn execute(
    channel: &Channel,
    action: Digest,
    invocation: &Invocation,
    from: From,
) -> Result<ActionResult> {
    let request = invocation.request(ExecuteRequest {
        action_digest: Some(action.into()),
        ..Default::default()
    });
    let mut stream = ExecutionClient::new(channel.clone())
        .execute(request)
        .await?
        .into_inner();
    while let Some(operation) = stream.message().await? {
        let Some(regatta_wire::longrunning::operation::Result::Response(response)) =
            operation.result
        else {
            continue;
        };
        let response = response.to_msg::<ExecuteResponse>()?;
        let exit_code = response.result.as_ref().map(|result| result.exit_code);
        ensure!(
            exit_code == Some(0) && response.cached_result == (from == From::Cache),
            "expected success from the {from:?}: {response:?}"
        );
        return Ok(response.result.unwrap_or_default());
    }
    anyhow::bail!("the stream ended without a result")
}
