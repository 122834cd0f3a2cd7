//! Times a command in a warm container next to `docker run --rm`, and prints both as one line of JSON.
//!
//! `warm_vs_docker [ROUNDS]`: rounds in the warm container; `docker run` gets a tenth. Whoever reads this
//! wants the medians, in microseconds, and their ratio.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use regatta_model::{AgentId, ImageReference, NetworkAccess, Resources, RootDirectory};
use regatta_runtime::{
    Container, ContainerCommand, ContainerRuntime, ContainerShape, DockerOptions, DockerRuntime,
    ExitStatus, TESTEE_BINARY,
};
use tokio_util::sync::CancellationToken;

/// Rounds in the warm container unless told otherwise.
const ROUNDS: usize = 300;

/// The image: the testee and nothing else.
const IMAGE: &str = "regatta-warm-vs-docker:1";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let rounds = std::env::args()
        .nth(1)
        .map_or(Ok(ROUNDS), |text| text.parse())?;
    let directory = tempfile::tempdir()?;
    let lower = directory.path().join("lower");
    fs::create_dir(&lower)?;
    fs::write(lower.join("testee"), TESTEE_BINARY)?;
    make_executable(&lower.join("testee"))?;
    provide_image(&lower)?;
    let measured = measure(directory.path(), &lower, rounds).await;
    remove_image()?;
    let (start, mut warm, mut cold) = measured?;
    let mut steps = [0, 1, 2].map(|step| warm.iter().map(|times| times[step]).collect::<Vec<_>>());
    let mut warm: Vec<Duration> = warm.drain(..).map(|times| times.iter().sum()).collect();
    let (warm_median, cold_median) = (percentile(&mut warm, 50), percentile(&mut cold, 50));
    let report = format!(
        "{{\"warm_p50_us\":{},\"warm_p99_us\":{},\"warm_least_us\":{},\"mount_p50_us\":{},\
         \"execute_p50_us\":{},\"wipe_p50_us\":{},\"docker_run_p50_us\":{},\"docker_run_p99_us\":{},\
         \"container_start_us\":{},\"times_faster\":{:.1}}}\n",
        warm_median.as_micros(),
        percentile(&mut warm, 99).as_micros(),
        percentile(&mut warm, 0).as_micros(),
        percentile(&mut steps[0], 50).as_micros(),
        percentile(&mut steps[1], 50).as_micros(),
        percentile(&mut steps[2], 50).as_micros(),
        cold_median.as_micros(),
        percentile(&mut cold, 99).as_micros(),
        start.as_micros(),
        cold_median.as_secs_f64() / warm_median.as_secs_f64(),
    );
    std::io::stdout().write_all(report.as_bytes())?;
    Ok(())
}

/// Both, so that the image is removed whatever comes of it.
async fn measure(
    directory: &Path,
    lower: &Path,
    rounds: usize,
) -> Result<(Duration, Vec<[Duration; 3]>, Vec<Duration>)> {
    let (start, warm) = measure_warm(directory, lower, rounds).await?;
    Ok((start, warm, measure_docker_run((rounds / 10).max(5))?))
}

/// Importing under a tag that is taken would leave the earlier image behind without a name.
fn remove_image() -> Result<()> {
    let removed = Command::new("docker")
        .args(["rmi", IMAGE])
        .stdout(Stdio::null())
        .status()?;
    if removed.success() {
        Ok(())
    } else {
        Err("the image could not be removed".into())
    }
}

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}

fn provide_image(lower: &Path) -> Result<()> {
    let mut tar = Command::new("tar")
        .args(["--create", "--file", "-", "--directory"])
        .arg(lower)
        .arg("testee")
        .stdout(Stdio::piped())
        .spawn()?;
    let archive = tar.stdout.take().ok_or("tar has no output")?;
    let import = Command::new("docker")
        .args(["import", "-", IMAGE])
        .stdin(archive)
        .stdout(Stdio::null())
        .status()?;
    if tar.wait()?.success() && import.success() {
        return Ok(());
    }
    Err("the image could not be imported".into())
}

/// The time of one container's start, and of every round in it.
async fn measure_warm(
    directory: &Path,
    lower: &Path,
    rounds: usize,
) -> Result<(Duration, Vec<[Duration; 3]>)> {
    let agent: AgentId = format!("warm-vs-docker-{}", std::process::id()).parse()?;
    let options = DockerOptions::new(agent, directory.join("run"));
    let runtime = DockerRuntime::connect(options).await?;
    let image: ImageReference = IMAGE.parse()?;
    let shape = ContainerShape {
        image: Some(image),
        image_id: None,
        work_path: "/regatta/work".into(),
        root: RootDirectory::Image,
        resources: Resources {
            cpu_milli: 0,
            memory_bytes: 0,
        },
        network: NetworkAccess::Off,
    };
    let started = Instant::now();
    let mut container = runtime.start(&shape).await?;
    let start = started.elapsed();
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        times.push(run_once(container.as_mut(), lower).await?);
    }
    container.stop().await?;
    Ok((start, times))
}

/// How long the mount, the execution and the wipe took.
async fn run_once(container: &mut dyn Container, lower: &Path) -> Result<[Duration; 3]> {
    let started = Instant::now();
    let view = container.mount(lower).await?;
    let mounted = started.elapsed();
    let command = ContainerCommand {
        arguments: vec!["./testee".to_owned(), "exit".to_owned(), "0".to_owned()],
        environment: std::collections::BTreeMap::new(),
        working_directory: std::path::PathBuf::new(),
        stdout: fs::OpenOptions::new().write(true).open("/dev/null")?.into(),
        stderr: fs::OpenOptions::new().write(true).open("/dev/null")?.into(),
        stdin: None,
        timeout: Duration::from_secs(60),
    };
    let exit = container.execute(command, CancellationToken::new()).await?;
    if exit.status != ExitStatus::Code(0) {
        return Err(format!("the command ended with {:?}", exit.status).into());
    }
    let executed = started.elapsed();
    drop(view);
    container.wipe().await?;
    Ok([mounted, executed - mounted, started.elapsed() - executed])
}

fn measure_docker_run(rounds: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let started = Instant::now();
        let status = Command::new("docker")
            .args([
                "run",
                "--rm",
                "--network",
                "none",
                IMAGE,
                "/testee",
                "exit",
                "0",
            ])
            .status()?;
        times.push(started.elapsed());
        if !status.success() {
            return Err("docker run failed".into());
        }
    }
    Ok(times)
}

/// The nearest rank; sorts.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1) - 1;
    times.get(rank).copied().unwrap_or_default()
}
