//! Suites by the general contract: a file of ids in, JUnit out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use regatta_cas::read_all;
use regatta_model::{Digest, Timestamp, Truncation};
use regatta_wire::convert::{duration_to_wire, timestamp_to_wire};
use regatta_wire::{reapi, v1};

use super::check_lie;
use super::fake_agent::{FakeAgent, Script, completed};
use super::fixture::{Fixture, Story, contract, spec};

/// A contract runner that reports what `report` makes of the ids it is given.
pub(super) fn contract_runner(
    fixture: &Fixture,
    listed: &'static str,
    report: impl Fn(&[String]) -> String + Send + Sync + 'static,
) -> Script {
    ending_runner(fixture, listed, move |ids| (0, report(ids)))
}

/// One that ends with an exit code of its own.
pub(super) fn ending_runner(
    fixture: &Fixture,
    listed: &'static str,
    run: impl Fn(&[String]) -> (i32, String) + Send + Sync + 'static,
) -> Script {
    any_runner(fixture, listed, move |ids| {
        let (code, xml) = run(ids);
        (completed(code, ""), Some(xml))
    })
}

/// One that ends in any way, with or without a report.
pub(super) fn any_runner(
    fixture: &Fixture,
    listed: impl Into<String>,
    run: impl Fn(&[String]) -> (v1::ExecutionOutcome, Option<String>) + Send + Sync + 'static,
) -> Script {
    let listed = listed.into();
    let blobs = Arc::clone(&fixture.blobs);
    Arc::new(move |spec, execution| {
        let command = spec.command.as_ref().expect("is set");
        if command.arguments == ["./list"] {
            return Some(completed(0, &listed));
        }
        assert_eq!(command.arguments, ["./run", "@.regatta/tests"]);
        assert!(execution.extra_arguments.is_empty());
        let ids = ids_in(blobs.as_ref(), spec)
            .now_or_never()
            .expect("memory answers at once");
        let (mut outcome, xml) = run(&ids);
        let report = xml.map(|xml| reapi::OutputFile {
            path: "junit.xml".to_owned(),
            digest: Some(Digest::of(xml.as_bytes()).into()),
            contents: Bytes::from(xml),
            ..Default::default()
        });
        let result = outcome.result.get_or_insert_default();
        result.output_files.extend(report);
        Some(outcome)
    })
}

/// The ids in the file that a batch's input root holds.
async fn ids_in(blobs: &dyn regatta_cas::BlobStore, spec: &v1::LeaseSpec) -> Vec<String> {
    use prost::Message as _;
    let mut digest: Digest = spec
        .input_root
        .as_ref()
        .and_then(|it| it.try_into().ok())
        .expect("is a digest");
    let limit = 1 << 20;
    let root = read_all(blobs, &digest, limit).await.expect("is there");
    let root = reapi::Directory::decode(root).expect("is a directory");
    digest = root.directories[0]
        .digest
        .as_ref()
        .and_then(|it| it.try_into().ok())
        .expect("is");
    let below = read_all(blobs, &digest, limit).await.expect("is there");
    let below = reapi::Directory::decode(below).expect("is a directory");
    digest = below.files[0]
        .digest
        .as_ref()
        .and_then(|it| it.try_into().ok())
        .expect("is");
    let text = read_all(blobs, &digest, limit).await.expect("is there");
    String::from_utf8_lossy(&text)
        .lines()
        .map(str::to_owned)
        .collect()
}

pub(super) fn junit<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let cases = ids.map(|id| format!("<testcase name=\"{id}\" time=\"0.01\"/>"));
    format!("<testsuites>{}</testsuites>", cases.collect::<String>())
}

#[tokio::test]
async fn a_contract_suite_runs_in_batches_and_is_cached_by_test() {
    let fixture = Fixture::start().await;
    let report = |ids: &[String]| junit(ids.iter().map(String::as_str));
    let _agent = fixture.agent("a", contract_runner(&fixture, "x\ny\nz\n", report));
    let story = fixture.run(spec(vec![contract("acceptance")])).await;
    assert_eq!(
        story.end().verdict(),
        v1::Verdict::Releasable,
        "{:?}",
        story.end().reasons
    );
    assert_eq!(story.counts().passed, 3);
    let again = fixture.run(spec(vec![contract("acceptance")])).await;
    assert_eq!((again.counts().cached, again.end().leases), (3, 0));
}

fn skipping(id: &str) -> String {
    let skip = "<skipped message=\"not here\"/>";
    format!("<testsuite><testcase name=\"{id}\">{skip}</testcase></testsuite>")
}

#[tokio::test]
async fn what_a_runner_skips_is_skipped_with_its_reason_and_not_asked_again() {
    let fixture = Fixture::start().await;
    let report = |ids: &[String]| {
        let skips = ids.iter().filter(|id| *id == "y").map(|id| skipping(id));
        let passes = junit(ids.iter().map(String::as_str).filter(|id| *id != "y"));
        format!("<all>{}{passes}</all>", skips.collect::<String>())
    };
    let _agent = fixture.agent("a", contract_runner(&fixture, "x\ny\nz\n", report));
    for (passed, cached) in [(2, 0), (0, 2)] {
        let story = fixture.run(spec(vec![contract("acceptance")])).await;
        assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
        let counts = story.counts();
        let counts = (counts.passed, counts.cached, counts.skipped);
        assert_eq!(counts, (passed, cached, 1));
        let tests = story.tests();
        assert_eq!(tests["y"].status(), v1::TestStatus::Skipped);
        assert_eq!(tests["y"].message, "not here");
        assert_eq!(story.end().leases == 0, passed == 0);
    }
}

#[tokio::test]
async fn a_skip_does_not_make_a_failure_good() {
    let fixture = Fixture::start().await;
    let batches = AtomicUsize::new(0);
    let report = move |ids: &[String]| match batches.fetch_add(1, Ordering::SeqCst) {
        0 => format!("<testcase name=\"{}\"><failure/></testcase>", ids[0]),
        _ => skipping(&ids[0]),
    };
    let _agent = fixture.agent("a", contract_runner(&fixture, "x\n", report));
    let tried_again = v1::Job {
        retries: 1,
        ..contract("acceptance")
    };
    let story = fixture.run(spec(vec![tried_again])).await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    check_lie(&story, "x", "it failed, and the runner skipped it");
}

#[tokio::test]
async fn a_test_that_ends_its_runner_fails_alone() {
    let fixture = Fixture::start().await;
    // The runner says of each test that it runs before it does, and dies in those with a `!`, with exit
    // code 0 in some.
    let run = |ids: &[String]| {
        let dies = ids.iter().position(|id| id.ends_with('!'));
        let done = &ids[..dies.unwrap_or(ids.len())];
        let passes = junit(done.iter().map(String::as_str));
        let Some(dies) = dies else {
            return (0, passes);
        };
        let running = format!(
            "<testcase name=\"{}\"><error message=\"died\"/></testcase>",
            ids[dies]
        );
        (
            i32::from(ids[dies].starts_with('c')),
            format!("<all>{passes}{running}</all>"),
        )
    };
    let listed = "a\nb\nc!\nd\ne!\nf\n";
    let _agent = fixture.agent("a", ending_runner(&fixture, listed, run));
    let story = fixture.run(spec(vec![contract("acceptance")])).await;
    for id in ["c!", "e!"] {
        check_lie(&story, id, "died");
    }
    let counts = story.counts();
    assert_eq!((counts.passed, counts.failed), (4, 2));
    assert!(story.tests().values().all(|result| result.attempts == 1));
}

#[tokio::test]
async fn a_runner_that_ends_badly_and_never_runs_a_test_is_not_asked_for_ever() {
    let fixture = Fixture::start().await;
    let run = |ids: &[String]| {
        (
            1,
            junit(ids.iter().map(String::as_str).filter(|id| *id != "y")),
        )
    };
    let _agent = fixture.agent("a", ending_runner(&fixture, "x\ny\n", run));
    let story = fixture.run(spec(vec![contract("acceptance")])).await;
    check_lie(&story, "y", "exited with code 1");
    assert_eq!((story.counts().passed, story.counts().failed), (1, 1));
}

#[tokio::test]
async fn a_report_without_an_id_or_with_a_strange_one_is_caught() {
    let fixture = Fixture::start().await;
    let report = |ids: &[String]| {
        junit(
            ids.iter()
                .map(String::as_str)
                .filter(|id| *id != "y")
                .chain(["ghost"]),
        )
    };
    let _agent = fixture.agent("a", contract_runner(&fixture, "x\ny\n", report));
    let story = fixture.run(spec(vec![contract("acceptance")])).await;
    check_lie(&story, "y", "the runner did not report `y`");
    assert_eq!(story.counts().passed, 1);
    let message = &story.job("acceptance").message;
    assert!(message.contains("reported `ghost`"), "{message}");
    let again = fixture.run(spec(vec![contract("acceptance")])).await;
    assert_eq!(again.counts().cached, 0, "a liar is not believed later");
}

#[tokio::test]
async fn a_pass_after_the_runners_own_retry_is_flaky_and_not_remembered() {
    let fixture = Fixture::start().await;
    let report = |ids: &[String]| {
        let cases = ids.iter().map(|id| {
            let inside = if id == "x" {
                "<flakyFailure message='no'/>"
            } else {
                ""
            };
            format!("<testcase name='{id}'>{inside}</testcase>")
        });
        format!("<testsuite>{}</testsuite>", cases.collect::<String>())
    };
    let _agent = fixture.agent("a", contract_runner(&fixture, "x\ny\n", report));
    let story = fixture.run(spec(vec![contract("acceptance")])).await;
    assert_eq!((story.counts().passed, story.counts().flaky), (1, 1));
    let again = fixture.run(spec(vec![contract("acceptance")])).await;
    assert_eq!((again.counts().cached, again.counts().flaky), (1, 1));
}

#[tokio::test]
async fn a_list_of_which_a_part_was_kept_is_no_list() {
    let fixture = Fixture::start().await;
    let (first, last) = ("one\nt", "wo\nthree\n");
    let truncation = Truncation {
        first: first.len() as u64,
        last: last.len() as u64,
        total: 9000,
    };
    let listed = format!("{first}{truncation}{last}");
    let all_pass = |ids: &[String]| {
        let cases = ids.iter().map(|id| format!("<testcase name=\"{id}\"/>"));
        let cases: String = cases.collect();
        (
            completed(0, ""),
            Some(format!("<testsuites>{cases}</testsuites>")),
        )
    };
    let _agent = fixture.agent("a", any_runner(&fixture, listed, all_pass));
    let story = fixture.run(spec(vec![contract("acceptance")])).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    let reason = &story.end().reasons[0];
    assert!(reason.contains("9000 bytes"), "{reason}");
    assert!(reason.contains("--max-log-size"), "{reason}");
}

#[tokio::test]
async fn an_invented_test_fails_a_suite_whose_tests_all_pass() {
    let fixture = Fixture::start().await;
    let report = |ids: &[String]| junit(ids.iter().map(String::as_str).chain(["ghost"]));
    let _agent = fixture.agent("a", contract_runner(&fixture, "x\ny\n", report));
    let story = fixture.run(spec(vec![contract("acceptance")])).await;
    assert_eq!((story.counts().passed, story.counts().failed), (2, 0));
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    let message = &story.job("acceptance").message;
    assert!(message.contains("reported `ghost`"), "{message}");
}

/// A report of tests that took so many seconds by their own account.
fn timed(ids: &[String], seconds: impl Fn(&str) -> u32) -> String {
    let cases = ids.iter().map(|id| {
        let time = seconds(id);
        format!("<testcase name=\"{id}\" time=\"{time}\"/>")
    });
    format!("<testsuite>{}</testsuite>", cases.collect::<String>())
}

/// Runs three tests, which may take 2 seconds each, in one batch that takes this long.
async fn batch_of(took: u64, seconds: fn(&str) -> u32) -> (Fixture, FakeAgent, Story) {
    let fixture = Fixture::start().await;
    let run = move |ids: &[String]| {
        let mut outcome = completed(0, "");
        let result = outcome.result.as_mut().expect("is set");
        let metadata = result.execution_metadata.get_or_insert_default();
        let at = |seconds| timestamp_to_wire(Timestamp::EPOCH + Duration::from_secs(seconds));
        metadata.execution_start_timestamp = Some(at(0));
        metadata.execution_completed_timestamp = Some(at(took));
        (outcome, Some(timed(ids, seconds)))
    };
    let agent = fixture.agent("a", any_runner(&fixture, "x\ny\nz\n", run));
    let story = fixture.run(spec(vec![quick_tests()])).await;
    (fixture, agent, story)
}

fn quick_tests() -> v1::Job {
    v1::Job {
        timeout: Some(duration_to_wire(Duration::from_secs(2))),
        ..contract("acceptance")
    }
}

#[tokio::test]
async fn a_test_that_takes_longer_than_it_may_has_run_out_of_time_in_any_company() {
    let slow = |id: &str| if id == "y" { 5 } else { 0 };
    let (fixture, _agent, story) = batch_of(6, slow).await;
    check_lie(&story, "y", "ran out of time");
    assert_eq!(
        story.tests()["y"].failure_class(),
        v1::FailureClass::Timeout
    );
    assert_eq!((story.counts().passed, story.counts().failed), (2, 1));
    let again = fixture.run(spec(vec![quick_tests()])).await;
    assert_eq!((again.counts().cached, again.counts().failed), (2, 1));
}

#[tokio::test]
async fn a_test_cannot_have_taken_longer_than_its_batch() {
    // Its runner counts in other units.
    for took in [1, 6] {
        let (_fixture, _agent, story) = batch_of(took, |_| 300).await;
        assert_eq!(story.counts().passed, 3, "{took}");
    }
}
