//! Views of input trees.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::ending::expect_no_strangers;
use super::subject::{Claims, Subject, snapshot};

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
