//! What a release of the project here requires.

use std::path::Path;

use regatta_verdict::Policy;

use crate::config;
use crate::exit_code::Failure;
use crate::files::place_in;
use crate::git;

/// The policy of the configuration that `directory` is under, if it is in the commit there: one that is not
/// has no say. Blocks.
pub(super) fn policy_of(directory: &Path) -> Result<Option<Policy>, Failure> {
    let Ok((file, root)) = config::find(directory) else {
        return Ok(None);
    };
    let place = place_in(&root, &file);
    let place = place.as_deref().and_then(Path::to_str);
    match place.is_some_and(|place| git::knows_all(&root, std::iter::once(place))) {
        true => Ok(config::load(&file, &root)?.policy),
        false => Ok(None),
    }
}
