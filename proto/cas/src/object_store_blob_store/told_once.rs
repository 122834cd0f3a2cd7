//! What is said of a blob once, however often it is asked for.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use regatta_model::Digest;

/// Of how many blobs it is remembered. Past that it is said again.
const MAX_REMEMBERED: usize = 1000;

/// The blobs of which something has been said.
#[derive(Debug, Default)]
pub(super) struct ToldOnce {
    told: Mutex<HashSet<Digest>>,
}

impl ToldOnce {
    /// Whether it is to be said of this blob.
    pub(super) fn is_news(&self, digest: &Digest) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.contains(digest) {
            return false;
        }
        if told.len() >= MAX_REMEMBERED {
            told.clear();
        }
        told.insert(*digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_blob_is_news_once_and_few_are_remembered() {
        let told = ToldOnce::default();
        let blobs = (0..MAX_REMEMBERED).map(|number| Digest::of(&number.to_le_bytes()));
        for blob in blobs {
            assert!(told.is_news(&blob) && !told.is_news(&blob));
        }
        let count = || told.told.lock().expect("nobody panicked").len();
        assert!(count() <= MAX_REMEMBERED);
        assert!(told.is_news(&Digest::of(b"one more")));
        assert!(count() <= MAX_REMEMBERED);
    }
}
