//! `regatta.toml`, as anybody may write it.

use std::path::{Component, Path};

use regatta::config::{ConfigError, JobAction, JobConfig, Pipeline, SuiteAdapter, parse};

/// The file that errors name.
const FILE: &str = "regatta.toml";
/// More is refused (`retry`).
const MOST_RETRIES: u32 = 10;

/// Reads a configuration. What is accepted has jobs in an order that their needs allow, paths that stay
/// below the directory they begin at, and texts that a process can be given; what is refused is named
/// with a place in the text.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match parse(text, Path::new(FILE), Path::new(".")) {
        Ok(pipeline) => check_pipeline(&pipeline),
        Err(error) => check_error(text, &error),
    }
}

fn check_error(text: &str, error: &ConfigError) {
    let position = error.position.expect("a text that was read has places");
    let line = text.split('\n').nth(position.line - 1);
    let line = line.expect("the line is one of the text's");
    let columns = 1..=line.chars().count() + 1;
    assert!(
        columns.contains(&position.column),
        "{position:?} is not in {line:?}"
    );
    let said = error.to_string();
    assert!(said.starts_with(FILE) && !said.ends_with(": "), "{said:?}");
}

fn check_pipeline(pipeline: &Pipeline) {
    for (index, job) in pipeline.jobs.iter().enumerate() {
        let earlier = &pipeline.jobs[..index];
        assert!(
            earlier.iter().all(|it| it.name != job.name),
            "{} is there twice",
            job.name
        );
        for need in &job.needs {
            let is_earlier = earlier.iter().any(|it| it.name.as_str() == need);
            assert!(
                is_earlier,
                "{} comes before {need}, which it needs",
                job.name
            );
        }
        check_job(job);
        check_selection(pipeline, job);
    }
    assert!(pipeline.select(&["no\0job".to_owned()]).is_err());
}

/// Selecting a job brings what it needs, in order, and itself last.
fn check_selection(pipeline: &Pipeline, job: &JobConfig) {
    let selected = pipeline.select(&[job.name.to_string()]);
    let selected = selected.expect("it is a job");
    assert_eq!(selected.last().map(|it| &it.name), Some(&job.name));
    for (index, one) in selected.iter().enumerate() {
        let has = |need: &String| selected[..index].iter().any(|it| it.name.as_str() == need);
        assert!(
            one.needs.iter().all(has),
            "{} is selected without its needs",
            one.name
        );
    }
}

fn check_job(job: &JobConfig) {
    assert!(job.retries <= MOST_RETRIES);
    assert!(job.timeout.is_none_or(|timeout| !timeout.is_zero()));
    for pattern in &job.inputs {
        check_path(pattern.text.trim_start_matches('!'));
    }
    job.outputs.iter().for_each(|path| check_path(path));
    for (name, value) in &job.environment {
        assert!(!name.is_empty() && !name.contains(['=', '\0']), "{name:?}");
        assert!(!value.contains('\0'), "{value:?}");
    }
    match &job.action {
        JobAction::Command(arguments) => check_arguments(arguments),
        JobAction::Suite(suite) => {
            check_adapter(&suite.adapter);
            // Of an adapter that knows how to list or to run tests itself, nothing may be said.
            let given = [&suite.discover, &suite.run].into_iter();
            given
                .filter(|words| !words.is_empty())
                .for_each(|words| check_arguments(words));
        }
    }
}

fn check_adapter(adapter: &SuiteAdapter) {
    match adapter {
        SuiteAdapter::Contract { junit } => check_path(junit),
        SuiteAdapter::BazelSharding { shards } => assert!(*shards > 0, "it has no tests"),
        SuiteAdapter::Libtest
        | SuiteAdapter::GoogleTest
        | SuiteAdapter::Go
        | SuiteAdapter::Ctest
        | SuiteAdapter::Pytest(_)
        | SuiteAdapter::Jest(_) => {}
    }
}

fn check_arguments(arguments: &[String]) {
    assert!(
        arguments.first().is_some_and(|it| !it.is_empty()),
        "no program: {arguments:?}"
    );
    assert!(
        !arguments.iter().any(|it| it.contains('\0')),
        "a NUL: {arguments:?}"
    );
}

fn check_path(path: &str) {
    let components = Path::new(path).components();
    let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    assert!(
        !path.is_empty() && components.into_iter().all(is_inside),
        "{path:?} leads away"
    );
    assert!(!path.contains('\0'), "{path:?} is no path");
}
