//! What the images of this machine are called. The coordinator is told as soon as that changes: results are known by
//! what a name means.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use regatta_model::{Backoff, ImageReference};
use regatta_runtime::ContainerRuntime;
use tokio::time::Instant;

use crate::connection::randomness;
use crate::occurrence::{Occurrence, OccurrenceSender};
use crate::slot::Workshop;

/// How often the engine is asked for its images if it tells of no change.
const INTERVAL: Duration = Duration::from_secs(15);
/// How long to wait for more after a change: a build makes several.
const DEBOUNCE: Duration = Duration::from_millis(5);
/// How long to wait before the first and between later attempts to listen again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often names of images were seen to mean something else. Who has found out what one means need not ask again
/// while this stays.
#[derive(Debug, Default)]
pub(crate) struct ImageChanges(AtomicU64);

impl ImageChanges {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn note(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Looks after the names of images.
#[derive(Debug)]
pub(crate) struct ImageWatch {
    runtime: Arc<dyn ContainerRuntime>,
    changes: Arc<ImageChanges>,
    driver: OccurrenceSender,
}

impl ImageWatch {
    /// A watch for all slots of a workshop.
    pub(crate) fn new(workshop: &Workshop) -> Self {
        Self {
            runtime: Arc::clone(&workshop.runtime),
            changes: Arc::clone(&workshop.image_changes),
            driver: workshop.driver.clone(),
        }
    }

    /// Looks at the images whenever the engine says that they have changed, and from time to time. Ends with the driver.
    pub(crate) async fn run(self) {
        let mut known = Vec::new();
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while !self.driver.is_closed() {
            let begun = Instant::now();
            self.listen(&mut known).await;
            if begun.elapsed() > PAUSES.1 {
                backoff.reset();
            }
            tokio::time::sleep(backoff.delay(randomness())).await;
        }
    }

    /// The same until the engine does not tell any more.
    async fn listen(&self, known: &mut Vec<(ImageReference, String)>) {
        // Before the first look, so that nothing happens unseen between the two.
        let mut changes = self.runtime.image_changes();
        loop {
            self.look(known).await;
            let change = tokio::select! {
                change = changes.next() => change,
                () = tokio::time::sleep(INTERVAL) => continue,
                () = self.driver.closed() => return,
            };
            match change {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    return tracing::info!(%error, "the engine tells of no changes of images");
                }
                None => return tracing::info!("the engine tells of no more changes of images"),
            }
            tokio::time::sleep(DEBOUNCE).await;
            while let Some(Some(Ok(()))) = changes.next().now_or_never() {}
        }
    }

    async fn look(&self, known: &mut Vec<(ImageReference, String)>) {
        match self.runtime.images().await {
            Ok(images) => {
                if *known != images {
                    known.clone_from(&images);
                    self.changes.note();
                }
                // If the driver is gone, nobody wants to know.
                self.driver.send(Occurrence::Images(images)).await.ok();
            }
            Err(error) => tracing::warn!(%error, "the engine does not tell its images"),
        }
    }
}

#[cfg(test)]
mod tests {
    use regatta_runtime::fake::{FakeRun, FakeRuntime};
    use tokio::sync::mpsc::Receiver;

    use super::*;
    use crate::occurrence::occurrence_queue;

    /// What a name is seen to mean next, and how long that took.
    async fn meaning(told: &mut Receiver<Occurrence>) -> (String, Duration) {
        let begun = Instant::now();
        match told.recv().await {
            Some(Occurrence::Images(images)) => (images[0].1.clone(), begun.elapsed()),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_means_something_else_is_seen_at_once_and_after_the_engine_was_away() {
        let fake = FakeRuntime::new("unused".into(), |_| FakeRun::exit(0));
        let name: ImageReference = "img:1".parse().unwrap();
        fake.add_image(name.clone(), "sha256:a");
        let (driver, mut told) = occurrence_queue();
        let changes = Arc::new(ImageChanges::default());
        let watch = ImageWatch {
            runtime: Arc::new(fake.clone()),
            changes: Arc::clone(&changes),
            driver,
        };
        let watching = tokio::spawn(watch.run());
        assert_eq!(meaning(&mut told).await.0, "sha256:a");
        assert_eq!(changes.count(), 1);
        fake.move_image(&name, "sha256:b");
        let (id, took) = meaning(&mut told).await;
        assert_eq!(id, "sha256:b");
        assert!(took < Duration::from_millis(50), "{took:?}");
        assert_eq!(changes.count(), 2);
        // Nothing happens, and it is looked all the same.
        let (id, took) = meaning(&mut told).await;
        assert_eq!((id.as_str(), changes.count()), ("sha256:b", 2));
        assert!(took >= INTERVAL, "{took:?}");
        fake.set_away(true);
        let (_, took) = meaning(&mut told).await;
        assert!(took < INTERVAL, "it listens again: {took:?}");
        fake.move_image(&name, "sha256:c");
        fake.set_away(false);
        let seen = async { while meaning(&mut told).await.0 != "sha256:c" {} };
        tokio::time::timeout(PAUSES.1, seen).await.unwrap();
        drop(told);
        watching.await.unwrap();
    }
}
