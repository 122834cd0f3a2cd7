//! Trees of which git says nothing, or not the truth.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::tree::{Patterns, Staging, expand, walk};

/// Files of the commit that every test begins with.
const FILES: [(&str, &str); 4] = [
    ("tests.json", "fail"),
    ("sub/data", "data"),
    ("sub/more", "more"),
    (".gitignore", "ignored\n/node_modules\n"),
];

struct Project {
    directory: TempDir,
}

impl Project {
    fn new() -> Self {
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

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn git(&self, words: &str) -> String {
        git_in(self.root(), words)
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.root().join(path);
        std::fs::create_dir_all(file.parent().expect("it is below")).expect("made");
        std::fs::write(file, text).expect("written");
    }

    fn set_mode(&self, path: &str, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.root().join(path), permissions).expect("it is ours");
    }

    fn commit(&self) -> String {
        self.git("add --all");
        self.git("commit --quiet --message m");
        self.git("rev-parse HEAD")
    }

    /// What a run of these inputs would say of its commit; `meanwhile` happens once all is read.
    fn inspected(&self, patterns: &[&str], meanwhile: impl FnOnce()) -> Commit {
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
    fn is_clean(&self, patterns: &[&str]) {
        let commit = self.inspected(patterns, || {});
        assert_eq!(commit.unlike, None, "{commit:?}");
        assert_eq!(Some(commit.id), head(self.root()));
    }

    #[track_caller]
    fn differs(&self, patterns: &[&str], start: &str) {
        let unlike = self.inspected(patterns, || {}).unlike;
        let said = unlike.expect("it differs").to_string();
        assert!(said.starts_with(start), "{said}");
    }
}

fn git_in(directory: &Path, words: &str) -> String {
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

const OTHER_CONTENT: &str = "tests.json, as it was read, is not the file";

#[test]
fn what_a_commit_holds_is_that_commits() {
    let project = Project::new();
    for patterns in [
        &["**"][..],
        &["."],
        &["sub"],
        &["sub/d*", "tests.json"],
        &["**", "!sub/**"],
    ] {
        project.is_clean(patterns);
    }
    project.write("ignored", "it is nobody's input");
    project.is_clean(&["**"]);
}

#[test]
fn work_that_is_not_committed_is_named() {
    let project = Project::new();
    project.write("new", "");
    project.git("config status.showUntrackedFiles no");
    project.differs(&["sub"], "new is in no commit");
    std::fs::remove_file(project.root().join("new")).expect("removed");
    project.write("sub/more", "pass");
    project.differs(&["**"], "sub/more has been changed since the commit");
}

#[test]
fn a_file_that_git_overlooks_is_compared_all_the_same() {
    for mark in ["assume-unchanged", "skip-worktree"] {
        let project = Project::new();
        project.git(&format!("update-index --{mark} tests.json"));
        project.is_clean(&["**"]);
        project.write("tests.json", "pass");
        assert!(!commit_of(project.root(), None, head(project.root()).as_deref()).is_dirty());
        project.differs(&["**"], OTHER_CONTENT);
        project.is_clean(&["sub"]);
        std::fs::remove_file(project.root().join("tests.json")).expect("removed");
        project.differs(&["**"], "tests.json is not here, and the commit has it");
        let overlooked = overlooked(&project.root().join("sub"));
        assert_eq!(overlooked, None, "it is another project's, and not here");
        let overlooked = super::overlooked(project.root()).expect("it is marked");
        let start = "git has been told to overlook what becomes of tests.json; ";
        assert!(overlooked.to_string().starts_with(start), "{overlooked}");
    }
}

#[test]
fn times_that_tell_nothing_are_not_believed() {
    let project = Project::new();
    let file = project.root().join("tests.json");
    let an_hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let write = |text: &str| {
        std::fs::write(&file, text).expect("written");
        let opened = std::fs::File::options().append(true).open(&file);
        opened
            .expect("it is there")
            .set_modified(an_hour_ago)
            .expect("a time");
    };
    write("fail");
    project.git("config core.checkStat minimal");
    project.git("config core.trustctime false");
    project.git("update-index --refresh");
    write("pass");
    assert_eq!(project.git("status --porcelain"), "", "git is taken in");
    // It may be the status that tells, or what was read: git compares times to the second.
    project.differs(&["**"], "tests.json");
}

#[test]
fn what_is_read_must_be_what_is_checked_out_throughout() {
    let project = Project::new();
    let clean = head(project.root());
    // The new commit's status is clean, and what was read is the old one's.
    let commit = project.inspected(&["**"], || {
        project.write("tests.json", "pass");
        project.commit();
    });
    let unlike = commit.unlike.expect("it was another").to_string();
    let start = format!(
        "{} was checked out when reading",
        clean.expect("there is one")
    );
    assert!(unlike.starts_with(&start), "{unlike}");
    // The commit is the same before and after, and something else was read.
    project.write("tests.json", "good");
    let unlike = project
        .inspected(&["**"], || drop(project.git("stash --quiet")))
        .unlike;
    let unlike = unlike.expect("it was other work").to_string();
    assert!(unlike.starts_with(OTHER_CONTENT), "{unlike}");
}

#[test]
fn modes_and_kinds_count() {
    let project = Project::new();
    project.git("config core.fileMode false");
    project.set_mode("sub/data", 0o755);
    project.differs(&["**"], "sub/data has been changed since the commit");
    project.git("update-index --assume-unchanged sub/data");
    let words =
        "sub/data is an executable file here, and a file that cannot be executed in the commit";
    project.differs(&["**"], words);
    let project = Project::new();
    project.git("update-index --assume-unchanged link");
    let link = project.root().join("link");
    std::fs::remove_file(&link).expect("removed");
    symlink("sub/more", &link).expect("linked");
    project.differs(&["**"], "link, as it was read, is not the file");
}

#[test]
fn inputs_that_git_ignores_are_in_no_commit() {
    let project = Project::new();
    project.write("node_modules/x", "");
    project.is_clean(&["**"]);
    let words = "node_modules/x was read, and the commit has no such file";
    project.differs(&["**", "node_modules"], words);
}

#[test]
fn only_the_commit_itself_leaves_out_its_files() {
    let project = Project::new();
    project.write("kept/ignored", "");
    project.git("add --force kept/ignored");
    project.commit();
    // Everybody's `.gitignore` has it left out.
    project.is_clean(&["**"]);
    project.write(".git/info/exclude", "tests.json\n");
    let words = "tests.json was not read, since .git/info/exclude has git ignore it";
    project.differs(&["**"], words);
    project.write(".git/info/exclude", "");
    project.write("sub/.gitignore", "*\n");
    assert_eq!(project.git("status --porcelain"), "", "it ignores itself");
    let words = "sub/data was not read, since sub/.gitignore has git ignore it";
    project.differs(&["**"], words);
}

#[test]
fn another_commit_in_its_place_is_not_the_commit() {
    let project = Project::new();
    let failing = project.git("rev-parse HEAD");
    project.write("tests.json", "pass");
    let passing = project.commit();
    project.git(&format!("replace {failing} {passing}"));
    project.git(&format!("checkout --quiet {failing}"));
    assert_eq!(project.git("status --porcelain"), "", "git is taken in");
    project.differs(&["**"], "tests.json has been changed since the commit");
}

#[test]
fn submodules_are_as_the_commit_has_them() {
    let module = Project::new();
    let project = Project::new();
    let url = module.root().display().to_string();
    project.git(&format!("submodule --quiet add {url} deep/in"));
    let ignore_all = "config --file .gitmodules submodule.deep/in.ignore all";
    project.git(ignore_all);
    project.commit();
    project.is_clean(&["**"]);
    project.is_clean(&["deep"]);
    let within = project.root().join("deep/in");
    git_in(&within, "update-index --assume-unchanged tests.json");
    std::fs::write(within.join("tests.json"), "pass").expect("written");
    project.differs(&["**"], "deep/in/tests.json, as it was read,");
    git_in(&within, "update-index --no-assume-unchanged tests.json");
    git_in(&within, "commit --quiet --all --message other");
    assert_eq!(project.git("status --porcelain"), "", "git is taken in");
    project.differs(&["**"], "deep/in has been changed since the commit");
    project.git("submodule --quiet deinit --all --force");
    project.differs(&["**"], "the submodule deep/in is not here; ");
    project.is_clean(&["**", "!deep/**"]);
}

#[test]
fn a_repository_in_the_project_is_none_of_its_files() {
    let project = Project::new();
    project.git("init --quiet node_modules");
    project.write("node_modules/x", "");
    git_in(&project.root().join("node_modules"), "add --all");
    git_in(
        &project.root().join("node_modules"),
        "commit --quiet --message m",
    );
    project.is_clean(&["**"]);
    project.differs(&["**", "node_modules"], "node_modules/x was read,");
}

#[test]
fn filters_count_as_the_commit_has_them() {
    let project = Project::new();
    project.write(".gitattributes", "*.bat text eol=crlf\n*.rot filter=rot\n");
    project.git("config filter.rot.clean tr\ta-z\tb-za");
    project.git("config filter.rot.smudge tr\tb-za\ta-z");
    project.write("sub/x.bat", "echo\r\n");
    project.write("sub/x.rot", "abc");
    project.commit();
    assert_eq!(project.git("show HEAD:sub/x.rot"), "bcd");
    project.is_clean(&["**"]);
    // Its status is clean: what cleans it makes nothing of the difference.
    project.git("config filter.rot.clean printf\tbcd");
    project.write("sub/x.rot", "xyz");
    project.git("update-index --refresh");
    project.differs(&["**"], "sub/x.rot, as it was read, is not the file");
    // What only this machine makes of a file is not the commit's.
    let project = Project::new();
    project.write("sub/lines", "a\nb\n");
    project.commit();
    project.git("config core.autocrlf true");
    std::fs::remove_file(project.root().join("sub/lines")).expect("removed");
    project.git("checkout sub/lines");
    assert_eq!(project.git("status --porcelain"), "");
    project.git("update-index --assume-unchanged sub/lines");
    project.differs(&["**"], "sub/lines, as it was read, is not the file");
}

#[test]
fn attributes_that_are_in_no_commit_make_no_file_the_commits() {
    for place in [".git/info/attributes", ".gitattributes"] {
        let project = Project::new();
        project.write(".gitignore", ".gitattributes\n");
        project.write("sub/tests", "fail\n");
        project.commit();
        project.git("config filter.x.clean sed\ts/pass/fail/");
        project.git("config filter.x.smudge sed\ts/fail/pass/");
        project.write(place, "tests filter=x\n");
        project.write("sub/tests", "pass\n");
        project.git("add sub/tests");
        assert_eq!(project.git("status --porcelain"), "", "{place}");
        project.differs(&["**"], "sub/tests, as it was read, is not the file");
    }
}

#[test]
fn what_a_pointer_points_at_is_what_a_checkout_holds() {
    let project = Project::new();
    let digest = regatta_model::Digest::of(b"large");
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 5\n",
        digest.hash_hex()
    );
    project.write("sub/large", &pointer);
    project.commit();
    project.is_clean(&["**"]);
    project.git("update-index --assume-unchanged sub/large");
    project.write("sub/large", "large");
    project.is_clean(&["**"]);
    project.write("sub/large", "Large");
    project.differs(&["**"], "sub/large, as it was read, is not the file");
}

#[test]
fn a_configuration_is_compared_as_it_was_read() {
    let project = Project::new();
    let file = project.root().join("sub/data");
    let compared = |text: &str, file: &Path| {
        let reading = Reading {
            root: project.root(),
            contents: std::collections::BTreeMap::new(),
            configuration: &[(file.to_owned(), regatta_model::Digest::of(text.as_bytes()))],
            is_wanted: &|_| false,
        };
        let commit = commit_of(project.root(), None, head(project.root()).as_deref());
        let commit = commit.compared(&reading, &project.root().join(".git/blobs"));
        commit.unlike.map(|unlike| unlike.to_string())
    };
    assert_eq!(compared("data", &file), None);
    let said = compared("else", &file).expect("it differs");
    assert!(said.contains("as it was read"), "{said}");
    let said = compared("", &project.root().join(".git/config")).expect("it differs");
    assert!(said.contains("no such file"), "{said}");
}

#[test]
fn a_file_has_its_place_from_the_root_of_its_repository() {
    let project = Project::new();
    let at = |path: &str| place_of(&project.root().join(path));
    assert_eq!(at("sub/regatta.toml").as_deref(), Some("sub/regatta.toml"));
    assert_eq!(at("regatta.toml").as_deref(), Some("regatta.toml"));
    let elsewhere = tempfile::tempdir().expect("a directory");
    assert_eq!(place_of(&elsewhere.path().join("regatta.toml")), None);
}
