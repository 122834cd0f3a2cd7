//! What leased work prints while it runs.

use super::super::{TaskEvent, ValidChunk};
use super::Board;

impl Board {
    /// Passes live output on, if it comes from a lease that is valid.
    pub(in super::super) fn output(&self, chunk: ValidChunk) {
        let Some(lease) = self.leases.get(chunk.lease) else {
            return;
        };
        let unit = lease.unit_of(chunk.unit);
        let Some(unit) = unit.filter(|_| lease.token == chunk.token && !lease.is_duplicate) else {
            return;
        };
        self.tell_group(lease.task, || TaskEvent::Output {
            unit,
            stream: chunk.stream,
            offset: chunk.offset,
            data: chunk.data.clone(),
        });
    }
}
