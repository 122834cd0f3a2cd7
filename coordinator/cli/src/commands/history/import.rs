//! `regatta history import`.

use std::io::Write;

use regatta_wire::convert::duration_to_wire;
use regatta_wire::v1;

use crate::client::{Client, refused};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::import::{Imported, ImportedTest, read};
use crate::options::ImportOptions;

/// How many tests one request holds.
const TESTS_TOGETHER: usize = 5000;

/// Reads every file before anything is learnt, so that a bad one spoils nothing.
pub(crate) async fn import(client: &Client, options: ImportOptions) -> Result<ExitCode, Failure> {
    let mut all = Imported::default();
    for file in &options.files {
        let shown = file.display();
        let refuse = |problem: &dyn std::fmt::Display| {
            let message = format!("{shown} cannot be imported: {problem}; nothing was");
            Failure::new(ExitCode::BadConfiguration, message)
        };
        let text = std::fs::read_to_string(file).map_err(|error| refuse(&error))?;
        let Imported { tests, left_out } =
            read(&text, &options.suite).map_err(|error| refuse(&error))?;
        all.tests.extend(tests);
        all.left_out += left_out;
    }
    for tests in all.tests.chunks(TESTS_TOGETHER) {
        let request = v1::ImportHistoryRequest {
            instance_name: client.instance().to_owned(),
            suite: options.suite.clone(),
            image: options.image.clone().unwrap_or_default(),
            branch: options.branch.clone().unwrap_or_default(),
            tests: tests.iter().map(message).collect(),
        };
        let imported = client.suites().import_history(request).await;
        imported.map_err(|status| refused("import the history", &status))?;
    }
    let (tests, files) = (all.tests.len(), options.files.len());
    let left_out = match all.left_out {
        0 => String::new(),
        count => format!("; {count} did not run, or without a time, and were left out"),
    };
    let mut stdout = std::io::stdout().lock();
    writeln!(
        stdout,
        "learnt the times of {tests} tests of suite `{}` from {files} files{left_out}",
        options.suite
    )
    .or_exit(ExitCode::Local)?;
    Ok(ExitCode::Good)
}

fn message(test: &ImportedTest) -> v1::ImportedTest {
    v1::ImportedTest {
        test_id: test.id.clone(),
        duration: Some(duration_to_wire(test.took)),
        failed: test.failed,
    }
}
