//! An image with a C++ compiler, Python, and what the projects' tests need. It has the sources, too, of the
//! project that is Debian's: mmdebstrap knows where those are, wherever Debian's packages come from.

use anyhow::Result;

use crate::images::DebianImage;

const IMAGE: DebianImage<'static> = DebianImage {
    name: "regatta-projects",
    suite: "bookworm",
    packages: &[
        "cmake",
        "dpkg-dev",
        "g++",
        "libbenchmark-dev",
        "libgmock-dev",
        "libsnappy-dev",
        "make",
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
        "--customize-hook=sed s/^deb/deb-src/ \"$1/etc/apt/sources.list\" \
         > \"$1/etc/apt/sources.list.d/sources.list\"",
        "--customize-hook=APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get update",
        "--customize-hook=cd \"$1/usr/src\" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG \
         apt-get source --download-only leveldb=1.23-4",
    ],
};

/// Where the sources are in the image.
pub(super) const SOURCES: &str = "/usr/src";

/// Makes sure that it is there, and returns its reference.
pub(super) fn ensure() -> Result<String> {
    IMAGE.ensure()
}
