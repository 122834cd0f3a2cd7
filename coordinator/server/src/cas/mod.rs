//! Blobs over gRPC.

mod byte_stream;
mod chunking;
mod compression;
mod content_addressable_storage;
mod directories;
mod input_trees;
mod tenant_views;
mod tree_walk;
mod uncopied_reads;
mod uploads;

pub(crate) use byte_stream::ByteStreamService;
pub(crate) use chunking::CHUNKING_PARAMS;
#[cfg(feature = "testing")]
pub(crate) use chunking::ChunkedBlobs;
pub(crate) use compression::CompressedBlobs;
pub(crate) use content_addressable_storage::{
    ContentAddressableStorageService, MAX_BATCH_TOTAL_SIZE_BYTES,
};
pub use directories::{DirectoryError, MAX_DIRECTORY_SIZE_BYTES};
pub(crate) use directories::{canonical_references, read_directory};
pub use input_trees::{InputTreeError, InputTrees};
pub use tenant_views::TenantViews;
pub(crate) use uploads::{UploadRegistry, UploadSettings};

use regatta_cas::{BlobStore, StoreError};
use regatta_model::Digest;
use regatta_wire::reapi;

use crate::status::{self, Failure};

/// How many digests are asked for at once.
const FIND_MISSING_CHUNK: usize = 4096;

/// Those of many digests that are absent, asked for in bounded portions.
pub(crate) async fn find_missing(
    store: &dyn BlobStore,
    digests: &[Digest],
) -> Result<Vec<Digest>, StoreError> {
    let mut missing = Vec::new();
    for portion in digests.chunks(FIND_MISSING_CHUNK) {
        missing.extend(store.find_missing(portion).await?);
        if portion.len() == FIND_MISSING_CHUNK {
            // An index answers without waiting; others want their turn all the same.
            tokio::task::yield_now().await;
        }
    }
    Ok(missing)
}

/// Reads every digest of a request's list.
fn digests_of(messages: &[reapi::Digest], field: &str) -> Result<Vec<Digest>, Failure> {
    let parse = |(index, message)| {
        Digest::try_from(message)
            .map_err(|error| status::invalid_digest(&format!("{field}[{index}]"), &error))
    };
    messages.iter().enumerate().map(parse).collect()
}
