//! What a verdict says of each of its runs and jobs.

use serde::{Deserialize, Serialize};

use super::word;
use crate::evidence::Evidence;
use crate::policy::is_whole;
use crate::stages::{are_in_order, written};

/// When a run did what; RFC 3339. What is not known is left out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunStatement {
    /// Its id.
    pub run: String,
    /// Which file says what its jobs are; empty for the commit's own.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub pipeline: String,
    /// It was submitted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub submitted_at: Option<String>,
    /// A slot took the first of its work.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<String>,
    /// It ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finished_at: Option<String>,
}

/// A job. Its times are RFC 3339; what is not known is left out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStatement {
    /// Its name.
    pub name: String,
    /// The id of the run that it is a job of; empty in older verdicts.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub run: String,
    /// `PASSED`, `FAILED`, `CANCELLED`, `NOT_RUN` or `UNKNOWN`.
    pub status: String,
    /// Whether a build's result was known.
    pub cached: bool,
    /// Whether a build failed before it passed.
    pub flaky: bool,
    /// Whether it was asked for with chosen tests only, so that it answers for no required job.
    #[serde(rename = "chosen_tests", default)]
    pub chosen_tests: bool,
    /// What it needs had passed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub queued_at: Option<String>,
    /// A slot took the first of its work.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<String>,
    /// It ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub finished_at: Option<String>,
}

impl RunStatement {
    pub(super) fn of((run, evidence): (&str, &Evidence)) -> Self {
        let stages = evidence.stages();
        Self {
            run: run.to_owned(),
            pipeline: evidence.spec.pipeline.clone(),
            submitted_at: stages.queued_at.map(written),
            started_at: stages.started_at.map(written),
            finished_at: stages.finished_at.map(written),
        }
    }

    pub(super) fn is_in_order(&self) -> bool {
        are_in_order([&self.submitted_at, &self.started_at, &self.finished_at])
    }
}

impl JobStatement {
    pub(super) fn all_of<'a>(
        (run, evidence): (&'a str, &'a Evidence),
    ) -> impl Iterator<Item = Self> + 'a {
        evidence.spec.jobs.iter().map(move |job| {
            let ended = evidence.jobs.get(&job.name);
            let stages = ended.map(|job| job.stages).unwrap_or_default();
            Self {
                name: job.name.clone(),
                run: run.to_owned(),
                queued_at: stages.queued_at.map(written),
                started_at: stages.started_at.map(written),
                finished_at: stages.finished_at.map(written),
                status: word(evidence.status_of(&job.name).as_str_name(), "JOB_STATUS_"),
                cached: ended.is_some_and(|job| job.cached),
                flaky: ended.is_some_and(|job| job.flaky),
                chosen_tests: !is_whole(&evidence.spec, job),
            }
        })
    }

    pub(super) fn has_passed(&self) -> bool {
        self.status == "PASSED"
    }

    pub(super) fn is_in_order(&self) -> bool {
        are_in_order([&self.queued_at, &self.started_at, &self.finished_at])
    }
}
