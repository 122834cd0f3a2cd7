mod ahead;
mod asked_audits;
mod audit;
mod audit_of_bad;
mod builds;
mod caching;
mod contract;
mod elsewhere;
mod evidence;
pub(crate) mod fake_agent;
pub(crate) mod fixture;
mod forgotten;
mod full_ledger;
mod full_store;
mod given;
mod learnt_again;
mod left_open;
mod planning;
mod precedence;
mod quarantine;
mod resumption;
mod runner_exit;
mod selection;
mod skips;
mod submission;
mod suspects;
mod suspects_resumed;
mod unstored;
mod verdict;
mod waiting;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use fake_agent::{Script, completed, lost};
use fixture::{Fixture, PATIENCE, Story, build, libtest, spec, until};
pub(crate) use full_ledger::{Answer, FullLedger};
use futures::StreamExt as _;
use regatta_model::Digest;
use regatta_wire::v1::run_event::Event;
use regatta_wire::{reapi, v1};
use tonic::Code;

const PASSED: &str = "\nrunning 1 test\n\ntest result: ok. 1 passed; 0 failed; 0 ignored\n";
const FAILED: &str = "\nrunning 1 test\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored\n";
const RAN_NOTHING: &str = "\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored\n";

/// A runner like libtest's: `tests` are listed, `answer` says how each ends.
fn runner(
    tests: impl IntoIterator<Item = String>,
    answer: impl Fn(&str) -> Option<v1::ExecutionOutcome> + Send + Sync + 'static,
) -> Script {
    let tests: Vec<String> = tests.into_iter().collect();
    Arc::new(move |spec, execution| {
        let arguments = &spec.command.as_ref().expect("is set").arguments;
        if arguments.iter().any(|argument| argument == "--list") {
            let only_ignored = arguments.iter().any(|argument| argument == "--ignored");
            let wanted = |test: &&String| !only_ignored || test.starts_with("ignored");
            let lines = tests
                .iter()
                .filter(wanted)
                .map(|test| format!("{test}: test\n"));
            return Some(completed(0, &lines.collect::<String>()));
        }
        answer(execution.extra_arguments.last().expect("the id"))
    })
}

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("test_{number:04}"))
        .collect()
}

fn all_pass(count: usize) -> Script {
    runner(names(count), |_| Some(completed(0, PASSED)))
}

#[tokio::test]
async fn a_suite_is_sharded_and_every_test_is_counted_once() {
    let fixture = Fixture::start().await;
    let agents = ["a", "b"].map(|name| fixture.agent(name, all_pass(200)));
    let story = fixture.run(spec(vec![libtest("unit")])).await;
    assert_eq!(
        story.end().verdict(),
        v1::Verdict::Releasable,
        "{:?}",
        story.end().reasons
    );
    assert_eq!((story.counts().planned, story.counts().passed), (200, 200));
    assert_eq!(story.tests().len(), 200);
    assert!(
        agents
            .iter()
            .all(|agent| agent.leases.load(Ordering::SeqCst) > 1)
    );
}

#[tokio::test]
async fn a_second_run_is_served_from_the_cache() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", all_pass(1000));
    fixture.run(spec(vec![libtest("unit")])).await;
    let started = Instant::now();
    let story = fixture.run(spec(vec![libtest("unit")])).await;
    let took = started.elapsed();
    assert_eq!(story.end().leases, 0);
    assert_eq!(story.counts().cached, 1000);
    assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
    println!("1000 cached tests took {took:?}");
    // Changing what a test depends on changes its key.
    let mut other = libtest("unit");
    other.environment = vec![reapi::command::EnvironmentVariable {
        name: "A".to_owned(),
        value: "B".to_owned(),
    }];
    let story = fixture.run(spec(vec![other])).await;
    assert_eq!(story.counts().passed, 1000);
    let all = v1::RunSpec {
        skip_cache_lookup: true,
        ..spec(vec![libtest("unit")])
    };
    assert_eq!(fixture.run(all).await.counts().passed, 1000);
}

#[tokio::test]
async fn a_killed_agent_costs_nothing_but_time() {
    let fixture = Fixture::start().await;
    let listing = all_pass(100);
    let stuck: Script = Arc::new(move |spec, execution| {
        execution
            .extra_arguments
            .is_empty()
            .then(|| listing(spec, execution))
            .flatten()
    });
    let victim = fixture.agent("victim", stuck);
    let run = fixture.submit(spec(vec![libtest("unit")])).await;
    until(|| victim.leases.load(Ordering::SeqCst) >= 3).await;
    let _survivor = fixture.agent("survivor", all_pass(100));
    drop(victim);
    let story = fixture.finish(&run).await;
    assert_eq!(
        story.end().verdict(),
        v1::Verdict::Releasable,
        "{:?}",
        story.end().reasons
    );
    assert_eq!((story.counts().passed, story.tests().len()), (100, 100));
    assert!(
        story
            .events
            .iter()
            .any(|event| matches!(event, Event::InfrastructureRetry(_)))
    );
}

#[tokio::test]
async fn infrastructure_that_fails_too_often_is_unknown_and_never_red() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent(
        "a",
        runner(names(2), |id| {
            Some(if id == "test_0001" {
                lost()
            } else {
                completed(0, PASSED)
            })
        }),
    );
    let story = fixture.run(spec(vec![libtest("unit")])).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    assert_eq!(story.job("unit").status(), v1::JobStatus::Unknown);
    let counts = story.counts();
    assert_eq!((counts.passed, counts.failed, counts.not_run), (1, 0, 1));
    let result = &story.tests()["test_0001"];
    assert_eq!(result.failure_class(), v1::FailureClass::Infra);
    assert!(
        result.message.contains("the disk is on fire"),
        "{}",
        result.message
    );
}

/// Fails the first attempt of each test.
fn flaky() -> Script {
    let seen = Mutex::new(BTreeMap::new());
    runner(names(3), move |id| {
        let mut seen = seen.lock().expect("is whole");
        let count: &mut u32 = seen.entry(id.to_owned()).or_default();
        *count += 1;
        Some(if *count == 1 {
            completed(101, "boom")
        } else {
            completed(0, PASSED)
        })
    })
}

#[tokio::test]
async fn a_pass_after_a_failure_is_flaky() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", flaky());
    let job = v1::Job {
        retries: 1,
        ..libtest("unit")
    };
    let story = fixture.run(spec(vec![job])).await;
    assert_eq!(
        story.end().verdict(),
        v1::Verdict::Releasable,
        "{:?}",
        story.end().reasons
    );
    assert_eq!(story.counts().flaky, 3);
    assert!(story.tests().values().all(|result| result.attempts == 2));
    let retried = story
        .events
        .iter()
        .filter(|event| matches!(event, Event::TestRetried(_)));
    assert_eq!(retried.count(), 3);
    let history = fixture
        .ledger
        .read_history(&"".parse().expect("valid"), Some("unit"))
        .await;
    let history = history.expect("is known");
    assert!(
        history
            .iter()
            .all(|test| (test.runs, test.flakes, test.failures) == (1, 1, 0))
    );
    assert!(history.iter().all(|test| test.last_failure.is_some()));
    let place = regatta_ledger::Place::default();
    let tenant = "".parse().expect("valid");
    let known = fixture.ledger.read_suite(&tenant, "unit", &place).await;
    let known = known.expect("is known");
    assert_eq!(known.tests.len(), 3);
    assert!(known.batch_overhead.is_some(), "{known:?}");
    // Such a pass is not remembered: the next run finds out whether it is flaky yet.
    let again = fixture.run(spec(vec![libtest("unit")])).await;
    assert_eq!((again.counts().cached, again.counts().passed), (0, 3));
}

#[tokio::test]
async fn a_suite_whose_every_test_is_skipped_proves_nothing() {
    let fixture = Fixture::start().await;
    let ignored = ["ignored_a", "ignored_b"].map(str::to_owned);
    let _agent = fixture.agent("a", runner(ignored, |_| None));
    let story = fixture.run(spec(vec![libtest("unit")])).await;
    assert_eq!((story.counts().planned, story.counts().skipped), (2, 2));
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    assert_eq!(story.end().reasons, ["every test was skipped"]);
}

#[tokio::test]
async fn a_failure_without_retries_is_told_with_its_output() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", flaky());
    let run = fixture.submit(spec(vec![libtest("unit")])).await;
    let story = fixture.finish(&run).await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    assert_eq!(story.counts().failed, 3);
    let result = &story.tests()["test_0000"];
    assert_eq!(
        (result.exit_code, &result.stdout_tail[..]),
        (Some(101), &b"boom"[..])
    );
    let request = |test: &str| v1::ReadLogsRequest {
        run_id: run.clone(),
        job: "unit".to_owned(),
        test_id: test.to_owned(),
        ..Default::default()
    };
    let named = logs(&fixture, request("test_0001")).await;
    assert_eq!(named, ["Failed test_0001", "boom"]);
    let all = logs(&fixture, request("")).await;
    assert_eq!(all.iter().filter(|line| *line == "boom").count(), 3);
}

/// What a request for logs is answered with: heads and data.
async fn logs(fixture: &Fixture, request: v1::ReadLogsRequest) -> Vec<String> {
    let logs = fixture.runs().read_logs(request).await;
    let mut logs = logs.expect("are known").into_inner();
    let mut lines = Vec::new();
    while let Some(chunk) = logs.message().await.expect("comes") {
        lines.push(match &chunk.attempt {
            Some(attempt) => format!("{:?} {}", attempt.status(), attempt.test_id),
            None => String::from_utf8_lossy(&chunk.data).into_owned(),
        });
    }
    lines
}

#[tokio::test]
async fn logs_tell_of_every_test_and_of_failed_attempts() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", flaky());
    let job = v1::Job {
        retries: 1,
        ..libtest("unit")
    };
    let run = fixture.submit(spec(vec![job])).await;
    let story = fixture.finish(&run).await;
    assert_eq!(story.counts().flaky, 3);
    let request = |all| v1::ReadLogsRequest {
        run_id: run.clone(),
        all,
        ..Default::default()
    };
    let mut some = logs(&fixture, request(false)).await;
    some.sort();
    let expected = [
        "Failed test_0000",
        "Failed test_0001",
        "Failed test_0002",
        "Flaky test_0000",
        "Flaky test_0001",
        "Flaky test_0002",
        "boom",
        "boom",
        "boom",
    ];
    assert_eq!(some, expected);
    let all = logs(&fixture, request(true)).await;
    assert_eq!(all.iter().filter(|line| *line == PASSED).count(), 3);
}

#[tokio::test]
async fn failing_fast_leaves_the_rest_not_run() {
    let fixture = Fixture::start().await;
    let answered = Arc::new(AtomicUsize::new(0));
    let _agent = fixture.agent(
        "a",
        runner(names(50), move |_| {
            // The first test fails; no other ever answers.
            (answered.fetch_add(1, Ordering::SeqCst) == 0).then(|| completed(1, "no"))
        }),
    );
    let jobs = vec![libtest("unit"), build("later", &["unit"], &["make"])];
    let story = fixture
        .run(v1::RunSpec {
            max_failures: 1,
            ..spec(jobs)
        })
        .await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    assert_eq!((story.counts().failed, story.counts().not_run), (1, 49));
    assert_eq!(story.tests().len(), 50);
    assert_eq!(story.job("later").status(), v1::JobStatus::NotRun);
}

#[tokio::test]
async fn a_cancelled_run_ends_and_says_so() {
    let fixture = Fixture::start().await;
    let agent = fixture.agent("a", runner(names(5), |_| None));
    let run = fixture.submit(spec(vec![libtest("unit")])).await;
    until(|| agent.leases.load(Ordering::SeqCst) >= 3).await;
    let request = v1::CancelRunRequest {
        run_id: run.clone(),
    };
    fixture
        .runs()
        .cancel_run(request.clone())
        .await
        .expect("is cancelled");
    let story = fixture.finish(&run).await;
    assert!(story.end().cancelled);
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    assert_eq!(story.counts().not_run, 5);
    assert_eq!(story.job("unit").status(), v1::JobStatus::Cancelled);
    fixture
        .runs()
        .cancel_run(request)
        .await
        .expect("does nothing");
}

#[track_caller]
fn check_lie(story: &Story, test: &str, message: &str) {
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    let found = &story.tests()[test].message;
    assert!(found.contains(message), "{found}");
}

#[tokio::test]
async fn a_runner_that_ran_nothing_is_caught() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", runner(names(1), |_| Some(completed(0, RAN_NOTHING))));
    let story = fixture.run(spec(vec![libtest("unit")])).await;
    check_lie(&story, "test_0000", "did not run exactly this test");
    let again = fixture.run(spec(vec![libtest("unit")])).await;
    assert_eq!(again.counts().cached, 0, "a lie is not cached");
}

#[tokio::test]
async fn ignored_tests_are_skipped_and_doubled_ones_refused() {
    let fixture = Fixture::start().await;
    let tests = ["a", "ignored_b"].map(str::to_owned);
    let agent = fixture.agent("a", runner(tests, |_| Some(completed(0, PASSED))));
    let story = fixture.run(spec(vec![libtest("unit")])).await;
    assert_eq!((story.counts().passed, story.counts().skipped), (1, 1));
    drop(agent);
    let twice = ["a", "a"].map(str::to_owned);
    let _agent = fixture.agent("b", runner(twice, |_| Some(completed(0, PASSED))));
    let spec = v1::RunSpec {
        skip_cache_lookup: true,
        ..spec(vec![libtest("unit")])
    };
    let story = fixture.run(spec).await;
    assert_eq!(story.job("unit").message, "tests are listed twice: `a`");
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
}

#[tokio::test]
async fn a_listing_that_fails_is_shown() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", Arc::new(|_, _| Some(completed(3, "no such fixture"))));
    let story = fixture.run(spec(vec![libtest("unit")])).await;
    let message = &story.job("unit").message;
    assert!(message.contains("exited with code 3"), "{message}");
    assert!(message.contains("no such fixture"), "{message}");
}

#[tokio::test]
async fn a_ledger_that_lets_nothing_be_leased_is_waited_for_and_the_run_says_so() {
    let ledger = Arc::new(FullLedger::for_reservations());
    let fixture = Fixture::with_ledger(Arc::clone(&ledger) as _).await;
    let _agent = fixture.agent("a", all_pass(1));
    let run = fixture.submit(spec(vec![libtest("unit")])).await;
    let mut client = fixture.runs();
    let watching = client.watch_run(v1::WatchRunRequest {
        run_id: run.clone(),
        after_sequence: 0,
    });
    let mut events = watching.await.expect("is known").into_inner();
    let warned = async {
        loop {
            let event = events.message().await.expect("goes on");
            match event.expect("has not ended").event {
                Some(Event::Warning(warning)) => return warning.message,
                Some(Event::RunFinished(end)) => panic!("{end:?}"),
                _ => {}
            }
        }
    };
    let warning = tokio::time::timeout(PATIENCE, warned).await;
    let warning = warning.expect("is told in time");
    assert!(warning.contains("disk is full"), "{warning}");
    assert!(fixture.dispatcher.trouble().is_some());
    ledger.make_room();
    let story = fixture.finish(&run).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
    assert_eq!(fixture.dispatcher.trouble(), None);
}

async fn check_refused(spec: v1::RunSpec, code: Code, message: &str) {
    let fixture = Fixture::start().await;
    let request = v1::SubmitRunRequest {
        spec: Some(spec),
        ..Default::default()
    };
    let status = fixture
        .runs()
        .submit_run(request)
        .await
        .expect_err("is refused");
    assert_eq!(status.code(), code);
    assert!(status.message().contains(message), "{}", status.message());
}

#[tokio::test]
async fn what_cannot_run_is_refused() {
    let circle = vec![build("a", &["b"], &["x"]), build("b", &["a"], &["x"])];
    check_refused(spec(circle), Code::InvalidArgument, "a -> b -> a").await;
    let mut lost = build("a", &[], &["x"]);
    lost.input_root = Some(Digest::of(b"gone").into());
    check_refused(spec(vec![lost]), Code::FailedPrecondition, "missing").await;
    let mut strange = build("a", &[], &["x"]);
    strange.platform = Some(reapi::Platform {
        properties: vec![reapi::platform::Property {
            name: "cpu".to_owned(),
            value: "many".to_owned(),
        }],
    });
    check_refused(spec(vec![strange]), Code::InvalidArgument, "cpu").await;
}

#[tokio::test]
async fn work_that_no_agent_can_do_is_unknown_and_says_what_is_lacking() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("small", all_pass(1));
    let huge = v1::Job {
        cpu_milli: 1_000_000,
        ..build("huge", &[], &["make"])
    };
    let story = fixture.run(spec(vec![huge])).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    assert!(
        story.job("huge").message.contains("small"),
        "{}",
        story.job("huge").message
    );
}

#[tokio::test]
async fn watchers_resume_after_the_end_and_after_a_restart() {
    let fixture = Fixture::start().await;
    let agent = fixture.agent("a", all_pass(3));
    let run = fixture.submit(spec(vec![libtest("unit")])).await;
    let story = fixture.finish(&run).await;
    let resumed = fixture.watch(&run, 2).await;
    assert_eq!(resumed.events[..], story.events[2..]);
    drop(agent);
    let _stuck = fixture.agent("b", runner(names(1), |_| None));
    let all = v1::RunSpec {
        skip_cache_lookup: true,
        ..spec(vec![libtest("unit")])
    };
    let open = fixture.submit(all).await;
    // Its beginning and that of its job, which has a slot: until its tests are listed, no more is told.
    while fixture.watched_so_far(&open).await < 3 {
        tokio::task::yield_now().await;
    }
    // Another process on the same ledger: the open run goes on there.
    let restarted = fixture.restarted().await;
    let known = restarted.events_so_far(&run, 0).await.expect("is known");
    assert_eq!(known.len(), story.events.len());
    let later = restarted.watch(&open, 3).await.expect("is known");
    let resumed = std::pin::pin!(later).next().await.expect("an event");
    assert!(matches!(
        resumed.expect("is read").event,
        Some(Event::RunResumed(_))
    ));
    let unknown = restarted
        .events_so_far("nobody", 0)
        .await
        .expect_err("is unknown");
    assert_eq!(unknown.to_string(), "no run `nobody` is known");
}

#[tokio::test]
async fn runs_are_listed() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", all_pass(2));
    fixture.run(spec(vec![libtest("unit")])).await;
    let response = fixture
        .runs()
        .list_runs(v1::ListRunsRequest::default())
        .await;
    let runs = response.expect("lists").into_inner().runs;
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].verdict(), v1::Verdict::Releasable);
    assert_eq!(runs[0].counts.expect("are set").passed, 2);
}
