//! A tag that moves between two runs, as `docker build` and `docker tag` move it.

use std::process::{Command, Stdio};

use super::fleet::Fleet;
use super::program::{Ended, image, write};

/// Fails in an image that says so.
const SUITE: &str = r#"
ids="one two three four five"
if [ "$1" = list ]; then echo "$ids" | tr ' ' '\n'; exit; fi
code=0
{
  echo '<testsuites><testsuite name="all" tests="1">'
  while read -r id; do
    if [ "$id" = three ] && [ -e /is-broken ]; then
      code=1
      echo "<testcase name=\"$id\" classname=\"\"><failure message=\"broken\"/></testcase>"
    else
      echo "<testcase name=\"$id\" classname=\"\"/>"
    fi
  done < "${2#@}"
  echo '</testsuite></testsuites>'
} > junit.xml
exit $code
"#;

/// A tag of this test's own, and two images for it. Dropping it removes them.
struct Tag {
    name: String,
    good: String,
    broken: String,
}

impl Tag {
    fn new() -> Self {
        let name = format!("regatta-moved-{}:tag", std::process::id());
        let tag = Self {
            good: docker(&["inspect", "--format", "{{.Id}}", &image()]),
            broken: Self::build_broken(),
            name,
        };
        tag.move_to(&tag.good);
        tag
    }

    /// The image of these tests with a file more.
    fn build_broken() -> String {
        let container = docker(&["create", &image(), "true"]);
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), &[("is-broken", "")]);
        let file = directory.path().join("is-broken");
        let file = file.to_str().expect("is text");
        docker(&["cp", file, &format!("{container}:/is-broken")]);
        let broken = docker(&["commit", &container]);
        docker(&["rm", &container]);
        broken
    }

    fn move_to(&self, id: &str) {
        docker(&["tag", id, &self.name]);
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        for name in [&self.name, &self.broken] {
            let mut remove = Command::new("docker");
            remove.args(["rmi", "--force", name]).stdout(Stdio::null());
            drop(remove.status());
        }
    }
}

#[track_caller]
fn docker(arguments: &[&str]) -> String {
    let ended = Ended::of(Command::new("docker").args(arguments));
    ended.expect_code(0);
    ended.stdout.trim().to_owned()
}

#[test]
fn a_tag_that_moves_between_two_runs_is_another_image_at_once() {
    let fleet = Fleet::of(1);
    let tag = Tag::new();
    let project = tempfile::tempdir().expect("a directory");
    let text = format!(
        "[jobs.check]\nimage = '{}'\ninputs = ['**']\n[jobs.check.suite]\ndiscover = ['sh', 'suite.sh', 'list']\n\
         run = ['sh', 'suite.sh', 'run']\njunit = 'junit.xml'\n",
        tag.name
    );
    write(
        project.path(),
        &[("regatta.toml", &text), ("suite.sh", SUITE)],
    );
    let run = |options: &[&str]| {
        let mut run = fleet.command();
        run.current_dir(project.path())
            .args(["--message-format", "json", "run"])
            .args(options);
        Ended::of(&mut run)
    };
    for cached in [0, 5] {
        let ended = run(&[]);
        ended.expect_code(0);
        assert_eq!(ended.finished()["counts"]["cached"], cached, "{ended:#?}");
    }
    tag.move_to(&tag.broken);
    let moved = run(&[]);
    moved.expect_code(100);
    let last = moved.finished();
    assert_eq!(last["verdict"], "NOT_RELEASABLE", "{moved:#?}");
    for (part, count) in [("cached", 0), ("passed", 4), ("failed", 1)] {
        assert_eq!(last["counts"][part], count, "{moved:#?}");
    }
    // And back, past what is cached: no warm container of the broken one has a part in it.
    tag.move_to(&tag.good);
    let back = run(&["--no-cache"]);
    back.expect_code(0);
    assert_eq!(back.finished()["counts"]["passed"], 5, "{back:#?}");
    fleet.stop();
}
