//! What a task would like to find on its agent.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use regatta_model::{Digest, ImageReference};

use crate::Offer;

/// Stands for an image or an input tree in 64 bits.
///
/// Two may share a mark: then a task goes to an agent that is less warm than it seemed, no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Mark(u64);

impl Mark {
    pub(crate) fn of_image(image: &ImageReference) -> Self {
        Self(BuildHasherDefault::<DefaultHasher>::default().hash_one(image))
    }

    pub(crate) fn of_tree(tree: &Digest) -> Self {
        let mut prefix = [0; 8];
        prefix.copy_from_slice(&tree.hash()[..8]);
        Self(u64::from_be_bytes(prefix))
    }
}

/// What a task would like to find; kept beside it in the queue, so that looking ahead touches no task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wish {
    pub(crate) image: Option<Mark>,
    pub(crate) tree: Option<Mark>,
}

impl Wish {
    pub(crate) fn new(image: Option<&ImageReference>, tree: Option<&Digest>) -> Self {
        Self {
            image: image.map(Mark::of_image),
            tree: tree.map(Mark::of_tree),
        }
    }
}

/// What an agent has ready.
#[derive(Debug, Default)]
pub(crate) struct Warmth {
    marks: BTreeSet<Mark>,
}

impl Warmth {
    pub(crate) fn new(offer: &Offer) -> Self {
        let images = offer.images.iter().map(Mark::of_image);
        let trees = offer.trees.iter().map(Mark::of_tree);
        Self {
            marks: images.chain(trees).collect(),
        }
    }

    pub(crate) fn marks(&self) -> impl Iterator<Item = Mark> {
        self.marks.iter().copied()
    }

    /// How much of a wish is missing; an input tree weighs more than an image, because it is laid out
    /// for this task alone.
    pub(crate) fn coldness(&self, wish: Wish) -> u32 {
        self.coldness_among(wish, |_| true)
    }

    /// The same of those things alone that are `of_interest`.
    pub(crate) fn coldness_among(&self, wish: Wish, of_interest: impl Fn(Mark) -> bool) -> u32 {
        let missing = |mark: Option<Mark>| {
            mark.is_some_and(|mark| !self.marks.contains(&mark) && of_interest(mark))
        };
        2 * u32::from(missing(wish.tree)) + u32::from(missing(wish.image))
    }
}
