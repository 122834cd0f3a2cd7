//! What configures a run is no input, and has to be the commit's all the same.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use regatta_model::Digest;

use super::project::{Project, git_in};
use crate::git::{Reading, commit_of, head, knows};

/// In what a run in `directory` differs from its commit if `file` there configures it, and was read as `text`.
fn difference(project: &Project, directory: &str, file: &str, text: &str) -> Option<String> {
    let root = project.root().join(directory);
    let root = root.canonicalize().expect("it is there");
    let reading = Reading {
        root: &root,
        contents: BTreeMap::new(),
        configuration: &[(root.join(file), Digest::of(text.as_bytes()))],
        is_wanted: &|_| false,
    };
    let commit = commit_of(&root, None, head(&root).as_deref());
    let commit = commit.compared(&reading, &project.root().join(".git/blobs"));
    commit.unlike.map(|unlike| unlike.to_string())
}

#[track_caller]
fn check(project: &Project, file: &str, text: &str, difference: Option<&str>) {
    let said = self::difference(project, "", file, text);
    match (&said, difference) {
        (None, None) => {}
        (Some(said), Some(words)) => assert!(said.contains(words), "{said}"),
        (_, _) => panic!("{file}: {said:?}"),
    }
}

const OTHER_CONTENT: Option<&str> = Some("as it was read, is not the file that a checkout");
const NOT_IN_COMMIT: Option<&str> = Some("was read, and the commit has no such file");

#[test]
fn a_configuration_is_compared_as_it_was_read() {
    let project = Project::new();
    check(&project, "sub/data", "data", None);
    check(&project, "sub/data", "else", OTHER_CONTENT);
    check(&project, ".git/config", "", NOT_IN_COMMIT);
    project.git("update-index --assume-unchanged sub/data");
    project.set_mode("sub/data", 0o755);
    let words = "is an executable file here, and a file that cannot be executed in the commit";
    check(&project, "sub/data", "data", Some(words));
}

#[test]
fn line_endings_are_those_of_a_checkout() {
    let project = Project::new();
    project.write(".gitattributes", "*.toml text eol=crlf\n");
    project.write("sub/regatta.toml", "a\r\nb\r\n");
    project.commit();
    assert_eq!(project.git("show HEAD:sub/regatta.toml"), "a\nb");
    for directory in ["", "sub"] {
        let file = format!(
            "{}regatta.toml",
            if directory.is_empty() { "sub/" } else { "" }
        );
        assert_eq!(difference(&project, directory, &file, "a\r\nb\r\n"), None);
        let said = difference(&project, directory, &file, "a\r\nc\r\n").expect("it differs");
        assert!(said.contains("sub/regatta.toml, as it was read,"), "{said}");
    }
}

#[test]
fn symlinks_are_the_commits_and_so_is_what_they_lead_to() {
    let project = Project::new();
    symlink("sub", project.root().join("deep")).expect("linked");
    symlink("../deep/data", project.root().join("sub/regatta.toml")).expect("linked");
    project.commit();
    check(&project, "sub/regatta.toml", "data", None);
    assert_eq!(difference(&project, "sub", "regatta.toml", "data"), None);
    check(&project, "sub/regatta.toml", "else", OTHER_CONTENT);
    // Another file of the same commit, which its own link does not lead to.
    project.git("update-index --assume-unchanged sub/regatta.toml");
    let link = project.root().join("sub/regatta.toml");
    std::fs::remove_file(&link).expect("removed");
    symlink("more", &link).expect("linked");
    let words = "sub/regatta.toml, as it was read, is not the file";
    check(&project, "sub/regatta.toml", "more", Some(words));
    // A file that its own link leads to, which is in no commit.
    let project = Project::new();
    project.write("ignored", "text");
    symlink("ignored", project.root().join("regatta.toml")).expect("linked");
    project.commit();
    check(&project, "regatta.toml", "text", NOT_IN_COMMIT);
    symlink("link", project.root().join("node_modules")).expect("linked");
    check(&project, "node_modules", "data", NOT_IN_COMMIT);
}

#[test]
fn files_of_submodules_are_in_the_commits_of_those() {
    let module = Project::new();
    let project = Project::new();
    let url = module.root().display().to_string();
    project.git(&format!("submodule --quiet add {url} in"));
    symlink("in/sub/data", project.root().join("regatta.toml")).expect("linked");
    project.commit();
    check(&project, "regatta.toml", "data", None);
    check(&project, "regatta.toml", "else", OTHER_CONTENT);
    let file = project.root().join("regatta.toml");
    let knows = |directory: &str| knows(&project.root().join(directory), &file);
    assert!(knows("") && knows("sub") && !knows("in"));
    // What the project around it says is in no commit of the submodule's.
    let said = difference(&project, "in", "../tests.json", "fail").expect("it differs");
    assert!(said.contains("the commit has no such file"), "{said}");
    git_in(project.root(), "submodule --quiet deinit --all --force");
    check(&project, "tests.json", "fail", None);
}
