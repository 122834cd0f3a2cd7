//! The pages of `GetTree`.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use prost::Message as _;
use regatta_cas::{BlobStore, StoreError};
use regatta_model::Digest;
use regatta_wire::reapi;

use super::directories::{DirectoryError, read_directory, references};
use super::input_trees::MAX_DIRECTORIES;
use crate::status::{self, Failure};

/// How much of a tree is sent in one message, in bytes; a single larger directory goes alone.
const TREE_PAGE_BYTES: usize = 1 << 20;

/// A walk through a tree, breadth first, each directory once.
pub(super) struct TreeWalk {
    blobs: Arc<dyn BlobStore>,
    /// The next directory, read ahead so that the last page is known to be the last.
    next: Option<reapi::Directory>,
    queue: VecDeque<Digest>,
    seen: HashSet<Digest>,
    page_size: usize,
    sent: usize,
}

impl TreeWalk {
    /// A walk from `root` in pages of at most `page_size` directories. The root has to be there.
    pub(super) async fn start(
        blobs: Arc<dyn BlobStore>,
        root: Digest,
        page_size: usize,
    ) -> Result<Self, Failure> {
        let directory = read_directory(blobs.as_ref(), &root)
            .await
            .map_err(of_directory)?;
        let mut walk = Self {
            blobs,
            next: None,
            queue: VecDeque::new(),
            seen: HashSet::from([root]),
            page_size,
            sent: 0,
        };
        // A malformed root is sent as it is: whoever asks for it can see what is wrong.
        walk.queue_children(&root, &directory);
        walk.next = Some(directory);
        Ok(walk)
    }

    /// Passes over the first `count` directories.
    pub(super) async fn skip(&mut self, count: usize) -> Result<(), Failure> {
        while self.sent < count {
            if self.take().await?.is_none() {
                return Err(status::invalid_argument(
                    "page_token",
                    "is beyond the tree's end",
                ));
            }
        }
        Ok(())
    }

    /// The next page. The last one has no token.
    pub(super) async fn page(&mut self) -> Result<reapi::GetTreeResponse, Failure> {
        let (mut directories, mut size) = (Vec::new(), 0);
        while directories.len() < self.page_size && size < TREE_PAGE_BYTES {
            let Some(directory) = self.take().await? else {
                break;
            };
            size += directory.encoded_len();
            directories.push(directory);
        }
        let next_page_token = match self.next {
            Some(_) => self.sent.to_string(),
            None => String::new(),
        };
        Ok(reapi::GetTreeResponse {
            directories,
            next_page_token,
        })
    }

    async fn take(&mut self) -> Result<Option<reapi::Directory>, Failure> {
        let Some(directory) = self.next.take() else {
            return Ok(None);
        };
        self.sent += 1;
        tokio::task::consume_budget().await;
        while self.next.is_none() {
            let Some(digest) = self.queue.pop_front() else {
                break;
            };
            self.next = self.read(&digest).await?;
        }
        Ok(Some(directory))
    }

    /// A directory; `None` if it is missing, which is no error (REAPI, `GetTree`).
    async fn read(&mut self, digest: &Digest) -> Result<Option<reapi::Directory>, Failure> {
        match read_directory(self.blobs.as_ref(), digest).await {
            Ok(directory) => {
                self.queue_children(digest, &directory);
                self.check_size()?;
                Ok(Some(directory))
            }
            Err(DirectoryError::Store(StoreError::NotFound { .. })) => Ok(None),
            Err(error) => Err(of_directory(error)),
        }
    }

    fn queue_children(&mut self, digest: &Digest, directory: &reapi::Directory) {
        let children = references(digest, directory)
            .unwrap_or_default()
            .directories;
        let new: Vec<_> = children
            .into_iter()
            .filter(|child| self.seen.insert(*child))
            .collect();
        self.queue.extend(new);
    }

    fn check_size(&self) -> Result<(), Failure> {
        if self.seen.len() > MAX_DIRECTORIES {
            let limit = MAX_DIRECTORIES;
            let description = format!("the tree has more than {limit} directories");
            return Err(status::invalid_argument("root_digest", description));
        }
        Ok(())
    }
}

fn of_directory(error: DirectoryError) -> Failure {
    match &error {
        DirectoryError::Store(error) => status::of_read(error),
        DirectoryError::NotADirectory { .. }
        | DirectoryError::BadName { .. }
        | DirectoryError::BadDigest { .. }
        | DirectoryError::NotCanonical { .. }
        | DirectoryError::TooLarge { .. } => {
            status::invalid_argument("root_digest", status::with_sources(&error))
        }
    }
}
