//! Build jobs: what they leave, how they fail, how they are tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt as _;
use regatta_cas::put_bytes;
use regatta_model::Digest;
use regatta_wire::v1::run_event::Event;
use regatta_wire::{reapi, v1};

use super::fake_agent::{Script, completed};
use super::fixture::{Fixture, build, spec};
use super::logs;

/// Makes `out/app` or says what it was given.
fn builder(fixture: &Fixture) -> Script {
    let blobs = Arc::clone(&fixture.blobs);
    Arc::new(move |spec, _| {
        let arguments = &spec.command.as_ref().expect("is set").arguments;
        if arguments[0] == "fail" {
            return Some(completed(2, ""));
        }
        let put = put_bytes(blobs.as_ref(), "the application".into());
        let digest = put
            .now_or_never()
            .expect("memory answers at once")
            .expect("stores");
        let mut outcome = completed(0, "");
        let result = outcome.result.as_mut().expect("is set");
        result.output_files.push(reapi::OutputFile {
            path: "app".to_owned(),
            digest: Some(digest.into()),
            is_executable: true,
            ..Default::default()
        });
        result.stdout_digest = Some(spec.input_root.clone().expect("is set"));
        Some(outcome)
    })
}

#[tokio::test]
async fn outputs_feed_later_jobs_and_are_cached() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", builder(&fixture));
    let make = v1::Job {
        output_paths: vec!["app".to_owned()],
        ..build("make", &[], &["make"])
    };
    let from = v1::InputFrom {
        job: "make".to_owned(),
        output_path: "app".to_owned(),
        at: "bin/app".to_owned(),
    };
    let mut package = v1::Job {
        inputs_from: vec![from],
        ..build("package", &[], &["pack"])
    };
    package.output_paths = vec!["app".to_owned()];
    let jobs = vec![package, make];
    let story = fixture.run(spec(jobs.clone())).await;
    assert_eq!(
        story.end().verdict(),
        v1::Verdict::Releasable,
        "{:?}",
        story.end().reasons
    );
    let seen = story
        .job("package")
        .result
        .as_ref()
        .and_then(|it| it.stdout_digest.clone());
    let seen = Digest::try_from(seen.expect("is set")).expect("is a digest");
    assert_ne!(seen, Digest::EMPTY, "the application was laid in");
    let again = fixture.run(spec(jobs)).await;
    assert!(again.job("package").cached && again.job("make").cached);
    assert_eq!(again.end().leases, 0);
}

#[tokio::test]
async fn a_build_that_fails_or_makes_nothing_stops_what_needs_it() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", builder(&fixture));
    let mut lazy = build("lazy", &[], &["make"]);
    lazy.output_paths = vec!["elsewhere".to_owned()];
    let jobs = vec![
        build("bad", &[], &["fail"]),
        lazy,
        build("late", &["bad"], &["make"]),
    ];
    let story = fixture.run(spec(jobs)).await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    assert_eq!(story.job("bad").status(), v1::JobStatus::Failed);
    assert_eq!(story.job("late").status(), v1::JobStatus::NotRun);
    let message = &story.job("lazy").message;
    assert_eq!(message, "it exited with code 0 but did not make elsewhere");
}

#[tokio::test]
async fn failures_are_never_served_from_the_cache() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", builder(&fixture));
    for _ in 0..2 {
        let mut lazy = build("lazy", &[], &["make"]);
        lazy.output_paths = vec!["elsewhere".to_owned()];
        let story = fixture
            .run(spec(vec![build("bad", &[], &["fail"]), lazy]))
            .await;
        assert_eq!(story.end().leases, 2);
        assert!(!story.job("bad").cached && !story.job("lazy").cached);
    }
}

#[tokio::test]
async fn blobs_that_have_gone_make_it_unknown_and_never_red() {
    let fixture = Fixture::start().await;
    let rejected = v1::ExecutionOutcome {
        kind: v1::OutcomeKind::Rejected.into(),
        missing_blobs: vec![Digest::of(b"gone").into()],
        message: "the store lacks blobs of the input root".to_owned(),
        ..Default::default()
    };
    let _agent = fixture.agent("a", Arc::new(move |_, _| Some(rejected.clone())));
    let story = fixture.run(spec(vec![build("make", &[], &["make"])])).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    assert!(story.job("make").message.contains("submit the run again"));
}

#[tokio::test]
async fn what_cannot_be_carried_out_anywhere_is_unknown_and_tried_once() {
    let fixture = Fixture::start().await;
    let rejected = v1::ExecutionOutcome {
        kind: v1::OutcomeKind::Rejected.into(),
        message: "image no:such cannot be had".to_owned(),
        ..Default::default()
    };
    let agent = fixture.agent("a", Arc::new(move |_, _| Some(rejected.clone())));
    let make = v1::Job {
        retries: 3,
        ..build("make", &[], &["make"])
    };
    let story = fixture.run(spec(vec![make])).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    assert_eq!(story.job("make").failure_class(), v1::FailureClass::Infra);
    assert!(story.job("make").message.contains("no:such"));
    assert_eq!(agent.leases.load(Ordering::SeqCst), 1);
}

/// Fails so many times, then passes.
fn failing(times: usize) -> Script {
    let attempts = AtomicUsize::new(0);
    Arc::new(move |_, _| {
        Some(match attempts.fetch_add(1, Ordering::SeqCst) {
            attempt if attempt < times => completed(2, &format!("attempt {attempt}")),
            _ => completed(0, "made"),
        })
    })
}

fn tried_twice_more() -> v1::RunSpec {
    let make = v1::Job {
        retries: 2,
        ..build("make", &[], &["make"])
    };
    spec(vec![make])
}

#[tokio::test]
async fn a_build_that_passes_after_a_failure_is_flaky_and_every_attempt_is_told() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", failing(2));
    let run = fixture.submit(tried_twice_more()).await;
    let story = fixture.finish(&run).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
    let make = story.job("make");
    assert_eq!((make.status(), make.attempts), (v1::JobStatus::Passed, 3));
    let retried = story.events.iter().filter_map(|event| match event {
        Event::BuildRetried(retried) => retried.attempt.as_ref().zip(Some(retried.next_attempt)),
        _ => None,
    });
    let told = |attempt: &v1::JobFinished, next| {
        let class = attempt.failure_class();
        (attempt.status(), class, attempt.attempts, next)
    };
    let retried: Vec<_> = retried.map(|(attempt, next)| told(attempt, next)).collect();
    let failed = |attempt| {
        let class = v1::FailureClass::Test;
        (v1::JobStatus::Failed, class, attempt, attempt + 1)
    };
    assert_eq!(retried, [failed(1), failed(2)]);
    let request = v1::ReadLogsRequest {
        run_id: run,
        ..Default::default()
    };
    let lines = [
        "Failed ",
        "attempt 0",
        "Failed ",
        "attempt 1",
        "Flaky ",
        "made",
    ];
    assert_eq!(logs(&fixture, request).await, lines);
}

#[tokio::test]
async fn a_build_that_never_passes_is_tried_as_often_as_it_says() {
    let fixture = Fixture::start().await;
    let agent = fixture.agent("a", failing(9));
    let story = fixture.run(tried_twice_more()).await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    assert_eq!(story.job("make").attempts, 3);
    assert_eq!(agent.leases.load(Ordering::SeqCst), 3);
    assert_eq!(story.end().reasons, ["`make` failed: exited with code 2"]);
}

#[tokio::test]
async fn a_job_in_an_image_never_goes_to_an_agent_without_containers() {
    let fixture = Fixture::start().await;
    let made = || Arc::new(|_: &_, _: &_| Some(completed(0, "made"))) as Script;
    let without = fixture.agent("a", made());
    let image = v1::OfferedImage {
        reference: "img:1".to_owned(),
        id: "sha256:1".to_owned(),
    };
    let with = fixture.docker_agent("b", vec![image], made());
    let image = reapi::platform::Property {
        name: "container-image".to_owned(),
        value: "img:1".to_owned(),
    };
    let jobs = (0..20).map(|number| v1::Job {
        platform: Some(reapi::Platform {
            properties: vec![image.clone()],
        }),
        ..build(&format!("make-{number}"), &[], &["make"])
    });
    let story = fixture.run(spec(jobs.collect())).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
    let leases = [&without, &with].map(|agent| agent.leases.load(Ordering::SeqCst));
    assert_eq!(leases[0], 0, "{leases:?}");
}
