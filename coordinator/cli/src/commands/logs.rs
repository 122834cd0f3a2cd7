//! `regatta logs`.

use std::io::{IsTerminal as _, Write};

use regatta_wire::v1;

use crate::client::{Client, refused};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::standard_output::standard_output;
use crate::terminal::{HarmlessText, visible};
use crate::watch::Paint;

pub(super) fn request(
    run: String,
    job: Option<String>,
    test: Option<String>,
    all: bool,
) -> v1::ReadLogsRequest {
    v1::ReadLogsRequest {
        run_id: run,
        job: job.unwrap_or_default(),
        test_id: test.unwrap_or_default(),
        all,
    }
}

/// Results and output go to standard output, titles of a single test's attempts and of jobs elsewhere.
pub(super) async fn logs(
    client: &Client,
    request: v1::ReadLogsRequest,
    paint: Paint,
) -> Result<ExitCode, Failure> {
    let one_test = !request.test_id.is_empty();
    let failed = |status| refused("read the logs", &status);
    let mut chunks = client
        .runs()
        .read_logs(request)
        .await
        .map_err(failed)?
        .into_inner();
    let mut last = None;
    let (mut stdout, mut stderr) = (
        Output::new(standard_output(), standard_output().is_terminal()),
        Output::new(std::io::stderr(), std::io::stderr().is_terminal()),
    );
    while let Some(chunk) = chunks.message().await.map_err(failed)? {
        let of = (chunk.job.clone(), chunk.test_id.clone());
        let known = last.replace(of) == Some((chunk.job.clone(), chunk.test_id.clone()));
        let written = match &chunk.attempt {
            Some(attempt) => {
                let title = title(attempt, chunk.retried, paint);
                match one_test {
                    true => stderr.title(&title),
                    false => stdout.title(&title),
                }
            }
            None if !known && chunk.test_id.is_empty() => {
                stderr.title(&format!("--- {} ---\n", visible(&chunk.job)))
            }
            None => Ok(()),
        };
        written.or_exit(ExitCode::Local)?;
        let written = match chunk.stream() {
            v1::OutputStream::Stderr => stderr.piece(&chunk.data),
            v1::OutputStream::Stdout | v1::OutputStream::Unspecified => stdout.piece(&chunk.data),
        };
        written.or_exit(ExitCode::Local)?;
    }
    stdout.end().and(stderr.end()).or_exit(ExitCode::Local)?;
    Ok(ExitCode::Good)
}

fn title(attempt: &v1::TestResult, retried: bool, paint: Paint) -> String {
    let line = match retried {
        true => paint.retry_line(attempt),
        false => paint.result_line(attempt),
    };
    format!("{line}\n{}", paint.message_block(attempt))
}

/// A stream of ours: as it is for a program, and without what a terminal would act on for people.
struct Output<Stream> {
    stream: Stream,
    harmless: Option<HarmlessText>,
}

impl<Stream: Write> Output<Stream> {
    fn new(stream: Stream, is_terminal: bool) -> Self {
        let harmless = is_terminal.then(HarmlessText::default);
        Self { stream, harmless }
    }

    /// Writes what a test or a job is called, and what became of it, after what is left of another's output.
    fn title(&mut self, text: &str) -> std::io::Result<()> {
        self.end()?;
        self.piece(text.as_bytes())
    }

    fn piece(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.harmless {
            Some(harmless) => self.stream.write_all(&harmless.piece(bytes))?,
            None => self.stream.write_all(bytes)?,
        }
        self.stream.flush()
    }

    fn end(&mut self) -> std::io::Result<()> {
        if let Some(harmless) = &mut self.harmless {
            self.stream.write_all(&harmless.rest())?;
        }
        Ok(())
    }
}
