//! Whoever used a blob uses what it is kept as.

use regatta_model::Digest;

use super::super::entry::{Claim, Claimant, Entry, Key, Kind};
use super::super::shard::{Shard, Slot};
use super::UseIndex;

/// How often the uses of a blob are handed on that is used while it is split.
const MAX_SPLIT_ROUNDS: usize = 8;

impl UseIndex {
    /// Has a blob's mapping and chunks used by all who used the blob, when they did, and makes its whole go: whoever
    /// asks for it from then on asks for these, so that no use of it is lost. The mapping is never younger than its
    /// chunks. Nothing if the whole stays: it is being written, goes already, or is used all the time.
    pub(in crate::retention) fn split(&self, blob: &Digest, chunks: &[Digest]) -> Option<Entry> {
        let [whole, mapping] = [Kind::Blob, Kind::Mapping].map(|kind| Key {
            kind,
            digest: *blob,
        });
        let claims_of = |key: &Key| claims_in(&self.shard(key), key);
        for _ in 0..MAX_SPLIT_ROUNDS {
            let of_whole = claims_of(&whole);
            let mut claims = [&of_whole[..], &claims_of(&mapping)[..]].concat();
            // Whoever splits it has used all of them.
            claims.retain(|claim| claim.claimant != Claimant::NOBODY);
            self.inherit(&claims, mapping, chunks);
            let mut shard = self.shard(&whole);
            if shard.writing.contains_key(&whole) || shard.going.contains(&whole) {
                return None;
            }
            if claims_in(&shard, &whole) == of_whole {
                let removed = shard.remove(&whole);
                shard.going.insert(whole);
                let nothing = Entry {
                    key: whole,
                    size_bytes: blob.size_bytes(),
                    claims: Vec::new(),
                    order: 0,
                };
                return Some(removed.map_or(nothing, |slot| slot.entry(whole)));
            }
        }
        None
    }

    fn inherit(&self, claims: &[Claim], mapping: Key, chunks: &[Digest]) {
        let chunks = chunks.iter().map(|digest| Key {
            kind: Kind::Blob,
            digest: *digest,
        });
        // After the mapping, which was written after they were looked for.
        let chunks = chunks.map(|key| (key, self.next()));
        for (key, order) in chunks.chain([(mapping, 0)]) {
            let mut shard = self.shard(&key);
            for claim in claims {
                shard.touch(key, claim.claimant, claim.used, order);
            }
        }
    }
}

fn claims_in(shard: &Shard, key: &Key) -> Vec<Claim> {
    let claims = shard.slots.get(key).map(Slot::claims);
    claims.into_iter().flatten().copied().collect()
}
