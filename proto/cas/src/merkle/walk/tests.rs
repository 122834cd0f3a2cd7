use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn directory(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for path in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
    }
    root
}

fn options(root: &Path) -> WalkOptions {
    WalkOptions {
        directory: root.to_owned(),
        root: root.to_owned(),
        without: Vec::new(),
        ignored: Ignored::LeftOut,
    }
}

fn paths(options: &WalkOptions) -> Vec<String> {
    let found = walk(options).unwrap();
    found.into_iter().map(|found| found.path).collect()
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
        "made/x",
    ]);
    fs::write(root.path().join(".gitignore"), "/target\n*.o\n").unwrap();
    let mut options = options(root.path());
    options.without = vec![root.path().join("made")];
    assert_eq!(paths(&options), [".gitignore", ".hidden", "a/c", "kept"]);
    options.ignored = Ignored::Found;
    assert_eq!(
        paths(&options),
        [".gitignore", ".hidden", "a/b.o", "a/c", "kept", "target/x"]
    );
}

#[test]
fn only_rules_of_the_repository_itself_count() {
    let home = directory(&[
        "repository/.git/HEAD",
        "repository/.git/info/exclude",
        "repository/package/src/x",
        "repository/package/src/excluded",
        "repository/package/src/x.o",
        "repository/package/src/kept.o",
        "repository/other/x",
        "plain/x",
        "plain/x.o",
    ]);
    let at = |path: &str| home.path().join(path);
    fs::write(at(".gitignore"), "*\n").unwrap();
    fs::write(at("repository/.ignore"), "x\n").unwrap();
    fs::write(at("repository/.gitignore"), "*.o\n").unwrap();
    fs::write(at("repository/package/.gitignore"), "!kept.o\n").unwrap();
    fs::write(at("repository/.git/info/exclude"), "excluded\n").unwrap();
    let package = WalkOptions {
        directory: at("repository/package"),
        ..options(&at("repository"))
    };
    let expected = ["package/.gitignore", "package/src/kept.o", "package/src/x"];
    assert_eq!(paths(&package), expected);
    let nested = options(&at("repository/package"));
    assert_eq!(paths(&nested), [".gitignore", "src/kept.o", "src/x"]);
    assert_eq!(paths(&options(&at("plain"))), ["x", "x.o"]);
}

#[test]
fn a_repository_within_has_rules_of_its_own() {
    let root = directory(&[
        ".git/HEAD",
        ".git/info/exclude",
        ".git/modules/in/HEAD",
        ".git/modules/in/info/exclude",
        "a/x.o",
        "a/x.tmp",
        "a/in/deep/x.o",
        "a/in/deep/x.tmp",
        "a/in/deep/x.log",
        "a/in/deep/excluded",
        "a/in/clone/.git/HEAD",
        "a/in/clone/x.o",
        "a/in/clone/x.log",
        "ignored/.git/HEAD",
        "ignored/x",
    ]);
    let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
    write(".gitignore", "*.o\n/ignored\n");
    write(".git/info/exclude", "*.tmp\n");
    write("a/in/.git", "gitdir: ../../.git/modules/in\n");
    write("a/in/.gitignore", "*.log\n");
    write(".git/modules/in/info/exclude", "/deep/excluded\n");
    let in_module = [
        "a/in/.gitignore",
        "a/in/clone/x.log",
        "a/in/clone/x.o",
        "a/in/deep/x.o",
        "a/in/deep/x.tmp",
    ];
    let all = options(root.path());
    assert_eq!(paths(&all), [&[".gitignore"], &in_module[..]].concat());
    let deep = WalkOptions {
        directory: root.path().join("a/in/deep"),
        ..all.clone()
    };
    assert_eq!(paths(&deep), &in_module[3..]);
    let module = WalkOptions {
        without: vec![root.path().join("a/in/clone")],
        root: root.path().join("a/in"),
        directory: root.path().join("a/in"),
        ..all
    };
    assert_eq!(paths(&module), [".gitignore", "deep/x.o", "deep/x.tmp"]);
}

#[test]
fn worktrees_share_what_their_repository_excludes() {
    let root = directory(&[
        "main/.git/info/exclude",
        "main/.git/worktrees/w/HEAD",
        "w/a",
        "w/b",
    ]);
    let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
    write("main/.git/info/exclude", "/a\n");
    write("main/.git/worktrees/w/commondir", "../..\n");
    write("w/.git", "gitdir: ../main/.git/worktrees/w\n");
    assert_eq!(paths(&options(&root.path().join("w"))), ["b"]);
}

#[test]
fn a_directory_that_is_ignored_can_be_walked_all_the_same() {
    let root = directory(&[".git/HEAD", "out/a", "out/b.tmp"]);
    fs::write(root.path().join(".gitignore"), "/out\n").unwrap();
    fs::write(root.path().join("out/.gitignore"), "*.tmp\n").unwrap();
    let out = options(&root.path().join("out"));
    assert_eq!(paths(&out), [".gitignore", "a"]);
}

#[test]
fn executables_and_symlinks_are_told_as_they_are() {
    let root = directory(&["run", "a/file"]);
    fs::set_permissions(root.path().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    // It is its owner's business, as git and Bazel see it.
    let others_alone = fs::Permissions::from_mode(0o654);
    fs::set_permissions(root.path().join("a/file"), others_alone).unwrap();
    symlink("../run", root.path().join("a/link")).unwrap();
    symlink("dangling", root.path().join("nowhere")).unwrap();
    let link = |path: &str, target: &str| Found {
        path: path.to_owned(),
        kind: FoundKind::Symlink {
            target: target.to_owned(),
        },
    };
    let file = |path: &str, executable| Found {
        path: path.to_owned(),
        kind: FoundKind::File { executable },
    };
    assert_eq!(
        walk(&options(root.path())).unwrap(),
        [
            file("a/file", false),
            link("a/link", "../run"),
            link("nowhere", "dangling"),
            file("run", true)
        ]
    );
}

#[track_caller]
fn check_unfit(root: &tempfile::TempDir, path: &str, expected: &str) {
    let found = walk(&options(root.path())).unwrap();
    let found = found.into_iter().find(|found| found.path == path).unwrap();
    let FoundKind::Unfit(unfit) = found.kind else {
        panic!("{found:?}")
    };
    assert_eq!(unfit.to_string(), expected);
}

#[test]
fn links_out_of_the_tree_are_unfit() {
    for target in ["/etc/passwd", "../outside"] {
        let root = directory(&["file"]);
        symlink(target, root.path().join("link")).unwrap();
        let expected = format!("it is a symlink that points out of the tree, to {target}");
        check_unfit(&root, "link", &expected);
    }
    // As it reads, `l/../x` is within the tree; but `l` leads to its top.
    let root = directory(&["a/b/file"]);
    symlink("../../a", root.path().join("a/b/l")).unwrap();
    symlink("a/b/l/../..", root.path().join("x")).unwrap();
    let expected = "it is a symlink that points out of the tree, to a/b/l/../..";
    check_unfit(&root, "x", expected);
}

#[test]
fn what_no_tree_can_hold_is_unfit_and_what_is_not_there_an_error() {
    let root = directory(&["file"]);
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
    let expected = "it is neither a file, a directory nor a symlink";
    check_unfit(&root, "socket", expected);
    let target = std::ffi::OsStr::from_bytes(b"\xff");
    symlink(target, root.path().join("strange")).unwrap();
    check_unfit(&root, "strange", "its name or its target is not UTF-8");
    let absent = walk(&options(Path::new("/nonexistent"))).unwrap_err();
    let expected = "the files below /nonexistent cannot be listed";
    assert_eq!(absent.to_string(), expected);
}
