//! Where the address of a coordinator's database is to be found, password included, without showing it to
//! whoever looks at command lines.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, fs, io};

use regatta_server::{ParseAddressError, PostgresAddress, ReadPasswordFileError};

/// Where passwords are looked for in the home directory, as libpq does.
const DEFAULT_PASSWORD_FILE: &str = ".pgpass";

/// What `--ledger` says: an address, `file:` and a file with one, or `env:` and a variable with one. It is
/// looked at when it is resolved, so that no complaint about a command line repeats it.
#[derive(Clone)]
pub struct LedgerReference(String);

impl FromStr for LedgerReference {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for LedgerReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LedgerReference(..)")
    }
}

/// Why a reference leads to no address. Fix it, or what it refers to.
#[derive(Debug, thiserror::Error)]
pub enum ResolveLedgerError {
    /// It holds a password itself.
    #[error(
        "--ledger holds a password, which everybody on this machine can read: write the address into a \
         file for `--ledger file:FILE`, or the password into one that PGPASSFILE names"
    )]
    PasswordInPlainSight,
    /// There is no such file, or it cannot be read.
    #[error("--ledger: {} cannot be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// There is no such variable.
    #[error("--ledger: the variable {name} is not set")]
    Unset {
        /// Which variable.
        name: String,
    },
    /// What it refers to is no address.
    #[error("--ledger")]
    Address(#[from] ParseAddressError),
    /// The password's file is not used.
    #[error("--ledger")]
    PasswordFile(#[from] ReadPasswordFileError),
}

/// What a variable of the process holds, if it is set.
type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl LedgerReference {
    /// The address, with its password if one is to be found.
    ///
    /// # Errors
    /// [`ResolveLedgerError`] says what to do.
    pub fn resolve(&self, variable: Variable<'_>) -> Result<PostgresAddress, ResolveLedgerError> {
        let address = self.address(variable)?;
        let file = path(variable, "PGPASSFILE").or_else(|| {
            let home = path(variable, "HOME")?;
            Some(home.join(DEFAULT_PASSWORD_FILE)).filter(|file| file.is_file())
        });
        match file {
            Some(file) if !address.has_password() => Ok(address.with_password_of(&file)?),
            Some(_) | None => Ok(address),
        }
    }

    fn address(&self, variable: Variable<'_>) -> Result<PostgresAddress, ResolveLedgerError> {
        if let Some(path) = self.0.strip_prefix("file:") {
            return Ok(read(Path::new(path))?.trim().parse()?);
        }
        if let Some(name) = self.0.strip_prefix("env:") {
            let unset = || ResolveLedgerError::Unset {
                name: name.to_owned(),
            };
            let value = variable(name).ok_or_else(unset)?;
            return Ok(value.to_string_lossy().trim().parse()?);
        }
        let address: PostgresAddress = self.0.parse()?;
        match address.has_password() {
            true => Err(ResolveLedgerError::PasswordInPlainSight),
            false => Ok(address),
        }
    }
}

fn path(variable: Variable<'_>, name: &str) -> Option<PathBuf> {
    variable(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn read(path: &Path) -> Result<String, ResolveLedgerError> {
    fs::read_to_string(path).map_err(|source| ResolveLedgerError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn resolve(text: &str, values: &[(&str, &str)]) -> Result<PostgresAddress, ResolveLedgerError> {
        let reference = match text.parse::<LedgerReference>() {
            Ok(reference) => reference,
            Err(never) => match never {},
        };
        assert!(!format!("{reference:?}").contains("s3cret"));
        reference.resolve(&|wanted| {
            let found = values.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn an_address_is_found_where_the_reference_says() {
        let secret = "postgres://u:s3cret@h/d";
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), format!("{secret}\n")).expect("it is ours");
        let of_file = format!("file:{}", file.path().display());
        for (text, has_password) in [
            ("postgres://u@h/d", false),
            (of_file.as_str(), true),
            ("env:ADDRESS", true),
        ] {
            let address = resolve(text, &[("ADDRESS", secret)]).expect(text);
            assert_eq!(address.to_string(), "postgres://u@h:5432/d");
            assert_eq!(address.has_password(), has_password, "{text}");
        }
    }

    #[test]
    fn a_password_comes_from_a_password_file() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join(DEFAULT_PASSWORD_FILE);
        fs::write(&file, "h:*:d:u:s3cret\n").expect("it is ours");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        let (home, file) = (
            home.path().display().to_string(),
            file.display().to_string(),
        );
        for (values, has_password) in [
            (vec![("PGPASSFILE", file.as_str())], true),
            (vec![("HOME", home.as_str())], true),
            (vec![("HOME", "/nowhere")], false),
            (vec![], false),
        ] {
            let address = resolve("postgres://u@h/d", &values).expect("resolves");
            assert_eq!(address.has_password(), has_password, "{values:?}");
        }
        let other = resolve("postgres://other@h/d", &[("HOME", &home)]);
        assert!(!other.expect("resolves").has_password());
    }

    #[test]
    fn what_leads_nowhere_says_so_and_never_the_password() {
        for (text, words) in [
            ("postgres://u:s3cret@h/d", "everybody on this machine"),
            ("file:/no/such/file", "/no/such/file cannot be read"),
            ("env:NOWHERE", "NOWHERE is not set"),
            ("env:WRONG", "begins with"),
            ("ledger.sqlite", "begins with"),
        ] {
            let error = resolve(text, &[("WRONG", "mysql://u:s3cret@h")]).expect_err(text);
            let chain = format!("{:#}", anyhow::Error::new(error));
            assert!(chain.contains(words), "{text}: {chain}");
            assert!(!chain.contains("s3cret"), "{chain}");
        }
        let no_file = resolve("postgres://u@h/d", &[("PGPASSFILE", "/no/such/file")]);
        assert!(no_file.is_err(), "a file that is named must be there");
    }
}
