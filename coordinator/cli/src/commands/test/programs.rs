//! Test programs that were built here, and run on the fleet as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regatta_cas::UploadSummary;
use regatta_model::ImageReference;
use regatta_verdict::Policy;
use regatta_wire::v1;

use super::end;
use super::policy::{OwnPolicy, policy_of};
use crate::cargo::suites::{BuildLibraries, ProgramSuite};
use crate::client::Client;
use crate::commands::blocking;
use crate::commands::plan::plan;
use crate::commands::run::{description, git_blobs, own_file};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::git::{self, Commit, Content, Reading};
use crate::jobs::{SuiteSettings, program_job};
use crate::options::{GlobalOptions, TestOptions};
use crate::probe::lacking;
use crate::session::Session;
use crate::tree::{Entries, Staging};

/// Makes the suites of programs, once it is known which libraries must be taken along.
pub(super) type MakeSuites = Box<
    dyn FnOnce(&BuildLibraries, &BTreeSet<String>) -> Result<Vec<ProgramSuite>, Failure> + Send,
>;

/// What was built here.
pub(super) struct Programs {
    /// Where the project is.
    pub(super) root: PathBuf,
    /// Where its tests see it.
    pub(super) shown_at: PathBuf,
    pub(super) adapter: v1::SuiteAdapter,
    pub(super) libraries: BuildLibraries,
    pub(super) suites: MakeSuites,
    /// How to build for an image that has no such C library.
    pub(super) without_c_library: &'static str,
    /// Where the digests of files are remembered.
    pub(super) digests: PathBuf,
    pub(super) junit: Option<PathBuf>,
    /// The commit that was checked out before anything was built.
    pub(super) before: Option<String>,
}

/// Uploads what the fleet lacks, and runs the programs' tests.
pub(super) async fn run(
    global: &GlobalOptions,
    options: &TestOptions,
    client: &Client,
    programs: Programs,
) -> Result<ExitCode, Failure> {
    let (root, junit) = (programs.root.clone(), programs.junit.clone());
    let (before, blobs) = (programs.before.clone(), git_blobs(&programs.digests));
    let project = root.clone();
    let own_file = own_file(&root, junit.as_ref());
    // Until an agent has looked into the image, the programs are on their way.
    let (lacking, (staging, ahead)) = tokio::try_join!(
        lacking_in(client, options.job.image.as_ref(), &programs),
        upload_ahead(client, &programs)
    )?;
    let (jobs, mut staging, contents) = blocking({
        let settings = settings(options);
        let own_file = own_file.clone();
        move || stage(programs, staging, &lacking, &settings, own_file.as_deref())
    })
    .await??;
    let here = std::env::current_dir().or_exit(ExitCode::Local)?;
    let taken = Taken {
        root,
        contents,
        before,
        own_file,
        blobs,
    };
    let commit = blocking(move || commit_of(&here, taken));
    let (commit, own) = commit.await??;
    commit.tell();
    if options.archive.is_some() && !commit.id.is_empty() {
        tracing::warn!(
            "nobody knows which commit an archive was built from: this is no commit's verdict"
        );
    }
    let uploaded = staging.upload(&client.blobs()).await?;
    tell_uploaded(&ahead, &uploaded);
    let spec = v1::RunSpec {
        instance_name: global.instance.clone(),
        committed_at: commit.committed_at_to_wire(),
        // Nobody knows which commit an archive was built from.
        dirty: commit.is_dirty() || options.archive.is_some(),
        commit: commit.id,
        branch: commit.branch,
        jobs,
        max_failures: options.stop.max_failures_or(1),
        skip_cache_lookup: options.report.no_cache,
        no_duplicates: options.report.no_duplicates,
        cached_only: false,
        audit_percent: options.report.audit_hits,
        stream_tests: options.report.live_output,
        description: description("regatta test", &options.filters),
        policy: own.policy.as_ref().map(Policy::to_wire),
        commit_policy: own.commit_policy.as_ref().map(Policy::to_wire),
        chosen_tests: own.has_jobs || !options.filters.is_empty(),
        pipeline: own.place,
    };
    if options.plan {
        return plan(global, client, spec).await;
    }
    let session = Session {
        global,
        client,
        report: &options.report,
        junit,
        project,
    };
    let (ended, tally) = session.run(spec).await?;
    end(&ended, &tally)
}

/// What was read, by path relative to the project.
type Contents = BTreeMap<String, Content>;

/// What was taken along of a project, and when.
struct Taken {
    root: PathBuf,
    contents: Contents,
    /// The commit that was checked out before.
    before: Option<String>,
    /// What Regatta itself writes.
    own_file: Option<PathBuf>,
    /// Where the digests of git's blobs are remembered.
    blobs: PathBuf,
}

/// The commit that was built, and what it requires of itself. It is dirty if it does not hold what was taken along;
/// what a compiler read nobody knows, so that git must not overlook anything either.
fn commit_of(here: &Path, taken: Taken) -> Result<(Commit, OwnPolicy), Failure> {
    let own = policy_of(here)?;
    let mut commit = git::commit_of(here, taken.own_file.as_deref(), taken.before.as_deref());
    if !commit.id.is_empty() && !commit.is_dirty() {
        commit.unlike = git::overlooked(&taken.root);
    }
    let reading = Reading {
        root: &taken.root,
        contents: taken.contents,
        configuration: &own.read,
        is_wanted: &|_| false,
    };
    Ok((commit.compared(&reading, &taken.blobs), own))
}

fn settings(options: &TestOptions) -> SuiteSettings {
    SuiteSettings {
        image: options.job.image.clone(),
        timeout: options.job.timeout,
        retries: options.retries,
        isolation: options.job.isolation,
        network: options.job.network,
        filters: options.filters.clone(),
        include_ignored: options.include_ignored,
    }
}

/// The libraries that must be taken along, once it is clear that the others are there.
async fn lacking_in(
    client: &Client,
    image: Option<&ImageReference>,
    programs: &Programs,
) -> Result<BTreeSet<String>, Failure> {
    let libraries = &programs.libraries;
    let lacking = lacking(client, image, &libraries.sonames(), &programs.digests)
        .await
        .or_exit(ExitCode::Infrastructure)?;
    let unshippable = libraries.unshippable(&lacking);
    if unshippable.is_empty() {
        return Ok(lacking);
    }
    let image = image.map_or("the agents' image".to_owned(), |image| {
        format!("image {image}")
    });
    let message = format!(
        "{image} lacks {}, parts of the C library, which cannot be taken along; choose an image with the \
         C library that programs are built for here (debian:stable-slim, say), or build for what the image \
         has ({}, say)",
        unshippable.join(", "),
        programs.without_c_library
    );
    Err(Failure::new(ExitCode::BadConfiguration, message))
}

/// Uploads the programs themselves, which any image needs.
async fn upload_ahead(
    client: &Client,
    programs: &Programs,
) -> Result<(Staging, UploadSummary), Failure> {
    let mut staging = Staging::new(&programs.digests);
    let binaries: Vec<PathBuf> = programs.libraries.binaries().cloned().collect();
    let staging = blocking(move || staging.add_files(binaries.iter()).map(|()| staging));
    let mut staging = staging.await??;
    let uploaded = staging.upload(&client.blobs()).await?;
    Ok((staging, uploaded))
}

fn tell_uploaded(ahead: &UploadSummary, later: &UploadSummary) {
    tracing::info!(
        blobs = ahead.uploaded_blobs + later.uploaded_blobs,
        bytes = ahead.uploaded_bytes + later.uploaded_bytes,
        of_blobs = later.total_blobs,
        of_bytes = later.total_bytes,
        "uploaded"
    );
}

/// The jobs, what they need, and what of it nobody has built: a commit has to hold it, so that what comes of it says
/// something of that commit.
fn stage(
    programs: Programs,
    mut staging: Staging,
    lacking: &BTreeSet<String>,
    settings: &SuiteSettings,
    own_file: Option<&Path>,
) -> Result<(Vec<v1::Job>, Staging, Contents), Failure> {
    let mut suites = (programs.suites)(&programs.libraries, lacking)?;
    if let Some(own_file) = own_file {
        for suite in &mut suites {
            suite.entries.leave_out(&programs.root, own_file);
        }
    }
    let entries: Vec<&Entries> = suites.iter().map(|suite| &suite.entries).collect();
    let roots = staging.add(&entries)?;
    staging.save_cache();
    let sources = |suite: &ProgramSuite| {
        let read = staging.contents(&suite.entries);
        read.filter(|(path, _)| suite.sources.contains(path))
            .collect::<Vec<_>>()
    };
    let contents = suites.iter().flat_map(sources).collect();
    let job = |(suite, digest): (&ProgramSuite, _)| {
        program_job(
            suite,
            programs.adapter,
            digest,
            &programs.shown_at,
            settings,
        )
    };
    let jobs = suites.iter().zip(roots).map(job).collect();
    Ok((jobs, staging, contents))
}
