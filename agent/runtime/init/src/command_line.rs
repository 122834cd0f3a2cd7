//! What the init can be started as.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::connection::Connection;
use crate::libraries::missing_libraries;
use crate::namespaces::Enclosure;
use crate::server::{Habits, Server, occupy_standard_descriptors, seal_descriptors};

/// What one call asks for.
enum Mode {
    /// `serve SOCKET`: be the init of a container that somebody else made.
    Serve { socket: PathBuf },
    /// `enclose SOCKET WORK [--isolate-network] [--hide DIRECTORY]...`: make the container, too.
    Enclose(Enclosure),
    /// `probe-libraries NAME...`: print which of these the image lacks.
    ProbeLibraries { names: Vec<String> },
}

/// Does what the arguments (without the program's name) ask for.
///
/// # Errors
/// The arguments are wrong, or what was asked for failed.
pub fn run(arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    match Mode::parse(arguments)? {
        Mode::Serve { socket } => {
            occupy_standard_descriptors()?;
            seal_descriptors();
            let habits = Habits {
                drop_capabilities: false,
                keep: None,
            };
            Server::new(Connection::open(&socket)?, habits)?.serve()
        }
        Mode::Enclose(enclosure) => {
            occupy_standard_descriptors()?;
            seal_descriptors();
            enclosure.enter()
        }
        Mode::ProbeLibraries { names } => {
            let mut output = io::stdout().lock();
            for name in missing_libraries(Path::new("/"), &names) {
                writeln!(output, "{name}")?;
            }
            output.flush()
        }
    }
}

impl Mode {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> io::Result<Self> {
        let mode = arguments.next().ok_or_else(|| wrong("a mode is missing"))?;
        match mode.to_str() {
            Some("serve") => Ok(Self::Serve {
                socket: path(arguments.next())?,
            }),
            Some("enclose") => Self::parse_enclosure(arguments).map(Self::Enclose),
            Some("probe-libraries") => {
                let text = |name: OsString| name.into_string();
                let names = arguments.map(text).collect::<Result<_, _>>();
                let names = names.map_err(|_| wrong("a library's name is not UTF-8"))?;
                Ok(Self::ProbeLibraries { names })
            }
            Some(_) | None => Err(wrong("the mode is serve, enclose or probe-libraries")),
        }
    }

    fn parse_enclosure(mut arguments: impl Iterator<Item = OsString>) -> io::Result<Enclosure> {
        let mut enclosure = Enclosure {
            socket: path(arguments.next())?,
            work: path(arguments.next())?,
            ..Enclosure::default()
        };
        while let Some(option) = arguments.next() {
            match option.to_str() {
                Some("--isolate-network") => enclosure.isolate_network = true,
                Some("--hide") => enclosure.hidden.push(path(arguments.next())?),
                Some(_) | None => return Err(wrong("an option is unknown")),
            }
        }
        Ok(enclosure)
    }
}

fn path(argument: Option<OsString>) -> io::Result<PathBuf> {
    argument
        .map(PathBuf::from)
        .ok_or_else(|| wrong("a path is missing"))
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_arguments_are_named() {
        for (arguments, expected) in [
            (vec![], "a mode is missing"),
            (vec!["serve"], "a path is missing"),
            (
                vec!["dance"],
                "the mode is serve, enclose or probe-libraries",
            ),
            (vec!["enclose", "/s"], "a path is missing"),
            (
                vec!["enclose", "/s", "/w", "--wrong"],
                "an option is unknown",
            ),
            (vec!["enclose", "/s", "/w", "--hide"], "a path is missing"),
        ] {
            let failure = run(arguments.iter().map(OsString::from)).expect_err("wrong");
            assert_eq!(failure.to_string(), expected, "{arguments:?}");
        }
    }
}
