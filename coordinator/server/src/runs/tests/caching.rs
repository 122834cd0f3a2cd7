//! What is known from earlier runs, and what must not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regatta_ledger::MemoryLedger;
use regatta_model::Digest;
use regatta_wire::v1::run_event::Event;
use regatta_wire::{reapi, v1};

use super::contract::{contract_runner, junit};
use super::fake_agent::{FakeAgent, Script, completed};
use super::fixture::{Fixture, build, contract, libtest, spec};
use super::{PASSED, all_pass, names, runner};

#[tokio::test]
async fn a_batch_that_contradicts_itself_is_red_every_time() {
    let fixture = Fixture::start().await;
    let report = |ids: &[String]| junit(ids.iter().map(String::as_str));
    let honest = contract_runner(&fixture, "x\ny\n", report);
    let script: Script = Arc::new(move |spec, execution| {
        let mut outcome = honest(spec, execution)?;
        let result = outcome.result.as_mut().expect("is set");
        if !result.output_files.is_empty() {
            result.exit_code = 3;
        }
        Some(outcome)
    });
    let _agent = fixture.agent("a", script);
    for _ in 0..2 {
        let story = fixture.run(spec(vec![contract("acceptance")])).await;
        assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
        assert_eq!((story.counts().cached, story.counts().passed), (0, 2));
        let message = &story.job("acceptance").message;
        assert!(
            message.contains("exited with code 3 though every test passed"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_pass_after_a_run_that_failed_with_the_same_key_is_no_answer() {
    let fixture = Fixture::start().await;
    let fails = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&fails);
    let answer = move |id: &str| {
        let is_bad = id == "test_0001" && told.load(Ordering::SeqCst);
        Some(match is_bad {
            true => completed(101, ""),
            false => completed(0, PASSED),
        })
    };
    let _agent = fixture.agent("a", runner(names(2), answer));
    let run = async || {
        let story = fixture.run(spec(vec![libtest("unit")])).await;
        let counts = story.counts();
        (counts.passed, counts.cached, counts.failed)
    };
    assert_eq!(run().await, (1, 0, 1));
    fails.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(run().await, (1, 1, 0), "it is executed each time");
    }
}

#[tokio::test]
async fn output_that_cannot_be_read_is_unknown_and_never_red() {
    let fixture = Fixture::start().await;
    let answer = |_: &str| {
        let mut outcome = completed(0, "");
        let result = outcome.result.as_mut().expect("is set");
        result.stdout_digest = Some(Digest::of(b"never stored").into());
        Some(outcome)
    };
    let _agent = fixture.agent("a", runner(names(1), answer));
    let story = fixture.run(spec(vec![libtest("unit")])).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    let result = &story.tests()["test_0000"];
    assert_eq!(result.failure_class(), v1::FailureClass::Infra);
    assert!(
        result.message.contains("cannot be read"),
        "{}",
        result.message
    );
}

/// An agent that has `img:1` with the content `has`, and says that it ran everything in `ran`.
fn agent(fixture: &Fixture, name: &str, has: &str, ran: &'static str) -> FakeAgent {
    let passing = runner(names(2), |_| Some(completed(0, PASSED)));
    let planned = has.to_owned();
    let script: Script = Arc::new(move |spec, execution| {
        // Nothing is said of what agents disagree about.
        assert!(["", planned.as_str()].contains(&spec.image_id.as_str()));
        let arguments = &spec.command.as_ref().expect("is set").arguments;
        assert_eq!(spec.image, "img:1", "the lease names it as the job does");
        let outcome = if arguments[0] == "make" {
            Some(completed(0, ""))
        } else {
            passing(spec, execution)
        };
        Some(v1::ExecutionOutcome {
            image_id: ran.to_owned(),
            ..outcome?
        })
    });
    let images = [v1::OfferedImage {
        reference: "img:1".to_owned(),
        id: has.to_owned(),
    }];
    fixture.docker_agent(name, images.into(), script)
}

/// Runs a build and a suite of two tests in `img:1`; how many leases and cached tests that were.
async fn run(fixture: &Fixture) -> (u64, u32) {
    let run = fixture.submit(in_image()).await;
    finish(fixture, &run).await
}

fn in_image() -> v1::RunSpec {
    let platform = reapi::Platform {
        properties: vec![reapi::platform::Property {
            name: "container-image".to_owned(),
            value: "img:1".to_owned(),
        }],
    };
    let mut jobs = vec![libtest("unit"), build("make", &[], &["make"])];
    for job in &mut jobs {
        job.platform = Some(platform.clone());
    }
    spec(jobs)
}

async fn finish(fixture: &Fixture, run: &str) -> (u64, u32) {
    let story = fixture.finish(run).await;
    assert_eq!(
        story.end().verdict(),
        v1::Verdict::Releasable,
        "{:?}",
        story.end().reasons
    );
    assert_eq!(story.job("make").cached, story.counts().cached > 0);
    (story.end().leases, story.counts().cached)
}

#[tokio::test]
async fn a_tag_that_has_moved_is_another_image() {
    let fixture = Fixture::start().await;
    let old = agent(&fixture, "a", "sha256:old", "sha256:old");
    fixture.connected(&["a"]).await;
    assert_ne!(run(&fixture).await.0, 0);
    assert_eq!(run(&fixture).await, (0, 2));
    drop(old);
    fixture.connected(&[]).await;
    let new = agent(&fixture, "b", "sha256:new", "sha256:new");
    fixture.connected(&["b"]).await;
    assert_eq!(run(&fixture).await.1, 0, "the tag has another content");
    assert_eq!(run(&fixture).await, (0, 2));
    drop(new);
    fixture.connected(&[]).await;
    let _old = agent(&fixture, "a", "sha256:old", "sha256:old");
    fixture.connected(&["a"]).await;
    assert_eq!(run(&fixture).await, (0, 2), "what is old is still known");
}

#[tokio::test]
async fn a_pass_in_another_image_than_expected_is_not_kept() {
    let fixture = Fixture::start().await;
    let _agent = agent(&fixture, "a", "sha256:old", "sha256:new");
    fixture.connected(&["a"]).await;
    for _ in 0..2 {
        assert_eq!(run(&fixture).await.1, 0);
    }
}

#[tokio::test]
async fn a_tag_that_agents_disagree_about_is_not_cached() {
    let fixture = Fixture::start().await;
    let _one = agent(&fixture, "a", "sha256:old", "sha256:old");
    fixture.connected(&["a"]).await;
    assert_eq!(run(&fixture).await.1, 0);
    let other = agent(&fixture, "b", "sha256:new", "sha256:new");
    fixture.connected(&["a", "b"]).await;
    for _ in 0..2 {
        assert_eq!(run(&fixture).await.1, 0);
    }
    drop(other);
    fixture.connected(&["a"]).await;
    assert_eq!(run(&fixture).await, (0, 2));
}

#[tokio::test]
async fn agents_that_connect_late_still_say_what_a_tag_means() {
    let fixture = Fixture::start().await;
    let early = agent(&fixture, "a", "sha256:old", "sha256:old");
    fixture.connected(&["a"]).await;
    assert_eq!(run(&fixture).await.1, 0);
    drop(early);
    fixture.connected(&[]).await;
    let run = fixture.submit(in_image()).await;
    let request = v1::WatchRunRequest {
        run_id: run.clone(),
        after_sequence: 0,
    };
    let events = fixture.runs().watch_run(request).await;
    let mut events = events.expect("is known").into_inner();
    loop {
        let event = events.message().await.expect("goes on").expect("is there");
        if matches!(event.event, Some(Event::JobStarted(_))) {
            break;
        }
    }
    let _late = agent(&fixture, "a", "sha256:old", "sha256:old");
    assert_eq!(finish(&fixture, &run).await, (0, 2));
}

#[tokio::test]
async fn a_shard_is_not_told_of_by_what_an_earlier_runner_left() {
    use crate::runs::overlay::{Layer, lay};
    let fixture = Fixture::start().await;
    let (seen, roots) = std::sync::mpsc::channel();
    let seen = std::sync::Mutex::new(seen);
    let script: Script = Arc::new(move |spec, _| {
        let root = spec.input_root.clone().expect("is set");
        seen.lock()
            .expect("unpoisoned")
            .send(root)
            .expect("is read");
        Some(completed(0, ""))
    });
    let _agent = fixture.agent("a", script);
    let blobs = fixture.blobs.as_ref();
    let left = regatta_cas::put_bytes(blobs, bytes::Bytes::new()).await;
    let layer = Layer::File {
        digest: left.expect("is stored"),
        is_executable: false,
    };
    let path = [".regatta", "shard", "status"].map(str::to_owned);
    let root = lay(blobs, Digest::EMPTY, &path, layer)
        .await
        .expect("is laid");
    let job = v1::Job {
        input_root: Some(root.into()),
        ..sharded()
    };
    let story = fixture.run(spec(vec![job])).await;
    // Neither shard says that it knows of the protocol.
    assert_eq!(story.counts().failed, 2);
    let given: Vec<reapi::Digest> = roots.try_iter().collect();
    assert!(!given.is_empty() && given.iter().all(|it| *it != root.into()));
}

#[tokio::test]
async fn a_shard_whose_own_report_has_a_failure_has_failed() {
    let fixture = Fixture::start().await;
    let file = |path: &str, text: &str| reapi::OutputFile {
        path: path.to_owned(),
        digest: Some(Digest::of(text.as_bytes()).into()),
        contents: bytes::Bytes::copy_from_slice(text.as_bytes()),
        ..Default::default()
    };
    let report = "<testsuite><testcase name='t' classname='c'><failure/></testcase></testsuite>";
    let files = vec![
        file(".regatta/shard/status", ""),
        file(".regatta/shard/test.xml", report),
    ];
    let script: Script = Arc::new(move |_, _| {
        let mut outcome = completed(0, "");
        let result = outcome.result.get_or_insert_default();
        result.output_files.clone_from(&files);
        Some(outcome)
    });
    let _agent = fixture.agent("a", script);
    let story = fixture.run(spec(vec![sharded()])).await;
    assert_eq!((story.counts().failed, story.counts().passed), (2, 0));
    let message = &story.tests()["shard 1 of 2"].message;
    assert!(
        message.contains("1 of its 1 tests failed: c.t"),
        "{message}"
    );
}

/// A suite of two shards.
fn sharded() -> v1::Job {
    let suite = v1::Suite {
        adapter: v1::SuiteAdapter::BazelSharding.into(),
        run_arguments: vec!["./tests".to_owned()],
        shards: 2,
        ..Default::default()
    };
    v1::Job {
        kind: Some(v1::job::Kind::Suite(suite)),
        ..build("sharded", &[], &[])
    }
}

/// A coordinator has started, no agent has connected yet, and passes of processes are known.
#[tokio::test]
async fn what_ran_as_a_process_is_no_answer_for_agents_with_images_that_have_yet_to_connect() {
    let earlier = Fixture::start().await;
    let agent = earlier.agent("a", all_pass(2));
    let run = || spec(vec![libtest("unit")]);
    assert_eq!(earlier.run(run()).await.counts().passed, 2);
    drop(agent);
    let heir = earlier.heir(Arc::new(MemoryLedger::new())).await;
    let id = heir.submit(run()).await;
    let images = vec![v1::OfferedImage {
        reference: "img:1".to_owned(),
        id: "sha256:a".to_owned(),
    }];
    let _agent = heir.docker_agent("b", images, all_pass(2));
    let counts = heir.finish(&id).await.counts();
    assert_eq!((counts.cached, counts.passed), (0, 2));
}
