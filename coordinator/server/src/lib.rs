//! The coordinator: REAPI and Regatta's services over gRPC, the drivers of the pure cores, and HTTP for
//! people who look after it.
//!
//! Invariants:
//! - gRPC status codes are chosen in `status` and nowhere else.
//! - No blob is ever whole in memory, small ones that travel inside a message aside.
//! - Only an outcome that the scheduler accepted becomes an action result, unless clients are allowed to
//!   write them.
//! - An action result is served only while every blob that it names is present.
//! - Every queue, cache and registry here has a named bound.
//! - Nothing but loopback is listened on: transport security and authentication do not exist yet.

pub mod action_cache;
pub mod action_plan;
mod apart;
mod assets;
mod capabilities;
pub mod cas;
mod closing_stream;
mod config;
mod coordinator;
pub mod dispatch;
mod ending_calls;
mod execution;
pub mod fleet_service;
mod forgetter;
mod grpc_server;
mod health;
mod holding;
mod http;
mod inspection;
pub mod junit;
mod ledger;
mod listeners;
mod measuring_ledger;
mod metrics_recorder;
mod metrics_server;
mod opened_storage;
mod operations;
mod recently_used;
mod request_metrics;
mod retention;
pub mod runs;
mod sealed;
mod serve_error;
mod services;
mod standby;
mod start_error;
mod state_directory;
mod status;
mod storage;
#[cfg(feature = "testing")]
pub mod storage_over_objects;
mod storage_probe;
mod stored_objects;
pub mod suites;
pub mod sure_answers;
mod upload_upkeep;
mod verdict_key;

pub use config::{CoordinatorConfig, DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT};
pub use coordinator::Coordinator;
pub use inspection::{
    InspectError, StoreFault, StoreLocation, StoreReport, cache_usage, verify_store,
};
pub use ledger::{LedgerLostError, LedgerOpeningError};
pub use metrics_server::MetricsServer;
pub use regatta_ledger::{Inheritance, ParseAddressError, PostgresAddress, ReadPasswordFileError};
pub use retention::{CacheSettings, CacheUsage, TenantCacheLimits, TenantUsage};
pub use runs::{AuditShare, InvalidAuditShareError};
pub use serve_error::ServeError;
pub use standby::Standby;
pub use start_error::StartError;
pub use state_directory::StateDirectoryError;
pub use verdict_key::{VerdictKeyError, make as make_verdict_key};
