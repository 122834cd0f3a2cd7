//! Who may depend on whom (design, section 3).

use std::collections::BTreeSet;

use anyhow::Result;
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use super::Complaint;
use crate::workspace;

const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "agent",
    "coordinator",
    "deploy",
    "proto",
    "xtask",
];

/// The crates of the workspace that a crate may use, besides the standard library's friends. Tests, too,
/// use no others but the crate itself, with other features.
const MAY_USE: &[(&str, &[&str])] = &[
    ("regatta-model", &[]),
    ("regatta-wire", &["regatta-model"]),
    ("regatta-cas", &["regatta-model", "regatta-wire"]),
    (
        "regatta-proto-fuzz",
        &["regatta-cas", "regatta-model", "regatta-wire"],
    ),
    ("regatta-scheduler", &["regatta-model"]),
    ("regatta-ledger", &["regatta-model"]),
    ("regatta-verdict", &["regatta-model", "regatta-wire"]),
    (
        "regatta-server",
        &[
            "regatta-cas",
            "regatta-ledger",
            "regatta-model",
            "regatta-scheduler",
            "regatta-verdict",
            "regatta-wire",
        ],
    ),
    ("regatta-agent-core", &["regatta-model"]),
    ("regatta-init", &[]),
    ("regatta-runtime", &["regatta-init", "regatta-model"]),
    (
        "regatta-agent",
        &[
            "regatta-agent-core",
            "regatta-cas",
            "regatta-model",
            "regatta-runtime",
            "regatta-wire",
        ],
    ),
    (
        "regatta",
        &[
            "regatta-agent",
            "regatta-cas",
            "regatta-model",
            "regatta-runtime",
            "regatta-server",
            "regatta-verdict",
            "regatta-wire",
        ],
    ),
    (
        "regatta-coordinator-fuzz",
        &[
            "regatta",
            "regatta-agent",
            "regatta-cas",
            "regatta-model",
            "regatta-proto-fuzz",
            "regatta-server",
            "regatta-wire",
        ],
    ),
    ("xtask", &[]),
    (
        "regatta-simulation",
        &[
            "regatta-agent-core",
            "regatta-cas",
            "regatta-ledger",
            "regatta-model",
            "regatta-scheduler",
            "regatta-server",
            "regatta-wire",
        ],
    ),
];

/// Foreign crates with one room each, tests included.
const ONLY_IN: &[(&str, &str)] = &[
    ("bollard", "regatta-runtime"),
    ("object_store", "regatta-cas"),
    ("rusqlite", "regatta-ledger"),
    ("tokio-postgres", "regatta-ledger"),
];

/// Crates that decide and do nothing else, with the foreign crates that they may use: those that know no
/// clock, no randomness, no files and no network. Their tests may use others.
const PURE: &[(&str, &[&str])] = &[
    ("regatta-model", &["sha2", "thiserror"]),
    ("regatta-scheduler", &["thiserror"]),
    ("regatta-agent-core", &["thiserror"]),
];

/// The checkout's first level holds what the house plan says, and dotfiles.
pub(super) fn top_level() -> Result<Vec<Complaint>> {
    let entries: BTreeSet<String> = workspace::files()?
        .iter()
        .filter_map(|file| Some(file.components().next()?.as_os_str().to_str()?.to_owned()))
        .collect();
    Ok(entries
        .iter()
        .filter(|entry| !entry.starts_with('.') && !TOP_LEVEL.contains(&entry.as_str()))
        .map(|entry| format!("`{entry}` has no place at the top level (design, section 3)"))
        .collect())
}

/// Arrows between crates point only where the house plan allows.
pub(super) fn dependencies() -> Result<Vec<Complaint>> {
    let metadata = MetadataCommand::new()
        .no_deps()
        .current_dir(workspace::root())
        .exec()?;
    let members: BTreeSet<&str> = metadata
        .packages
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    let check = |package: &&Package| check_package(&Uses::of(package), &members);
    let packages = metadata.workspace_packages();
    Ok(packages.iter().flat_map(check).collect())
}

/// What a crate names in its manifest.
struct Uses<'a> {
    name: &'a str,
    /// For itself and its build script.
    normal: Vec<&'a str>,
    /// For its tests, benches and examples.
    tests: Vec<&'a str>,
}

impl<'a> Uses<'a> {
    fn of(package: &'a Package) -> Self {
        let names = |for_tests: bool| {
            let dependencies = package.dependencies.iter();
            dependencies
                .filter(|it| (it.kind == DependencyKind::Development) == for_tests)
                .map(|it| it.name.as_str())
                .collect()
        };
        Self {
            name: &package.name,
            normal: names(false),
            tests: names(true),
        }
    }
}

fn check_package(uses: &Uses<'_>, members: &BTreeSet<&str>) -> Vec<Complaint> {
    let name = uses.name;
    let Some((_, allowed)) = MAY_USE.iter().find(|(it, _)| *it == name) else {
        return vec![format!(
            "`{name}` is not in the house plan of xtask/src/tidy/house.rs"
        )];
    };
    let mut complaints = Vec::new();
    let normal = uses.normal.iter().map(|other| (*other, false));
    let tests = uses.tests.iter().map(|other| (*other, true));
    for (other, for_tests) in normal.chain(tests) {
        let itself = for_tests && other == name;
        if members.contains(other) && !allowed.contains(&other) && !itself {
            let part = if for_tests { "the tests of " } else { "" };
            complaints.push(format!(
                "{part}`{name}` must not depend on `{other}` (house plan)"
            ));
        }
        let room = ONLY_IN.iter().find(|(it, _)| *it == other);
        if let Some((_, room)) = room.filter(|(_, room)| *room != name) {
            complaints.push(format!(
                "`{name}` uses `{other}`, which belongs in `{room}` alone"
            ));
        }
    }
    complaints.extend(impurities(uses, members));
    complaints
}

fn impurities(uses: &Uses<'_>, members: &BTreeSet<&str>) -> Vec<Complaint> {
    let name = uses.name;
    let Some((_, allowed)) = PURE.iter().find(|(it, _)| *it == name) else {
        return Vec::new();
    };
    let foreign = uses.normal.iter().filter(|other| !members.contains(*other));
    let impure = foreign.filter(|other| !allowed.contains(other));
    impure
        .map(|other| {
            format!("`{name}` is a pure core, and `{other}` is not on the list of what it may use")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, normal: &[&str], tests: &[&str], expected: &[&str]) {
        let members: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
        let uses = Uses {
            name,
            normal: normal.to_vec(),
            tests: tests.to_vec(),
        };
        assert_eq!(check_package(&uses, &members), expected);
    }

    #[test]
    fn arrows_point_where_the_plan_says() {
        check("regatta-cas", &["regatta-model", "tokio"], &[], &[]);
        check(
            "regatta-agent",
            &["regatta-server"],
            &[],
            &["`regatta-agent` must not depend on `regatta-server` (house plan)"],
        );
        check(
            "new",
            &[],
            &[],
            &["`new` is not in the house plan of xtask/src/tidy/house.rs"],
        );
    }

    #[test]
    fn tests_keep_to_the_plan_but_may_use_their_own_crate() {
        check("regatta-runtime", &[], &["regatta-runtime"], &[]);
        check(
            "regatta-server",
            &[],
            &["regatta-agent", "rusqlite"],
            &[
                "the tests of `regatta-server` must not depend on `regatta-agent` (house plan)",
                "`regatta-server` uses `rusqlite`, which belongs in `regatta-ledger` alone",
            ],
        );
    }

    #[test]
    fn pure_cores_use_what_is_on_their_list_alone() {
        check(
            "regatta-scheduler",
            &["regatta-model", "thiserror"],
            &["proptest"],
            &[],
        );
        check(
            "regatta-scheduler",
            &["getrandom"],
            &[],
            &[
                "`regatta-scheduler` is a pure core, and `getrandom` is not on the list of what it may use",
            ],
        );
    }
}
