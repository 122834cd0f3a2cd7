//! Blobs over gRPC.

mod byte_stream;
mod content_addressable_storage;
mod directories;
mod input_trees;
mod uploads;

pub(crate) use byte_stream::ByteStreamService;
pub(crate) use content_addressable_storage::{
    ContentAddressableStorageService, MAX_BATCH_TOTAL_SIZE_BYTES,
};
pub use directories::{DirectoryError, MAX_DIRECTORY_SIZE_BYTES};
pub(crate) use directories::{read_directory, references};
pub use input_trees::{InputTreeError, InputTrees};
pub(crate) use uploads::{UploadRegistry, UploadSettings};

use regatta_cas::{BlobStore, StoreError};
use regatta_model::Digest;

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
    }
    Ok(missing)
}
