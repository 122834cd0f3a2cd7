//! How a contract's runner ended, and whether its failed tests explain it.

use std::sync::atomic::{AtomicUsize, Ordering};

use regatta_wire::v1;

use super::contract::{ending_runner, junit};
use super::fake_agent::FakeAgent;
use super::fixture::{Fixture, Story, contract, spec};

/// Runs two tests of which `x` fails at first and is tried again, by a runner that exits with one code and then another;
/// `error` is what it reports `x` with.
async fn tried_again(codes: [i32; 2], error: &'static str) -> (Fixture, FakeAgent, Story) {
    let fixture = Fixture::start().await;
    let batches = AtomicUsize::new(0);
    let run = move |ids: &[String]| {
        let batch = batches.fetch_add(1, Ordering::SeqCst);
        let passing = |id: &&str| batch > 0 || *id != "x";
        let passes = junit(ids.iter().map(String::as_str).filter(passing));
        let fails = match batch {
            0 => format!("<testcase name=\"x\">{error}</testcase>"),
            _ => String::new(),
        };
        (codes[batch.min(1)], format!("<all>{passes}{fails}</all>"))
    };
    let agent = fixture.agent("a", ending_runner(&fixture, "x\ny\n", run));
    let suite = v1::Job {
        retries: 1,
        ..contract("acceptance")
    };
    let story = fixture.run(spec(vec![suite])).await;
    (fixture, agent, story)
}

#[track_caller]
fn check(story: &Story, expected: v1::Verdict, complaint: &str) {
    assert_eq!(story.counts().flaky, 1, "{:?}", story.end());
    assert_eq!(story.end().verdict(), expected, "{:?}", story.end());
    let message = &story.job("acceptance").message;
    assert!(message.contains(complaint), "{message}");
    assert_eq!(message.is_empty(), complaint.is_empty(), "{message}");
}

#[tokio::test]
async fn a_failed_test_that_passes_later_excuses_its_runner() {
    let (_fixture, _agent, story) = tried_again([1, 0], "<failure/>").await;
    check(&story, v1::Verdict::Releasable, "");
}

#[tokio::test]
async fn a_failed_test_excuses_nothing_else_that_failed_with_it() {
    let (fixture, _agent, story) = tried_again([3, 0], "<failure/>").await;
    let complaint = "exited with code 3, which is not how runners end because of failed tests";
    check(&story, v1::Verdict::NotReleasable, complaint);
    let again = fixture.run(spec(vec![contract("acceptance")])).await;
    assert_eq!(again.counts().cached, 0, "its passes are not believed");
}

#[tokio::test]
async fn a_runner_that_fails_again_when_its_test_passes_has_failed_itself() {
    let (_fixture, _agent, story) = tried_again([1, 1], "<failure/>").await;
    let complaint = "exited with code 1 though every test passed";
    check(&story, v1::Verdict::NotReleasable, complaint);
}

#[tokio::test]
async fn a_test_that_ends_its_runner_explains_any_exit_code() {
    let error = "<error type=\"regatta.runner-ended\"/>";
    let (_fixture, _agent, story) = tried_again([139, 0], error).await;
    check(&story, v1::Verdict::Releasable, "");
}
