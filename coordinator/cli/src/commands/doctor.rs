//! `regatta doctor`.

use std::io::Write;

use crate::doctor::{Check, Level, check_all};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::options::GlobalOptions;
use crate::standard_output::standard_output;

pub(super) async fn doctor(
    global: &GlobalOptions,
    image: Option<&str>,
) -> Result<ExitCode, Failure> {
    let checks = check_all(&global.coordinator, image).await;
    let paint = global.paint();
    let mut stdout = standard_output();
    for check in &checks {
        writeln!(stdout, "{}", check.line(paint)).or_exit(ExitCode::Local)?;
    }
    Ok(verdict(&checks))
}

fn verdict(checks: &[Check]) -> ExitCode {
    match checks.iter().any(|check| check.level == Level::Fail) {
        true => ExitCode::Local,
        false => ExitCode::Good,
    }
}
