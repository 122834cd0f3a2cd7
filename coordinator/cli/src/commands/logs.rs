//! `regatta logs`.

use std::io::Write;

use regatta_wire::v1;

use crate::client::{Client, refused};
use crate::exit_code::{ExitCode, Failure, OrExit};
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
    while let Some(chunk) = chunks.message().await.map_err(failed)? {
        let of = (chunk.job.clone(), chunk.test_id.clone());
        let known = last.replace(of) == Some((chunk.job.clone(), chunk.test_id.clone()));
        let written = match &chunk.attempt {
            Some(attempt) if one_test => {
                write!(
                    std::io::stderr(),
                    "{}",
                    title(attempt, chunk.retried, paint)
                )
            }
            Some(attempt) => write!(
                std::io::stdout(),
                "{}",
                title(attempt, chunk.retried, paint)
            ),
            None if !known && chunk.test_id.is_empty() => {
                writeln!(std::io::stderr(), "--- {} ---", chunk.job)
            }
            None => Ok(()),
        };
        written.or_exit(ExitCode::Local)?;
        write_chunk(chunk.stream(), &chunk.data).or_exit(ExitCode::Local)?;
    }
    Ok(ExitCode::Good)
}

fn title(attempt: &v1::TestResult, retried: bool, paint: Paint) -> String {
    let line = match retried {
        true => paint.retry_line(attempt),
        false => paint.result_line(attempt),
    };
    format!("{line}\n{}", paint.message_block(attempt))
}

/// Writes output to the stream that it came from.
pub(super) fn write_chunk(stream: v1::OutputStream, bytes: &[u8]) -> std::io::Result<()> {
    match stream {
        v1::OutputStream::Stderr => {
            let mut stderr = std::io::stderr().lock();
            stderr.write_all(bytes)
        }
        v1::OutputStream::Stdout | v1::OutputStream::Unspecified => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()
        }
    }
}
