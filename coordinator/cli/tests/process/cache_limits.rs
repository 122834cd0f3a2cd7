//! A coordinator whose cache is smaller than what is built.

use std::path::Path;
use std::time::{Duration, Instant};

use regatta::client::Client;
use regatta_cas::BlobStore as _;
use regatta_model::Digest;
use serde_json::Value;

use super::fleet::Fleet;
use super::program::{Ended, regatta, wait_until, write};

/// Makes a MiB of which each number's is another, and looks at it in a second job.
const PIPELINE: &str = r#"
[jobs.make]
inputs = ["number"]
run = "mkdir out && yes $(cat number) | head -c 1048576 > out/data"
outputs = ["out"]

[jobs.check]
needs = ["make"]
inputs = ["number"]
run = "test $(wc -c < out/data) = 1048576 && test $(head -n 1 out/data) = $(cat number)"
"#;
const LIMIT_BYTES: u64 = 4 << 20;
/// The log is written, and the limit looked at, every two seconds.
const SETTLED: Duration = Duration::from_secs(5);

fn run(fleet: &Fleet, project: &Path, number: u32) {
    write(project, &[("number", &format!("{number}\n"))]);
    let ended = Ended::of(fleet.command().arg("run").current_dir(project));
    ended.expect_code(0);
}

/// What `regatta cas` says of the fleet's store, in JSON.
fn cas(fleet: &Fleet, command: &[&str]) -> Value {
    let mut regatta = regatta();
    regatta.arg("cas").args(command).arg("--json");
    let ended = Ended::of(
        regatta
            .arg("--state-dir")
            .arg(fleet.state().join("coordinator")),
    );
    ended.expect_code(0);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// What all that is stored comes to, once the log of uses has been told of all of it, nothing more goes, and
/// the limit is held.
fn settled(fleet: &Fleet) -> Value {
    let mut seen = (Value::Null, Instant::now());
    wait_until("what is stored has settled below the limit", || {
        let all = cas(fleet, &["usage"])["all"].take();
        if all != seen.0 {
            seen = (all, Instant::now());
        }
        seen.1.elapsed() > SETTLED && seen.0["bytes"].as_u64() <= Some(LIMIT_BYTES)
    });
    seen.0
}

/// The sum of a metric's values.
fn metric(fleet: &Fleet, name: &str) -> f64 {
    let (_, page) = fleet.page("/metrics");
    let lines = page.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

#[test]
fn builds_end_well_under_a_tiny_cache_whose_limit_is_held() {
    let options = ["--cache-size", "4MiB", "--cache-keep", "4s"];
    let mut fleet = Fleet::told(&options);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("regatta.toml", PIPELINE)]);
    for number in 0..10 {
        run(&fleet, project.path(), number);
    }
    wait_until("something was let go", || {
        metric(&fleet, "regatta_evicted_total") > 0.0
    });
    // What is gone is made again, what is there is served: nothing that is served names what is gone.
    for number in 0..10 {
        run(&fleet, project.path(), number);
        let report = cas(&fleet, &["verify"]);
        assert_eq!(report["good"], true, "{report}");
    }
    // Uses outlive the coordinator: nothing is used, so nothing of this changes.
    let before = settled(&fleet);
    assert!(before["bytes"].as_u64() <= Some(LIMIT_BYTES), "{before}");
    assert!(before["blobs"].as_u64() > Some(0), "{before}");
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    fleet.kill_coordinator();
    fleet.start_coordinator(&address);
    wait_until("the store was listed", || {
        metric(&fleet, "regatta_stored_objects") > 0.0
    });
    assert_eq!(cas(&fleet, &["usage"])["all"], before);
    run(&fleet, project.path(), 9);
    let repaired = {
        fleet.kill_coordinator();
        cas(&fleet, &["verify", "--repair"])
    };
    assert_eq!(repaired["faults"], serde_json::json!([]), "{repaired}");
    fleet.start_coordinator(&address);
    fleet.stop();
}

/// Those of some blobs that the fleet does not have.
fn missing(fleet: &Fleet, digests: &[Digest]) -> Vec<Digest> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(fleet.url(), "").await.expect("connects");
        let missing = client.blobs().find_missing(digests).await;
        missing.expect("is asked")
    })
}

/// What a build of a number makes.
fn data_of(number: u32) -> Digest {
    let line = format!("{number}\n");
    let data = line.repeat((1 << 20) / line.len() + 1);
    Digest::of(&data.as_bytes()[..1 << 20])
}

/// Nothing but the ledger knows what it keeps.
#[test]
fn what_a_verdict_keeps_outlives_a_coordinator_that_is_killed_right_after_it() {
    let options = ["--cache-size", "4MiB", "--cache-keep", "2s"];
    let mut fleet = Fleet::told(&options);
    let project = tempfile::tempdir().expect("a directory");
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("number", "0\n")],
    );
    let mut run_first = fleet.command();
    run_first.args(["--message-format", "json", "run"]);
    let ended = Ended::of(run_first.current_dir(project.path()));
    ended.expect_code(0);
    let submitted = &ended.lines("run-submitted")[0]["run_id"];
    let of_run = ["verdict", "--run", submitted.as_str().expect("is an id")];
    let bundle = Ended::of(fleet.command().args(of_run).arg("--json"));
    fleet.kill_coordinator();
    let address = fleet.url().trim_start_matches("grpc://").to_owned();
    fleet.start_coordinator(&address);
    let bundle = bundle.expect_code(0).stdout.clone();

    for number in 1..6 {
        run(&fleet, project.path(), number);
        // Until what was made before may go: else what verdicts keep had to.
        settled(&fleet);
    }
    let gone = missing(&fleet, &[data_of(1), data_of(2)]);
    assert_eq!(gone.len(), 2, "what nobody was told of has gone");
    let kept = [data_of(0), Digest::of(bundle.as_bytes())];
    assert_eq!(missing(&fleet, &kept), []);
    let listed = Ended::of(fleet.command().args(of_run).args(["--kept", "--json"]));
    let listed: Value = serde_json::from_str(&listed.expect_code(0).stdout).expect("JSON");
    assert_eq!(listed["bundle"], kept[1].hash_hex());
    let again = format!("--kept={}", &kept[1].hash_hex()[..8]);
    let again = Ended::of(fleet.command().args(of_run).args([&again, "--json"]));
    assert_eq!(again.expect_code(0).stdout, bundle);
    check_artefacts(&fleet, &bundle);
    fleet.stop();
}

/// What was made can be told from what was not, without any coordinator.
fn check_artefacts(fleet: &Fleet, bundle: &str) {
    let place = tempfile::tempdir().expect("a directory");
    let text = "0\n".repeat(1 << 19);
    write(
        place.path(),
        &[
            ("out/data", &text),
            ("other/data", "0\n"),
            ("bundle", bundle),
        ],
    );
    let key = Ended::of(fleet.command().arg("keys"));
    write(place.path(), &[("key", &key.expect_code(0).stdout)]);
    let verify = |paths: &[&str]| {
        let mut verify = regatta();
        verify.args(["verify", "bundle", "--key", "key", "--artefact"]);
        Ended::of(verify.args(paths).current_dir(place.path()))
    };
    let good = verify(&["out"]);
    good.expect_code(0);
    assert!(
        good.stdout.ends_with("out is out, as it was made\n"),
        "{good:#?}"
    );
    let strange = verify(&["out", "other", "other/data"]);
    strange.expect_code(1);
    let words = [
        "other (sha256 ",
        "other/data (sha256 ",
        "nothing that a build of it has made",
    ];
    strange.expect_complaint(&words);
    verify(&["nowhere"]).expect_code(99);
}

#[test]
fn what_verdicts_keep_counts_for_the_tenant_that_was_given_them_and_is_bounded() {
    let options = ["--tenant-cache-size", "*=4MiB", "--cache-keep", "4s"];
    let fleet = Fleet::told(&options);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("regatta.toml", PIPELINE)]);
    for number in 0..6 {
        write(project.path(), &[("number", &format!("{number}\n"))]);
        let mut run = fleet.command();
        run.args(["--message-format", "json", "run"]);
        let ended = Ended::of(run.current_dir(project.path()));
        ended.expect_code(0);
        let submitted = &ended.lines("run-submitted")[0]["run_id"];
        let run = submitted.as_str().expect("is an id");
        let verdict = Ended::of(fleet.command().args(["verdict", "--run", run]));
        verdict.expect_code(0);
    }
    wait_until("artefacts are let go", || {
        metric(&fleet, "regatta_verdict_artefacts_unkept_total") > 0.0
    });
    wait_until("verdicts keep half of what the tenant may have", || {
        let usage = cas(&fleet, &["usage"]);
        let of_tenant = &usage["tenants"][""];
        let bytes = |field: &str| of_tenant[field].as_u64().expect("a number");
        let (kept, all) = (bytes("verdict_bytes"), bytes("bytes"));
        kept > 0 && kept <= LIMIT_BYTES / 2 && all <= LIMIT_BYTES
    });
    assert!(metric(&fleet, "regatta_tenant_verdict_bytes") > 0.0);
    fleet.stop();
}
