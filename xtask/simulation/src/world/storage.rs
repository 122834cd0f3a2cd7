//! Who counts on what is stored.

use regatta_model::Digest;

use super::World;
use crate::job::InputTree;
use crate::large::LargeUse;
use crate::said::Promise;
use crate::violation::{Checked, Invariant};

/// Of a thousand things that are removed, how many are uploaded again at once.
const WANTED_AGAIN_PERMILLE: u64 = 150;

impl World {
    /// Somebody is told that something is stored.
    pub(super) fn promised(&mut self, promise: &Promise) -> Checked {
        self.there_when_told(promise)?;
        if !self.plan.storage.is_swept {
            self.model.promises.told(promise);
        }
        Ok(())
    }

    /// What somebody is told to be stored is.
    pub(super) fn there_when_told(&self, promise: &Promise) -> Checked {
        // Somebody else may let it go.
        if self.plan.storage.is_swept {
            return Ok(());
        }
        let mut blobs = promise.blobs.iter();
        let absent = blobs.find(|blob| !self.durable.stock.has(blob));
        Invariant::PromisesAreKept.holds(absent.is_none(), || {
            let by = promise.by;
            format!("{absent:?} is not there, and {by} said so")
        })
    }

    /// Something is about to be removed: some of it is wanted again just then.
    pub(super) fn removing(&mut self, key: &Digest) {
        let inputs = self.plan.uploads.iter().flat_map(|(_, it)| &it.blobs);
        let wanted = inputs
            .into_iter()
            .find(|it| Digest::of(it) == *key)
            .cloned();
        let coordinator = self.coordinator.as_ref().filter(|it| it.is_up());
        if let (Some(bytes), Some(coordinator)) = (wanted, coordinator)
            && self.random.chance(WANTED_AGAIN_PERMILLE)
        {
            coordinator.provide(InputTree { blobs: vec![bytes] });
        }
        self.removing_of_large(key);
    }

    fn removing_of_large(&mut self, key: &Digest) {
        let mut large = self.plan.large.iter().map(|(_, blob, _)| blob);
        let large = large.find(|it| it.digest == *key || it.chunks.contains(key));
        let coordinator = self.coordinator.as_ref().filter(|it| it.is_up());
        if let (Some(blob), Some(coordinator)) = (large, coordinator)
            && self.random.chance(WANTED_AGAIN_PERMILLE)
        {
            let kinds = [LargeUse::Splice, LargeUse::Split];
            let kind = kinds[self.random.index(kinds.len())];
            coordinator.have_large(blob.clone(), kind);
        }
    }

    /// Something was removed.
    pub(super) fn check_promises(&mut self) -> Checked {
        if self.plan.storage.is_swept {
            return Ok(());
        }
        let (stock, open) = (self.durable.stock.clone(), self.open_clients());
        let promises = &mut self.model.promises;
        promises.check(self.now, |blob| stock.has(blob), |run| open.contains(&run))?;
        if !self.plan.is_orderly() {
            return Ok(());
        }
        for (blob, chunks) in stock.lists() {
            let absent = chunks.iter().find(|chunk| !stock.has(chunk));
            Invariant::ResultsGoFirst.holds(absent.is_none(), || {
                format!("the list of {blob} names {absent:?}, which was let go")
            })?;
        }
        for result in stock.results() {
            let absent = crate::job::blobs_of(&result).find(|blob| !stock.has(blob));
            Invariant::ResultsGoFirst.holds(absent.is_none(), || {
                format!("a result names {absent:?}, which was let go: {result:?}")
            })?;
        }
        Ok(())
    }

    /// What was read is something else: it is taken to be damaged, and goes.
    pub(super) fn spoilt(&mut self, key: &Digest) {
        let promises = &mut self.model.promises;
        promises.forget(key);
        for blob in self.durable.stock.packed_with(key) {
            promises.forget(&blob);
        }
        self.spoilt_large(key);
    }

    /// What is made of something that was read as something else goes with it.
    fn spoilt_large(&mut self, key: &Digest) {
        let stock = &self.durable.stock;
        let spoilt = [vec![*key], stock.packed_with(key)].concat();
        let lists = stock.lists().into_iter();
        let made = lists.filter(|(_, chunks)| chunks.iter().any(|it| spoilt.contains(it)));
        for (blob, _) in made {
            self.model.promises.forget(&blob);
        }
    }

    /// Somebody does something with a large blob.
    pub(super) fn have_large(&mut self, number: usize) {
        let (_, blob, kind) = &self.plan.large[number];
        let coordinator = self.coordinator.as_ref().filter(|it| it.is_up());
        if let Some(coordinator) = coordinator {
            coordinator.have_large(blob.clone(), *kind);
            self.tell(&format!("somebody has {}: {kind:?}", blob.digest));
        }
    }

    /// A large blob was read to its end.
    pub(super) fn read(&self, digest: &Digest, is_right: bool) -> Checked {
        Invariant::ResultsAreTrue.holds(is_right, || {
            format!("{digest} was read, and is something else")
        })
    }

    /// Somebody uploads what no run needs.
    pub(super) fn provide(&mut self, number: usize) {
        let coordinator = self.coordinator.as_ref().filter(|it| it.is_up());
        if let Some(coordinator) = coordinator {
            coordinator.provide(self.plan.uploads[number].1.clone());
            self.tell("somebody uploads what is missing");
        }
    }
}
