//! What a person is told when a program could not be started.

use std::fmt::Write as _;

use regatta_model::RootDirectory;
use regatta_runtime::{ContainerCommand, ContainerShape};
use rustix::io::Errno;

/// The shell's exit code for a program that is not there.
const NOT_FOUND: i32 = 127;
/// The shell's exit code for a program that cannot be executed.
const NOT_EXECUTABLE: i32 = 126;

/// The command of which it is told; taken before the runtime takes it.
#[derive(Clone, Debug)]
pub(crate) struct Sought {
    program: String,
    path: String,
    working_directory: String,
    place: String,
}

impl Sought {
    pub(crate) fn new(command: &ContainerCommand, shape: &ContainerShape) -> Self {
        let place = match (shape.root, &shape.image) {
            (RootDirectory::InputRoot, _) => {
                "in the input root, which is the root directory".to_owned()
            }
            (RootDirectory::Image, Some(image)) => format!("in image {image}"),
            (RootDirectory::Image, None) => "on this machine".to_owned(),
        };
        Self {
            program: command.arguments.first().cloned().unwrap_or_default(),
            path: command.environment.get("PATH").cloned().unwrap_or_default(),
            working_directory: command.working_directory.display().to_string(),
            place,
        }
    }

    /// The text for a failed exec.
    pub(crate) fn explain(&self, errno: i32) -> String {
        let missing = exit_code(errno) == NOT_FOUND;
        let problem = if missing {
            "there is no such program".to_owned()
        } else {
            format!(
                "it cannot be executed ({})",
                Errno::from_raw_os_error(errno)
            )
        };
        let mut text = format!("regatta: `{}`: {problem} {}", self.program, self.place);
        let written = if self.program.contains('/') {
            let directory = if self.working_directory.is_empty() {
                "the input root"
            } else {
                self.working_directory.as_str()
            };
            write!(
                text,
                "; a relative path begins at the working directory, {directory}"
            )
        } else {
            write!(text, "; looked in PATH={}", self.path)
        };
        // Writing to a string cannot fail.
        written.ok();
        if missing {
            text.push_str("; or its interpreter or loader is missing");
        }
        text.push('\n');
        text
    }
}

/// The exit code for a failed exec, as a shell has it.
pub(crate) fn exit_code(errno: i32) -> i32 {
    let absences = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    if absences.contains(&Errno::from_raw_os_error(errno)) {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sought(program: &str) -> Sought {
        Sought {
            program: program.to_owned(),
            path: "/bin".to_owned(),
            working_directory: "sub".to_owned(),
            place: "in image bb:1".to_owned(),
        }
    }

    #[test]
    fn what_was_looked_for_and_where_is_said() {
        let text = sought("cc").explain(Errno::NOENT.raw_os_error());
        assert_eq!(exit_code(Errno::NOENT.raw_os_error()), 127);
        for part in ["`cc`", "in image bb:1", "PATH=/bin"] {
            assert!(text.contains(part), "{text}");
        }
        let text = sought("./run").explain(Errno::ACCESS.raw_os_error());
        assert_eq!(exit_code(Errno::ACCESS.raw_os_error()), 126);
        assert!(text.contains("working directory, sub"), "{text}");
    }
}
