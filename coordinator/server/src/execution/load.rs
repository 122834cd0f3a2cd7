//! An action out of the store.

use prost::Message;
use regatta_cas::{BlobStore, StoreError, read_all};
use regatta_model::Digest;
use regatta_wire::reapi;

use crate::cas::{DirectoryError, InputTreeError, InputTrees};
use crate::status::{self, Failure};

/// The largest Action or Command that is read, in bytes.
const MAX_MESSAGE_SIZE_BYTES: u64 = 4 << 20;

/// An action and the command that it names.
#[derive(Debug)]
pub(super) struct LoadedAction {
    pub(super) action: reapi::Action,
    pub(super) command: reapi::Command,
    pub(super) input_root: Digest,
}

/// Loads an action and its command, and makes sure that its inputs are there.
///
/// # Errors
/// FAILED_PRECONDITION names every blob that is missing, INVALID_ARGUMENT what is no message.
pub(super) async fn load_action(
    blobs: &dyn BlobStore,
    inputs: &InputTrees,
    digest: &Digest,
) -> Result<LoadedAction, Failure> {
    let what = format!("action {digest}");
    let Some(action) = load::<reapi::Action>(blobs, digest, "action_digest").await? else {
        return Err(status::missing_blobs(&what, &[*digest]));
    };
    let command_digest =
        status::digest_field(action.command_digest.as_ref(), "action.command_digest")?;
    let root = status::digest_field(
        action.input_root_digest.as_ref(),
        "action.input_root_digest",
    )?;
    let (command, missing) = tokio::join!(
        load::<reapi::Command>(blobs, &command_digest, "action.command_digest"),
        inputs.missing(root),
    );
    let command = command?;
    let mut missing = missing.map_err(|error| of_inputs(&error))?;
    if command.is_none() && !missing.contains(&command_digest) {
        missing.insert(0, command_digest);
    }
    match command {
        Some(command) if missing.is_empty() => Ok(LoadedAction {
            action,
            command,
            input_root: root,
        }),
        Some(_) | None => Err(status::missing_blobs(&what, &missing)),
    }
}

/// A message out of the store; `None` if it is not there.
async fn load<Loaded: Message + Default>(
    blobs: &dyn BlobStore,
    digest: &Digest,
    field: &str,
) -> Result<Option<Loaded>, Failure> {
    if digest.size_bytes() > MAX_MESSAGE_SIZE_BYTES {
        let description = format!("{digest} is larger than {MAX_MESSAGE_SIZE_BYTES} bytes");
        return Err(status::invalid_argument(field, description));
    }
    match read_all(blobs, digest, MAX_MESSAGE_SIZE_BYTES).await {
        Ok(bytes) => Loaded::decode(bytes).map(Some).map_err(|error| {
            status::invalid_argument(field, format!("{digest} is not what it should be: {error}"))
        }),
        // A corrupt blob counts as absent by now, and has to be sent again.
        Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(status::of_read(&error)),
    }
}

fn of_inputs(error: &InputTreeError) -> Failure {
    if let InputTreeError::Directory { root, source } = error
        && let DirectoryError::Store(source) = source.as_ref()
    {
        return match source {
            StoreError::NotFound { digest }
            | StoreError::Corrupt {
                expected: digest, ..
            } => status::missing_blobs(format!("input root {root}"), &[*digest]),
            StoreError::OutOfRange { .. }
            | StoreError::Undecodable { .. }
            | StoreError::Full { .. }
            | StoreError::Exhausted { .. }
            | StoreError::Away { .. }
            | StoreError::Unavailable { .. } => status::of_read(source),
        };
    }
    status::invalid_argument("action.input_root_digest", status::with_sources(error))
}
