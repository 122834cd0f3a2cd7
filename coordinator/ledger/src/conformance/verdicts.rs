//! What a ledger must do with verdicts that were given.

use regatta_model::{Digest, Verdict};

use super::{at, run_id, tenant};
use crate::{GivenVerdict, KeptBlob, Ledger, NamedArtefact, VerdictQuery};

/// Every table of verdicts is empty.
pub(super) async fn check(ledger: &dyn Ledger) {
    a_verdict_is_one_however_often_it_is_given(ledger).await;
    what_verdicts_keep_is_told_once(ledger).await;
}

fn given(owner: &str, bundle: &str, second: u64) -> GivenVerdict {
    GivenVerdict {
        tenant: tenant(owner),
        bundle: Digest::of(bundle.as_bytes()),
        commit: "c0ffee".to_owned(),
        run: run_id("r1"),
        verdict: Verdict::NotReleasable,
        policy: Some(Digest::of(b"policy")),
        public_key: "-----BEGIN PUBLIC KEY-----\n".to_owned(),
        first_given_at: at(second),
        last_given_at: at(second),
    }
}

fn named(name: &str, is_tree: bool) -> NamedArtefact {
    NamedArtefact {
        name: format!("make/{name}"),
        digest: Digest::of(name.as_bytes()),
        is_tree,
    }
}

async fn keep(ledger: &dyn Ledger, given: GivenVerdict, artefacts: &[NamedArtefact]) {
    let kept = ledger
        .keep_verdict(given, artefacts.to_vec(), Vec::new())
        .await;
    kept.expect("is kept");
}

async fn found(ledger: &dyn Ledger, query: VerdictQuery) -> Vec<GivenVerdict> {
    ledger.find_verdicts(query).await.expect("finds")
}

async fn a_verdict_is_one_however_often_it_is_given(ledger: &dyn Ledger) {
    let artefacts = [named("app", false), named("doc", true), named("app", false)];
    let first = given("a", "one", 10);
    keep(ledger, first.clone(), &artefacts).await;
    // With a clock that was set back in between.
    for second in [30, 20] {
        let again = GivenVerdict {
            run: run_id("another"),
            ..given("a", "one", second)
        };
        keep(ledger, again, &artefacts).await;
    }
    let first = GivenVerdict {
        last_given_at: at(30),
        ..first
    };
    let of_no_commit = GivenVerdict {
        commit: String::new(),
        run: run_id("r2"),
        verdict: Verdict::Releasable,
        policy: None,
        ..given("a", "two", 40)
    };
    keep(ledger, of_no_commit.clone(), &[named("lib", false)]).await;
    let of_another = given("b", "one", 50);
    keep(ledger, of_another.clone(), &[named("app", false)]).await;
    let all = VerdictQuery {
        limit: 10,
        ..VerdictQuery::default()
    };
    let everything = [of_another.clone(), of_no_commit.clone(), first.clone()];
    assert_eq!(found(ledger, all.clone()).await, everything);
    let newest = VerdictQuery {
        limit: 1,
        ..all.clone()
    };
    assert_eq!(found(ledger, newest).await, everything[..1]);
    let of_a = VerdictQuery {
        tenant: Some(tenant("a")),
        ..all.clone()
    };
    assert_eq!(found(ledger, of_a.clone()).await, everything[1..]);
    let of_commit = VerdictQuery {
        commit: Some("c0ffee".to_owned()),
        ..of_a.clone()
    };
    assert_eq!(found(ledger, of_commit).await, [first]);
    let of_run = VerdictQuery {
        run: Some(run_id("r2")),
        ..all.clone()
    };
    assert_eq!(found(ledger, of_run).await, [of_no_commit]);
    let of_bundle = VerdictQuery {
        bundle: Some(Digest::of(b"one")),
        tenant: Some(tenant("b")),
        ..all
    };
    assert_eq!(found(ledger, of_bundle).await, [of_another]);
    let of_nothing = VerdictQuery {
        bundle: Some(Digest::of(b"three")),
        ..of_a
    };
    assert!(found(ledger, of_nothing).await.is_empty());
}

/// After the verdicts of the check before.
async fn what_verdicts_keep_is_told_once(ledger: &dyn Ledger) {
    let kept = async |since: u64, limit: usize| {
        let kept = ledger.read_kept_blobs(at(since), limit).await;
        kept.expect("reads")
    };
    let blob = |owner: &str, content: &str, is_tree: bool, second: u64| KeptBlob {
        tenant: tenant(owner),
        digest: Digest::of(content.as_bytes()),
        is_tree,
        last_given_at: at(second),
    };
    let in_order = |mut blobs: Vec<KeptBlob>| {
        blobs.sort_by_key(|it| {
            let last = std::cmp::Reverse(it.last_given_at);
            (last, it.tenant.clone(), it.digest.to_string())
        });
        blobs
    };
    let of_b = vec![blob("b", "one", false, 50), blob("b", "app", false, 50)];
    let of_a = vec![
        blob("a", "two", false, 40),
        blob("a", "lib", false, 40),
        blob("a", "one", false, 30),
        blob("a", "app", false, 30),
        blob("a", "doc", true, 30),
    ];
    let all = in_order([of_b.clone(), of_a].concat());
    assert_eq!(kept(0, 100).await, all);
    assert_eq!(kept(30, 100).await, all, "what was given then, too");
    assert_eq!(kept(31, 100).await, all[..4]);
    assert_eq!(kept(0, 2).await, in_order(of_b));
    // What several name is kept for the last of them, and with its files if it is a directory to one of them.
    keep(ledger, given("a", "three", 60), &[named("doc", false)]).await;
    let expected = vec![blob("a", "three", false, 60), blob("a", "doc", true, 60)];
    assert_eq!(kept(0, 2).await, in_order(expected));
    assert_eq!(kept(61, 100).await, []);
}
