//! Which shared libraries a program is linked with, and where they are here.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::elf;

/// The shared libraries of one or more programs, theirs and those of their libraries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Libraries {
    /// Those that can be taken along, by soname.
    pub portable: BTreeMap<String, PathBuf>,
    /// Those of the C library itself: they belong to the image's kernel interface and to each other, and
    /// mixing two versions of them breaks programs.
    pub system: BTreeSet<String>,
}

/// Why the libraries of a program are not known.
#[derive(Debug, thiserror::Error)]
pub enum FindLibrariesError {
    /// A file is not what it should be. Build it again.
    #[error("the shared libraries of {file} cannot be listed")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: elf::ReadElfError,
    },
    /// A library is nowhere. Install it or set the loader's path.
    #[error("{file} needs {soname}, which is in none of the loader's directories; install it here")]
    NotFound {
        /// The program or library that needs it.
        file: PathBuf,
        /// The library.
        soname: String,
    },
}

/// Where the loader looks after its configuration.
const DEFAULT_DIRECTORIES: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
const LOADER_CONFIGURATION: &str = "/etc/ld.so.conf";
/// How deep `include` lines are followed.
const MOST_INCLUDES: usize = 8;

/// Finds libraries as the loader of this machine does.
#[derive(Clone, Debug)]
pub struct LibraryFinder {
    first: Vec<PathBuf>,
    configured: Vec<PathBuf>,
}

impl LibraryFinder {
    /// A finder that looks into `first` before the loader's own directories, as `LD_LIBRARY_PATH` says.
    #[must_use]
    pub fn new(first: Vec<PathBuf>) -> Self {
        let mut configured = Vec::new();
        read_configuration(
            Path::new(LOADER_CONFIGURATION),
            MOST_INCLUDES,
            &mut configured,
        );
        configured.extend(DEFAULT_DIRECTORIES.map(PathBuf::from));
        Self { first, configured }
    }

    /// The libraries of `program` and of those libraries.
    ///
    /// # Errors
    /// A file is no ELF file, or a library is nowhere.
    pub fn find(&self, program: &Path) -> Result<Libraries, FindLibrariesError> {
        let mut found = Libraries::default();
        let mut open = vec![program.to_owned()];
        while let Some(file) = open.pop() {
            let section = elf::read(&file).map_err(|source| FindLibrariesError::Unreadable {
                file: file.clone(),
                source,
            })?;
            for soname in section.needed {
                if is_system(&soname) {
                    found.system.insert(soname);
                    continue;
                }
                if let Entry::Vacant(place) = found.portable.entry(soname) {
                    let library = self.locate(place.key(), &section.run_path, &file)?;
                    open.push(library.clone());
                    place.insert(library);
                }
            }
        }
        Ok(found)
    }

    fn locate(
        &self,
        soname: &str,
        run_path: &[String],
        file: &Path,
    ) -> Result<PathBuf, FindLibrariesError> {
        let origin = file.parent().unwrap_or(Path::new("/")).to_string_lossy();
        let run_path = run_path.iter().map(|path| {
            let path = path.replace("${ORIGIN}", &origin);
            PathBuf::from(path.replace("$ORIGIN", &origin))
        });
        self.first
            .iter()
            .cloned()
            .chain(run_path)
            .chain(self.configured.iter().cloned())
            .map(|directory| directory.join(soname))
            .find(|candidate| elf::read(candidate).is_ok())
            .ok_or_else(|| FindLibrariesError::NotFound {
                file: file.to_owned(),
                soname: soname.to_owned(),
            })
    }
}

/// Whether a library is part of the C library, musl's or glibc's, or is its loader.
#[must_use]
pub fn is_system(soname: &str) -> bool {
    const NAMES: [&str; 10] = [
        "libc",
        "libm",
        "libmvec",
        "libpthread",
        "libdl",
        "librt",
        "libutil",
        "libresolv",
        "libanl",
        "libnsl",
    ];
    let stem = soname.split(".so").next().unwrap_or(soname);
    NAMES.contains(&stem)
        || stem.starts_with("ld-")
        || stem.starts_with("libnss_")
        || stem.starts_with("libc.musl")
}

/// The directories that `/etc/ld.so.conf` and the files it includes name.
fn read_configuration(file: &Path, includes: usize, directories: &mut Vec<PathBuf>) {
    let Ok(text) = std::fs::read_to_string(file) else {
        return;
    };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.strip_prefix("include ") {
            Some(pattern) if includes > 0 => {
                for included in matching(Path::new(pattern.trim())) {
                    read_configuration(&included, includes - 1, directories);
                }
            }
            Some(_) => {}
            None if line.starts_with('/') => directories.push(line.into()),
            None => {}
        }
    }
}

/// The files that a pattern means whose last part alone may have wildcards.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let Ok(glob) = globset::Glob::new(&name.to_string_lossy()) else {
        return Vec::new();
    };
    let matcher = glob.compile_matcher();
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| matcher.is_match(entry.file_name()))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_never_taken_along() {
        for soname in [
            "libc.so.6",
            "ld-linux-x86-64.so.2",
            "libpthread.so.0",
            "libm.so.6",
            "libnss_dns.so.2",
        ] {
            assert!(is_system(soname), "{soname}");
        }
        for soname in [
            "libgcc_s.so.1",
            "libstdc++.so.6",
            "libcrypto.so.3",
            "libcurl.so.4",
        ] {
            assert!(!is_system(soname), "{soname}");
        }
    }

    #[test]
    fn the_libraries_of_this_test_are_found() {
        let binary = std::env::current_exe().expect("it runs");
        let libraries = LibraryFinder::new(Vec::new())
            .find(&binary)
            .expect("they are here");
        for file in libraries.portable.values() {
            assert!(file.is_file(), "{}", file.display());
        }
    }

    #[test]
    fn the_loaders_configuration_is_followed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("ld.so.conf");
        let include = directory.path().join("d");
        std::fs::create_dir(&include).expect("created");
        std::fs::write(include.join("a.conf"), "/opt/a # first\n").expect("written");
        std::fs::write(include.join("b.txt"), "/opt/b\n").expect("written");
        let text = format!("include {}/*.conf\n/opt/c\n", include.display());
        std::fs::write(&file, text).expect("written");
        let mut directories = Vec::new();
        read_configuration(&file, MOST_INCLUDES, &mut directories);
        assert_eq!(directories, [Path::new("/opt/a"), Path::new("/opt/c")]);
    }
}
