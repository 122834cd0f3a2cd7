//! The output of a single command, passed on as it is.

use std::io::{self, Write};

use regatta_wire::v1::{self, run_event::Event};

use super::EventSink;

/// Passes a job's output on, byte for byte, and keeps how the job ended.
///
/// Live output may have holes, because losing a chunk loses nothing: the result has all of it. After a
/// hole nothing more is passed on, and what is missing is written in the end from the result.
#[derive(Debug)]
pub struct CommandOutput<Out, Err> {
    stdout: Passed<Out>,
    stderr: Passed<Err>,
    finished: Option<v1::JobFinished>,
}

#[derive(Debug)]
struct Passed<W> {
    writer: W,
    bytes: u64,
}

impl<W: Write> Passed<W> {
    fn pass(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let known = self.bytes.saturating_sub(offset);
        let fresh = usize::try_from(known)
            .ok()
            .and_then(|known| data.get(known..));
        match fresh {
            Some(fresh) if offset <= self.bytes => self.write(fresh),
            Some(_) | None => Ok(()),
        }
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.bytes += data.len() as u64;
        self.writer.write_all(data)?;
        self.writer.flush()
    }
}

impl<Out: Write, Err: Write> CommandOutput<Out, Err> {
    /// Passes output on to these two.
    pub const fn new(stdout: Out, stderr: Err) -> Self {
        Self {
            stdout: Passed {
                writer: stdout,
                bytes: 0,
            },
            stderr: Passed {
                writer: stderr,
                bytes: 0,
            },
            finished: None,
        }
    }

    /// How the job ended, once it has.
    #[must_use]
    pub const fn finished(&self) -> Option<&v1::JobFinished> {
        self.finished.as_ref()
    }

    /// Passes on what of the whole output has not been.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn complete(&mut self, stdout: &[u8], stderr: &[u8]) -> io::Result<()> {
        self.stdout.pass(0, stdout)?;
        self.stderr.pass(0, stderr)
    }
}

impl<Out: Write, Err: Write> EventSink for CommandOutput<Out, Err> {
    fn event(&mut self, event: &v1::RunEvent) -> io::Result<()> {
        match &event.event {
            Some(Event::JobOutput(output)) => match output.stream() {
                v1::OutputStream::Stderr => self.stderr.pass(output.offset, &output.data),
                v1::OutputStream::Stdout | v1::OutputStream::Unspecified => {
                    self.stdout.pass(output.offset, &output.data)
                }
            },
            Some(Event::JobFinished(finished)) => {
                self.finished = Some(finished.clone());
                Ok(())
            }
            Some(
                Event::RunStarted(_)
                | Event::JobStarted(_)
                | Event::JobLeased(_)
                | Event::SuitePlanned(_)
                | Event::TestsFinished(_)
                | Event::TestRetried(_)
                | Event::BuildRetried(_)
                | Event::RunFinished(_)
                | Event::InfrastructureRetry(_)
                | Event::Warning(_)
                | Event::HitsAudited(_)
                | Event::HitsExecuted(_)
                | Event::BatchUnexplained(_)
                | Event::RunResumed(_)
                | Event::CancelRequested(_)
                | Event::SuiteComplained(_)
                | Event::TestSlow(_),
            )
            | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(offset: u64, text: &'static str) -> v1::RunEvent {
        let output = v1::JobOutput {
            stream: v1::OutputStream::Stdout.into(),
            offset,
            data: text.into(),
            ..v1::JobOutput::default()
        };
        v1::RunEvent {
            event: Some(Event::JobOutput(output)),
            ..v1::RunEvent::default()
        }
    }

    #[test]
    fn every_byte_is_passed_on_once() {
        let mut sink = CommandOutput::new(Vec::new(), Vec::new());
        for event in [output(0, "one "), output(2, "e two "), output(20, "lost")] {
            sink.event(&event).expect("memory takes it");
        }
        assert_eq!(sink.stdout.writer, b"one two ");
        sink.complete(b"one two three", b"err")
            .expect("memory takes it");
        assert_eq!(sink.stdout.writer, b"one two three");
        assert_eq!(sink.stderr.writer, b"err");
    }
}
