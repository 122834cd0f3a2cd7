//! A coordinator that waits for another one's place (ADR 17).
//!
//! Invariants:
//! - It opens the storage for work, and tells agents anything, only once the ledger is its own.
//! - Every connection is passed on, as it is, to the coordinator that has the ledger, until then; so clients and agents
//!   may go to any of several coordinators.

mod page;
mod passing_on;

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use regatta_ledger::{
    CoordinatorIdentity, Inheritance, OpenPostgresError, OtherIdentityError, PostgresAddress,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::passing_on::pass_on;
use crate::config::CoordinatorConfig;
use crate::coordinator::{Coordinator, Prepared};
use crate::http;
use crate::ledger::{self, LedgerOpeningError, OpenedLedger};
use crate::retention::Kind;
use crate::start_error::StartError;
use crate::status::with_sources;
use crate::stored_objects::{SmallBlobs, StoredObjects, Upkeep};

/// How long after the ledger was another's it is asked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// A coordinator that has everything but the ledger.
#[derive(Debug)]
pub struct Standby {
    prepared: Prepared,
    address: PostgresAddress,
}

/// What is known of the coordinator that has the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Active {
    /// It serves at this address: `host:port`.
    At(String),
    /// It is not known, and why.
    Unknown(String),
}

impl Active {
    /// Takes up what was found; whether that is news.
    fn learn(&mut self, found: Found) -> bool {
        let active = match found {
            Found::Active(active) => active,
            // While the database is away, whoever had it may go on for a while.
            Found::Nothing(why) => match self {
                Self::At(_) => return false,
                Self::Unknown(_) => Self::Unknown(why),
            },
        };
        if *self == active {
            return false;
        }
        match &active {
            Self::At(at) => tracing::info!(active = at, "standing by"),
            Self::Unknown(why) => tracing::warn!(why, "standing by for nobody known"),
        }
        *self = active;
        true
    }
}

/// What an attempt to take over came to.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Active(Active),
    /// The ledger could not be asked.
    Nothing(String),
}

impl Standby {
    /// Binds the addresses, and sees that what a coordinator needs is there.
    ///
    /// # Errors
    /// [`StartError`] says what to do; nothing is left behind.
    pub async fn start(config: CoordinatorConfig) -> Result<Self, StartError> {
        let (Some(address), Some(storage)) = (config.ledger.clone(), config.storage.clone()) else {
            return Err(StartError::NothingToShare);
        };
        let prepared = Prepared::new(config).await?;
        check_storage(&storage).await?;
        Ok(Self { prepared, address })
    }

    /// Where gRPC is served.
    #[must_use]
    pub const fn grpc_address(&self) -> SocketAddr {
        self.prepared.listeners.grpc.address
    }

    /// Where metrics and health are served, if anywhere.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        let http = self.prepared.listeners.http.as_ref();
        http.map(|bound| bound.address)
    }

    /// Passes connections on until the ledger is this coordinator's, which then is ready to serve; nothing if
    /// `shutdown` is cancelled before.
    ///
    /// # Errors
    /// What a coordinator has that stands by is not what the other one has, or it cannot start.
    pub async fn take_over(
        self,
        shutdown: CancellationToken,
    ) -> Result<Option<Coordinator>, StartError> {
        let listeners = self.prepared.listeners.duplicate()?;
        let unknown = Active::Unknown("it has not been looked for yet".to_owned());
        let (tell, active) = watch::channel(unknown);
        let close = CancellationToken::new();
        let closing = close.clone().drop_guard();
        let passing = pass_on(listeners.grpc.listener, active.clone(), close.clone());
        let passing = AbortOnDropHandle::new(tokio::spawn(passing));
        let page = http::serve(listeners.http, page::routes(active), close);
        let page = AbortOnDropHandle::new(tokio::spawn(page));
        let taken = tokio::select! {
            taken = self.wait(&tell) => taken?,
            () = shutdown.cancelled() => return Ok(None),
        };
        // Whoever was passed on connects again, and waits until there is somebody to answer.
        drop((closing, passing, page));
        tracing::info!("the ledger is this coordinator's; taking over");
        Coordinator::with_ledger(self.prepared, taken)
            .await
            .map(Some)
    }

    /// Waits until the ledger is this coordinator's, and tells whose it is meanwhile.
    async fn wait(&self, tell: &watch::Sender<Active>) -> Result<OpenedLedger, StartError> {
        let ours = self.prepared.identity();
        let heir = (&ours, self.prepared.config.inheritance);
        let mut is_away = false;
        loop {
            match ledger::take_over(&self.address, heir).await {
                Ok(taken) => return Ok(taken),
                Err(error) => {
                    let found = active_of(error, &ours)?;
                    let was_away = is_away;
                    is_away = match &found {
                        Found::Nothing(why) if !was_away => {
                            tracing::warn!(why, "the ledger cannot be asked; asking again");
                            true
                        }
                        Found::Nothing(_) => true,
                        Found::Active(_) => false,
                    };
                    tell.send_if_modified(|known| known.learn(found));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Which coordinator has the ledger that could not be had.
///
/// # Errors
/// Waiting does not mend it.
fn active_of(error: OpenPostgresError, ours: &CoordinatorIdentity) -> Result<Found, StartError> {
    match error {
        OpenPostgresError::Locked {
            active: Some(active),
            ..
        } => {
            check_same(&active, ours)?;
            Ok(Found::Active(match active.url.strip_prefix("http://") {
                // Itself, before it was started again.
                _ if active.url == ours.url => Active::Unknown("its session ends yet".to_owned()),
                Some(address) => Active::At(address.to_owned()),
                None => Active::Unknown("it does not say where it serves".to_owned()),
            }))
        }
        // A coordinator of an earlier release.
        OpenPostgresError::Locked { .. } => {
            Ok(Found::Active(Active::Unknown(with_sources(&error))))
        }
        OpenPostgresError::Unreachable { .. } | OpenPostgresError::Failed { .. } => {
            Ok(Found::Nothing(with_sources(&error)))
        }
        OpenPostgresError::Untrusted { .. }
        | OpenPostgresError::Refused { .. }
        | OpenPostgresError::Foreign { .. }
        | OpenPostgresError::TooNew { .. }
        | OpenPostgresError::Encoding { .. } => Err(LedgerOpeningError::from(error).into()),
    }
}

/// Sees that runs of one coordinator could go on with another.
fn check_same(active: &CoordinatorIdentity, ours: &CoordinatorIdentity) -> Result<(), StartError> {
    let checked = active.check_successor(ours);
    checked.map_err(|difference| match difference {
        OtherIdentityError::VerdictKey { theirs, ours } => {
            StartError::OtherVerdictKey { theirs, ours }
        }
        OtherIdentityError::Storage { theirs, ours } => StartError::OtherStorage { theirs, ours },
    })
}

/// Sees that a ledger gets no storage that is not there: nobody else would have it then. Whoever has had it with that
/// storage may start while that is away.
pub(crate) async fn check_heir(prepared: &Prepared) -> Result<(), StartError> {
    let Prepared { config, state, .. } = prepared;
    let Some(url) = &config.storage else {
        return Ok(());
    };
    let last = ledger::last_storage(config.ledger.as_ref(), state.path()).await?;
    let is_its_own = last.is_some_and(|last| last == prepared.identity().storage);
    match config.inheritance {
        Inheritance::OfTheSame if is_its_own => Ok(()),
        Inheritance::OfTheSame | Inheritance::OfAnyone => check_storage(url).await,
    }
}

/// Sees that the storage answers: nobody shall learn that it does not only when its coordinator is needed. It is listed,
/// for of a bucket that does not exist each object is only absent.
async fn check_storage(url: &str) -> Result<(), StartError> {
    let objects = StoredObjects::open(url, SmallBlobs::Apart, Upkeep::Elsewhere)?;
    let listed = objects.of(Kind::Asset).list().next().await;
    listed.map_or(Ok(()), |listed| {
        listed.map(drop).map_err(StartError::UnreachableStorage)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(url: &str, key: &str) -> CoordinatorIdentity {
        CoordinatorIdentity {
            url: url.to_owned(),
            verdict_key: key.to_owned(),
            storage: "file:///s".to_owned(),
        }
    }

    fn locked(active: Option<CoordinatorIdentity>) -> OpenPostgresError {
        OpenPostgresError::Locked {
            place: "p".to_owned(),
            holder: "h".to_owned(),
            active: active.map(Box::new),
        }
    }

    #[track_caller]
    fn check(error: OpenPostgresError, expected: Option<&str>) {
        let found = active_of(error, &identity("http://us:1", "key")).expect("it is waited");
        let mut active = Active::Unknown("nobody yet".to_owned());
        active.learn(found);
        let at = match active {
            Active::At(at) => Some(at),
            Active::Unknown(_) => None,
        };
        assert_eq!(at.as_deref(), expected);
    }

    #[test]
    fn connections_are_passed_on_to_whoever_has_the_ledger_and_never_to_itself() {
        check(
            locked(Some(identity("http://them:1", "key"))),
            Some("them:1"),
        );
        check(locked(Some(identity("http://them:1", ""))), Some("them:1"));
        check(locked(Some(identity("http://us:1", "key"))), None);
        check(locked(Some(identity("", "key"))), None);
        check(locked(None), None);
        let (place, detail) = ("p".to_owned(), "d".to_owned());
        check(OpenPostgresError::Unreachable { place, detail }, None);
    }

    #[test]
    fn who_had_the_ledger_is_not_forgotten_while_that_is_away() {
        let them = || Active::At("them:1".to_owned());
        let mut active = them();
        assert!(!active.learn(Found::Nothing("away".to_owned())));
        assert_eq!(active, them());
        assert!(!active.learn(Found::Active(them())));
        let others = Active::At("others:1".to_owned());
        assert!(active.learn(Found::Active(others.clone())));
        assert_eq!(active, others);
    }

    #[test]
    fn what_waiting_does_not_mend_is_refused() {
        let ours = identity("http://us:1", "key");
        let other = active_of(locked(Some(identity("http://them:1", "k2"))), &ours);
        assert!(matches!(other, Err(StartError::OtherVerdictKey { .. })));
        let mut elsewhere = identity("http://them:1", "key");
        elsewhere.storage = "file:///t".to_owned();
        let other = active_of(locked(Some(elsewhere)), &ours);
        assert!(matches!(other, Err(StartError::OtherStorage { .. })));
        let newer = OpenPostgresError::TooNew {
            place: "p".to_owned(),
            found: 9,
            known: 1,
        };
        assert!(matches!(
            active_of(newer, &ours),
            Err(StartError::Ledger(_))
        ));
    }
}
