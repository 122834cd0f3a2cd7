//! A Go module as a run: built here, tested on the fleet.
//!
//! [`build`] has the go command list the packages and build a test program of each that has tests;
//! [`suites`] turns each program into a job whose input root holds it and all that is in its package's
//! directory, which is where Go runs tests. As for Cargo, the tree is shown at the module's own path, for
//! programs know where their sources were.

pub mod build;
pub mod suites;
