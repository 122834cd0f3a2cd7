//! Persistent workers that are started ahead, in free slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regatta_wire::v1;

use super::contract::{any_runner, junit};
use super::fake_agent::{FakeAgent, Script, completed};
use super::fixture::{Fixture, Story, contract, spec, until};

/// One agent does the work, and the others have a free slot each.
const AGENTS: [&str; 3] = ["a", "b", "c"];

fn suite() -> v1::RunSpec {
    let mut job = contract("acceptance");
    if let Some(v1::job::Kind::Suite(suite)) = &mut job.kind {
        suite.worker_arguments = vec!["./worker".to_owned()];
        // Nobody wants the outputs of copies.
        suite.byproducts_path = "cache".to_owned();
    }
    spec(vec![job])
}

/// Lists tests as `listed` says, if it does. Where that is only done to start a worker, it never ends, unless this agent
/// has done it before.
fn script(fixture: &Fixture, listed: Option<i32>, exit_code: i32) -> Script {
    let run = any_runner(fixture, "", move |ids| {
        let report = junit(ids.iter().map(String::as_str));
        (completed(exit_code, ""), Some(report))
    });
    let has_listed = AtomicBool::new(false);
    Arc::new(move |spec, execution| {
        let command = spec.command.as_ref().expect("is set");
        if command.arguments != ["./list"] {
            return run(spec, execution);
        }
        assert!(spec.worker.is_some());
        let is_copy = command.output_paths.is_empty();
        if is_copy && !has_listed.load(Ordering::SeqCst) {
            return None;
        }
        has_listed.store(true, Ordering::SeqCst);
        listed.map(|code| completed(code, "x\ny\n"))
    })
}

fn leases(agents: &[FakeAgent]) -> usize {
    let leases = agents.iter();
    leases
        .map(|agent| agent.leases.load(Ordering::SeqCst))
        .sum()
}

/// Waits until nothing is leased any more.
async fn released(fixture: &Fixture) {
    until(|| fixture.dispatcher.snapshot().leased_units == 0).await;
}

/// Runs the suite on agents that all understand workers, or do not; and how often they were asked for what is no lease
/// of the run.
async fn run(do_understand: bool, listed: i32, exit_code: i32) -> (Story, usize) {
    let fixture = Fixture::start().await;
    let agents = AGENTS.map(|name| {
        let script = script(&fixture, Some(listed), exit_code);
        match do_understand {
            true => fixture.agent_with_workers(name, script),
            false => fixture.agent(name, script),
        }
    });
    fixture.connected(&AGENTS).await;
    let story = fixture.run(suite()).await;
    released(&fixture).await;
    let counted = usize::try_from(story.end().leases).expect("few");
    (story, leases(&agents) - counted)
}

#[tokio::test]
async fn what_is_only_done_to_start_a_worker_ends_with_its_suite() {
    for (listed, exit_code, verdict) in [
        (0, 0, v1::Verdict::Releasable),
        (0, 9, v1::Verdict::NotReleasable),
        (1, 0, v1::Verdict::NotReleasable),
    ] {
        let (story, _) = run(true, listed, exit_code).await;
        assert_eq!(story.end().verdict(), verdict, "{:?}", story.end().reasons);
    }
}

#[tokio::test]
async fn agents_of_an_earlier_release_are_not_asked_for_what_they_would_do_in_vain() {
    let (story, copies) = run(false, 0, 0).await;
    assert_eq!((story.counts().passed, copies), (2, 0));
}

#[tokio::test]
async fn what_is_only_done_to_start_a_worker_ends_with_a_run_that_is_cancelled() {
    let fixture = Fixture::start().await;
    let agent = |name| fixture.agent_with_workers(name, script(&fixture, None, 0));
    let agents = AGENTS.map(agent);
    fixture.connected(&AGENTS).await;
    let run = fixture.submit(suite()).await;
    until(|| leases(&agents) > 1).await;
    let request = v1::CancelRunRequest {
        run_id: run.clone(),
    };
    fixture.runs().cancel_run(request).await.expect("is known");
    fixture.finish(&run).await;
    released(&fixture).await;
}
