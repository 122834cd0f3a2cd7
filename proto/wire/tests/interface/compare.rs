//! Compares a type of ours with its counterpart.

use std::fmt::Debug;

use prost::bytes::Bytes;
use prost::{Message, Name};

use crate::filler::{Filler, Pool};

/// No oneof of the packages has more members.
const VARIANTS: usize = 4;
/// No enum of the packages has numbers outside.
const ENUM_NUMBERS: std::ops::Range<i32> = -1..64;

/// A message of ours and its counterpart.
pub(crate) struct MessagePair {
    pub(crate) name: String,
    pub(crate) check: fn(&Pool),
}

impl MessagePair {
    pub(crate) fn new<Ours, Theirs>() -> Self
    where
        Ours: Message + Name + Default + Debug,
        Theirs: Message + Default + Debug,
    {
        Self {
            name: Ours::full_name(),
            check: check_message::<Ours, Theirs>,
        }
    }
}

/// Decodes a value with every field set with either implementation. If one lacks a field, or has it under
/// another number or type, its encoding differs; if under another name, its debug text does.
fn check_message<Ours, Theirs>(pool: &Pool)
where
    Ours: Message + Name + Default + Debug,
    Theirs: Message + Default + Debug,
{
    let name = Ours::full_name();
    for variant in 0..VARIANTS {
        let sample = Filler::fill(pool, &name, variant);
        let theirs = decode::<Theirs>(&name, &sample.encoded);
        let ours = decode::<Ours>(&name, &sample.encoded);
        assert_eq!(theirs.encode_to_vec(), sample.encoded, "{name}: {theirs:?}");
        assert_eq!(ours.encode_to_vec(), sample.encoded, "{name}: {ours:?}");
        assert_eq!(
            text(&ours, &sample.blobs),
            text(&theirs, &sample.blobs),
            "{name}"
        );
    }
}

fn decode<M: Message + Default>(name: &str, encoded: &[u8]) -> M {
    M::decode(encoded).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The debug text without what may differ: blobs print as lists of numbers (`Vec<u8>` does so, `Bytes`
/// does not), and wrapped numbers as numbers (as prost does unless told to generate the wrappers).
fn text(message: &impl Debug, blobs: &[Bytes]) -> String {
    const WRAPPER: &str = "UInt32Value { value: ";
    let text = blobs.iter().fold(format!("{message:?}"), |text, blob| {
        text.replace(&format!("{blob:?}"), &format!("{:?}", blob.to_vec()))
    });
    let mut pieces = text.split(WRAPPER);
    let mut unwrapped = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        unwrapped.push_str(&piece.replacen(" }", "", 1));
    }
    unwrapped
}

/// An enum of ours and its counterpart: the name of a number, if it has one.
pub(crate) struct EnumPair {
    pub(crate) name: &'static str,
    pub(crate) ours: fn(i32) -> Option<&'static str>,
    pub(crate) theirs: fn(i32) -> Option<&'static str>,
}

impl EnumPair {
    pub(crate) fn check(&self, pool: &Pool) {
        for number in ENUM_NUMBERS {
            assert_eq!((self.ours)(number), (self.theirs)(number), "{}", self.name);
        }
        for (name, number) in pool.enum_values(self.name) {
            assert_eq!((self.ours)(number), Some(name), "{}", self.name);
        }
    }
}
