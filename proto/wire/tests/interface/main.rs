//! Whether our `.proto` files say what the specifications say: compares each message and enum of the
//! foreign packages with `bazel-remote-apis` and `tonic-types`, generated from the originals.

mod compare;
mod filler;
mod pairs;

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use regatta_wire::{FILE_DESCRIPTOR_SET, health, rpc};

use crate::filler::Pool;

/// The packages with an independent implementation to compare with.
const PACKAGES: [&str; 6] = [
    "build.bazel.remote.asset.v1",
    "build.bazel.remote.execution.v2",
    "build.bazel.semver",
    "google.bytestream",
    "google.longrunning",
    "google.rpc",
];

/// Compared with the status codes of tonic, which are no generated enum.
const CODE: &str = "google.rpc.Code";

#[test]
fn every_message_is_compared() {
    let pool = Pool::new(FILE_DESCRIPTOR_SET);
    let declared: BTreeSet<String> = PACKAGES
        .into_iter()
        .flat_map(|package| pool.messages_in(package))
        .map(str::to_owned)
        .collect();
    let compared = pairs::messages().into_iter().map(|pair| pair.name);
    assert_eq!(declared, compared.collect());
}

#[test]
fn every_enum_is_compared() {
    let pool = Pool::new(FILE_DESCRIPTOR_SET);
    let declared: BTreeSet<&str> = PACKAGES
        .into_iter()
        .flat_map(|package| pool.enums_in(package))
        .collect();
    let compared = pairs::enums().into_iter().map(|pair| pair.name);
    assert_eq!(declared, compared.chain([CODE]).collect());
}

#[test]
fn messages_are_those_of_the_specification() {
    let pool = Pool::new(FILE_DESCRIPTOR_SET);
    for pair in pairs::messages() {
        (pair.check)(&pool);
    }
}

#[test]
fn enums_are_those_of_the_specification() {
    let pool = Pool::new(FILE_DESCRIPTOR_SET);
    for pair in pairs::enums() {
        pair.check(&pool);
    }
}

#[test]
fn status_codes_are_those_of_grpc() {
    for number in 0..=16 {
        let code = rpc::Code::try_from(number).map(|code| format!("{code:?}"));
        assert_eq!(code, Ok(format!("{:?}", tonic::Code::from(number))));
    }
    assert!(rpc::Code::try_from(17).is_err());
}

/// The health protocol has no independent implementation among our dependencies; these bytes are worked
/// out by hand from its specification.
#[test]
fn health_messages_are_those_of_the_specification() {
    let request = health::HealthCheckRequest {
        service: "a".to_owned(),
    };
    assert_eq!(request.encode_to_vec(), b"\x0a\x01a");
    let mut response = health::HealthCheckResponse::default();
    response.set_status(health::health_check_response::ServingStatus::NotServing);
    assert_eq!(response.encode_to_vec(), b"\x08\x02");
    let list = health::HealthListResponse {
        statuses: BTreeMap::from([("a".to_owned(), response)]),
    };
    assert_eq!(list.encode_to_vec(), b"\x0a\x07\x0a\x01a\x12\x02\x08\x02");
}

/// The services of the specifications, as `bazel-remote-apis` has them: `>` marks a stream.
const METHODS: [&str; 28] = [
    "build.bazel.remote.asset.v1.Fetch/FetchBlob FetchBlobRequest FetchBlobResponse",
    "build.bazel.remote.asset.v1.Fetch/FetchDirectory FetchDirectoryRequest FetchDirectoryResponse",
    "build.bazel.remote.asset.v1.Push/PushBlob PushBlobRequest PushBlobResponse",
    "build.bazel.remote.asset.v1.Push/PushDirectory PushDirectoryRequest PushDirectoryResponse",
    "build.bazel.remote.execution.v2.ActionCache/GetActionResult GetActionResultRequest ActionResult",
    "build.bazel.remote.execution.v2.ActionCache/UpdateActionResult UpdateActionResultRequest ActionResult",
    "build.bazel.remote.execution.v2.Capabilities/GetCapabilities GetCapabilitiesRequest ServerCapabilities",
    "build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs BatchReadBlobsRequest BatchReadBlobsResponse",
    "build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs BatchUpdateBlobsRequest BatchUpdateBlobsResponse",
    "build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs FindMissingBlobsRequest FindMissingBlobsResponse",
    "build.bazel.remote.execution.v2.ContentAddressableStorage/GetChunkMapping GetChunkMappingRequest >GetChunkMappingResponse",
    "build.bazel.remote.execution.v2.ContentAddressableStorage/GetTree GetTreeRequest >GetTreeResponse",
    "build.bazel.remote.execution.v2.ContentAddressableStorage/RegisterChunkMapping >RegisterChunkMappingRequest RegisterChunkMappingResponse",
    "build.bazel.remote.execution.v2.ContentAddressableStorage/SpliceBlob SpliceBlobRequest SpliceBlobResponse",
    "build.bazel.remote.execution.v2.ContentAddressableStorage/SplitBlob SplitBlobRequest SplitBlobResponse",
    "build.bazel.remote.execution.v2.Execution/Execute ExecuteRequest >Operation",
    "build.bazel.remote.execution.v2.Execution/WaitExecution WaitExecutionRequest >Operation",
    "google.bytestream.ByteStream/QueryWriteStatus QueryWriteStatusRequest QueryWriteStatusResponse",
    "google.bytestream.ByteStream/Read ReadRequest >ReadResponse",
    "google.bytestream.ByteStream/Write >WriteRequest WriteResponse",
    "google.longrunning.Operations/CancelOperation CancelOperationRequest Empty",
    "google.longrunning.Operations/DeleteOperation DeleteOperationRequest Empty",
    "google.longrunning.Operations/GetOperation GetOperationRequest Operation",
    "google.longrunning.Operations/ListOperations ListOperationsRequest ListOperationsResponse",
    "google.longrunning.Operations/WaitOperation WaitOperationRequest Operation",
    "grpc.health.v1.Health/Check HealthCheckRequest HealthCheckResponse",
    "grpc.health.v1.Health/List HealthListRequest HealthListResponse",
    "grpc.health.v1.Health/Watch HealthCheckRequest >HealthCheckResponse",
];

fn describe(service: &str, method: &MethodDescriptorProto) -> String {
    let unqualified = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let stream = |is_stream| if is_stream { ">" } else { "" };
    format!(
        "{service}/{} {}{} {}{}",
        method.name(),
        stream(method.client_streaming()),
        unqualified(method.input_type()),
        stream(method.server_streaming()),
        unqualified(method.output_type()),
    )
}

#[test]
fn methods_are_those_of_the_specification() {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("our own descriptors");
    let mut declared = Vec::new();
    for file in files
        .file
        .iter()
        .filter(|file| file.package() != "regatta.v1")
    {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            declared.extend(service.method.iter().map(|method| describe(&name, method)));
        }
    }
    declared.sort();
    assert_eq!(declared, METHODS);
}
