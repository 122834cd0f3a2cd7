//! Cached passes that whoever submitted the run wants executed again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use prost::Message as _;
use regatta_ledger::{Ledger, MemoryLedger};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::Script;
use super::audit::{BROKEN, GOOD, agreed, audited, evidence, undeclared};
use super::contract::contract_runner;
use super::fixture::{Fixture, Story, contract, spec};
use super::resumption::stored;

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

/// What is durable of the last run when nothing is that comes after what `is_last` tells of.
async fn up_to(
    fixture: &Fixture,
    run: &str,
    is_last: impl Fn(&Event) -> bool,
) -> Arc<MemoryLedger> {
    let (record, events) = stored(fixture).await;
    assert_eq!(record.new.run.as_str(), run, "the last is found first");
    let last = events.iter().position(|event| {
        let event = v1::RunEvent::decode(event.bytes.clone()).expect("is an event");
        event.event.is_some_and(|event| is_last(&event))
    });
    let events = events[..=last.expect("is told")].to_vec();
    let ledger = Arc::new(MemoryLedger::new());
    ledger.start_run(record.new.clone()).await.expect("starts");
    let appended = ledger.append_events(&record.new.run, events, None).await;
    appended.expect("appends");
    ledger
}

/// A run of four cached tests by this specification, whose coordinator is gone once what `is_last` tells of is
/// durable; how it ends then. The second test has been broken meanwhile.
async fn cut_off(run: v1::RunSpec, is_last: impl Fn(&Event) -> bool) -> Story {
    let whole = Fixture::start().await;
    let how = Arc::new(AtomicU32::new(GOOD));
    let agent = whole.agent("a", undeclared(Arc::clone(&how)));
    whole.run(audited(0)).await;
    let id = whole.submit(run).await;
    whole.finish(&id).await;
    drop(agent);
    let ledger = up_to(&whole, &id, is_last).await;
    how.store(BROKEN, Ordering::SeqCst);
    let heir = whole.heir(ledger).await;
    let _agent = heir.agent("a", undeclared(how));
    heir.finish(&id).await
}

const fn ends_job(event: &Event) -> bool {
    matches!(event, Event::JobFinished(_))
}

#[tokio::test]
async fn an_audit_that_was_asked_for_and_is_lost_leaves_the_run_unknown() {
    let story = cut_off(audited(0), ends_job).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Unknown);
    let reasons = &story.end().reasons;
    assert!(
        reasons[0].contains("`unit`") && reasons[0].contains("run it again"),
        "{reasons:?}"
    );
    assert_eq!(story.counts().cached, 4);
    evidence(&story);
}

#[tokio::test]
async fn an_audit_that_has_ended_is_not_lost() {
    let has_agreed = |event: &Event| matches!(event, Event::HitsAudited(_));
    let story = cut_off(audited(0), has_agreed).await;
    assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
    assert_eq!(agreed(&story), 4);
}

#[tokio::test]
async fn a_suite_that_goes_on_is_audited_all_the_same() {
    let has_told = |event: &Event| matches!(event, Event::TestsFinished(_));
    let story = cut_off(audited(0), has_told).await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    assert_eq!((agreed(&story), story.counts().failed), (3, 1));
}

#[tokio::test]
async fn an_audit_that_nobody_asked_for_may_be_lost() {
    for audit_percent in [None, Some(0.0)] {
        let run = v1::RunSpec {
            audit_percent,
            ..audited(0)
        };
        let story = cut_off(run, ends_job).await;
        assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
    }
}

/// A runner whose first test passes and whose second is skipped, as long as neither is broken.
fn passing_and_skipped(fixture: &Fixture, how: &Arc<AtomicU32>) -> Script {
    let how = Arc::clone(how);
    contract_runner(fixture, "x\ny\n", move |ids| {
        let case = |id: &String| {
            let inside = match (how.load(Ordering::SeqCst), id.as_str()) {
                (BROKEN, _) => "<failure message=\"no\"/>",
                (_, "y") => "<skipped message=\"no screen\"/>",
                (_, _) => "",
            };
            format!("<testcase name=\"{id}\" time=\"0.01\">{inside}</testcase>")
        };
        let cases: String = ids.iter().map(case).collect();
        format!("<testsuites>{cases}</testsuites>")
    })
}

/// A run whose coordinator is gone before anything is durable of how its tests ended, so that the next one finds that in
/// the cache, and is gone once what `is_last` tells of is durable: how the run ends then. Both tests have been broken
/// meanwhile.
async fn cut_off_untold(is_last: impl Fn(&Event) -> bool) -> [Story; 2] {
    let whole = Fixture::start().await;
    let how = Arc::new(AtomicU32::new(GOOD));
    let agent = whole.agent("a", passing_and_skipped(&whole, &how));
    let run = v1::RunSpec {
        audit_percent: Some(100.0),
        ..spec(vec![contract("acceptance")])
    };
    let id = whole.submit(run).await;
    whole.finish(&id).await;
    drop(agent);
    how.store(BROKEN, Ordering::SeqCst);
    let planned = |event: &Event| matches!(event, Event::SuitePlanned(_));
    let heir = whole.heir(up_to(&whole, &id, planned).await).await;
    let agent = heir.agent("a", passing_and_skipped(&heir, &how));
    let first = heir.finish(&id).await;
    drop(agent);
    let next = heir.heir(up_to(&heir, &id, is_last).await).await;
    let _agent = next.agent("a", passing_and_skipped(&next, &how));
    [first, next.finish(&id).await]
}

#[tokio::test]
async fn what_the_run_itself_has_executed_is_not_looked_into() {
    let has_told: fn(&Event) -> bool = |event| matches!(event, Event::TestsFinished(_));
    for is_last in [has_told, ends_job] {
        for story in cut_off_untold(is_last).await {
            let counts = story.counts();
            assert_eq!((counts.cached, counts.skipped), (1, 1), "{story:#?}");
            assert_eq!(story.end().verdict(), v1::Verdict::Releasable);
            assert_eq!(story.end().reasons, [""; 0]);
            let executed = |event: &Event| matches!(event, Event::HitsExecuted(_));
            assert!(!story.events.iter().any(executed), "{story:#?}");
            evidence(&story);
        }
    }
}
