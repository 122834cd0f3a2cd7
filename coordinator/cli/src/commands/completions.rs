//! `regatta completions`.

use std::io::Write;

use clap::CommandFactory;

use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::options::Options;
use crate::standard_output::standard_output;

pub(super) fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Options::command(), "regatta", &mut script);
    standard_output()
        .write_all(&script)
        .or_exit(ExitCode::Local)?;
    Ok(ExitCode::Good)
}
