//! An image with Python and what the projects' tests need.

use anyhow::Result;

use crate::images::DebianImage;

const IMAGE: DebianImage<'static> = DebianImage {
    name: "regatta-projects",
    suite: "bookworm",
    packages: &[
        "python3-cloudpickle",
        "python3-hypothesis",
        "python3-pytest",
        "python3-pytest-xdist",
        "python3-zope.interface",
    ],
    options: &[
        "--aptopt=APT::Install-Recommends \"false\"",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
    ],
};

/// Makes sure that it is there, and returns its reference.
pub(super) fn ensure() -> Result<String> {
    IMAGE.ensure()
}
