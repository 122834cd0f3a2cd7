//! From bytes to a tree: directories that name others by the digests that those really have.

use arbitrary::{Result, Unstructured};
use prost::Message as _;
use regatta_model::Digest;
use regatta_wire::reapi;

/// How many directories a tree has at most.
const MOST_DIRECTORIES: usize = 12;
/// How many nodes of one kind a directory has at most.
const MOST_NODES: usize = 6;

/// Names that a path can and cannot have.
const NAMES: [&str; 16] = [
    "a", "b", "c", "d", "e", "A", "é", "文", "a.b", " ", "...", ".a", ".", "..", "", "a/b",
];

/// Puts a tree together; the last directory is its root.
pub(super) fn tree(plan: &[u8]) -> Result<reapi::Tree> {
    let mut plan = Unstructured::new(plan);
    let count = plan.int_in_range(1..=MOST_DIRECTORIES)?;
    let mut directories: Vec<reapi::Directory> = Vec::new();
    for _ in 0..count {
        let directory = directory(&mut plan, &directories)?;
        directories.push(directory);
    }
    let root = directories.pop();
    if plan.ratio(1, 8)? {
        // One may be left out, or stand where it need not.
        let end = directories.len();
        directories.truncate(plan.int_in_range(0..=end)?);
        directories.reverse();
    }
    Ok(reapi::Tree {
        root,
        children: directories,
    })
}

fn directory(plan: &mut Unstructured<'_>, below: &[reapi::Directory]) -> Result<reapi::Directory> {
    let mut directory = reapi::Directory::default();
    for _ in 0..plan.int_in_range(0..=MOST_NODES)? {
        let digest = Some(digest(plan)?);
        directory.files.push(reapi::FileNode {
            name: name(plan)?,
            digest,
            is_executable: plan.arbitrary()?,
            node_properties: properties(plan)?,
        });
    }
    for _ in 0..plan.int_in_range(0..=MOST_NODES.min(below.len()))? {
        let encoded = plan.choose(below)?.encode_to_vec();
        let digest = Some(Digest::of(&encoded).into());
        let name = name(plan)?;
        directory
            .directories
            .push(reapi::DirectoryNode { name, digest });
    }
    for _ in 0..plan.int_in_range(0..=MOST_NODES)? {
        directory.symlinks.push(reapi::SymlinkNode {
            name: name(plan)?,
            target: target(plan)?,
            node_properties: properties(plan)?,
        });
    }
    if !plan.ratio(1, 8)? {
        directory
            .files
            .sort_by(|left, right| left.name.cmp(&right.name));
        directory
            .directories
            .sort_by(|left, right| left.name.cmp(&right.name));
        directory
            .symlinks
            .sort_by(|left, right| left.name.cmp(&right.name));
    }
    directory.node_properties = properties(plan)?;
    Ok(directory)
}

fn name(plan: &mut Unstructured<'_>) -> Result<String> {
    Ok(match plan.ratio(1, 4)? {
        true => plan.arbitrary::<&str>()?.to_owned(),
        false => {
            let name = plan.choose(&NAMES)?;
            let number: u8 = plan.arbitrary()?;
            match number % 4 {
                0 => (*name).to_owned(),
                _ => format!("{number:03}{name}"),
            }
        }
    })
}

fn target(plan: &mut Unstructured<'_>) -> Result<String> {
    let targets = ["a", "../a", "/etc", ".", "..", "", "a\0"];
    Ok((*plan.choose(&targets)?).to_owned())
}

fn digest(plan: &mut Unstructured<'_>) -> Result<reapi::Digest> {
    let byte: u8 = plan.arbitrary()?;
    let mut digest = reapi::Digest::from(Digest::of(&[byte]));
    if plan.ratio(1, 32)? {
        digest.size_bytes = plan.arbitrary()?;
        digest.hash = plan.arbitrary::<&str>()?.to_owned();
    }
    Ok(digest)
}

fn properties(plan: &mut Unstructured<'_>) -> Result<Option<reapi::NodeProperties>> {
    if !plan.ratio(1, 8)? {
        return Ok(None);
    }
    let mut properties = reapi::NodeProperties::default();
    for _ in 0..plan.int_in_range(0..=2)? {
        properties.properties.push(reapi::NodeProperty {
            name: name(plan)?,
            value: String::new(),
        });
    }
    Ok(Some(properties))
}
