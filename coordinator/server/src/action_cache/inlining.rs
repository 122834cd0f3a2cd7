//! Outputs inside results, for clients that want to save a round trip.

use regatta_cas::{BlobStore, read_all};
use regatta_model::Digest;
use regatta_wire::reapi;

/// How much of a result is inlined, in bytes: with everything else it must fit into a message.
const MAX_INLINE_BYTES: u64 = 1 << 20;

/// What a client wants to have inline.
#[derive(Debug, Clone, Default)]
pub(crate) struct InlineRequest {
    /// The standard output.
    pub(crate) stdout: bool,
    /// The standard error.
    pub(crate) stderr: bool,
    /// Output files by path.
    pub(crate) files: Vec<String>,
}

/// Puts the outputs asked for into a result, as far as they fit and can be read: it is a hint, and
/// the digests are there in any case (REAPI, `GetActionResultRequest`).
pub(crate) async fn inline_outputs(
    blobs: &dyn BlobStore,
    request: &InlineRequest,
    result: &mut reapi::ActionResult,
) {
    let mut budget = MAX_INLINE_BYTES;
    let streams = [
        (
            request.stdout,
            &result.stdout_digest,
            &mut result.stdout_raw,
        ),
        (
            request.stderr,
            &result.stderr_digest,
            &mut result.stderr_raw,
        ),
    ];
    for (wanted, digest, content) in streams {
        if wanted && content.is_empty() {
            inline(blobs, digest.as_ref(), content, &mut budget).await;
        }
    }
    for file in &mut result.output_files {
        if request.files.contains(&file.path) && file.contents.is_empty() {
            inline(blobs, file.digest.as_ref(), &mut file.contents, &mut budget).await;
        }
    }
}

async fn inline(
    blobs: &dyn BlobStore,
    digest: Option<&reapi::Digest>,
    content: &mut bytes::Bytes,
    budget: &mut u64,
) {
    let Some(Ok(digest)) = digest.map(Digest::try_from) else {
        return;
    };
    if digest.size_bytes() > *budget {
        return;
    }
    if let Ok(bytes) = read_all(blobs, &digest, *budget).await {
        *budget -= bytes.len() as u64;
        *content = bytes;
    }
}
