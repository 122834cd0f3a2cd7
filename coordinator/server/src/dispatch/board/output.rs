//! What leased work prints while it runs.

use super::super::{TaskEvent, ValidChunk};
use super::Board;

impl Board {
    /// Passes live output on, if it comes from a lease that is valid.
    pub(in super::super) fn output(&self, chunk: ValidChunk) {
        let Some(lease) = self.leases.get(chunk.lease) else {
            return;
        };
        // Of two that print the same, one is told.
        let is_valid = lease.token == chunk.token && lease.units.contains(&chunk.unit);
        if lease.is_duplicate || !is_valid {
            return;
        }
        self.tell_group(lease.task, || TaskEvent::Output {
            unit: chunk.unit,
            stream: chunk.stream,
            offset: chunk.offset,
            data: chunk.data.clone(),
        });
    }
}
