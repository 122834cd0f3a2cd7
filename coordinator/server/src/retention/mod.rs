//! What is kept of what can be made again: blobs, action results and assets, by their last use.
//!
//! Invariants:
//! - Whoever is told that something is there finds it there for [`CacheSettings::keep`]: uses are counted
//!   before the store is asked, and what was used since then does not go.
//! - What names blobs goes before them, and is used before them, so that it is never younger.
//! - A blob that is split leaves its uses to what it is kept as.
//! - What is being deleted is absent for whoever asks; whoever writes it waits until it is gone. What is
//!   being written does not go.
//! - What verdicts name is kept for long, but never takes more than a part of what its tenant, or all, may have. What
//!   that is the ledger knows, and nothing goes before it was asked.
//! - What is not known counts as used when it is found. Losing the log of uses loses nothing else.
//! - Of what was told to be there in the last seconds before a coordinator was killed the log says nothing: after a
//!   start that follows no orderly stop nothing goes for [`CacheSettings::keep`], whatever the limits say, and however
//!   often it is stopped and started meanwhile; a disk without room refuses what is new.
//! - Within a process time passes steadily, and nothing was used in the future.
//! - Uses cost no I/O: they are written together every few seconds, and a use again only if it is much later.

mod clock;
mod entry;
mod evictor;
mod index;
mod limits;
mod listing;
mod places;
mod plan;
mod probing;
mod record;
mod retaining_blob_store;
mod room;
mod room_awaiting_blob_store;
mod settings;
mod shard;
mod split_blob;
mod usage;
mod use_log;
mod verdict_pins;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regatta_cas::BlobStore;
use regatta_model::{Digest, PlantedBug, TenantId};
use tokio::sync::Notify;

pub(crate) use self::entry::{Claimant, Kind, Seconds};
pub(crate) use self::evictor::Evictor;
pub(crate) use self::places::{Place, Places};
pub(crate) use self::room_awaiting_blob_store::RoomAwaitingBlobStore;
pub use self::settings::{CacheSettings, TenantCacheLimits};
pub use self::usage::{CacheUsage, TenantUsage};
pub(crate) use self::usage::{note_coverage, note_gone, note_storage, noted_storage, usage_of};
pub(crate) use self::verdict_pins::VerdictPins;

use self::clock::{Clock, seconds, steady_clock, system_time};
use self::index::UseIndex;
use self::record::Record;
use self::retaining_blob_store::RetainingBlobStore;
use self::room::Room;
use self::use_log::{LogEnd, Recalled, UseLog};

/// The log's file in the state directory.
pub(crate) const USE_LOG: &str = "uses.log";
/// The file beside it that says that it may name what is gone.
const DOUBT: &str = "uses-in-doubt";
/// How many tenants' uses are told apart; those of others are nobody's in particular.
const MAX_TENANTS: u16 = 10_000;

/// How much the log of uses is worth that a coordinator finds at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UseLogFrom {
    /// Nobody has used the storage since.
    TheLastTerm,
    /// Another coordinator may have: what is known may be gone, what is there unknown, and all of it used.
    AnEarlierTerm,
}

/// Who used what, and what follows from it.
pub(crate) struct Retention {
    index: UseIndex,
    room: Room,
    settings: CacheSettings,
    tenants: Mutex<Tenants>,
    log: Mutex<Log>,
    clock: Clock,
    /// There was no room for something.
    wake: Notify,
    /// Everything that is stored has been listed.
    is_listed: AtomicBool,
    /// Things are being let go: what becomes of them is not known before it ends.
    is_letting_go: AtomicBool,
    /// Something was not let go, or was, though the store did not say so; until everything is listed again.
    is_in_doubt: AtomicBool,
    /// Before this moment nothing goes.
    held_until: Option<Seconds>,
    /// Nobody else has used the storage since the log was written.
    is_log_believed: bool,
    /// A file that is there as long as the log may name what is gone.
    doubt: PathBuf,
}

#[derive(Debug, Default)]
struct Tenants {
    numbers: HashMap<TenantId, Claimant>,
    /// What the log has not been told.
    news: Vec<Record>,
}

#[derive(Debug)]
struct Log {
    file: UseLog,
    /// What it says is not all that it should say.
    is_broken: bool,
}

impl Retention {
    /// Takes up the log below `state`. `directory` is where everything is stored, if that is on this machine.
    /// Says whether the log names everything that is stored.
    pub(crate) fn open(
        state: &Path,
        directory: Option<PathBuf>,
        settings: CacheSettings,
        log: UseLogFrom,
    ) -> io::Result<(Arc<Self>, bool)> {
        Self::open_at(
            state,
            directory,
            settings,
            (log, steady_clock(&system_time)),
        )
    }

    fn open_at(
        state: &Path,
        directory: Option<PathBuf>,
        settings: CacheSettings,
        (log, clock): (UseLogFrom, Clock),
    ) -> io::Result<(Arc<Self>, bool)> {
        let (mut file, recalled) = UseLog::open(&state.join(USE_LOG))?;
        // It is complete no longer: what is stored from now on may be lost with this process.
        file.append(&[Record::Opened])?;
        file.sync()?;
        let granularity = seconds(settings.granularity());
        let held_for = seconds(settings.keep).saturating_add(1);
        let doubt = state.join(DOUBT);
        if log == UseLogFrom::AnEarlierTerm {
            std::fs::write(&doubt, "")?;
        }
        let held_until = recalled.held_until(clock(), held_for);
        let retention = Self {
            index: UseIndex::new(granularity),
            room: Room::new(directory, settings.min_free_bytes),
            settings,
            tenants: Mutex::default(),
            log: Mutex::new(Log {
                file,
                is_broken: false,
            }),
            clock,
            wake: Notify::new(),
            is_listed: AtomicBool::new(false),
            is_letting_go: AtomicBool::new(false),
            is_in_doubt: AtomicBool::new(false),
            held_until,
            is_log_believed: !doubt.exists(),
            doubt,
        };
        let is_complete = recalled.end == LogEnd::Complete && log == UseLogFrom::TheLastTerm;
        retention.take_up(recalled, log);
        if log == UseLogFrom::AnEarlierTerm {
            // Before anybody believes that the log is of this term.
            let mut log = retention.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.file.replace(&retention.everything())?;
            log.is_broken = false;
        }
        Ok((Arc::new(retention), is_complete))
    }

    fn take_up(&self, recalled: Recalled, log: UseLogFrom) {
        let mut tenants = self.tenants();
        for record in recalled.tenants {
            if let Record::Tenant { claimant, tenant } = record {
                tenants.numbers.insert(tenant, claimant);
            }
        }
        let (now, mut ahead) = (self.now(), 0);
        for mut entry in recalled.entries {
            for claim in &mut entry.claims {
                ahead += u64::from(claim.used > now);
                claim.used = claim.used.min(now);
                if PlantedBug::UsesForgotten.is_planted() {
                    claim.used = 0;
                }
            }
            if log == UseLogFrom::AnEarlierTerm {
                entry.use_now(now);
            }
            self.index.restore(&entry);
        }
        if ahead > 0 {
            tracing::warn!(
                uses = ahead,
                "the log of uses is ahead of the clock, which was put back; what it says to be used later counts \
                 as used now"
            );
            // Else it would be now again after the next start.
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.is_broken = true;
        }
    }

    /// The same store, with its uses counted for a claimant: as of now, unless it is said when they were.
    pub(crate) fn retaining(
        self: &Arc<Self>,
        kind: Kind,
        store: &Arc<dyn BlobStore>,
        (claimant, used): (Claimant, Option<Seconds>),
    ) -> Arc<dyn BlobStore> {
        Arc::new(RetainingBlobStore {
            store: Arc::clone(store),
            retention: Arc::clone(self),
            kind,
            claimant,
            used,
        })
    }

    /// The number of a tenant.
    pub(crate) fn claimant_of(&self, tenant: &TenantId) -> Claimant {
        let mut tenants = self.tenants();
        if let Some(known) = tenants.numbers.get(tenant) {
            return *known;
        }
        let numbers = tenants.numbers.values().map(|claimant| claimant.0);
        let next = numbers
            .max()
            .map_or(Claimant::FIRST_TENANT.0, |last| last + 1);
        if next > MAX_TENANTS {
            return Claimant::NOBODY;
        }
        let claimant = Claimant(next);
        tenants.numbers.insert(tenant.clone(), claimant);
        let tenant = tenant.clone();
        tenants.news.push(Record::Tenant { claimant, tenant });
        claimant
    }

    /// Whether what is known at a start is there, as far as nobody else deletes: what goes is told to the log first.
    pub(crate) const fn is_log_believed(&self) -> bool {
        self.is_log_believed
    }

    /// The digests of everything of a kind that is known.
    pub(crate) fn digests(&self, kind: Kind) -> Vec<Digest> {
        self.index.digests(kind)
    }

    /// Tells the log what it has not been told. It blocks.
    pub(crate) fn flush(&self) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = std::mem::take(&mut self.tenants().news);
        records.extend(self.index.news());
        let written = if log.is_broken || log.file.is_mostly_spare() {
            log.file.replace(&self.everything())
        } else if records.is_empty() {
            return;
        } else {
            log.file.append(&records)
        };
        let was_broken = std::mem::replace(&mut log.is_broken, written.is_err());
        match written {
            Err(error) if !was_broken => {
                tracing::warn!(%error, "the log of uses cannot be written; it will be written anew");
            }
            Err(_) => {}
            Ok(()) if was_broken => tracing::info!("the log of uses is written again"),
            Ok(()) => {}
        }
    }

    /// The same; whether all of it is on the disk. It blocks.
    fn flush_to_disk(&self) -> bool {
        self.flush();
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        !log.is_broken && log.file.sync().is_ok()
    }

    fn everything(&self) -> Vec<Record> {
        let tenants = self.tenants().numbers.clone();
        let tenants = tenants.into_iter();
        let tenants = tenants.map(|(tenant, claimant)| Record::Tenant { claimant, tenant });
        tenants.chain(self.index.records()).collect()
    }

    /// Ends the log when the coordinator stops in good order. `is_complete` if it names all that is stored. It blocks.
    fn close(&self, is_complete: bool) {
        self.flush();
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        // What is not known to be gone may be, and the log names it.
        let is_doubtful = !self.is_complete(true);
        if log.is_broken || (is_doubtful && std::fs::write(&self.doubt, "").is_err()) {
            return;
        }
        let held = self.held_until.filter(|until| self.now() < *until);
        let held = held.map(|until| Record::Held { until });
        let end = match is_complete {
            true => Record::Complete,
            false => Record::Stopped,
        };
        let ended: Vec<Record> = held.into_iter().chain([end]).collect();
        let ended = log.file.append(&ended);
        if let Err(error) = ended.and_then(|()| log.file.sync()) {
            tracing::warn!(%error, "the log of uses could not be ended");
        }
    }

    /// Whether all that is stored is known, though some of that may be gone; `was_complete` if it was at the start.
    fn knows_all(&self, was_complete: bool) -> bool {
        was_complete || self.is_listed.load(Ordering::Relaxed)
    }

    /// Whether all that is known to be stored is, too.
    fn is_complete(&self, was_complete: bool) -> bool {
        self.knows_all(was_complete)
            && !self.is_letting_go.load(Ordering::Relaxed)
            && !self.is_in_doubt.load(Ordering::Relaxed)
    }

    /// Whether nothing may go yet, as what was promised before the start is not known.
    fn holds_all(&self) -> bool {
        !PlantedBug::LastPromisesForgotten.is_planted()
            && self.held_until.is_some_and(|until| self.now() < until)
    }

    /// The store has been listed. It blocks.
    fn set_listed(&self) {
        self.is_listed.store(true, Ordering::Relaxed);
        self.is_in_doubt.store(false, Ordering::Relaxed);
        // Not before the log says what was found to be gone. As long as it is there, the store is asked more often than
        // need be.
        if self.flush_to_disk() {
            drop(std::fs::remove_file(&self.doubt));
        }
    }

    fn set_letting_go(&self, is_letting_go: bool) {
        self.is_letting_go.store(is_letting_go, Ordering::Relaxed);
    }

    fn set_in_doubt(&self) {
        self.is_in_doubt.store(true, Ordering::Relaxed);
    }

    fn now(&self) -> Seconds {
        (self.clock)()
    }

    fn tenants(&self) -> MutexGuard<'_, Tenants> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the limits are.
    pub(crate) fn announce(&self) {
        let settings = &self.settings;
        tracing::info!(
            max_bytes = settings.max_bytes,
            min_free_bytes = self.room.wanted_bytes(),
            other_tenants = ?settings.other_tenants,
            tenants = ?settings.tenants,
            keep = ?settings.keep,
            holds_all = self.holds_all(),
            known = self.index.all().count,
            known_bytes = self.index.all().bytes,
            "what is stored is kept within these limits, by last use"
        );
    }
}

impl fmt::Debug for Retention {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Retention")
            .field("settings", &self.settings)
            .field("all", &self.index.all())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
