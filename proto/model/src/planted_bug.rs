//! Bugs that are there on purpose.

/// A bug that the fault simulation plants, to show that it finds it: each is a decision, in the code that the
/// fleet runs on, which is then taken wrongly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// The scheduler takes an answer from a lease that has expired.
    FenceDropped,
    /// Effects are carried out before the tokens that they need are durable.
    CommitSkipped,
    /// A unit that a machine lost does not wait again.
    LostUnitForgotten,
    /// An agent may be silent for ever.
    SilenceIgnored,
    /// What a lease occupied stays occupied.
    CapacityKept,
    /// A lease that nobody wants any more is not stopped at its agent.
    StopForgotten,
    /// An agent forgets which leases it has lost, and begins them again if it is asked to.
    LossForgotten,
    /// Watchers see events that are not durable.
    SeenBeforeDurable,
    /// What a run told before a restart is not taken into account after it.
    HistoryForgotten,
    /// Runs of an earlier process are not taken up.
    RunsForgotten,
    /// An action result is served though blobs that it names are gone.
    CompletenessSkipped,
    /// A blob that was there once is taken to be there for ever.
    PresenceKept,
    /// What a store returns is not verified.
    VerificationSkipped,
    /// A failed test is cached as if it had passed.
    FailureCached,
    /// What runs need that go on is not used again, and goes like anything else.
    PinsForgotten,
    /// Whoever is told that a blob is there has not used it.
    UseUncounted,
    /// Blobs go before the results that name them.
    ResultsKept,
    /// What was used before a restart counts as unused.
    UsesForgotten,
    /// What was promised just before a coordinator was killed may go as soon as it is back.
    LastPromisesForgotten,
    /// A coordinator goes on deleting when another may have its place.
    TermOutlived,
    /// Whoever writes what is being deleted does not wait until it is gone.
    DeletionNotAwaited,
    /// A small blob is said to be stored before its pack is.
    AnsweredBeforePacked,
    /// Packs that are put together are deleted with all that is in them.
    LivePacksDeleted,
    /// A blob is made of chunks that nobody has looked for.
    ChunksUnchecked,
    /// The whole of a blob is forgotten before the list of its chunks is stored.
    WholeForgottenFirst,
    /// A blob is said to be there because the list of its chunks is.
    ListTakenForBlob,
    /// Whoever has lost the ledger writes to it all the same.
    LedgerFenceSkipped,
    /// A coordinator that stood still says what is stored before its ledger has said whose that is.
    DoubtIgnored,
}

impl PlantedBug {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::FenceDropped,
        Self::CommitSkipped,
        Self::LostUnitForgotten,
        Self::SilenceIgnored,
        Self::CapacityKept,
        Self::StopForgotten,
        Self::LossForgotten,
        Self::SeenBeforeDurable,
        Self::HistoryForgotten,
        Self::RunsForgotten,
        Self::CompletenessSkipped,
        Self::PresenceKept,
        Self::VerificationSkipped,
        Self::FailureCached,
        Self::PinsForgotten,
        Self::UseUncounted,
        Self::ResultsKept,
        Self::UsesForgotten,
        Self::LastPromisesForgotten,
        Self::TermOutlived,
        Self::DeletionNotAwaited,
        Self::AnsweredBeforePacked,
        Self::LivePacksDeleted,
        Self::ChunksUnchecked,
        Self::WholeForgottenFirst,
        Self::ListTakenForBlob,
        Self::LedgerFenceSkipped,
        Self::DoubtIgnored,
    ];

    /// Whether it is planted in this process. Without the feature `planted-bugs` none ever is, and asking costs
    /// nothing.
    #[cfg(not(feature = "planted-bugs"))]
    #[must_use]
    #[inline]
    pub const fn is_planted(self) -> bool {
        false
    }

    /// Whether it is planted in this process.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn is_planted(self) -> bool {
        PLANTED.get() == Some(&self)
    }

    /// Plants it in this process, for good; false if another one is there.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(self) -> bool {
        PLANTED.set(self).is_ok()
    }
}

#[cfg(feature = "planted-bugs")]
static PLANTED: std::sync::OnceLock<PlantedBug> = std::sync::OnceLock::new();
