use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, Instant};

use super::super::Entry;
use super::*;

fn directory(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for path in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, path.file_name().unwrap().as_encoded_bytes()).unwrap();
    }
    root
}

fn paths(scan: &Scan) -> Vec<String> {
    let entries = scan.builder.entries().into_iter();
    let leaves = entries.filter(|(_, entry)| *entry != Entry::Directory);
    leaves.map(|(path, _)| path).collect()
}

#[track_caller]
fn check(root: &tempfile::TempDir, options: &ScanOptions, expected: &[&str]) {
    assert_eq!(paths(&scan(root.path(), options, None).unwrap()), expected);
}

#[test]
fn what_git_ignores_is_left_out() {
    let root = directory(&[
        "kept",
        ".hidden",
        "target/x",
        "a/b.o",
        "a/c",
        ".git/config",
        "a/.git",
    ]);
    fs::write(root.path().join(".gitignore"), "/target\n*.o\n").unwrap();
    let options = ScanOptions::default();
    check(&root, &options, &[".gitignore", ".hidden", "a/c", "kept"]);
    let everything = ScanOptions {
        respect_gitignore: false,
        ..ScanOptions::default()
    };
    check(
        &root,
        &everything,
        &[".gitignore", ".hidden", "a/b.o", "a/c", "kept", "target/x"],
    );
}

#[test]
fn globs_choose_and_exclude() {
    let root = directory(&["a/x.rs", "a/y.rs", "b/x.rs", "b/z.txt"]);
    let globs = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let options = |include, exclude| ScanOptions {
        include: globs(include),
        exclude: globs(exclude),
        ..ScanOptions::default()
    };
    check(
        &root,
        &options(&["a", "b/*.txt"], &[]),
        &["a/x.rs", "a/y.rs", "b/z.txt"],
    );
    check(&root, &options(&[], &["a"]), &["b/x.rs", "b/z.txt"]);
    check(&root, &options(&["a"], &["**/y.*"]), &["a/x.rs"]);
    let scanned = scan(root.path(), &options(&["a", "nope"], &[]), None).unwrap();
    assert_eq!(scanned.unmatched_includes, ["nope"]);
}

#[test]
fn executables_and_symlinks_are_kept_as_they_are() {
    let root = directory(&["run", "a/file"]);
    fs::set_permissions(root.path().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../run", root.path().join("a/link")).unwrap();
    symlink("dangling", root.path().join("nowhere")).unwrap();
    symlink("a", root.path().join("directory")).unwrap();
    let found = scan(root.path(), &ScanOptions::default(), None).unwrap();
    let link = |target: &str| {
        Some(Entry::Symlink {
            target: target.to_owned(),
        })
    };
    assert_eq!(found.builder.entry("a/link"), link("../run"));
    assert_eq!(found.builder.entry("nowhere"), link("dangling"));
    assert_eq!(found.builder.entry("directory"), link("a"));
    let run = Entry::File {
        digest: Digest::of(b"run"),
        executable: true,
    };
    assert_eq!(found.builder.entry("run"), Some(run));
    let file = Entry::File {
        digest: Digest::of(b"file"),
        executable: false,
    };
    assert_eq!(found.builder.entry("a/file"), Some(file));
    assert!(found.files[&Digest::of(b"file")].ends_with("a/file"));
    assert_eq!((found.file_count, found.hashed_count), (2, 2));
}

#[track_caller]
fn check_refused(root: &tempfile::TempDir, expected: &str) {
    let error = scan(root.path(), &ScanOptions::default(), None).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn links_out_of_the_tree_are_refused_by_name() {
    for target in ["/etc/passwd", "../outside"] {
        let root = directory(&["file"]);
        symlink(target, root.path().join("link")).unwrap();
        check_refused(
            &root,
            &format!("the symlink link points out of the tree, to {target}"),
        );
    }
    // As it reads, `l/../x` is within the tree; but `l` leads to its top.
    let root = directory(&["a/b/file"]);
    symlink("../../a", root.path().join("a/b/l")).unwrap();
    symlink("a/b/l/../..", root.path().join("x")).unwrap();
    check_refused(
        &root,
        "the symlink x points out of the tree, to a/b/l/../..",
    );
}

#[test]
fn special_files_and_what_is_not_there_are_refused_by_name() {
    let root = directory(&["file"]);
    let socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
    check_refused(&root, "socket is neither a file, a directory nor a symlink");
    drop(socket);
    let absent = scan(Path::new("/nonexistent"), &ScanOptions::default(), None).unwrap_err();
    assert_eq!(absent.to_string(), "cannot read /nonexistent");
}

#[test]
fn a_file_that_was_just_written_is_read_again_and_a_change_is_seen() {
    let root = directory(&["file"]);
    let cache_directory = tempfile::tempdir().unwrap();
    let mut cache = FileDigestCache::open(cache_directory.path().join("cache"));
    for _ in 0..2 {
        let found = scan(root.path(), &ScanOptions::default(), Some(&mut cache)).unwrap();
        assert_eq!(found.hashed_count, 1);
    }
    let mut cache = cache.with_racy_window(Duration::ZERO);
    for hashed_count in [1, 0] {
        let found = scan(root.path(), &ScanOptions::default(), Some(&mut cache)).unwrap();
        assert_eq!(found.hashed_count, hashed_count);
    }
    fs::write(root.path().join("file"), b"elif").unwrap();
    let found = scan(root.path(), &ScanOptions::default(), Some(&mut cache)).unwrap();
    assert_eq!(found.hashed_count, 1);
    assert!(found.files.contains_key(&Digest::of(b"elif")));
}

/// The tree of the issue: an unchanged tree of 50,000 files is digested in under a second (measured in
/// release by the example `blob_costs`; this test prints its time and asserts what does not depend on it).
#[test]
fn an_unchanged_tree_of_fifty_thousand_files_is_not_read_again() {
    let root = tempfile::tempdir().unwrap();
    for directory in 0..500 {
        let directory = root.path().join(format!("directory-{directory}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..100u32 {
            fs::write(
                directory.join(format!("file-{file}.rs")),
                file.to_le_bytes(),
            )
            .unwrap();
        }
    }
    let caches = tempfile::tempdir().unwrap();
    let path = caches.path().join("cache");
    let mut cache = FileDigestCache::open(&path).with_racy_window(Duration::ZERO);
    let first = scan(root.path(), &ScanOptions::default(), Some(&mut cache)).unwrap();
    assert_eq!((first.file_count, first.hashed_count), (50_000, 50_000));
    cache.save().unwrap();
    let started = Instant::now();
    let mut cache = FileDigestCache::open(&path);
    let second = scan(root.path(), &ScanOptions::default(), Some(&mut cache)).unwrap();
    let tree = second.builder.build();
    let took = started.elapsed();
    assert_eq!(second.hashed_count, 0);
    assert_eq!(tree.root, first.builder.build().root);
    println!("50,000 unchanged files digested in {took:?}");
}
