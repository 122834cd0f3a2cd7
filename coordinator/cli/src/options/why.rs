//! Options of `regatta why`.

use clap::Args;

/// Options of `regatta why`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta why parser::reads_dates\n  regatta why tests/test_web.py::test_login --run RUN\n\n\
    A test that ran is compared with the run before that knows of it. Files are those of the job itself; what\n\
    other jobs made for it is named by job and path."
)]
pub struct WhyOptions {
    /// The test, by its whole id, as results name it
    #[arg(value_name = "TEST")]
    pub test: String,
    /// Its job, if several have a test of this id
    #[arg(long, value_name = "JOB")]
    pub job: Option<String>,
    /// The run, or the beginning of its id; by default the last one that has the test
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
}
