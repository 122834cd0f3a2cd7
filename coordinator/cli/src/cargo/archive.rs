//! What `cargo nextest archive` packed: test binaries that were built elsewhere, with all that they need but the
//! sources, which are here.
//!
//! An archive holds what cargo said of the workspace and of the build, with the paths of the machine that
//! built it. Tests see the workspace at that machine's path, which their binaries were compiled with.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use cargo_metadata::{BuildScript, Metadata, Package, PackageId};
use serde::Deserialize;
use tar::EntryType;

use super::build::{Build, TestBinary};
use super::layout::Layout;

/// Where everything is in an archive.
const TARGET: &str = "target";
const CARGO_METADATA: &str = "nextest/cargo-metadata.json";
const BINARIES_METADATA: &str = "nextest/binaries-metadata.json";
/// Where the toolchain's shared libraries are, each kind in a directory of its own.
const LIBRARY_DIRECTORIES: &str = "nextest/libdirs";

/// Why an archive is no build.
#[derive(Debug, thiserror::Error)]
pub enum OpenArchiveError {
    /// It cannot be read, or cannot be unpacked here.
    #[error("{file} cannot be unpacked: is it whole, and made by `cargo nextest archive`?")]
    Unreadable {
        /// The archive.
        file: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// It holds something that such archives do not. Do not trust it.
    #[error("{file} holds {entry:?}, which is no file or would be outside of it; make it again")]
    Hostile {
        /// The archive.
        file: PathBuf,
        /// What it holds.
        entry: PathBuf,
    },
    /// What it says of itself is not understood. Use cargo-nextest 0.9.
    #[error("{file}: {part} is not what cargo-nextest 0.9 writes: {detail}")]
    Metadata {
        /// The archive.
        file: PathBuf,
        /// Which part of it.
        part: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The sources are not here. Run it in a checkout.
    #[error(
        "{directory} and the directories above lack {manifest} of the workspace that {file} was made of; \
         run this in a checkout of it"
    )]
    NoWorkspace {
        /// The archive.
        file: PathBuf,
        /// Where it was looked for.
        directory: PathBuf,
        /// What is not there.
        manifest: PathBuf,
    },
}

/// What nextest says of the build.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Binaries {
    rust_build_meta: BuildMetadata,
    rust_binaries: BTreeMap<String, Binary>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct BuildMetadata {
    target_directory: PathBuf,
    #[serde(default)]
    non_test_binaries: BTreeMap<String, Vec<Program>>,
    #[serde(default)]
    build_script_out_dirs: BTreeMap<String, PathBuf>,
    #[serde(default)]
    build_script_info: BTreeMap<String, Option<ScriptInfo>>,
    #[serde(default)]
    linked_paths: Vec<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Program {
    name: String,
    kind: String,
    path: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
struct ScriptInfo {
    #[serde(default)]
    envs: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Binary {
    package_id: String,
    kind: String,
    binary_path: PathBuf,
}

/// Unpacks an archive into `directory`, and reads what was built; `here` is in a checkout of the workspace. Blocks.
///
/// # Errors
/// See [`OpenArchiveError`].
pub fn open(file: &Path, directory: &Path, here: &Path) -> Result<Build, OpenArchiveError> {
    unpack(file, directory)?;
    let target = directory.join(TARGET);
    let metadata: Metadata = read(file, &target, CARGO_METADATA)?;
    let binaries: Binaries = read(file, &target, BINARIES_METADATA)?;
    let opened = Opened {
        built_in: metadata.workspace_root.clone().into_std_path_buf(),
        built_to: binaries.rust_build_meta.target_directory.clone(),
        target,
    };
    match opened.strange_path(&metadata, &binaries) {
        Some(entry) => Err(OpenArchiveError::Hostile {
            file: file.to_owned(),
            entry,
        }),
        None => opened.build(metadata, binaries, file, here),
    }
}

/// Puts every file of an archive below `directory`.
fn unpack(file: &Path, directory: &Path) -> Result<(), OpenArchiveError> {
    let unreadable = |source| OpenArchiveError::Unreadable {
        file: file.to_owned(),
        source,
    };
    let compressed = File::open(file).map_err(unreadable)?;
    let plain = zstd::stream::read::Decoder::new(compressed).map_err(unreadable)?;
    let mut archive = tar::Archive::new(plain);
    archive.set_preserve_mtime(true);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        let is_inside = is_plain(&path);
        let is_file = matches!(
            entry.header().entry_type(),
            EntryType::Regular | EntryType::Directory
        );
        if !is_inside || !is_file || !entry.unpack_in(directory).map_err(unreadable)? {
            let file = file.to_owned();
            return Err(OpenArchiveError::Hostile { file, entry: path });
        }
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(
    file: &Path,
    target: &Path,
    part: &'static str,
) -> Result<T, OpenArchiveError> {
    let invalid = |detail: String| OpenArchiveError::Metadata {
        file: file.to_owned(),
        part,
        detail,
    };
    let mut text = String::new();
    let opened = File::open(target.join(part));
    opened
        .and_then(|mut opened| opened.read_to_string(&mut text))
        .map_err(|error| invalid(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))
}

/// Where things were on the machine that built them, and where they are.
struct Opened {
    /// The workspace.
    built_in: PathBuf,
    /// Its target directory.
    built_to: PathBuf,
    /// What was that, here.
    target: PathBuf,
}

impl Opened {
    /// A path in what the archive says of itself that is neither in it nor one of its workspace's manifests:
    /// other files of this machine are not its to name.
    fn strange_path(&self, metadata: &Metadata, binaries: &Binaries) -> Option<PathBuf> {
        let meta = &binaries.rust_build_meta;
        let programs = meta.non_test_binaries.values().flatten();
        let named = programs
            .map(|it| &it.path)
            .chain(binaries.rust_binaries.values().map(|it| &it.binary_path))
            .chain(meta.build_script_out_dirs.values());
        let mut strange = named.filter(|path| !is_plain(self.in_target(path)));
        let strange = strange.next().cloned();
        let is_root_file = |manifest: &Path| {
            let inside = manifest.strip_prefix(&self.built_in);
            inside.is_ok_and(|it| is_plain(it) && it.ends_with("Cargo.toml"))
        };
        let members = metadata.packages.iter();
        let mut members = members.filter(|it| metadata.workspace_members.contains(&it.id));
        let stranger = || {
            let found = members.find(|it| !is_root_file(it.manifest_path.as_std_path()));
            found.map(|it| it.manifest_path.clone().into_std_path_buf())
        };
        let root = || {
            self.built_in
                .parent()
                .is_none()
                .then(|| self.built_in.clone())
        };
        strange.or_else(root).or_else(stranger)
    }

    /// A path in the target directory, without that.
    fn in_target<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.built_to).unwrap_or(path)
    }

    fn build(
        self,
        metadata: Metadata,
        binaries: Binaries,
        file: &Path,
        here: &Path,
    ) -> Result<Build, OpenArchiveError> {
        let own = |package: &Package| metadata.workspace_members.contains(&package.id);
        let packages = metadata.packages.iter().filter(|package| own(package));
        let packages: Vec<Package> = packages.cloned().collect();
        let root = self.checkout(&packages, file, here)?;
        let place = self.built_to.strip_prefix(&self.built_in);
        let place = place.map_or_else(|_| TARGET.into(), Path::to_owned);
        let layout = Layout::moved(root, self.target.clone(), self.built_in.clone(), place);
        let packages = packages
            .into_iter()
            .map(|package| self.moved(package, &layout));
        let meta = &binaries.rust_build_meta;
        Ok(Build {
            packages: packages
                .map(|package| (package.id.clone(), package))
                .collect(),
            tests: self.tests(binaries.rust_binaries),
            programs: self.programs(&meta.non_test_binaries),
            scripts: self.scripts(meta),
            loader_path: self.loader_path(meta),
            layout,
        })
    }

    /// The workspace's root here: from `here` upwards, the first directory with the manifests of all packages.
    fn checkout(
        &self,
        packages: &[Package],
        file: &Path,
        here: &Path,
    ) -> Result<PathBuf, OpenArchiveError> {
        let manifests = packages.iter().map(|it| it.manifest_path.as_std_path());
        let manifests = manifests.filter_map(|it| it.strip_prefix(&self.built_in).ok());
        let manifests: Vec<_> = manifests.collect();
        let is_root = |root: &&Path| manifests.iter().all(|it| root.join(it).is_file());
        let root = here.ancestors().find(is_root);
        root.map(Path::to_owned).ok_or_else(|| {
            let absent = manifests.iter().find(|it| !here.join(it).is_file());
            OpenArchiveError::NoWorkspace {
                file: file.to_owned(),
                directory: here.to_owned(),
                manifest: absent.map(|it| it.to_path_buf()).unwrap_or_default(),
            }
        })
    }

    /// The package with its manifest here.
    fn moved(&self, mut package: Package, layout: &Layout) -> Package {
        let manifest = package.manifest_path.as_std_path();
        let manifest = manifest
            .strip_prefix(&self.built_in)
            .map(|it| layout.root().join(it));
        if let Some(Ok(manifest)) = manifest.ok().map(TryInto::try_into) {
            package.manifest_path = manifest;
        }
        package
    }

    /// Where a file of the target directory is, whose path may begin there.
    fn unpacked(&self, path: &Path) -> PathBuf {
        self.target.join(self.in_target(path))
    }

    fn tests(&self, binaries: BTreeMap<String, Binary>) -> Vec<TestBinary> {
        let test = |(name, binary): (String, Binary)| TestBinary {
            name,
            package: package_id(&binary.package_id),
            integration: binary.kind == "test",
            executable: self.unpacked(&binary.binary_path),
        };
        binaries.into_iter().map(test).collect()
    }

    fn programs(
        &self,
        programs: &BTreeMap<String, Vec<Program>>,
    ) -> BTreeMap<PackageId, BTreeMap<String, PathBuf>> {
        let of_package = |programs: &Vec<Program>| {
            let programs = programs.iter().filter(|it| it.kind == "bin-exe");
            let named = programs.map(|it| (it.name.clone(), self.unpacked(&it.path)));
            named.collect()
        };
        let all = programs.iter();
        all.map(|(package, programs)| (package_id(package), of_package(programs)))
            .collect()
    }

    /// What build scripts said, as far as tests are told.
    fn scripts(&self, meta: &BuildMetadata) -> BTreeMap<PackageId, BuildScript> {
        let script = |(package, made): (&String, &PathBuf)| {
            let said = meta.build_script_info.get(package);
            let said = said.and_then(Option::as_ref).into_iter();
            let variables = said.flat_map(|said| &said.envs);
            let variables = variables.map(|(name, value)| {
                let is_made = Path::new(value).starts_with(&self.built_to);
                let unpacked = || self.unpacked(Path::new(value)).display().to_string();
                let value = if is_made { unpacked() } else { value.clone() };
                [name.clone(), value]
            });
            let message = serde_json::json!({
                "package_id": package,
                "linked_libs": [],
                "linked_paths": [],
                "cfgs": [],
                "env": variables.collect::<Vec<_>>(),
                "out_dir": self.unpacked(made),
            });
            let script = serde_json::from_value(message).ok()?;
            Some((package_id(package), script))
        };
        meta.build_script_out_dirs
            .iter()
            .filter_map(script)
            .collect()
    }

    /// Where the loader is to look: what build scripts linked with, and the toolchain's libraries.
    fn loader_path(&self, meta: &BuildMetadata) -> Vec<PathBuf> {
        // Libraries are looked for in the archive alone, and in the toolchain that it has.
        let linked = meta.linked_paths.iter();
        let linked = linked.filter(|path| is_plain(self.in_target(path)));
        let linked = linked.map(|path| self.unpacked(path));
        let toolchain = std::fs::read_dir(self.target.join(LIBRARY_DIRECTORIES));
        let toolchain = toolchain.into_iter().flatten().flatten();
        linked.chain(toolchain.map(|entry| entry.path())).collect()
    }
}

/// Whether a path stays below wherever it is joined to.
fn is_plain(path: &Path) -> bool {
    path.components()
        .all(|it| matches!(it, Component::Normal(_)))
}

fn package_id(repr: &str) -> PackageId {
    PackageId {
        repr: repr.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of these files, as tar has them.
    fn packed(files: &[(&str, EntryType, &str)]) -> tempfile::NamedTempFile {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, text) in files {
            let mut header = tar::Header::new_gnu();
            // As hostile ones would: `set_path` refuses what is outside.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_size(text.len() as u64);
            if *kind == EntryType::Symlink {
                header.set_link_name("/etc/passwd").expect("is short");
            }
            header.set_cksum();
            builder.append(&header, text.as_bytes()).expect("is kept");
        }
        let bytes = builder.into_inner().expect("is whole");
        let bytes = zstd::encode_all(&bytes[..], 1).expect("is compressed");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("is written");
        file
    }

    const BINARIES: &str = r#"{
        "rust-build-meta": {
            "target-directory": "/there/out", "base-output-directories": ["debug"],
            "non-test-binaries": { "one 0.1.0": [
                { "name": "tool", "kind": "bin-exe", "path": "debug/tool" },
                { "name": "one", "kind": "dylib", "path": "debug/libone.so" }
            ] },
            "build-script-out-dirs": { "one 0.1.0": "debug/build/one/out" },
            "build-script-info": { "one 0.1.0": { "envs": { "A": "/there/out/a", "B": "b" } } },
            "linked-paths": ["debug/build/one/lib"], "platforms": null
        },
        "rust-binaries": { "one::it": {
            "binary-id": "one::it", "binary-name": "it", "package-id": "one 0.1.0", "kind": "test",
            "binary-path": "/there/out/debug/deps/it-1", "build-platform": "target"
        } }
    }"#;

    fn metadata() -> String {
        let package = |name: &str, manifest: &str| {
            serde_json::json!({
                "name": name, "version": "0.1.0", "id": format!("{name} 0.1.0"), "source": null,
                "dependencies": [], "targets": [], "features": {}, "manifest_path": manifest
            })
        };
        let packages = [
            package("one", "/there/crates/one/Cargo.toml"),
            package("other", "/registry/other/Cargo.toml"),
        ];
        serde_json::json!({
            "packages": packages, "workspace_members": ["one 0.1.0"], "resolve": null,
            "workspace_root": "/there", "target_directory": "/there/out", "version": 1
        })
        .to_string()
    }

    #[test]
    fn what_was_built_elsewhere_is_found_here() {
        let [checkout, unpacked] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let (metadata, regular) = (metadata(), EntryType::Regular);
        let archive = packed(&[
            ("target/nextest/cargo-metadata.json", regular, &metadata),
            ("target/nextest/binaries-metadata.json", regular, BINARIES),
            ("target/nextest/libdirs/host", EntryType::Directory, ""),
            ("target/debug/deps/it-1", regular, "program"),
        ]);
        let open = |here: &Path| open(archive.path(), unpacked.path(), here);
        let error = open(checkout.path())
            .expect_err("there are no sources")
            .to_string();
        assert!(
            error.contains("lack crates/one/Cargo.toml of the workspace"),
            "{error}"
        );

        let package = checkout.path().join("crates/one");
        std::fs::create_dir_all(package.join("src")).expect("made");
        std::fs::write(package.join("Cargo.toml"), "").expect("written");
        let build = open(&package.join("src")).expect("is one");
        let target = unpacked.path().join("target");
        let test = &build.tests[0];
        assert_eq!((test.name.as_str(), test.integration), ("one::it", true));
        assert_eq!(test.executable, target.join("debug/deps/it-1"));
        assert!(test.executable.is_file());
        assert_eq!(build.packages.len(), 1, "others are no tests of ours");
        assert_eq!(
            build.package_directory(&test.package),
            Some(package.as_path())
        );
        assert_eq!(build.layout.root(), checkout.path());
        let libraries = ["debug/build/one/lib", "nextest/libdirs/host"];
        assert_eq!(build.loader_path, libraries.map(|it| target.join(it)));
        let environment = build.environment(test);
        for (name, value) in [
            ("CARGO_MANIFEST_DIR", "/there/crates/one"),
            ("CARGO_BIN_EXE_tool", "/there/out/debug/tool"),
            ("OUT_DIR", "/there/out/debug/build/one/out"),
            ("CARGO_TARGET_TMPDIR", "/there/out/tmp"),
            ("A", "/there/out/a"),
            ("B", "b"),
        ] {
            assert_eq!(environment[name], value, "{name}");
        }
        assert!(!environment.contains_key("CARGO_BIN_EXE_one"));
    }

    /// Files of this machine that are not in the archive.
    #[test]
    fn what_it_names_elsewhere_is_refused() {
        let here = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(here.path().join("crates/one")).expect("made");
        std::fs::write(here.path().join("crates/one/Cargo.toml"), "").expect("written");
        let open_with = |metadata: &str, binaries: &str| {
            let unpacked = tempfile::tempdir().expect("a directory");
            let archive = packed(&[
                (
                    "target/nextest/cargo-metadata.json",
                    EntryType::Regular,
                    metadata,
                ),
                (
                    "target/nextest/binaries-metadata.json",
                    EntryType::Regular,
                    binaries,
                ),
            ]);
            open(archive.path(), unpacked.path(), here.path())
        };
        assert!(open_with(&metadata(), BINARIES).is_ok());
        for (ours, theirs) in [
            ("\"debug/build/one/out\"", "\"/etc\""),
            ("\"debug/build/one/out\"", "\"../../secrets\""),
            ("\"debug/tool\"", "\"/bin/sh\""),
            ("/there/out/debug/deps/it-1", "/there/out/../../bin/sh"),
        ] {
            let binaries = BINARIES.replace(ours, theirs);
            assert_ne!(binaries, BINARIES);
            let error = open_with(&metadata(), &binaries).expect_err(theirs);
            assert!(matches!(error, OpenArchiveError::Hostile { .. }), "{error}");
        }
        let elsewhere = BINARIES.replace("debug/build/one/lib", "/etc");
        let opened = open_with(&metadata(), &elsewhere).expect("is one");
        assert!(opened.loader_path.is_empty(), "{:?}", opened.loader_path);
        for (ours, theirs) in [
            ("\"workspace_root\":\"/there\"", "\"workspace_root\":\"/\""),
            ("/there/crates/one/Cargo.toml", "/there/crates/one/.env"),
            ("/there/crates/one/Cargo.toml", "/there/../one/Cargo.toml"),
        ] {
            let changed = metadata().replace(ours, theirs);
            assert_ne!(changed, metadata());
            let error = open_with(&changed, BINARIES).expect_err(theirs);
            assert!(matches!(error, OpenArchiveError::Hostile { .. }), "{error}");
        }
    }

    #[test]
    fn what_would_be_elsewhere_is_refused() {
        let here = tempfile::tempdir().expect("a directory");
        let (inside, beside) = (here.path().join("in"), here.path().join("beside"));
        std::fs::create_dir(&inside).expect("made");
        for (path, kind) in [
            ("../beside", EntryType::Regular),
            ("target/../../beside", EntryType::Regular),
            ("/tmp/beside", EntryType::Regular),
            ("target/link", EntryType::Symlink),
            ("target/pipe", EntryType::Fifo),
        ] {
            let archive = packed(&[(path, kind, "")]);
            let error = open(archive.path(), &inside, here.path()).expect_err(path);
            assert!(
                matches!(error, OpenArchiveError::Hostile { .. }),
                "{error:?}"
            );
            assert!(!beside.exists(), "{path}");
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "no archive").expect("written");
        let error = open(file.path(), &inside, here.path()).expect_err("is none");
        assert!(
            matches!(error, OpenArchiveError::Unreadable { .. }),
            "{error:?}"
        );
        let error = open(packed(&[]).path(), &inside, here.path()).expect_err("is empty");
        assert!(
            error
                .to_string()
                .contains("cargo-metadata.json is not what"),
            "{error}"
        );
    }
}
