//! What happened, for people.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Every message, fault, commit and effect of a simulation, in order, each with its time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    /// FNV-1a (Fowler, Noll and Vo, 1991) of all of them.
    fingerprint: u64,
}

impl Trace {
    pub(crate) fn tell(&self, now: Duration, what: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{:>11.3} {what}", now.as_secs_f64());
        for byte in line.bytes() {
            let mixed = (lines.fingerprint ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            lines.fingerprint = mixed;
        }
        lines.lines.push(line);
    }

    /// A number that differs if anything in it does.
    pub(crate) fn fingerprint(&self) -> u64 {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.fingerprint
    }

    /// The last lines of it.
    pub(crate) fn tail(&self, count: usize) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = lines.lines.len().saturating_sub(count);
        lines.lines[skipped..].to_vec()
    }
}
