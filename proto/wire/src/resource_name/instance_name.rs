//! Which tenants can be named in a resource name.

use regatta_model::{InvalidIdError, TenantId};

use super::KEYWORDS;

/// Why a text cannot be an instance name. The sender has to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInstanceNameError {
    /// It cannot be any tenant's id.
    #[error("instance name cannot be a tenant id")]
    Id(#[source] InvalidIdError),
    /// One of its segments is a keyword of resource names.
    #[error("instance name has the reserved segment {keyword}")]
    Keyword {
        /// The keyword.
        keyword: &'static str,
    },
    /// It begins or ends with a slash, or has two in a row.
    #[error("instance name has an empty segment")]
    EmptySegment,
}

/// The tenant that an instance name stands for: any number of segments with slashes between them, none
/// of them empty and none a keyword. The empty name is the default tenant.
///
/// # Errors
/// It is not of that form, or longer than a tenant's id can be, or holds control characters.
pub fn parse_instance_name(text: &str) -> Result<TenantId, InvalidInstanceNameError> {
    check_segments(text)?;
    text.parse().map_err(InvalidInstanceNameError::Id)
}

pub(super) fn check_segments(text: &str) -> Result<(), InvalidInstanceNameError> {
    if text.is_empty() {
        return Ok(());
    }
    text.split('/').try_for_each(|segment| {
        if segment.is_empty() {
            return Err(InvalidInstanceNameError::EmptySegment);
        }
        match keyword(segment) {
            Some(keyword) => Err(InvalidInstanceNameError::Keyword { keyword }),
            None => Ok(()),
        }
    })
}

/// The keyword that a segment is, if it is one.
pub(super) fn keyword(segment: &str) -> Option<&'static str> {
    KEYWORDS.into_iter().find(|&keyword| keyword == segment)
}
