//! Archives of cargo-nextest, in containers without Rust.

use std::path::Path;
use std::process::Command;

use super::fleet::Fleet;
use super::program::{Ended, write};

const SOURCES: [(&str, &str); 5] = [
    (
        "Cargo.toml",
        "[workspace]\nmembers = [\"one\"]\nresolver = \"2\"\n[profile.dev]\ndebug = false\n",
    ),
    (
        "one/Cargo.toml",
        "[package]\nname = \"one\"\nversion = \"1.2.3\"\nedition = \"2021\"\n",
    ),
    (
        "one/build.rs",
        "fn main() { let out = std::env::var(\"OUT_DIR\").unwrap(); \
         std::fs::write(format!(\"{out}/made\"), \"made\").unwrap(); }",
    ),
    (
        "one/src/main.rs",
        "fn main() { println!(\"hello\") }\n#[test] fn unit() {}\n",
    ),
    (
        "one/tests/it.rs",
        r#"
fn said() -> Vec<u8> {
    std::process::Command::new(env!("CARGO_BIN_EXE_one")).output().unwrap().stdout
}
mod größe { #[test] fn 文件_é() { assert_eq!(super::said(), b"hello\n") } }
#[test] fn reads() {
    let made = std::env::var("OUT_DIR").unwrap() + "/made";
    assert_eq!(std::fs::read_to_string(made).unwrap(), "made");
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/data.txt");
    assert_eq!(std::fs::read_to_string(data).unwrap(), "data");
}
#[test] fn fails() { assert!(std::path::Path::new("mended").exists(), "is broken") }
#[test] #[cfg_attr(all(), ignore)] fn ignored() { panic!() }
"#,
    ),
];

fn nextest(workspace: &Path, arguments: &[&str]) -> Ended {
    let program =
        std::env::var("REGATTA_TEST_NEXTEST").expect("`cargo xtask test` says where it is");
    let mut command = Command::new(program);
    let command = command
        .current_dir(workspace)
        .args(["nextest"])
        .args(arguments);
    Ended::of(
        command
            .args(["--color", "never"])
            .env_remove("CARGO_TARGET_DIR"),
    )
}

#[test]
fn what_nextest_has_packed_runs_in_a_checkout_elsewhere() {
    let fleet = Fleet::of(1);
    // Not below /tmp, of which each job has its own.
    let directory = || tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let [built, checkout] = [(); 2].map(|()| directory().expect("a directory"));
    write(built.path(), &SOURCES);
    write(built.path(), &[("one/data.txt", "data")]);
    let archive = checkout.path().join("tests.tar.zst").display().to_string();
    nextest(built.path(), &["archive", "--archive-file", &archive]).expect_code(0);
    let own = nextest(
        built.path(),
        &["run", "--archive-file", &archive, "--no-fail-fast"],
    );
    let summary = "4 tests run: 3 passed, 1 failed, 1 skipped";
    assert!(own.stderr.contains(summary), "{own:#?}");
    built.close().expect("nothing is left of it");

    write(checkout.path(), &SOURCES);
    write(checkout.path(), &[("one/data.txt", "data")]);
    let test = |arguments: &[&str]| {
        let mut command = fleet.command();
        let here = checkout.path().join("one");
        let options = ["test", "--archive", &archive, "--no-fail-fast"];
        let command = command.current_dir(here).args(options);
        Ended::of(command.args(arguments))
    };
    let ended = test(&[]);
    ended.expect_code(100);
    for words in [
        "4 tests run: 3 passed, 1 failed, 1 skipped",
        "one::it fails",
        "is broken",
    ] {
        assert!(ended.stdout.contains(words), "no {words:?} in {ended:#?}");
    }
    write(checkout.path(), &[("one/mended", "")]);
    let mended = test(&["--status-level", "all"]);
    mended.expect_code(0);
    assert!(
        mended.stdout.contains("one::it größe::文件_é"),
        "{mended:#?}"
    );
    let again = test(&[]);
    again.expect_code(0);
    assert!(again.stdout.contains("0 tests run"), "{again:#?}");
    assert!(again.stdout.contains("4 cached"), "{again:#?}");
    test(&["--release"])
        .expect_code(96)
        .expect_complaint(&["an archive is what was built already"]);
    fleet.stop();
}
