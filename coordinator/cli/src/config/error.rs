//! What can be wrong with a configuration, and how it is said.

use std::fmt;
use std::path::PathBuf;

/// A configuration that cannot be used. Whoever wrote the file has to fix it.
#[derive(Debug)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Where in it, unless the whole file is meant.
    pub position: Option<Position>,
    /// What is wrong.
    pub problem: Box<ConfigProblem>,
}

/// A place in a text, both parts counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigProblem {
    /// No file from the directory upwards.
    #[error(
        "no .config/regatta.toml or regatta.toml here or in any directory above; \
         write one, or name it with --file"
    )]
    NotFound,
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// The file is no TOML.
    #[error("{detail}")]
    Syntax {
        /// What the parser says.
        detail: String,
    },
    /// A key that means nothing.
    #[error("unknown key `{key}` in {place}; {}", suggestion(.nearest.as_deref(), .known))]
    UnknownKey {
        /// The key found.
        key: String,
        /// The table it is in.
        place: String,
        /// The known key that is most like it, if any is.
        nearest: Option<String>,
        /// Every key that is known there.
        known: &'static [&'static str],
    },
    /// A value of another type than its key has.
    #[error("`{key}` in {place} must be {expected}, not {found}")]
    WrongType {
        /// The key.
        key: String,
        /// The table it is in.
        place: String,
        /// The type it has, with an example.
        expected: &'static str,
        /// The type found.
        found: &'static str,
    },
    /// A value of the right type that makes no sense.
    #[error("`{key}` in {place}: {detail}")]
    BadValue {
        /// The key.
        key: String,
        /// The table it is in.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A job with nothing to do, or with two things.
    #[error("{place} {detail}")]
    BadJob {
        /// The table.
        place: String,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// A job needs one that is not there.
    #[error("{place} needs `{name}`, which is no job; {}", nearest_job(.nearest.as_deref()))]
    UnknownNeed {
        /// The table.
        place: String,
        /// The name found.
        name: String,
        /// The job whose name is most like it, if any is.
        nearest: Option<String>,
    },
    /// Jobs that wait for each other for ever.
    #[error("the jobs need each other in a circle: {}; remove one of these `needs`", .path.join(" -> "))]
    Cycle {
        /// The names along the circle, the first one repeated at the end.
        path: Vec<String>,
    },
    /// A job was asked for that is not there.
    #[error("there is no job `{name}`; {}", nearest_job(.nearest.as_deref()))]
    UnknownJob {
        /// The name asked for.
        name: String,
        /// The job whose name is most like it, if any is.
        nearest: Option<String>,
    },
    /// An input pattern that no file matches.
    #[error(
        "the input `{pattern}` of {place} matches no file below {root}; \
         fix the pattern or remove it (files that git ignores count only when named in full)"
    )]
    NoSuchInput {
        /// The pattern.
        pattern: String,
        /// The table it is in.
        place: String,
        /// The directory that patterns begin at.
        root: String,
    },
}

fn suggestion(nearest: Option<&str>, known: &[&str]) -> String {
    match nearest {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("known are {}", known.join(", ")),
    }
}

fn nearest_job(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => "`regatta run --list` names them".to_owned(),
    }
}

impl ConfigError {
    /// What is wrong with a file, and where.
    #[must_use]
    pub fn new(
        file: impl Into<PathBuf>,
        position: Option<Position>,
        problem: ConfigProblem,
    ) -> Self {
        Self {
            file: file.into(),
            position,
            problem: Box::new(problem),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(Position { line, column }) => write!(
                formatter,
                "{}:{line}:{column}: {}",
                self.file.display(),
                self.problem
            ),
            None => write!(formatter, "{}: {}", self.file.display(), self.problem),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The one of `candidates` that `name` is most probably a misspelling of.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    /// Below this, two words merely share letters.
    const LEAST_SIMILARITY: f64 = 0.6;
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::normalized_damerau_levenshtein(name, candidate),
                candidate,
            )
        })
        .filter(|(similarity, _)| *similarity >= LEAST_SIMILARITY)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate.to_owned())
}
