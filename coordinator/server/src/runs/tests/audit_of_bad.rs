//! Cached passes of runs that are not good are executed again, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use prost::Message as _;
use regatta_ledger::{Ledger, MemoryLedger, StoredEvent};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::audit::{BROKEN, GOOD, agreed, audited, evidence, in_place_of_hits, undeclared};
use super::fake_agent::{Script, completed, lost};
use super::fixture::{Fixture, Story, build, libtest, spec};
use super::resumption::stored;

/// The four tests of `undeclared`, and programs that fail, succeed, or that machines fail at.
fn script(how: &Arc<AtomicU32>) -> Script {
    let unit = undeclared(Arc::clone(how));
    Arc::new(move |spec, execution| {
        let arguments = &spec.command.as_ref().expect("is set").arguments;
        match arguments[0].as_str() {
            "fail" => Some(completed(1, "")),
            "succeed" => Some(completed(0, "")),
            "lose" => Some(lost()),
            _ => unit(spec, execution),
        }
    })
}

/// A suite that is audited, and a program that runs once that has passed.
fn with(program: &str) -> v1::RunSpec {
    let last = build("last", &["unit"], &[program]);
    let jobs = audited(0).jobs.into_iter().chain([last]);
    v1::RunSpec {
        jobs: jobs.collect(),
        ..audited(0)
    }
}

fn reasons(story: &Story) -> Vec<&str> {
    story.end().reasons.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn a_run_that_fails_otherwise_audits_and_says_all_that_is_wrong() {
    let fixture = Fixture::start().await;
    let how = Arc::new(AtomicU32::new(GOOD));
    let _agent = fixture.agent("a", script(&how));
    fixture.run(audited(0)).await;

    let story = fixture.run(with("fail")).await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    assert_eq!((story.counts().cached, agreed(&story)), (4, 4));
    let own = reasons(&story);
    assert!(
        own.len() == 1 && own[0].contains("`last` failed"),
        "{own:?}"
    );

    how.store(BROKEN, Ordering::SeqCst);
    let story = fixture.run(with("fail")).await;
    assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
    let wrong = "the cached pass of `test_0001` of `unit` does not hold";
    assert_eq!(reasons(&story), [own[0], wrong]);
    assert_eq!((story.counts().cached, story.counts().failed), (3, 1));
    let evidence = evidence(&story);
    assert_eq!((evidence.audited_hits, evidence.counts().failed), (3, 1));

    let story = fixture.run(spec(vec![libtest("unit")])).await;
    assert_eq!(story.counts().failed, 1, "it is forgotten");
}

#[tokio::test]
async fn a_run_that_is_to_end_or_that_machines_fail_audits_nothing() {
    let fixture = Fixture::start().await;
    let how = Arc::new(AtomicU32::new(GOOD));
    let _agent = fixture.agent("a", script(&how));
    fixture.run(audited(0)).await;
    how.store(BROKEN, Ordering::SeqCst);
    let fast = v1::RunSpec {
        max_failures: 1,
        ..with("fail")
    };
    let expected = [
        (fast, v1::Verdict::NotReleasable),
        (with("lose"), v1::Verdict::Unknown),
    ];
    for (spec, verdict) in expected {
        let story = fixture.run(spec).await;
        assert_eq!(story.end().verdict(), verdict, "{:?}", reasons(&story));
        assert_eq!((story.counts().cached, story.counts().failed), (4, 0));
        assert_eq!(agreed(&story) as usize + in_place_of_hits(&story).len(), 0);
    }
}

fn decoded(event: &StoredEvent) -> v1::RunEvent {
    v1::RunEvent::decode(event.bytes.clone()).expect("is an event")
}

/// A run finds a wrong pass, and its coordinator is gone; it is cancelled before another takes it up.
#[tokio::test]
async fn what_an_audit_has_found_stays_found_though_the_run_is_cancelled() {
    for program in ["fail", "succeed"] {
        let whole = Fixture::start().await;
        let how = Arc::new(AtomicU32::new(GOOD));
        let _agent = whole.agent("a", script(&how));
        whole.run(audited(0)).await;
        how.store(BROKEN, Ordering::SeqCst);
        let run = whole.submit(with(program)).await;
        let expected = whole.finish(&run).await;
        let (record, events) = stored(&whole).await;
        assert_eq!(record.new.run.to_string(), run, "the last is found first");
        let found = events.iter().position(|event| match decoded(event).event {
            Some(Event::TestsFinished(told)) => told.results.iter().any(|it| it.is_audit),
            _ => false,
        });
        let mut events = events[..=found.expect("is told")].to_vec();
        let sequence = events.last().expect("some").sequence + 1;
        let cancelled = v1::RunEvent {
            sequence,
            time: decoded(&events[0]).time,
            event: Some(Event::CancelRequested(v1::CancelRequested::default())),
        };
        events.push(StoredEvent {
            sequence,
            bytes: cancelled.encode_to_vec().into(),
            teaches: None,
        });
        let ledger = Arc::new(MemoryLedger::new());
        ledger.start_run(record.new.clone()).await.expect("starts");
        let appended = ledger.append_events(&record.new.run, events, None).await;
        appended.expect("appends");
        let story = whole.successor(ledger).await.finish(&run).await;
        assert_eq!(story.end().verdict(), v1::Verdict::NotReleasable);
        assert_eq!(story.counts(), expected.counts(), "{program}");
        assert_eq!(evidence(&story).counts().failed, 1, "{program}");
    }
}
