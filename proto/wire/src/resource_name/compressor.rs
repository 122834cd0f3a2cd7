//! How a blob is compressed on its way.

use crate::reapi::compressor::Value;

/// How a blob is compressed on its way (REAPI `Compressor.Value`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compressor {
    /// Not at all.
    #[default]
    Identity,
    /// Zstandard (RFC 8878).
    Zstd,
    /// DEFLATE without any wrapping (RFC 1951).
    Deflate,
    /// Brotli (RFC 7932).
    Brotli,
}

impl Compressor {
    /// The name in a resource name; none for [`Compressor::Identity`], which is not written.
    #[must_use]
    pub const fn segment(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Zstd => Some("zstd"),
            Self::Deflate => Some("deflate"),
            Self::Brotli => Some("brotli"),
        }
    }

    /// The compressor of that name in a resource name.
    pub(super) fn from_segment(segment: &str) -> Option<Self> {
        [Self::Zstd, Self::Deflate, Self::Brotli]
            .into_iter()
            .find(|compressor| compressor.segment() == Some(segment))
    }
}

impl From<Value> for Compressor {
    fn from(value: Value) -> Self {
        match value {
            Value::Identity => Self::Identity,
            Value::Zstd => Self::Zstd,
            Value::Deflate => Self::Deflate,
            Value::Brotli => Self::Brotli,
        }
    }
}

impl From<Compressor> for Value {
    fn from(compressor: Compressor) -> Self {
        match compressor {
            Compressor::Identity => Self::Identity,
            Compressor::Zstd => Self::Zstd,
            Compressor::Deflate => Self::Deflate,
            Compressor::Brotli => Self::Brotli,
        }
    }
}
