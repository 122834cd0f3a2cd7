//! Blobs that are kept as chunks from some moment on.

use std::sync::Arc;

use regatta_cas::LeavingWhole;
use regatta_model::Digest;

use super::Retention;
use super::entry::Entry;

impl Retention {
    /// Notes that a blob is kept as chunks from now on: whoever used the blob used these. Its whole is going until
    /// the answer is dropped; nothing if it has to stay, as somebody writes it.
    pub(crate) fn split(
        self: &Arc<Self>,
        blob: &Digest,
        chunks: &[Digest],
    ) -> Option<Box<dyn LeavingWhole>> {
        let entry = self.index.split(blob, chunks)?;
        Some(Box::new(SplitBlob {
            retention: Arc::clone(self),
            entry,
            is_gone: false,
        }))
    }
}

/// The whole of a blob that is kept as chunks by now. Unless it is said to be gone, it stays as it was.
struct SplitBlob {
    retention: Arc<Retention>,
    entry: Entry,
    is_gone: bool,
}

impl LeavingWhole for SplitBlob {
    fn gone(mut self: Box<Self>) {
        self.is_gone = true;
    }
}

impl Drop for SplitBlob {
    fn drop(&mut self) {
        self.retention.index.settle(&self.entry, self.is_gone);
    }
}
