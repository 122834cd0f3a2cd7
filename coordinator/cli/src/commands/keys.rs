//! `regatta keys`.

use std::io::Write as _;
use std::path::Path;

use regatta_server::make_verdict_key;
use regatta_verdict::PublicKey;
use regatta_wire::v1;

use crate::client::{Client, refused};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::standard_output::standard_output;

/// Prints the coordinator's.
pub(super) async fn show(client: &Client) -> Result<ExitCode, Failure> {
    let key = of_coordinator(client).await?;
    print(&key)
}

/// Makes one that signs.
pub(super) fn make(file: &Path) -> Result<ExitCode, Failure> {
    let key = make_verdict_key(file).or_exit(ExitCode::Local)?;
    print(&key.public())
}

/// The key that verifies what a coordinator signs, as it says itself.
pub(super) async fn of_coordinator(client: &Client) -> Result<PublicKey, Failure> {
    let answer = client
        .runs()
        .get_verdict_key(v1::GetVerdictKeyRequest {})
        .await;
    let answer = answer.map_err(|status| refused("tell its key", &status))?;
    PublicKey::from_pem(&answer.into_inner().public_key).or_exit(ExitCode::Infrastructure)
}

fn print(key: &PublicKey) -> Result<ExitCode, Failure> {
    let mut stdout = standard_output();
    write!(stdout, "{}", key.to_pem()).or_exit(ExitCode::Local)?;
    Ok(ExitCode::Good)
}
