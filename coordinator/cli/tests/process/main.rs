//! The `regatta` command without Docker: a coordinator and agents as processes, jobs as plain processes of
//! this machine. `cargo xtask test` turns these on (feature `process-tests`); they need root for
//! namespaces and mounts, cargo, Debian's nftables and PostgreSQL, and (feature `garage-tests`) Garage.
//!
//! What holds whatever jobs run in is tested with Docker as well, by the same tests.

#![expect(
    clippy::print_stderr,
    reason = "a failed test shows the logs of its fleet"
)]

mod adoption;
mod another_slot;
mod audit;
#[path = "../docker/bad_input.rs"]
mod bad_input;
#[cfg(feature = "garage-tests")]
mod bucket;
mod bucket_faults;
mod cache_limits;
mod clock;
mod clock_jump;
mod commit;
mod crashes;
mod cut_off;
mod deleted_behind;
#[path = "../docker/faults.rs"]
mod faults;
#[path = "../../../../proto/cas/src/object_store_blob_store/tests/bucket/proxy.rs"]
#[cfg_attr(
    not(feature = "garage-tests"),
    expect(dead_code, reason = "these tests need a part of it")
)]
mod faulty_proxy;
mod first_failure;
#[path = "../docker/flake.rs"]
mod flake;
mod flaky_commit;
#[path = "../fixture/fleet.rs"]
#[expect(dead_code, reason = "these tests need a part of the fixture")]
mod fleet;
mod full_disk;
#[cfg(feature = "garage-tests")]
#[path = "../../../../proto/cas/src/object_store_blob_store/tests/bucket/garage.rs"]
mod garage;
mod history_of_branches;
mod if_cached;
mod large_suite;
mod long_output;
mod lost_answer;
mod moved_ledger;
mod network;
#[path = "../docker/observability.rs"]
mod observability;
mod old_runs;
mod other_file;
mod paused;
mod persistent_worker;
#[path = "../docker/pipeline.rs"]
mod pipeline;
mod postgres;
#[path = "../../../ledger/tests/postgres/server.rs"]
#[expect(dead_code, reason = "these tests need a part of it")]
mod postgres_server;
#[path = "../fixture/program.rs"]
mod program;
#[path = "../docker/quarantine.rs"]
mod quarantine;
#[path = "../fixture/repository.rs"]
mod repository;
mod s3_server;
mod shared_project;
mod silent_suites;
#[path = "../../../ledger/tests/postgres/small_disk.rs"]
mod small_disk;
mod standby;
mod stragglers;
#[path = "../docker/terminal.rs"]
mod terminal;
mod timed_out;
mod unread_output;
#[path = "../docker/why.rs"]
mod why;

/// What jobs run in here.
pub(crate) const RUNTIME: fleet::Runtime = fleet::Runtime::Process;
