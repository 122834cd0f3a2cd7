//! A newtype for each kind of id, so that one cannot stand in for another.

use std::fmt;
use std::str::FromStr;

/// Why a text cannot be an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdError {
    /// The text is empty.
    #[error("{kind} must not be empty")]
    Empty {
        /// What the id would have named.
        kind: &'static str,
    },
    /// The text is longer than any id may be.
    #[error("{kind} has {length} bytes, at most {limit} are allowed")]
    TooLong {
        /// What the id would have named.
        kind: &'static str,
        /// The length found, in bytes.
        length: usize,
        /// The greatest length allowed, in bytes.
        limit: usize,
    },
    /// The text holds a control character.
    #[error("{kind} holds the control character {character:?}")]
    ControlCharacter {
        /// What the id would have named.
        kind: &'static str,
        /// The first one found.
        character: char,
    },
}

fn check(
    text: &str,
    kind: &'static str,
    limit: usize,
    may_be_empty: bool,
) -> Result<(), InvalidIdError> {
    if text.is_empty() && !may_be_empty {
        return Err(InvalidIdError::Empty { kind });
    }
    if text.len() > limit {
        return Err(InvalidIdError::TooLong {
            kind,
            length: text.len(),
            limit,
        });
    }
    match text.chars().find(|character| character.is_control()) {
        Some(character) => Err(InvalidIdError::ControlCharacter { kind, character }),
        None => Ok(()),
    }
}

macro_rules! text_id {
    ($(#[$docs:meta])* $name:ident, $kind:literal, limit: $limit:literal, empty: $empty:literal) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check(text, $kind, $limit, $empty)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({:?})", stringify!($name), &*self.0)
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$docs:meta])* $name:ident, $number:ty) => {
        $(#[$docs])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }
    };
}

text_id! {
    /// Names an agent; the same for the life of its state directory, across restarts.
    AgentId, "agent id", limit: 256, empty: false
}
text_id! {
    /// A tenant: a REAPI instance name. The empty name is the default tenant.
    TenantId, "instance name", limit: 1024, empty: true
}
text_id! {
    /// One execution of a pipeline, or one REAPI tool invocation: the scope of isolation and fairness.
    RunId, "run id", limit: 256, empty: false
}
text_id! {
    /// A job's name in its pipeline.
    JobName, "job name", limit: 1024, empty: false
}
text_id! {
    /// A test's id within its suite, as its runner spells it.
    TestId, "test id", limit: 65536, empty: false
}
text_id! {
    /// An image as Docker names it: `name:tag`, `name@sha256:…` or `sha256:…`.
    ImageReference, "image reference", limit: 4096, empty: false
}

number_id! {
    /// A unit of an agent's concurrency, counted from 0.
    SlotIndex, u32
}
number_id! {
    /// Something submitted to the scheduler: an action, or a test job whose batches it cuts.
    TaskId, u64
}
number_id! {
    /// A task, or a batch of its units, given to a slot. Never used twice.
    LeaseId, u64
}
number_id! {
    /// Grows with every lease: a result that carries a token other than the current one is refused.
    FencingToken, u64
}
number_id! {
    /// The position of a test in its job's plan; 0 for an action, which is its own only unit.
    UnitIndex, u32
}
number_id! {
    /// How many leases a unit has had, counted from 1.
    AttemptNumber, u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_no_log_line_could_hold() {
        assert_eq!(
            "".parse::<AgentId>(),
            Err(InvalidIdError::Empty { kind: "agent id" })
        );
        assert!("".parse::<TenantId>().is_ok());
        assert!(matches!(
            "a\nb".parse::<RunId>(),
            Err(InvalidIdError::ControlCharacter { .. })
        ));
        assert!(matches!(
            "x".repeat(300).parse::<RunId>(),
            Err(InvalidIdError::TooLong { .. })
        ));
    }
}
