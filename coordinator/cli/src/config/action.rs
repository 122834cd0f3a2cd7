//! What a job does: from its table to a command or a suite.

use toml::Spanned;
use toml::de::DeValue;

use crate::jest::Jest;
use crate::pytest::Pytest;

use super::error::{ConfigError, ConfigProblem};
use super::pipeline::{JobAction, SuiteAdapter, SuiteConfig};
use super::quarantine::read_quarantine;
use super::read::relative_path;
use super::section::Section;

/// Adapters that need no help to list tests and to read results.
const KNOWN_ADAPTERS: [&str; 7] = [
    "bazel-sharding",
    "ctest",
    "go",
    "googletest",
    "jest",
    "libtest",
    "pytest",
];
/// CTest in the build directory that everybody has.
const CTEST: [&str; 3] = ["ctest", "--test-dir", "build"];
const SUITE_KEYS: &[&str] = &[
    "adapter",
    "discover",
    "duplicate",
    "filters",
    "junit",
    "quarantine",
    "run",
    "shards",
    "worker",
];
/// More would hardly be meant, and the coordinator takes no more.
const MOST_SHARDS: u32 = 10_000;
/// A shell that stops at the first failing command and at unset variables.
const SHELL: [&str; 2] = ["sh", "-ceu"];

pub(super) fn read_action(section: &Section<'_>) -> Result<JobAction, ConfigError> {
    let suite_place = format!("{}.suite]", section.place.trim_end_matches(']'));
    let suite = section.section("suite", suite_place)?;
    let bad_job = |detail| {
        let problem = ConfigProblem::BadJob {
            place: section.place.clone(),
            detail,
        };
        section.source.error(&section.span, problem)
    };
    match (section.value("run"), suite) {
        (Some(_), None) => command(section, "run").map(JobAction::Command),
        (None, Some(suite)) => read_suite(&suite).map(JobAction::Suite),
        (None, None) => Err(bad_job(
            "has neither `run` nor a `suite`: it would do nothing",
        )),
        (Some(_), Some(_)) => Err(bad_job("has both `run` and a `suite`; make it two jobs")),
    }
}

/// A command: a script for the shell, or a list of arguments.
fn command(section: &Section<'_>, key: &str) -> Result<Vec<String>, ConfigError> {
    let Some(value) = section.value(key) else {
        let problem = ConfigProblem::BadJob {
            place: section.place.clone(),
            detail: match key {
                "discover" => "lacks `discover`, the command that prints one test id a line",
                _ => "lacks `run`, the command that runs the tests",
            },
        };
        return Err(section.source.error(&section.span, problem));
    };
    match value.get_ref() {
        DeValue::String(script) if script.trim().is_empty() => {
            Err(section.bad_value(key, &value.span(), "the command is empty"))
        }
        DeValue::String(_) => {
            let script = section.text(key)?.map(Spanned::into_inner);
            let shell = SHELL.iter().map(|word| (*word).to_owned());
            Ok(shell.chain(script).collect())
        }
        DeValue::Array(words) if words.is_empty() => {
            Err(section.bad_value(key, &value.span(), "the command is empty"))
        }
        DeValue::Array(_) => {
            let words = section.texts(key)?.unwrap_or_default();
            if let Some(program) = words.first().filter(|word| word.get_ref().is_empty()) {
                let detail = "the first word is the program to run, and it is empty";
                return Err(section.bad_value(key, &program.span(), detail));
            }
            Ok(words.into_iter().map(Spanned::into_inner).collect())
        }
        _ => Err(section.wrong_type(key, value, "a shell script or a list of arguments")),
    }
}

fn read_suite(section: &Section<'_>) -> Result<SuiteConfig, ConfigError> {
    section.allow(SUITE_KEYS)?;
    let adapter = read_adapter(section)?;
    let optional = |key| match section.value(key) {
        Some(_) => command(section, key),
        None => Ok(Vec::new()),
    };
    let (discover, run) = match &adapter {
        SuiteAdapter::Contract { .. } => (command(section, "discover")?, command(section, "run")?),
        SuiteAdapter::Libtest | SuiteAdapter::GoogleTest | SuiteAdapter::Go => {
            let run = command(section, "run")?;
            takes_arguments(section, "run", &run)?;
            let discover = optional("discover")?;
            takes_arguments(section, "discover", &discover)?;
            (suite_run(discover), run)
        }
        SuiteAdapter::Ctest => {
            let run = optional("run")?;
            takes_arguments(section, "run", &run)?;
            let discover = optional("discover")?;
            takes_arguments(section, "discover", &discover)?;
            let run = if run.is_empty() { ctest() } else { run };
            (suite_run(discover), run)
        }
        SuiteAdapter::BazelSharding { .. } => (Vec::new(), command(section, "run")?),
        SuiteAdapter::Pytest(_) | SuiteAdapter::Jest(_) => (Vec::new(), Vec::new()),
    };
    let worker = match (&adapter, section.value("worker")) {
        (_, None) => Vec::new(),
        (SuiteAdapter::Contract { .. }, Some(_)) => command(section, "worker")?,
        (_, Some(value)) => {
            let detail = "only a suite with a `junit` report can have a worker; remove it";
            return Err(section.bad_value("worker", &value.span(), detail));
        }
    };
    let filters = section.texts("filters")?.unwrap_or_default();
    Ok(SuiteConfig {
        discover,
        run: suite_run(run),
        worker,
        adapter,
        filters: filters.into_iter().map(Spanned::into_inner).collect(),
        quarantine: read_quarantine(section)?,
        may_duplicate: section.boolean("duplicate")?.unwrap_or(true),
    })
}

fn ctest() -> Vec<String> {
    CTEST.map(str::to_owned).into()
}

/// A test program is given arguments, which a script would have to pass on.
fn takes_arguments(
    section: &Section<'_>,
    key: &str,
    command: &[String],
) -> Result<(), ConfigError> {
    let is_script = command.len() == 3 && command[..2] == SHELL;
    match section.value(key) {
        Some(value) if is_script && !command[2].contains("$@") => {
            let detail = "the adapter adds arguments, which this script drops: write a list, like \
                          [\"./tests\"], or pass on \"$@\"";
            Err(section.bad_value(key, &value.span(), detail))
        }
        Some(_) | None => Ok(()),
    }
}

/// Lets a script see the arguments that are appended to it as `$@`: what follows the script itself
/// would be its `$0`.
fn suite_run(mut arguments: Vec<String>) -> Vec<String> {
    if arguments.len() == 3 && arguments[..2] == SHELL {
        arguments.push("run".to_owned());
    }
    arguments
}

fn read_adapter(section: &Section<'_>) -> Result<SuiteAdapter, ConfigError> {
    let junit = section
        .text("junit")?
        .map(|path| relative_path(section, "junit", path))
        .transpose()?;
    let name = section.text("adapter")?;
    let name_text = name.as_ref().map_or("contract", |name| name.get_ref());
    let adapter = match (name_text, junit) {
        ("contract", Some(junit)) => SuiteAdapter::Contract { junit },
        ("contract", None) => {
            let detail = format!(
                "is missing: name the JUnit file that `run` writes, or set `adapter` to one of {}",
                KNOWN_ADAPTERS.join(", ")
            );
            return Err(section.bad_value("junit", &section.span, &detail));
        }
        ("libtest", None) => SuiteAdapter::Libtest,
        ("googletest", None) => SuiteAdapter::GoogleTest,
        ("bazel-sharding", None) => read_sharding(section)?,
        ("ctest", None) => SuiteAdapter::Ctest,
        ("go", None) => SuiteAdapter::Go,
        ("jest", None) => SuiteAdapter::Jest(read_jest(section)?),
        ("pytest", None) => SuiteAdapter::Pytest(read_pytest(section)?),
        (known, Some(_)) if KNOWN_ADAPTERS.contains(&known) => {
            let detail =
                format!("the {known} adapter needs no report of its tests; remove `junit`");
            return Err(section.bad_value("junit", &section.span, &detail));
        }
        (other, _) => {
            let span = name.as_ref().map_or(section.span.clone(), Spanned::span);
            let detail = format!(
                "`{other}` is no adapter; there are contract, {}",
                KNOWN_ADAPTERS.join(", ")
            );
            return Err(section.bad_value("adapter", &span, &detail));
        }
    };
    match (section.value("shards"), &adapter) {
        (Some(value), adapter) if !matches!(adapter, SuiteAdapter::BazelSharding { .. }) => {
            let detail = "only the bazel-sharding adapter has shards; remove it";
            Err(section.bad_value("shards", &value.span(), detail))
        }
        (Some(_) | None, _) => Ok(adapter),
    }
}

/// Into how many parts a runner divides its tests.
fn read_sharding(section: &Section<'_>) -> Result<SuiteAdapter, ConfigError> {
    if let Some(value) = section.value("discover") {
        let detail = "each shard of the bazel-sharding adapter is a test, so that nothing is listed; remove \
                      `discover`";
        return Err(section.bad_value("discover", &value.span(), detail));
    }
    match section.count("shards", MOST_SHARDS)? {
        Some(shards) if shards > 0 => Ok(SuiteAdapter::BazelSharding { shards }),
        Some(_) | None => {
            let span = section
                .value("shards")
                .map_or(section.span.clone(), Spanned::span);
            let detail = "the bazel-sharding adapter wants to know into how many shards the runner divides its \
                          tests: 1 or more";
            Err(section.bad_value("shards", &span, detail))
        }
    }
}

/// How Jest is started, if that is said.
fn read_jest(section: &Section<'_>) -> Result<Jest, ConfigError> {
    if let Some(value) = section.value("discover") {
        let detail = "the jest adapter lists test files itself; remove `discover`";
        return Err(section.bad_value("discover", &value.span(), detail));
    }
    let Some(value) = section.value("run") else {
        return Ok(Jest::default());
    };
    let words = command(section, "run")?;
    let is_script = matches!(value.get_ref(), DeValue::String(_));
    let jest = Jest::parse(&words).filter(|_| !is_script);
    jest.ok_or_else(|| {
        let detail = "the jest adapter wants a list that starts Jest, like [\"jest\"] or [\"npx\", \"jest\"]";
        section.bad_value("run", &value.span(), detail)
    })
}

/// How pytest is started, if that is said.
fn read_pytest(section: &Section<'_>) -> Result<Pytest, ConfigError> {
    if let Some(value) = section.value("discover") {
        let detail = "the pytest adapter lists tests itself; remove `discover`";
        return Err(section.bad_value("discover", &value.span(), detail));
    }
    let Some(value) = section.value("run") else {
        return Ok(Pytest::default());
    };
    Pytest::parse(&command(section, "run")?).ok_or_else(|| {
        let detail = "the pytest adapter wants a list that begins like [\"pytest\"] or [\"python3\", \"-m\", \"pytest\"]";
        section.bad_value("run", &value.span(), detail)
    })
}
