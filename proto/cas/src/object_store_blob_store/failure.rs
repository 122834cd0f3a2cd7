//! What object_store says, as the port says it.

use std::error::Error;
use std::io;

use object_store::Error as ObjectError;
use regatta_model::Digest;

use super::guarded::Trouble;
use crate::StoreError;

/// How much of an error's text is kept, in bytes: some servers answer with whole pages.
const MAX_WORDS_BYTES: usize = 1024;

/// What an error about the object of `digest` means.
pub(super) fn store_error(digest: &Digest, error: ObjectError) -> StoreError {
    match error {
        ObjectError::NotFound { .. } => StoreError::NotFound { digest: *digest },
        other => read_error(other),
    }
}

/// What an error in the middle of a transfer means.
pub(super) fn read_error(error: ObjectError) -> StoreError {
    let detail = words_of(&error);
    match out_of_space(&error) {
        true => StoreError::Full {
            detail: format!("{detail}; make room there"),
        },
        false => StoreError::Unavailable { detail },
    }
}

/// What is wrong, with its causes, on one line.
pub(super) fn words_of(error: &ObjectError) -> String {
    let text = match Trouble::of(error) {
        Some(trouble) => trouble.to_string(),
        None => chain_of(error),
    };
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.len() > MAX_WORDS_BYTES {
        words.truncate(words.floor_char_boundary(MAX_WORDS_BYTES));
        words.push('\u{2026}');
    }
    words
}

fn cause_of<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let error: &'a (dyn Error + 'static) = *error;
    error.source()
}

/// Whether there is no room: of a disk, or of a quota.
pub(super) fn out_of_space(error: &(dyn Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), cause_of);
    causes
        .filter_map(<dyn Error>::downcast_ref::<io::Error>)
        .any(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge
            )
        })
}

/// An error with its causes, leaving out those that the text before already ends with.
fn chain_of(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let causes = std::iter::successors(error.source(), cause_of);
    for cause in causes.map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: io::ErrorKind) -> StoreError {
        let source = Box::new(io::Error::from(kind));
        read_error(ObjectError::Generic {
            store: "test",
            source,
        })
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        assert!(matches!(
            check(io::ErrorKind::StorageFull),
            StoreError::Full { .. }
        ));
        assert!(matches!(
            check(io::ErrorKind::BrokenPipe),
            StoreError::Unavailable { .. }
        ));
    }
}
