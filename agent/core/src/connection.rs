//! A connection to the coordinator, and when to report over it.

use regatta_model::Timestamp;

use crate::event::ConnectionId;

/// What has been said over a connection, and when there is more to say: one report at a time.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    /// Of the last report.
    sequence: u64,
    /// Of the last desired state.
    observed_version: u64,
    in_flight: bool,
    offer_due: bool,
    report_at: Timestamp,
}

/// What a report says of the connection that it goes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReportHeader {
    pub(crate) connection: ConnectionId,
    pub(crate) sequence: u64,
    pub(crate) observed_version: u64,
    pub(crate) with_offer: bool,
}

impl ReportHeader {
    /// Whether the coordinator has heard nothing before it on this connection.
    pub(crate) fn is_first(&self) -> bool {
        self.sequence == 1
    }
}

impl Connection {
    /// A new connection, over which everything is to be told at once.
    pub(crate) fn open(id: ConnectionId, now: Timestamp) -> Self {
        Self {
            id,
            sequence: 0,
            observed_version: 0,
            in_flight: false,
            offer_due: true,
            report_at: now,
        }
    }

    /// Takes note of a desired state; false if a later one has overtaken it.
    pub(crate) fn observe(&mut self, version: u64) -> bool {
        let is_newer = self.observed_version < version;
        self.observed_version = self.observed_version.max(version);
        is_newer
    }

    /// Whether nothing was said since a report.
    pub(crate) fn is_last(&self, sequence: u64) -> bool {
        self.sequence == sequence
    }

    /// Asks for a report at `time` or before.
    pub(crate) fn report_by(&mut self, time: Timestamp) {
        self.report_at = self.report_at.min(time);
    }

    /// Asks for a report with the offer in it.
    pub(crate) fn offer_changed(&mut self, now: Timestamp) {
        self.offer_due = true;
        self.report_by(now);
    }

    /// The last report is on its way: the next may follow.
    pub(crate) fn note_sent(&mut self) {
        self.in_flight = false;
    }

    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        !self.in_flight && self.report_at <= now
    }

    /// Begins a report; the next one is due at `next_at` if nothing asks for it before.
    pub(crate) fn begin_report(&mut self, next_at: Timestamp) -> ReportHeader {
        self.sequence += 1;
        self.in_flight = true;
        self.report_at = next_at;
        ReportHeader {
            connection: self.id,
            sequence: self.sequence,
            observed_version: self.observed_version,
            with_offer: std::mem::take(&mut self.offer_due),
        }
    }

    /// When the next report is due, unless one is being sent.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        (!self.in_flight).then_some(self.report_at)
    }
}
