//! A coordinator whose disk is full.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::fleet::Fleet;
use super::program::{Ended, Running, wait_until, write};

/// Talks until it is stopped.
const TALKER: &str =
    "[jobs.talk]\nrun = 'while :; do echo and so on and so on; sleep 0.01; done'\n";

/// A small file system, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir(at).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]);
        let mounted = Ended::of(mount.arg(at));
        mounted.expect_code(0);
        Self(at.to_owned())
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes up all the room there is.
    fn fill(&self) {
        let mut filler = std::fs::File::create(self.filler()).expect("a file");
        let block = [0; 4096];
        while filler.write_all(&block).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut unmount = Command::new("umount");
        drop(unmount.args(["--lazy"]).arg(&self.0).status());
    }
}

#[test]
fn a_coordinator_without_room_ends_its_runs_says_so_and_recovers() {
    let mut disk = None;
    let mut fleet = Fleet::prepared(|state| {
        disk = Some(SmallDisk::mount(&state.join("coordinator")));
    });
    let disk = disk.expect("it was mounted");
    fleet.add_agent(&[]);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("regatta.toml", TALKER)]);
    let mut run = fleet.command();
    run.args(["--message-format", "json", "run"])
        .current_dir(project.path());
    let mut running = Running::begin(&mut run);
    running.expect_words(r#""type":"output""#);
    disk.fill();
    let ended = running.end();
    let last = ended.expect_code(98).finished();
    assert_eq!(last["verdict"], "UNKNOWN", "{last}");
    assert_eq!(last["cancelled"], false, "{last}");
    let reason = last["reasons"][0].as_str().expect("a reason");
    assert!(reason.contains("full"), "{last}");
    let (status, page) = fleet.page("/readyz");
    assert_eq!(status, 503, "{page}");
    assert!(fleet.log_of("coordinator").contains("could not be stored"));
    Ended::of(fleet.command().args(["exec", "--", "true"])).expect_code(98);
    disk.make_room();
    wait_until("it is ready again", || fleet.page("/readyz").0 == 200);
    Ended::of(fleet.command().args(["exec", "--", "true"])).expect_code(0);
    let listed = Ended::of(fleet.command().args(["ps", "--all", "--format", "json"]));
    assert!(listed.stdout.contains("UNKNOWN"), "{listed:#?}");
    drop(disk);
    fleet.kill_coordinator();
    fleet.stop();
}
