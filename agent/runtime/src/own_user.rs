//! The user that this process is.

/// Its effective user and group, by number.
pub(crate) fn own_user() -> (u32, u32) {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    (user.as_raw(), group.as_raw())
}
