//! Passes that become skips.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use regatta_wire::v1;

use super::audit::evidence;
use super::contract::contract_runner;
use super::fake_agent::FakeAgent;
use super::fixture::{Fixture, Story, contract, spec};

const PASS: u32 = 0;
const SKIP: u32 = 1;

/// A coordinator whose only agent runs a suite: some tests that pass, and `y`, `z`, which behave as they are told.
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
                    SKIP => "<skipped message=\"no screen\"/>",
                    _ => "",
                };
                format!("<testcase name=\"{id}\" time=\"0.01\">{inside}</testcase>")
            };
            let cases: String = ids.iter().map(case).collect();
            format!("<testsuites>{cases}</testsuites>")
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
        self.how.store(how, Ordering::SeqCst);
        let run = v1::RunSpec {
            audit_percent,
            ..spec(vec![contract("acceptance")])
        };
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
