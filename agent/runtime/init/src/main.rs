//! The init of Regatta's containers: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match regatta_init::run(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The last resort of a process without a log.
            let line = format!("regatta-init: {error}\n");
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).ok();
            ExitCode::FAILURE
        }
    }
}
