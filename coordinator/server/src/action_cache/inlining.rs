//! Outputs inside results, for clients that want to save a round trip.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message as _;
use regatta_cas::{BlobStore, read_all};
use regatta_model::Digest;
use regatta_wire::reapi;

/// How large a result may become, with everything around it, in bytes: gRPC's peers take 4 MiB if nobody
/// told them otherwise.
const MAX_MESSAGE_BYTES: usize = (4 << 20) - (32 << 10);
/// What an inlined output costs besides its bytes: its key, its length, and that of what it is in.
const OVERHEAD_BYTES: usize = 16;

/// What a client wants to have inline.
#[derive(Debug, Clone, Default)]
pub(crate) struct InlineRequest {
    /// The standard output.
    pub(crate) stdout: bool,
    /// The standard error.
    pub(crate) stderr: bool,
    /// Output files by path.
    pub(crate) files: HashSet<String>,
}

/// Puts the outputs asked for into a result, as far as they fit and can be read: it is a hint, and
/// the digests are there in any case (REAPI, `GetActionResultRequest`). What the agent put in and does not
/// fit is taken out, first what was not asked for. `around_bytes` is the size of the message that the
/// result is sent in, without it.
pub(crate) async fn inline_outputs(
    blobs: &dyn BlobStore,
    request: &InlineRequest,
    result: &mut reapi::ActionResult,
    around_bytes: usize,
) {
    let limit = MAX_MESSAGE_BYTES.saturating_sub(around_bytes);
    shrink(result, limit, |output| !request.asks_for(output));
    shrink(result, limit, |_| true);
    let mut budget = limit.saturating_sub(result.encoded_len());
    for (output, digest, content) in outputs(result) {
        if request.asks_for(output) && content.is_empty() {
            inline(blobs, digest, content, &mut budget).await;
        }
    }
}

/// An output that may be in a result itself.
#[derive(Clone, Copy)]
enum Output<'a> {
    Stdout,
    Stderr,
    File(&'a str),
}

impl InlineRequest {
    fn asks_for(&self, output: Output<'_>) -> bool {
        match output {
            Output::Stdout => self.stdout,
            Output::Stderr => self.stderr,
            Output::File(path) => self.files.contains(path),
        }
    }
}

/// Every output that may be in a result itself, with its digest and its content there. Standard output and
/// error come first: people want to see them.
fn outputs(
    result: &mut reapi::ActionResult,
) -> impl DoubleEndedIterator<Item = (Output<'_>, Option<&reapi::Digest>, &mut Bytes)> {
    let streams = [
        (
            Output::Stdout,
            result.stdout_digest.as_ref(),
            &mut result.stdout_raw,
        ),
        (
            Output::Stderr,
            result.stderr_digest.as_ref(),
            &mut result.stderr_raw,
        ),
    ];
    let files = result.output_files.iter_mut().map(|file| {
        let reapi::OutputFile {
            path,
            digest,
            contents,
            ..
        } = file;
        (Output::File(path), digest.as_ref(), contents)
    });
    streams.into_iter().chain(files)
}

/// Takes contents out, the last first, until the result has at most `limit` bytes. What has no digest
/// stays: it would be lost.
fn shrink(result: &mut reapi::ActionResult, limit: usize, may_go: impl Fn(Output<'_>) -> bool) {
    let mut excess = result.encoded_len().saturating_sub(limit);
    for (output, digest, content) in outputs(result).rev() {
        if excess == 0 {
            return;
        }
        if digest.is_some() && may_go(output) {
            excess = excess.saturating_sub(std::mem::take(content).len());
        }
    }
}

async fn inline(
    blobs: &dyn BlobStore,
    digest: Option<&reapi::Digest>,
    content: &mut Bytes,
    budget: &mut usize,
) {
    let Some(Ok(digest)) = digest.map(Digest::try_from) else {
        return;
    };
    let room = budget.saturating_sub(OVERHEAD_BYTES) as u64;
    if digest.size_bytes() > room {
        return;
    }
    if let Ok(bytes) = read_all(blobs, &digest, room).await {
        *budget -= bytes.len() + OVERHEAD_BYTES;
        *content = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regatta_cas::{MemoryBlobStore, put_bytes};
    use regatta_wire::reapi::{ActionResult, OutputFile};

    const MIB: usize = 1 << 20;

    async fn blob(store: &MemoryBlobStore, size_bytes: usize) -> reapi::Digest {
        let bytes = vec![7; size_bytes].into();
        put_bytes(store, bytes).await.unwrap().into()
    }

    fn file(path: &str, digest: reapi::Digest) -> OutputFile {
        OutputFile {
            path: path.to_owned(),
            digest: Some(digest),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn what_was_asked_for_is_inlined_as_long_as_it_fits() {
        let store = MemoryBlobStore::new();
        let large = blob(&store, 2 * MIB).await;
        let small = blob(&store, 100).await;
        let mut result = ActionResult {
            stdout_digest: Some(large.clone()),
            stderr_digest: Some(small.clone()),
            output_files: vec![
                file("large", large),
                file("small", small.clone()),
                file("other", small),
            ],
            ..Default::default()
        };
        let request = InlineRequest {
            stdout: true,
            stderr: false,
            files: HashSet::from(["large".to_owned(), "small".to_owned()]),
        };
        inline_outputs(&store, &request, &mut result, 0).await;
        assert_eq!(result.stdout_raw.len(), 2 * MIB);
        assert_eq!(result.stderr_raw.len(), 0, "nobody asked for it");
        let sizes = result.output_files.iter().map(|file| file.contents.len());
        assert_eq!(sizes.collect::<Vec<_>>(), [0, 100, 0]);
        assert!(result.encoded_len() <= MAX_MESSAGE_BYTES);
    }

    #[tokio::test]
    async fn a_result_with_many_outputs_leaves_less_room() {
        let store = MemoryBlobStore::new();
        let stdout = blob(&store, MIB).await;
        let small = blob(&store, 1).await;
        let mut result = ActionResult {
            output_files: vec![file(&"p".repeat(1000), small); 3500],
            stdout_digest: Some(stdout),
            ..Default::default()
        };
        let before = result.clone();
        let request = InlineRequest {
            stdout: true,
            ..Default::default()
        };
        inline_outputs(&store, &request, &mut result, 0).await;
        assert_eq!(result, before);
    }

    #[tokio::test]
    async fn what_the_agent_inlined_goes_if_it_does_not_fit() {
        let store = MemoryBlobStore::new();
        let content = Bytes::from(vec![7; 2 * MIB]);
        let digest: reapi::Digest = Digest::of(&content).into();
        let full = ActionResult {
            stdout_raw: content.clone(),
            stdout_digest: Some(digest.clone()),
            stderr_raw: content.clone(),
            stderr_digest: Some(digest),
            ..Default::default()
        };
        let shrunk = async |request: InlineRequest, around_bytes: usize| {
            let mut result = full.clone();
            inline_outputs(&store, &request, &mut result, around_bytes).await;
            (result.stdout_raw.len() / MIB, result.stderr_raw.len() / MIB)
        };
        let stderr = InlineRequest {
            stderr: true,
            ..Default::default()
        };
        assert_eq!(shrunk(stderr.clone(), 0).await, (0, 2));
        assert_eq!(shrunk(InlineRequest::default(), 0).await, (2, 0));
        assert_eq!(shrunk(stderr, 3 * MIB).await, (0, 0));
        let mut without_digest = full.clone();
        without_digest.stdout_digest = None;
        inline_outputs(
            &store,
            &InlineRequest::default(),
            &mut without_digest,
            3 * MIB,
        )
        .await;
        assert_eq!(without_digest.stdout_raw, content, "it is nowhere else");
    }
}
