//! Lets go what has to, while everything else goes on.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use regatta_cas::StoreError;
use regatta_model::PlantedBug;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::entry::{Claimant, Kind};
use super::index::Going;
use super::plan::{Eviction, Plan, kinds_of, plan};
use super::{Places, Retention, VerdictPins, listing};
use crate::apart::apart;

/// How often the log is told and the limits are looked at.
const INTERVAL: Duration = Duration::from_secs(2);
/// How often everything is looked at for what is too old, at most.
const AGE_INTERVAL: Duration = Duration::from_secs(60);
/// How long nothing is looked for after nothing was found that could go, at most, though a limit is exceeded.
const FRUITLESS_PAUSE: Duration = Duration::from_secs(20);
/// How long after what is stored was listed it is listed again.
const LISTING_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// How long after a listing failed it is tried again.
const LISTING_RETRY: Duration = Duration::from_secs(60);
/// How many things are deleted at once: those that are packed wait for each other, and share a request.
const CONCURRENT_DELETIONS: usize = 64;
/// How many deletions are prepared at once.
const PORTION: usize = 1000;
/// How many tenants' sizes are told as metrics.
const MAX_MEASURED_TENANTS: usize = 100;

/// Lets go what the limits say, writes the log of uses, and corrects it by what is in the store.
#[derive(Debug)]
pub(crate) struct Evictor {
    pub(crate) retention: Arc<Retention>,
    pub(crate) places: Places,
    /// Nobody else writes to the store or deletes from it; otherwise nothing goes.
    pub(crate) may_evict: bool,
    /// The log named everything that is stored when the coordinator started.
    pub(crate) was_complete: bool,
    /// What verdicts keep, which has to be known before anything goes.
    pub(crate) pins: Option<VerdictPins>,
}

impl Evictor {
    /// Works until `stop` is cancelled, then ends the log.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let correcting = Arc::clone(&this);
        let is_complete = tokio::select! {
            () = this.evict() => false,
            () = correcting.correct() => false,
            () = correcting.pin() => false,
            () = correcting.try_for_room() => false,
            () = stop.cancelled() => correcting.is_complete(),
        };
        let retention = Arc::clone(&this.retention);
        let closed = apart(move || retention.close(is_complete)).await;
        if let Err(error) = closed {
            tracing::warn!(%error, "the log of uses could not be ended");
        }
    }

    fn is_complete(&self) -> bool {
        self.retention.is_complete(self.was_complete)
    }

    /// Learns what verdicts keep, however long that takes; and again with each listing, for what was away for a while
    /// has lost its uses.
    async fn pin(&self) {
        while let Some(pins) = self.pins.as_ref().filter(|_| self.may_evict) {
            pins.restore().await;
            tokio::time::sleep(LISTING_INTERVAL).await;
        }
        std::future::pending().await
    }

    /// Whether something may go.
    fn may_let_go(&self) -> bool {
        let is_pinned = self.pins.as_ref().is_none_or(VerdictPins::are_restored);
        self.may_evict && is_pinned && self.places.deletions.are_allowed()
    }

    async fn evict(&self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let keep = self.retention.settings.keep;
        let has_ages = self.retention.settings.has_ages();
        let (mut aged, mut fruitless) = (Instant::now(), None::<Instant>);
        loop {
            let is_lacking = tokio::select! {
                _ = ticks.tick() => false,
                () = self.retention.wake.notified() => true,
            };
            if is_lacking {
                // Whoever cannot write tells so again and again.
                tokio::time::sleep(INTERVAL / 10).await;
            }
            let retention = Arc::clone(&self.retention);
            if let Err(error) = apart(move || retention.flush()).await {
                tracing::error!(%error, "the log of uses could not be written");
            }
            self.measure();
            self.renew_absence();
            let lacking_bytes = self.retention.room.look();
            let is_old = has_ages && aged.elapsed() >= AGE_INTERVAL.min(keep);
            let pause = FRUITLESS_PAUSE.min(keep / 2);
            let may_find = fruitless.is_none_or(|since| since.elapsed() >= pause);
            if !self.may_let_go() || !(is_old || may_find && self.is_exceeded(lacking_bytes)) {
                continue;
            }
            aged = Instant::now();
            fruitless = match self.pass(lacking_bytes).await {
                true => None,
                false => Some(aged),
            };
            self.retention.room.look();
        }
    }

    /// Whether anything is over a limit, the ages aside.
    fn is_exceeded(&self, lacking_bytes: u64) -> bool {
        let limits = self.retention.limits(lacking_bytes);
        let all = self.retention.index.all();
        let exceeds = |amount: u64, limit: Option<u64>| limit.is_some_and(|limit| amount > limit);
        let totals = self.retention.index.totals();
        let of_verdicts = totals.iter().filter(|(it, _)| it.is_for_verdicts());
        let verdict_bytes = of_verdicts.map(|(_, totals)| totals.bytes).sum();
        lacking_bytes > 0
            || exceeds(all.bytes, limits.max_bytes)
            || exceeds(all.count, limits.max_entries)
            || exceeds(verdict_bytes, limits.max_verdict_bytes)
            || totals
                .iter()
                .any(|(claimant, totals)| exceeds(totals.bytes, limits.of(*claimant).max_bytes))
    }

    /// Lets go what has to go now; false if there was nothing that could.
    pub(super) async fn pass(&self, lacking_bytes: u64) -> bool {
        if self.retention.holds_all() {
            return false;
        }
        self.retention.set_letting_go(true);
        let has_let_go = self.let_go(lacking_bytes).await;
        self.retention.set_letting_go(false);
        has_let_go
    }

    async fn let_go(&self, lacking_bytes: u64) -> bool {
        let retention = Arc::clone(&self.retention);
        let limits = retention.limits(lacking_bytes);
        let planned = apart(move || plan(&retention.index.entries(), &limits, retention.now()));
        let Plan {
            evictions,
            released,
            unkept,
        } = match planned.await {
            Ok(plan) => plan,
            Err(error) => {
                tracing::error!(%error, "it could not be planned what goes");
                return false;
            }
        };
        if unkept > 0 {
            tracing::warn!(
                artefacts = unkept,
                "artefacts of verdicts are let go before their time, for want of room: their tenants, or all \
                 verdicts, keep more than they may"
            );
            metrics::counter!("regatta_verdict_artefacts_unkept_total").increment(unkept as u64);
        }
        for (key, claim) in released {
            self.retention.index.release(key, claim);
        }
        for kind in kinds_of(&evictions) {
            if kind == Kind::Result && PlantedBug::ResultsKept.is_planted() {
                continue;
            }
            let of_kind: Vec<&Eviction> =
                evictions.iter().filter(|it| it.key.kind == kind).collect();
            // What names others must be gone before they go.
            if let Err(error) = self.evict_all(&of_kind).await {
                self.retention.set_in_doubt();
                tracing::warn!(%error, "not everything could be let go that has to; trying again");
                return false;
            }
        }
        !evictions.is_empty()
    }

    async fn evict_all(&self, evictions: &[&Eviction]) -> Result<(), StoreError> {
        let mut result = Ok(());
        let index = &self.retention.index;
        for portion in evictions.chunks(PORTION) {
            let going = portion.iter().filter_map(|eviction| {
                let going = index.take(eviction.key, eviction.last_used)?;
                Some((*eviction, going))
            });
            let going: Vec<_> = going.collect();
            if going.is_empty() {
                continue;
            }
            // A log that is found after a kill names nothing that is gone.
            self.tell_log().await?;
            let evicting = going
                .into_iter()
                .map(|(eviction, going)| self.evict_one(eviction, going));
            let evicting: Vec<_> = evicting.collect();
            let mut ended = stream::iter(evicting).buffer_unordered(CONCURRENT_DELETIONS);
            while let Some(evicted) = ended.next().await {
                result = result.and(evicted);
            }
        }
        result
    }

    /// Has the log on the disk, unless what is stored is there, too, and may have to go for want of room.
    async fn tell_log(&self) -> Result<(), StoreError> {
        let retention = Arc::clone(&self.retention);
        let told = tokio::task::spawn_blocking(move || retention.flush_to_disk()).await;
        let is_told = told.is_ok_and(|is_told| is_told);
        match is_told || self.retention.room.is_on_this_machine() {
            true => Ok(()),
            false => Err(StoreError::Unavailable {
                detail: "the log of uses cannot be told what goes".to_owned(),
            }),
        }
    }

    async fn evict_one(&self, eviction: &Eviction, going: Going<'_>) -> Result<(), StoreError> {
        self.places.delete(&eviction.key).await?;
        going.gone();
        let reason = eviction.reason.name();
        metrics::counter!("regatta_evicted_total", "reason" => reason).increment(1);
        metrics::counter!("regatta_evicted_bytes_total", "reason" => reason)
            .increment(eviction.size_bytes);
        tracing::debug!(
            digest = %eviction.key.digest, kind = ?eviction.key.kind, reason,
            "something unused is let go"
        );
        Ok(())
    }

    /// Has what knows what is absent forget what went, without a listing.
    pub(super) fn renew_absence(&self) {
        if !self.retention.knows_all(self.was_complete) {
            return;
        }
        let present = usize::try_from(self.retention.index.all().count).unwrap_or(usize::MAX);
        for kind in Kind::ALL {
            if self.places.wants_renewal(kind, present) {
                self.places.begin_renewal(kind);
                let possible = self.retention.index.possible(kind);
                self.places.end_renewal(kind, &possible);
            }
        }
    }

    fn measure(&self) {
        let all = self.retention.index.all();
        metrics::gauge!("regatta_stored_bytes").set(float(all.bytes));
        metrics::gauge!("regatta_stored_objects").set(float(all.count));
        let totals = self.retention.index.totals();
        let tenants = self.retention.tenants();
        let mut named: Vec<_> = tenants.numbers.iter().collect();
        named.sort_by_key(|(_, claimant)| claimant.0);
        for (tenant, claimant) in named.into_iter().take(MAX_MEASURED_TENANTS) {
            let bytes_of = |of: Claimant| totals.get(&of).map_or(0.0, |it| float(it.bytes));
            let tenant = [("tenant", tenant.as_str().to_owned())];
            metrics::gauge!("regatta_tenant_stored_bytes", &tenant).set(bytes_of(*claimant));
            metrics::gauge!("regatta_tenant_verdict_bytes", &tenant)
                .set(bytes_of(claimant.for_verdicts()));
        }
        let unknown = totals
            .get(&Claimant::NOBODY)
            .map_or(0, |totals| totals.bytes);
        metrics::gauge!("regatta_unclaimed_stored_bytes").set(float(unknown));
    }

    /// Corrects what is known by what is in the store, now and then.
    async fn correct(&self) {
        if !self.may_evict {
            // Nothing goes: what others have stored in a bucket, however much that is, need not be known.
            return std::future::pending().await;
        }
        let mut listing = 0u8;
        if self.was_complete {
            tokio::time::sleep(LISTING_RETRY).await;
        }
        loop {
            listing = listing.checked_add(1).unwrap_or(1);
            match self.correct_once(listing).await {
                Ok(()) => tokio::time::sleep(LISTING_INTERVAL).await,
                Err(error) => {
                    tracing::warn!(%error, "what is stored cannot be listed; trying again");
                    tokio::time::sleep(LISTING_RETRY).await;
                }
            }
        }
    }

    pub(super) async fn correct_once(&self, listing: u8) -> Result<(), StoreError> {
        for kind in Kind::ALL {
            self.places.begin_renewal(kind);
            let corrected = listing::correct(&self.retention, &self.places, kind, listing).await?;
            let possible = self.retention.index.possible(kind);
            self.places.end_renewal(kind, &possible);
            if corrected != listing::Corrected::default() {
                tracing::info!(
                    place = kind.place(),
                    found = corrected.found,
                    lost = corrected.lost,
                    "what is known of the store was corrected"
                );
            }
        }
        let retention = Arc::clone(&self.retention);
        let set = apart(move || retention.set_listed()).await;
        set.map_err(|error| StoreError::Unavailable {
            detail: format!("the log of uses could not be told: {error}"),
        })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge of many bytes need not be exact"
)]
const fn float(amount: u64) -> f64 {
    amount as f64
}
