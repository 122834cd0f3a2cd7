//! Passwords in a file (PostgreSQL's manual, "The Password File"): lines of
//! `host:port:database:user:password`, of which the first that matches counts.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What others may do with a file, in its mode.
const OTHERS: u32 = 0o077;

/// Why a password file is not used.
#[derive(Debug, thiserror::Error)]
pub enum ReadPasswordFileError {
    /// It cannot be read. Check the path and its permissions.
    #[error("the password file {} cannot be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// Others can read it.
    #[error("the password file {} is open to others; `chmod 600` it", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
    },
}

pub(super) fn read(path: &Path) -> Result<String, ReadPasswordFileError> {
    let unreadable = |source| ReadPasswordFileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mode = std::fs::metadata(path).map_err(unreadable)?.mode();
    if mode & OTHERS != 0 {
        return Err(ReadPasswordFileError::Open {
            path: path.to_owned(),
        });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// The password for a host, a port, a database and a user.
pub(super) fn find(text: &str, key: [&str; 4]) -> Option<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(fields).find_map(|fields| {
        let (wanted, password) = fields.split_at_checked(key.len())?;
        let matches = |(field, value): (&String, &str)| field == "*" || field == value;
        let password = password.first()?;
        wanted
            .iter()
            .zip(key)
            .all(matches)
            .then(|| password.clone())
    })
}

/// What stands between colons; a backslash takes the next character for itself.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let character = match character {
            ':' => {
                fields.push(String::new());
                continue;
            }
            '\\' => characters.next(),
            other => Some(other),
        };
        if let Some(field) = fields.last_mut() {
            field.extend(character);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_first_line_that_matches_counts() {
        let text = "# host:port:database:user:password\n\
            short:line\n\
            db:5432:ledger:regatta:of\\:the\\\\ledger\n\
            db:*:*:regatta:of the rest\n";
        for (key, expected) in [
            (["db", "5432", "ledger", "regatta"], Some("of:the\\ledger")),
            (["db", "5433", "ledger", "regatta"], Some("of the rest")),
            (["db", "5432", "ledger", "other"], None),
            (["short", "line", "", ""], None),
        ] {
            assert_eq!(find(text, key).as_deref(), expected, "{key:?}");
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let allow = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).expect("it is ours");
        };
        allow(0o644);
        let error = read(file.path()).expect_err("others can read it");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        allow(0o600);
        assert_eq!(read(file.path()).expect("reads"), "");
        assert!(read(Path::new("/no/such/file")).is_err());
    }
}
