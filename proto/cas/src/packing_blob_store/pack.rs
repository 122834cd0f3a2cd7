//! One object with many small blobs in it.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use regatta_model::{Digest, DigestHasher};

use super::version::Version;

/// The last bytes of every pack.
const MAGIC: [u8; 8] = *b"rgttpack";
/// How the rest is laid out.
const FORMAT: u32 = 1;
/// Hash and size of a key, version, kind, detail.
const RECORD_BYTES: usize = 32 + 4 + 8 + 1 + 4;
/// Generation, count of records, hash of what comes before it, format, magic.
const TRAILER_BYTES: usize = 4 + 4 + 32 + 4 + 8;
const HASHED_TRAILER_BYTES: usize = 8;

/// The most records of a pack: so many that its footer is read in one short request.
pub(super) const MAX_RECORDS: usize = 1024;
/// The longest footer, in bytes.
pub(super) const MAX_FOOTER_BYTES: usize = MAX_RECORDS * RECORD_BYTES + TRAILER_BYTES;

/// What a pack says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    /// Its value is in the pack from `start` to `end`, in bytes.
    Stored { start: u32, end: u32 },
    /// Its value is an object of its own.
    Elsewhere,
    /// Nothing is stored under it. `since_s` is when that was written, in seconds of the Unix epoch.
    Forgotten { since_s: u32 },
}

/// What is known of a pack once its footer has been read.
///
/// A pack is values, one after the other, then a record for each key, then a trailer. Numbers are
/// little-endian. It is named by the digest of all of it, which also says where it ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pack {
    pub(super) digest: Digest,
    /// How often its values were moved from pack to pack.
    pub(super) generation: u32,
    /// Those with values, those that are elsewhere, those that are forgotten.
    records: Box<[Record]>,
    stored: usize,
    elsewhere: usize,
}

/// 48 bytes for each of a million blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    hash: [u8; 32],
    version: Version,
    key_size_bytes: u32,
    /// Where the value ends; or since when the key is forgotten.
    detail: u32,
}

/// Why an object is no pack that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackError {
    #[error("it does not end as a pack does")]
    NotPack,
    #[error("it has format {format}, and this version of Regatta knows format {FORMAT} alone")]
    UnknownFormat { format: u32 },
    #[error("it is damaged: {what}")]
    Damaged { what: &'static str },
}

impl Pack {
    /// Reads the footer from the last bytes of a pack: all of it, or at least [`MAX_FOOTER_BYTES`].
    pub(super) fn decode(digest: Digest, tail: &[u8]) -> Result<Self, PackError> {
        let damaged = |what| PackError::Damaged { what };
        let (before, trailer) = tail
            .split_last_chunk::<TRAILER_BYTES>()
            .ok_or(PackError::NotPack)?;
        let (mut fields, magic) = trailer.split_at(TRAILER_BYTES - MAGIC.len());
        if magic != MAGIC {
            return Err(PackError::NotPack);
        }
        let hashed_trailer = &fields[..HASHED_TRAILER_BYTES];
        let (generation, count) = (fields.get_u32_le(), fields.get_u32_le());
        let mut hash = [0; 32];
        fields.copy_to_slice(&mut hash);
        let format = fields.get_u32_le();
        if format != FORMAT {
            return Err(PackError::UnknownFormat { format });
        }
        let count = usize::try_from(count).ok();
        let count = count
            .filter(|count| *count <= MAX_RECORDS)
            .ok_or(damaged("too many records"))?;
        let footer_bytes = count * RECORD_BYTES;
        let start = before.len().checked_sub(footer_bytes);
        let records = &before[start.ok_or(damaged("it is cut off"))?..];
        if *hash_of(&[records, hashed_trailer]).hash() != hash {
            return Err(damaged("its records do not have their hash"));
        }
        let values_bytes = digest
            .size_bytes()
            .checked_sub((footer_bytes + TRAILER_BYTES) as u64)
            .ok_or(damaged("it is cut off"))?;
        Self::of_records(digest, generation, records, values_bytes)
    }

    fn of_records(
        digest: Digest,
        generation: u32,
        encoded: &[u8],
        values_bytes: u64,
    ) -> Result<Self, PackError> {
        let damaged = |what| PackError::Damaged { what };
        let mut records = Vec::with_capacity(encoded.len() / RECORD_BYTES);
        let (mut counts, mut last_kind, mut end) = ([0usize; 3], 0, 0u32);
        for mut fields in encoded.chunks_exact(RECORD_BYTES) {
            let mut hash = [0; 32];
            fields.copy_to_slice(&mut hash);
            let key_size_bytes = fields.get_u32_le();
            let version = Version::new(fields.get_u64_le()).ok_or(damaged("a version"))?;
            let (kind, mut detail) = (usize::from(fields.get_u8()), fields.get_u32_le());
            if kind < last_kind {
                return Err(damaged("its records are in disorder"));
            }
            *counts.get_mut(kind).ok_or(damaged("a kind"))? += 1;
            last_kind = kind;
            if kind == STORED {
                end = end.checked_add(detail).ok_or(damaged("a length"))?;
                detail = end;
            }
            records.push(Record {
                hash,
                version,
                key_size_bytes,
                detail,
            });
        }
        if u64::from(end) != values_bytes {
            return Err(damaged("its values do not have their length"));
        }
        let [stored, elsewhere, _] = counts;
        Ok(Self {
            digest,
            generation,
            records: records.into(),
            stored,
            elsewhere,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// What the records take.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.records)
    }

    /// The size of all values, in bytes.
    pub(super) fn values_bytes(&self) -> u64 {
        let last = self.records[..self.stored].last();
        last.map_or(0, |last| u64::from(last.detail))
    }

    pub(super) fn key(&self, nth: usize) -> Digest {
        let record = &self.records[nth];
        Digest::new(record.hash, u64::from(record.key_size_bytes))
    }

    pub(super) fn version(&self, nth: usize) -> Version {
        self.records[nth].version
    }

    pub(super) fn fact(&self, nth: usize) -> Fact {
        let detail = self.records[nth].detail;
        if nth < self.stored {
            let start = nth.checked_sub(1).map_or(0, |nth| self.records[nth].detail);
            Fact::Stored { start, end: detail }
        } else if nth < self.stored + self.elsewhere {
            Fact::Elsewhere
        } else {
            Fact::Forgotten { since_s: detail }
        }
    }

    /// How many of the records are of forgotten keys.
    pub(super) fn forgotten(&self) -> usize {
        self.len() - self.stored - self.elsewhere
    }

    /// The records that have values.
    pub(super) fn stored(&self) -> std::ops::Range<usize> {
        0..self.stored
    }
}

const STORED: usize = 0;
const ELSEWHERE: usize = 1;
const FORGOTTEN: usize = 2;

fn hash_of(parts: &[&[u8]]) -> Digest {
    let mut hasher = DigestHasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finish()
}

/// A pack that is being filled.
#[derive(Debug, Default)]
pub(super) struct PackDraft {
    generation: u32,
    stored: Vec<(Digest, Version, Bytes)>,
    elsewhere: Vec<(Digest, Version)>,
    forgotten: Vec<(Digest, Version, u32)>,
    values_bytes: usize,
}

impl PackDraft {
    pub(super) fn new(generation: u32) -> Self {
        Self {
            generation,
            ..Self::default()
        }
    }

    pub(super) fn store(&mut self, key: Digest, version: Version, value: Bytes) {
        self.values_bytes += value.len();
        self.stored.push((key, version, value));
    }

    pub(super) fn say_elsewhere(&mut self, key: Digest, version: Version) {
        self.elsewhere.push((key, version));
    }

    pub(super) fn forget(&mut self, key: Digest, version: Version, since_s: u32) {
        self.forgotten.push((key, version, since_s));
    }

    pub(super) fn len(&self) -> usize {
        self.stored.len() + self.elsewhere.len() + self.forgotten.len()
    }

    /// The pack and its bytes in pieces. There must be at most [`MAX_RECORDS`] records.
    pub(super) fn seal(self) -> (Pack, Vec<Bytes>) {
        let (stored, elsewhere) = (self.stored.len(), self.elsewhere.len());
        let count = self.len();
        let mut footer = BytesMut::with_capacity(count * RECORD_BYTES + TRAILER_BYTES);
        let mut records = Vec::with_capacity(count);
        let mut pieces = Vec::with_capacity(stored + 1);
        let mut end = 0;
        for (key, version, value) in self.stored {
            let length = saturated(value.len());
            end += length;
            put_record(&mut footer, &key, version, STORED, length);
            records.push(Record::new(&key, version, end));
            pieces.push(value);
        }
        for (key, version) in self.elsewhere {
            put_record(&mut footer, &key, version, ELSEWHERE, 0);
            records.push(Record::new(&key, version, 0));
        }
        for (key, version, since_s) in self.forgotten {
            put_record(&mut footer, &key, version, FORGOTTEN, since_s);
            records.push(Record::new(&key, version, since_s));
        }
        footer.put_u32_le(self.generation);
        footer.put_u32_le(saturated(count));
        let hash = *hash_of(&[&footer]).hash();
        footer.put_slice(&hash);
        footer.put_u32_le(FORMAT);
        footer.put_slice(&MAGIC);
        pieces.push(footer.freeze());
        let parts: Vec<&[u8]> = pieces.iter().map(Bytes::as_ref).collect();
        let pack = Pack {
            digest: hash_of(&parts),
            generation: self.generation,
            records: records.into(),
            stored,
            elsewhere,
        };
        (pack, pieces)
    }
}

fn put_record(footer: &mut BytesMut, key: &Digest, version: Version, kind: usize, detail: u32) {
    footer.put_slice(key.hash());
    footer.put_u32_le(key_size(key));
    footer.put_u64_le(version.get());
    footer.put_u8(kind.to_le_bytes()[0]);
    footer.put_u32_le(detail);
}

impl Record {
    fn new(key: &Digest, version: Version, detail: u32) -> Self {
        Self {
            hash: *key.hash(),
            version,
            key_size_bytes: key_size(key),
            detail,
        }
    }
}

/// Keys of larger blobs are in no pack.
fn key_size(key: &Digest) -> u32 {
    u32::try_from(key.size_bytes()).unwrap_or(u32::MAX)
}

/// Lengths and counts in a pack are far below the limit.
fn saturated(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(at: u64) -> Version {
        Version::new(at).unwrap()
    }

    fn sample() -> (Pack, Bytes) {
        let mut draft = PackDraft::new(3);
        for value in [b"one" as &[u8], b"", b"three"] {
            draft.store(Digest::of(value), version(7), Bytes::copy_from_slice(value));
        }
        draft.say_elsewhere(Digest::of(b"large"), version(8));
        draft.forget(Digest::of(b"gone"), version(9), 12345);
        let (pack, pieces) = draft.seal();
        (pack, pieces.concat().into())
    }

    #[test]
    fn what_was_written_is_read() {
        let (pack, bytes) = sample();
        assert_eq!(pack.digest, Digest::of(&bytes));
        assert_eq!(Pack::decode(pack.digest, &bytes).unwrap(), pack);
        let facts: Vec<Fact> = (0..pack.len()).map(|nth| pack.fact(nth)).collect();
        let expected = [
            Fact::Stored { start: 0, end: 3 },
            Fact::Stored { start: 3, end: 3 },
            Fact::Stored { start: 3, end: 8 },
            Fact::Elsewhere,
            Fact::Forgotten { since_s: 12345 },
        ];
        assert_eq!(facts, expected);
        assert_eq!(pack.key(2), Digest::of(b"three"));
        assert_eq!(size_of::<Record>(), 48);
    }

    #[test]
    fn the_longest_footer_is_read_from_the_end_alone() {
        let mut draft = PackDraft::new(0);
        for at in 0..MAX_RECORDS as u64 {
            let value = Bytes::copy_from_slice(&at.to_le_bytes());
            draft.store(Digest::of(&value), version(1), value);
        }
        let (pack, pieces) = draft.seal();
        let bytes = pieces.concat();
        let tail = &bytes[bytes.len() - MAX_FOOTER_BYTES..];
        assert_eq!(Pack::decode(pack.digest, tail).unwrap(), pack);
    }

    #[test]
    fn another_format_is_named() {
        let (pack, bytes) = sample();
        let mut bytes = bytes.to_vec();
        let at = bytes.len() - MAGIC.len() - 4;
        bytes[at] = 2;
        let refused = Pack::decode(pack.digest, &bytes);
        assert!(
            matches!(refused, Err(PackError::UnknownFormat { format: 2 })),
            "{refused:?}"
        );
    }

    proptest! {
        #[test]
        fn no_damage_of_a_footer_goes_unseen(at in 0usize..10_000, flip in 1u8..=255, cut in 0usize..400) {
            let (pack, bytes) = sample();
            let values = usize::try_from(pack.values_bytes()).unwrap();
            let mut flipped = bytes.to_vec();
            let at = values + at % (bytes.len() - values);
            flipped[at] ^= flip;
            prop_assert!(Pack::decode(pack.digest, &flipped).is_err());
            let cut = cut % bytes.len();
            prop_assert!(Pack::decode(pack.digest, &bytes[..cut]).is_err());
            let shorter = Digest::new(*pack.digest.hash(), cut as u64);
            prop_assert!(Pack::decode(shorter, &bytes[bytes.len() - cut..]).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), counted in 0u32..4) {
            drop(Pack::decode(Digest::of(&bytes), &bytes));
            // With a right hash, what is beneath it is looked at.
            let records = bytes.split_off(bytes.len() - bytes.len() / RECORD_BYTES * RECORD_BYTES);
            let mut end = BytesMut::new();
            end.put_u32_le(0);
            end.put_u32_le(counted);
            let at = records.len().saturating_sub(counted as usize * RECORD_BYTES);
            let hash = hash_of(&[&records[at..], &end]);
            end.put_slice(hash.hash());
            end.put_u32_le(FORMAT);
            end.put_slice(&MAGIC);
            let whole = [bytes, records, end.to_vec()].concat();
            drop(Pack::decode(Digest::of(&whole), &whole));
        }
    }
}
