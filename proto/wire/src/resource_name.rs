//! The resource names of `google.bytestream` in a CAS (REAPI, comment of `ContentAddressableStorage`).
//!
//! | | |
//! | --- | --- |
//! | upload | `{instance}/uploads/{uuid}/blobs/{hash}/{size}` |
//! | compressed upload | `{instance}/uploads/{uuid}/compressed-blobs/{compressor}/{hash}/{size}` |
//! | download | `{instance}/blobs/{hash}/{size}` |
//! | compressed download | `{instance}/compressed-blobs/{compressor}/{hash}/{size}` |
//!
//! An empty instance name takes its slash with it. Two liberties are taken on reading and never on
//! printing: a `sha256/` before the hash, which the specification wants left out, and segments after the
//! size of an upload, which it lets servers ignore.

mod compressor;
mod instance_name;
mod parse;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use compressor::Compressor;
pub use instance_name::{InvalidInstanceNameError, parse_instance_name};
pub use parse::ParseResourceNameError;
pub use read::{ReadResource, missing_blob_subject};
pub use write::WriteResource;

/// The segments that no instance name may have, because they tell the parts of a name apart.
pub const KEYWORDS: [&str; 7] = [
    "blobs",
    "uploads",
    "actions",
    "actionResults",
    "operations",
    "capabilities",
    "compressed-blobs",
];
