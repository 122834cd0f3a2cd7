//! Cached skips, and passes that become skips.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use regatta_wire::v1;

use super::all_pass;
use super::audit::{agreed, evidence, in_place_of_hits};
use super::contract::contract_runner;
use super::fake_agent::{FakeAgent, Script};
use super::fixture::{Fixture, Story, contract, libtest, spec};

const PASS: u32 = 0;
const SKIP: u32 = 1;
const FAIL: u32 = 2;

/// A coordinator whose only agent runs a suite: some tests that pass, and `y`, `z`, which behave as they are told. It
/// also runs any other, whose three tests pass.
struct Suite {
    fixture: Fixture,
    how: Arc<AtomicU32>,
    _agent: FakeAgent,
}

impl Suite {
    async fn of(listed: &'static str) -> Self {
        let fixture = Fixture::start().await;
        let how = Arc::new(AtomicU32::new(PASS));
        let told = Arc::clone(&how);
        let script = contract_runner(&fixture, listed, move |ids| {
            let case = |id: &String| {
                let how = match id.as_str() {
                    "y" | "z" => told.load(Ordering::SeqCst),
                    _ => PASS,
                };
                let inside = match how {
                    PASS => "",
                    SKIP => "<skipped message=\"no screen\"/>",
                    _ => "<failure message=\"no\"/>",
                };
                format!("<testcase name=\"{id}\" time=\"0.01\">{inside}</testcase>")
            };
            let cases: String = ids.iter().map(case).collect();
            format!("<testsuites>{cases}</testsuites>")
        });
        let (other, any) = (all_pass(3), script);
        let script: Script = Arc::new(move |spec, execution| {
            let command = spec.command.as_ref().expect("is set");
            let is_other = command.arguments.first().is_some_and(|it| it == "./tests");
            let script = if is_other { &other } else { &any };
            script(spec, execution)
        });
        let agent = fixture.agent("a", script);
        Self {
            fixture,
            how,
            _agent: agent,
        }
    }

    /// Runs it while those tests behave so, looking into such a share of what is cached.
    async fn run(&self, how: u32, audit_percent: Option<f64>) -> Story {
        let run = v1::RunSpec {
            audit_percent,
            ..spec(vec![contract("acceptance")])
        };
        self.run_of(how, run).await
    }

    /// The same beside another suite, of which a release needs less.
    async fn run_beside_another(&self, how: u32, audit_percent: Option<f64>) -> Story {
        let policy = v1::Policy {
            required_jobs: vec!["acceptance".to_owned()],
            ..Default::default()
        };
        let run = v1::RunSpec {
            audit_percent,
            policy: Some(policy),
            ..spec(vec![libtest("unit"), contract("acceptance")])
        };
        self.run_of(how, run).await
    }

    async fn run_of(&self, how: u32, run: v1::RunSpec) -> Story {
        self.how.store(how, Ordering::SeqCst);
        let story = self.fixture.run(run).await;
        evidence(&story);
        story
    }
}

const ALL: Option<f64> = Some(100.0);

#[tokio::test]
async fn passes_that_have_become_skips_are_no_answer() {
    let suite = Suite::of("y\nz\n").await;
    assert_eq!(suite.run(PASS, None).await.counts().passed, 2);
    let story = suite.run(SKIP, ALL).await;
    let counts = story.counts();
    assert_eq!((counts.cached, counts.skipped), (0, 2));
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    assert_eq!(story.end().reasons, ["every test was skipped"]);
    let next = suite.run(SKIP, None).await;
    assert_eq!(next.end().verdict(), v1::Verdict::Unknown, "as before");
}

#[tokio::test]
async fn a_skip_that_holds_stays() {
    let suite = Suite::of("x\ny\n").await;
    let counts = suite.run(SKIP, None).await.counts();
    assert_eq!((counts.passed, counts.skipped), (1, 1));
    let story = suite.run(SKIP, ALL).await;
    let counts = story.counts();
    assert_eq!((counts.cached, counts.skipped), (1, 1));
    assert_eq!((agreed(&story), in_place_of_hits(&story).len()), (1, 0));
    assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
    let story = suite.run(PASS, None).await;
    assert_eq!(story.counts().skipped, 1, "it is cached still");
}

#[tokio::test]
async fn a_skip_that_does_not_hold_is_told_and_forgotten() {
    for (how, verdict) in [
        (PASS, v1::Verdict::Releasable),
        (FAIL, v1::Verdict::NotReleasable),
    ] {
        let suite = Suite::of("x\ny\n").await;
        suite.run(SKIP, None).await;
        let story = suite.run(how, ALL).await;
        assert_eq!(story.end().verdict(), verdict, "{:?}", story.end().reasons);
        let failed = u32::from(how == FAIL);
        let counts = story.counts();
        assert_eq!((counts.cached, counts.skipped), (1, 0));
        assert_eq!((counts.passed, counts.failed), (1 - failed, failed));
        let [told] = &in_place_of_hits(&story)[..] else {
            panic!("one is told anew")
        };
        assert_eq!((told.test_id.as_str(), told.replaces_skip), ("y", true));
        assert!(told.message.contains("a skip was cached"), "{told:?}");
        let reason = "the cached skip of `y` of `acceptance` does not hold";
        let is_reason = story.end().reasons.iter().any(|it| it == reason);
        assert_eq!(is_reason, how == FAIL);
        let next = suite.run(PASS, None).await.counts();
        assert_eq!((next.cached, next.passed), (1, 1));
    }
}

#[tokio::test]
async fn a_suite_of_skips_is_looked_into_and_runs_the_next_time() {
    let suite = Suite::of("y\nz\n").await;
    suite.run(SKIP, None).await;
    let still = suite.run(SKIP, ALL).await;
    assert_eq!(still.end().reasons, ["every test was skipped"]);
    let story = suite.run(PASS, ALL).await;
    // What is not RELEASABLE never becomes so by an audit.
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    let reasons = &story.end().reasons;
    assert!(
        reasons.len() == 1 && reasons[0].contains("run it again"),
        "{reasons:?}"
    );
    assert_eq!((story.counts().skipped, story.counts().passed), (0, 2));
    let next = suite.run(PASS, None).await;
    assert_eq!(next.end().verdict(), v1::Verdict::Releasable);
    assert_eq!(next.counts().passed, 2);
}

/// What keeps a run from an answer is looked into, whatever else has run.
#[tokio::test]
async fn a_required_suite_of_skips_is_looked_into_beside_others() {
    const SILENT: &str =
        "`acceptance`, which the policy requires, has no answer: every test was skipped";
    let suite = Suite::of("y\nz\n").await;
    suite.run_beside_another(SKIP, None).await;
    let still = suite.run_beside_another(SKIP, ALL).await;
    assert_eq!(still.end().reasons, [SILENT]);
    let story = suite.run_beside_another(PASS, ALL).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    let refuted = format!("{SILENT}, and cached skips do not hold: run it again");
    assert_eq!(story.end().reasons, [refuted]);
    let next = suite.run_beside_another(PASS, None).await;
    assert_eq!(next.end().verdict(), v1::Verdict::Releasable);
    let turned = suite.run_beside_another(SKIP, ALL).await;
    assert_eq!(turned.end().verdict(), v1::Verdict::Unknown);
    assert_eq!(turned.end().reasons, [SILENT]);
}
