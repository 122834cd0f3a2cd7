//! Where all bytes live: the [`BlobStore`] port, its adapters and decorators, and the Merkle trees of
//! directories that travel through it.
//!
//! Adapters put bytes somewhere: [`MemoryBlobStore`], [`ObjectStoreBlobStore`] (a directory or a bucket)
//! and [`GrpcBlobStore`] (the CAS of another process). Decorators add one concern each:
//! [`VerifyingBlobStore`], [`EmptyBlobStore`], [`MemoryTier`], [`DiskTier`], [`ExistenceIndex`],
//! [`AbsenceIndex`], [`ChunkedBlobStore`], [`PackingBlobStore`]. All of them pass the suite in `conformance` (feature `testing`).
//! [`Chunker`] and what goes with it cut large blobs by content, on both ends of a connection alike.
//!
//! Invariants:
//! - A blob is visible whole or not at all.
//! - What is read never has anything deleted: bytes may go wrong on their way from a store that has the right ones.
//! - No adapter and no decorator holds a large blob in memory: bytes pass through in pieces of at most
//!   [`MAX_PIECE_BYTES`]. Only what is bounded by a named constant is ever collected.
//! - Every wait, queue, retry and cache here has a named bound.
//! - gRPC status codes are read in one module, object_store is named in one directory.
//! - This crate knows no tenants, no actions and no permissions: who may read what is decided above it.

mod absence_index;
mod blob_store;
mod checked_body;
mod chunked_blob_store;
mod chunking;
mod deletions;
mod disk_tier;
mod empty_blob_store;
mod existence_index;
mod file_body;
mod file_state;
mod grpc_blob_store;
mod losses;
mod lru_map;
mod memory_blob_store;
mod memory_tier;
mod object_store_blob_store;
mod packing_blob_store;
mod piece_buffer;
mod quarantine;
mod server_addresses;
mod single_flight;
mod spool;
mod upload;
mod verified_files;
mod verifying_blob_store;
mod whole_blob;
mod wrong_reads;
mod zstd;

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod merkle;

pub use absence_index::AbsenceIndex;
pub use blob_store::{BlobRange, BlobStore, BlobStream, Durability, ListedBlobStore, StoreError};
pub use checked_body::checked_body;
pub use chunked_blob_store::{ChunkMapping, ChunkedBlobStore, LeavingWhole};
pub use chunking::{Chunker, ChunkingParams, MAX_CHUNKS, concatenated, put_chunks};
pub use deletions::Deletions;
pub use disk_tier::{
    BlobChunks, DiskCache, DiskCacheSettings, DiskCacheUsage, DiskTier, PinnedFile,
};
pub use empty_blob_store::EmptyBlobStore;
pub use existence_index::ExistenceIndex;
pub use file_body::file_body;
pub use file_state::FileState;
pub use grpc_blob_store::{GrpcBlobStore, for_blobs};
pub use losses::Losses;
pub use memory_blob_store::MemoryBlobStore;
pub use memory_tier::MemoryTier;
pub use object_store_blob_store::{
    AbandonedUploads, ObjectStoreBlobStore, ObjectStoreRequest, ObserveRequest, OpenStoreError,
};
pub use packing_blob_store::PackingBlobStore;
pub use server_addresses::{ParseServerAddressesError, ServerAddresses};
pub use spool::{Spool, SpooledBlob};
pub use upload::{UploadError, UploadSummary, upload, upload_telling};
pub use verified_files::BlobFiles;
pub use verifying_blob_store::VerifyingBlobStore;
pub use whole_blob::{MAX_PIECE_BYTES, put_bytes, read_all, stream_of};
pub use wrong_reads::WrongReads;
pub use zstd::{
    compressed, compressed_body, decompressed_body, is_worth_compressing, largest_compressed,
};
