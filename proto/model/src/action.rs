//! How an action may run.

use std::fmt;
use std::str::FromStr;

/// How widely a slot's container may be shared (design, decision D6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Isolation {
    /// The container serves tasks of one run of one tenant, with one image and platform.
    #[default]
    Run,
    /// A container for this task alone.
    Fresh,
}

/// What network a job sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum NetworkAccess {
    /// Loopback alone.
    #[default]
    Off,
    /// The container engine's default bridge.
    On,
}

/// What a command sees at `/`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum RootDirectory {
    /// The root file system of its image, with the input root at the work path.
    #[default]
    Image,
    /// The input root itself, with the container's `/proc`, `/dev` and `/tmp` on top.
    InputRoot,
}

/// The text is neither `run` nor `fresh`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("isolation is `run` or `fresh`, not `{text}`")]
pub struct ParseIsolationError {
    text: String,
}

impl FromStr for Isolation {
    type Err = ParseIsolationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "run" => Ok(Self::Run),
            "fresh" => Ok(Self::Fresh),
            _ => Err(ParseIsolationError {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Run => "run",
            Self::Fresh => "fresh",
        })
    }
}
