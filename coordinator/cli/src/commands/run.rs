//! `regatta run`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use regatta_model::Digest;
use regatta_verdict::Policy;
use regatta_wire::v1;

use super::commit_policy::CommitPolicy;
use super::plan::plan;
use super::{blocking, connect};
use crate::client::Client;
use crate::config::{self, ConfigError, ConfigProblem, JobConfig, Pipeline};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::files::{JUNIT_OF_CI, place_in};
use crate::git::{Commit, Content, Reading};
use crate::options::{GlobalOptions, ReportArguments, RunOptions};
use crate::session::Session;
use crate::standard_output::standard_output;
use crate::tree::{Entries, ExpandError, Patterns, Staging, expand, walk};
use crate::watch::{Ended, Tally};
use crate::{directories, git, jobs};

pub(super) async fn run(global: &GlobalOptions, options: RunOptions) -> Result<ExitCode, Failure> {
    let pipeline = load(options.file.as_deref())?;
    let chosen: Vec<JobConfig> = pipeline
        .select(&options.jobs)?
        .into_iter()
        .cloned()
        .collect();
    if chosen.is_empty() {
        let message = format!("{} has no jobs", pipeline.file.display());
        return Err(Failure::new(ExitCode::NothingSelected, message));
    }
    if options.list {
        return list(&chosen);
    }
    let how = How {
        report: &options.report,
        max_failures: options.stop.max_failures_or(0),
        junit: options.junit,
        description: description("regatta run", &options.jobs),
        chosen_tests: false,
    };
    let prepared = prepare(global, &pipeline, &chosen, how).await?;
    if options.plan {
        return plan(global, &prepared.client, prepared.spec).await;
    }
    let is_suite = |job: &v1::Job| matches!(job.kind, Some(v1::job::Kind::Suite(_)));
    let has_suites = prepared.spec.jobs.iter().any(is_suite);
    let (ended, tally) = prepared.run(global, &options.report).await?;
    match has_suites {
        true => super::test::end(&ended, &tally),
        false => Ok(ended.exit_code(&tally)),
    }
}

/// How jobs run and where their results go.
pub(super) struct How<'a> {
    pub(super) report: &'a ReportArguments,
    pub(super) junit: Option<PathBuf>,
    pub(super) max_failures: u32,
    /// For `regatta ps`.
    pub(super) description: String,
    /// Whether the command line chose among the tests.
    pub(super) chosen_tests: bool,
}

/// A run that has yet to be submitted; its inputs are uploaded.
pub(super) struct Prepared {
    pub(super) client: Client,
    pub(super) spec: v1::RunSpec,
    junit: Option<PathBuf>,
    project: PathBuf,
}

impl Prepared {
    /// Submits it and follows it to its end.
    pub(super) async fn run(
        self,
        global: &GlobalOptions,
        report: &ReportArguments,
    ) -> Result<(Ended, Tally), Failure> {
        let session = Session {
            global,
            client: &self.client,
            report,
            junit: self.junit,
            project: self.project,
        };
        session.run(self.spec).await
    }
}

/// Uploads what jobs of a pipeline need.
pub(super) async fn prepare(
    global: &GlobalOptions,
    pipeline: &Pipeline,
    chosen: &[JobConfig],
    how: How<'_>,
) -> Result<Prepared, Failure> {
    let junit = how.junit.or_else(junit_of_ci);
    // Before anything is read, and again after it.
    let before = git::head(&pipeline.root);
    let mut inputs = inputs(pipeline, chosen)?;
    let own_file = own_file(&pipeline.root, junit.as_ref());
    if let Some(own_file) = &own_file {
        let all = inputs.iter_mut();
        all.for_each(|entries| entries.leave_out(&pipeline.root, own_file));
    }
    let client = connect(global).await?;
    let cache_file = directories::digest_cache(&pipeline.root).or_exit(ExitCode::Local)?;
    let mut staging = Staging::new(&cache_file);
    let roots = staging.add(&inputs.iter().collect::<Vec<_>>())?;
    staging.save_cache();
    let meant = meant(chosen).or_exit(ExitCode::BadConfiguration)?;
    let contents = inputs.iter().flat_map(|entries| staging.contents(entries));
    let read = Read {
        contents: contents.collect(),
        meant,
        before,
        own_file,
        blobs: git_blobs(&cache_file),
    };
    let commit = blocking({
        let pipeline = pipeline.clone();
        move || commit_of(&pipeline, read)
    });
    let commit = commit.await?;
    commit.tell();
    staging.upload(&client.blobs()).await?;
    let spec = v1::RunSpec {
        instance_name: global.instance.clone(),
        committed_at: commit.committed_at_to_wire(),
        dirty: commit.is_dirty(),
        commit: commit.id,
        branch: commit.branch,
        jobs: configured_jobs(chosen, pipeline, &roots),
        max_failures: how.max_failures,
        skip_cache_lookup: how.report.no_cache,
        no_duplicates: how.report.no_duplicates,
        cached_only: false,
        audit_percent: how.report.audit_hits,
        stream_tests: how.report.live_output,
        description: how.description,
        policy: pipeline.policy.as_ref().map(Policy::to_wire),
        commit_policy: pipeline.commit_policy.as_ref().map(Policy::to_wire),
        chosen_tests: how.chosen_tests,
        pipeline: pipeline.place.clone(),
    };
    Ok(Prepared {
        client,
        spec,
        junit,
        project: pipeline.root.clone(),
    })
}

/// What was read of a project, and when.
struct Read {
    contents: BTreeMap<String, Content>,
    /// What should have been.
    meant: Vec<Patterns>,
    /// The commit that was checked out before.
    before: Option<String>,
    /// What Regatta itself writes.
    own_file: Option<PathBuf>,
    /// Where the digests of git's blobs are remembered.
    blobs: PathBuf,
}

/// The commit that the inputs were taken from, which is dirty if it does not hold exactly them, or the file that says
/// what it requires.
fn commit_of(pipeline: &Pipeline, read: Read) -> Commit {
    let root = &pipeline.root;
    let own_file = read.own_file.as_deref();
    let commit = git::commit_of(root, own_file, read.before.as_deref());
    let own_file = own_file.and_then(|file| place_in(root, file));
    let is_wanted = |path: &str| {
        let is_own = own_file.as_deref() == Some(Path::new(path));
        !is_own && read.meant.iter().any(|patterns| patterns.mean(path))
    };
    let reading = Reading {
        root,
        contents: read.contents,
        configuration: &pipeline.read,
        is_wanted: &is_wanted,
    };
    commit.compared(&reading, &read.blobs)
}

/// What jobs read, whether it is there or not.
fn meant(jobs: &[JobConfig]) -> Result<Vec<Patterns>, ExpandError> {
    let patterns = |job: &JobConfig| {
        let patterns = job.inputs.iter().map(|pattern| pattern.text.as_str());
        Patterns::new(patterns)
    };
    jobs.iter().map(patterns).collect()
}

/// Where the digests of git's blobs are remembered, beside those of files.
pub(super) fn git_blobs(digests: &Path) -> PathBuf {
    digests.with_extension("git")
}

/// Where the report goes that CI systems pick up, if this is one and nobody said where.
pub(super) fn junit_of_ci() -> Option<PathBuf> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| value == "true");
    let is_ci = is_set("GITHUB_ACTIONS") || is_set("GITLAB_CI");
    is_ci.then(|| JUNIT_OF_CI.into())
}

/// Where a configuration is in its commit; empty for the commit's own, or if nobody knows. Blocks.
pub(super) fn place_of(file: &Path) -> String {
    let place = git::place_of(file).unwrap_or_default();
    let directory = config::root_of(file);
    let own = config::FILES
        .iter()
        .find(|name| directory.join(name).is_file());
    match own.is_some_and(|name| *name == place) {
        true => String::new(),
        false => place,
    }
}

/// The report, if it is Regatta's alone: one that git knows is a file of the project like any other.
pub(super) fn own_file(root: &Path, report: Option<&PathBuf>) -> Option<PathBuf> {
    let is_project = |place: PathBuf| git::knows(root, &place);
    let own = report.filter(|report| !place_in(root, report).is_some_and(is_project));
    own.cloned()
}

/// The pipeline of a file, or of here.
pub(super) fn load(file: Option<&Path>) -> Result<Pipeline, Failure> {
    let here = std::env::current_dir().or_exit(ExitCode::Local)?;
    let (file, root): (PathBuf, PathBuf) = match file {
        Some(file) => (here.join(file), here.join(config::root_of(file))),
        None => config::find(&here)?,
    };
    let mut pipeline = config::load(&file, &root)?;
    pipeline.place = place_of(&file);
    let of_commit = CommitPolicy::beside(&pipeline.place, &root)?;
    pipeline.commit_policy = of_commit.policy;
    pipeline.read.extend(of_commit.read);
    if let Ok(root) = pipeline.root.canonicalize() {
        pipeline.root = root;
    }
    Ok(pipeline)
}

fn list(jobs: &[JobConfig]) -> Result<ExitCode, Failure> {
    let mut stdout = standard_output();
    for job in jobs {
        writeln!(stdout, "{}", job.name).or_exit(ExitCode::Local)?;
    }
    Ok(ExitCode::Good)
}

/// The input root of every job. The directory is listed once, however many jobs there are.
fn inputs(pipeline: &Pipeline, jobs: &[JobConfig]) -> Result<Vec<Entries>, Failure> {
    let root = &pipeline.root;
    let wanted = jobs.iter().any(|job| !job.inputs.is_empty());
    let files = match wanted {
        true => walk(root, root, &[]).or_exit(ExitCode::Local)?,
        false => Entries::default(),
    };
    jobs.iter()
        .map(|job| job_inputs(pipeline, job, &files))
        .collect()
}

fn job_inputs(pipeline: &Pipeline, job: &JobConfig, files: &Entries) -> Result<Entries, Failure> {
    let patterns = job.inputs.iter().map(|pattern| pattern.text.as_str());
    match expand(&pipeline.root, files, patterns) {
        Ok(mut entries) => {
            let helper = jobs::helper(job);
            entries
                .by_path
                .extend(helper.map(|(path, source)| (path.to_owned(), source)));
            Ok(entries)
        }
        Err(ExpandError::NoMatch { pattern }) => Err(no_such_input(pipeline, job, pattern).into()),
        Err(error @ ExpandError::Invalid { .. }) => Err(error).or_exit(ExitCode::BadConfiguration),
        Err(error @ ExpandError::Walk(_)) => Err(error).or_exit(ExitCode::Local),
    }
}

fn no_such_input(pipeline: &Pipeline, job: &JobConfig, pattern: String) -> ConfigError {
    let written = job.inputs.iter().find(|input| input.text == pattern);
    ConfigError::new(
        pipeline.file.clone(),
        written.map(|input| input.position),
        ConfigProblem::NoSuchInput {
            pattern,
            place: format!("[jobs.{}]", job.name),
            root: pipeline.root.display().to_string(),
        },
    )
}

fn configured_jobs(jobs: &[JobConfig], pipeline: &Pipeline, roots: &[Digest]) -> Vec<v1::Job> {
    let by_name: BTreeMap<_, _> = jobs.iter().map(|job| &job.name).zip(roots).collect();
    let root = |job: &JobConfig| {
        by_name
            .get(&job.name)
            .map_or(Digest::EMPTY, |digest| **digest)
    };
    jobs.iter()
        .map(|job| jobs::configured_job(job, pipeline, root(job)))
        .collect()
}

/// The command line, for `regatta ps`.
pub(super) fn description(command: &str, words: &[String]) -> String {
    let words = words.iter().map(String::as_str);
    [command]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_atomically;

    #[test]
    fn what_runs_leave_in_a_project_is_an_input_only_by_name() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path();
        for name in [
            "a",
            "sub/regatta-junit.xml",
            "regatta-junit.xml",
            "gl-code-quality-report.json",
        ] {
            write_atomically(&root.join(name), b"").expect("written");
        }
        let check = |patterns: &str, expected: &[&str]| {
            let file = root.join("regatta.toml");
            let text = format!("[jobs.a]\nrun = 'x'\ninputs = [{patterns}, '!regatta.toml']\n");
            std::fs::write(&file, text).expect("written");
            let pipeline = load(Some(&file)).expect("it is good");
            let inputs = inputs(&pipeline, &pipeline.jobs).expect("they match");
            let paths: Vec<_> = inputs[0].by_path.keys().collect();
            assert_eq!(paths, expected, "{patterns}");
        };
        for all in ["'**'", "'.'", "'*', '**/*'"] {
            check(all, &["a", "sub/regatta-junit.xml"]);
        }
        check("'a', 'regatta-junit.xml'", &["a", "regatta-junit.xml"]);
        check("'sub'", &["sub/regatta-junit.xml"]);
    }

    #[test]
    fn a_missing_input_is_named_with_its_place() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("regatta.toml");
        std::fs::write(
            &file,
            "[jobs.a]\nrun = 'x'\ninputs = [\n  'regatta.toml',\n  'src/*.c',\n]\n",
        )
        .expect("written");
        let pipeline = load(Some(&file)).expect("it is good");
        let failure = inputs(&pipeline, &pipeline.jobs).expect_err("nothing matches");
        assert_eq!(failure.code, ExitCode::BadConfiguration);
        let text = failure.to_string();
        let start = format!(
            "{}:5:3: the input `src/*.c` of [jobs.a] matches no file",
            file.display()
        );
        assert!(text.starts_with(&start), "{text}");
    }
}
