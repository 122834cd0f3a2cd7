//! What separates a command from other commands and from the machine.

use regatta_model::Resources;

use super::ending::expect_no_strangers;
use super::subject::{Claims, Subject};
use crate::port::{ExitStatus, RuntimeError};

/// The memory of the container that is to run out of it.
const MEMORY_LIMIT_BYTES: u64 = 64 << 20;

/// What a command leaves in shared scratch space is gone for the next one, however it is protected.
pub async fn scratch_space_is_wiped(subject: &Subject) {
    if subject.claims < Claims::Namespaces {
        return;
    }
    let mut warm = subject.warm().await;
    for directory in ["/tmp", "/var/tmp", "/dev/shm"] {
        let deep = format!("{directory}/closed/deep");
        warm.run(&["write", &format!("{directory}/left"), "x"])
            .await
            .expect_code(0);
        warm.run(&["make-directory", &deep]).await.expect_code(0);
        warm.run(&["close-directory", &deep]).await.expect_code(0);
        warm.run(&["close-directory", &format!("{directory}/closed")])
            .await
            .expect_code(0);
    }
    warm.renew().await;
    for directory in ["/tmp", "/var/tmp", "/dev/shm"] {
        let names = warm.run(&["list", directory]).await.expect_code(0).text();
        // A work path below scratch space must stay.
        let work = warm.container.work_path().to_path_buf();
        let leads = |name: &&str| !work.starts_with(std::path::Path::new(directory).join(name));
        assert_eq!(
            names.lines().filter(leads).count(),
            0,
            "{directory}: {names}"
        );
    }
    warm.stop().await;
}

/// A command can write in its view and in scratch space, and nowhere else.
pub async fn the_root_is_read_only(subject: &Subject) {
    if subject.claims < Claims::Container {
        return;
    }
    let mut warm = subject.warm().await;
    for path in [
        "/file",
        "/etc/file",
        "/dev/file",
        "/.regatta/file",
        "/proc/sys/kernel/hostname",
    ] {
        warm.run(&["write", path, "x"]).await.expect_code(99);
    }
    warm.run(&["write", "/dev/null", "x"]).await.expect_code(0);
    warm.stop().await;
}

/// There is loopback, and nothing beyond.
pub async fn the_network_is_off(subject: &Subject) {
    if subject.claims < Claims::Namespaces {
        return;
    }
    let mut warm = subject.warm().await;
    warm.run(&["loopback"]).await.expect_code(0);
    // An address for documentation: it is nobody's, so only its refusal by the kernel is quick.
    let refused = warm.run(&["connect", "192.0.2.1:80"]).await;
    let errors = String::from_utf8_lossy(&refused.expect_code(99).stderr).into_owned();
    assert!(errors.contains("unreachable"), "{errors}");
    warm.stop().await;
}

/// A command can neither speak to the agent nor look into the init.
pub async fn the_init_is_out_of_reach(subject: &Subject) {
    if subject.claims < Claims::Namespaces {
        return;
    }
    let mut warm = subject.warm().await;
    warm.run(&["follow", "/proc/1/fd/0"]).await.expect_code(99);
    warm.run(&["follow", "/proc/1/exe"]).await.expect_code(99);
    warm.run(&["read", "/proc/1/environ"]).await.expect_code(99);
    warm.run(&["read", "/proc/1/mem"]).await.expect_code(99);
    if subject.claims >= Claims::Container {
        assert_eq!(
            warm.run(&["list", "/.regatta"]).await.expect_code(0).text(),
            "init\n"
        );
        warm.run(&["unix-connect", "/.regatta/socket"])
            .await
            .expect_code(99);
    } else {
        let control = warm
            .container
            .work_path()
            .with_file_name("control")
            .join("socket");
        warm.run(&["unix-connect", &control.to_string_lossy()])
            .await
            .expect_code(99);
    }
    warm.stop().await;
}

/// A fork bomb meets the container's limit, and the container survives it.
pub async fn fork_bombs_are_bounded(subject: &Subject) {
    if subject.claims < Claims::Container {
        return;
    }
    let mut warm = subject.warm().await;
    let outcome = warm.run(&["fork-bomb"]).await;
    let forked: usize = outcome
        .expect_code(0)
        .text()
        .trim()
        .parse()
        .expect("a number");
    assert!(forked > 1 && forked < subject.pids_limit, "{forked} forks");
    expect_no_strangers(subject, &mut warm).await;
    warm.stop().await;
}

/// The kernel's kill for want of memory is told from a signal and from a failure.
pub async fn want_of_memory_is_told_from_failure(subject: &Subject) {
    if subject.claims < Claims::Container {
        return;
    }
    let mut shape = subject.shape();
    shape.resources = Resources {
        cpu_milli: 0,
        memory_bytes: MEMORY_LIMIT_BYTES,
    };
    let mut warm = subject.warm_with(&shape).await;
    for _ in 0..2 {
        let outcome = warm
            .run(&["eat", &(4 * MEMORY_LIMIT_BYTES).to_string()])
            .await;
        assert_eq!(outcome.exit.status, ExitStatus::OutOfMemory);
        let outcome = warm.run(&["signal", "9"]).await;
        assert_eq!(outcome.exit.status, ExitStatus::Signal(9));
        warm.run(&["exit", "1"]).await.expect_code(1);
        warm.renew().await;
    }
    warm.stop().await;
}

/// An image that is nowhere is an error that names it.
pub async fn unknown_images_are_unavailable(subject: &Subject) {
    let image = "regatta.invalid/no-such-image:0"
        .parse()
        .expect("a reference");
    let mut shape = subject.shape();
    shape.image = Some(image);
    for error in [
        subject
            .runtime
            .start(&shape)
            .await
            .expect_err("no such image"),
        subject
            .runtime
            .ensure_image(shape.image.as_ref().expect("set"), None)
            .await
            .expect_err("no such image"),
    ] {
        // Which of the two depends on the network of this machine.
        let (RuntimeError::ImageUnavailable { image, detail }
        | RuntimeError::RegistryUnreachable { image, detail }) = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(image, "regatta.invalid/no-such-image:0");
        assert!(!detail.is_empty());
    }
}
