//! Why an input root cannot be laid out.

use std::io;
use std::path::{Path, PathBuf};

use regatta_cas::StoreError;
use regatta_cas::merkle::LoadError;
use regatta_model::Digest;

/// How many missing blobs a message names; all are listed beside it.
const NAMED_BLOBS: usize = 3;

/// Why an input root cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    /// Blobs are not in the store. Upload them.
    #[error("{}", describe(digests))]
    Missing { digests: Vec<Digest> },
    /// The tree is not one. Fix it.
    #[error("the input root is not valid: {detail}")]
    Invalid { detail: String },
    /// The store does not answer. Trying elsewhere may help.
    #[error("fetching the input root failed")]
    Store(#[source] StoreError),
    /// This machine cannot hold the tree.
    #[error("laying out the input root failed at {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl TreeError {
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

impl From<LoadError> for TreeError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Store {
                source: StoreError::NotFound { digest },
                ..
            } => Self::Missing {
                digests: vec![digest],
            },
            LoadError::Store { source, .. } => Self::Store(source),
            LoadError::Invalid { ref source, .. } => Self::Invalid {
                detail: format!("{error}: {source}"),
            },
            LoadError::TooLarge { .. } => Self::Invalid {
                detail: error.to_string(),
            },
        }
    }
}

fn describe(digests: &[Digest]) -> String {
    let named: Vec<_> = digests
        .iter()
        .take(NAMED_BLOBS)
        .map(ToString::to_string)
        .collect();
    let rest = digests.len().saturating_sub(NAMED_BLOBS);
    let and_more = if rest > 0 {
        format!(" and {rest} more")
    } else {
        String::new()
    };
    format!(
        "the store lacks blobs of the input root, upload them: {}{and_more}",
        named.join(", ")
    )
}
