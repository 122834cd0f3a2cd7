//! Whether new work is taken: whoever has a reason against it says so.

use std::collections::BTreeMap;

use regatta_agent_core::Event;
use tokio::sync::Mutex;

use crate::occurrence::{Occurrence, OccurrenceSender};

/// What new work may fail for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Need {
    Disk,
    Engine,
}

/// All reasons against new work.
#[derive(Debug)]
pub(crate) struct Availability {
    reasons: Mutex<BTreeMap<Need, String>>,
    driver: OccurrenceSender,
}

impl Availability {
    pub(crate) fn new(driver: OccurrenceSender) -> Self {
        Self {
            reasons: Mutex::default(),
            driver,
        }
    }

    /// Says why new work is not to be taken, or that this is no reason any more.
    pub(crate) async fn tell(&self, need: Need, reason: Option<String>) {
        // Locked until the driver has it: what is said last is what holds.
        let mut reasons = self.reasons.lock().await;
        let before = match reason {
            Some(reason) => reasons.insert(need, reason),
            None => reasons.remove(&need),
        };
        if before.as_ref() == reasons.get(&need) {
            return;
        }
        let all: Vec<&str> = reasons.values().map(String::as_str).collect();
        let all = (!all.is_empty()).then(|| all.join("; "));
        // If the driver is gone, no work is taken in any case.
        let event = Occurrence::Core(Event::Unavailable(all));
        self.driver.send(event).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::occurrence::occurrence_queue;

    #[tokio::test]
    async fn work_is_welcome_once_nobody_has_a_reason_against_it() {
        let (driver, mut told) = occurrence_queue();
        let availability = Availability::new(driver);
        let full = || Some("full".to_owned());
        let away = || Some("away".to_owned());
        let steps = [
            (Need::Disk, full(), Some(full())),
            (Need::Engine, away(), Some(Some("full; away".to_owned()))),
            (Need::Engine, away(), None),
            (Need::Disk, None, Some(away())),
            (Need::Disk, None, None),
            (Need::Engine, None, Some(None)),
        ];
        for (need, reason, expected) in steps {
            availability.tell(need, reason).await;
            let event = told.try_recv().ok().map(|it| match it {
                Occurrence::Core(Event::Unavailable(reason)) => reason,
                other => panic!("{other:?}"),
            });
            assert_eq!(event, expected);
        }
    }
}
