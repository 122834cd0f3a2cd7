//! How blobs are cut.

use fastcdc::v2020::{Normalization, get_gear_with_seed, select_masks};

/// The averages that REAPI allows, in bytes.
const AVERAGES_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=1 << 20;
/// What REAPI prescribes.
const LEVEL: Normalization = Normalization::Level2;

/// The parameters of FastCDC as published in 2020 (REAPI, `FastCdc2020Params`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkingParams {
    average_bytes: u32,
    seed: u32,
}

impl ChunkingParams {
    /// What REAPI recommends: chunks of 512 KiB on average.
    pub const RECOMMENDED: Self = Self {
        average_bytes: 512 << 10,
        seed: 0,
    };

    /// Parameters that a peer named; `None` if they are none that this crate cuts by, and the peer is better
    /// served with whole blobs. Averages between powers of two are among these: implementations differ in
    /// what they make of them.
    #[must_use]
    pub fn new(average_bytes: u64, seed: u32) -> Option<Self> {
        if !AVERAGES_BYTES.contains(&average_bytes) || !average_bytes.is_power_of_two() {
            return None;
        }
        let average_bytes = u32::try_from(average_bytes).ok()?;
        Some(Self {
            average_bytes,
            seed,
        })
    }

    /// How long chunks are on average, in bytes.
    #[must_use]
    pub const fn average_bytes(self) -> usize {
        self.average_bytes as usize
    }

    /// What every chunk but the last has at least, in bytes.
    #[must_use]
    pub const fn min_bytes(self) -> usize {
        self.average_bytes() / 4
    }

    /// What every chunk has at most, in bytes.
    #[must_use]
    pub const fn max_bytes(self) -> usize {
        self.average_bytes() * 4
    }

    /// What goes into the search for cuts besides the content.
    #[must_use]
    pub const fn seed(self) -> u32 {
        self.seed
    }

    /// How many chunks a blob of `size_bytes` has at most.
    #[must_use]
    pub const fn most_chunks(self, size_bytes: u64) -> u64 {
        size_bytes.div_ceil(self.min_bytes() as u64)
    }

    pub(super) fn cutter(self) -> Cutter {
        let (strict, lax) = select_masks(self.average_bytes(), LEVEL);
        let (gear, shifted_gear) = get_gear_with_seed(self.seed.into());
        Cutter {
            params: self,
            strict,
            lax,
            gear: gear.into_owned(),
            shifted_gear: shifted_gear.into_owned(),
        }
    }
}

/// The parameters in the form in which cuts are searched for.
#[derive(Debug)]
pub(super) struct Cutter {
    pub(super) params: ChunkingParams,
    strict: u64,
    lax: u64,
    gear: Vec<u64>,
    shifted_gear: Vec<u64>,
}

impl Cutter {
    /// How long the first chunk of `bytes` is, in bytes. No byte beyond the largest chunk is looked at.
    pub(super) fn first_cut(&self, bytes: &[u8]) -> usize {
        let params = self.params;
        let (_, length_bytes) = fastcdc::v2020::cut_gear(
            bytes,
            params.min_bytes(),
            params.average_bytes(),
            params.max_bytes(),
            self.strict,
            self.lax,
            self.strict << 1,
            self.lax << 1,
            &self.gear,
            &self.shifted_gear,
        );
        length_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_the_specification_are_taken() {
        let recommended = ChunkingParams::RECOMMENDED;
        assert_eq!(ChunkingParams::new(512 << 10, 0), Some(recommended));
        for good in [1 << 10, 1 << 20] {
            assert!(ChunkingParams::new(good, 7).is_some(), "{good}");
        }
        for bad in [0, 1, 1 << 9, 1 << 21, (512 << 10) + 2, u64::MAX] {
            assert_eq!(ChunkingParams::new(bad, 0), None, "{bad}");
        }
    }
}
