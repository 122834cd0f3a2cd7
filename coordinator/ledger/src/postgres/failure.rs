//! What PostgreSQL's errors mean to whoever called.

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity};

use crate::LedgerError;

/// Why a session did not do what it was asked to.
#[derive(Clone, Debug)]
pub(super) enum CallError {
    /// The session is of no use any more, and nobody knows what became of what it was last asked to do.
    Lost(LedgerError),
    /// It was not done; the session lives on.
    Refused(LedgerError),
}

impl CallError {
    pub(super) fn into_ledger_error(self) -> LedgerError {
        match self {
            Self::Lost(error) | Self::Refused(error) => error,
        }
    }
}

/// What the ledger could not read is no fault of the session.
impl From<LedgerError> for CallError {
    fn from(error: LedgerError) -> Self {
        Self::Refused(error)
    }
}

pub(super) fn explain(place: &str, error: &Error) -> CallError {
    let Some(said) = error.as_db_error() else {
        return CallError::Lost(unavailable(
            place,
            &chain(error),
            "it is connected to again",
        ));
    };
    let code = said.code().code();
    let text = format!("{} (SQLSTATE {code})", said.message());
    let advice = advice(code);
    let explained = match damaged(code) {
        true => LedgerError::Corrupt {
            detail: format!("PostgreSQL at {place}: {text}; {advice}"),
        },
        false => unavailable(place, &text, advice),
    };
    match ends_session(said) || error.is_closed() {
        true => CallError::Lost(explained),
        false => CallError::Refused(explained),
    }
}

pub(super) fn unavailable(place: &str, what: &str, advice: &str) -> LedgerError {
    LedgerError::Unavailable {
        detail: format!("PostgreSQL at {place}: {what}; {advice}"),
    }
}

/// An error with all that caused it; the outermost alone says little more than "db error".
pub(super) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// PostgreSQL, appendix A: class 08 is the connection's, 57P0x the server's end or start, 25P03 the end of a
/// transaction that was left alone.
fn ends_session(said: &DbError) -> bool {
    let fatal = matches!(
        said.parsed_severity(),
        Some(Severity::Fatal | Severity::Panic)
    );
    let code = said.code().code();
    fatal || code.starts_with("08") || code.starts_with("57P0") || code == "25P03"
}

/// Classes 42 (a table or a column that is not there) and XX001, XX002 (damaged data, a damaged index);
/// missing privileges, 42501, are no damage.
fn damaged(code: &str) -> bool {
    code == "XX001" || code == "XX002" || (code.starts_with("42") && code != "42501")
}

fn advice(code: &str) -> &'static str {
    match code {
        "53100" => "make room on its disk",
        "53300" => "let it have more connections (max_connections)",
        "25006" => "it takes no writes: make it a primary, or default_transaction_read_only off",
        "57014" | "55P03" => "it took too long: see what else it is doing (pg_stat_activity)",
        "42501" => "give the ledger's user what it lacks (GRANT)",
        code if damaged(code) => "restore the database, or use another one",
        code if code.starts_with("28") => "check the user, the password and pg_hba.conf",
        code if code.starts_with("57P0") => "it is connected to again",
        _ => "see its log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_says_what_to_do() {
        for (code, words) in [
            ("53100", "make room"),
            ("25006", "takes no writes"),
            ("57014", "too long"),
            ("28P01", "password"),
            ("42P01", "restore"),
            ("42501", "GRANT"),
            ("XX001", "restore"),
            ("57P01", "again"),
            ("99999", "log"),
        ] {
            assert!(advice(code).contains(words), "{code}");
        }
        assert!(!damaged("42501") && damaged("42703") && !damaged("53100"));
    }
}
