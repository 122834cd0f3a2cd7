//! What is told of tests while they run.

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use regatta_model::{AgentId, LeaseId};
use regatta_wire::convert::duration_to_wire;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use tokio::time::Instant;

use super::execution::Execution;
use super::slow::SlowTest;
use crate::dispatch::{TaskEvent, TaskHandle};

/// How much of a suite's output is told as it comes, in bytes; all of it is in the results.
pub(super) const MAX_STREAMED_BYTES: usize = 8 << 20;

/// Waits until then; for ever if there is no then.
pub(super) async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

impl Execution<'_> {
    /// Tells of the tests that have been running for long.
    pub(super) fn tell_slow(&mut self) {
        for slow in self.slow.due(Instant::now()) {
            let event = self.slow_event(&slow);
            self.job.run.log.append(Event::TestSlow(event));
        }
    }

    /// Tells of the tests of a late lease that an agent begins again, if it does.
    pub(super) fn tell_duplicate(&self, late: Option<LeaseId>, agent: &AgentId) {
        let slow = late.and_then(|late| self.slow.running(late, Instant::now()));
        if let Some(slow) = slow {
            let event = v1::TestSlow {
                duplicate_agent_id: agent.to_string(),
                ..self.slow_event(&slow)
            };
            self.job.run.log.append(Event::TestSlow(event));
        }
    }

    /// The attempt at a test that an answer overtakes, if it was late with it. That it was is told once: the test may
    /// hang now and then.
    pub(super) fn overtaken_by(&mut self, lease: LeaseId, test: usize) -> Option<SlowTest> {
        let late_after = self.tests[test].estimate.late_after().unwrap_or_default();
        let found = self
            .slow
            .overtaken(lease, test, late_after, Instant::now())?;
        if found.is_news {
            let message = overtaken_text(&self.tests[test].name(), &found.attempt);
            self.job.run.log.append(Event::Warning(v1::Warning {
                job: self.job.name(),
                message,
            }));
        }
        Some(found.attempt)
    }

    fn slow_event(&self, slow: &SlowTest) -> v1::TestSlow {
        v1::TestSlow {
            job: self.job.name(),
            test_id: self.tests[slow.test].name(),
            others: u32::try_from(slow.others).unwrap_or(u32::MAX),
            running: Some(duration_to_wire(slow.running)),
            agent_id: slow.agent.to_string(),
            duplicate_agent_id: String::new(),
        }
    }

    /// Tells what a test prints; what the tests of a batch print together is the job's.
    pub(super) async fn tell_output(
        &mut self,
        test: usize,
        stream: v1::OutputStream,
        offset: u64,
        data: Bytes,
    ) {
        let alone = !self.suite.adapter.runs_together();
        let test = alone.then(|| self.tests[test].name());
        let log = &self.job.run.log;
        log.room().await;
        log.append(Event::JobOutput(v1::JobOutput {
            job: self.job.name(),
            test_id: test.unwrap_or_default(),
            stream: stream.into(),
            offset,
            data,
        }));
    }
}

/// What is said of an attempt that another one has overtaken.
pub(super) fn overtaken_text(test: &str, attempt: &SlowTest) -> String {
    let others = match attempt.others {
        0 => String::new(),
        others => format!(" and {others} others in one process"),
    };
    format!(
        "`{test}`{others} had been running for {:.1} s on agent {} without an end when another attempt, which was \
         begun because that is long, ended: it may hang now and then",
        attempt.running.as_secs_f64(),
        attempt.agent
    )
}

/// What happens to work, as it happens.
pub(super) fn events_of(handle: TaskHandle) -> BoxStream<'static, TaskEvent> {
    stream::unfold(handle, |mut handle| async move {
        handle.next().await.map(|event| (event, handle))
    })
    .boxed()
}
