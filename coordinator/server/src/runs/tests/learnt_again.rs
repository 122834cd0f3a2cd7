//! What the ledger learns of tests, and what is learnt anew from the events of runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::TryStreamExt as _;
use regatta_wire::v1;
use regatta_wire::v1::history_of_runs::Piece;
use regatta_wire::v1::suites_server::Suites as _;
use tonic::Request;

use super::audit::{BROKEN, GOOD, agreed, audited, undeclared};
use super::fixture::{Fixture, spec};
use crate::suites::SuitesService;

/// What the ledger knows, and what the runs of a branch show.
async fn known_and_shown(
    fixture: &Fixture,
    branch: &str,
) -> (Vec<v1::TestHistory>, Vec<v1::TestHistory>) {
    let suites = SuitesService::new(Arc::clone(&fixture.ledger), None);
    let request = Request::new(v1::GetHistoryRequest::default());
    let known = suites.get_history(request).await.expect("is known");
    let known: Vec<_> = known.into_inner().try_collect().await.expect("goes on");
    let request = Request::new(v1::GetHistoryOfRunsRequest {
        branch: Some(branch.to_owned()),
        ..Default::default()
    });
    let shown = suites.get_history_of_runs(request).await;
    let shown = shown.expect("is known").into_inner();
    let pieces: Vec<_> = shown.try_collect().await.expect("goes on");
    let mut tests = Vec::new();
    for piece in pieces {
        match piece.piece.expect("is set") {
            Piece::LookedAt(looked_at) => assert!(looked_at.damage.is_empty(), "{looked_at:?}"),
            Piece::Test(test) => tests.push(test),
        }
    }
    (known, tests)
}

fn suite(job: &mut v1::Job) -> &mut v1::Suite {
    match &mut job.kind {
        Some(v1::job::Kind::Suite(suite)) => suite,
        other => panic!("{other:?} is no suite"),
    }
}

#[tokio::test]
async fn runs_show_what_the_ledger_has_learnt_from_them() {
    let fixture = Fixture::start().await;
    let how = Arc::new(AtomicU32::new(GOOD));
    let _agent = fixture.agent("a", undeclared(Arc::clone(&how)));
    let on_main = |spec: v1::RunSpec| v1::RunSpec {
        branch: "main".to_owned(),
        ..spec
    };
    fixture.run(on_main(audited(0))).await;
    // All of them are cached, and executed again.
    let again = fixture.run(on_main(audited(0))).await;
    assert_eq!((again.counts().cached, agreed(&again)), (4, 4));
    let (known, shown) = known_and_shown(&fixture, "main").await;
    assert_eq!(shown, known);
    assert_eq!(known.iter().map(|it| it.runs).collect::<Vec<_>>(), [2; 4]);
    // One does not hold.
    how.store(BROKEN, Ordering::SeqCst);
    let broken = fixture.run(on_main(audited(1))).await;
    assert_eq!((broken.counts().failed, agreed(&broken)), (1, 3));
    // It is in quarantine, and then runs many times.
    let mut job = audited(0).jobs.remove(0);
    suite(&mut job).quarantine = vec![v1::QuarantinedTest {
        test_id: "test_0001".to_owned(),
        owner: "jane@example.org".to_owned(),
        expires: Some(prost_types::Timestamp {
            seconds: 1 << 33,
            nanos: 0,
        }),
        reason: String::new(),
    }];
    let quarantined = fixture.run(on_main(spec(vec![job.clone()]))).await;
    assert_eq!(quarantined.counts().quarantined, 1);
    suite(&mut job).quarantine.clear();
    suite(&mut job).repetition = Some(v1::Repetition {
        test_id: "test_0001".to_owned(),
        times: 5,
    });
    fixture.run(on_main(spec(vec![job]))).await;
    let (known, shown) = known_and_shown(&fixture, "main").await;
    assert_eq!(shown, known);
    assert_eq!(
        known.iter().map(|it| it.runs).collect::<Vec<_>>(),
        [3, 4, 3, 3]
    );
    assert_eq!((known[1].failures, known[0].failures), (2, 0));
    assert!(known.iter().all(|it| it.last_key.is_some()), "{known:?}");
    let (_, elsewhere) = known_and_shown(&fixture, "other").await;
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}
