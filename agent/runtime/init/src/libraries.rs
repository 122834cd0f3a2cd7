//! Which shared libraries an image lacks.

use std::path::{Path, PathBuf};

/// Where loaders look without a cache: glibc's and musl's defaults.
const DIRECTORIES: [&str; 6] = [
    "lib",
    "usr/lib",
    "lib64",
    "usr/lib64",
    "usr/local/lib",
    "usr/local/lib64",
];

/// Debian's directory per architecture, below `lib` and `usr/lib`.
const MULTIARCH: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-linux-gnu"
} else if cfg!(target_arch = "riscv64") {
    "riscv64-linux-gnu"
} else {
    "x86_64-linux-gnu"
};

/// Those of `names` that are not below `root` where a dynamic loader looks. A name with a slash is a path,
/// as a program interpreter's is.
#[must_use]
pub fn missing_libraries<'a>(root: &Path, names: &'a [String]) -> Vec<&'a str> {
    let directories = directories(root);
    let is_missing = |name: &&str| {
        if name.contains('/') {
            return !root.join(name.trim_start_matches('/')).exists();
        }
        !directories
            .iter()
            .any(|directory| directory.join(name).exists())
    };
    names
        .iter()
        .map(String::as_str)
        .filter(is_missing)
        .collect()
}

fn directories(root: &Path) -> Vec<PathBuf> {
    let plain = DIRECTORIES.iter().map(|directory| root.join(directory));
    let multiarch = ["lib", "usr/lib"].map(|directory| root.join(directory).join(MULTIARCH));
    plain.chain(multiarch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_what_is_nowhere_is_missing() {
        let root = tempfile::tempdir().expect("a directory");
        for file in [
            "usr/lib/liba.so.1",
            "lib64/ld.so.2",
            &format!("lib/{MULTIARCH}/libc.so.6"),
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("has one")).expect("new");
            fs::write(path, "").expect("written");
        }
        let names = [
            "liba.so.1",
            "libc.so.6",
            "libz.so.1",
            "/lib64/ld.so.2",
            "/lib/ld-musl.so.1",
        ]
        .map(str::to_owned);
        assert_eq!(
            missing_libraries(root.path(), &names),
            ["libz.so.1", "/lib/ld-musl.so.1"]
        );
    }
}
