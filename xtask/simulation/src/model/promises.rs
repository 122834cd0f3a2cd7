//! What was told to be stored, and until when it has to be.
//!
//! Whoever is told that a blob is there finds it there for some time after he asked. The inputs of a run are used again
//! and again for as long as it goes on: so they are there for that time after the last moment at which the
//! coordinator must have done so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regatta_model::Digest;

use crate::bucket::brief;
use crate::plan::{KEEP, LAST_USES};
use crate::said::Promise;
use crate::violation::{Checked, Invariant};

/// How long after it was left in peace a coordinator has used again at the latest what runs need: it does four times in
/// the time for which everything is kept, but not what it has looked at since the last time.
const USED_AGAIN_WITHIN: Duration = Duration::from_secs(KEEP.as_secs() / 2 + 2);

/// Everything that was told to be there.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    known: BTreeMap<Digest, Vec<Known>>,
    pins: BTreeMap<usize, Pin>,
    /// Since when a coordinator is there and nothing is the matter with its storage.
    peace_since: Option<Duration>,
    /// How many blobs went of those that somebody had been told of.
    gone: usize,
}

/// Who is told of what verdicts keep.
pub(crate) const BY_VERDICT: &str = "a verdict";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    asked: Duration,
    until: Duration,
    by: &'static str,
}

/// What a run needs that goes on.
#[derive(Clone, Debug, Default)]
struct Pin {
    blobs: BTreeSet<Digest>,
    accepted: Duration,
    /// The last moment up to which it must have been used.
    used: Duration,
}

impl Promises {
    pub(crate) fn told(&mut self, promise: &Promise) {
        let Promise {
            asked, lasts, by, ..
        } = *promise;
        let until = asked + lasts;
        let known = Known { asked, until, by };
        for blob in promise.blobs.iter().filter(|it| **it != Digest::EMPTY) {
            self.known.entry(*blob).or_default().push(known);
        }
    }

    /// A run goes on from now on that needs these.
    pub(crate) fn pin(&mut self, now: Duration, run: usize, blobs: impl Iterator<Item = Digest>) {
        let pin = self.pins.entry(run).or_insert_with(|| Pin {
            accepted: now,
            ..Pin::default()
        });
        pin.blobs.extend(blobs);
    }

    /// The coordinator is left in peace from now on, or is not.
    pub(crate) fn set_peace(&mut self, now: Duration, is_peace: bool) {
        if is_peace {
            self.peace_since.get_or_insert(now);
        } else {
            self.note_uses(now);
            self.peace_since = None;
        }
    }

    fn note_uses(&mut self, now: Duration) {
        let Some(since) = self.peace_since else {
            return;
        };
        for pin in self.pins.values_mut() {
            let used = now.checked_sub(USED_AGAIN_WITHIN);
            let used = used.filter(|used| *used >= since.max(pin.accepted));
            pin.used = pin.used.max(used.unwrap_or_default());
        }
    }

    /// The coordinator is killed: what it has not written down yet of what verdicts keep is lost, for the ledger that
    /// would know of it is not asked here. What was promised otherwise holds.
    pub(crate) fn forget_last_verdicts(&mut self, now: Duration) {
        let is_lost = |it: &Known| it.by == BY_VERDICT && it.asked + LAST_USES >= now;
        for known in self.known.values_mut() {
            known.retain(|it| !is_lost(it));
        }
    }

    /// A blob came out of the store as something else.
    pub(crate) fn forget(&mut self, blob: &Digest) {
        self.known.remove(blob);
        for pin in self.pins.values_mut() {
            pin.blobs.remove(blob);
        }
    }

    /// The clock was set ahead while no coordinator was there: to the next one everything is old.
    pub(crate) fn forget_all(&mut self) {
        self.known.clear();
        self.pins
            .values_mut()
            .for_each(|pin| pin.used = Duration::ZERO);
    }

    /// Something was removed: what was promised has to be there, and what runs need that `go_on`.
    pub(crate) fn check(
        &mut self,
        now: Duration,
        is_there: impl Fn(&Digest) -> bool,
        goes_on: impl Fn(usize) -> bool,
    ) -> Checked {
        self.note_uses(now);
        self.pins.retain(|run, _| goes_on(*run));
        for (run, pin) in &self.pins {
            let is_needed = pin.used > Duration::ZERO && now < pin.used + KEEP;
            let absent = pin.blobs.iter().find(|it| is_needed && !is_there(it));
            Invariant::PromisesAreKept.holds(absent.is_none(), || {
                let absent = absent.map(brief);
                format!(
                    "{absent:?} is gone, which run {run} needs that goes on: {:?}",
                    pin.used
                )
            })?;
        }
        let mut gone = Vec::new();
        for (blob, known) in &mut self.known {
            if is_there(blob) {
                continue;
            }
            let kept = known.iter().find(|it| now < it.until);
            Invariant::PromisesAreKept.holds(kept.is_none(), || {
                format!(
                    "{} is gone, which was told to be there: {kept:?}",
                    brief(blob)
                )
            })?;
            gone.push(*blob);
        }
        for blob in gone {
            self.gone += usize::from(self.known.remove(&blob).is_some_and(|it| !it.is_empty()));
        }
        Ok(())
    }

    /// How many blobs went that somebody had been told of.
    pub(crate) const fn gone(&self) -> usize {
        self.gone
    }
}
