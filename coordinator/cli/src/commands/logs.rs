//! `regatta logs`.

use std::io::Write;

use regatta_wire::v1;

use crate::client::{Client, refused};
use crate::exit_code::{ExitCode, Failure, OrExit};

pub(super) async fn logs(
    client: &Client,
    run: String,
    job: Option<String>,
    test: Option<String>,
) -> Result<ExitCode, Failure> {
    let request = v1::ReadLogsRequest {
        run_id: run,
        job: job.unwrap_or_default(),
        test_id: test.unwrap_or_default(),
    };
    let titled = request.test_id.is_empty();
    let failed = |status| refused("read the logs", &status);
    let mut chunks = client
        .runs()
        .read_logs(request)
        .await
        .map_err(failed)?
        .into_inner();
    let mut last = (String::new(), String::new());
    while let Some(chunk) = chunks.message().await.map_err(failed)? {
        let of = (chunk.job.clone(), chunk.test_id.clone());
        if titled && last != of {
            let title = format!("--- {} {}", of.0, of.1);
            writeln!(std::io::stderr(), "{} ---", title.trim_end()).or_exit(ExitCode::Local)?;
            last = of;
        }
        write_chunk(chunk.stream(), &chunk.data).or_exit(ExitCode::Local)?;
    }
    Ok(ExitCode::Good)
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
