//! Platforms that are asked for, each kept once however many requirements name it.

use std::collections::BTreeSet;

use regatta_model::Platform;

use crate::fleet::{ClassKey, KindKey};

/// A platform that work asks for, or did a while ago.
#[derive(Debug)]
pub(crate) struct AskedPlatform {
    pub(crate) platform: Platform,
    /// The requirements that name it; never empty.
    pub(crate) classes: BTreeSet<ClassKey>,
    /// The kinds of agents that meet it.
    pub(crate) kinds: BTreeSet<KindKey>,
}

impl AskedPlatform {
    pub(crate) fn new(platform: Platform) -> Self {
        Self {
            platform,
            classes: BTreeSet::new(),
            kinds: BTreeSet::new(),
        }
    }
}
