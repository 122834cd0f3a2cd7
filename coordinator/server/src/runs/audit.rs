//! Which cached passes are executed all the same, to see whether they hold. Pure.

use regatta_model::{Digest, DigestHasher, RunId};

/// The share of cached passes that is executed again.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct AuditShare {
    percent: f64,
}

/// A share that is none. Name another.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[error("{percent} is no percentage: it must be from 0 to 100")]
pub struct InvalidAuditShareError {
    percent: f64,
}

impl AuditShare {
    /// One of a hundred.
    pub const DEFAULT: Self = Self { percent: 1.0 };

    /// So many of a hundred; 0 for none.
    ///
    /// # Errors
    /// [`InvalidAuditShareError`].
    pub fn from_percent(percent: f64) -> Result<Self, InvalidAuditShareError> {
        match (0.0..=100.0).contains(&percent) {
            true => Ok(Self { percent }),
            false => Err(InvalidAuditShareError { percent }),
        }
    }

    /// Whether a run executes the test of this key again: another choice in every run, which nobody can
    /// foresee who does not know the run.
    pub(super) fn chooses(self, run: &RunId, key: &Digest) -> bool {
        let mut hasher = DigestHasher::new();
        hasher.update(run.as_str().as_bytes());
        hasher.update(key.hash());
        let digest = hasher.finish();
        let [first, second, third, fourth, ..] = *digest.hash();
        let place = f64::from(u32::from_le_bytes([first, second, third, fourth]));
        place / (f64::from(u32::MAX) + 1.0) * 100.0 < self.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(percent: f64, least: usize, most: usize) {
        let run: RunId = "run".parse().expect("is an id");
        let share = AuditShare::from_percent(percent).expect("is a share");
        let keys = (0..10_000u32).map(|number| Digest::of(&number.to_le_bytes()));
        let chosen = keys.filter(|key| share.chooses(&run, key)).count();
        assert!((least..=most).contains(&chosen), "{percent}: {chosen}");
    }

    #[test]
    fn as_many_are_chosen_as_were_asked_for() {
        check(0.0, 0, 0);
        check(1.0, 50, 150);
        check(50.0, 4_800, 5_200);
        check(100.0, 10_000, 10_000);
    }

    #[test]
    fn what_is_no_percentage_is_refused() {
        for percent in [-1.0, 100.1, f64::NAN, f64::INFINITY] {
            assert!(AuditShare::from_percent(percent).is_err(), "{percent}");
        }
    }

    #[test]
    fn runs_choose_differently() {
        let share = AuditShare::from_percent(50.0).expect("is a share");
        let [one, other] = ["one", "other"].map(|id| id.parse::<RunId>().expect("is an id"));
        let keys = (0..100u32).map(|number| Digest::of(&number.to_le_bytes()));
        let differ = |key: &Digest| share.chooses(&one, key) != share.chooses(&other, key);
        assert!(keys.filter(differ).count() > 20);
    }
}
