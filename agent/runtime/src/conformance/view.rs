//! Views of input trees.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;

use regatta_model::RootDirectory;

use super::ending::expect_no_strangers;
use super::subject::{Claims, Subject, snapshot};
use crate::init_binary::{TESTEE_BINARY, install};
use crate::port::RuntimeError;

/// Nothing done through a view reaches the tree below it, everything done is seen through the view's root,
/// and the next view knows nothing of it.
pub async fn writes_stay_in_their_view(subject: &Subject) {
    let mut warm = subject.warm().await;
    fs::create_dir(warm.lower.join("dir")).expect("new");
    fs::write(warm.lower.join("dir/file"), "original").expect("written");
    fs::write(warm.lower.join("doomed"), "original").expect("written");
    let before = snapshot(&warm.lower);
    for round in 0..3 {
        warm.renew().await;
        assert_eq!(
            warm.collect("dir/file").as_deref(),
            Some(b"original".as_slice()),
            "{round}"
        );
        assert_eq!(warm.collect("dir/new"), None, "{round}");
        warm.run(&["write", "dir/file", "changed"])
            .await
            .expect_code(0);
        warm.run(&["write", &warm.inside("dir/new"), "new"])
            .await
            .expect_code(0);
        warm.run(&["remove", "doomed"]).await.expect_code(0);
        assert_eq!(
            warm.collect("dir/file").as_deref(),
            Some(b"changed".as_slice())
        );
        assert_eq!(warm.collect("dir/new").as_deref(), Some(b"new".as_slice()));
        assert_eq!(warm.collect("doomed"), None);
        assert_eq!(snapshot(&warm.lower), before, "round {round}");
    }
    warm.stop().await;
}

/// A command may append to its inputs, write over them, shorten them and change their modes, as it may
/// without remote execution; the cached file that an input is a link to stays as it was.
pub async fn inputs_can_be_rewritten_and_cached_blobs_cannot(subject: &Subject) {
    let mut warm = subject.warm().await;
    let blobs = subject.fresh_path();
    fs::create_dir(&blobs).expect("new");
    let tools = [("data", 0o644), ("tool", 0o755)];
    for (name, mode) in tools {
        let blob = blobs.join(name);
        fs::write(&blob, "original").expect("written");
        // The modes that the blob cache gives.
        fs::set_permissions(&blob, fs::Permissions::from_mode(mode)).expect("set");
        fs::hard_link(&blob, warm.lower.join(name)).expect("linked");
    }
    let state = |name: &str| {
        let metadata = fs::metadata(blobs.join(name)).expect("there");
        let modified = metadata.modified().expect("known");
        let content = fs::read(blobs.join(name)).expect("read");
        (content, metadata.permissions().mode(), modified)
    };
    let before = tools.map(|(name, _)| state(name));
    warm.renew().await;
    for (name, _) in tools {
        for (words, expected) in [
            (["append", name, "+"], "original+"),
            (["overwrite-start", name, "O"], "Original+"),
            (["write", name, "short"], "short"),
        ] {
            warm.run(&words).await.expect_code(0);
            let seen = warm.collect(name);
            assert_eq!(seen.as_deref(), Some(expected.as_bytes()), "{words:?}");
        }
        warm.run(&["close-file", name]).await.expect_code(0);
    }
    assert_eq!(tools.map(|(name, _)| state(name)), before);
    warm.stop().await;
}

/// Symlinks, names, modes and contents are those of the tree.
pub async fn views_show_trees_as_they_are(subject: &Subject) {
    let mut warm = subject.warm().await;
    fs::create_dir(warm.lower.join("d,i:r\\")).expect("new");
    fs::write(warm.lower.join("d,i:r\\/ünï ç"), "content").expect("written");
    let closed = fs::Permissions::from_mode(0o444);
    fs::set_permissions(warm.lower.join("d,i:r\\/ünï ç"), closed).expect("set");
    symlink("d,i:r\\/ünï ç", warm.lower.join("link")).expect("linked");
    symlink("nowhere", warm.lower.join("dangling")).expect("linked");
    warm.renew().await;
    assert_eq!(
        warm.run(&["read", "link"]).await.expect_code(0).text(),
        "content"
    );
    let names = warm.run(&["list", "."]).await.expect_code(0).text();
    assert_eq!(names, "d,i:r\\\ndangling\nlink\ntestee\n");
    warm.stop().await;
}

/// A view that nothing was done through is shown again where that is possible; one that anything was done through,
/// never.
pub async fn only_views_that_nobody_changed_are_shown_again(subject: &Subject) {
    let mut warm = subject.warm().await;
    fs::write(warm.lower.join("input"), "original").expect("written");
    warm.renew().await;
    // It takes an overlay, as does another root directory.
    let can_tell = subject.runtime.can_change_root();
    let changes: [&[&[&str]]; 5] = [
        &[&["write", "made", "x"]],
        &[&["write", "made", "x"], &["remove", "made"]],
        &[&["remove", "input"]],
        &[&["append", "input", "x"]],
        &[&["close-file", "input"]],
    ];
    for change in changes {
        let before = Arc::clone(&warm.view);
        warm.run(&["read", "input"]).await.expect_code(0);
        warm.renew().await;
        assert!(!can_tell || Arc::ptr_eq(&before, &warm.view));
        // Until the kernel's clock has gone on.
        tokio::time::sleep(Duration::from_millis(30)).await;
        for words in change {
            warm.run(words).await.expect_code(0);
        }
        warm.renew().await;
        assert!(!Arc::ptr_eq(&before, &warm.view), "{change:?}");
        let names = warm.run(&["list", "."]).await.expect_code(0).text();
        assert_eq!(names, "input\ntestee\n", "{change:?}");
        assert_eq!(
            warm.collect("input").as_deref(),
            Some(b"original".as_slice())
        );
    }
    let (before, former) = (Arc::clone(&warm.view), warm.lower.clone());
    warm.lower = subject.fresh_path();
    fs::create_dir(&warm.lower).expect("new");
    install(TESTEE_BINARY, &warm.lower.join("testee")).expect("the testee");
    warm.renew().await;
    assert!(!Arc::ptr_eq(&before, &warm.view), "another tree");
    assert_eq!(warm.collect("input"), None);
    warm.lower = former;
    warm.renew().await;
    warm.run(&["read", "input"]).await.expect_code(0);
    warm.stop().await;
}

/// With its input root as the root directory, a command sees that and `/proc`, `/dev` and `/tmp` alone, has
/// no capability, and leaves nothing.
pub async fn input_roots_can_be_root_directories(subject: &Subject) {
    if !subject.runtime.can_change_root() {
        assert!(subject.claims < Claims::Namespaces, "it should be possible");
        return;
    }
    let mut shape = subject.shape();
    shape.root = RootDirectory::InputRoot;
    let mut warm = subject.warm_with(&shape).await;
    fs::create_dir_all(warm.lower.join("usr/lib")).expect("new");
    fs::write(warm.lower.join("usr/lib/data"), "absolute").expect("written");
    symlink("/usr/lib", warm.lower.join("lib")).expect("linked");
    let before = snapshot(&warm.lower);
    let mut mounts = Vec::new();
    for round in 0..3 {
        warm.renew().await;
        let names = warm.run(&["list", "/"]).await.expect_code(0).text();
        assert_eq!(names, "dev\nlib\nproc\ntestee\ntmp\nusr\n", "round {round}");
        let read = warm.run(&["read", "/lib/data"]).await.expect_code(0).text();
        assert_eq!(read, "absolute");
        let status = warm.run(&["status"]).await.expect_code(0).text();
        for set in ["CapEff", "CapPrm", "CapInh"] {
            let none = format!("{set}:\t0000000000000000\n");
            assert!(status.contains(&none), "{status}");
        }
        let scratch = warm.run(&["list", "/tmp"]).await.expect_code(0).text();
        assert!(!scratch.contains("left"), "round {round}: {scratch}");
        warm.run(&["write", "/tmp/left", "x"]).await.expect_code(0);
        warm.run(&["write", "/dev/null", "x"]).await.expect_code(0);
        warm.run(&["write", "/usr/lib/made", "seen"])
            .await
            .expect_code(0);
        assert_eq!(
            warm.collect("usr/lib/made").as_deref(),
            Some(b"seen".as_slice())
        );
        let elsewhere = warm.run_changed(&[], |command| {
            command.arguments = vec!["/testee".to_owned(), "directory".to_owned()];
            command.working_directory = "usr/lib".into();
        });
        assert_eq!(elsewhere.await.expect_code(0).text(), "/usr/lib\n");
        let table = warm.run(&["read", "/proc/self/mountinfo"]).await;
        mounts.push(table.expect_code(0).text().lines().count());
        assert_eq!(snapshot(&warm.lower), before, "round {round}");
    }
    assert!(mounts.iter().all(|count| *count == mounts[0]), "{mounts:?}");
    warm.stop().await;
}

/// A file where a mount has to go is the tree's fault, and the container goes on.
pub async fn trees_that_no_root_directory_can_be_made_of_say_why(subject: &Subject) {
    if !subject.runtime.can_change_root() {
        return;
    }
    let mut shape = subject.shape();
    shape.root = RootDirectory::InputRoot;
    let mut warm = subject.warm_with(&shape).await;
    for obstacle in ["file", "link"] {
        let unfit = subject.fresh_path();
        fs::create_dir(&unfit).expect("new");
        if obstacle == "file" {
            fs::write(unfit.join("dev"), "").expect("written");
        } else {
            symlink("/etc", unfit.join("dev")).expect("linked");
        }
        let error = warm.container.mount(&unfit).await.expect_err("unfit");
        let RuntimeError::UnfitTree { detail } = &error else {
            panic!("{error:?}");
        };
        assert!(detail.contains("`dev`"), "{detail}");
    }
    warm.renew().await;
    warm.run(&["exit", "0"]).await.expect_code(0);
    warm.stop().await;
}

/// The hundredth execution finds what the first one found.
pub async fn a_hundred_executions_leave_nothing(subject: &Subject) {
    let mut warm = subject.warm().await;
    let mounts = warm
        .run(&["read", "/proc/self/mountinfo"])
        .await
        .expect_code(0)
        .text();
    for round in 0..100 {
        let outcome = warm.run(&["write", "mark", "x"]).await;
        outcome.expect_code(0);
        assert!(outcome.stdout.is_empty(), "round {round}");
        warm.renew().await;
        assert_eq!(warm.collect("mark"), None, "round {round}");
    }
    expect_no_strangers(subject, &mut warm).await;
    let after = warm
        .run(&["read", "/proc/self/mountinfo"])
        .await
        .expect_code(0)
        .text();
    if subject.claims >= Claims::Namespaces {
        assert_eq!(after.lines().count(), mounts.lines().count(), "{after}");
    }
    warm.stop().await;
}
