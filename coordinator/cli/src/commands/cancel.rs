//! `regatta cancel`.

use regatta_wire::v1;

use crate::client::{Client, refused};
use crate::exit_code::{ExitCode, Failure};

pub(super) async fn cancel(client: &Client, run: String) -> Result<ExitCode, Failure> {
    let request = v1::CancelRunRequest { run_id: run };
    let cancelled = client.runs().cancel_run(request).await;
    cancelled.map_err(|status| refused("cancel the run", &status))?;
    Ok(ExitCode::Good)
}
