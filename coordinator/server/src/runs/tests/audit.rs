//! Cached passes that are executed again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::contract::{contract_runner, junit};
use super::fake_agent::{Script, completed};
use super::fixture::{Fixture, Story, contract, libtest, spec};
use super::{PASSED, names, runner};

/// Four tests, of which the second does as it is told: nobody declared what it depends on.
pub(super) fn undeclared(how: Arc<AtomicU32>) -> Script {
    runner(names(4), move |id| {
        let fails = id == "test_0001"
            && match how.load(Ordering::SeqCst) {
                GOOD => false,
                FLAKY => how.swap(GOOD, Ordering::SeqCst) == FLAKY,
                _ => true,
            };
        match fails {
            true => Some(completed(101, "")),
            false => Some(completed(0, PASSED)),
        }
    })
}

pub(super) const GOOD: u32 = 0;
const FLAKY: u32 = 1;
pub(super) const BROKEN: u32 = 2;

pub(super) fn audited(retries: u32) -> v1::RunSpec {
    let job = v1::Job {
        retries,
        ..libtest("unit")
    };
    v1::RunSpec {
        audit_percent: Some(100.0),
        ..spec(vec![job])
    }
}

pub(super) fn agreed(story: &Story) -> u32 {
    let audits = story.events.iter().map(|event| match event {
        Event::HitsAudited(audited) => audited.agreed,
        _ => 0,
    });
    audits.sum()
}

pub(super) fn in_place_of_hits(story: &Story) -> Vec<v1::TestResult> {
    let results = story.events.iter().filter_map(|event| match event {
        Event::TestsFinished(finished) => Some(&finished.results),
        _ => None,
    });
    let results = results.flatten().filter(|result| result.is_audit);
    results.cloned().collect()
}

pub(super) fn evidence(story: &Story) -> regatta_verdict::Evidence {
    let mut evidence = regatta_verdict::EvidenceBuilder::default();
    for (event, seconds) in story.events.iter().zip(1..) {
        evidence.take(&v1::RunEvent {
            sequence: 1,
            time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            event: Some(event.clone()),
        });
    }
    evidence.finish().expect("does not contradict itself")
}

/// Runs an audit in which the second test ends so at first, and then never again; and cancels it there.
async fn cancelled_audit(first: Option<i32>) -> Story {
    let fixture = Fixture::start().await;
    let script = Arc::new(AtomicU32::new(0));
    let asked = Arc::new(tokio::sync::Notify::new());
    let _agent = fixture.agent("a", {
        let (script, asked) = (Arc::clone(&script), Arc::clone(&asked));
        runner(names(4), move |id| {
            if id != "test_0001" {
                return Some(completed(0, PASSED));
            }
            match (script.fetch_add(1, Ordering::SeqCst), first) {
                (0, _) => Some(completed(0, PASSED)),
                (1, Some(code)) => Some(completed(code, "")),
                (_, _) => {
                    asked.notify_one();
                    None
                }
            }
        })
    });
    fixture.run(audited(1)).await;
    let run = fixture.submit(audited(1)).await;
    asked.notified().await;
    let request = v1::CancelRunRequest {
        run_id: run.clone(),
    };
    fixture.runs().cancel_run(request).await.expect("is known");
    fixture.finish(&run).await
}

#[tokio::test]
async fn an_audit_that_is_stopped_takes_nothing_back_and_the_run_was_cancelled() {
    let story = cancelled_audit(None).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    assert!(story.end().cancelled);
    assert_eq!(story.end().reasons, ["the run was cancelled"]);
    assert_eq!(
        (story.counts().cached, in_place_of_hits(&story).len()),
        (4, 0)
    );
    assert_eq!(evidence(&story).counts().cached, 4);
}

#[tokio::test]
async fn a_failure_counts_though_its_second_try_is_stopped() {
    let story = cancelled_audit(Some(101)).await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    assert!(story.end().cancelled);
    assert_eq!((story.counts().cached, story.counts().failed), (3, 1));
    assert_eq!(evidence(&story).counts().failed, 1);
}

/// Runs an audit whose agent dies over the second test, which another one then executes with this exit code.
async fn orphaned_audit(code: i32) -> Story {
    let fixture = Fixture::start().await;
    let asked = Arc::new(tokio::sync::Notify::new());
    let (tries, asks) = (AtomicU32::new(0), Arc::clone(&asked));
    let script = runner(names(4), move |id| {
        if id == "test_0001" && tries.fetch_add(1, Ordering::SeqCst) > 0 {
            asks.notify_one();
            return None;
        }
        Some(completed(0, PASSED))
    });
    let victim = fixture.agent("victim", script);
    fixture.run(audited(0)).await;
    let run = fixture.submit(audited(0)).await;
    asked.notified().await;
    let script = runner(names(4), move |id| match (id, code) {
        ("test_0001", 1..) => Some(completed(code, "")),
        _ => Some(completed(0, PASSED)),
    });
    let _survivor = fixture.agent("survivor", script);
    drop(victim);
    fixture.finish(&run).await
}

#[tokio::test]
async fn an_audit_outlives_its_agent() {
    for (code, verdict, failed) in [
        (0, v1::Verdict::Releasable, 0),
        (101, v1::Verdict::NotReleasable, 1),
    ] {
        let story = orphaned_audit(code).await;
        assert_eq!(story.end().verdict(), verdict, "{:?}", story.end().reasons);
        let counts = story.counts();
        assert_eq!((counts.cached, counts.failed), (4 - failed, failed));
        assert_eq!(agreed(&story), 4 - failed);
        assert_eq!(in_place_of_hits(&story).len(), failed as usize);
        let is_retry = |event: &Event| matches!(event, Event::InfrastructureRetry(_));
        assert!(story.events.iter().any(is_retry), "{:?}", story.events);
        assert_eq!(evidence(&story).counts().failed, failed);
    }
}

#[tokio::test]
async fn a_runner_that_complains_again_is_believed() {
    let fixture = Fixture::start().await;
    let how = Arc::new(AtomicU32::new(GOOD));
    let report = |ids: &[String]| junit(ids.iter().map(String::as_str));
    let honest = contract_runner(&fixture, "x\ny\n", report);
    let script: Script = Arc::new({
        let how = Arc::clone(&how);
        move |spec, execution| {
            let mut outcome = honest(spec, execution)?;
            let result = outcome.result.as_mut().expect("is set");
            if !result.output_files.is_empty() && how.load(Ordering::SeqCst) == BROKEN {
                result.exit_code = 3;
            }
            Some(outcome)
        }
    });
    let _agent = fixture.agent("a", script);
    let all = || v1::RunSpec {
        audit_percent: Some(100.0),
        ..spec(vec![contract("acceptance")])
    };
    assert_eq!(fixture.run(all()).await.counts().passed, 2);
    how.store(BROKEN, Ordering::SeqCst);
    let story = fixture.run(all()).await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    let reasons = &story.end().reasons;
    assert!(
        reasons[0].contains("exited with code 3 though every test passed"),
        "{reasons:?}"
    );
    assert_eq!(agreed(&story), 0);
    evidence(&story);
    how.store(GOOD, Ordering::SeqCst);
    assert_eq!(
        fixture.run(all()).await.counts().passed,
        2,
        "they are forgotten"
    );
}

#[tokio::test]
async fn a_wrong_hit_never_passes() {
    let fixture = Fixture::start().await;
    let how = Arc::new(AtomicU32::new(GOOD));
    let _agent = fixture.agent("a", undeclared(Arc::clone(&how)));
    let first = fixture.submit(audited(0)).await;
    assert_eq!(fixture.finish(&first).await.counts().passed, 4);

    let story = fixture.run(audited(0)).await;
    assert_eq!((story.counts().cached, agreed(&story)), (4, 4));
    assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
    assert_eq!(story.end().leases, 0, "an audit is no part of the answer");
    let cached = story.tests();
    assert!(cached.values().all(|result| result.cached_from == first));

    how.store(BROKEN, Ordering::SeqCst);
    let story = fixture.run(audited(0)).await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    let reasons = &story.end().reasons;
    assert!(
        reasons[0].contains("`test_0001` of `unit` does not hold"),
        "{reasons:?}"
    );
    let counts = story.counts();
    assert_eq!((counts.planned, counts.cached, counts.failed), (4, 3, 1));
    let [wrong] = &in_place_of_hits(&story)[..] else {
        panic!("one is told anew")
    };
    assert_eq!(
        (wrong.test_id.as_str(), wrong.status()),
        ("test_0001", v1::TestStatus::Failed)
    );
    // The evidence adds up to what the run says of itself.
    let evidence = evidence(&story);
    assert_eq!((evidence.audited_hits, evidence.counts().failed), (3, 1));

    // It is forgotten: the next run does not look into anything to find it.
    let story = fixture.run(spec(vec![libtest("unit")])).await;
    assert_eq!((story.counts().cached, story.counts().failed), (3, 1));
}

#[tokio::test]
async fn a_hit_that_needs_a_second_try_is_flaky_and_forgotten() {
    let fixture = Fixture::start().await;
    let how = Arc::new(AtomicU32::new(GOOD));
    let _agent = fixture.agent("a", undeclared(Arc::clone(&how)));
    fixture.run(audited(1)).await;
    how.store(FLAKY, Ordering::SeqCst);
    let story = fixture.run(audited(1)).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
    assert_eq!((story.counts().cached, story.counts().flaky), (3, 1));
    let story = fixture.run(audited(1)).await;
    assert_eq!((story.counts().cached, story.counts().passed), (3, 1));
}

#[tokio::test]
async fn a_commit_of_which_all_is_known_needs_no_agent() {
    let fixture = Fixture::with_audits().await;
    let answers = Arc::new(AtomicBool::new(true));
    let script = runner(names(4), {
        let answers = Arc::clone(&answers);
        move |_| answers.load(Ordering::SeqCst).then(|| completed(0, PASSED))
    });
    let _agent = fixture.agent("a", script);
    fixture.run(spec(vec![libtest("unit")])).await;
    answers.store(false, Ordering::SeqCst);
    let story = fixture.run(spec(vec![libtest("unit")])).await;
    assert_eq!((story.counts().cached, agreed(&story)), (4, 0));
}

#[tokio::test]
async fn a_run_that_executes_anything_audits_by_itself() {
    let fixture = Fixture::with_audits().await;
    let _agent = fixture.agent("a", undeclared(Arc::new(AtomicU32::new(GOOD))));
    fixture.run(spec(vec![libtest("unit")])).await;
    let other = v1::Job {
        cpu_milli: 500,
        ..libtest("other")
    };
    let story = fixture.run(spec(vec![libtest("unit"), other])).await;
    assert_eq!((story.counts().cached, story.counts().passed), (4, 4));
    assert_eq!(agreed(&story), 4);
}

/// A test passes, and then behaves so when it runs though its pass is known; what a run after that counts.
async fn after_no_cache(behaviour: u32, retries: u32) -> [v1::Counts; 2] {
    let fixture = Fixture::start().await;
    let how = Arc::new(AtomicU32::new(GOOD));
    let _agent = fixture.agent("a", undeclared(Arc::clone(&how)));
    let plain = || v1::RunSpec {
        audit_percent: None,
        ..audited(retries)
    };
    fixture.run(plain()).await;
    how.store(behaviour, Ordering::SeqCst);
    let anew = v1::RunSpec {
        skip_cache_lookup: true,
        ..plain()
    };
    let anew = fixture.run(anew).await.counts();
    [anew, fixture.run(plain()).await.counts()]
}

#[tokio::test]
async fn a_failure_takes_back_the_pass_that_was_cached() {
    let [anew, next] = after_no_cache(BROKEN, 0).await;
    assert_eq!(anew.failed, 1);
    assert_eq!((next.cached, next.failed), (3, 1));
}

#[tokio::test]
async fn a_flaky_test_takes_back_the_pass_that_was_cached() {
    let [anew, next] = after_no_cache(FLAKY, 1).await;
    assert_eq!((anew.passed, anew.flaky), (3, 1));
    assert_eq!((next.cached, next.passed), (3, 1));
}
