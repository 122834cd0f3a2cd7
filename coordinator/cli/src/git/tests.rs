//! Trees of which git says nothing, or not the truth.

mod configuration;
mod project;

use std::os::unix::fs::symlink;

use super::*;
use project::{Project, git_in};

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
fn a_file_is_executable_if_its_owner_may_execute_it() {
    let project = Project::new();
    for mode in [0o654, 0o645] {
        project.set_mode("sub/data", mode);
        assert_eq!(project.git("status --porcelain"), "", "git says so");
        project.is_clean(&["**"]);
    }
    project.set_mode("run.sh", 0o655);
    project.differs(&["**"], "run.sh has been changed since the commit");
    project.git("update-index --assume-unchanged run.sh");
    let words = "run.sh is a file that cannot be executed here, and an executable file";
    project.differs(&["**"], words);
    project.set_mode("run.sh", 0o744);
    project.is_clean(&["**"]);
}

#[test]
fn a_report_that_was_committed_is_a_file_like_any_other() {
    for report in crate::files::REPORTS_OF_CI {
        let project = Project::new();
        project.write(report, "none");
        project.is_clean(&["**"]);
        project.write(report, "expected");
        project.commit();
        project.is_clean(&["**"]);
        project.git(&format!("update-index --assume-unchanged {report}"));
        project.write(report, "of another run");
        let words = format!("{report}, as it was read, is not the file");
        project.differs(&["**"], &words);
    }
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
fn what_has_git_ignore_files_counts_in_its_own_repository() {
    let module = Project::new();
    module.write("sub/x.o", "");
    module.write("sub/x.tmp", "");
    module.commit();
    let project = Project::new();
    project.write(".gitignore", "*.o\nsub/more\n");
    let url = module.root().display().to_string();
    project.git(&format!("submodule --quiet add {url} deep/in"));
    project.git("rm --quiet --cached sub/more");
    project.commit();
    project.is_clean(&["**"]);
    project.write(".git/info/exclude", "*.tmp\n");
    project.is_clean(&["**"]);
    let within = project.root().join("deep/in");
    git_in(&within, "update-index --assume-unchanged sub/x.o sub/more");
    std::fs::write(within.join("sub/x.o"), "other").expect("written");
    project.differs(&["**"], "deep/in/sub/x.o, as it was read,");
    git_in(&within, "update-index --no-assume-unchanged sub/x.o");
    git_in(&within, "checkout --quiet sub/x.o");
    project.write(".git/modules/deep/in/info/exclude", "*.tmp\nmine\n");
    project.write("deep/in/mine", "");
    let start = "deep/in/sub/x.tmp was not read, since ";
    project.differs(&["**"], start);
    project.is_clean(&["**", "!deep/in/**"]);
}

#[test]
fn a_submodule_that_its_project_ignores_is_left_out() {
    let module = Project::new();
    let project = Project::new();
    let url = module.root().display().to_string();
    project.git(&format!("submodule --quiet add {url} deep/in"));
    project.commit();
    project.write(".git/info/exclude", "deep\n");
    let words = "deep/in/.gitignore was not read, since ";
    project.differs(&["**"], words);
    project.write(".git/info/exclude", "");
    project.write(".gitignore", "/deep/\n");
    project.commit();
    project.is_clean(&["**"]);
}

#[test]
fn what_git_cannot_say_is_not_taken_for_nothing() {
    let project = Project::new();
    let said = |commit: Commit| commit.unlike.map(|unlike| unlike.to_string());
    project.write(".git/config", "[broken\n");
    for directory in [project.root().to_owned(), project.root().join("sub")] {
        let commit = commit_of(&directory, None, None);
        assert_eq!(commit.id, "");
        let said = said(commit).expect("there is a repository");
        assert!(said.contains("bad config line 1"), "{said}");
        let error = resolve(&directory, "HEAD").expect_err("it cannot be read");
        assert!(error.contains("bad config line 1"), "{error}");
    }
    let nowhere = tempfile::tempdir().expect("a directory");
    assert_eq!(said(commit_of(nowhere.path(), None, None)), None);
}

#[test]
fn a_change_that_git_is_configured_not_to_show_says_so() {
    let project = Project::new();
    project.write("sub/lines", "a\nb\n");
    project.commit();
    project.git("config core.autocrlf true");
    std::fs::remove_file(project.root().join("sub/lines")).expect("removed");
    project.git("checkout sub/lines");
    assert_eq!(project.git("status --porcelain"), "");
    let words = "sub/lines has been changed since the commit, though `git status` does not show it";
    project.differs(&["**"], words);
    project.write("sub/lines", "a\nc\n");
    let said = project
        .inspected(&["**"], || {})
        .unlike
        .expect("it differs");
    assert!(matches!(said, Unlike::Status { .. }), "{said}");
}

#[test]
fn rules_are_read_as_a_checkout_has_them() {
    let project = Project::new();
    project.write(".gitattributes", ".gitignore text eol=crlf\n");
    project.write(".gitignore", "ignored\r\n/sub/more\r\n");
    project.commit();
    assert_eq!(project.git("show HEAD:.gitignore"), "ignored\n/sub/more");
    project.is_clean(&["**"]);
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
fn a_file_has_its_place_from_the_root_of_its_repository() {
    let project = Project::new();
    let at = |path: &str| place_of(&project.root().join(path));
    assert_eq!(at("sub/regatta.toml").as_deref(), Some("sub/regatta.toml"));
    assert_eq!(at("regatta.toml").as_deref(), Some("regatta.toml"));
    let elsewhere = tempfile::tempdir().expect("a directory");
    assert_eq!(place_of(&elsewhere.path().join("regatta.toml")), None);
}
