//! Every input that fuzzing kept goes through its target again.

use regatta_coordinator_fuzz::{configuration, path};
use regatta_proto_fuzz::check_corpus;

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn configurations_hold() {
    check_corpus(FOLDER, "configuration", configuration);
}

#[test]
fn paths_hold() {
    check_corpus(FOLDER, "path", path);
}
