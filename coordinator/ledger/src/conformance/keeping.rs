//! What a ledger must do with each reason for which an old run stays, and with what is none.

use super::forgetting::{given, record};
use super::{at, run_id, tenant};
use crate::{Forgetting, ForgottenSubject, Ledger, OldRunsQuery};

/// Whose runs these are; the other's have the same commits.
const OWNER: &str = "keeping";
const OTHER: &str = "keeping-too";
/// Before when the runs ended that are to go.
const LATE: u64 = 1000;
/// Since when a verdict keeps its runs that was given last at 50 seconds, and since when it does not.
const KEPT: u64 = 50;
const UNKEPT: u64 = 51;

/// No run of the tenants is known.
pub(super) async fn check(ledger: &dyn Ledger) {
    prepare(ledger).await;
    old_runs_say_whether_they_may_go(ledger).await;
    what_has_a_reason_stays(ledger).await;
    what_is_no_reason_keeps_nothing(ledger).await;
    what_is_gone_counts_no_more(ledger).await;
}

async fn prepare(ledger: &dyn Ledger) {
    let runs = [
        (OWNER, "h-kept", "", Some(1)),
        // One of each commit that goes with the one that ended last.
        (OWNER, "h-v0", "v", Some(5)),
        (OWNER, "h-w0", "w", Some(5)),
        (OWNER, "h-x0", "x", Some(5)),
        (OWNER, "h-zulu0", "u", Some(5)),
        (OWNER, "h-s1", "s", Some(11)),
        (OWNER, "h-s2", "s", Some(12)),
        (OWNER, "h-v", "v", Some(12)),
        (OTHER, "i-equal", "v", Some(12)),
        (OWNER, "h-w", "w", Some(13)),
        (OTHER, "i-later", "w", Some(5000)),
        (OWNER, "h-zulu", "u", Some(13)),
        (OWNER, "h-alone", "", Some(20)),
        (OWNER, "h-twin", "", Some(20)),
        (OWNER, "h-idle", "", None),
        (OWNER, "h-named", "", Some(25)),
        (OWNER, "h-x", "x", Some(200)),
        (OTHER, "i-open", "x", None),
    ];
    for run in runs {
        record(ledger, run, 1).await;
    }
    let verdicts = [
        (OWNER, "one", 50, ["h-named", "h-s1", "h-s2"]),
        (OWNER, "two", 9000, ["h-kept"; 3]),
        // The same bundle as one of the owner's.
        (OTHER, "one", 9000, ["i-later"; 3]),
    ];
    for (owner, bundle, second, [run, others @ ..]) in verdicts {
        let given = given(owner, bundle, run, second);
        let kept = ledger.keep_verdict(given, Vec::new(), others.map(run_id).to_vec());
        kept.await.expect("is taken");
    }
}

/// The owner's that may go.
async fn may_go(ledger: &dyn Ledger, ended_before: u64, verdicts_since: u64) -> Vec<String> {
    let query = OldRunsQuery {
        ended_before: at(ended_before),
        verdicts_since: at(verdicts_since),
        after: None,
        limit: 100,
    };
    let found = ledger.find_old_runs(query).await.expect("finds");
    let ids = found.iter().filter(|old| old.may_go);
    let ids = ids.map(|old| old.place.run.to_string());
    ids.filter(|id| id.starts_with("h-")).collect()
}

async fn forget(ledger: &dyn Ledger, id: &str, ended_before: u64, verdicts_since: u64) {
    let step = Forgetting::Run {
        run: run_id(id),
        ended_before: at(ended_before),
        verdicts_since: at(verdicts_since),
        now: at(2000),
    };
    ledger.forget(step).await.expect("is done");
}

async fn is_forgotten(ledger: &dyn Ledger, id: &str) -> bool {
    let subject = ForgottenSubject::Run(run_id(id));
    ledger.is_forgotten(subject).await.expect("is asked")
}

async fn half_gone(ledger: &dyn Ledger) -> Vec<String> {
    let found = ledger.find_half_gone(100).await.expect("finds");
    found.iter().map(ToString::to_string).collect()
}

async fn delete_events(ledger: &dyn Ledger, id: &str) {
    let run = run_id(id);
    let step = Forgetting::Events { run, limit: 10 };
    ledger.forget(step).await.expect("is done");
}

async fn is_commit_forgotten(ledger: &dyn Ledger, commit: &str) -> bool {
    let subject = ForgottenSubject::Commit(tenant(OWNER), commit.to_owned());
    ledger.is_forgotten(subject).await.expect("is asked")
}

/// Deletes the events of every run that is half gone.
async fn finish_forgetting(ledger: &dyn Ledger) {
    let mut left = half_gone(ledger).await;
    while !left.is_empty() {
        delete_events(ledger, &left.remove(0)).await;
        assert_eq!(half_gone(ledger).await, left);
    }
}

async fn old_runs_say_whether_they_may_go(ledger: &dyn Ledger) {
    let all = [
        "h-s2", "h-v", "h-w", "h-zulu", "h-alone", "h-twin", "h-named", "h-x",
    ];
    assert_eq!(may_go(ledger, LATE, UNKEPT).await, all);
    let unnamed = ["h-v", "h-w", "h-zulu", "h-alone", "h-twin", "h-x"];
    assert_eq!(may_go(ledger, LATE, KEPT).await, unnamed);
    assert_eq!(may_go(ledger, 13, UNKEPT).await, ["h-s2", "h-v"]);
}

async fn what_has_a_reason_stays(ledger: &dyn Ledger) {
    let unfit = [
        ("h-named", LATE, KEPT, "a verdict names it"),
        ("h-s2", LATE, KEPT, "a verdict names another of its commit"),
        ("h-kept", LATE, UNKEPT, "a later verdict names it"),
        ("h-idle", LATE, UNKEPT, "it goes on"),
        ("h-alone", 20, UNKEPT, "it has not ended before"),
        ("h-w", 13, UNKEPT, "nor has one of a commit"),
    ];
    for (id, ended_before, verdicts_since, why) in unfit {
        forget(ledger, id, ended_before, verdicts_since).await;
        assert!(!is_forgotten(ledger, id).await, "{id}: {why}");
    }
}

async fn what_is_no_reason_keeps_nothing(ledger: &dyn Ledger) {
    assert!(!is_commit_forgotten(ledger, "w").await);
    let fit = [
        (
            "h-alone",
            "others without a commit are no others of its own",
        ),
        ("h-twin", "nor is one that was named"),
        (
            "h-named",
            "the verdict is too old, and another's, or of another bundle, is not its own",
        ),
        ("h-v", "another tenant's ended at the same time"),
        ("h-w", "another tenant's ended later, and is named"),
        ("h-zulu", "one of another commit ended at the same time"),
        ("h-s2", "the verdict is too old"),
        ("h-x", "another tenant's goes on"),
    ];
    for (id, why) in fit {
        forget(ledger, id, LATE, UNKEPT).await;
        assert!(is_forgotten(ledger, id).await, "{id}: {why}");
    }
    for id in ["h-v0", "h-w0", "h-zulu0", "h-s1", "h-x0"] {
        assert!(is_forgotten(ledger, id).await, "{id} goes with another");
    }
    for id in ["h-kept", "h-idle", "i-equal", "i-later", "i-open"] {
        assert!(!is_forgotten(ledger, id).await, "{id} is of another commit");
    }
    assert!(is_commit_forgotten(ledger, "w").await);
    assert!(!is_commit_forgotten(ledger, "another").await);
    finish_forgetting(ledger).await;
    delete_events(ledger, "h-kept").await;
    let events = ledger.read_events(&run_id("h-kept"), 0, 10).await;
    assert_eq!(events.map(|it| it.len()), Ok(1), "they are not forgotten");
}

async fn what_is_gone_counts_no_more(ledger: &dyn Ledger) {
    // As late as one that is gone, whose id is greater; earlier than one, and of a commit of which one was named; and
    // others that go with these.
    let again = [
        ("h-a0", "w", 3),
        ("h-again", "w", 13),
        ("h-r0", "s", 3),
        ("h-s0", "s", 11),
    ];
    for (id, commit, second) in again {
        record(ledger, (OWNER, id, commit, Some(second)), 1).await;
    }
    assert_eq!(may_go(ledger, LATE, KEPT).await, ["h-s0", "h-again"]);
    // Those that are gone take no others with them.
    for gone in ["h-w", "h-s2", "h-alone"] {
        forget(ledger, gone, LATE, UNKEPT).await;
        assert_eq!(half_gone(ledger).await, [""; 0], "{gone}");
    }
    for [with, id] in [["h-r0", "h-s0"], ["h-a0", "h-again"]] {
        forget(ledger, id, LATE, KEPT).await;
        assert_eq!(half_gone(ledger).await, [with, id], "and none before");
        finish_forgetting(ledger).await;
    }
}
