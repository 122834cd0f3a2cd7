//! When things happened, for results.

use std::time::SystemTime;

use regatta_model::Timestamp;
use regatta_wire::convert::timestamp_to_wire;

/// Now, as a core and a message see it.
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// The moments of an execution that REAPI's `ExecutedActionMetadata` names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    pub(crate) worker_start: Timestamp,
    pub(crate) input_fetch_start: Timestamp,
    pub(crate) input_fetch_end: Timestamp,
    pub(crate) execution_start: Timestamp,
    pub(crate) execution_end: Timestamp,
    pub(crate) output_upload_start: Timestamp,
}

impl Moments {
    /// Those of an execution whose inputs are there at `fetched_at`; what comes after is not known yet.
    pub(crate) const fn begin(start: Timestamp, fetched_at: Timestamp) -> Self {
        Self {
            worker_start: start,
            input_fetch_start: start,
            input_fetch_end: fetched_at,
            execution_start: fetched_at,
            execution_end: fetched_at,
            output_upload_start: fetched_at,
        }
    }

    /// The message, as of the end of the upload: now.
    pub(crate) fn metadata(&self, worker: &str) -> regatta_wire::reapi::ExecutedActionMetadata {
        let wire = |timestamp| Some(timestamp_to_wire(timestamp));
        let end = now();
        regatta_wire::reapi::ExecutedActionMetadata {
            worker: worker.to_owned(),
            worker_start_timestamp: wire(self.worker_start),
            worker_completed_timestamp: wire(end),
            input_fetch_start_timestamp: wire(self.input_fetch_start),
            input_fetch_completed_timestamp: wire(self.input_fetch_end),
            execution_start_timestamp: wire(self.execution_start),
            execution_completed_timestamp: wire(self.execution_end),
            output_upload_start_timestamp: wire(self.output_upload_start),
            output_upload_completed_timestamp: wire(end),
            ..Default::default()
        }
    }
}
