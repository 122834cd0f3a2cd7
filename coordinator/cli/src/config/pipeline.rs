//! The jobs of a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use regatta_model::{Digest, ImageReference, Isolation, JobName};
use regatta_verdict::Policy;

use crate::jest::Jest;
use crate::pytest::Pytest;

use super::error::{ConfigError, ConfigProblem, Position, nearest};
use super::quarantine::QuarantinedTest;

/// Every job of a configuration file; their `needs` name jobs that are there and have no circle.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The file.
    pub file: PathBuf,
    /// Where it is in the commit, from the root; empty for the commit's own, or if nobody knows.
    pub place: String,
    /// Where input patterns begin.
    pub root: PathBuf,
    /// By name, needed jobs before those that need them.
    pub jobs: Vec<JobConfig>,
    /// What a release requires; `None` if no file says.
    pub policy: Option<Policy>,
    /// What the commit's own file requires, if this is another.
    pub commit_policy: Option<Policy>,
    /// The files that say so, as they were read.
    pub read: Vec<(PathBuf, Digest)>,
}

/// A job, with the defaults applied.
#[derive(Clone, PartialEq, Debug)]
pub struct JobConfig {
    /// Its name.
    pub name: JobName,
    /// Where the job begins in the file.
    pub position: Position,
    /// The image to run in; the agent's own choice if `None`.
    pub image: Option<ImageReference>,
    /// Which files it sees.
    pub inputs: Vec<InputPattern>,
    /// What to keep of the files it wrote.
    pub outputs: Vec<String>,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// Jobs that must have passed before; their outputs are laid into its inputs.
    pub needs: Vec<String>,
    /// Thousandths of a CPU; 0 for the agent's choice.
    pub cpu_milli: u64,
    /// Bytes; 0 for the agent's choice.
    pub memory_bytes: u64,
    /// For the command or each test; the coordinator's default if `None`.
    pub timeout: Option<Duration>,
    /// Whether there is a network beyond loopback.
    pub network: bool,
    /// How many more times a failure is tried.
    pub retries: u32,
    /// Who may share its container.
    pub isolation: Isolation,
    /// What it does.
    pub action: JobAction,
}

/// A pattern and where it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputPattern {
    /// The pattern; `!` at its beginning takes files out.
    pub text: String,
    /// Where it is written.
    pub position: Position,
}

/// What a job does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobAction {
    /// Runs a command.
    Command(Vec<String>),
    /// Runs a suite of tests.
    Suite(SuiteConfig),
}

/// How to find tests and how to run them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SuiteConfig {
    /// Lists the ids; empty if the adapter knows how to.
    pub discover: Vec<String>,
    /// Runs the chosen tests; empty if the adapter knows how to.
    pub run: Vec<String>,
    /// Starts a persistent worker that does what both do; empty if there is none.
    pub worker: Vec<String>,
    /// How all are spoken to.
    pub adapter: SuiteAdapter,
    /// Keep ids that contain any of these; all if there are none.
    pub filters: Vec<String>,
    /// Tests whose failures do not count for now.
    pub quarantine: Vec<QuarantinedTest>,
    /// Whether tests that take much longer than they should may be begun again elsewhere.
    pub may_duplicate: bool,
}

/// How a suite's commands are spoken to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SuiteAdapter {
    /// As Rust's libtest.
    Libtest,
    /// As GoogleTest.
    GoogleTest,
    /// As a program that `go test -c` made.
    Go,
    /// CTest.
    Ctest,
    /// A runner that divides its tests itself, as Bazel wants it.
    BazelSharding {
        /// Into so many parts.
        shards: u32,
    },
    /// pytest.
    Pytest(Pytest),
    /// Jest.
    Jest(Jest),
    /// One id a line, `@file` as last argument, JUnit at this path.
    Contract {
        /// Relative to the working directory.
        junit: String,
    },
}

impl Pipeline {
    /// The job of that name.
    #[must_use]
    pub fn job(&self, name: &str) -> Option<&JobConfig> {
        self.jobs.iter().find(|job| job.name.as_str() == name)
    }

    /// The jobs named and all that they need, or every job if none is named; in the order of `jobs`.
    ///
    /// # Errors
    /// A name is no job's.
    pub fn select(&self, names: &[String]) -> Result<Vec<&JobConfig>, ConfigError> {
        if names.is_empty() {
            return Ok(self.jobs.iter().collect());
        }
        let mut wanted: Vec<&str> = Vec::new();
        let mut open: Vec<&str> = names.iter().map(String::as_str).collect();
        while let Some(name) = open.pop() {
            let job = self.job(name).ok_or_else(|| self.unknown_job(name))?;
            if !wanted.contains(&name) {
                wanted.push(name);
                open.extend(job.needs.iter().map(String::as_str));
            }
        }
        Ok(self
            .jobs
            .iter()
            .filter(|job| wanted.contains(&job.name.as_str()))
            .collect())
    }

    fn unknown_job(&self, name: &str) -> ConfigError {
        ConfigError::new(
            self.file.clone(),
            None,
            ConfigProblem::UnknownJob {
                name: name.to_owned(),
                nearest: nearest(name, self.jobs.iter().map(|job| job.name.as_str())),
            },
        )
    }
}

/// Puts needed jobs before those that need them; jobs that do not need each other stay in order.
///
/// # Errors
/// The names along a circle, the first one repeated at the end.
pub(super) fn in_order(jobs: Vec<JobConfig>) -> Result<Vec<JobConfig>, Vec<String>> {
    let by_name: BTreeMap<&str, &JobConfig> =
        jobs.iter().map(|job| (job.name.as_str(), job)).collect();
    let mut ranks: BTreeMap<&str, usize> = BTreeMap::new();
    for job in &jobs {
        visit(job, &by_name, &mut ranks)?;
    }
    let ranks: BTreeMap<String, usize> = ranks
        .into_iter()
        .map(|(name, rank)| (name.to_owned(), rank))
        .collect();
    let mut sorted = jobs;
    sorted.sort_by_key(|job| ranks.get(job.name.as_str()).copied());
    Ok(sorted)
}

/// Ranks a job behind all that it needs. It does not recur: how deep needs go is for the file to say.
fn visit<'a>(
    job: &'a JobConfig,
    jobs: &BTreeMap<&'a str, &'a JobConfig>,
    ranks: &mut BTreeMap<&'a str, usize>,
) -> Result<(), Vec<String>> {
    if ranks.contains_key(job.name.as_str()) {
        return Ok(());
    }
    let mut path = vec![(job.name.as_str(), job.needs.as_slice())];
    let mut on_path = BTreeSet::from([job.name.as_str()]);
    while let Some((name, needs)) = path.last_mut() {
        let Some((need, rest)) = needs.split_first() else {
            on_path.remove(name);
            ranks.insert(name, ranks.len());
            path.pop();
            continue;
        };
        *needs = rest;
        if ranks.contains_key(need.as_str()) {
            continue;
        }
        if !on_path.insert(need) {
            let circle = path.iter().map(|(name, _)| *name);
            let circle = circle.skip_while(|name| *name != need);
            return Err(circle.chain([need.as_str()]).map(str::to_owned).collect());
        }
        let needs = jobs.get(need.as_str()).map_or(&[][..], |job| &job.needs);
        path.push((need, needs));
    }
    Ok(())
}
