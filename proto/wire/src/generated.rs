//! What `build.rs` made of the `.proto` files, nested by package because it refers to itself by path.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    elided_lifetimes_in_paths,
    dead_code,
    unused_imports,
    unused_qualifications,
    rustdoc::all,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::large_futures,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "generated code follows the rules of its generator"
)]

include!(concat!(env!("OUT_DIR"), "/packages.rs"));
