//! What a job starts from: its inputs laid together, and what it runs in.

use std::sync::Arc;
use std::time::Duration;

use regatta_model::{Digest, Platform};
use regatta_wire::{reapi, v1};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::{JobContext, RunContext, unknown};
use super::overlay::{Layer, OverlayError, lay, remove, resolve, root_of};
use super::plan::{Adapter, JobKind, PlannedInput};
use super::state::JobEnd;
use super::surroundings::{Surroundings, UnknownReason, have_told_images};

/// How long agents are waited for that have yet to say what a job's image is.
const OFFERS_PATIENCE: Duration = Duration::from_secs(5);
/// How long it takes at most until what they say is seen.
const OFFERS_PAUSE: Duration = Duration::from_millis(20);

/// The results that a job takes inputs from.
pub(super) fn inputs_of(
    run: &RunContext,
    index: usize,
    result_of: impl Fn(usize) -> Option<reapi::ActionResult>,
) -> Vec<(PlannedInput, reapi::ActionResult)> {
    let inputs = run.plan.jobs[index].inputs.iter();
    inputs
        .filter_map(|input| Some((input.clone(), result_of(input.job)?)))
        .collect()
}

/// A job with its inputs laid in, and with what it is going to run in.
pub(super) async fn prepare(
    run: Arc<RunContext>,
    index: usize,
    results: &[(PlannedInput, reapi::ActionResult)],
    cancel: CancellationToken,
) -> Result<JobContext, JobEnd> {
    let laid = lay_inputs(&run, index, results).await;
    let input_root =
        laid.map_err(|error| unknown(format!("its inputs could not be put together: {error}")))?;
    let surroundings = surroundings_of(&run, index, &cancel).await;
    Ok(JobContext {
        run,
        index,
        input_root,
        surroundings,
        cancel,
    })
}

/// What a job is going to run in. Agents that have yet to connect, or to tell their images, are waited for:
/// after a restart, what is cached would not be found without them.
async fn surroundings_of(
    run: &RunContext,
    index: usize,
    cancel: &CancellationToken,
) -> Surroundings {
    let settings = &run.plan.jobs[index].settings;
    let image = settings.image.as_ref();
    let asked = Instant::now();
    let found = loop {
        let mut agents = run.dispatcher.list_agents();
        agents.retain(|agent| offers(agent, &settings.requirements));
        let found = Surroundings::of(image, &agents);
        let may_change = match &found {
            Surroundings::Unknown(UnknownReason::NoAgent) => true,
            found => image.is_some() && !found.are_known() && !have_told_images(&agents),
        };
        if !may_change || asked.elapsed() >= OFFERS_PATIENCE || cancel.is_cancelled() {
            break found;
        }
        tokio::time::sleep(OFFERS_PAUSE).await;
    };
    if let Surroundings::Unknown(reason) = &found {
        tracing::warn!(%reason, "a job is neither served from the cache nor cached");
        run.warn_once(format!(
            "neither served from the cache nor cached: {reason}"
        ));
    }
    found
}

/// Whether an agent offers what a job asks for.
fn offers(agent: &v1::AgentStatus, requirements: &Platform) -> bool {
    agent.offer.as_ref().is_some_and(|offer| {
        let properties = offer.properties.clone();
        let offered = Platform::from(&reapi::Platform { properties });
        requirements.unmet_by(&offered).is_empty()
    })
}

/// A job's input root with the outputs of other jobs in it.
async fn lay_inputs(
    run: &RunContext,
    index: usize,
    results: &[(PlannedInput, reapi::ActionResult)],
) -> Result<Digest, OverlayError> {
    let mut root = run.plan.jobs[index].input_root;
    for (input, result) in results {
        let base = &run.plan.jobs[input.job].template.working_directory;
        for (path, layer) in layers(run, input, result).await? {
            let place = match (&input.at, &input.output_path) {
                (Some(at), Some(_)) => resolve("", at)?,
                (Some(at), None) => resolve(at, &path)?,
                (None, _) => resolve(base, &path)?,
            };
            root = lay(run.blobs.as_ref(), root, &place, layer).await?;
        }
    }
    without_reports(run, index, root).await
}

/// The root without what earlier runners may have left in it: a shard that was told of once would be taken for
/// told of by each runner that follows.
async fn without_reports(
    run: &RunContext,
    index: usize,
    mut root: Digest,
) -> Result<Digest, OverlayError> {
    let job = &run.plan.jobs[index];
    let is_sharded = matches!(
        &job.kind,
        JobKind::Suite(suite) if matches!(suite.adapter, Adapter::Sharding { .. })
    );
    if is_sharded {
        for path in &job.template.output_paths {
            let place = resolve(&job.template.working_directory, path)?;
            root = remove(run.blobs.as_ref(), root, &place).await?;
        }
    }
    Ok(root)
}

/// The outputs that an input asks for, each with its path.
async fn layers(
    run: &RunContext,
    input: &PlannedInput,
    result: &reapi::ActionResult,
) -> Result<Vec<(String, Layer)>, OverlayError> {
    let wanted = |path: &str| {
        input
            .output_path
            .as_ref()
            .is_none_or(|wanted| wanted == path)
    };
    let mut layers = Vec::new();
    for directory in result
        .output_directories
        .iter()
        .filter(|it| wanted(&it.path))
    {
        let root = root_of(run.blobs.as_ref(), directory).await?;
        layers.push((directory.path.clone(), Layer::Directory(root)));
    }
    for file in result.output_files.iter().filter(|it| wanted(&it.path)) {
        let no_digest = OverlayError::NoDirectory {
            digest: Digest::EMPTY,
        };
        let digest = file
            .digest
            .as_ref()
            .and_then(|digest| digest.try_into().ok());
        let digest = digest.ok_or(no_digest)?;
        let layer = Layer::File {
            digest,
            is_executable: file.is_executable,
        };
        layers.push((file.path.clone(), layer));
    }
    for link in result.output_symlinks.iter().filter(|it| wanted(&it.path)) {
        layers.push((
            link.path.clone(),
            Layer::Symlink {
                target: link.target.clone(),
            },
        ));
    }
    Ok(layers)
}
