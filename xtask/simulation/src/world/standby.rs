//! A coordinator that stands still, and goes on when another has its place.

use std::time::Duration;

use super::happening::Happening;
use super::{Ended, World};
use crate::coordinator::Coordinator;
use crate::said::Said;

/// How long it takes until another has the place of one that is silent, in milliseconds.
const SUCCESSION_MILLIS: (u64, u64) = (7000, 10_000);
/// How long one goes on that has lost its place: by then it has asked the ledger, and ends.
const AFTERLIFE: Duration = Duration::from_secs(4);

/// One that stands still, or has done so.
#[derive(Debug)]
pub(super) struct Hung {
    coordinator: Coordinator,
    since: Duration,
    /// Until when it goes on, once it does.
    ends: Option<Duration>,
}

impl World {
    pub(super) fn hang(&mut self, length: Duration) {
        let Some(coordinator) = self.coordinator.take() else {
            return;
        };
        self.tell(&format!("the coordinator hangs for {length:?}"));
        self.hung = Some(Hung {
            coordinator,
            since: self.now,
            ends: None,
        });
        self.after(length, Happening::Awakes);
        let (first, last) = SUCCESSION_MILLIS;
        let down = self.random.millis(first, last);
        self.lose_coordinator(down);
    }

    pub(super) fn awake(&mut self) {
        let now = self.now;
        if let Some(hung) = &mut self.hung {
            hung.coordinator.wake(now - hung.since);
            hung.ends = Some(now + AFTERLIFE);
            self.tell("the coordinator that hung goes on");
        }
    }

    /// Lets the one go on that has lost its place. Nobody listens to it, but what it does is done.
    pub(super) fn go_on(&mut self) -> Result<(), Ended> {
        loop {
            let Some((hung, ends)) = self.hung.as_ref().and_then(|it| Some((it, it.ends?))) else {
                return Ok(());
            };
            let reached = hung.coordinator.run_until(self.now);
            let said = hung.coordinator.said();
            let has_crashed = said.iter().any(|it| matches!(it, Said::Crashed));
            if has_crashed || self.now >= ends {
                self.hung = None;
            }
            for said in said {
                if let Said::StoreChanged { removed: true } = said {
                    self.check_promises()?;
                }
            }
            if reached >= self.now {
                return Ok(());
            }
        }
    }
}
