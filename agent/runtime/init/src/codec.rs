//! Frames: a length (`u32`, little endian, without itself), a kind byte, fields.

use std::fmt;

/// Bytes before the payload of a frame.
pub const FRAME_HEADER_BYTES: usize = 4;

/// The longest payload. Linux allows about 6 MiB of arguments and environment at most.
pub const FRAME_LIMIT_BYTES: usize = 8 * 1024 * 1024;

/// A message cannot be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EncodeError {
    /// The payload exceeds [`FRAME_LIMIT_BYTES`]; no `exec` would take it either.
    TooLong,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => formatter.write_str("the message exceeds the frame limit"),
        }
    }
}

impl std::error::Error for EncodeError {}

/// Received bytes are no message. The peer speaks something else; give it up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// The frame's length exceeds [`FRAME_LIMIT_BYTES`].
    TooLong,
    /// A field goes past the end of its frame.
    Truncated,
    /// Bytes are left over after the last field.
    Trailing,
    /// No message has this kind byte.
    UnknownKind(u8),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => formatter.write_str("the frame exceeds its limit"),
            Self::Truncated => formatter.write_str("a field goes past the end of the frame"),
            Self::Trailing => formatter.write_str("the frame has bytes after its last field"),
            Self::UnknownKind(kind) => write!(formatter, "no message has the kind {kind}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// The length of the payload that follows the header at the start of `bytes`, once the header is whole.
///
/// # Errors
/// The length exceeds the limit.
pub fn frame_length(bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
    let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_le_bytes(*header)).map_err(|_| DecodeError::TooLong)?;
    if length > FRAME_LIMIT_BYTES {
        return Err(DecodeError::TooLong);
    }
    Ok(Some(length))
}

/// Builds one frame.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(kind: u8) -> Self {
        Self(vec![0, 0, 0, 0, kind])
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(crate) fn list(&mut self, values: &[Vec<u8>]) {
        self.u64(values.len() as u64);
        for value in values {
            self.bytes(value);
        }
    }

    pub(crate) fn finish(mut self) -> Result<Vec<u8>, EncodeError> {
        let length = self.0.len() - FRAME_HEADER_BYTES;
        if length > FRAME_LIMIT_BYTES {
            return Err(EncodeError::TooLong);
        }
        let header = u32::try_from(length).map_err(|_| EncodeError::TooLong)?;
        self.0[..FRAME_HEADER_BYTES].copy_from_slice(&header.to_le_bytes());
        Ok(self.0)
    }
}

/// Takes one payload apart.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, DecodeError> {
        let length = usize::try_from(self.u64()?).map_err(|_| DecodeError::Truncated)?;
        let (head, tail) = self
            .0
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.0 = tail;
        Ok(head.to_vec())
    }

    /// Each element takes eight bytes at least, so memory stays in proportion to the frame.
    pub(crate) fn list(&mut self) -> Result<Vec<Vec<u8>>, DecodeError> {
        let count = self.u64()?;
        if count > (self.0.len() / 8) as u64 {
            return Err(DecodeError::Truncated);
        }
        (0..count).map(|_| self.bytes()).collect()
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing)
        }
    }
}
