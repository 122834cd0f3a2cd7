//! Which ledger a coordinator has.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use regatta_cas::Deletions;
use regatta_ledger::{
    CoordinatorIdentity, Inheritance, Ledger, LedgerTenure, OpenLedgerError, OpenPostgresError,
    PostgresAddress, PostgresLedger, SILENCE_LIMIT, SqliteLedger,
};
use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::measuring_ledger::MeasuringLedger;

/// The ledger's file in the state directory.
const FILE: &str = "ledger.sqlite";

/// Why a coordinator's ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerOpeningError {
    /// The one in the state directory.
    #[error(transparent)]
    File(#[from] OpenLedgerError),
    /// The one in PostgreSQL.
    #[error(transparent)]
    Postgres(#[from] OpenPostgresError),
}

impl LedgerOpeningError {
    /// Whether it is the ledger of a coordinator with another storage or another key.
    #[must_use]
    pub const fn is_foreign(&self) -> bool {
        matches!(
            self,
            Self::File(OpenLedgerError::Foreign { .. })
                | Self::Postgres(OpenPostgresError::Foreign { .. })
        )
    }
}

/// A ledger, and whether it still is this coordinator's.
#[derive(Debug)]
pub(crate) struct OpenedLedger {
    pub(crate) ledger: Arc<dyn Ledger>,
    /// Nothing if nobody else can have it.
    pub(crate) tenure: Option<watch::Receiver<LedgerTenure>>,
    /// For the how manyeth time somebody has it, if others can.
    pub(crate) term: Option<i64>,
}

/// Whether a state directory has a ledger of its own, which no other coordinator can have.
pub(crate) fn keeps_its_own(state: &Path) -> bool {
    state.join(FILE).exists()
}

/// Where the last coordinator stores things that had the ledger at an address, or else the one in the state directory;
/// nothing if none said so. It takes nothing.
pub(crate) async fn last_storage(
    address: Option<&PostgresAddress>,
    state: &Path,
) -> Result<Option<String>, LedgerOpeningError> {
    Ok(match address {
        Some(address) => PostgresLedger::last_storage(address).await?,
        None => SqliteLedger::last_storage(&state.join(FILE))?,
    })
}

/// Opens the ledger at an address, or else the one in the state directory.
pub(crate) async fn open(
    address: Option<&PostgresAddress>,
    state: &Path,
    (whose, inheritance): (&CoordinatorIdentity, Inheritance),
) -> Result<OpenedLedger, LedgerOpeningError> {
    let Some(address) = address else {
        let ledger = SqliteLedger::open_for(&state.join(FILE), whose, inheritance)?;
        return Ok(OpenedLedger {
            ledger: Arc::new(MeasuringLedger::new(Arc::new(ledger))),
            tenure: None,
            term: None,
        });
    };
    let ledger = PostgresLedger::open(address.clone(), whose, inheritance).await?;
    tracing::info!(%address, "the ledger is open");
    Ok(opened(ledger))
}

/// Opens the ledger at an address for a coordinator that stands by.
///
/// # Errors
/// [`OpenPostgresError::Locked`] as long as another coordinator has it.
pub(crate) async fn take_over(
    address: &PostgresAddress,
    (whose, inheritance): (&CoordinatorIdentity, Inheritance),
) -> Result<OpenedLedger, OpenPostgresError> {
    let ledger = PostgresLedger::take_over(address.clone(), whose, inheritance).await?;
    Ok(opened(ledger))
}

fn opened(ledger: PostgresLedger) -> OpenedLedger {
    OpenedLedger {
        tenure: Some(ledger.tenure()),
        term: Some(ledger.term()),
        ledger: Arc::new(MeasuringLedger::new(Arc::new(ledger))),
    }
}

/// How long runs wait for a ledger that takes nothing. Then their coordinator ends: whoever looks after it learns of it,
/// and runs go on from what is stored once it is started again.
pub(crate) const LEDGER_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// For how long a coordinator that shares its ledger goes on without it.
pub(crate) const LOST_LEDGER_PATIENCE: Duration = Duration::from_secs(10);

/// How recently a ledger must have answered for its coordinator to let go of what is stored. Whoever stands by waits
/// longer before it takes the place of one that is silent.
pub(crate) const SURE_FOR: Duration = Duration::from_secs(5);
const _: () = assert!(SURE_FOR.as_secs() < SILENCE_LIMIT.as_secs());

/// Deletions from the storage of whoever has this ledger: nobody else may have both.
pub(crate) fn deletions_in(tenure: Option<&watch::Receiver<LedgerTenure>>) -> Deletions {
    tenure.map_or_else(Deletions::default, |tenure| {
        let tenure = tenure.clone();
        Deletions::allowed_while(move || is_ours_for(*tenure.borrow(), SURE_FOR))
    })
}

/// Whether nobody else can have the ledger yet, if nobody takes it who has not waited for `sure_for`. Whoever stands by
/// takes one that was lost sooner.
pub(crate) fn is_ours_for(tenure: LedgerTenure, sure_for: Duration) -> bool {
    matches!(tenure, LedgerTenure::Ours { .. }) && is_believed_for(tenure, sure_for)
}

/// The same where nobody stands by: one that was lost is nobody else's before that is seen to by hand.
pub(crate) fn is_believed_for(tenure: LedgerTenure, sure_for: Duration) -> bool {
    match tenure {
        LedgerTenure::Ours { answered } | LedgerTenure::Lost { answered } => {
            answered.elapsed() < sure_for
        }
        LedgerTenure::Superseded => false,
    }
}

/// Completes once another coordinator has the ledger, or once it has not answered for longer than `patience`, if there
/// is any. Why its coordinator is to end.
pub(crate) async fn until_lost(
    tenure: Option<watch::Receiver<LedgerTenure>>,
    patience: Option<Duration>,
) -> LedgerLostError {
    let Some(mut tenure) = tenure else {
        return pending().await;
    };
    loop {
        let answered = match *tenure.borrow_and_update() {
            LedgerTenure::Ours { answered } | LedgerTenure::Lost { answered } => answered,
            LedgerTenure::Superseded => return LedgerLostError::Superseded,
        };
        let patience_ends = async {
            match patience {
                Some(patience) => sleep_until(answered + patience).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = patience_ends => return LedgerLostError::TooLong,
            changed = tenure.changed() => if changed.is_err() {
                return LedgerLostError::TooLong;
            },
        }
    }
}

/// Why a coordinator ends whose ledger is no longer its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerLostError {
    /// Another coordinator has it. Start this one again with `--standby`: it waits for its turn.
    #[error(
        "another coordinator has taken the ledger over; start this one again with --standby, and it waits for its \
         turn"
    )]
    Superseded,
    /// It could not be reached for so long that another coordinator may have it. Start this one again.
    #[error(
        "the ledger was lost for so long that another coordinator may go on; start this one again, and it \
         waits for its turn"
    )]
    TooLong,
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const EVER: Duration = Duration::from_secs(1000);

    async fn ends_after(
        tenure: &watch::Sender<LedgerTenure>,
        patience: Option<Duration>,
    ) -> Option<(LedgerLostError, Duration)> {
        let began = Instant::now();
        let lost = timeout(EVER, until_lost(Some(tenure.subscribe()), patience)).await;
        lost.ok().map(|why| (why, began.elapsed()))
    }

    fn answered_now() -> LedgerTenure {
        LedgerTenure::Ours {
            answered: Instant::now(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_coordinator_ends_when_another_has_its_ledger_or_may_have_it() {
        let tenure = watch::Sender::new(answered_now());
        assert_eq!(ends_after(&tenure, None).await, None, "nobody stands by");
        let too_long = (LedgerLostError::TooLong, PATIENCE);
        let answered = Instant::now();
        tenure.send_replace(LedgerTenure::Lost { answered });
        assert_eq!(ends_after(&tenure, Some(PATIENCE)).await, Some(too_long));
        tenure.send_replace(answered_now());
        assert_eq!(ends_after(&tenure, Some(PATIENCE)).await, Some(too_long));
        tenure.send_replace(LedgerTenure::Superseded);
        for patience in [None, Some(PATIENCE)] {
            let superseded = (LedgerLostError::Superseded, Duration::ZERO);
            assert_eq!(ends_after(&tenure, patience).await, Some(superseded));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_ledger_answers_now_and_then_stays() {
        let tenure = watch::Sender::new(answered_now());
        let until = until_lost(Some(tenure.subscribe()), Some(PATIENCE));
        let answering = async {
            for _ in 0..10 {
                tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
                tenure.send_replace(answered_now());
            }
        };
        tokio::select! {
            why = until => panic!("{why}"),
            () = answering => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_let_go_once_another_may_have_the_ledger() {
        let answered = answered_now();
        assert!(is_ours_for(answered, SURE_FOR));
        tokio::time::advance(SURE_FOR).await;
        assert!(!is_ours_for(answered, SURE_FOR));
        assert!(!is_ours_for(LedgerTenure::Superseded, SURE_FOR));
        let answered = Instant::now();
        assert!(!is_ours_for(LedgerTenure::Lost { answered }, SURE_FOR));
        assert!(is_believed_for(LedgerTenure::Lost { answered }, SURE_FOR));
    }
}
