//! What has failed is tried again in another place, whichever coordinator asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use prost::Message as _;
use regatta_ledger::{Ledger, MemoryLedger, RunRecord, StoredEvent};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::fake_agent::{FakeAgent, Script, completed, first_report};
use super::fixture::{Fixture, spec};
use super::resumption::{retried, stored};
use super::{FAILED, PASSED, runner};

/// For each thing that an agent was asked to do, the slots that it was to avoid, each time.
type Asked = Arc<Mutex<BTreeMap<String, Vec<Option<u32>>>>>;

/// What an agent does that fails these things once.
fn script(failing: &[&str], asked: &Asked) -> Script {
    let left: BTreeSet<String> = failing.iter().map(|&what| what.to_owned()).collect();
    let left = Arc::new(Mutex::new(left));
    let is_good = move |what: &str| !left.lock().expect("nobody panicked").remove(what);
    let is_good = Arc::new(is_good);
    let of_test = Arc::clone(&is_good);
    let tests = ["flaky", "good"].map(str::to_owned);
    let unit = runner(tests, move |test| {
        Some(match of_test(test) {
            true => completed(0, PASSED),
            false => completed(101, FAILED),
        })
    });
    let asked = Arc::clone(asked);
    Arc::new(move |spec, execution| {
        let program = &spec.command.as_ref().expect("is set").arguments[0];
        let what = execution.extra_arguments.last().unwrap_or(program);
        let mut asked = asked.lock().expect("nobody panicked");
        let times = asked.entry(what.clone()).or_default();
        times.push(spec.avoid_slot);
        match program.as_str() {
            "make" => Some(completed(if is_good("make") { 0 } else { 2 }, "")),
            _ => unit(spec, execution),
        }
    })
}

/// An agent with two slots, the first of which does everything.
fn agent(fixture: &Fixture, script: Script) -> FakeAgent {
    let mut report = first_report("a");
    report.offer.as_mut().expect("is set").slots = 2;
    FakeAgent::start(fixture.channel.clone(), report, script)
}

fn asked_for(asked: &Asked, what: &str) -> Vec<Option<u32>> {
    asked.lock().expect("nobody panicked")[what].clone()
}

/// The ledger of a coordinator that is gone, with these events of a run.
async fn left_behind(record: &RunRecord, events: &[StoredEvent]) -> Arc<dyn Ledger> {
    let ledger = Arc::new(MemoryLedger::new());
    ledger.reserve_tokens(1_000).await.expect("reserves");
    ledger.start_run(record.new.clone()).await.expect("starts");
    let appended = ledger.append_events(&record.new.run, events.to_vec(), None);
    appended.await.expect("appends");
    ledger
}

fn is_retry_of(event: &StoredEvent, what: &str) -> bool {
    let event = v1::RunEvent::decode(event.bytes.clone()).expect("is an event");
    match event.event {
        Some(Event::BuildRetried(it)) => it.attempt.expect("is set").job == what,
        Some(Event::TestRetried(it)) => it.result.expect("is set").test_id == what,
        _ => false,
    }
}

#[tokio::test]
async fn a_restart_forgets_no_place_where_something_failed() {
    let whole = Fixture::start().await;
    let asked = Asked::default();
    let _agent = agent(&whole, script(&["make", "flaky"], &asked));
    let run = whole.submit(spec(retried().to_vec())).await;
    whole.finish(&run).await;
    for what in ["make", "flaky"] {
        assert_eq!(asked_for(&asked, what), [None, Some(0)], "{what}");
    }
    let (record, events) = stored(&whole).await;
    for what in ["make", "flaky"] {
        let retried = events.iter().position(|event| is_retry_of(event, what));
        let so_far = &events[..=retried.expect("is tried again")];
        let successor = whole.successor(left_behind(&record, so_far).await).await;
        let asked = Asked::default();
        // It comes back when the run goes on already.
        let _agent = agent(&successor, script(&[], &asked));
        let story = successor.finish(&run).await;
        let end = story.end();
        assert_eq!(end.verdict(), v1::Verdict::Releasable, "{:?}", end.reasons);
        assert_eq!(asked_for(&asked, what), [Some(0)], "{what}");
    }
}
