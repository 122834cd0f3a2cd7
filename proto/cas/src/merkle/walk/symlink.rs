//! Where symlinks lead.

use std::path::{Component, Path};

use super::{FoundKind, Unfit, with_path};

/// What the symlink at `full` is, whose path below the canonical `root` is `path`.
pub(super) fn read(root: &Path, full: &Path, path: &str) -> Result<FoundKind, ignore::Error> {
    let target = std::fs::read_link(full).map_err(|error| with_path(full, error))?;
    if !stays(root, full, Path::new(path), &target) {
        return Ok(FoundKind::Unfit(Unfit::LeavesTree { target }));
    }
    Ok(match target.into_os_string().into_string() {
        Ok(target) => FoundKind::Symlink { target },
        Err(_) => FoundKind::Unfit(Unfit::NotUtf8),
    })
}

/// Whether a symlink stays in the tree, both as it reads and, if it leads anywhere, in truth: a link
/// through another link may end elsewhere than its text says.
fn stays(root: &Path, full: &Path, path: &Path, target: &Path) -> bool {
    stays_as_written(path, target)
        && full
            .canonicalize()
            .map_or(true, |end| end.starts_with(root))
}

fn stays_as_written(path: &Path, target: &Path) -> bool {
    let Some(mut depth) = path.components().count().checked_sub(1) else {
        return false;
    };
    for component in target.components() {
        let next = match component {
            Component::Prefix(_) | Component::RootDir => None,
            Component::CurDir => Some(depth),
            Component::ParentDir => depth.checked_sub(1),
            Component::Normal(_) => Some(depth + 1),
        };
        let Some(next) = next else { return false };
        depth = next;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, target: &str, stays: bool) {
        assert_eq!(
            stays_as_written(Path::new(path), Path::new(target)),
            stays,
            "{target}"
        );
    }

    #[test]
    fn links_may_not_climb_above_the_root() {
        check("a", "b/c", true);
        check("a", ".", true);
        check("a", "..", false);
        check("a/b/c", "../../x", true);
        check("a/b/c", "../../../x", false);
        check("a/b", "../../root/a", false);
        check("a", "/etc/passwd", false);
    }
}
