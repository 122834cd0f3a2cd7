//! A build as a client with a remote cache runs it.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future, stream};
use prost::Message as _;
use regatta_cas::{BlobStore as _, GrpcBlobStore, put_bytes, read_all};
use regatta_model::Digest;
use regatta_wire::reapi::action_cache_client::ActionCacheClient;
use regatta_wire::reapi::{
    Action, ActionResult, Command, GetActionResultRequest, OutputFile, UpdateActionResultRequest,
};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::Outcome;
use super::coordinator_process::TENANT;

/// How many outputs an action has.
pub(super) const OUTPUTS: u32 = 5;
/// How large they are, in bytes: as compilers write beside their objects.
const OUTPUT_BYTES: [usize; OUTPUTS as usize] = [200, 700, 2000, 5000, 12_000];
/// How many actions are under way at a time.
const JOBS: usize = 50;

pub(super) struct Build {
    actions: Vec<BuildAction>,
}

struct BuildAction {
    /// The command and the action.
    messages: [Bytes; 2],
    digest: Digest,
    outputs: Vec<Bytes>,
    result: ActionResult,
}

/// How it reaches a coordinator.
struct Remote {
    results: ActionCacheClient<Channel>,
    blobs: GrpcBlobStore,
}

impl Build {
    pub(super) fn new(actions: u32) -> Self {
        let actions = (0..actions).map(BuildAction::new);
        Self {
            actions: actions.collect(),
        }
    }

    /// Executes every action, none of which has a result yet, and stores what comes of it.
    pub(super) async fn run_cold(&self, address: &str) -> Outcome {
        let remote = Remote::connect(address).await?;
        let executed = self.each(async |action| {
            let cached = remote.result_of(action).await?;
            assert_eq!(cached, None, "nothing is cached yet");
            remote.upload(&action.messages).await?;
            remote.upload(&action.outputs).await?;
            remote.keep_result(action).await
        });
        executed.await
    }

    /// Looks up every action, as a build that downloads nothing does.
    pub(super) async fn look_up(&self, address: &str) -> Outcome {
        let remote = Remote::connect(address).await?;
        let looked_up = self.each(async |action| {
            let cached = remote.result_of(action).await?;
            let cached = cached.ok_or("everything is cached")?;
            assert_eq!(cached.output_files, action.result.output_files);
            Ok(())
        });
        looked_up.await
    }

    /// Asks which of all blobs are missing, as a build that executes everything again does: none is.
    pub(super) async fn find_all(&self, address: &str) -> Outcome {
        let remote = Remote::connect(address).await?;
        let asked = self.each(async |action| {
            remote.upload(&action.messages).await?;
            remote.upload(&action.outputs).await
        });
        asked.await
    }

    /// Downloads every output.
    pub(super) async fn download(&self, address: &str) -> Outcome {
        let remote = Remote::connect(address).await?;
        let downloaded = self.each(async |action| {
            let reads = action.outputs.iter().map(|output| remote.read(output));
            future::try_join_all(reads).await.map(drop)
        });
        downloaded.await
    }

    async fn each(&self, run: impl AsyncFn(&BuildAction) -> Outcome) -> Outcome {
        let run = &run;
        let running = stream::iter(&self.actions).map(|action| run(action));
        running.buffer_unordered(JOBS).try_collect().await
    }
}

impl BuildAction {
    fn new(number: u32) -> Self {
        let command = Command {
            arguments: vec!["compile".to_owned(), number.to_string()],
            ..Command::default()
        };
        let command: Bytes = command.encode_to_vec().into();
        let action = Action {
            command_digest: Some(Digest::of(&command).into()),
            ..Action::default()
        };
        let action: Bytes = action.encode_to_vec().into();
        let outputs = (0..OUTPUTS).zip(OUTPUT_BYTES);
        let outputs: Vec<Bytes> = outputs
            .map(|(output, length)| content(number * OUTPUTS + output, length))
            .collect();
        let files = outputs
            .iter()
            .enumerate()
            .map(|(output, bytes)| OutputFile {
                path: format!("out/{number}.{output}"),
                digest: Some(Digest::of(bytes).into()),
                ..OutputFile::default()
            });
        let result = ActionResult {
            output_files: files.collect(),
            ..ActionResult::default()
        };
        Self {
            digest: Digest::of(&action),
            messages: [command, action],
            outputs,
            result,
        }
    }
}

/// Bytes that no other output has.
fn content(number: u32, length: usize) -> Bytes {
    let seed = Digest::of(&number.to_le_bytes());
    let bytes = seed.hash().iter().cycle().take(length);
    bytes.copied().collect()
}

impl Remote {
    async fn connect(address: &str) -> Outcome<Self> {
        let channel = Endpoint::from_shared(address.to_owned())?.connect().await?;
        Ok(Self {
            results: ActionCacheClient::new(channel.clone()),
            blobs: GrpcBlobStore::new(channel, TENANT),
        })
    }

    async fn result_of(&self, action: &BuildAction) -> Outcome<Option<ActionResult>> {
        let request = GetActionResultRequest {
            instance_name: TENANT.to_owned(),
            action_digest: Some(action.digest.into()),
            ..GetActionResultRequest::default()
        };
        match self.results.clone().get_action_result(request).await {
            Ok(result) => Ok(Some(result.into_inner())),
            Err(refused) if refused.code() == Code::NotFound => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }

    async fn upload(&self, blobs: &[Bytes]) -> Outcome {
        let digests: Vec<Digest> = blobs.iter().map(|blob| Digest::of(blob)).collect();
        let missing = self.blobs.find_missing(&digests).await?;
        let puts = blobs.iter().zip(digests);
        let puts = puts.filter(|(_, digest)| missing.contains(digest));
        let puts = puts.map(|(blob, _)| put_bytes(&self.blobs, blob.clone()));
        future::try_join_all(puts).await?;
        Ok(())
    }

    async fn keep_result(&self, action: &BuildAction) -> Outcome {
        let request = UpdateActionResultRequest {
            instance_name: TENANT.to_owned(),
            action_digest: Some(action.digest.into()),
            action_result: Some(action.result.clone()),
            ..UpdateActionResultRequest::default()
        };
        self.results.clone().update_action_result(request).await?;
        Ok(())
    }

    async fn read(&self, output: &Bytes) -> Outcome {
        let digest = Digest::of(output);
        let read = read_all(&self.blobs, &digest, digest.size_bytes()).await?;
        assert_eq!(read, output, "what was stored comes back");
        Ok(())
    }
}
