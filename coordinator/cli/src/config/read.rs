//! From the text of a configuration to its jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use regatta_model::{Digest, ImageReference, Isolation, JobName};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::action::read_action;
use super::error::{ConfigError, ConfigProblem, nearest};
use super::pipeline::{InputPattern, JobConfig, Pipeline, in_order};
use super::policy::read_policy;
use super::section::{Section, Source};

const TOP_KEYS: &[&str] = &["defaults", "jobs", "policy"];
const DEFAULT_KEYS: &[&str] = &[
    "env",
    "image",
    "isolation",
    "network",
    "resources",
    "retry",
    "timeout",
];
const JOB_KEYS: &[&str] = &[
    "env",
    "image",
    "inputs",
    "isolation",
    "needs",
    "network",
    "outputs",
    "resources",
    "retry",
    "run",
    "suite",
    "timeout",
];
const RESOURCE_KEYS: &[&str] = &["cpu", "memory"];
/// What a directory's configuration is called, the one first that counts if both are there.
pub const FILES: [&str; 2] = [".config/regatta.toml", "regatta.toml"];
/// More attempts than this hide a defect instead of riding out bad luck.
const MOST_RETRIES: u32 = 10;

/// Finds the configuration of a directory: `.config/regatta.toml` or `regatta.toml` in it or in the
/// nearest directory above that has one. Returns the file and the directory that patterns begin at.
///
/// # Errors
/// There is none.
pub fn find(directory: &Path) -> Result<(PathBuf, PathBuf), ConfigError> {
    for root in directory.ancestors() {
        for name in FILES {
            let file = root.join(name);
            if file.is_file() {
                return Ok((file, root.to_owned()));
            }
        }
    }
    Err(ConfigError::new(
        directory.to_owned(),
        None,
        ConfigProblem::NotFound,
    ))
}

/// The directory that the patterns of `file` begin at: its own, or the one above `.config`.
#[must_use]
pub fn root_of(file: &Path) -> PathBuf {
    let directory = file.parent().unwrap_or(Path::new(""));
    let directory = match directory.file_name() {
        Some(name) if name == ".config" => directory.parent().unwrap_or(Path::new("")),
        Some(_) | None => directory,
    };
    if directory.as_os_str().is_empty() {
        return PathBuf::from(".");
    }
    directory.to_owned()
}

/// Reads the configuration in `file`.
///
/// # Errors
/// The file cannot be read or used; the error names the place.
pub fn load(file: &Path, root: &Path) -> Result<Pipeline, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        ConfigError::new(file.to_owned(), None, ConfigProblem::Unreadable(error))
    })?;
    parse(&text, file, root)
}

/// Reads the configuration `text`, which is in `file`.
///
/// # Errors
/// The text cannot be used; the error names the place.
pub fn parse(text: &str, file: &Path, root: &Path) -> Result<Pipeline, ConfigError> {
    let source = Source { file, text };
    let document = DeTable::parse(text).map_err(|error| {
        let problem = ConfigProblem::Syntax {
            detail: error.message().to_owned(),
        };
        source.error(&error.span().unwrap_or_default(), problem)
    })?;
    let top = Section {
        source,
        place: "the file".to_owned(),
        span: document.span(),
        table: document.get_ref(),
    };
    top.allow(TOP_KEYS)?;
    let defaults = match top.section("defaults", "[defaults]".to_owned())? {
        Some(section) => {
            section.allow(DEFAULT_KEYS)?;
            Settings::read(&section)?
        }
        None => Settings::default(),
    };
    let jobs = match top.section("jobs", "[jobs]".to_owned())? {
        Some(section) => read_jobs(&section, &defaults)?,
        None => Vec::new(),
    };
    check_needs(&top.source, &jobs)?;
    let policy = top.section("policy", "[policy]".to_owned())?;
    let policy = read_policy(policy.as_ref(), &jobs)?;
    let places: BTreeMap<String, _> = jobs
        .iter()
        .map(|job| (job.name.to_string(), job.position))
        .collect();
    let jobs = in_order(jobs).map_err(|path| {
        let position = path.first().and_then(|name| places.get(name)).copied();
        ConfigError::new(file.to_owned(), position, ConfigProblem::Cycle { path })
    })?;
    Ok(Pipeline {
        place: String::new(),
        file: file.to_owned(),
        root: root.to_owned(),
        jobs,
        policy: Some(policy),
        commit_policy: None,
        read: vec![(file.to_owned(), Digest::of(text.as_bytes()))],
    })
}

/// What jobs and defaults have in common.
#[derive(Clone, Debug, Default)]
struct Settings {
    image: Option<ImageReference>,
    environment: BTreeMap<String, String>,
    cpu_milli: Option<u64>,
    memory_bytes: Option<u64>,
    timeout: Option<Duration>,
    network: Option<bool>,
    retries: Option<u32>,
    isolation: Option<Isolation>,
}

impl Settings {
    fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let image = match section.text("image")? {
            Some(text) => {
                let image = read_image(text.get_ref());
                Some(image.map_err(|problem| section.bad_value("image", &text.span(), problem))?)
            }
            None => None,
        };
        let isolation = match section.text("isolation")? {
            Some(text) => {
                let isolation = text.get_ref().parse::<Isolation>();
                Some(
                    isolation
                        .map_err(|error| section.bad_value("isolation", &text.span(), error))?,
                )
            }
            None => None,
        };
        let (cpu_milli, memory_bytes) = read_resources(section)?;
        Ok(Self {
            image,
            environment: section.environment("env")?,
            cpu_milli,
            memory_bytes,
            timeout: section.duration("timeout")?,
            network: section.boolean("network")?,
            retries: section.count("retry", MOST_RETRIES)?,
            isolation,
        })
    }

    fn or(mut self, defaults: &Self) -> Self {
        for (name, value) in &defaults.environment {
            self.environment
                .entry(name.clone())
                .or_insert_with(|| value.clone());
        }
        Self {
            image: self.image.or_else(|| defaults.image.clone()),
            environment: self.environment,
            cpu_milli: self.cpu_milli.or(defaults.cpu_milli),
            memory_bytes: self.memory_bytes.or(defaults.memory_bytes),
            timeout: self.timeout.or(defaults.timeout),
            network: self.network.or(defaults.network),
            retries: self.retries.or(defaults.retries),
            isolation: self.isolation.or(defaults.isolation),
        }
    }
}

/// An image that Docker could have: what its grammar of references allows, roughly.
fn read_image(text: &str) -> Result<ImageReference, String> {
    let is_allowed = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-' | ':' | '/' | '@')
    };
    if let Some(character) = text.chars().find(|character| !is_allowed(*character)) {
        return Err(format!(
            "`{text}` holds {character:?}; images are called like debian:12 or host:5000/name@sha256:..."
        ));
    }
    let name = text.split('@').next().unwrap_or_default();
    // What stands before a slash may be a host, and what stands after a colon a tag.
    let path = name.split_once('/').map_or(name, |(_, path)| path);
    let path = path.split(':').next().unwrap_or_default();
    if path.contains(|character: char| character.is_ascii_uppercase()) {
        return Err(format!("the name in `{text}` must be in lower case"));
    }
    text.parse()
        .map_err(|error: regatta_model::InvalidIdError| error.to_string())
}

fn read_resources(section: &Section<'_>) -> Result<(Option<u64>, Option<u64>), ConfigError> {
    let place = format!("{}.resources]", section.place.trim_end_matches(']'));
    let Some(resources) = section.section("resources", place)? else {
        return Ok((None, None));
    };
    resources.allow(RESOURCE_KEYS)?;
    Ok((resources.cpus("cpu")?, resources.size("memory")?))
}

fn read_jobs(section: &Section<'_>, defaults: &Settings) -> Result<Vec<JobConfig>, ConfigError> {
    let mut jobs = Vec::new();
    for (key, value) in section.table {
        let name: &str = key.get_ref();
        let DeValue::Table(table) = value.get_ref() else {
            return Err(section.wrong_type(name, value, "a table, like [jobs.build]"));
        };
        let job = Section {
            source: section.source,
            place: format!("[jobs.{name}]"),
            span: key.span(),
            table,
        };
        jobs.push(read_job(name, &job, defaults)?);
    }
    Ok(jobs)
}

fn read_job(
    name: &str,
    section: &Section<'_>,
    defaults: &Settings,
) -> Result<JobConfig, ConfigError> {
    section.allow(JOB_KEYS)?;
    let name: JobName = name
        .parse()
        .map_err(|error| section.bad_value(name, &section.span, error))?;
    let settings = Settings::read(section)?.or(defaults);
    let inputs = section.texts("inputs")?.unwrap_or_default();
    let outputs = section.texts("outputs")?.unwrap_or_default();
    let needs = section.texts("needs")?.unwrap_or_default();
    Ok(JobConfig {
        name,
        position: section.source.position(section.span.start),
        image: settings.image,
        inputs: inputs
            .into_iter()
            .map(|pattern| read_pattern(section, pattern))
            .collect::<Result<_, _>>()?,
        outputs: outputs
            .into_iter()
            .map(|path| relative_path(section, "outputs", path))
            .collect::<Result<_, _>>()?,
        environment: settings.environment,
        needs: needs.into_iter().map(Spanned::into_inner).collect(),
        cpu_milli: settings.cpu_milli.unwrap_or_default(),
        memory_bytes: settings.memory_bytes.unwrap_or_default(),
        timeout: settings.timeout,
        network: settings.network.unwrap_or_default(),
        retries: settings.retries.unwrap_or_default(),
        isolation: settings.isolation.unwrap_or_default(),
        action: read_action(section)?,
    })
}

fn read_pattern(
    section: &Section<'_>,
    pattern: Spanned<String>,
) -> Result<InputPattern, ConfigError> {
    let position = section.source.position(pattern.span().start);
    let text = pattern.get_ref().trim_start_matches('!');
    if let Err(error) = globset::Glob::new(text) {
        return Err(section.bad_value("inputs", &pattern.span(), error));
    }
    relative_path(
        section,
        "inputs",
        Spanned::new(pattern.span(), text.to_owned()),
    )?;
    Ok(InputPattern {
        text: pattern.into_inner(),
        position,
    })
}

/// A path that stays below the directory it begins at.
pub(super) fn relative_path(
    section: &Section<'_>,
    key: &str,
    path: Spanned<String>,
) -> Result<String, ConfigError> {
    let inside = Path::new(path.get_ref())
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if path.get_ref().is_empty() || !inside {
        let detail = format!("`{}` must be a relative path without `..`", path.get_ref());
        return Err(section.bad_value(key, &path.span(), detail));
    }
    Ok(path.into_inner())
}

fn check_needs(source: &Source<'_>, jobs: &[JobConfig]) -> Result<(), ConfigError> {
    let names: BTreeSet<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    for job in jobs {
        for need in &job.needs {
            if names.contains(need.as_str()) {
                continue;
            }
            return Err(ConfigError::new(
                source.file.to_owned(),
                Some(job.position),
                ConfigProblem::UnknownNeed {
                    place: format!("[jobs.{}]", job.name),
                    name: need.clone(),
                    nearest: nearest(need, names),
                },
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
