//! What many times come to.

use std::time::Duration;

/// Times of the same thing, done again and again.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Their number, median and 99th percentile.
    pub(super) fn summary(mut self) -> serde_json::Value {
        self.0.sort();
        let millis = |percent: usize| {
            let time = self.0.get(self.0.len() * percent / 100);
            time.map(|time| time.as_secs_f64() * 1e3)
        };
        serde_json::json!({
            "count": self.0.len(), "p50_ms": millis(50), "p99_ms": millis(99),
        })
    }
}
