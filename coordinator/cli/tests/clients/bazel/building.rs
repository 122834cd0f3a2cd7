//! What succeeds: every kind of output, tests, large files; run once, and cached ever after.

use super::super::calls::CallLog;
use super::super::counters::Counters;
use super::super::fleet::Fleet;
use super::{Bazel, Release, expect_all_hits, processes};

/// What the tree's reader saw of the tree, in a container of its own.
const LISTING: &str = "\
./deep/LONG
./deep/empty-file
./deep/link
./deep/er/program
./one
one
ran
";

impl Release {
    /// What this release can build.
    fn everything(self) -> &'static [&'static str] {
        match self {
            Self::Four => &["//cc/...", "//outputs/...", "//tests/..."],
            Self::Seven => &["//cc/...", "//outputs/...", "//tests/...", "//unicode/..."],
        }
    }
}

fn everything_is_built_once(release: Release) {
    let fleet = Fleet::with_image(&release.image());
    let calls = CallLog::of(fleet.url());
    let bazel = Bazel::executing_at(release, calls.address());
    let before = Counters::of(&fleet);
    let cold = bazel.test(release.everything());
    cold.expect_code(0);
    let ran = Counters::of(&fleet).since(before).leases;
    assert_eq!(processes(&cold, "remote"), ran, "{cold:#?}");
    expect_outputs(&bazel);
    calls.expect(&format!("{}-cold", release.name()));

    let calls = CallLog::of(fleet.url());
    let again = Bazel {
        remote: vec![format!("--remote_executor=grpc://{}", calls.address())],
        ..bazel
    };
    let hits = expect_all_hits(&fleet, &again, || again.test(release.everything()));
    assert_eq!(processes(&hits, "remote cache hit"), ran, "{hits:#?}");
    expect_outputs(&again);
    calls.expect(&format!("{}-warm", release.name()));
    drop(again);
    fleet.stop();
}

#[track_caller]
fn expect_outputs(bazel: &Bazel) {
    for (file, text) in [
        ("upper.txt", "HELLO\n"),
        ("alias.txt", "HELLO\n"),
        ("stdin.txt", "0\n"),
        ("empty.txt", ""),
        ("tool.txt", "tool works\n"),
        ("binary.txt", "hello 3\n"),
        ("names.txt", "unicode\nlong\nspace\n"),
        ("listing", LISTING),
        ("tree/deep/link", "one\n"),
    ] {
        let path = format!("bazel-bin/outputs/{file}");
        assert_eq!(sorted(&bazel.station.read(&path)), sorted(text), "{file}");
    }
    if bazel.release == Release::Seven {
        let read = bazel.station.read("bazel-bin/unicode/read.txt");
        assert_eq!(read, "grüße\n");
    }
    let station = &bazel.station;
    station
        .shell("bazel-bin/outputs/tree/deep/er/program")
        .expect_code(0);
    let log = station.shell("cat bazel-testlogs/tests/sharded/shard_*/test.log");
    assert_eq!(log.stdout.matches("ran").count(), 6, "{log:#?}");
}

/// The lines in order, since neither a glob's nor a listing's order is the test's concern.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn bazel_4_builds_everything_once() {
    everything_is_built_once(Release::Four);
}

#[test]
fn bazel_7_builds_everything_once() {
    everything_is_built_once(Release::Seven);
}

/// A large file stays where it was made unless someone wants it here; the log of calls, if one is kept.
fn a_large_file_is_left_where_it_is(release: Release, options: &[&str], log: Option<&str>) {
    let fleet = Fleet::with_image(&release.image());
    let calls = CallLog::of(fleet.url());
    let bazel = Bazel::executing_at(release, calls.address());
    let minimal = [&["--remote_download_minimal", "//large:used"], options].concat();
    bazel.build(&minimal).expect_code(0);
    bazel
        .station
        .shell("test ! -e bazel-bin/large/made.bin")
        .expect_code(0);
    let whole = [&["//large/..."], options].concat();
    let ended = expect_all_hits(&fleet, &bazel, || bazel.build(&whole));
    let size = bazel
        .station
        .shell("stat --dereference --format %s bazel-bin/large/made.bin");
    assert_eq!(size.stdout, "200000000\n", "{ended:#?}");
    assert_eq!(
        bazel.station.read("bazel-bin/large/used.txt"),
        "200000000\n"
    );
    if let Some(name) = log {
        calls.expect(name);
    }
    drop(bazel);
    fleet.stop();
}

#[test]
fn bazel_4_downloads_no_large_file_in_vain() {
    a_large_file_is_left_where_it_is(Release::Four, &[], None);
}

#[test]
fn bazel_7_downloads_no_large_file_in_vain() {
    a_large_file_is_left_where_it_is(Release::Seven, &[], None);
}

#[test]
fn bazel_7_moves_compressed_blobs() {
    let options = ["--remote_cache_compression"];
    a_large_file_is_left_where_it_is(Release::Seven, &options, Some("bazel7-compressed"));
}

/// Local actions whose results the coordinator does not take, since it trusts its agents alone; then an
/// executor and a cache, named apart, at the same coordinator.
fn a_refused_upload_is_no_failure(release: Release) {
    let fleet = Fleet::with_image(&release.image());
    // With a cache and no executor, Bazel 4 stops at once and says to leave the second option out.
    let server = match release {
        Release::Four => "--remote_executor",
        Release::Seven => "--remote_cache",
    };
    let local = Bazel::new(
        release,
        vec![
            format!("{server}={}", fleet.url()),
            "--remote_upload_local_results".to_owned(),
            "--spawn_strategy=local".to_owned(),
            "--genrule_strategy=local".to_owned(),
        ],
    );
    let before = Counters::of(&fleet);
    local.build(&["//outputs/..."]).expect_code(0);
    local.clean();
    let again = local.build(&["//outputs/..."]);
    again.expect_code(0);
    assert_eq!(processes(&again, "remote cache hit"), 0, "{again:#?}");
    assert_eq!(
        Counters::of(&fleet).since(before),
        Counters { leases: 0, hits: 0 }
    );
    drop(local);
    let both = Bazel::new(
        release,
        vec![
            format!("--remote_executor={}", fleet.url()),
            format!("--remote_cache={}", fleet.url()),
        ],
    );
    both.build(&["//outputs:upper"]).expect_code(0);
    expect_all_hits(&fleet, &both, || both.build(&["//outputs:upper"]));
    drop(both);
    fleet.stop();
}

#[test]
fn bazel_4_bears_that_its_own_results_are_refused() {
    a_refused_upload_is_no_failure(Release::Four);
}

#[test]
fn bazel_7_bears_that_its_own_results_are_refused() {
    a_refused_upload_is_no_failure(Release::Seven);
}
