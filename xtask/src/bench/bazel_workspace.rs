//! The workspace that Bazel builds: many small actions, as most builds have.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// 1,000 genrules: in each package, all but one make a file each, which the last one puts together.
const RULE_PACKAGES: usize = 50;
const RULES: usize = 20;
/// 200 tests, of which one in each package has shards.
const TEST_PACKAGES: usize = 20;
const TESTS: usize = 10;
const SHARDS: usize = 4;
/// 200 files of C: in each package, a library of all but one, and a program that is linked with it.
const LIBRARIES: usize = 10;
const LIBRARY_FILES: usize = 20;

/// What Bazel 4 needs to work without a network, where the tests of Bazel have it, and its settings.
const OFFLINE: &str = "coordinator/cli/tests/clients/workspaces/bazel";
const STUBS: &str = "stubs";
/// Bazel's settings in the workspace, as an option of Bazel.
pub(super) const SETTINGS: &str = "bazel4.rc";

const TEST: &str = "\
#!/bin/sh
set -eu
grep --quiet \"package $2\" \"$1\"
if [ -n \"${TEST_SHARD_STATUS_FILE-}\" ]; then : > \"$TEST_SHARD_STATUS_FILE\"; fi
";

/// Makes the workspace. For [`SETTINGS`] to hold, it must be Bazel's `/w/ws`.
pub(super) fn generate(root: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    let offline = workspace::root().join(OFFLINE);
    let mut copy = Command::new("cp");
    copy.arg("--recursive")
        .args([STUBS, SETTINGS].map(|name| offline.join(name)));
    process::output(copy.arg(root)).context("copying what Bazel needs offline")?;
    fs::write(root.join("WORKSPACE"), "workspace(name = \"bench\")\n")?;
    // `//...` would build those, too.
    fs::write(root.join(".bazelignore"), format!("{STUBS}\n"))?;
    for package in 0..RULE_PACKAGES {
        write_rules(&root.join(format!("rules_{package}")), package)?;
    }
    for package in 0..TEST_PACKAGES {
        write_tests(&root.join(format!("tests_{package}")), package)?;
    }
    for package in 0..LIBRARIES {
        write_library(&root.join(format!("library_{package}")), package)?;
    }
    Ok(())
}

fn write_rules(folder: &Path, package: usize) -> Result<()> {
    let made = RULES - 1;
    let rules = format!(
        r#"[genrule(
    name = "rule_%d" % number,
    srcs = ["in.txt"],
    outs = ["out_%d.txt" % number],
    cmd = "sed s/package/%d/ $< > $@" % number,
) for number in range({made})]

genrule(
    name = "together",
    srcs = ["out_%d.txt" % number for number in range({made})],
    outs = ["together.txt"],
    cmd = "cat $(SRCS) > $@",
)
"#
    );
    fs::create_dir_all(folder)?;
    fs::write(folder.join("in.txt"), format!("package {package}\n"))?;
    Ok(fs::write(folder.join("BUILD"), rules)?)
}

fn write_tests(folder: &Path, package: usize) -> Result<()> {
    let whole = TESTS - 1;
    let tests = format!(
        r#"[sh_test(
    name = "test_%d" % number,
    size = "small",
    srcs = ["test.sh"],
    args = ["$(location data.txt)", "{package}"],
    data = ["data.txt"],
    shard_count = None if number < {whole} else {SHARDS},
) for number in range({TESTS})]
"#
    );
    fs::create_dir_all(folder)?;
    fs::write(folder.join("data.txt"), format!("package {package}\n"))?;
    write_program(&folder.join("test.sh"), TEST)?;
    Ok(fs::write(folder.join("BUILD"), tests)?)
}

fn write_program(file: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(file, text)?;
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o755),
    )?)
}

fn write_library(folder: &Path, package: usize) -> Result<()> {
    let rules = r#"cc_library(
    name = "library",
    srcs = glob(["part_*.c"]),
    hdrs = ["library.h"],
)

cc_binary(
    name = "program",
    srcs = ["program.c"],
    deps = [":library"],
)
"#;
    fs::create_dir_all(folder)?;
    fs::write(folder.join("BUILD"), rules)?;
    let (mut header, mut calls) = ("#pragma once\n".to_owned(), String::new());
    for part in 0..LIBRARY_FILES - 1 {
        writeln!(header, "int part_{part}(int value);")?;
        writeln!(calls, "  value = part_{part}(value);")?;
        fs::write(
            folder.join(format!("part_{part}.c")),
            part_text(package, part),
        )?;
    }
    fs::write(folder.join("library.h"), header)?;
    let program = format!(
        "#include <stdio.h>\n#include \"library_{package}/library.h\"\n\
         int main(void) {{\n  int value = 0;\n{calls}  return printf(\"%d\\n\", value) < 0;\n}}\n"
    );
    Ok(fs::write(folder.join("program.c"), program)?)
}

fn part_text(package: usize, part: usize) -> String {
    format!(
        "#include <stdlib.h>\n#include <string.h>\n#include \"library_{package}/library.h\"\n\
         int part_{part}(int value) {{\n  \
           char text[64];\n  \
           memset(text, {part}, sizeof text);\n  \
           return abs(value) + text[value % 64] + {package};\n\
         }}\n"
    )
}
