//! What a ledger must do with runs that go.

use bytes::Bytes;
use regatta_model::{Digest, RunId, Verdict};

use super::{at, end, event, ids, lesson, new_run, run_id, tenant};
use crate::{
    Forgetting, ForgottenSubject, GivenVerdict, Ledger, NamedArtefact, NewRun, OldRun,
    OldRunsQuery, RunEnd, RunQuery, StoredEvent, VerdictQuery,
};

/// Whose runs these are.
const OWNER: &str = "forgetful";

/// No run of the tenant is known.
pub(super) async fn check(ledger: &dyn Ledger) {
    prepare(ledger).await;
    old_runs_are_told_in_portions(ledger).await;
    what_has_a_reason_to_stay_stays(ledger).await;
    a_run_goes_at_once_and_its_events_in_portions(ledger).await;
    runs_of_a_commit_go_together(ledger).await;
    a_verdict_keeps_its_runs_as_long_as_it_is_kept(ledger).await;
    no_verdict_is_kept_of_runs_that_are_gone(ledger).await;
}

/// Begins a run, and ends it with this many events if it is to end.
pub(super) async fn record(
    ledger: &dyn Ledger,
    (owner, id, commit, ended): (&str, &str, &str, Option<u64>),
    events: u64,
) {
    begin(ledger, owner, id, commit).await;
    if let Some(second) = ended {
        finish(ledger, id, second, events).await;
    }
}

pub(super) async fn begin(ledger: &dyn Ledger, owner: &str, id: &str, commit: &str) {
    let run = NewRun {
        commit: commit.to_owned(),
        ..new_run(id, owner, 2)
    };
    ledger.start_run(run).await.expect("starts");
}

/// Ends a run with this many events.
pub(super) async fn finish(ledger: &dyn Ledger, id: &str, second: u64, events: u64) {
    let events = (1..=events).map(|sequence| StoredEvent {
        bytes: Bytes::from(sequence.to_string()),
        ..event(sequence, "")
    });
    let ended = Some(RunEnd {
        finished_at: at(second),
        ..end(Verdict::Releasable)
    });
    let run = run_id(id);
    let appended = ledger.append_events(&run, events.collect(), ended);
    appended.await.expect("ends");
}

async fn prepare(ledger: &dyn Ledger) {
    let runs = [
        ("f-old", "x", Some(10)),
        ("f-new", "x", Some(200)),
        ("f-same", "x", Some(200)),
        ("f-alone", "", Some(20)),
        ("f-other", "", Some(300)),
        ("f-done", "y", Some(15)),
        ("f-open", "y", None),
        ("f-sibling", "z", Some(11)),
        ("f-named", "z", Some(12)),
        ("f-cached", "w", Some(13)),
    ];
    for (id, commit, ended) in runs {
        record(ledger, (OWNER, id, commit, ended), 5).await;
    }
    // Of a run that another has its results from, too.
    keep(ledger, given(OWNER, "the first", "f-sibling", 50)).await;
}

pub(super) fn given(owner: &str, bundle: &str, run: &str, second: u64) -> GivenVerdict {
    GivenVerdict {
        tenant: tenant(owner),
        bundle: Digest::of(bundle.as_bytes()),
        commit: "z".to_owned(),
        run: run_id(run),
        verdict: Verdict::Releasable,
        policy: None,
        public_key: String::new(),
        first_given_at: at(40),
        last_given_at: at(second),
    }
}

/// With results that a run had found.
async fn keep(ledger: &dyn Ledger, given: GivenVerdict) {
    let artefact = NamedArtefact {
        name: "make/app".to_owned(),
        digest: Digest::of(b"app"),
        is_tree: false,
    };
    let kept = ledger.keep_verdict(given, vec![artefact], vec![run_id("f-cached")]);
    kept.await.expect("is taken");
}

/// Those of this tenant, a few at a time.
async fn old_runs(ledger: &dyn Ledger, ended_before: u64, verdicts_since: u64) -> Vec<OldRun> {
    let mut query = OldRunsQuery {
        ended_before: at(ended_before),
        verdicts_since: at(verdicts_since),
        after: None,
        limit: 2,
    };
    let mut all = Vec::new();
    loop {
        let found = ledger.find_old_runs(query.clone()).await.expect("finds");
        assert!(found.len() <= query.limit);
        let Some(last) = found.last() else { break };
        query.after = Some(last.place.clone());
        all.extend(found);
    }
    all.retain(|old| old.place.run.as_str().starts_with("f-"));
    all
}

/// Those that may go.
async fn may_go(ledger: &dyn Ledger, ended_before: u64, verdicts_since: u64) -> Vec<String> {
    let old = old_runs(ledger, ended_before, verdicts_since).await;
    let may_go = old.iter().filter(|old| old.may_go);
    may_go.map(|old| old.place.run.to_string()).collect()
}

async fn known(ledger: &dyn Ledger) -> Vec<String> {
    let query = RunQuery {
        tenant: Some(tenant(OWNER)),
        limit: 100,
        ..RunQuery::default()
    };
    let mut known = ids(ledger, query).await;
    known.sort();
    known
}

async fn forget(ledger: &dyn Ledger, id: &str, ended_before: u64, verdicts_since: u64) {
    let step = Forgetting::Run {
        run: run_id(id),
        ended_before: at(ended_before),
        verdicts_since: at(verdicts_since),
        now: at(1000),
    };
    ledger.forget(step).await.expect("is done");
}

async fn delete_events(ledger: &dyn Ledger, run: &RunId, limit: usize) {
    let step = Forgetting::Events {
        run: run.clone(),
        limit,
    };
    ledger.forget(step).await.expect("is done");
}

async fn delete_names(ledger: &dyn Ledger, forgotten_before: u64) {
    let step = Forgetting::Names {
        forgotten_before: at(forgotten_before),
        limit: 100,
    };
    ledger.forget(step).await.expect("is done");
}

async fn is_forgotten(ledger: &dyn Ledger, id: &str) -> bool {
    let subject = ForgottenSubject::Run(run_id(id));
    ledger.is_forgotten(subject).await.expect("is asked")
}

async fn is_commit_forgotten(ledger: &dyn Ledger, owner: &str, commit: &str) -> bool {
    let subject = ForgottenSubject::Commit(tenant(owner), commit.to_owned());
    ledger.is_forgotten(subject).await.expect("is asked")
}

async fn old_runs_are_told_in_portions(ledger: &dyn Ledger) {
    let old = old_runs(ledger, 100, 50).await;
    let order: Vec<_> = old.iter().map(|old| old.place.run.as_str()).collect();
    let expected = [
        "f-old",
        "f-sibling",
        "f-named",
        "f-cached",
        "f-done",
        "f-alone",
    ];
    assert_eq!(order, expected);
    assert_eq!(may_go(ledger, 100, 50).await, ["f-alone"]);
    // The last one goes first, and takes the others with it.
    let all = ["f-named", "f-cached", "f-alone", "f-same", "f-other"];
    assert_eq!(may_go(ledger, 1000, 51).await, all);
}

async fn what_has_a_reason_to_stay_stays(ledger: &dyn Ledger) {
    let before = known(ledger).await;
    let unfit = [
        ("f-old", 1000, 51, "others of its commit ended later"),
        ("f-new", 1000, 51, "another ended at the same time"),
        ("f-open", 1000, 51, "it goes on"),
        ("f-done", 1000, 51, "another goes on"),
        ("f-other", 300, 51, "it has not ended before"),
        ("f-sibling", 1000, 50, "a verdict names it"),
        ("f-named", 1000, 50, "a verdict names another"),
        ("f-cached", 1000, 50, "a verdict names it, too"),
        ("f-nobody", 1000, 51, "it never was"),
    ];
    for (id, ended_before, verdicts_since, why) in unfit {
        forget(ledger, id, ended_before, verdicts_since).await;
        assert_eq!(known(ledger).await, before, "{id}: {why}");
        delete_events(ledger, &run_id(id), 100).await;
    }
    let events = ledger.read_events(&run_id("f-old"), 0, 10).await;
    assert_eq!(
        events.map(|it| it.len()),
        Ok(5),
        "those of forgotten runs go"
    );
    assert_eq!(ledger.find_half_gone(10).await, Ok(Vec::new()));
    delete_names(ledger, 5000).await;
    assert_eq!(known(ledger).await, before);
}

/// Nothing may be told of a run, nor taken, whatever of it is there yet.
async fn nothing_is_told(ledger: &dyn Ledger, run: &RunId) {
    assert!(!known(ledger).await.contains(&run.to_string()));
    begin(ledger, OWNER, run.as_str(), "").await;
    assert!(!known(ledger).await.contains(&run.to_string()));
    let appended = ledger.append_events(run, vec![event(9, "late"), lesson(10, "late")], None);
    appended.await.expect("is left out");
    let events = ledger.read_events(run, 0, 10).await;
    assert_eq!(events, Ok(Vec::new()));
    assert!(is_forgotten(ledger, run.as_str()).await);
}

async fn a_run_goes_at_once_and_its_events_in_portions(ledger: &dyn Ledger) {
    let run = run_id("f-alone");
    assert!(!is_forgotten(ledger, "f-alone").await);
    forget(ledger, "f-alone", 100, 50).await;
    for left in [5_usize, 3, 1] {
        nothing_is_told(ledger, &run).await;
        let half_gone = ledger.find_half_gone(10).await;
        assert_eq!(half_gone, Ok(vec![run.clone()]), "{left} events are left");
        // Its name stays until they are gone.
        delete_names(ledger, 5000).await;
        delete_events(ledger, &run, 2).await;
    }
    assert_eq!(ledger.find_half_gone(10).await, Ok(Vec::new()));
    nothing_is_told(ledger, &run).await;
    // Nothing of it is done twice.
    forget(ledger, "f-alone", 5000, 51).await;
    delete_events(ledger, &run, 2).await;
    assert_eq!(ledger.find_half_gone(10).await, Ok(Vec::new()));
    delete_names(ledger, 1000).await;
    nothing_is_told(ledger, &run).await;
    delete_names(ledger, 1001).await;
    assert!(!is_forgotten(ledger, "f-alone").await);
    assert_eq!(ledger.read_events(&run, 0, 10).await, Ok(Vec::new()));
    let history = ledger
        .read_history(&tenant("a"), Some("taught"))
        .await
        .expect("reads");
    assert!(history.iter().all(|known| known.test != "late"));
    assert!(!history.is_empty(), "what was learnt stays");
}

async fn runs_of_a_commit_go_together(ledger: &dyn Ledger) {
    assert!(!is_commit_forgotten(ledger, OWNER, "x").await);
    forget(ledger, "f-same", 1000, 50).await;
    let left = known(ledger).await;
    for id in ["f-old", "f-new", "f-same"] {
        assert!(!left.contains(&id.to_owned()), "{id}");
        assert!(is_forgotten(ledger, id).await, "{id}");
    }
    assert!(left.contains(&"f-other".to_owned()), "it has no commit");
    assert!(is_commit_forgotten(ledger, OWNER, "x").await);
    assert!(!is_commit_forgotten(ledger, "another", "x").await);
    let first = run_id("f-new");
    assert_eq!(ledger.find_half_gone(1).await, Ok(vec![first]));
    // What is done later with the commit is another matter.
    begin(ledger, OWNER, "f-again", "x").await;
    forget(ledger, "f-same", 1000, 50).await;
    assert!(known(ledger).await.contains(&"f-again".to_owned()));
    finish(ledger, "f-again", 9, 1).await;
    assert_eq!(may_go(ledger, 100, 50).await, ["f-again"]);
}

async fn a_verdict_keeps_its_runs_as_long_as_it_is_kept(ledger: &dyn Ledger) {
    forget(ledger, "f-named", 1000, 51).await;
    forget(ledger, "f-cached", 1000, 51).await;
    let left = known(ledger).await;
    for id in ["f-named", "f-sibling", "f-cached"] {
        assert!(!left.contains(&id.to_owned()), "{id}");
    }
    assert_eq!(left, ["f-again", "f-done", "f-open", "f-other"]);
}

async fn no_verdict_is_kept_of_runs_that_are_gone(ledger: &dyn Ledger) {
    let kept = async || {
        let query = VerdictQuery {
            tenant: Some(tenant(OWNER)),
            limit: 10,
            ..VerdictQuery::default()
        };
        let kept = ledger.find_verdicts(query).await.expect("finds");
        let kept = kept.into_iter();
        kept.map(|it| (it.bundle, it.last_given_at))
            .collect::<Vec<_>>()
    };
    let before = [(Digest::of(b"the first"), at(50))];
    assert_eq!(kept().await, before);
    let blobs = ledger.read_kept_blobs(at(0), 100).await;
    // Neither as another, nor again.
    keep(ledger, given(OWNER, "the second", "f-sibling", 60)).await;
    keep(ledger, given(OWNER, "the first", "f-sibling", 70)).await;
    assert_eq!(kept().await, before);
    assert_eq!(ledger.read_kept_blobs(at(0), 100).await, blobs);
    assert_eq!(may_go(ledger, 100, 60).await, ["f-again"]);
    // Where cached results come from, nobody reads any more.
    keep(ledger, given(OWNER, "the second", "f-again", 80)).await;
    let second = (Digest::of(b"the second"), at(80));
    assert_eq!(kept().await, [second, before[0]]);
    assert_eq!(may_go(ledger, 100, 80).await, [""; 0]);
}
