//! Generated inputs that look like real ones, for what random bytes seldom reach.

use proptest::prelude::*;
use regatta_coordinator_fuzz::{configuration, path};

/// A path of the segments that lead somewhere else, and a few that do not.
fn declared() -> impl Strategy<Value = String> {
    let segments = prop::sample::select(vec!["..", ".", "", "a", "b", "é", "\0", "..."]);
    prop::collection::vec(segments, 0..6).prop_map(|segments| segments.join("/"))
}

/// A value, of the right type or not.
fn value() -> impl Strategy<Value = String> {
    let values = vec![
        "\"a\"",
        "\"\"",
        "\"a\\u0000b\"",
        "[\"a\"]",
        "[\"a\", \"../b\"]",
        "[\"!a/**\"]",
        "[\"a\\u0000b\"]",
        "[\"job0\", \"job1\"]",
        "[]",
        "1",
        "-1",
        "0.5",
        "true",
        "\"10m\"",
        "\"2GiB\"",
        "{ cpu = 2, memory = \"1GiB\" }",
        "{ discover = \"x\", run = \"y\", junit = \"z\" }",
        "{ discover = \"x\", run = [\"y\"], adapter = \"libtest\" }",
        "{ discover = [\"x\"], run = [\"y\"], adapter = \"libtest\" }",
        "{ run = [\"y\"], adapter = \"googletest\" }",
        "{ run = \"y \\\"$@\\\"\", adapter = \"go\" }",
        "{ adapter = \"ctest\" }",
        "{ adapter = \"pytest\" }",
        "{ run = [\"npx\", \"jest\"], adapter = \"jest\" }",
        "{ run = \"y\", adapter = \"bazel-sharding\", shards = 3 }",
    ];
    prop::sample::select(values).prop_map(str::to_owned)
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "env",
        "image",
        "inputs",
        "isolation",
        "needs",
        "network",
        "outputs",
        "resources",
        "retry",
        "run",
        "suite",
        "timeout",
        "timeouts",
    ])
}

proptest! {
    #[test]
    fn paths_hold(paths in prop::collection::vec(declared(), 1..5)) {
        path(paths.join("\n").as_bytes());
    }

    #[test]
    fn configurations_hold(
        jobs in prop::collection::vec(prop::collection::btree_map(key(), value(), 0..4), 0..4),
    ) {
        let mut text = String::new();
        for (index, keys) in jobs.iter().enumerate() {
            text.push_str(&format!("[jobs.job{index}]\n"));
            for (key, value) in keys {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        configuration(text.as_bytes());
    }

    #[test]
    fn single_values_hold(key in key(), value in value(), run in prop_oneof![Just("run = \"x\""), Just("")]) {
        configuration(format!("[jobs.job0]\n{run}\n{key} = {value}\n").as_bytes());
    }
}
