//! The digest of a file that a job left behind, however large it pretends to be.

use std::fs::File;
use std::io::{self, Read as _};

use regatta_model::{Digest, DigestHasher};
use tokio_util::sync::CancellationToken;

/// How much is read between two looks at whether it is still wanted.
const READ_BYTES: usize = 128 << 10;

/// Why a file has no digest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DigestError {
    #[error("it is larger than it may be")]
    TooLarge,
    #[error("nobody wants it any more")]
    Cancelled,
    #[error("it cannot be read")]
    Io(#[from] io::Error),
}

/// Reads a file of at most `max_bytes`. One that says that it is larger is not read at all.
pub(crate) fn digest_of(
    mut file: File,
    max_bytes: u64,
    cancel: &CancellationToken,
) -> Result<Digest, DigestError> {
    if file.metadata()?.len() > max_bytes {
        return Err(DigestError::TooLarge);
    }
    let mut hasher = DigestHasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if cancel.is_cancelled() {
            return Err(DigestError::Cancelled);
        }
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
        if hasher.size_bytes() > max_bytes {
            return Err(DigestError::TooLarge);
        }
    }
}
