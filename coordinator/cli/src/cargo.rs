//! A Cargo workspace as a run: built here, tested on the fleet.
//!
//! [`build`] has cargo build the test binaries and learns from its messages what they are, [`archive`] takes
//! those that `cargo nextest archive` has packed;
//! [`libraries`] finds the shared libraries they are linked with; [`suites`] turns each binary into a job
//! whose input root holds what that binary needs and nothing else, so that a change of one crate gives
//! new keys only to the binaries that depend on it.
//!
//! The tree is shown at the workspace root's own path, because `env!("CARGO_MANIFEST_DIR")` and the like
//! are compiled in. Files that a test reads outside its package are named in its manifest:
//!
//! ```toml
//! [package.metadata.regatta]
//! inputs = ["README.md", "fixtures/**"]   # below the workspace root
//! ```

pub mod archive;
pub mod build;
pub mod elf;
pub mod environment;
pub mod layout;
pub mod libraries;
pub mod package_files;
pub mod suites;

#[cfg(test)]
mod fixture;
