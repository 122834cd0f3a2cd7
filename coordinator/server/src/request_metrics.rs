//! Counts calls by method.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use metrics::Counter;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use regatta_wire::FILE_DESCRIPTOR_SET;

/// Counters of every method there is. Paths that no method has are not counted, so that nobody can make
/// up names and fill the memory with them.
#[derive(Clone)]
pub(crate) struct RequestMetrics {
    methods: Arc<HashMap<String, MethodCounters>>,
}

struct MethodCounters {
    requests: Counter,
    refusals: Counter,
}

impl RequestMetrics {
    /// Counters for the methods of every package that is built in.
    pub(crate) fn new() -> Self {
        let methods = method_paths().into_iter().map(|path| {
            let label = path.trim_start_matches('/').to_owned();
            let counters = MethodCounters {
                requests: metrics::counter!("regatta_grpc_requests_total", "method" => label.clone()),
                refusals: metrics::counter!("regatta_grpc_refusals_total", "method" => label),
            };
            (path, counters)
        });
        Self {
            methods: Arc::new(methods.collect()),
        }
    }
}

/// The paths of every method, such as `/google.bytestream.ByteStream/Read`.
pub(crate) fn method_paths() -> Vec<String> {
    let Ok(set) = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET) else {
        return Vec::new();
    };
    let mut paths = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!(
                    "/{}.{}/{}",
                    file.package(),
                    service.name(),
                    method.name()
                ));
            }
        }
    }
    paths
}

/// Counts a call as it begins, and once more if it failed before it answered anything.
pub(crate) async fn count_requests(
    State(metrics): State<RequestMetrics>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    if let Some(counters) = metrics.methods.get(&path) {
        counters.requests.increment(1);
        let status = response.headers().get("grpc-status");
        if status.is_some_and(|status| status.as_bytes() != b"0") {
            counters.refusals.increment(1);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_that_is_served_has_counters() {
        let paths = method_paths();
        for service in crate::health::SERVICES
            .iter()
            .filter(|service| !service.is_empty())
        {
            let prefix = format!("/{service}/");
            assert!(
                paths.iter().any(|path| path.starts_with(&prefix)),
                "{service}"
            );
        }
    }
}
