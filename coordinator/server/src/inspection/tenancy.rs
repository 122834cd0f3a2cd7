//! Sees that no coordinator works on a storage while it is repaired.

use regatta_cas::Deletions;
use regatta_ledger::{CoordinatorIdentity, Inheritance, PostgresAddress, PostgresLedger};

use super::{InspectError, StoreLocation, url};
use crate::config::WITHOUT_PACKS;
use crate::ledger::{self, LedgerOpeningError, OpenedLedger, deletions_in, keeps_its_own};
use crate::opened_storage::{follow_term, has_had_terms};

/// Nobody else works on the storage, as far as that can be known.
#[derive(Debug)]
pub(super) struct Tenancy {
    ledger: Option<OpenedLedger>,
}

impl Tenancy {
    /// Whoever only looks needs none.
    pub(super) const fn none() -> Self {
        Self { ledger: None }
    }

    /// Takes the ledger that coordinators share, if they do. The state directory, which must be taken, tells whether
    /// its coordinator has one of its own: then that is all there is to take.
    pub(super) async fn take(location: &StoreLocation) -> Result<Self, InspectError> {
        let state = &location.state_directory;
        let unreadable = |source| InspectError::File {
            path: state.clone(),
            source,
        };
        let Some(address) = &location.ledger else {
            let is_own = location.storage.is_none();
            if is_own || keeps_its_own(state) && !has_had_terms(state) {
                return Ok(Self::none());
            }
            return Err(InspectError::LedgerNotNamed);
        };
        check_storage(address, &url(location)?).await?;
        // Nobody is passed on to it, and whoever stands by waits.
        let whose = CoordinatorIdentity::default();
        let heir = (&whose, Inheritance::OfTheSame);
        let ledger = ledger::open(Some(address), state, heir).await?;
        if let Some(term) = ledger.term {
            // The log of uses, which is told what is removed, is as good as it was.
            follow_term(state, term).map_err(unreadable)?;
        }
        Ok(Self {
            ledger: Some(ledger),
        })
    }

    /// Deletions, as long as nobody else can have the ledger.
    pub(super) fn deletions(&self) -> Deletions {
        let tenure = self.ledger.as_ref().and_then(|it| it.tenure.as_ref());
        deletions_in(tenure)
    }
}

/// Sees that a ledger is that of the coordinators of a storage. Having another one keeps none of them away, and costs
/// those who have it what they know of uses.
async fn check_storage(ledger: &PostgresAddress, storage: &str) -> Result<(), InspectError> {
    let theirs = PostgresLedger::last_storage(ledger).await;
    let Some(theirs) = theirs.map_err(LedgerOpeningError::from)? else {
        return Ok(());
    };
    let theirs = theirs.strip_suffix(WITHOUT_PACKS).unwrap_or(&theirs);
    if theirs.trim_end_matches('/') == storage.trim_end_matches('/') {
        return Ok(());
    }
    Err(InspectError::OtherLedger {
        theirs: theirs.to_owned(),
        ours: storage.to_owned(),
    })
}
