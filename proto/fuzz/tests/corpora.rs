//! Every input that fuzzing kept goes through its target again.

use regatta_proto_fuzz::{check_corpus, compression, replay_corpus, resource_name, tree};

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn resource_names_hold() {
    check_corpus(FOLDER, "resource_name", resource_name);
}

#[test]
fn trees_hold() {
    check_corpus(FOLDER, "tree", tree);
}

#[test]
fn compression_holds() {
    check_corpus(FOLDER, "compression", compression);
}

#[test]
fn an_input_that_breaks_a_promise_fails_the_replay() {
    fn fails(input: &[u8]) {
        assert_ne!(input, b"bad");
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("good"), "good").unwrap();
    assert_eq!(replay_corpus(directory.path(), fails).unwrap(), 1);
    std::fs::write(directory.path().join("bad"), "bad").unwrap();
    let replay = || replay_corpus(directory.path(), fails);
    assert!(std::panic::catch_unwind(replay).is_err());
}
