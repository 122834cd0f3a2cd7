//! `regatta history import`.

use std::collections::BTreeSet;
use std::io::Write;

use regatta_wire::convert::duration_to_wire;
use regatta_wire::v1;
use tonic::Code;

use crate::client::{Client, refused};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::import::{Imported, ImportedTest, ImportingSuite, read};
use crate::options::ImportOptions;
use crate::standard_output::standard_output;
use crate::watch::plural;

/// How many tests one request holds.
const TESTS_TOGETHER: usize = 5000;
/// How many tests are named that the suite is not known to have.
const MOST_NAMED: usize = 3;

/// Reads every file before anything is learnt, so that a bad one spoils nothing.
pub(crate) async fn import(client: &Client, options: ImportOptions) -> Result<ExitCode, Failure> {
    let known = ids_run(client, &options.suite).await?;
    let suite = ImportingSuite {
        name: &options.suite,
        ids: known.iter().map(String::as_str).collect(),
    };
    let mut all = Imported::default();
    for file in &options.files {
        let shown = file.display();
        let refuse = |problem: &dyn std::fmt::Display| {
            let message = format!("{shown} cannot be imported: {problem}; nothing was");
            Failure::new(ExitCode::BadConfiguration, message)
        };
        let text = std::fs::read_to_string(file).map_err(|error| refuse(&error))?;
        let imported = read(&text, &suite).map_err(|error| refuse(&error))?;
        let Imported { tests, left_out } = imported;
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
    let told = said(&all, &suite, options.files.len());
    writeln!(standard_output(), "{told}").or_exit(ExitCode::Local)?;
    Ok(ExitCode::Good)
}

/// The ids of the suite's tests that it has run itself: what was only imported is known by whatever name the import
/// gave it.
async fn ids_run(client: &Client, suite: &str) -> Result<BTreeSet<String>, Failure> {
    let request = v1::GetHistoryRequest {
        instance_name: client.instance().to_owned(),
        suite: suite.to_owned(),
    };
    let failed = |status| refused("read the history", &status);
    let mut tests = match client.suites().get_history(request).await {
        Ok(tests) => tests.into_inner(),
        Err(status) if status.code() == Code::NotFound => return Ok(BTreeSet::new()),
        Err(status) => return Err(failed(status)),
    };
    let mut ids = BTreeSet::new();
    while let Some(test) = tests.message().await.map_err(failed)? {
        ids.extend(test.last_key.is_some().then_some(test.test_id));
    }
    Ok(ids)
}

fn said(imported: &Imported, suite: &ImportingSuite<'_>, files: usize) -> String {
    let tests = plural(imported.tests.len() as u64, "test");
    let files = plural(files as u64, "file");
    let mut text = format!(
        "learnt the times of {tests} of suite `{}` from {files}",
        suite.name
    );
    if imported.left_out > 0 {
        let left_out = imported.left_out;
        text += &format!("; {left_out} did not run, or without a time, and were left out");
    }
    text += &match suite.strangers(&imported.tests) {
        None => {
            "; it has not run yet, so that nobody knows whether its tests are called so".to_owned()
        }
        Some(strangers) if strangers.is_empty() => String::new(),
        Some(strangers) => {
            let named: Vec<_> = strangers.iter().take(MOST_NAMED).collect();
            let and_more = if strangers.len() > MOST_NAMED {
                ", ..."
            } else {
                ""
            };
            format!(
                "; {} of them it has not run: {named:?}{and_more}",
                strangers.len()
            )
        }
    };
    text
}

fn message(test: &ImportedTest) -> v1::ImportedTest {
    v1::ImportedTest {
        test_id: test.id.clone(),
        duration: Some(duration_to_wire(test.took)),
        failed: test.failed,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check_said(known: &[&str], ids: &[&str], words: &str) {
        let test = |id: &&str| ImportedTest {
            id: (*id).to_owned(),
            took: Duration::ZERO,
            failed: false,
        };
        let imported = Imported {
            tests: ids.iter().map(test).collect(),
            left_out: 0,
        };
        let suite = ImportingSuite {
            name: "unit",
            ids: known.iter().copied().collect(),
        };
        assert_eq!(said(&imported, &suite, 1), words);
    }

    #[test]
    fn whoever_imports_names_of_no_test_is_told() {
        let learnt = "learnt the times of 1 test of suite `unit` from 1 file";
        check_said(&["a"], &["a"], learnt);
        let learnt = "learnt the times of 5 tests of suite `unit` from 1 file";
        let named = "; 4 of them it has not run: [\"b\", \"c\", \"d\"], ...";
        check_said(
            &["a"],
            &["a", "b", "c", "d", "e"],
            &format!("{learnt}{named}"),
        );
    }
}
