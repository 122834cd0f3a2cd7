//! The suite that every blob store passes, over gRPC.

use std::sync::Arc;

use regatta_cas::{GrpcBlobStore, conformance};

use crate::harness::Running;

#[tokio::test(flavor = "multi_thread")]
async fn the_services_pass_the_suite_of_every_store() {
    let coordinator = Running::start().await;
    let store = GrpcBlobStore::new(coordinator.channel.clone(), "main");
    conformance::check_content_addressed(Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_blobs_pass_in_bounded_memory() {
    let coordinator = Running::start().await;
    let store = GrpcBlobStore::new(coordinator.channel.clone(), "main");
    conformance::check_streaming(Arc::new(store)).await;
}
