//! Whoever watches a run that stands still is told why, soon after that begins.

use std::time::Duration;

use prost::Message as _;
use regatta_scheduler::SchedulerConfig;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use tokio::time::Instant;

use super::fixture::{Fixture, build, quick, spec};

/// How soon whoever watches is told.
const SOON: Duration = Duration::from_secs(10);
/// How long a run waits before anything is amiss, so that it is looked at seldom.
const LONG: Duration = Duration::from_secs(70);

/// Waits until watchers of a run have been told something; how long that took.
async fn told(fixture: &Fixture, run: &str, words: &str, mut meanwhile: impl FnMut()) -> Duration {
    let (run, begun) = (run.parse().expect("is an id"), Instant::now());
    loop {
        meanwhile();
        let events = fixture.ledger.read_events(&run, 0, usize::MAX).await;
        let events = events.expect("reads").into_iter();
        let mut messages = events.filter_map(|event| {
            let event = v1::RunEvent::decode(event.bytes).expect("is an event");
            match event.event {
                Some(Event::Warning(warning)) => Some(warning.message),
                _ => None,
            }
        });
        if messages.any(|message| message.contains(words)) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < 2 * LONG, "nobody says {words:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_run_that_has_waited_for_long_says_soon_what_is_amiss_now() {
    let fixture = Fixture::with_scheduler(SchedulerConfig {
        no_agent_grace: 10 * LONG,
        ..quick()
    })
    .await;
    let run = fixture.submit(spec(vec![build("b", &[], &["make"])])).await;
    tokio::time::pause();
    tokio::time::sleep(LONG).await;
    let wrong = || fixture.wrong_reads.note();
    let took = told(&fixture, &run, "sends other bytes", wrong).await;
    assert!(took < SOON, "{took:?}");
    tokio::time::sleep(LONG).await;
    fixture
        .dispatcher
        .hold(Some("the store is full".to_owned()));
    let took = told(&fixture, &run, "the store is full", || {}).await;
    assert!(took < SOON, "{took:?}");
}
