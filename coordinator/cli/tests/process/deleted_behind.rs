//! Objects that somebody deletes from the storage behind the coordinator's back.

use std::path::{Path, PathBuf};

use super::fleet::Fleet;
use super::program::{Ended, write};
use super::s3_server::{self, S3Server};

/// Larger than what is kept in memory or packed, and than what is inlined.
const LARGE: usize = 2 << 20;
const INFRASTRUCTURE: i32 = 98;

/// Where a coordinator keeps things, as somebody else gets at them.
struct Place {
    fleet: Fleet,
    agent: String,
    objects: PathBuf,
    _server: Option<S3Server>,
}

impl Place {
    fn in_a_directory() -> Self {
        let mut fleet = Fleet::coordinator();
        Self {
            agent: fleet.add_agent(&[]),
            objects: fleet.state().join("coordinator/cas"),
            fleet,
            _server: None,
        }
    }

    fn in_a_bucket() -> Self {
        let server = S3Server::start();
        let endpoint = format!("http://{}", server.address());
        let environment = s3_server::environment(&endpoint);
        let mut fleet = Fleet::coordinator_in(&environment, &["--storage", &S3Server::url()]);
        Self {
            agent: fleet.add_agent(&[]),
            fleet,
            objects: server.directory().to_owned(),
            _server: Some(server),
        }
    }

    /// Deletes every object of a blob that is no smaller than `LARGE`.
    fn delete_large(&self) {
        let mut deleted = 0;
        for file in files_below(&self.objects) {
            let size = std::fs::metadata(&file).expect("it is there").len();
            if size >= LARGE as u64 {
                std::fs::remove_file(&file).expect("it is deleted");
                deleted += 1;
            }
        }
        assert!(deleted > 0, "nothing was stored");
    }

    /// Has a command make a large file, and brings that here.
    fn make(&self, directory: &Path) -> Ended {
        let script = format!("echo it runs >&2; head -c {LARGE} /dev/zero > large");
        let mut exec = self.fleet.command();
        exec.current_dir(directory);
        exec.args(["exec", "--output", "large", "--download", "got", "--"]);
        Ended::of(exec.args(["sh", "-c", &script]))
    }

    /// Runs a job that reads what it has not read before, and a large input.
    fn read(&self, project: &Path, job: &str) -> Ended {
        let run = format!("echo {job}; wc -c < large");
        let pipeline = format!("[jobs.{job}]\ninputs = [\"large\"]\nrun = \"{run}\"\n");
        write(project, &[("regatta.toml", &pipeline)]);
        let mut run = self.fleet.command();
        run.args(["--message-format", "json", "run"]);
        Ended::of(run.current_dir(project))
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

/// What a result names is served until somebody finds out that it is gone, and made anew then.
fn check_output(place: &Place) {
    let directory = tempfile::tempdir().expect("a directory");
    let got = directory.path().join("got/large");
    place.make(directory.path()).expect_code(0);
    let size = || std::fs::metadata(&got).map(|file| file.len()).ok();
    assert_eq!(size(), Some(LARGE as u64));
    std::fs::remove_file(&got).expect("it is there");
    place.delete_large();
    let served = place.make(directory.path());
    served.expect_code(INFRASTRUCTURE);
    served.expect_complaint(&["large", "run the command again", "regatta cas verify"]);
    assert_eq!(size(), None);
    place.make(directory.path()).expect_code(0);
    assert_eq!(size(), Some(LARGE as u64));
}

/// An input that is gone ends the run that wants it, and the next one brings it again.
fn check_input(place: &mut Place) {
    let project = tempfile::tempdir().expect("a directory");
    let large = "x".repeat(LARGE);
    write(project.path(), &[("large", &large)]);
    place.read(project.path(), "first").expect_code(0);
    place.delete_large();
    // Nobody else has it.
    place.fleet.kill_agent(&place.agent);
    place.agent = place.fleet.add_agent(&[]);
    let lost = place.read(project.path(), "second");
    lost.expect_code(INFRASTRUCTURE);
    let told = format!("{}{}", lost.stdout, lost.stderr);
    assert!(told.contains("submit the run again"), "{lost:#?}");
    let retries = lost.lines("infrastructure-retry");
    assert!(retries.is_empty(), "{lost:#?}");
    place.read(project.path(), "second").expect_code(0);
}

#[test]
fn what_was_deleted_from_a_directory_is_told_once_and_made_or_brought_anew() {
    let mut place = Place::in_a_directory();
    check_output(&place);
    check_input(&mut place);
    place.fleet.stop();
}

#[test]
fn what_was_deleted_from_a_bucket_is_told_once_and_made_or_brought_anew() {
    let mut place = Place::in_a_bucket();
    check_output(&place);
    check_input(&mut place);
    place.fleet.stop();
}
