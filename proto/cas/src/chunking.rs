//! Large blobs as chunks that are cut by content, so that blobs which have much in common share most of
//! their chunks (REAPI, `SplitBlob` and `SpliceBlob`).
//!
//! A chunk is a blob like any other. Both ends of a connection cut here, which is what makes them find the
//! same chunks.

mod chunker;
mod concatenated;
mod params;
mod put_chunks;

pub use chunker::Chunker;
pub use concatenated::concatenated;
pub use params::ChunkingParams;
pub use put_chunks::put_chunks;

/// How many chunks one blob may have: the digests of all of them, some 75 bytes each, fit into the 4 MiB that
/// every peer takes as one message.
pub const MAX_CHUNKS: usize = 50_000;
