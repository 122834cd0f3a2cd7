//! Copy-on-write views of input trees.

mod copy;
mod furnish;
mod namespace;
mod overlay;
mod slot;
mod strategy;
mod untouched;

#[cfg(feature = "testing")]
pub(crate) use copy::copy_tree;

pub(crate) use furnish::Unfit;
pub(crate) use namespace::on_thread;
pub(crate) use slot::{SlotPaths, ViewSlot};
pub use strategy::ViewStrategy;
pub(crate) use strategy::{Views, probe};
