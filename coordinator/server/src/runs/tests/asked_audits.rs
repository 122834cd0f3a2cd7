//! Cached passes that whoever submitted the run wants executed again.

use std::sync::{Arc, Mutex};

use regatta_wire::v1;

use super::Script;
use super::audit::agreed;
use super::contract::contract_runner;
use super::fixture::{Fixture, contract, spec};

/// A runner in which `y` passes only after `x`, in one process; and the batches that it ran.
fn after_another(fixture: &Fixture) -> (Script, Arc<Mutex<Vec<Vec<String>>>>) {
    let batches = Arc::new(Mutex::new(Vec::new()));
    let ran = Arc::clone(&batches);
    let script = contract_runner(fixture, "x\ny\n", move |ids| {
        ran.lock().expect("is whole").push(ids.to_vec());
        let is_after = ids.iter().any(|id| id == "x");
        let case = |id: &String| match id == "y" && !is_after {
            true => format!("<testcase name=\"{id}\"><failure message=\"no x\"/></testcase>"),
            false => format!("<testcase name=\"{id}\" time=\"0.01\"/>"),
        };
        let cases: String = ids.iter().map(case).collect();
        format!("<testsuites>{cases}</testsuites>")
    });
    (script, batches)
}

#[tokio::test]
async fn a_pass_that_only_holds_after_another_test_does_not_hold() {
    let fixture = Fixture::start().await;
    let (script, batches) = after_another(&fixture);
    let _agent = fixture.agent("a", script);
    let all = || v1::RunSpec {
        audit_percent: Some(100.0),
        ..spec(vec![contract("acceptance")])
    };
    assert_eq!(fixture.run(all()).await.counts().passed, 2);
    let together = std::mem::take(&mut *batches.lock().expect("is whole"));
    assert_eq!(together, [["x", "y"]], "or nothing is shown");
    let story = fixture.run(all()).await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    assert_eq!((story.counts().cached, story.counts().failed), (1, 1));
    assert_eq!(agreed(&story), 1);
    let mut alone = batches.lock().expect("is whole").clone();
    alone.sort();
    assert_eq!(alone, [["x"], ["y"]]);
}
