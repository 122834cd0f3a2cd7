//! The identity of a blob.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// The identity of a blob: the SHA-256 of its bytes and its size in bytes (REAPI `Digest`).
///
/// Both parts are the identity: two digests with one hash and different sizes name different blobs,
/// at most one of which can exist.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    hash: [u8; 32],
    size_bytes: u64,
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// The hash is not 64 characters long.
    #[error("hash has {length} characters, SHA-256 has 64")]
    WrongLength {
        /// The length found, in bytes.
        length: usize,
    },
    /// The hash holds something other than `0-9` and `a-f`.
    #[error("hash may hold only the lower-case hexadecimal digits 0-9 and a-f")]
    NotLowerHex,
    /// The size is negative or not a decimal number.
    #[error("size must be a decimal number of bytes, zero or more")]
    BadSize,
    /// The text has no `/` between the hash and the size.
    #[error("expected hash/size")]
    NoSeparator,
}

impl Digest {
    /// The digest of the blob of no bytes, which every store has.
    pub const EMPTY: Self = Self {
        hash: [
            0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f,
            0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b,
            0x78, 0x52, 0xb8, 0x55,
        ],
        size_bytes: 0,
    };

    /// A digest from its parts.
    #[must_use]
    pub const fn new(hash: [u8; 32], size_bytes: u64) -> Self {
        Self { hash, size_bytes }
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = DigestHasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// A digest from a hash in lower-case hexadecimal and a size in bytes.
    ///
    /// # Errors
    /// The hash is not 64 lower-case hexadecimal digits.
    pub fn parse_hash(hash: &str, size_bytes: u64) -> Result<Self, ParseDigestError> {
        let text = hash.as_bytes();
        if text.len() != 64 {
            return Err(ParseDigestError::WrongLength { length: text.len() });
        }
        let mut parsed = [0u8; 32];
        // Judged once for all of them: digits are random, and a branch for each is mostly guessed wrong.
        let mut all = 0;
        for (byte, pair) in parsed.iter_mut().zip(text.chunks_exact(2)) {
            let (high, low) = (nibble(pair[0]), nibble(pair[1]));
            all |= high | low;
            *byte = high << 4 | low;
        }
        if all > 0xf {
            return Err(ParseDigestError::NotLowerHex);
        }
        Ok(Self::new(parsed, size_bytes))
    }

    /// The raw hash.
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The size of the blob, in bytes.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether this is the digest of the empty blob.
    #[must_use]
    pub fn is_empty_blob(&self) -> bool {
        *self == Self::EMPTY
    }

    /// The hash in lower-case hexadecimal.
    #[must_use]
    pub fn hash_hex(&self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.hash {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }
}

/// The value of each hexadecimal digit, and [`NO_DIGIT`] for every other byte.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [NO_DIGIT; 256];
    let mut value = 0u8;
    while value < 16 {
        nibbles[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    nibbles
};
const NO_DIGIT: u8 = 0xff;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

fn nibble(digit: u8) -> u8 {
    NIBBLES[usize::from(digit)]
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.hash_hex(), self.size_bytes)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    /// Reads `hash/size`, the form that [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (hash, size) = text.split_once('/').ok_or(ParseDigestError::NoSeparator)?;
        let canonical = !size.is_empty() && size.bytes().all(|digit| digit.is_ascii_digit());
        if !canonical {
            return Err(ParseDigestError::BadSize);
        }
        let size_bytes = size.parse().map_err(|_| ParseDigestError::BadSize)?;
        Self::parse_hash(hash, size_bytes)
    }
}

/// Computes the digest of a blob that arrives in pieces.
#[derive(Clone, Debug, Default)]
pub struct DigestHasher {
    sha256: Sha256,
    size_bytes: u64,
}

impl DigestHasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the blob.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.size_bytes += bytes.len() as u64;
    }

    /// How many bytes were seen so far.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The digest of everything seen.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest::new(self.sha256.finalize().into(), self.size_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_digest_is_the_digest_of_nothing() {
        assert_eq!(Digest::of(b""), Digest::EMPTY);
        assert!(Digest::of(b"").is_empty_blob());
    }

    #[test]
    fn a_digest_reads_back_what_it_prints() {
        let digest = Digest::of(b"regatta");
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let mut hasher = DigestHasher::new();
        hasher.update(b"rega");
        hasher.update(b"tta");
        assert_eq!(hasher.finish(), Digest::of(b"regatta"));
    }

    #[track_caller]
    fn check_refused(text: &str, error: ParseDigestError) {
        assert_eq!(text.parse::<Digest>(), Err(error));
    }

    #[test]
    fn what_is_not_a_digest_is_refused_by_name() {
        let upper = "A".repeat(64);
        let lower = "a".repeat(64);
        check_refused(&format!("{upper}/1"), ParseDigestError::NotLowerHex);
        for at in 0..64 {
            for wrong in ["/", ":", "@", "`", "g", "A", "\0"] {
                let mut hash = lower.clone();
                hash.replace_range(at..=at, wrong);
                let parsed = Digest::parse_hash(&hash, 1);
                assert_eq!(parsed, Err(ParseDigestError::NotLowerHex), "{hash:?}");
            }
        }
        check_refused("abc/1", ParseDigestError::WrongLength { length: 3 });
        check_refused(&format!("{lower}/-1"), ParseDigestError::BadSize);
        check_refused(&format!("{lower}/+1"), ParseDigestError::BadSize);
        check_refused(&format!("{lower}/"), ParseDigestError::BadSize);
        check_refused(&lower, ParseDigestError::NoSeparator);
    }
}
