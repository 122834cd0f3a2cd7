//! Which of our types stands for which of an independent implementation.

use bazel_remote_apis::build::bazel::remote::asset::v1 as their_asset;
use bazel_remote_apis::build::bazel::remote::execution::v2 as their_reapi;
use bazel_remote_apis::build::bazel::semver as their_semver;
use bazel_remote_apis::google::bytestream as their_bytestream;
use bazel_remote_apis::google::longrunning as their_longrunning;
use regatta_wire::{asset, bytestream, longrunning, reapi, rpc, semver};
// bazel-remote-apis has nothing of google.rpc but Status.
use tonic_types::pb as their_rpc;

use crate::compare::{EnumPair, MessagePair};

macro_rules! message_pairs {
    ($($ours:ident = $theirs:ident { $($($part:ident)::+),* $(,)? })*) => {
        vec![$($(
            MessagePair::new::<$ours::$($part)::+, $theirs::$($part)::+>(),
        )*)*]
    };
}

macro_rules! enum_pairs {
    ($package:literal, $ours:ident = $theirs:ident {
        $($($part:ident)::+ = $name:literal),* $(,)?
    }) => {
        vec![$(
            EnumPair {
                name: concat!($package, ".", $name),
                ours: |number| {
                    let value = $ours::$($part)::+::try_from(number).ok()?;
                    Some(value.as_str_name())
                },
                theirs: |number| {
                    let value = $theirs::$($part)::+::try_from(number).ok()?;
                    Some(value.as_str_name())
                },
            },
        )*]
    };
}

/// Every message.
pub(crate) fn messages() -> Vec<MessagePair> {
    message_pairs! {
        reapi = their_reapi {
            Action, Command, command::EnvironmentVariable, Platform, platform::Property,
            Directory, NodeProperty, NodeProperties, FileNode, DirectoryNode, SymlinkNode, Digest,
            ExecutedActionMetadata, ActionResult, OutputFile, Tree, OutputDirectory,
            OutputSymlink, ExecutionPolicy, ResultsCachePolicy, ExecuteRequest, LogFile,
            ExecuteResponse, ExecutionStage, ExecuteOperationMetadata, WaitExecutionRequest,
            GetActionResultRequest, UpdateActionResultRequest, FindMissingBlobsRequest,
            FindMissingBlobsResponse, BatchUpdateBlobsRequest,
            batch_update_blobs_request::Request, BatchUpdateBlobsResponse,
            batch_update_blobs_response::Response, BatchReadBlobsRequest, BatchReadBlobsResponse,
            batch_read_blobs_response::Response, GetTreeRequest, GetTreeResponse,
            SplitBlobRequest, SplitBlobResponse, GetChunkMappingRequest, GetChunkMappingResponse,
            SpliceBlobRequest, SpliceBlobResponse, RegisterChunkMappingRequest,
            RegisterChunkMappingResponse, GetCapabilitiesRequest, ServerCapabilities,
            DigestFunction, ChunkingFunction, ActionCacheUpdateCapabilities,
            PriorityCapabilities, priority_capabilities::PriorityRange,
            SymlinkAbsolutePathStrategy, Compressor, CacheCapabilities, FastCdc2020Params,
            RepMaxCdcParams, ExecutionCapabilities, ToolDetails, RequestMetadata,
        }
        asset = their_asset {
            Qualifier, FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest,
            FetchDirectoryResponse, PushBlobRequest, PushBlobResponse, PushDirectoryRequest,
            PushDirectoryResponse,
        }
        semver = their_semver { SemVer }
        bytestream = their_bytestream {
            ReadRequest, ReadResponse, WriteRequest, WriteResponse, QueryWriteStatusRequest,
            QueryWriteStatusResponse,
        }
        longrunning = their_longrunning {
            Operation, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
            CancelOperationRequest, DeleteOperationRequest, WaitOperationRequest, OperationInfo,
        }
        rpc = their_rpc {
            Status, ErrorInfo, RetryInfo, DebugInfo, QuotaFailure, quota_failure::Violation,
            PreconditionFailure, precondition_failure::Violation, BadRequest,
            bad_request::FieldViolation, RequestInfo, ResourceInfo, Help, help::Link,
            LocalizedMessage,
        }
    }
}

/// Every enum but `google.rpc.Code`, which neither implementation has.
pub(crate) fn enums() -> Vec<EnumPair> {
    enum_pairs! {
        "build.bazel.remote.execution.v2", reapi = their_reapi {
            command::OutputDirectoryFormat = "Command.OutputDirectoryFormat",
            execution_stage::Value = "ExecutionStage.Value",
            digest_function::Value = "DigestFunction.Value",
            chunking_function::Value = "ChunkingFunction.Value",
            symlink_absolute_path_strategy::Value = "SymlinkAbsolutePathStrategy.Value",
            compressor::Value = "Compressor.Value",
        }
    }
}
