//! Batches that ended without a report before a restart of the coordinator.

use std::sync::{Arc, Mutex};

use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::contract::any_runner;
use super::fake_agent::completed;
use super::fixture::{Story, contract, spec};
use super::resumption::{cut, stored};
use super::suspects::{TESTS, all_well, check_alone, has, listed, run, run_by};

/// The event from which on watchers know that a batch's end is looked into.
fn warned_at(story: &Story) -> usize {
    let mut events = story.events.iter();
    let warned = events.position(|event| matches!(event, Event::Warning(_)));
    warned.expect("somebody is warned")
}

#[tokio::test]
async fn wherever_it_is_cut_an_end_that_does_not_come_again_is_not_forgotten() {
    let dies = |number, _: &[String]| (number == 0).then(|| completed(137, ""));
    let (whole, story, sizes) = run(0, dies).await;
    let (record, events) = stored(&whole).await;
    let suspects = u32::try_from(sizes[0]).expect("few");
    for count in warned_at(&story) + 1..events.len() {
        let (ledger, _) = cut(&record, &events, count).await;
        let successor = whole.successor(ledger).await;
        let _agent = successor.agent("a", any_runner(&successor, listed(), all_well));
        let resumed = successor.finish(record.new.run.as_str()).await;
        let verdict = resumed.end().verdict();
        assert_eq!(verdict, v1::Verdict::NotReleasable, "after {count} events");
        let message = &resumed.job("acceptance").message;
        let said = message.matches("none of which failed when they ran again");
        assert_eq!(said.count(), 1, "after {count} events: {message}");
        // Nor is it by the next run.
        let again = successor.run(spec(vec![contract("acceptance")])).await;
        let (executed, cached) = (again.counts().passed, again.counts().cached);
        assert_eq!(executed + cached, TESTS);
        assert!(executed >= suspects, "after {count} events: {executed}");
        // Whoever has the passes of such a run does not take them for answers.
        let (ledger, _) = cut(&record, &events, count).await;
        let heir = successor.heir(ledger).await;
        let _agent = heir.agent("a", any_runner(&heir, listed(), all_well));
        let inherited = heir.finish(record.new.run.as_str()).await;
        let verdict = inherited.end().verdict();
        assert_eq!(verdict, v1::Verdict::NotReleasable, "after {count} events");
    }
}

#[tokio::test]
async fn wherever_it_is_cut_the_test_that_kills_its_runner_fails_alone() {
    for retries in [0, 1] {
        let answer = |ids: &[String]| match has("t42")(ids) {
            true => (completed(137, ""), None),
            false => all_well(ids),
        };
        let (whole, story, _) = run_by(retries, move |_, ids| answer(ids)).await;
        let (record, events) = stored(&whole).await;
        for count in warned_at(&story)..events.len() {
            let (ledger, _) = cut(&record, &events, count).await;
            let successor = whole.successor(ledger).await;
            let _agent = successor.agent("a", any_runner(&successor, listed(), answer));
            let resumed = successor.finish(record.new.run.as_str()).await;
            check_alone(&resumed, retries, "exited with code 137; it wrote no JUnit");
        }
    }
}

#[tokio::test]
async fn tests_that_ran_again_before_a_restart_run_with_no_others_after_it() {
    let dies = |number, _: &[String]| (number == 0).then(|| completed(137, ""));
    let (whole, story, _) = run(0, dies).await;
    let suspects = story.events.iter().find_map(|event| match event {
        Event::BatchUnexplained(batch) => Some(&batch.test_ids),
        _ => None,
    });
    let suspects = suspects.expect("are told");
    let (record, events) = stored(&whole).await;
    let (ledger, _) = cut(&record, &events, warned_at(&story) + 1).await;
    let successor = whole.successor(ledger).await;
    let batches = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&batches);
    let run = move |ids: &[String]| {
        seen.lock().expect("is whole").push(ids.to_vec());
        all_well(ids)
    };
    let _agent = successor.agent("a", any_runner(&successor, listed(), run));
    successor.finish(record.new.run.as_str()).await;
    let batches = batches.lock().expect("is whole").clone();
    assert_eq!(batches.iter().flatten().count(), TESTS as usize);
    for batch in batches {
        let of_them = batch.iter().filter(|id| suspects.contains(id)).count();
        assert!(of_them == 0 || of_them == batch.len(), "{batch:?}");
    }
}
