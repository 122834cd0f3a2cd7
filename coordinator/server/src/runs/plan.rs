//! From a submitted specification to a plan that can be carried out. Pure.

mod cycles;
mod suite;

use std::collections::BTreeMap;
use std::time::Duration;

use regatta_model::{Digest, JobName, Platform, TenantId, Timestamp};
use regatta_wire::convert::required_digest;
use regatta_wire::{reapi, v1};

use super::audit::AuditShare;
use super::suite::sharding;
use crate::action_plan::{PlanDefaults, RunSettings, canonical_command, settings_of, timeout_of};
use crate::status::with_sources;
use cycles::check_acyclic;
pub(crate) use suite::{Adapter, Harness, PlannedSuite};

/// How many jobs a run may have.
const MAX_JOBS: usize = 10_000;
/// How long a commit's name may be, in bytes: databases have an index of them.
const MAX_COMMIT_BYTES: usize = 512;
const MAX_PIPELINE_BYTES: usize = 4096;
/// How often a failed test or action may be tried again.
const MAX_RETRIES: u32 = 20;
/// How far a name may be from what was meant, as a share of its length, to be suggested.
const SUGGESTION_THRESHOLD: f64 = 0.7;

/// Why a run cannot be accepted. Fix the specification.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// A field breaks a rule.
    #[error("{problem}")]
    Field {
        /// The path to it.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two jobs have one name.
    #[error("there are two jobs called `{job}`")]
    DuplicateJob {
        /// The name.
        job: String,
    },
    /// A job that does not exist is named.
    #[error("job `{job}` needs `{needs}`, which is no job{}", suggestion(nearest.as_deref()))]
    UnknownJob {
        /// The job that names it.
        job: String,
        /// What it names.
        needs: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// Jobs wait for each other.
    #[error("jobs need each other in a circle: {}", path.join(" -> "))]
    Cycle {
        /// The circle, its first job repeated at its end.
        path: Vec<String>,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

impl PlanError {
    /// The path to the offending field, as `google.rpc.BadRequest` wants it.
    #[must_use]
    pub fn field(&self) -> String {
        match self {
            Self::Field { field, .. } => field.clone(),
            Self::DuplicateJob { .. } => "spec.jobs.name".to_owned(),
            Self::UnknownJob { job, .. } => format!("spec.jobs[{job}].needs"),
            Self::Cycle { .. } => "spec.jobs.needs".to_owned(),
        }
    }
}

fn invalid(field: impl Into<String>, problem: impl ToString) -> PlanError {
    PlanError::Field {
        field: field.into(),
        problem: problem.to_string(),
    }
}

/// A run that can be carried out.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) tenant: TenantId,
    pub(crate) spec: v1::RunSpec,
    pub(crate) jobs: Vec<PlannedJob>,
    /// `None` for the coordinator's own.
    pub(crate) audit: Option<AuditShare>,
    pub(crate) warnings: Vec<String>,
}

/// A job of it. Other jobs are named by their index.
#[derive(Clone, Debug)]
pub(crate) struct PlannedJob {
    pub(crate) name: JobName,
    pub(crate) needs: Vec<usize>,
    pub(crate) input_root: Digest,
    pub(crate) inputs: Vec<PlannedInput>,
    /// Environment, outputs and working directory; the arguments are the kind's.
    pub(crate) template: reapi::Command,
    pub(crate) settings: RunSettings,
    pub(crate) mount_path: String,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) kind: JobKind,
}

/// An output of another job.
#[derive(Clone, Debug)]
pub(crate) struct PlannedInput {
    pub(crate) job: usize,
    /// `None` for all outputs.
    pub(crate) output_path: Option<String>,
    /// `None` for its own path.
    pub(crate) at: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum JobKind {
    Build {
        arguments: Vec<String>,
        do_not_cache: bool,
    },
    Suite(Box<PlannedSuite>),
}

impl Plan {
    /// Checks a specification.
    pub(crate) fn new(spec: v1::RunSpec, defaults: &PlanDefaults) -> Result<Self, PlanError> {
        let tenant = spec
            .instance_name
            .parse()
            .map_err(|error| invalid("spec.instance_name", error))?;
        if spec.jobs.is_empty() || spec.jobs.len() > MAX_JOBS {
            let problem = format!("a run has 1 to {MAX_JOBS} jobs");
            return Err(invalid("spec.jobs", problem));
        }
        let names = index_names(&spec.jobs)?;
        let mut warnings = Vec::new();
        let jobs = spec
            .jobs
            .iter()
            .map(|job| plan_job(job, &names, &spec.jobs, defaults, &mut warnings))
            .collect::<Result<Vec<_>, _>>()?;
        check_acyclic(&jobs)?;
        let mut policies = spec.policy.iter().chain(&spec.commit_policy);
        policies.try_for_each(check_policy)?;
        if spec.pipeline.len() > MAX_PIPELINE_BYTES {
            return Err(invalid("spec.pipeline", "the path is too long"));
        }
        if spec.commit.len() > MAX_COMMIT_BYTES {
            let problem = format!("a commit has at most {MAX_COMMIT_BYTES} bytes");
            return Err(invalid("spec.commit", problem));
        }
        let audit = spec.audit_percent.map(AuditShare::from_percent);
        let audit = audit
            .transpose()
            .map_err(|error| invalid("spec.audit_percent", error))?;
        Ok(Self {
            tenant,
            spec,
            jobs,
            audit,
            warnings,
        })
    }
}

impl Plan {
    /// Nothing in it has expired.
    ///
    /// # Errors
    /// The field that has.
    pub(crate) fn check_dates(&self, now: Timestamp) -> Result<(), PlanError> {
        for job in &self.jobs {
            if let JobKind::Suite(suite) = &job.kind
                && let Some(problem) = suite.expired(now)
            {
                let field = format!("spec.jobs[{}].suite.quarantine", job.name);
                return Err(invalid(field, format!("job `{}`: {problem}", job.name)));
            }
        }
        Ok(())
    }
}

/// Its jobs can be jobs; whether they are in this run is all the same to it.
fn check_policy(policy: &v1::Policy) -> Result<(), PlanError> {
    const FIELD: &str = "spec.policy.required_jobs";
    if policy.required_jobs.len() > MAX_JOBS {
        return Err(invalid(FIELD, format!("a run has at most {MAX_JOBS} jobs")));
    }
    let mut names = policy.required_jobs.iter();
    let parsed = names.try_for_each(|name| name.parse::<JobName>().map(drop));
    parsed.map_err(|error| invalid(FIELD, error))
}

fn index_names(jobs: &[v1::Job]) -> Result<BTreeMap<&str, usize>, PlanError> {
    let mut names = BTreeMap::new();
    for (index, job) in jobs.iter().enumerate() {
        if names.insert(job.name.as_str(), index).is_some() {
            return Err(PlanError::DuplicateJob {
                job: job.name.clone(),
            });
        }
    }
    Ok(names)
}

fn find_job(job: &str, needs: &str, names: &BTreeMap<&str, usize>) -> Result<usize, PlanError> {
    names
        .get(needs)
        .copied()
        .ok_or_else(|| PlanError::UnknownJob {
            job: job.to_owned(),
            needs: needs.to_owned(),
            nearest: nearest(needs, names.keys().copied()),
        })
}

fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .filter(|(similarity, _)| *similarity >= SUGGESTION_THRESHOLD)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name.to_owned())
}

fn plan_job(
    job: &v1::Job,
    names: &BTreeMap<&str, usize>,
    all: &[v1::Job],
    defaults: &PlanDefaults,
    warnings: &mut Vec<String>,
) -> Result<PlannedJob, PlanError> {
    let field = |name: &str| format!("spec.jobs[{}].{name}", job.name);
    let name: JobName = job
        .name
        .parse()
        .map_err(|error| invalid("spec.jobs.name", error))?;
    let inputs = plan_inputs(job, names, all)?;
    let mut needs = job
        .needs
        .iter()
        .map(|needs| find_job(&job.name, needs, names))
        .collect::<Result<Vec<_>, _>>()?;
    needs.extend(inputs.iter().map(|input| input.job));
    needs.sort_unstable();
    needs.dedup();
    let input_root = required_digest(job.input_root.as_ref(), "input_root")
        .map_err(|error| invalid(field("input_root"), with_sources(&error)))?;
    let timeout = timeout_of(job.timeout.as_ref(), defaults)
        .map_err(|error| invalid(field("timeout"), with_sources(&error)))?;
    if job.retries > MAX_RETRIES {
        return Err(invalid(
            field("retries"),
            format!("at most {MAX_RETRIES} are allowed"),
        ));
    }
    let kind = plan_kind(job)?;
    if matches!(kind, JobKind::Suite(_)) && !job.output_paths.is_empty() {
        warnings.push(format!(
            "job `{}` is a suite: its outputs are not kept",
            job.name
        ));
    }
    Ok(PlannedJob {
        name,
        needs,
        input_root,
        inputs,
        template: plan_template(job, &kind)?,
        settings: plan_settings(job, defaults)?,
        mount_path: job.mount_path.clone(),
        timeout,
        retries: job.retries,
        kind,
    })
}

fn plan_inputs(
    job: &v1::Job,
    names: &BTreeMap<&str, usize>,
    all: &[v1::Job],
) -> Result<Vec<PlannedInput>, PlanError> {
    let mut inputs = Vec::with_capacity(job.inputs_from.len());
    for input in &job.inputs_from {
        let field = format!("spec.jobs[{}].inputs_from", job.name);
        let index = find_job(&job.name, &input.job, names)?;
        let Some(source) = all.get(index) else {
            continue;
        };
        if !matches!(source.kind, Some(v1::job::Kind::Build(_))) {
            let problem = format!("`{}` is a suite, only builds have outputs", input.job);
            return Err(invalid(field, problem));
        }
        let path = input.output_path.as_str();
        if !path.is_empty() && !source.output_paths.iter().any(|known| known == path) {
            let known = source.output_paths.iter().map(String::as_str);
            let hint = suggestion(nearest(path, known).as_deref());
            let problem = format!("`{path}` is no output of `{}`{hint}", input.job);
            return Err(invalid(field, problem));
        }
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let at = named(&input.at);
        if at
            .as_deref()
            .is_some_and(|at| !super::overlay::is_plain_path(at))
        {
            return Err(invalid(
                field,
                format!("`{}` is no path inside the input root", input.at),
            ));
        }
        inputs.push(PlannedInput {
            job: index,
            output_path: named(path),
            at,
        });
    }
    Ok(inputs)
}

fn plan_kind(job: &v1::Job) -> Result<JobKind, PlanError> {
    let field = |name: &str| format!("spec.jobs[{}].{name}", job.name);
    match &job.kind {
        None => Err(invalid(field("kind"), "a job is either a build or a suite")),
        Some(v1::job::Kind::Build(build)) => Ok(JobKind::Build {
            arguments: build.arguments.clone(),
            do_not_cache: build.do_not_cache,
        }),
        Some(v1::job::Kind::Suite(suite)) => PlannedSuite::new(suite, &field).map(JobKind::Suite),
    }
}

/// Checks everything of the job's commands, and returns them without arguments.
fn plan_template(job: &v1::Job, kind: &JobKind) -> Result<reapi::Command, PlanError> {
    let (arguments, output_paths) = match kind {
        JobKind::Build { arguments, .. } => (arguments, job.output_paths.clone()),
        JobKind::Suite(suite) => (
            &suite.run_arguments,
            match &suite.adapter {
                Adapter::Harness(_) => Vec::new(),
                Adapter::Sharding { .. } => sharding::output_paths(),
                Adapter::Contract { junit_path, .. } => vec![junit_path.clone()],
            },
        ),
    };
    let mut environment_variables = job.environment.clone();
    environment_variables.sort_by(|one, other| one.name.cmp(&other.name));
    let command = reapi::Command {
        arguments: arguments.clone(),
        environment_variables,
        output_paths,
        working_directory: job.working_directory.clone(),
        ..Default::default()
    };
    let mut command = canonical_command(command).map_err(|error| {
        let field = format!("spec.jobs[{}].{}", job.name, error.field());
        invalid(field, format!("job `{}`: {error}", job.name))
    })?;
    command.output_paths.sort();
    command.arguments.clear();
    Ok(command)
}

fn plan_settings(job: &v1::Job, defaults: &PlanDefaults) -> Result<RunSettings, PlanError> {
    let platform = job.platform.as_ref().map(Platform::from);
    let mut settings = settings_of(platform.unwrap_or_default(), defaults).map_err(|error| {
        invalid(
            format!("spec.jobs[{}].platform", job.name),
            with_sources(&error),
        )
    })?;
    match job.isolation() {
        v1::Isolation::Unspecified => {}
        v1::Isolation::Run => settings.isolation = regatta_model::Isolation::Run,
        v1::Isolation::Fresh => settings.isolation = regatta_model::Isolation::Fresh,
    }
    settings.network |= job.network;
    if job.cpu_milli > 0 {
        settings.resources.cpu_milli = job.cpu_milli;
    }
    if job.memory_bytes > 0 {
        settings.resources.memory_bytes = job.memory_bytes;
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use regatta_model::Resources;

    use super::*;

    fn defaults() -> PlanDefaults {
        PlanDefaults {
            image: None,
            resources: Resources::default(),
            timeout: Duration::from_secs(60),
            maximum_timeout: Duration::from_secs(600),
            tenant_properties: BTreeMap::new(),
        }
    }

    fn job(name: &str, needs: &[&str]) -> v1::Job {
        v1::Job {
            name: name.to_owned(),
            needs: needs.iter().map(|&name| name.to_owned()).collect(),
            input_root: Some(Digest::EMPTY.into()),
            output_paths: vec!["out".to_owned()],
            kind: Some(v1::job::Kind::Build(v1::Build {
                arguments: vec!["make".to_owned()],
                do_not_cache: false,
            })),
            ..Default::default()
        }
    }

    #[track_caller]
    fn check(jobs: Vec<v1::Job>, expected: &str) {
        let spec = v1::RunSpec {
            jobs,
            ..Default::default()
        };
        let error = Plan::new(spec, &defaults()).expect_err("is refused");
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn circles_are_spelled_out() {
        check(
            vec![job("z", &["a"]), job("a", &["b"]), job("b", &["a"])],
            "jobs need each other in a circle: a -> b -> a",
        );
        check(
            vec![job("a", &["a"])],
            "jobs need each other in a circle: a -> a",
        );
    }

    #[test]
    fn what_is_not_there_is_named_with_what_was_meant() {
        check(
            vec![job("build", &[]), job("test", &["biuld"])],
            "job `test` needs `biuld`, which is no job; did you mean `build`?",
        );
        check(
            vec![job("a", &["zzz"])],
            "job `a` needs `zzz`, which is no job",
        );
        check(
            vec![job("a", &[]), job("a", &[])],
            "there are two jobs called `a`",
        );
        let from = v1::InputFrom {
            job: "a".to_owned(),
            output_path: "outt".to_owned(),
            at: String::new(),
        };
        let reader = v1::Job {
            inputs_from: vec![from],
            ..job("b", &[])
        };
        check(
            vec![job("a", &[]), reader],
            "`outt` is no output of `a`; did you mean `out`?",
        );
    }

    #[test]
    fn a_job_without_a_command_is_refused() {
        let bare = v1::Job {
            kind: None,
            ..job("a", &[])
        };
        check(vec![bare], "a job is either a build or a suite");
        let build = v1::Build::default();
        let empty = v1::Job {
            kind: Some(v1::job::Kind::Build(build)),
            ..job("a", &[])
        };
        check(
            vec![empty],
            "job `a`: a command needs at least one argument, the program",
        );
    }

    #[test]
    fn a_policy_requires_what_could_be_jobs() {
        let with = |required: &str| {
            let policy = v1::Policy {
                required_jobs: vec!["elsewhere".to_owned(), required.to_owned()],
                ..Default::default()
            };
            let spec = v1::RunSpec {
                jobs: vec![job("a", &[])],
                policy: Some(policy),
                ..Default::default()
            };
            Plan::new(spec, &defaults()).map(drop)
        };
        assert!(with("another").is_ok());
        let error = format!("{:?}", with("").expect_err("is no name"));
        assert!(error.contains("spec.policy.required_jobs"), "{error}");
    }

    #[test]
    fn an_input_from_a_job_is_a_need() {
        let from = v1::InputFrom {
            job: "a".to_owned(),
            ..Default::default()
        };
        let reader = v1::Job {
            inputs_from: vec![from],
            ..job("b", &[])
        };
        let spec = v1::RunSpec {
            jobs: vec![reader, job("a", &[])],
            ..Default::default()
        };
        let plan = Plan::new(spec, &defaults()).expect("is accepted");
        assert_eq!(plan.jobs[0].needs, [1]);
    }
}
