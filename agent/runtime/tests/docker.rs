//! The Docker runtime, against the real engine.

#![expect(clippy::print_stderr, reason = "a skipped test says so loudly")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, ListContainersOptions,
};
use futures::StreamExt;
use regatta_model::{AgentId, ImageReference, NetworkAccess, Resources, RootDirectory};
use regatta_runtime::conformance::{Claims, Subject};
use regatta_runtime::{ContainerRuntime, ContainerShape, DockerOptions, DockerRuntime};
use tempfile::TempDir;

/// Small, so that reaching it is quick.
const PIDS_LIMIT: u32 = 64;

/// How many starts are given up, each a step later than the one before.
const GIVEN_UP_STARTS: u32 = 6;
const GIVEN_UP_STEP: Duration = Duration::from_millis(15);

/// The image's content never changes, and so neither does its tag.
const IMAGE: (&str, &str) = ("regatta-conformance", "1");

/// Two imports at once would leave one of the images without a name.
static PROVIDED: tokio::sync::OnceCell<ImageReference> = tokio::sync::OnceCell::const_new();

struct Fleet {
    runtime: Arc<DockerRuntime>,
    agent: AgentId,
    directory: TempDir,
    image: ImageReference,
}

fn options(agent: &AgentId, directory: &TempDir) -> DockerOptions {
    let mut options = DockerOptions::new(agent.clone(), directory.path().join("run"));
    options.pids_limit = PIDS_LIMIT;
    options
}

async fn fleet(test: &str) -> Option<Fleet> {
    let directory = tempfile::tempdir().expect("a directory");
    let agent = format!(
        "conformance-{test}-{}-{}",
        std::process::id(),
        directory.path().display()
    );
    let agent: AgentId = agent.parse().expect("an id");
    match DockerRuntime::connect(options(&agent, &directory)).await {
        Ok(runtime) => {
            let image = PROVIDED
                .get_or_init(|| provide_image(&runtime))
                .await
                .clone();
            Some(Fleet {
                runtime: Arc::new(runtime),
                agent,
                directory,
                image,
            })
        }
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
            panic!("tests with Docker may not be skipped in CI: {error}")
        }
        Err(error) => {
            eprintln!("SKIPPED: the Docker runtime is not tested here: {error}");
            None
        }
    }
}

/// An image with nothing but `/etc/regatta` in it.
async fn provide_image(runtime: &DockerRuntime) -> ImageReference {
    let image: ImageReference = format!("{}:{}", IMAGE.0, IMAGE.1)
        .parse()
        .expect("a reference");
    let known = runtime.images().await.expect("images");
    if known.iter().any(|(reference, _)| *reference == image) {
        return image;
    }
    import(IMAGE, &[]).await
}

/// Imports the archive as an image, with changes as in a Dockerfile.
async fn import((repository, tag): (&str, &str), changes: &[&str]) -> ImageReference {
    let docker = Docker::connect_with_unix_defaults().expect("an engine");
    let docker = docker.negotiate_version().await.expect("a version");
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(repository.to_owned()),
        tag: Some(tag.to_owned()),
        changes: changes.iter().map(|change| (*change).to_owned()).collect(),
        ..CreateImageOptions::default()
    };
    let body = bollard::body_full(archive().into());
    let mut steps = std::pin::pin!(docker.create_image(Some(options), Some(body), None));
    while let Some(step) = steps.next().await {
        step.expect("an import");
    }
    format!("{repository}:{tag}").parse().expect("a reference")
}

/// A tar archive with one empty file, as POSIX describes it.
fn archive() -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut put =
        |offset: usize, text: &[u8]| header[offset..offset + text.len()].copy_from_slice(text);
    put(0, b"etc/regatta");
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, b"00000000000\0");
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.resize(512 * 3, 0);
    archive
}

async fn subject() -> Option<(Subject, TempDir)> {
    let Fleet {
        runtime,
        directory,
        image,
        ..
    } = fleet("suite").await?;
    let cache = directory.path().join("cache");
    std::fs::create_dir(&cache).expect("new");
    let limit = PIDS_LIMIT as usize;
    Some((
        Subject::new(runtime, Some(image), Claims::Container, limit, cache),
        directory,
    ))
}

regatta_runtime::conformance_suite!(subject);

fn shape(image: &ImageReference) -> ContainerShape {
    ContainerShape {
        image: Some(image.clone()),
        image_id: None,
        work_path: "/regatta/work".into(),
        root: RootDirectory::Image,
        resources: Resources {
            cpu_milli: 500,
            memory_bytes: 64 << 20,
        },
        network: NetworkAccess::On,
    }
}

async fn containers_of(agent: &AgentId) -> usize {
    let docker = Docker::connect_with_unix_defaults().expect("an engine");
    let docker = docker.negotiate_version().await.expect("a version");
    let filters = [(
        "label".to_owned(),
        vec![format!("dev.regatta.agent={agent}")],
    )];
    let options = ListContainersOptions {
        all: true,
        filters: Some(filters.into()),
        ..ListContainersOptions::default()
    };
    docker
        .list_containers(Some(options))
        .await
        .expect("a list")
        .len()
}

async fn expect_none_left(agent: &AgentId) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while containers_of(agent).await > 0 {
        assert!(Instant::now() < deadline, "a container is still there");
    }
}

#[tokio::test]
async fn dropped_and_stopped_containers_are_removed() {
    let Some(fleet) = fleet("removal").await else {
        return;
    };
    let dropped = fleet
        .runtime
        .start(&shape(&fleet.image))
        .await
        .expect("a container");
    let stopped = fleet
        .runtime
        .start(&shape(&fleet.image))
        .await
        .expect("a container");
    assert_eq!(containers_of(&fleet.agent).await, 2);
    stopped.stop().await.expect("a stop");
    assert_eq!(
        containers_of(&fleet.agent).await,
        1,
        "a stop confirms the removal"
    );
    drop(dropped);
    expect_none_left(&fleet.agent).await;
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_no_container() {
    let Some(fleet) = fleet("given-up").await else {
        return;
    };
    // Wherever the start happens to be: before, while or after the engine creates the container.
    for step in 1..=GIVEN_UP_STARTS {
        let shape = shape(&fleet.image);
        let start = fleet.runtime.start(&shape);
        drop(tokio::time::timeout(GIVEN_UP_STEP * step, start).await);
    }
    // By the time that another one has come and gone, the engine has made what it was asked for.
    let last = fleet.runtime.start(&shape(&fleet.image)).await;
    let last = last.expect("a container");
    last.stop().await.expect("a stop");
    expect_none_left(&fleet.agent).await;
}

/// Set for the process that plays the agent: the directory to tell that it is ready.
const PLAY_AGENT: &str = "REGATTA_CONFORMANCE_AGENT";

#[tokio::test]
async fn a_killed_agent_leaves_no_container() {
    if let Some(directory) = std::env::var_os(PLAY_AGENT) {
        return play_agent(directory.as_ref()).await;
    }
    let Some(fleet) = fleet("kill").await else {
        return;
    };
    let (mut agent, id) = agent_in_a_process(&fleet).await;
    assert_eq!(containers_of(&id).await, 1);
    agent.kill().expect("killed");
    agent.wait().expect("reaped");
    expect_none_left(&id).await;
}

/// An agent in a process of its own, which can be killed, and the container that it has started.
async fn agent_in_a_process(fleet: &Fleet) -> (std::process::Child, AgentId) {
    let directory = fleet.directory.path();
    let agent = std::process::Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "a_killed_agent_leaves_no_container"])
        .env(PLAY_AGENT, directory)
        .spawn()
        .expect("an agent");
    let ready = directory.join("ready");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ready.exists() {
        assert!(
            Instant::now() < deadline,
            "the agent did not start a container"
        );
        tokio::task::yield_now().await;
    }
    let id: AgentId = std::fs::read_to_string(&ready)
        .expect("an id")
        .parse()
        .expect("an id");
    (agent, id)
}

/// Starts a container with a command in it, and never ends.
async fn play_agent(directory: &std::path::Path) {
    let fleet = fleet("killed").await.expect("the parent checked");
    let mut container = fleet
        .runtime
        .start(&shape(&fleet.image))
        .await
        .expect("a container");
    let lower = fleet.directory.path().join("lower");
    std::fs::create_dir(&lower).expect("new");
    container.mount(&lower).await.expect("a view");
    let ready = directory.join("ready");
    std::fs::write(ready.with_extension("partial"), fleet.agent.as_str()).expect("written");
    std::fs::rename(ready.with_extension("partial"), ready).expect("renamed");
    std::future::pending().await
}

/// Creates a container with the labels of another, as an agent does that is killed before it starts it.
async fn create_unstarted(labels: HashMap<String, String>, image: &ImageReference) -> String {
    let docker = Docker::connect_with_unix_defaults().expect("an engine");
    let docker = docker.negotiate_version().await.expect("a version");
    let body = bollard::models::ContainerCreateBody {
        image: Some(image.to_string()),
        cmd: Some(vec!["/never".to_owned()]),
        labels: Some(labels),
        ..Default::default()
    };
    let created = docker.create_container(None::<CreateContainerOptions>, body);
    created.await.expect("created").id
}

async fn labels_of(agent: &AgentId) -> HashMap<String, String> {
    let docker = Docker::connect_with_unix_defaults().expect("an engine");
    let docker = docker.negotiate_version().await.expect("a version");
    let label = vec![format!("dev.regatta.agent={agent}")];
    let options = ListContainersOptions {
        filters: Some([("label".to_owned(), label)].into()),
        ..ListContainersOptions::default()
    };
    let mut found = docker.list_containers(Some(options)).await.expect("a list");
    let container = found.pop().expect("the container of the agent");
    container.labels.expect("labels")
}

#[tokio::test]
async fn what_a_killed_agent_never_started_is_reaped_by_any_other() {
    let Some(other) = fleet("survivor").await else {
        return;
    };
    let Some(living) = fleet("living").await else {
        return;
    };
    let held = living.runtime.start(&shape(&living.image)).await;
    let held = held.expect("a container");
    create_unstarted(labels_of(&living.agent).await, &living.image).await;

    let (mut killed, killed_agent) = agent_in_a_process(&other).await;
    create_unstarted(labels_of(&killed_agent).await, &other.image).await;
    other.runtime.reap().await.expect("reaped");
    assert_eq!(containers_of(&killed_agent).await, 2, "it lives");
    killed.kill().expect("killed");
    killed.wait().expect("reaped");
    let deadline = Instant::now() + Duration::from_secs(30);
    while containers_of(&killed_agent).await > 0 {
        assert!(Instant::now() < deadline, "a container is still there");
        other.runtime.reap().await.expect("reaped");
    }
    assert_eq!(containers_of(&living.agent).await, 2, "it lives");
    held.stop().await.expect("a stop");
    let options = options(&living.agent, &living.directory);
    let next = DockerRuntime::connect(options).await.expect("a runtime");
    assert_eq!(next.reap().await.expect("reaped"), 1);
    expect_none_left(&living.agent).await;
}

#[tokio::test]
async fn the_path_of_an_image_is_told() {
    let Some(fleet) = fleet("path").await else {
        return;
    };
    let plain = fleet.runtime.start(&shape(&fleet.image)).await;
    let plain = plain.expect("a container");
    assert_eq!(plain.search_path(), None);
    plain.stop().await.expect("a stop");

    let with_path = import(
        ("regatta-conformance-path", "1"),
        &["ENV PATH=/opt/tools:/x"],
    )
    .await;
    let container = fleet.runtime.start(&shape(&with_path)).await;
    let container = container.expect("a container");
    assert_eq!(container.search_path(), Some("/opt/tools:/x"));
    container.stop().await.expect("a stop");
}

#[tokio::test]
async fn what_an_earlier_life_left_is_reaped_and_the_own_is_not() {
    let Some(fleet) = fleet("reaping").await else {
        return;
    };
    let stale = fleet
        .runtime
        .start(&shape(&fleet.image))
        .await
        .expect("a container");
    let options = options(&fleet.agent, &fleet.directory);
    let second = DockerRuntime::connect(options).await.expect("a runtime");
    let mut own = second
        .start(&shape(&fleet.image))
        .await
        .expect("a container");
    assert_eq!(containers_of(&fleet.agent).await, 2);
    // Other tests' agents may be gone as well, and what they left counts too.
    assert!(second.reap().await.expect("reaped") >= 1);
    assert_eq!(containers_of(&fleet.agent).await, 1);
    second.reap().await.expect("reaped");
    assert_eq!(containers_of(&fleet.agent).await, 1);
    own.wipe().await.expect("the own one works");
    own.stop().await.expect("a stop");
    drop(stale);
    assert_eq!(containers_of(&fleet.agent).await, 0);
}

#[tokio::test]
async fn a_container_that_somebody_removes_is_lost_and_hangs_nothing() {
    let Some(fleet) = fleet("loss").await else {
        return;
    };
    let mut container = fleet
        .runtime
        .start(&shape(&fleet.image))
        .await
        .expect("a container");
    let other = DockerRuntime::connect(options(&fleet.agent, &fleet.directory))
        .await
        .expect("one");
    assert_eq!(other.reap().await.expect("reaped"), 1);
    let error = container.wipe().await.expect_err("it is gone");
    assert!(
        matches!(error, regatta_runtime::RuntimeError::ContainerLost { .. }),
        "{error:?}"
    );
    container.stop().await.expect("what is gone is stopped");
}

#[tokio::test]
async fn images_are_listed_by_name() {
    let Some(fleet) = fleet("images").await else {
        return;
    };
    let id = fleet
        .runtime
        .ensure_image(&fleet.image, None)
        .await
        .expect("it is there");
    assert!(id.starts_with("sha256:"), "{id}");
    let listed = fleet.runtime.images().await.expect("images");
    assert!(listed.contains(&(fleet.image.clone(), id)), "{listed:?}");
}
