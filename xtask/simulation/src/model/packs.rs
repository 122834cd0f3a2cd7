//! What packs of small blobs have in them, as decision 0014 describes them.

use std::collections::BTreeMap;

use bytes::{Buf as _, Bytes};
use regatta_model::Digest;

/// Generation and count of records, their hash, format and magic.
const TRAILER_BYTES: usize = 4 + 4 + 32 + 4 + 8;
/// Hash and size of a key, version, kind, and the length of a value.
const RECORD_BYTES: usize = 32 + 4 + 8 + 1 + 4;
/// What a record says that has a value.
const STORED: u8 = 0;
const FORGOTTEN: u8 = 2;

/// Version, whether it is forgotten, generation and name of the pack: the greatest counts.
type Rank = (u64, bool, u32, Digest);

/// The blobs that these packs have in them.
pub(crate) fn packed_in(packs: Vec<(Digest, Bytes)>) -> BTreeMap<Digest, Bytes> {
    let mut said: BTreeMap<Digest, (Rank, Option<Bytes>)> = BTreeMap::new();
    for (name, pack) in packs {
        for (key, rank, value) in records_of(name, &pack) {
            let known = said.get(&key).map(|(rank, _)| *rank);
            if known.is_none_or(|known| known < rank) {
                said.insert(key, (rank, value));
            }
        }
    }
    let stored = said.into_iter();
    stored
        .filter_map(|(key, (_, value))| Some((key, value?)))
        .collect()
}

fn records_of(name: Digest, pack: &Bytes) -> Vec<(Digest, Rank, Option<Bytes>)> {
    let Some(trailer_at) = pack.len().checked_sub(TRAILER_BYTES) else {
        return Vec::new();
    };
    let mut trailer = pack.slice(trailer_at..);
    let (generation, count) = (trailer.get_u32_le(), trailer.get_u32_le());
    let bytes = usize::try_from(count).unwrap_or(usize::MAX) * RECORD_BYTES;
    let Some(records_at) = trailer_at.checked_sub(bytes) else {
        return Vec::new();
    };
    let (mut records, mut start) = (pack.slice(records_at..trailer_at), 0);
    let mut all = Vec::new();
    while records.has_remaining() {
        let mut hash = [0; 32];
        records.copy_to_slice(&mut hash);
        let key = Digest::new(hash, u64::from(records.get_u32_le()));
        let version = records.get_u64_le();
        let (kind, detail) = (records.get_u8(), records.get_u32_le());
        let end = usize::try_from(detail).map_or(usize::MAX, |length| start + length);
        let value = (kind == STORED && end <= records_at).then(|| {
            let value = pack.slice(start..end);
            start = end;
            value
        });
        let rank = (version, kind == FORGOTTEN, generation, name);
        all.push((key, rank, value));
    }
    all
}
