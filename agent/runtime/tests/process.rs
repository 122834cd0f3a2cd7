//! The process runtime, with namespaces where this machine allows them, and without.

#![expect(clippy::print_stderr, reason = "a skipped test says so loudly")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regatta_model::{NetworkAccess, Resources, RootDirectory};
use regatta_runtime::conformance::{Claims, Subject};
use regatta_runtime::{
    ContainerRuntime, ContainerShape, ProcessIsolation, ProcessOptions, ProcessRuntime,
};
use tempfile::TempDir;

fn options(directory: &Path) -> ProcessOptions {
    ProcessOptions {
        run_directory: directory.join("run"),
        hidden: vec![directory.join("cache")],
    }
}

fn subject(runtime: ProcessRuntime, claims: Claims, directory: &TempDir) -> Subject {
    Subject::new(
        Arc::new(runtime),
        None,
        claims,
        0,
        directory.path().join("cache"),
    )
}

async fn with_namespaces() -> Option<(Subject, TempDir)> {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("cache")).expect("new");
    let runtime = ProcessRuntime::new(options(directory.path()))
        .await
        .expect("a runtime");
    match runtime.isolation() {
        ProcessIsolation::Namespaces => {
            Some((subject(runtime, Claims::Namespaces, &directory), directory))
        }
        ProcessIsolation::Nothing { reason }
            if std::env::var("CI").is_ok_and(|ci| ci == "true") =>
        {
            panic!("tests of processes in namespaces may not be skipped in CI: {reason}")
        }
        ProcessIsolation::Nothing { reason } => {
            eprintln!("SKIPPED: processes in namespaces are not tested here, because {reason}");
            None
        }
    }
}

async fn without_namespaces() -> Option<(Subject, TempDir)> {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("cache")).expect("new");
    let options = options(directory.path());
    let runtime = ProcessRuntime::without_namespaces(options)
        .await
        .expect("a runtime");
    Some((subject(runtime, Claims::Views, &directory), directory))
}

mod namespaces {
    regatta_runtime::conformance_suite!(super::with_namespaces);
}

mod plain {
    regatta_runtime::conformance_suite!(super::without_namespaces);
}

async fn runtime(namespaces: bool, options: ProcessOptions) -> ProcessRuntime {
    let started = match namespaces {
        true => ProcessRuntime::new(options).await,
        false => ProcessRuntime::without_namespaces(options).await,
    };
    started.expect("a runtime")
}

fn shape() -> ContainerShape {
    ContainerShape {
        image: None,
        image_id: None,
        work_path: "/work".into(),
        root: RootDirectory::Image,
        resources: Resources {
            cpu_milli: 0,
            memory_bytes: 0,
        },
        network: NetworkAccess::On,
    }
}

#[tokio::test]
async fn nothing_is_left_in_the_run_directory() {
    for wanted in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let options = options(directory.path());
        let run = options.run_directory.clone();
        let runtime = runtime(wanted, options).await;
        let lower = directory.path().join("lower");
        std::fs::create_dir(&lower).expect("new");
        std::fs::write(lower.join("file"), "x").expect("written");
        let mut container = runtime.start(&shape()).await.expect("a container");
        let view = container.mount(&lower).await.expect("a view");
        drop(view);
        // Without a stop: everything must still go, soon.
        drop(container);
        drop(runtime);
        let deadline = Instant::now() + Duration::from_secs(10);
        while run.exists() {
            assert!(
                Instant::now() < deadline,
                "{} is still there",
                run.display()
            );
            tokio::task::yield_now().await;
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("a table");
        assert!(!mounts.contains(&*run.to_string_lossy()), "{mounts}");
    }
}

#[tokio::test]
async fn a_view_that_nobody_waits_for_any_more_is_in_nobodys_way() {
    for wanted in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = runtime(wanted, options(directory.path())).await;
        let lower = directory.path().join("lower");
        std::fs::create_dir(&lower).expect("new");
        for number in 0..100 {
            std::fs::write(lower.join(number.to_string()), "x").expect("written");
        }
        for _ in 0..20 {
            let mut container = runtime.start(&shape()).await.expect("a container");
            // Begun, and given up at once, unless its thread was faster.
            tokio::select! {
                biased;
                view = container.mount(&lower) => drop(view.expect("a view")),
                () = std::future::ready(()) => {}
            }
            container.stop().await.expect("it stops");
        }
        let mut instances = std::fs::read_dir(directory.path().join("run")).expect("is there");
        let instance = instances.next().expect("its own").expect("an entry").path();
        let left = std::fs::read_dir(instance).expect("is there");
        let left: Vec<_> = left
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(left, ["init"], "nothing is left of the containers");
    }
}
