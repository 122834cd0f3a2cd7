//! Input roots, laid out once and shown to many jobs.

mod cache;
mod error;
mod layout;

pub(crate) use cache::{InputTreeCache, PinnedTree, TreeKey};
pub(crate) use error::TreeError;
