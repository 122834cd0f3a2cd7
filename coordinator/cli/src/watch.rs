//! Following a run: its events, and what people and machines read of them.
//!
//! [`follow`] takes the events of a run from [`RunEvents`], which reconnects by itself, and gives each to
//! every [`EventSink`]: the text for people, NDJSON, JUnit.

mod command_output;
mod events;
mod follow;
mod github;
mod gitlab;
mod human;
pub mod json;
mod junit;
mod lines;
mod live;
mod notes;
mod place;
mod screen;
mod tally;

use std::io;
use std::time::Duration;

use regatta_wire::convert::duration_from_wire;
use regatta_wire::v1;

pub use command_output::CommandOutput;
pub use events::{RunEvents, WatchError};
pub use follow::{Ended, follow};
pub use github::GithubReport;
pub use gitlab::GitlabReport;
pub use human::{HumanReport, ReportOptions, StatusLevel};
pub(crate) use json::json_plan;
pub use json::{JsonOutput, JsonReport};
pub use junit::JunitReport;
pub use lines::Paint;
pub(crate) use lines::{Tone, plural, verdict_word};
pub use screen::{PlainScreen, Screen, TtyScreen};
pub use tally::Tally;

/// Something that is told every event of a run, in order.
pub trait EventSink {
    /// Takes the next event.
    ///
    /// # Errors
    /// It cannot be written down.
    fn event(&mut self, event: &v1::RunEvent) -> io::Result<()>;

    /// There will be no more events.
    ///
    /// # Errors
    /// Something cannot be written down.
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A duration from a message; nothing if it is unset or makes no sense, since it is only shown.
fn shown_duration(duration: Option<&prost_types::Duration>) -> Duration {
    duration
        .and_then(|duration| duration_from_wire(duration).ok())
        .unwrap_or_default()
}

/// The words of a failure class, as they stand in design decision D9.
fn class_name(class: v1::FailureClass) -> &'static str {
    match class {
        v1::FailureClass::Unspecified | v1::FailureClass::Test => "test",
        v1::FailureClass::Timeout => "timeout",
        v1::FailureClass::Oom => "oom",
        v1::FailureClass::Infra => "infra",
        v1::FailureClass::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod hostile_names;
#[cfg(test)]
mod recorded;
