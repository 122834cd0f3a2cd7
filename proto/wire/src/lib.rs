//! The messages and services that travel between clients, the coordinator and agents, and the way from
//! them to the validated values of `regatta_model`.
//!
//! The `.proto` files in `proto/` are the interface; `build.rs` compiles all of them. Clients are in the
//! modules `*_client` and servers in `*_server` of each package's module.
//!
//! Invariants:
//! - Names, numbers and types of the foreign packages are those of their specifications; the test
//!   `interface` compares each message with an independent implementation.
//! - Fields of type `bytes` are [`bytes::Bytes`], so that a blob is never copied to be decoded.
//! - No input makes a conversion panic; what is wrong comes back as an error that says so.
//! - Nothing here does I/O, and no gRPC status code is chosen here.

mod codec;
pub mod convert;
mod generated;
pub mod resource_name;

/// Package `build.bazel.remote.asset.v1`: the Remote Asset API.
pub use generated::build::bazel::remote::asset::v1 as asset;
/// Package `build.bazel.remote.execution.v2`: the Remote Execution API (REAPI).
pub use generated::build::bazel::remote::execution::v2 as reapi;
/// Package `build.bazel.semver`: the version numbers in REAPI capabilities.
pub use generated::build::bazel::semver;
/// Package `google.bytestream`: how large blobs travel.
pub use generated::google::bytestream;
/// Package `google.longrunning`: executions under way, as REAPI presents them.
pub use generated::google::longrunning;
/// Package `google.rpc`: statuses and the details of errors.
pub use generated::google::rpc;
/// Package `grpc.health.v1`: the health checking protocol of gRPC.
pub use generated::grpc::health::v1 as health;
/// Package `regatta.v1`: what Regatta adds to REAPI: fleet, runs and suites.
pub use generated::regatta::v1;

/// A `google.protobuf.FileDescriptorSet` of every package, imports included and comments left out, for
/// gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The version of the protocol between agents and the coordinator (`fleet.proto`). It changes when one
/// side could misunderstand the other; a coordinator refuses agents that speak another.
pub const PROTOCOL_VERSION: u32 = 1;
