//! What the events of a run are evidence of.

mod builder;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use prost::Message as _;
use regatta_model::Digest;
use regatta_wire::v1;

use crate::counts::Counts;
use crate::flaky::Execution;
use crate::stages::Stages;

pub use builder::EvidenceBuilder;

/// Why a run says nothing: its events lack something, or contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IncompleteRunError {
    /// It goes on, or its first events are not known.
    #[error("the run has no {lacks}: it has not ended, or its events are not complete")]
    Lacks {
        /// What is not there.
        lacks: &'static str,
    },
    /// What its tests are said to be is not what is said of each.
    #[error("the run contradicts itself: {detail}")]
    Contradiction {
        /// In what.
        detail: String,
    },
}

/// How a job ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobEvidence {
    /// How.
    pub status: v1::JobStatus,
    /// Whether a build's result was known.
    pub cached: bool,
    /// The run that a cached result comes from; empty if that is not known, or it was not cached.
    pub cached_from: String,
    /// What produced a cached result, if that is known.
    pub cached_where: Option<v1::Provenance>,
    /// When a cached result was produced, by the clock of whoever did, if that is known.
    pub cached_times: Option<(Timestamp, Timestamp)>,
    /// Whether a build failed before it passed.
    pub flaky: bool,
    /// What it ran on and in; `None` if nothing ran.
    pub place: Option<v1::Provenance>,
    /// When it did what.
    pub stages: Stages,
    /// What it made, by path.
    pub artefacts: BTreeMap<String, Digest>,
    /// Those of them that are directories, by their `Tree`.
    pub trees: BTreeSet<Digest>,
}

/// How the tests of a suite ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SuiteEvidence {
    /// Each test by its id.
    pub tests: BTreeMap<String, TestEvidence>,
}

/// How a test ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestEvidence {
    /// How.
    pub status: v1::TestStatus,
    /// Under which its pass is cached.
    pub key: Option<Digest>,
    /// What it was an execution of, if that is known.
    pub(crate) execution: Option<Execution>,
    /// The run that a cached result comes from; empty if that is not known, or it was not cached.
    pub cached_from: String,
    /// What produced it, if that is known.
    pub cached_where: Option<v1::Provenance>,
}

impl JobEvidence {
    /// What its result comes from, if that is known.
    fn origin(&self) -> Option<&v1::Provenance> {
        match self.cached {
            true => self.cached_where.as_ref(),
            false => self.place.as_ref(),
        }
    }

    /// The content of the image that its result comes from; empty if that is not known, or it ran in none.
    pub(crate) fn image(&self) -> &str {
        self.origin()
            .map(|place| place.image_id.as_str())
            .unwrap_or_default()
    }

    /// The agent that its result comes from; empty if that is not known.
    pub(crate) fn agent(&self) -> &str {
        self.origin()
            .map(|place| place.agent_id.as_str())
            .unwrap_or_default()
    }
}

impl SuiteEvidence {
    /// The tests that ended in one of these ways, in order.
    pub fn that_are<'a>(
        &'a self,
        wanted: &'a [v1::TestStatus],
    ) -> impl Iterator<Item = &'a str> + 'a {
        let tests = self.tests.iter();
        let tests = tests.filter(move |(_, test)| wanted.contains(&test.status));
        tests.map(|(id, _)| id.as_str())
    }

    fn counts(&self) -> Counts {
        let counts = self.tests.values().map(|test| Counts::of(test.status));
        counts.fold(Counts::default(), Counts::plus)
    }
}

/// All that the events of a run say of its commit.
#[derive(Clone, PartialEq, Debug)]
pub struct Evidence {
    /// What was asked for.
    pub spec: v1::RunSpec,
    /// How it ended.
    pub end: v1::RunFinished,
    /// Every job by name.
    pub jobs: BTreeMap<String, JobEvidence>,
    /// Every suite by its job's name.
    pub suites: BTreeMap<String, SuiteEvidence>,
    /// Images that something ran in, by content.
    pub images: BTreeSet<String>,
    /// Agents that something ran on.
    pub agents: BTreeSet<String>,
    /// How many cached passes were executed again, and passed.
    pub audited_hits: u64,
    /// What failed in it at any attempt, and no machine is to blame for.
    pub(crate) failures: BTreeSet<Execution>,
    /// How often machines lost something.
    pub infrastructure_retries: u64,
    /// When its commit was made, if it says so.
    pub committed_at: Option<Timestamp>,
    /// When it was submitted.
    pub started_at: Timestamp,
    /// When a slot took the first of its work, if one did and that was told.
    pub first_leased_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
}

impl Evidence {
    /// How the tests ended.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.end.counts.unwrap_or_default().into()
    }

    /// How a job ended; unknown if that was not told.
    #[must_use]
    pub fn status_of(&self, job: &str) -> v1::JobStatus {
        let ended = self.jobs.get(job);
        ended.map_or(v1::JobStatus::Unknown, |job| job.status)
    }

    /// Why a job says nothing of its commit though it passed, if it does not: it is a suite of which nothing ran.
    pub(crate) fn lacks_tests(&self, job: &v1::Job) -> Option<&'static str> {
        let is_suite = matches!(job.kind, Some(v1::job::Kind::Suite(_)));
        let suite = self.suites.get(&job.name);
        let counts = suite.map_or_else(Counts::default, SuiteEvidence::counts);
        match counts.planned {
            _ if !is_suite => None,
            0 => Some("has no tests"),
            planned if planned == counts.skipped => Some("has had every test skipped"),
            _ => None,
        }
    }

    /// When it did what.
    #[must_use]
    pub fn stages(&self) -> Stages {
        let stages = Stages {
            queued_at: Some(self.started_at),
            started_at: self.first_leased_at,
            finished_at: Some(self.finished_at),
        };
        stages.in_order()
    }

    /// The run that each cached result comes from, empty where that is not known, and what produced it.
    pub fn cached_from(&self) -> impl Iterator<Item = (&str, Option<&v1::Provenance>)> {
        let tests = self.suites.values().flat_map(|suite| suite.tests.values());
        let tests = tests.filter(|test| test.status == v1::TestStatus::Cached);
        let jobs = self.jobs.values().filter(|job| job.cached);
        let tests = tests.map(|test| (test.cached_from.as_str(), test.cached_where.as_ref()));
        tests.chain(jobs.map(|job| (job.cached_from.as_str(), job.cached_where.as_ref())))
    }

    /// `job test` of each test that ended so.
    pub fn tests_that_are(&self, status: v1::TestStatus) -> impl Iterator<Item = String> {
        self.suites.iter().flat_map(move |(job, suite)| {
            let tests = suite.tests.iter();
            let tests = tests.filter(move |(_, test)| test.status == status);
            tests.map(move |(test, _)| format!("{job} {test}"))
        })
    }

    /// The digest of what was asked for: its jobs.
    #[must_use]
    pub fn requested(&self) -> Digest {
        let requested = v1::RunSpec {
            jobs: self.spec.jobs.clone(),
            ..v1::RunSpec::default()
        };
        Digest::of(&requested.encode_to_vec())
    }

    /// What was said at the end is borne out by what was said before.
    fn check(&self) -> Result<(), IncompleteRunError> {
        let contradiction = |detail: String| Err(IncompleteRunError::Contradiction { detail });
        let counts = self.counts();
        let told = self.suites.values().map(SuiteEvidence::counts);
        let mut told = told.fold(Counts::default(), Counts::plus);
        // A run that lost its coordinator did not come to tell all of its tests.
        let untold = counts.not_run.saturating_sub(told.not_run);
        told.not_run += untold;
        told.planned = told.planned.saturating_add(untold);
        if counts != told || !counts.add_up() {
            return contradiction(format!("it counts {counts:?}, its tests are {told:?}"));
        }
        let passed = |job: &v1::Job| self.status_of(&job.name) == v1::JobStatus::Passed;
        let all_passed = self.spec.jobs.iter().all(passed);
        let is_good = all_passed && counts.failed == 0 && counts.not_run == 0;
        if self.end.verdict() == v1::Verdict::Releasable && !is_good {
            return contradiction("it is RELEASABLE, and not all of it has passed".to_owned());
        }
        Ok(())
    }
}
