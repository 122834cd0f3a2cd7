//! Between the end of a task and the moment its result is in the action cache.
//!
//! In that moment an identical action would find neither a task to be merged with nor a result, and run
//! again. Executions are announced here together with their tasks, and stay until their result is stored,
//! so that one that comes in between can wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use regatta_model::{Digest, TenantId};
use tokio::sync::watch;

/// Whose action.
type Key = (TenantId, Digest);
/// Shared by all executions of an action, and gone when the last of them is. Upgraded under the lock only.
type Shared = Weak<watch::Sender<()>>;

/// The executions whose results are not stored yet, by action. Bounded by the dispatcher's queue.
#[derive(Debug, Default)]
pub(crate) struct Publications {
    pending: Mutex<HashMap<Key, Shared>>,
}

/// What became of a submission.
#[derive(Debug)]
pub(super) enum Announced<Task> {
    /// It is under way.
    Submitted(Task, Publication),
    /// Its result is being stored by somebody else.
    Awaited(AwaitedPublication),
}

/// What a task is to be submitted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Submission {
    /// To have the work done.
    Any,
    /// To share in work under way, if there is any.
    Merged,
}

impl Publications {
    /// Submits the task of an action and announces its result. With `may_wait`, and if an earlier execution
    /// is announced, the task is only to be merged; where that cannot be, the earlier one's task has ended
    /// and it is about to store its result. `submit` may find a result instead of making a task.
    pub(super) fn submit<Task, Error>(
        self: &Arc<Self>,
        key: &Key,
        may_wait: bool,
        submit: impl FnOnce(Submission) -> Result<Option<Task>, Error>,
    ) -> Result<Announced<Task>, Error> {
        // Submitting under the lock: whoever is announced has been submitted.
        let mut pending = self.lock();
        let earlier = pending.get(key).and_then(Weak::upgrade);
        let submission = match earlier.is_some() && may_wait {
            true => Submission::Merged,
            false => Submission::Any,
        };
        let task = submit(submission)?;
        let sender = earlier.unwrap_or_default();
        let Some(task) = task else {
            let receiver = sender.subscribe();
            return Ok(Announced::Awaited(AwaitedPublication { receiver }));
        };
        pending.insert(key.clone(), Arc::downgrade(&sender));
        let publication = Publication {
            publications: Arc::clone(self),
            key: key.clone(),
            sender: Some(sender),
        };
        Ok(Announced::Submitted(task, publication))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Shared>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An execution that may yet store a result. Dropped once it has, or will not.
#[derive(Debug)]
pub(super) struct Publication {
    publications: Arc<Publications>,
    key: Key,
    sender: Option<Arc<watch::Sender<()>>>,
}

impl Drop for Publication {
    fn drop(&mut self) {
        let mut pending = self.publications.lock();
        drop(self.sender.take());
        let is_last = pending
            .get(&self.key)
            .is_some_and(|shared| shared.strong_count() == 0);
        if is_last {
            pending.remove(&self.key);
        }
    }
}

/// A result that is about to be stored.
#[derive(Debug)]
pub(super) struct AwaitedPublication {
    receiver: watch::Receiver<()>,
}

impl AwaitedPublication {
    /// Waits until it is stored, or will not be.
    pub(super) async fn ended(mut self) {
        // Nothing is ever sent: that the senders are gone is the message.
        while self.receiver.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::FutureExt as _;

    use super::*;

    fn submit(
        publications: &Arc<Publications>,
        may_wait: bool,
        expected: Submission,
        is_merged: bool,
    ) -> Announced<()> {
        let key = ("main".parse().unwrap(), Digest::of(b"action"));
        let task = |submission| {
            assert_eq!(submission, expected);
            Ok::<_, Infallible>((submission == Submission::Any || is_merged).then_some(()))
        };
        publications.submit(&key, may_wait, task).unwrap()
    }

    fn submitted(announced: Announced<()>) -> Publication {
        match announced {
            Announced::Submitted((), publication) => publication,
            Announced::Awaited(_) => panic!("there is nothing to wait for"),
        }
    }

    #[test]
    fn who_is_late_for_merging_waits_for_every_result() {
        let publications = Arc::new(Publications::default());
        let first = submitted(submit(&publications, true, Submission::Any, false));
        let second = submitted(submit(&publications, true, Submission::Merged, true));
        let Announced::Awaited(awaited) = submit(&publications, true, Submission::Merged, false)
        else {
            panic!("the first is about to store its result")
        };
        let mut ended = Box::pin(awaited.ended());
        assert_eq!((&mut ended).now_or_never(), None);
        drop(first);
        assert_eq!((&mut ended).now_or_never(), None);
        drop(second);
        assert_eq!(ended.now_or_never(), Some(()));
        assert!(publications.lock().is_empty(), "nothing is left behind");
        submitted(submit(&publications, true, Submission::Any, false));
    }

    #[test]
    fn who_wants_no_earlier_result_does_not_wait() {
        let publications = Arc::new(Publications::default());
        let _first = submitted(submit(&publications, true, Submission::Any, false));
        let _second = submitted(submit(&publications, false, Submission::Any, false));
    }
}
