//! One submission of a run at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use regatta_model::RunId;
use tokio::sync::watch;

/// The ids of runs whose submission has not come to its end.
#[derive(Debug, Default)]
pub(super) struct Claims {
    held: watch::Sender<BTreeSet<RunId>>,
}

impl Claims {
    /// Waits until nobody else has the id.
    pub(super) async fn claim(self: &Arc<Self>, run: &RunId) -> Claim {
        let mut held = self.held.subscribe();
        loop {
            let mut is_ours = false;
            self.held.send_if_modified(|held| {
                is_ours = held.insert(run.clone());
                is_ours
            });
            if is_ours {
                return Claim {
                    claims: Arc::clone(self),
                    run: run.clone(),
                };
            }
            // The sender lives in `self`, so this cannot fail.
            drop(held.wait_for(|held| !held.contains(run)).await);
        }
    }
}

/// An id that nobody else can submit a run under until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Arc<Claims>,
    run: RunId,
}

impl Claim {
    /// The id.
    pub(super) const fn run(&self) -> &RunId {
        &self.run
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims
            .held
            .send_if_modified(|held| held.remove(&self.run));
    }
}
