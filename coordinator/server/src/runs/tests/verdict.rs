//! Verdicts of runs, as clients get them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::TryStreamExt as _;
use regatta_verdict::{PublicKey, Verified, verify_bundle};
use regatta_wire::v1;
use regatta_wire::v1::get_verdict_request::Subject;
use tonic::{Code, Status};

use super::fixture::{Fixture, libtest, spec};
use super::{FAILED, PASSED, RAN_NOTHING, all_pass, completed, names, runner};

const COMMIT: &str = "0123456789012345678901234567890123456789";

fn of_commit(jobs: Vec<v1::Job>) -> v1::RunSpec {
    v1::RunSpec {
        commit: COMMIT.to_owned(),
        ..spec(jobs)
    }
}

/// What the coordinator says, its signature and its statements verified.
async fn verdict(fixture: &Fixture, subject: Subject) -> Result<Verified, Status> {
    let request = v1::GetVerdictRequest {
        instance_name: String::new(),
        subject: Some(subject),
    };
    let pieces = fixture.runs().get_verdict(request).await?.into_inner();
    let pieces: Vec<_> = pieces.try_collect().await?;
    let bundle: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece.data.to_vec())
        .collect();
    let mut runs = fixture.runs();
    let key = runs.get_verdict_key(v1::GetVerdictKeyRequest {});
    let key = key.await?.into_inner().public_key;
    let key = PublicKey::from_pem(&key).expect("is a key");
    let bundle = String::from_utf8(bundle).expect("is text");
    Ok(verify_bundle(&bundle, &key).expect("is signed"))
}

#[tokio::test]
async fn a_commit_has_the_verdict_of_a_run_with_its_files() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", all_pass(1000));
    let of = |commit: &str| verdict(&fixture, Subject::Commit(commit.to_owned()));
    let none = of(COMMIT).await.expect_err("no run yet");
    assert_eq!(none.code(), Code::NotFound);

    let run = fixture.submit(of_commit(vec![libtest("unit")])).await;
    fixture.finish(&run).await;
    let verified = of(COMMIT).await.expect("is there");
    let said = verified.verdict;
    assert_eq!((said.verdict.as_str(), &said.run), ("RELEASABLE", &run));
    assert_eq!((said.counts.planned, said.counts.passed), (1000, 1000));
    assert!(said.requested_jobs().eq(["unit"]));
    assert_eq!(said.agents, ["a"]);
    assert_eq!(verified.statements.len(), 2, "the verdict and one suite");
    let stages = &said.jobs[0];
    let times = [&stages.queued_at, &stages.started_at, &stages.finished_at];
    assert!(times.iter().all(|time| time.is_some()), "{stages:?}");
    assert!(said.runs[0].started_at.is_some(), "{:?}", said.runs);
    let passed = &verified.statements[1].predicate["passedTests"];
    assert_eq!(passed.as_array().map(Vec::len), Some(1000));

    // Changed files say nothing of the commit, and a later run of it says more.
    let dirty = v1::RunSpec {
        dirty: true,
        ..of_commit(vec![libtest("other")])
    };
    let dirty = fixture.submit(dirty).await;
    fixture.finish(&dirty).await;
    assert_eq!(of(COMMIT).await.expect("is there").verdict.run, run);
    let of_dirty = verdict(&fixture, Subject::RunId(dirty)).await;
    let of_dirty = of_dirty.expect("is there").statements;
    assert!(of_dirty[0].subject.iter().all(|it| it.name != "commit"));
    let again = fixture.submit(of_commit(vec![libtest("unit")])).await;
    fixture.finish(&again).await;
    let said = of(COMMIT).await.expect("is there").verdict;
    let [cached] = &said.cached_from[..] else {
        panic!("{said:?}")
    };
    assert_eq!((&cached.run, cached.results), (&run, 1000));
    assert_eq!(cached.agents, ["a"], "which ran them then");
    assert!(said.agents.is_empty(), "and nothing now");
    assert_eq!(said.runs[0].started_at, None, "nothing had a slot");
    assert_eq!(
        (said.run, said.counts.cached, said.leases),
        (again, 1000, 0)
    );
    assert_eq!(
        of("another").await.expect_err("no run").code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn a_failure_stands_until_all_of_its_run_was_done_again() {
    let fixture = Fixture::start().await;
    let is_mended = Arc::new(AtomicBool::new(false));
    let now_mended = Arc::clone(&is_mended);
    let script = runner(names(2), move |test| match test {
        "test_0001" if !is_mended.load(Ordering::Relaxed) => Some(completed(101, FAILED)),
        _ => Some(completed(0, PASSED)),
    });
    let _agent = fixture.agent("a", script);
    let run = async |filters: &[&str]| {
        let mut job = libtest("unit");
        if let Some(v1::job::Kind::Suite(suite)) = &mut job.kind {
            suite.filters = filters.iter().map(ToString::to_string).collect();
        }
        let run = fixture.submit(of_commit(vec![job])).await;
        fixture.finish(&run).await;
        run
    };
    let said = async || {
        let said = verdict(&fixture, Subject::Commit(COMMIT.to_owned())).await;
        let said = said.expect("is there").verdict;
        (said.verdict, said.run)
    };
    let failed = run(&[]).await;
    run(&["test_0000"]).await;
    assert_eq!(said().await, ("NOT_RELEASABLE".to_owned(), failed));

    now_mended.store(true, Ordering::Relaxed);
    let passed = run(&[]).await;
    assert_eq!(said().await, ("RELEASABLE".to_owned(), passed.clone()));
    run(&["test_0000"]).await;
    assert_eq!(said().await, ("RELEASABLE".to_owned(), passed));
}

#[tokio::test]
async fn what_fails_in_one_run_and_passes_in_the_next_is_flaky() {
    let fixture = Fixture::start().await;
    let is_mended = Arc::new(AtomicBool::new(false));
    let now_mended = Arc::clone(&is_mended);
    let script = runner(names(3), move |test| match test {
        "test_0001" if !is_mended.load(Ordering::Relaxed) => Some(completed(101, FAILED)),
        _ => Some(completed(0, PASSED)),
    });
    let _agent = fixture.agent("a", script);
    let run = async || {
        let mut spec = of_commit(vec![libtest("unit")]);
        spec.policy.get_or_insert_default().max_flaky = Some(0);
        let run = fixture.submit(spec).await;
        fixture.finish(&run).await;
        run
    };
    let said = async || {
        let said = verdict(&fixture, Subject::Commit(COMMIT.to_owned())).await;
        said.expect("is there").verdict
    };
    let failed = run().await;
    let before = said().await;
    assert_eq!((&before.run, before.flaky_tests.len()), (&failed, 0));

    now_mended.store(true, Ordering::Relaxed);
    let passed = run().await;
    let after = said().await;
    assert_eq!(
        (after.verdict.as_str(), &after.run),
        ("NOT_RELEASABLE", &passed)
    );
    let reason = "tests that are flaky: 1, and the policy allows 0 (max_flaky)";
    assert_eq!(after.reasons, [reason]);
    assert_eq!(after.flaky_tests, ["unit test_0001"]);
    let [across] = &after.flaky_across_runs[..] else {
        panic!("{after:?}")
    };
    assert_eq!(across.test, "unit test_0001");
    assert_eq!((&across.failed_in, &across.passed_in), (&failed, &passed));
    // Alone, it is as good as it was.
    let alone = verdict(&fixture, Subject::RunId(passed)).await;
    assert_eq!(alone.expect("is there").verdict.verdict, "RELEASABLE");
}

#[tokio::test]
async fn what_a_policy_requires_may_have_run_in_several_runs() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", all_pass(3));
    let run = async |jobs: &[&str], change: fn(&mut v1::RunSpec)| {
        let mut spec = of_commit(jobs.iter().map(|job| libtest(job)).collect());
        change(&mut spec);
        let run = fixture.submit(spec).await;
        fixture.finish(&run).await;
        run
    };
    let required = |spec: &mut v1::RunSpec| {
        let jobs = ["unit", "other"].map(str::to_owned).into();
        spec.policy.get_or_insert_default().required_jobs = jobs;
    };
    let said = async |subject| verdict(&fixture, subject).await.expect("is there").verdict;
    let of_commit = async || said(Subject::Commit(COMMIT.to_owned())).await;
    let unit = run(&["unit"], required).await;
    let lacks = ["job `other`, which the policy requires, has not run"];
    let half = of_commit().await;
    assert_eq!(
        (half.verdict.as_str(), &half.reasons[..]),
        ("UNKNOWN", &lacks.map(str::to_owned)[..])
    );
    // Another file's job is not the one, whatever its name is.
    run(&["other"], |spec| {
        spec.pipeline = "sub/regatta.toml".to_owned()
    })
    .await;
    assert_eq!(of_commit().await.reasons, lacks);
    // Chosen tests are not the job, and who says nothing of a policy lifts none.
    run(&["other"], |spec| spec.chosen_tests = true).await;
    let reasons = of_commit().await.reasons;
    let chosen = "job `other`, which the policy requires, has run with chosen tests only";
    assert_eq!(reasons, [chosen]);

    let other = run(&["other"], |_| {}).await;
    let whole = of_commit().await;
    assert_eq!(whole.verdict, "RELEASABLE", "{:?}", whole.reasons);
    assert_eq!((whole.run, whole.other_runs), (other.clone(), vec![unit]));
    assert_eq!((whole.counts.planned, whole.test_results.len()), (6, 2));
    // Alone, each of them says less.
    assert_eq!(said(Subject::RunId(other)).await.verdict, "RELEASABLE");
    let both = run(&["unit", "other"], required).await;
    let whole = of_commit().await;
    assert_eq!((whole.run, whole.other_runs), (both, Vec::new()));
}

#[tokio::test]
async fn a_failure_is_stated_and_a_run_that_goes_on_says_nothing() {
    let fixture = Fixture::start().await;
    let run = fixture.submit(of_commit(vec![libtest("unit")])).await;
    let early = verdict(&fixture, Subject::RunId(run.clone())).await;
    assert_eq!(early.expect_err("goes on").code(), Code::FailedPrecondition);
    let _agent = fixture.agent("a", runner(names(1), |_| Some(completed(0, RAN_NOTHING))));
    fixture.finish(&run).await;
    let verified = verdict(&fixture, Subject::RunId(run))
        .await
        .expect("is there");
    assert_eq!(verified.verdict.verdict, "NOT_RELEASABLE");
    assert!(!verified.verdict.reasons.is_empty());
    let suite = &verified.statements[1].predicate;
    assert_eq!(
        (&suite["result"], &suite["failedTests"][0]),
        (&"FAILED".into(), &"test_0000".into())
    );
    let unknown = verdict(&fixture, Subject::RunId("0".repeat(32))).await;
    assert_eq!(unknown.expect_err("no run").code(), Code::NotFound);
}
