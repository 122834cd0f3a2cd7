//! Whether a command can be run at all.

use std::collections::BTreeSet;

use regatta_wire::reapi;

/// Why a command cannot be run. Its sender has to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommandError {
    /// There is no program to run.
    #[error("a command needs at least one argument, the program")]
    NoProgram,
    /// A text holds a NUL byte, which no process can be given.
    #[error("a NUL byte cannot be passed to a process")]
    Nul {
        /// Where.
        field: String,
    },
    /// An environment variable's name is empty or holds `=`.
    #[error("`{name}` cannot name an environment variable")]
    VariableName {
        /// The name found.
        name: String,
    },
    /// An environment variable is there twice.
    #[error("environment variable `{name}` is set twice")]
    VariableTwice {
        /// Its name.
        name: String,
    },
    /// A path is absolute, leads out of the input root, or is spelled in a way that is not allowed.
    #[error(
        "`{path}` must be a relative path inside the input root, without `//` or a slash at its end"
    )]
    Path {
        /// Where.
        field: &'static str,
        /// The path found.
        path: String,
    },
}

impl InvalidCommandError {
    /// The path to the offending field within the command.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::NoProgram => "arguments",
            Self::Nul { field } => field,
            Self::VariableName { .. } | Self::VariableTwice { .. } => "environment_variables",
            Self::Path { field, .. } => field,
        }
    }
}

/// The command with its outputs in `output_paths`, whatever version of the API its client speaks, and its
/// platform left out. `output_directories` remains for a client of an old version alone: which of
/// the paths it expects to find made ahead.
///
/// # Errors
/// [`InvalidCommandError`] names what has to be fixed.
pub fn canonical_command(command: reapi::Command) -> Result<reapi::Command, InvalidCommandError> {
    check_arguments(&command.arguments)?;
    check_environment(&command.environment_variables)?;
    check_inside("", &command.working_directory, "working_directory")?;
    let command = with_output_paths(command);
    for path in &command.output_paths {
        check_inside(&command.working_directory, path, "output_paths")?;
    }
    Ok(command)
}

/// The outputs of a command whose client knows only the fields from before version 2.1, and reads only
/// such fields of the result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LegacyOutputs {
    /// The paths that the client takes for files.
    pub files: BTreeSet<String>,
    /// The paths that the client takes for directories.
    pub directories: BTreeSet<String>,
}

impl LegacyOutputs {
    /// What a command asks for in the older fields; `None` if it has `output_paths`, which supersede
    /// them, or neither.
    #[must_use]
    #[expect(
        deprecated,
        reason = "clients of versions before 2.1 set no other fields"
    )]
    pub fn of(command: &reapi::Command) -> Option<Self> {
        let is_legacy = command.output_paths.is_empty()
            && !(command.output_files.is_empty() && command.output_directories.is_empty());
        is_legacy.then(|| Self {
            files: command.output_files.iter().cloned().collect(),
            directories: command.output_directories.iter().cloned().collect(),
        })
    }

    /// Says in the result's older fields too which of its outputs are symlinks (REAPI,
    /// `ActionResult.output_symlinks`).
    #[expect(
        deprecated,
        reason = "clients of versions before 2.1 read no other fields"
    )]
    pub fn copy_symlinks(&self, result: &mut reapi::ActionResult) {
        let among = |paths: &BTreeSet<String>| -> Vec<reapi::OutputSymlink> {
            let links = result.output_symlinks.iter();
            links
                .filter(|link| paths.contains(&link.path))
                .cloned()
                .collect()
        };
        let (files, directories) = (among(&self.files), among(&self.directories));
        result.output_file_symlinks = files;
        result.output_directory_symlinks = directories;
    }
}

#[expect(
    deprecated,
    reason = "clients of versions before 2.1 set no other fields"
)]
fn with_output_paths(mut command: reapi::Command) -> reapi::Command {
    let files = std::mem::take(&mut command.output_files);
    if command.output_paths.is_empty() {
        let directories = command.output_directories.iter().cloned();
        command.output_paths = files.into_iter().chain(directories).collect();
        command.output_paths.sort();
        command.output_paths.dedup();
    } else {
        command.output_directories.clear();
    }
    command.platform = None;
    command
}

fn check_arguments(arguments: &[String]) -> Result<(), InvalidCommandError> {
    if arguments.first().is_none_or(String::is_empty) {
        return Err(InvalidCommandError::NoProgram);
    }
    match arguments
        .iter()
        .position(|argument| argument.contains('\0'))
    {
        Some(index) => Err(InvalidCommandError::Nul {
            field: format!("arguments[{index}]"),
        }),
        None => Ok(()),
    }
}

fn check_environment(
    variables: &[reapi::command::EnvironmentVariable],
) -> Result<(), InvalidCommandError> {
    let mut names = BTreeSet::new();
    for reapi::command::EnvironmentVariable { name, value } in variables {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(InvalidCommandError::VariableName { name: name.clone() });
        }
        if value.contains('\0') {
            let field = format!("environment_variables[{name}]");
            return Err(InvalidCommandError::Nul { field });
        }
        if !names.insert(name) {
            return Err(InvalidCommandError::VariableTwice { name: name.clone() });
        }
    }
    Ok(())
}

/// Checks that `path`, taken from `base`, stays inside the input root. `..` is allowed on the way.
fn check_inside(base: &str, path: &str, field: &'static str) -> Result<(), InvalidCommandError> {
    let refuse = || {
        Err(InvalidCommandError::Path {
            field,
            path: path.to_owned(),
        })
    };
    if path.contains('\0') {
        return refuse();
    }
    let mut depth = 0usize;
    for (segment, is_own) in segments(base, false).chain(segments(path, true)) {
        match segment {
            "" if is_own => return refuse(),
            ".." if depth == 0 => return refuse(),
            ".." => depth -= 1,
            "" | "." => {}
            _ => depth += 1,
        }
    }
    Ok(())
}

/// The segments of a path; none if it is empty, which names the directory it is taken from.
fn segments(path: &str, is_own: bool) -> impl Iterator<Item = (&str, bool)> {
    path.split('/')
        .filter(move |_| !path.is_empty())
        .map(move |segment| (segment, is_own))
}
