//! Asking an image which shared libraries it lacks.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use regatta_model::ImageReference;
use regatta_wire::convert::duration_to_wire;
use regatta_wire::reapi;
use tokio_stream::StreamExt as _;

use crate::client::Client;
use crate::jobs;
use crate::tree::{Entries, Source, StageError, Staging};

/// The name of the program in its input root.
const PROGRAM: &str = "probe";
/// How long it may run; it looks up a few files.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

/// Why it is not known what an image lacks.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The program cannot be brought to the store.
    #[error("the library probe cannot be uploaded")]
    Stage(#[from] StageError),
    /// The coordinator refuses to run it.
    #[error("the library probe cannot be run: {detail}")]
    Refused {
        /// What it said.
        detail: String,
    },
    /// It ran and failed.
    #[error("the library probe failed with exit code {exit_code}: {stderr}")]
    Failed {
        /// Its exit code.
        exit_code: i32,
        /// What it said.
        stderr: String,
    },
}

/// Those of `sonames` that the image lacks. It is an action like any other: asked twice, an image answers
/// from the cache.
///
/// # Errors
/// The fleet cannot run the probe.
pub async fn lacking(
    client: &Client,
    image: Option<&ImageReference>,
    sonames: &BTreeSet<&str>,
    cache_file: &Path,
) -> Result<BTreeSet<String>, ProbeError> {
    if sonames.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut staging = Staging::new(cache_file);
    let action = stage(&mut staging, image, sonames)?;
    staging.upload(&client.blobs()).await?;
    let result = execute(client, action).await?;
    if result.exit_code != 0 {
        return Err(ProbeError::Failed {
            exit_code: result.exit_code,
            stderr: String::from_utf8_lossy(&result.stderr_raw)
                .trim()
                .to_owned(),
        });
    }
    let stdout = stdout_of(client, &result).await?;
    let lines = String::from_utf8_lossy(&stdout).into_owned();
    Ok(lines
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

fn stage(
    staging: &mut Staging,
    image: Option<&ImageReference>,
    sonames: &BTreeSet<&str>,
) -> Result<reapi::Digest, StageError> {
    let mut entries = Entries::default();
    let program = Bytes::from_static(regatta_runtime::INIT_BINARY);
    let source = Source::Bytes {
        bytes: program,
        executable: true,
    };
    entries.by_path.insert(PROGRAM.to_owned(), source);
    let roots = staging.add(&[&entries])?;
    let words = [format!("./{PROGRAM}"), "probe-libraries".to_owned()];
    let platform = jobs::platform(image);
    let command = reapi::Command {
        arguments: words
            .into_iter()
            .chain(sonames.iter().map(ToString::to_string))
            .collect(),
        environment_variables: jobs::environment_to_wire(&jobs::base_environment()),
        ..reapi::Command::default()
    };
    let command = staging.add_bytes(command.encode_to_vec().into());
    let action = reapi::Action {
        command_digest: Some(command.into()),
        input_root_digest: roots.first().map(Into::into),
        timeout: Some(duration_to_wire(TIMEOUT)),
        platform: Some(platform),
        ..reapi::Action::default()
    };
    Ok(staging.add_bytes(action.encode_to_vec().into()).into())
}

async fn execute(
    client: &Client,
    action: reapi::Digest,
) -> Result<reapi::ActionResult, ProbeError> {
    let refused = |status: tonic::Status| ProbeError::Refused {
        detail: status.message().to_owned(),
    };
    let request = reapi::ExecuteRequest {
        instance_name: client.instance().to_owned(),
        action_digest: Some(action),
        ..reapi::ExecuteRequest::default()
    };
    let mut operations = client
        .execution()
        .execute(request)
        .await
        .map_err(refused)?
        .into_inner();
    while let Some(operation) = operations.next().await {
        let Some(outcome) = operation.map_err(refused)?.result else {
            continue;
        };
        return response_of(outcome);
    }
    Err(ProbeError::Refused {
        detail: "the coordinator ended the execution without a result".to_owned(),
    })
}

fn response_of(
    outcome: regatta_wire::longrunning::operation::Result,
) -> Result<reapi::ActionResult, ProbeError> {
    use regatta_wire::longrunning::operation::Result as Outcome;
    let refused = |detail: String| Err(ProbeError::Refused { detail });
    let response = match outcome {
        Outcome::Error(status) => return refused(status.message),
        Outcome::Response(any) => reapi::ExecuteResponse::decode(any.value.as_ref()),
    };
    let response = match response {
        Ok(response) => response,
        Err(error) => return refused(format!("its answer makes no sense: {error}")),
    };
    match (response.status, response.result) {
        (Some(status), _) if status.code != 0 => refused(status.message),
        (_, Some(result)) => Ok(result),
        (_, None) => refused("its answer has no result".to_owned()),
    }
}

async fn stdout_of(client: &Client, result: &reapi::ActionResult) -> Result<Bytes, ProbeError> {
    /// More than the names of any number of libraries take.
    const LIMIT_BYTES: u64 = 1 << 20;
    let Some(digest) = result
        .stdout_digest
        .as_ref()
        .filter(|_| result.stdout_raw.is_empty())
    else {
        return Ok(result.stdout_raw.clone());
    };
    let refused = |detail: String| ProbeError::Refused { detail };
    let digest =
        regatta_model::Digest::try_from(digest).map_err(|error| refused(error.to_string()))?;
    regatta_cas::read_all(&client.blobs(), &digest, LIMIT_BYTES)
        .await
        .map_err(|error| refused(error.to_string()))
}
