//! The one task that writes, and its group commit.
//!
//! It writes through the session that holds the database's lock, and through no other: what is committed was
//! committed while the lock was held, and another coordinator that has taken the database over can be
//! overtaken by nothing. Requests that wait when it looks share a transaction.
//!
//! When the session is lost, another one takes the lock, unless a coordinator has had it meanwhile. Whether
//! the transaction that was being committed was, the server knows (`txid_status`): so everything is done once,
//! even what could not be repeated.

use std::future::pending;
use std::time::Duration;

use regatta_model::Backoff;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::address::PostgresAddress;
use super::failure::{CallError, unavailable};
use super::schema::{Holder, read_term, take_lock};
use super::session::{Session, number};
use super::tenure::{HEARTBEAT_INTERVAL, HEARTBEAT_LIMIT, LedgerTenure};
use super::transaction::{Failed, check_backend, write_once};
use super::write::{Lessons, Write};
use crate::LedgerError;

/// Requests that share a transaction at most.
const MAX_GROUP: usize = 256;
/// How often a group is begun whose session is lost in the middle.
const MAX_ATTEMPTS: usize = 3;
/// How long requests wait for the database to come back; later ones fail at once until it has.
pub(super) const RECONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is told that the database answers, at most.
const TELLING_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait before the first and between later attempts to connect again.
pub(super) const RECONNECT_PAUSES: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(1));

/// A write, and who waits for it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) write: Write,
    pub(super) answer: oneshot::Sender<Result<(), LedgerError>>,
}

/// Holds the database, or tries to.
#[derive(Debug)]
pub(super) struct Owner {
    address: PostgresAddress,
    term: i64,
    hold: Hold,
    told: watch::Sender<LedgerTenure>,
}

#[derive(Debug)]
enum Hold {
    Held(Holder),
    Lost(Loss),
    /// Another coordinator has had the database since: nothing that this one knows of it holds any more.
    Superseded,
}

#[derive(Debug)]
struct Loss {
    since: Instant,
    retry_at: Instant,
    backoff: Backoff,
    trouble: LedgerError,
}

impl Owner {
    /// `told` is told whether the database is still held.
    pub(super) const fn new(
        address: PostgresAddress,
        holder: Holder,
        term: i64,
        told: watch::Sender<LedgerTenure>,
    ) -> Self {
        Self {
            address,
            term,
            hold: Hold::Held(holder),
            told,
        }
    }

    /// Writes until nobody can ask for it any more.
    pub(super) async fn serve(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut group = Vec::with_capacity(MAX_GROUP);
        loop {
            tokio::select! {
                count = requests.recv_many(&mut group, MAX_GROUP) => {
                    if count == 0 {
                        return;
                    }
                    self.answer(&mut group).await;
                }
                () = self.watch() => {}
            }
        }
    }

    /// Uses the session, so that those who stand by see that somebody is there.
    async fn show_life(&mut self) {
        if let Hold::Held(holder) = &self.hold {
            let asked = Instant::now();
            match show_life(holder).await {
                Ok(()) => self.answered(asked),
                Err(error) => self.lose(error.into_ledger_error()),
            }
        }
    }

    /// Tells, now and then, that the database has answered what it was asked at a time: the server cannot have taken the
    /// session for silent before that.
    fn answered(&self, asked: Instant) {
        self.told.send_if_modified(|told| match told {
            LedgerTenure::Ours { answered } if asked - *answered < TELLING_INTERVAL => false,
            told => {
                *told = LedgerTenure::Ours { answered: asked };
                true
            }
        });
    }

    async fn answer(&mut self, group: &mut Vec<Request>) {
        let (writes, answers): (Vec<_>, Vec<_>) = group
            .drain(..)
            .map(|request| (request.write, request.answer))
            .unzip();
        let results = self.carry_out(&writes).await;
        for (answer, result) in answers.into_iter().zip(results) {
            // A caller that has gone away needs no answer.
            drop(answer.send(result));
        }
    }

    /// While nothing is to be written: sees that the session has ended, shows that it is alive, and takes a lost
    /// database again.
    async fn watch(&mut self) {
        match &mut self.hold {
            Hold::Held(holder) => {
                let ending = timeout(HEARTBEAT_INTERVAL, holder.session.ended());
                if ending.await.is_ok() {
                    self.lose(ended(&self.address));
                } else {
                    self.show_life().await;
                }
            }
            Hold::Lost(loss) => {
                sleep_until(loss.retry_at).await;
                self.retake().await;
            }
            Hold::Superseded => pending().await,
        }
    }

    /// Writes a group; each alone if the database refuses them together, so that no request fails for
    /// another's sake, nor for the sake of what it teaches.
    async fn carry_out(&mut self, writes: &[Write]) -> Vec<Result<(), LedgerError>> {
        let together = self.write_together(writes, Lessons::All).await;
        if !matches!(together, Err(CallError::Refused(_))) {
            return vec![together.map_err(CallError::into_ledger_error); writes.len()];
        }
        let mut results = Vec::with_capacity(writes.len());
        for write in writes {
            let one = std::slice::from_ref(write);
            let mut written = match writes.len() {
                1 => together.clone(),
                _ => self.write_together(one, Lessons::All).await,
            };
            let is_damage = matches!(
                written,
                Err(CallError::Refused(LedgerError::Corrupt { .. }))
            );
            if is_damage && write.teaches() {
                written = self.write_together(one, Lessons::Readable).await;
            }
            results.push(written.map_err(CallError::into_ledger_error));
        }
        results
    }

    async fn write_together(
        &mut self,
        writes: &[Write],
        lessons: Lessons,
    ) -> Result<(), CallError> {
        let mut in_doubt = None;
        let mut trouble = LedgerError::Closed;
        for _ in 0..MAX_ATTEMPTS {
            let holder = self.hold().await;
            let holder = holder.map_err(|error| CallError::Lost(doubtful(error, in_doubt)))?;
            let asked = Instant::now();
            match write_once(holder, writes, lessons, in_doubt).await {
                Ok(()) => {
                    self.answered(asked);
                    return Ok(());
                }
                Err(Failed::Refused(error)) => {
                    tracing::error!(%error, "a transaction of the ledger was lost");
                    return Err(CallError::Refused(error));
                }
                Err(Failed::Lost(error, transaction)) => {
                    in_doubt = transaction;
                    trouble = error.clone();
                    self.lose(error);
                }
            }
        }
        Err(CallError::Lost(doubtful(trouble, in_doubt)))
    }

    /// The session that holds the database, once there is one; but not for long.
    async fn hold(&mut self) -> Result<&Holder, LedgerError> {
        if matches!(&self.hold, Hold::Held(holder) if holder.session.has_ended()) {
            self.lose(ended(&self.address));
        }
        while let Hold::Lost(loss) = &self.hold {
            let patience_ends = loss.since + RECONNECT_PATIENCE;
            if loss.retry_at > patience_ends.max(Instant::now()) {
                return Err(loss.trouble.clone());
            }
            sleep_until(loss.retry_at).await;
            self.retake().await;
        }
        match &self.hold {
            Hold::Held(holder) => Ok(holder),
            Hold::Lost(loss) => Err(loss.trouble.clone()),
            Hold::Superseded => Err(LedgerError::Superseded),
        }
    }

    fn lose(&mut self, trouble: LedgerError) {
        tracing::error!(error = %trouble, "the ledger's database is lost; taking it again");
        self.told.send_if_modified(|told| match *told {
            LedgerTenure::Ours { answered } => {
                *told = LedgerTenure::Lost { answered };
                true
            }
            LedgerTenure::Lost { .. } | LedgerTenure::Superseded => false,
        });
        let now = Instant::now();
        let (first, longest) = RECONNECT_PAUSES;
        self.hold = Hold::Lost(Loss {
            since: now,
            retry_at: now,
            backoff: Backoff::new(first, longest),
            trouble,
        });
    }

    /// Tries once to take a lost database again.
    async fn retake(&mut self) {
        let Hold::Lost(loss) = &mut self.hold else {
            return;
        };
        let asked = Instant::now();
        match retake(&self.address, self.term).await {
            Ok(Some(holder)) => {
                tracing::info!(place = %self.address, "the ledger's database is held again");
                self.hold = Hold::Held(holder);
                self.answered(asked);
            }
            Ok(None) => {
                let error = LedgerError::Superseded;
                tracing::error!(place = %self.address, %error, "nothing more is written");
                self.hold = Hold::Superseded;
                self.told.send_replace(LedgerTenure::Superseded);
            }
            Err(error) => {
                loss.trouble = error;
                loss.retry_at = Instant::now() + loss.backoff.delay(super::randomness());
            }
        }
    }
}

/// `None` if another coordinator has had the database since this one took it.
async fn retake(address: &PostgresAddress, term: i64) -> Result<Option<Holder>, LedgerError> {
    let session = Session::ready(address);
    let session = session.await.map_err(CallError::into_ledger_error)?;
    let taken = take_lock(&session).await;
    let taken = taken.map_err(CallError::into_ledger_error)?;
    // Once the lock is ours, nobody begins another term.
    let found = read_term(&session).await;
    if found.map_err(CallError::into_ledger_error)? != term {
        return Ok(None);
    }
    let Some(backend) = taken else {
        let what = "another session holds the ledger's lock";
        let advice = "stop the other coordinator, if there is one";
        return Err(unavailable(address.place(), what, advice));
    };
    Ok(Some(Holder { session, backend }))
}

/// Uses the session, and sees that it is the one that has the lock.
async fn show_life(holder: &Holder) -> Result<(), CallError> {
    let ask = "SELECT pg_backend_pid()";
    let answered = holder.session.batch_within(HEARTBEAT_LIMIT, ask).await?;
    check_backend(holder, number(&answered, 0)?)
}

fn ended(address: &PostgresAddress) -> LedgerError {
    let what = "the connection has ended";
    unavailable(address.place(), what, "it is connected to again")
}

/// An error for callers who must not believe that nothing was done.
fn doubtful(error: LedgerError, in_doubt: Option<i64>) -> LedgerError {
    match error {
        LedgerError::Unavailable { detail } if in_doubt.is_some() => LedgerError::Unavailable {
            detail: format!("{detail} (what was asked for last may have been done)"),
        },
        other => other,
    }
}
