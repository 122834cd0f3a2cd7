//! Passes that wait until it is known who ended the runners of their batches.

use std::collections::BTreeSet;

use prost::Message as _;

use crate::runs::action::Pass;

/// How much the passes that a suite holds may take, in bytes. What is beyond it is not cached: its tests run again the
/// next time.
const MOST_HELD_BYTES: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct HeldPasses {
    /// By their tests, with how much each takes, in bytes.
    passes: Vec<(usize, Pass, usize)>,
    bytes: usize,
    most_bytes: usize,
}

impl Default for HeldPasses {
    fn default() -> Self {
        Self::of_at_most(MOST_HELD_BYTES)
    }
}

impl HeldPasses {
    pub(super) const fn of_at_most(most_bytes: usize) -> Self {
        Self {
            passes: Vec::new(),
            bytes: 0,
            most_bytes,
        }
    }

    /// Holds a pass, if there is room for it.
    pub(super) fn hold(&mut self, test: usize, pass: Pass) {
        let (_, result, place) = &pass;
        let place_bytes = place.as_ref().map_or(0, prost::Message::encoded_len);
        let bytes = size_of::<Pass>() + result.encoded_len() + place_bytes;
        if self.bytes + bytes > self.most_bytes {
            tracing::debug!(test, bytes, "a pass is not remembered: too many wait");
            return;
        }
        self.bytes += bytes;
        self.passes.push((test, pass, bytes));
    }

    /// Lets go of those of some tests.
    pub(super) fn forget(&mut self, tests: &BTreeSet<usize>) {
        self.passes.retain(|(test, ..)| !tests.contains(test));
        self.bytes = self.passes.iter().map(|(.., bytes)| bytes).sum();
    }

    /// All of them, which are held no more.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (usize, Pass)> + use<> {
        self.bytes = 0;
        let passes = std::mem::take(&mut self.passes).into_iter();
        passes.map(|(test, pass, _)| (test, pass))
    }
}
