//! BuildStream, whose commands run in what its elements bring: their input root is their root directory.
//!
//! It has no way to send a platform property of its user's, so the coordinator adds one for its tenant.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::calls::CallLog;
use super::counters::Counters;
use super::fleet::Fleet;
use super::program::{Ended, image};
use super::workstation::copy_workspace;

const CHROOT: &[&str] = &["--tenant-property", "buildstream:chroot-input-root=true"];
/// What the workspace's commands need, with their libraries at the places where their loader looks.
const MAKE_SYSROOT: &str = "\
mkdir -p $1/bin $1/etc
echo 'hello from the sysroot' > $1/etc/sysroot
for name in sh cat chmod ln mkdir rm touch; do
    program=$(readlink -f $(command -v $name))
    cp $program $1/bin/$name
    for library in $(ldd $program | grep -o '/[^ ]*'); do
        mkdir -p $1$(dirname $library)
        cp --dereference $library $1$library
    done
done
";
/// What the elements make together.
const READ: &str = "hello from the sysroot\nhello from the source\n";

/// What a BuildStream is told to use a coordinator for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Execution,
    Caches,
    Both,
}

/// A project, and everything that BuildStream keeps.
struct BuildStream {
    folder: TempDir,
}

impl BuildStream {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("regatta-client-")
            .tempdir()
            .expect("a directory");
        copy_workspace("buildstream", &folder.path().join("ws"));
        let sysroot = folder.path().join("ws/files/sysroot");
        let mut make = Command::new("sh");
        make.args(["-euc", MAKE_SYSROOT, "sh"]).arg(sysroot);
        Ended::of(&mut make).expect_code(0);
        Self { folder }
    }

    /// Writes its configuration: a coordinator's address, and what to use that for.
    fn configure(&self, address: &str, what: Use) {
        let service = format!("url: \"http://{address}\", instance-name: buildstream");
        // By default, a twentieth of the disk has to be free, or its cache waits for ever.
        let mut text = "cache: { reserved-disk-space: 1M }\n".to_owned();
        if what != Use::Caches {
            text += &format!(
                "remote-execution:\n  execution-service: {{ {service} }}\n  \
                 storage-service: {{ {service} }}\n  action-cache-service: {{ {service} }}\n"
            );
        }
        if what != Use::Execution {
            for name in ["artifacts", "source-caches"] {
                text += &format!("{name}:\n  servers:\n  - {{ {service}, push: true }}\n");
            }
        }
        std::fs::write(self.folder.path().join("config.yaml"), text).expect("it is written");
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let home = PathBuf::from(
            std::env::var_os("REGATTA_CLIENTS_BUILDSTREAM")
                .expect("run these tests with `cargo xtask test`"),
        );
        let mut bst = Command::new(home.join("bin/bst"));
        bst.args(["--no-interactive", "--config"])
            .arg(self.folder.path().join("config.yaml"))
            .args(arguments)
            .current_dir(self.folder.path().join("ws"))
            // Nothing of this machine's settings: a proxy, for one, would be asked for the coordinator.
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("LANG", "C.UTF-8")
            .env("HOME", self.folder.path())
            .env("XDG_CACHE_HOME", self.kept());
        Ended::of(&mut bst)
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join("kept")
    }

    /// Forgets all that was built, fetched or pulled.
    fn forget(&self) {
        std::fs::remove_dir_all(self.kept()).expect("there is something to forget");
    }

    /// Checks what `all.bst` has come to.
    #[track_caller]
    fn expect_artifact(&self) {
        let place = self.folder.path().join("out");
        let directory = place.to_str().expect("text");
        let checkout = ["artifact", "checkout", "all.bst", "--deps", "none"];
        let checkout = [checkout.as_slice(), &["--directory", directory]].concat();
        self.run(&checkout).expect_code(0);
        for path in ["usr/share/hello.txt", "usr/bin/read.txt"] {
            let read = std::fs::read_to_string(place.join(path)).expect(path);
            assert_eq!(read, READ, "{path}");
        }
        let link = std::fs::read_link(place.join("usr/share/link.txt")).expect("a link");
        assert_eq!(link, Path::new("hello.txt"));
        assert!(place.join("usr/share/empty").is_dir());
        let reader = Ended::of(&mut Command::new(place.join("usr/bin/reader")));
        assert_eq!(reader.stdout, READ, "{reader:#?}");
        std::fs::remove_dir_all(place).expect("it was checked out");
    }
}

fn fleet() -> Fleet {
    Fleet::with_options(&image(), CHROOT)
}

#[test]
fn buildstream_executes_remotely_once() {
    let fleet = fleet();
    let project = BuildStream::new();
    for (name, leases) in [("buildstream-cold", 2), ("buildstream-warm", 0)] {
        let calls = CallLog::of(fleet.url());
        let before = Counters::of(&fleet);
        project.configure(calls.address(), Use::Execution);
        let built = project.run(&["build", "all.bst"]);
        built.expect_code(0);
        assert_eq!(Counters::of(&fleet).since(before).leases, leases);
        project.expect_artifact();
        project.forget();
        calls.expect_either_end(name);
    }
    drop(project);
    fleet.stop();
}

#[test]
fn buildstream_keeps_artifacts_and_sources_at_the_coordinator() {
    let fleet = fleet();
    let project = BuildStream::new();
    let calls = CallLog::of(fleet.url());
    project.configure(calls.address(), Use::Both);
    project.run(&["build", "all.bst"]).expect_code(0);
    project.forget();
    calls.expect_either_end("buildstream-push");

    let calls = CallLog::of(fleet.url());
    let before = Counters::of(&fleet);
    project.configure(calls.address(), Use::Caches);
    let pull = ["artifact", "pull", "--deps", "all", "all.bst"];
    let pulled = project.run(&pull);
    pulled
        .expect_code(0)
        .expect_complaint(&["Pull Queue: processed 4, skipped 0, failed 0"]);
    project.expect_artifact();
    let fetch = ["source", "fetch", "--deps", "all", "all.bst"];
    project
        .run(&fetch)
        .expect_code(0)
        .expect_complaint(&["Fetch Queue: processed 4, skipped 0, failed 0"]);
    project.run(&["source", "push", "both.bst"]).expect_code(0);
    let built = project.run(&["build", "all.bst"]);
    built
        .expect_code(0)
        .expect_complaint(&["Build Queue:    processed 0, skipped 1, failed 0"]);
    let nothing = Counters { leases: 0, hits: 0 };
    assert_eq!(Counters::of(&fleet).since(before), nothing);
    calls.expect_either_end("buildstream-pull");
    drop(project);
    fleet.stop();
}

#[test]
fn buildstream_shows_why_an_element_failed() {
    let fleet = fleet();
    let project = BuildStream::new();
    let address = fleet.url().trim_start_matches("grpc://");
    project.configure(address, Use::Execution);
    for _ in 0..2 {
        let before = Counters::of(&fleet);
        let ended = project.run(&["build", "broken.bst"]);
        ended
            .expect_code(255)
            .expect_complaint(&["this is why it fails", "failed with exitcode 7"]);
        assert_eq!(Counters::of(&fleet).since(before).leases, 1, "{ended:#?}");
        project.forget();
    }
    drop(project);
    fleet.stop();
}
