//! Remote Asset API: content by the URIs that it can be had from, as far as clients pushed it. Nothing is
//! downloaded here.
//!
//! Invariants:
//! - An asset is given out only while it and everything it refers to is present.
//! - Assets of one tenant are invisible to every other: the tenant is part of the key.
//! - Whoever may upload blobs may push. Unlike an action result, an asset is never taken for the outcome
//!   of a computation; BuildStream's caches are made of such pushes.

mod key;
mod request;
mod service;
mod store;

pub(crate) use service::{FetchService, PushService};
pub(crate) use store::{AssetStore, is_asset};
