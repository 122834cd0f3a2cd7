//! A `Tree` message, directory by directory: it may be larger than what fits into memory.

use bytes::{Buf as _, Bytes, BytesMut};
use futures::TryStreamExt as _;
use prost::encoding::WireType;
use regatta_cas::{BlobStream, StoreError};

use crate::cas::MAX_DIRECTORY_SIZE_BYTES;

/// The longest number in a message, in bytes.
const MAX_VARINT_BYTES: usize = 10;
/// The fields of `Tree` (REAPI).
const ROOT: u32 = 1;
const CHILDREN: u32 = 2;

/// A directory in a tree, as it was encoded.
#[derive(Debug, PartialEq)]
pub(super) enum TreePart {
    /// The top directory.
    Root(Bytes),
    /// One of the others.
    Child(Bytes),
}

/// Why a tree cannot be read on.
#[derive(Debug)]
pub(super) enum ReadTreeError {
    /// The store failed.
    Store(StoreError),
    /// The bytes are no `Tree` message.
    Malformed,
    /// A directory in it is larger than any may be.
    TooLarge,
}

/// Reads a tree.
pub(super) struct TreeReader {
    body: BlobStream,
    read: BytesMut,
}

impl TreeReader {
    /// Reads the tree whose bytes `body` gives.
    pub(super) fn new(body: BlobStream) -> Self {
        Self {
            body,
            read: BytesMut::new(),
        }
    }

    /// The next directory, in the order of the message.
    pub(super) async fn next(&mut self) -> Result<Option<TreePart>, ReadTreeError> {
        while self.fill(1).await? {
            let key = self.number().await?;
            let field = u32::try_from(key >> 3).map_err(|_| ReadTreeError::Malformed)?;
            let wire_type = WireType::try_from(key & 7).map_err(|_| ReadTreeError::Malformed)?;
            match (field, wire_type) {
                (ROOT, WireType::LengthDelimited) => {
                    return Ok(Some(TreePart::Root(self.bytes().await?)));
                }
                (CHILDREN, WireType::LengthDelimited) => {
                    return Ok(Some(TreePart::Child(self.bytes().await?)));
                }
                (0 | ROOT | CHILDREN, _) => return Err(ReadTreeError::Malformed),
                (_, unknown) => self.skip(unknown).await?,
            }
        }
        Ok(None)
    }

    /// Makes sure that `count` bytes can be taken; whether there are as many.
    async fn fill(&mut self, count: usize) -> Result<bool, ReadTreeError> {
        while self.read.len() < count {
            match self.body.try_next().await.map_err(ReadTreeError::Store)? {
                Some(piece) => self.read.extend_from_slice(&piece),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn number(&mut self) -> Result<u64, ReadTreeError> {
        // The last number of a message may be shorter than the longest.
        self.fill(MAX_VARINT_BYTES).await?;
        prost::encoding::decode_varint(&mut self.read).map_err(|_| ReadTreeError::Malformed)
    }

    async fn bytes(&mut self) -> Result<Bytes, ReadTreeError> {
        let length = self.number().await?;
        if length > MAX_DIRECTORY_SIZE_BYTES {
            return Err(ReadTreeError::TooLarge);
        }
        let length = usize::try_from(length).map_err(|_| ReadTreeError::TooLarge)?;
        match self.fill(length).await? {
            true => Ok(self.read.split_to(length).freeze()),
            false => Err(ReadTreeError::Malformed),
        }
    }

    async fn skip(&mut self, wire_type: WireType) -> Result<(), ReadTreeError> {
        let length = match wire_type {
            WireType::Varint => return self.number().await.map(drop),
            WireType::LengthDelimited => return self.bytes().await.map(drop),
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::StartGroup | WireType::EndGroup => return Err(ReadTreeError::Malformed),
        };
        if !self.fill(length).await? {
            return Err(ReadTreeError::Malformed);
        }
        self.read.advance(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt as _, StreamExt as _, stream};
    use proptest::prelude::*;
    use prost::Message as _;
    use regatta_wire::reapi::{Directory, SymlinkNode, Tree};

    /// What a reader makes of bytes that come in pieces of `piece_bytes`.
    fn read(bytes: &[u8], piece_bytes: usize) -> Option<Vec<TreePart>> {
        let pieces: Vec<_> = bytes
            .chunks(piece_bytes)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let mut reader = TreeReader::new(stream::iter(pieces).boxed());
        let mut parts = Vec::new();
        let reading = async {
            while let Some(part) = reader.next().await.ok()? {
                parts.push(part);
            }
            Some(())
        };
        reading.now_or_never()??;
        Some(parts)
    }

    fn directory(targets: Vec<String>) -> Directory {
        let link = |target| SymlinkNode {
            target,
            ..Default::default()
        };
        Directory {
            symlinks: targets.into_iter().map(link).collect(),
            ..Default::default()
        }
    }

    proptest! {
        #[test]
        fn a_tree_comes_out_as_it_went_in(
            root in proptest::option::of(proptest::collection::vec(".{0,9}", 0..4)),
            children in proptest::collection::vec(proptest::collection::vec(".{0,200}", 0..4), 0..6),
            piece_bytes in 1usize..300,
        ) {
            let tree = Tree {
                root: root.map(directory),
                children: children.into_iter().map(directory).collect(),
            };
            let mut expected = Vec::new();
            expected.extend(tree.root.iter().map(|it| TreePart::Root(it.encode_to_vec().into())));
            expected.extend(tree.children.iter().map(|it| TreePart::Child(it.encode_to_vec().into())));
            prop_assert_eq!(read(&tree.encode_to_vec(), piece_bytes), Some(expected));
        }

        /// What prost takes for a tree with at most one root, the reader takes for one, and nothing else.
        #[test]
        fn the_reader_agrees_with_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if Tree::decode(bytes.as_slice()).is_ok() {
                prop_assert!(read(&bytes, 7).is_some() || has_group(&bytes));
            }
        }
    }

    /// Groups are long out of use: the decoder skips them, the reader refuses them.
    fn has_group(bytes: &[u8]) -> bool {
        bytes.iter().any(|byte| matches!(byte & 7, 3 | 4))
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_no_tree() {
        for bytes in [
            b"\x0a".as_slice(),
            b"\x0a\x05abc",
            b"\x08\x01",
            b"\x00",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x12\xff\xff\xff\xff\x0f",
        ] {
            assert_eq!(read(bytes, 3), None, "{bytes:?}");
        }
        assert_eq!(read(b"", 3), Some(Vec::new()));
        assert_eq!(
            read(b"\x18\x01\x22\x01a", 3),
            Some(Vec::new()),
            "unknown fields"
        );
    }
}
