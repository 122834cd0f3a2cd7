//! Runs whose ledger takes nothing.

use std::sync::Arc;

use tokio::time::{Instant, timeout};

use super::fixture::{Fixture, libtest, spec};
use super::full_ledger::FullLedger;
use crate::ledger::LEDGER_PATIENCE;

#[tokio::test]
async fn a_ledger_is_waited_for_and_not_for_ever() {
    let ledger = Arc::new(FullLedger::default());
    ledger.make_room();
    let fixture = Fixture::with_ledger(Arc::clone(&ledger) as _).await;
    let registry = fixture.restarted().await;
    let submitted = registry.submit(None, spec(vec![libtest("unit")])).await;
    let (run, _) = submitted.expect("is accepted");
    ledger.fill();
    tokio::time::pause();
    // It is written down in vain.
    let cancelled = registry.cancel(run.as_str()).await;
    assert!(cancelled.is_err(), "{cancelled:?}");
    let begun = Instant::now();
    let why = timeout(2 * LEDGER_PATIENCE, registry.unstored()).await;
    let why = why.expect("it is not waited for ever").to_string();
    assert!(why.contains("disk is full"), "{why}");
    assert!(
        begun.elapsed() >= LEDGER_PATIENCE / 2,
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(registry.active(), 1, "the run waits yet");
}
