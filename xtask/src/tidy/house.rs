//! Who may depend on whom (design, section 3).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

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

/// The crates of the workspace that a crate may use, besides the standard library's friends.
const MAY_USE: &[(&str, &[&str])] = &[
    ("regatta-model", &[]),
    ("regatta-wire", &["regatta-model"]),
    ("regatta-cas", &["regatta-model", "regatta-wire"]),
    ("regatta-scheduler", &["regatta-model"]),
    ("regatta-ledger", &["regatta-model"]),
    (
        "regatta-server",
        &[
            "regatta-cas",
            "regatta-ledger",
            "regatta-model",
            "regatta-scheduler",
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
            "regatta-wire",
        ],
    ),
    ("xtask", &[]),
];

/// Foreign crates with one room each.
const ONLY_IN: &[(&str, &str)] = &[
    ("bollard", "regatta-runtime"),
    ("object_store", "regatta-cas"),
    ("rusqlite", "regatta-ledger"),
];

/// Crates that decide and do nothing else.
const PURE: &[&str] = &["regatta-model", "regatta-scheduler", "regatta-agent-core"];
const IMPURE_FRIENDS: &[&str] = &["tokio", "futures", "rustix", "tonic", "rand", "async-trait"];

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
    let plan: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let members = metadata.workspace_packages();
    Ok(members
        .iter()
        .flat_map(|package| check_package(package, &plan, &metadata))
        .collect())
}

fn check_package(
    package: &Package,
    plan: &BTreeMap<&str, &[&str]>,
    metadata: &Metadata,
) -> Vec<Complaint> {
    let name = package.name.as_str();
    let Some(allowed) = plan.get(name) else {
        return vec![format!(
            "`{name}` is not in the house plan of xtask/src/tidy/house.rs"
        )];
    };
    let is_member = |other: &str| metadata.packages.iter().any(|member| member.name == other);
    let mut complaints = Vec::new();
    for dependency in package
        .dependencies
        .iter()
        .filter(|it| it.kind != DependencyKind::Development)
    {
        let other = dependency.name.as_str();
        if is_member(other) && !allowed.contains(&other) {
            complaints.push(format!(
                "`{name}` must not depend on `{other}` (house plan)"
            ));
        }
        if let Some((_, room)) = ONLY_IN
            .iter()
            .find(|(it, room)| *it == other && *room != name)
        {
            complaints.push(format!(
                "`{name}` uses `{other}`, which belongs in `{room}` alone"
            ));
        }
        if PURE.contains(&name) && IMPURE_FRIENDS.contains(&other) {
            complaints.push(format!(
                "`{name}` is a pure core: `{other}` has no place in it"
            ));
        }
    }
    complaints
}
