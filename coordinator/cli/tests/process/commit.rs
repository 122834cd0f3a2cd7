//! What a run says of the commit that is checked out.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::fleet::Fleet;
use super::program::{Ended, write};
use super::repository::{commit, git};

/// What a terminal would obey, and what would look like lines of somebody else's.
const STRANGE: &str = "a\u{1b}[2J\nname";
const FILES: [(&str, &str); 3] = [
    (
        "regatta.toml",
        "[jobs.make]\ninputs = ['**']\nrun = 'cp source out'\noutputs = ['out']\n",
    ),
    ("source", "one"),
    (STRANGE, "one"),
];

fn next_commit(project: &Path) -> String {
    let arguments = ["commit", "--quiet", "--allow-empty", "--message", "next"];
    git(project, &arguments);
    git(project, &["rev-parse", "HEAD"])
}

/// A `git` in whose presence somebody else commits whenever its status is asked for.
fn restless_git(directory: &Path) -> String {
    let path = std::env::var("PATH").expect("there are programs");
    let git = directory.join("git");
    let script = format!(
        "#!/bin/sh\nexport PATH='{path}'\ncase \" $* \" in *' status '*)\n\
         git -c user.name=n -c user.email=e@example.org commit --quiet --allow-empty --message x\nesac\n\
         exec git \"$@\"\n"
    );
    std::fs::write(&git, script).expect("written");
    std::fs::set_permissions(&git, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    format!("{}:{path}", directory.display())
}

#[test]
fn a_run_answers_for_a_commit_only_if_it_read_that_commit() {
    let fleet = Fleet::of(1);
    let directory = tempfile::tempdir().expect("a directory");
    let project = directory.path();
    git(project, &["init", "--quiet"]);
    write(project, &FILES);
    commit(project);
    let regatta = |arguments: &[&str]| {
        let mut command = fleet.command();
        command.current_dir(project).args(arguments);
        command
    };
    let verdict = |commit: &str, code: i32, words: &str| {
        let ended = Ended::of(&mut regatta(&["verdict", commit]));
        ended.expect_code(code);
        assert!(ended.stdout.starts_with(words), "{ended:#?}");
    };
    let ended = Ended::of(&mut regatta(&["run"]));
    ended.expect_code(0);
    assert!(!ended.stderr.contains("no commit's verdict"), "{ended:#?}");
    verdict("HEAD", 0, "RELEASABLE\n");

    let hidden = next_commit(project);
    git(project, &["update-index", "--assume-unchanged", STRANGE]);
    write(project, &[(STRANGE, "two")]);
    assert_eq!(git(project, &["status", "--porcelain"]), "");
    let words = [
        "this is no commit's verdict: ",
        "a\\u{1b}[2J\\u{a}name, as it was read, is not the file that a checkout of the commit holds",
    ];
    Ended::of(&mut regatta(&["run"]))
        .expect_code(0)
        .expect_complaint(&words);
    verdict(&hidden, 2, "UNKNOWN");
    write(project, &[(STRANGE, "one")]);

    let before = next_commit(project);
    let programs = tempfile::tempdir().expect("a directory");
    let path = restless_git(programs.path());
    let ended = Ended::of(regatta(&["run"]).env("PATH", path));
    let after = git(project, &["rev-parse", "HEAD"]);
    let words = format!("{before} was checked out when reading began, and {after} when it ended");
    ended.expect_code(0).expect_complaint(&[&words]);
    for moved in [before, after] {
        verdict(&moved, 2, "UNKNOWN");
    }
    Ended::of(&mut regatta(&["run"])).expect_code(0);
    verdict("HEAD", 0, "RELEASABLE\n");

    // What git has for checkouts of other users.
    let of_others = |arguments: &[&str]| {
        let mut command = regatta(arguments);
        Ended::of(command.env("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1"))
    };
    let words = [
        "this is no commit's verdict: ",
        "dubious ownership",
        "safe.directory",
    ];
    of_others(&["run"]).expect_code(0).expect_complaint(&words);
    of_others(&["verdict"])
        .expect_code(96)
        .expect_complaint(&words[1..]);
    fleet.stop();
}
