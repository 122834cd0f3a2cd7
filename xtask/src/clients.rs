//! The Remote Execution API's real clients, made ready for the tests that run them.
//!
//! Two releases of Debian bring them all but one. Each becomes an image, in which the client and the
//! actions that it sends both run, so that both see the toolchain that the client found.

use std::path::PathBuf;

use anyhow::Result;

use crate::images::DebianImage;
use crate::tools;

/// What every image of clients leaves out, and that a Release file past its date is good enough:
/// unstable's mirrors may lag behind.
const OPTIONS: &[&str] = &[
    "--aptopt=Acquire::Check-Valid-Until \"false\"",
    "--aptopt=APT::Install-Recommends \"false\"",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/lib/jvm/*/jmods/*",
];

/// Bazel 4, as Debian's stable releases carry it, and test runners.
const BOOKWORM: DebianImage<'static> = DebianImage {
    name: "regatta-clients-bookworm",
    suite: "bookworm",
    packages: &[
        "bazel-bootstrap",
        "cmake",
        "g++",
        "git",
        "golang-go",
        "jest",
        "libgtest-dev",
        "python3",
        "python3-pytest",
        "python3-pytest-rerunfailures",
        "python3-pytest-timeout",
    ],
    options: OPTIONS,
};

/// Everything newer: Bazel 7, recc, trexe, casupload, casdownload, justbuild, siso.
const UNSTABLE: DebianImage<'static> = DebianImage {
    name: "regatta-clients-unstable",
    suite: "unstable",
    packages: &[
        "bazel-bootstrap",
        "bazel-rules-shell",
        "buildbox",
        "g++",
        "git",
        "justbuild",
        "python3",
        "siso",
    ],
    options: OPTIONS,
};

const BUILDSTREAM_VERSION: &str = "2.8.1";

/// Makes sure that the image with Bazel 4 is there, and returns its reference.
pub(crate) fn bookworm() -> Result<String> {
    BOOKWORM.ensure()
}

/// Where the clients are.
#[derive(Debug)]
pub(crate) struct Clients {
    bookworm: String,
    unstable: String,
    buildstream: PathBuf,
}

impl Clients {
    /// Makes ready whatever is not there yet.
    pub(crate) fn ensure() -> Result<Self> {
        Ok(Self {
            bookworm: bookworm()?,
            unstable: UNSTABLE.ensure()?,
            buildstream: buildstream()?,
        })
    }

    /// What the tests learn of them: the names of environment variables, and their values.
    pub(crate) fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("REGATTA_CLIENTS_BOOKWORM", self.bookworm.clone()),
            ("REGATTA_CLIENTS_UNSTABLE", self.unstable.clone()),
            (
                "REGATTA_CLIENTS_BUILDSTREAM",
                self.buildstream.display().to_string(),
            ),
        ]
    }
}

/// BuildStream's Python environment: Debian does not have it.
fn buildstream() -> Result<PathBuf> {
    // Its buildbox-run refuses to start without, even if every command runs elsewhere.
    tools::debian("bwrap", "bubblewrap")?;
    tools::environment("buildstream", BUILDSTREAM_VERSION)
}
