//! What a run would do, without doing it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use regatta_wire::convert::duration_from_wire;
use regatta_wire::v1;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Code;

use super::fake_agent::completed;
use super::fixture::{Fixture, PATIENCE, build, libtest, spec};
use super::{PASSED, all_pass, names, runner};
use crate::runs::registry::MAX_PLANS;

async fn plan(fixture: &Fixture, spec: v1::RunSpec) -> v1::PlanRunResponse {
    let request = v1::PlanRunRequest { spec: Some(spec) };
    let planned = fixture.runs().plan_run(request).await;
    planned.expect("is planned").into_inner()
}

fn unit() -> v1::RunSpec {
    spec(vec![libtest("unit")])
}

#[tokio::test]
async fn nothing_runs_and_everything_is_explained() {
    let fixture = Fixture::start().await;
    let executed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&executed);
    let script = runner(names(10), move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Some(completed(0, PASSED))
    });
    let _agent = fixture.agent("a", script);
    fixture.connected(&["a"]).await;
    let before = plan(&fixture, unit()).await;
    assert_eq!(executed.load(Ordering::SeqCst), 0);
    let suite = &before.jobs[0];
    assert_eq!((suite.planned, suite.cached, suite.unknown), (10, 0, 10));
    let work = duration_from_wire(suite.work.as_ref().expect("is set"));
    assert_eq!(work.expect("valid").as_millis(), 1000);
    assert!(suite.slots > 0 && suite.batches > 0, "{suite:?}");
    assert!(suite.makespan.is_some() && before.makespan == suite.makespan);
    assert!(!suite.first_batches[0].first_test.is_empty());
    let runs = v1::ListRunsRequest::default();
    let runs = fixture.runs().list_runs(runs).await.expect("lists");
    assert_eq!(runs.into_inner().runs, [], "a plan is no run");

    fixture.run(unit()).await;
    let after = plan(&fixture, unit()).await;
    assert_eq!((after.jobs[0].cached, after.jobs[0].batches), (10, 0));
    let anew = v1::RunSpec {
        skip_cache_lookup: true,
        ..unit()
    };
    let anew = plan(&fixture, anew).await;
    assert_eq!((anew.jobs[0].cached, anew.jobs[0].from_history), (0, 10));
    assert_eq!(executed.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn what_needs_a_build_is_planned_once_that_is_cached() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", all_pass(3));
    let from = v1::InputFrom {
        job: "make".to_owned(),
        ..Default::default()
    };
    let suite = v1::Job {
        inputs_from: vec![from],
        ..libtest("unit")
    };
    // Its command names no test: the runner's listing stands in for a build that passes.
    let jobs = spec(vec![suite, build("make", &[], &["make", "--list"])]);
    let before = plan(&fixture, jobs.clone()).await;
    let reason = &before.jobs[0].unplanned_reason;
    assert!(
        reason.contains("`make`, whose result is not cached"),
        "{reason}"
    );
    assert!(!before.jobs[0].would_fail);
    assert!(before.jobs[1].is_build && !before.jobs[1].is_build_cached);
    fixture.run(jobs.clone()).await;
    let after = plan(&fixture, jobs.clone()).await;
    assert!(after.jobs[1].is_build_cached);
    assert_eq!(after.jobs[0].unplanned_reason, "");
    assert_eq!(after.jobs[0].cached, 3);
    let anew = v1::RunSpec {
        skip_cache_lookup: true,
        ..jobs
    };
    let anew = plan(&fixture, anew).await;
    assert!(!anew.jobs[1].is_build_cached, "it would be made again");
    assert_eq!(anew.jobs[0].unplanned_reason, "");
    assert_eq!((anew.jobs[0].planned, anew.jobs[0].cached), (3, 0));
}

#[tokio::test]
async fn a_run_that_executes_nothing_answers_from_what_is_cached() {
    let fixture = Fixture::start().await;
    let agent = fixture.agent("a", all_pass(3));
    let cached_only = || v1::RunSpec {
        cached_only: true,
        ..unit()
    };
    let unlisted = plan(&fixture, cached_only()).await;
    let reason = &unlisted.jobs[0].unplanned_reason;
    assert!(
        reason.contains("is not cached, and this run executes nothing"),
        "{reason}"
    );
    let story = fixture.run(cached_only()).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    // The list alone is known.
    plan(&fixture, unit()).await;
    let listed = agent.leases.load(Ordering::SeqCst);
    let planned = plan(&fixture, cached_only()).await;
    assert_eq!((planned.jobs[0].planned, planned.jobs[0].cached), (3, 0));
    let story = fixture.run(cached_only()).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    assert_eq!(agent.leases.load(Ordering::SeqCst), listed);

    fixture.run(unit()).await;
    let executed = agent.leases.load(Ordering::SeqCst);
    let story = fixture.run(cached_only()).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
    assert_eq!(story.end().counts.unwrap_or_default().cached, 3);
    assert_eq!(agent.leases.load(Ordering::SeqCst), executed);
}

#[tokio::test]
async fn a_list_that_fails_would_fail_a_run() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", Arc::new(|_, _| Some(completed(3, ""))));
    let planned = plan(&fixture, unit()).await;
    let suite = &planned.jobs[0];
    assert!(suite.unplanned_reason.contains("code 3"), "{suite:?}");
    assert!(suite.would_fail);
}

#[tokio::test]
async fn only_so_many_plans_are_made_at_once() {
    let fixture = Fixture::start().await;
    let stuck = fixture.agent("stuck", Arc::new(|_, _| None));
    fixture.connected(&["stuck"]).await;
    let mut plans = JoinSet::new();
    for _ in 0..=MAX_PLANS {
        let mut runs = fixture.runs();
        let request = v1::PlanRunRequest { spec: Some(unit()) };
        plans.spawn(async move { runs.plan_run(request).await });
    }
    let next = async |plans: &mut JoinSet<_>| {
        let next = timeout(PATIENCE, plans.join_next()).await;
        let ended = next.expect("ends in time").expect("there is one more");
        ended.expect("does not panic")
    };
    // The others wait for a list that nobody gives them.
    let refused: Result<_, tonic::Status> = next(&mut plans).await;
    let refused = refused.expect_err("is one too many");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(plans.len(), MAX_PLANS);
    let _able = fixture.agent("able", all_pass(3));
    drop(stuck);
    while !plans.is_empty() {
        let planned = next(&mut plans).await.expect("is planned").into_inner();
        assert_eq!(planned.jobs[0].planned, 3, "{planned:?}");
    }
    assert_eq!(
        plan(&fixture, unit()).await.jobs[0].planned,
        3,
        "there is room again"
    );
}

#[tokio::test]
async fn a_run_that_would_be_refused_is_refused() {
    let fixture = Fixture::start().await;
    let request = v1::PlanRunRequest {
        spec: Some(spec(Vec::new())),
    };
    let refused = fixture.runs().plan_run(request).await;
    assert_eq!(
        refused.expect_err("has no job").code(),
        Code::InvalidArgument
    );
    let nothing = v1::PlanRunRequest::default();
    let refused = fixture.runs().plan_run(nothing).await;
    let refused = refused.expect_err("asks for nothing");
    assert_eq!(refused.code(), Code::InvalidArgument);
}
