//! A repository of one test, and what a run says of its commit.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::git::{Commit, Reading, commit_of, head};
use crate::tree::{Patterns, Staging, expand, walk};

/// Files of the commit that every test begins with.
const FILES: [(&str, &str); 4] = [
    ("tests.json", "fail"),
    ("sub/data", "data"),
    ("sub/more", "more"),
    (".gitignore", "ignored\n/node_modules\n"),
];

pub(super) struct Project {
    directory: TempDir,
}

impl Project {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let project = Self { directory };
        project.git("init --quiet");
        for (path, text) in FILES {
            project.write(path, text);
        }
        symlink("sub/data", project.root().join("link")).expect("linked");
        project.write("run.sh", "true");
        project.set_mode("run.sh", 0o755);
        project.commit();
        project
    }

    pub(super) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn git(&self, words: &str) -> String {
        git_in(self.root(), words)
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let file = self.root().join(path);
        std::fs::create_dir_all(file.parent().expect("it is below")).expect("made");
        std::fs::write(file, text).expect("written");
    }

    pub(super) fn set_mode(&self, path: &str, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.root().join(path), permissions).expect("it is ours");
    }

    pub(super) fn commit(&self) -> String {
        self.git("add --all");
        self.git("commit --quiet --message m");
        self.git("rev-parse HEAD")
    }

    /// What a run of these inputs would say of its commit; `meanwhile` happens once all is read.
    pub(super) fn inspected(&self, patterns: &[&str], meanwhile: impl FnOnce()) -> Commit {
        let root = self.root();
        let before = head(root);
        let files = walk(root, root, &[]).expect("it can be read");
        let inputs = expand(root, &files, patterns.iter().copied()).expect("they match");
        let cache = tempfile::tempdir().expect("a directory");
        let mut staging = Staging::new(&cache.path().join("files"));
        staging.add(&[&inputs]).expect("it can be read");
        meanwhile();
        let patterns = Patterns::new(patterns.iter().copied()).expect("they are good");
        let reading = Reading {
            root,
            contents: staging.contents(&inputs).collect(),
            configuration: &[],
            is_wanted: &|path| patterns.mean(path),
        };
        let blobs = cache.path().join("blobs");
        let status = commit_of(root, None, before.as_deref());
        let commit = status.clone().compared(&reading, &blobs);
        // What is remembered makes no difference.
        assert_eq!(status.compared(&reading, &blobs), commit);
        commit
    }

    #[track_caller]
    pub(super) fn is_clean(&self, patterns: &[&str]) {
        let commit = self.inspected(patterns, || {});
        assert_eq!(commit.unlike, None, "{commit:?}");
        assert_eq!(Some(commit.id), head(self.root()));
    }

    #[track_caller]
    pub(super) fn differs(&self, patterns: &[&str], start: &str) {
        let unlike = self.inspected(patterns, || {}).unlike;
        let said = unlike.expect("it differs").to_string();
        assert!(said.starts_with(start), "{said}");
    }
}

pub(super) fn git_in(directory: &Path, words: &str) -> String {
    let mut git = Command::new("git");
    git.current_dir(directory)
        .args(["-c", "user.name=n", "-c", "user.email=e@example.org"])
        .args(["-c", "protocol.file.allow=always"])
        .args(words.split(' '));
    let output = git.output().expect("git is installed");
    assert!(output.status.success(), "git {words}: {output:?}");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    said.trim().to_owned()
}
