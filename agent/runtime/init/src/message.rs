//! What agent and init say to each other.
//!
//! The init speaks first, with [`Response::Hello`]. Then every request but [`Request::Kill`] has its
//! answer; a kill is answered by the [`Response::Exited`] of the command it ended, if there was one.

use std::time::Duration;

use crate::codec::{DecodeError, EncodeError, Reader, Writer};

/// The protocol's version. Agent and init come from one build, so unequal versions mean a mix-up.
pub const VERSION: u16 = 3;

/// From the agent to the init.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Run a command. Its standard output and standard error travel with the frame's first byte, and after them
    /// its standard input if it has one.
    Execute(Execute),
    /// Kill the command and everything it left.
    Kill,
    /// Kill stragglers, remove System V IPC objects, empty these directories.
    Wipe {
        /// Absolute paths; missing ones are no error.
        directories: Vec<Vec<u8>>,
    },
    /// Are you there?
    Ping,
}

/// A command to run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Execute {
    /// `argv`.
    pub arguments: Vec<Vec<u8>>,
    /// The whole environment, as `NAME=value`.
    pub environment: Vec<Vec<u8>>,
    /// Absolute, seen from `root`.
    pub working_directory: Vec<u8>,
    /// What becomes the command's root directory, absolute; empty to leave it the container's. It costs the
    /// command every capability.
    pub root: Vec<u8>,
    /// Whether a standard input comes with it; it is `/dev/null` otherwise.
    pub has_stdin: bool,
}

/// From the init to the agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// The init is ready.
    Hello {
        /// Its [`VERSION`].
        version: u16,
    },
    /// The init could not set itself up and ends.
    Failed {
        /// What it tried.
        operation: String,
        /// Why that failed.
        errno: i32,
    },
    /// The command's `exec` succeeded.
    Started,
    /// The command could not be started.
    NotStarted {
        /// Why.
        errno: i32,
    },
    /// The command ended, and no process of it is left.
    Exited(Exited),
    /// The wipe is done.
    Wiped,
    /// Something could not be wiped.
    NotWiped {
        /// Why.
        errno: i32,
    },
    /// Yes.
    Pong,
}

/// How a command ended, with the usage of all its descendants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exited {
    /// How the main process ended.
    pub ending: Ending,
    /// CPU time in user mode.
    pub user_cpu: Duration,
    /// CPU time in the kernel.
    pub system_cpu: Duration,
    /// The largest resident set of any one process, in bytes.
    pub peak_memory_bytes: u64,
    /// From exec to the end of the main process.
    pub wall_time: Duration,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By exiting with a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Request {
    /// The frame of this request.
    ///
    /// # Errors
    /// It is too long.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Execute(execute) => {
                let mut writer = Writer::new(1);
                writer.list(&execute.arguments);
                writer.list(&execute.environment);
                writer.bytes(&execute.working_directory);
                writer.bytes(&execute.root);
                writer.u16(execute.has_stdin.into());
                writer.finish()
            }
            Self::Kill => Writer::new(2).finish(),
            Self::Wipe { directories } => {
                let mut writer = Writer::new(3);
                writer.list(directories);
                writer.finish()
            }
            Self::Ping => Writer::new(4).finish(),
        }
    }

    /// Reads the payload of a frame.
    ///
    /// # Errors
    /// It is no request.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let request = match reader.u8()? {
            1 => Self::Execute(Execute {
                arguments: reader.list()?,
                environment: reader.list()?,
                working_directory: reader.bytes()?,
                root: reader.bytes()?,
                has_stdin: reader.u16()? != 0,
            }),
            2 => Self::Kill,
            3 => Self::Wipe {
                directories: reader.list()?,
            },
            4 => Self::Ping,
            kind => return Err(DecodeError::UnknownKind(kind)),
        };
        reader.finish()?;
        Ok(request)
    }
}

impl Response {
    /// The frame of this response.
    ///
    /// # Errors
    /// It is too long.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::Hello { version } => {
                let mut writer = Writer::new(1);
                writer.u16(*version);
                writer.finish()
            }
            Self::Failed { operation, errno } => {
                let mut writer = Writer::new(2);
                writer.bytes(operation.as_bytes());
                writer.i32(*errno);
                writer.finish()
            }
            Self::Started => Writer::new(3).finish(),
            Self::NotStarted { errno } => number(4, *errno),
            Self::Exited(exited) => exited.encode(),
            Self::Wiped => Writer::new(6).finish(),
            Self::NotWiped { errno } => number(7, *errno),
            Self::Pong => Writer::new(8).finish(),
        }
    }

    /// Reads the payload of a frame.
    ///
    /// # Errors
    /// It is no response.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let response = match reader.u8()? {
            1 => Self::Hello {
                version: reader.u16()?,
            },
            2 => Self::Failed {
                operation: String::from_utf8_lossy(&reader.bytes()?).into_owned(),
                errno: reader.i32()?,
            },
            3 => Self::Started,
            4 => Self::NotStarted {
                errno: reader.i32()?,
            },
            5 => Self::Exited(Exited::decode(&mut reader)?),
            6 => Self::Wiped,
            7 => Self::NotWiped {
                errno: reader.i32()?,
            },
            8 => Self::Pong,
            kind => return Err(DecodeError::UnknownKind(kind)),
        };
        reader.finish()?;
        Ok(response)
    }
}

impl Exited {
    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::new(5);
        let (kind, number) = match self.ending {
            Ending::Code(code) => (0, code),
            Ending::Signal(signal) => (1, signal),
        };
        writer.u16(kind);
        writer.i32(number);
        writer.u64(nanoseconds(self.user_cpu));
        writer.u64(nanoseconds(self.system_cpu));
        writer.u64(self.peak_memory_bytes);
        writer.u64(nanoseconds(self.wall_time));
        writer.finish()
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (kind, number) = (reader.u16()?, reader.i32()?);
        let ending = match kind {
            0 => Ending::Code(number),
            1 => Ending::Signal(number),
            other => return Err(DecodeError::UnknownKind(other.to_le_bytes()[0])),
        };
        Ok(Self {
            ending,
            user_cpu: Duration::from_nanos(reader.u64()?),
            system_cpu: Duration::from_nanos(reader.u64()?),
            peak_memory_bytes: reader.u64()?,
            wall_time: Duration::from_nanos(reader.u64()?),
        })
    }
}

fn number(kind: u8, value: i32) -> Result<Vec<u8>, EncodeError> {
    let mut writer = Writer::new(kind);
    writer.i32(value);
    writer.finish()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{FRAME_HEADER_BYTES, FRAME_LIMIT_BYTES, frame_length};
    use proptest::prelude::*;

    fn list() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)
    }

    proptest! {
        #[test]
        fn requests_survive_the_wire(
            arguments in list(), environment in list(), directory in list(), has_stdin: bool,
        ) {
            let execute = Execute {
                arguments, environment, working_directory: directory.concat(),
                root: directory.concat(), has_stdin,
            };
            for request in [
                Request::Execute(execute),
                Request::Wipe { directories: directory.clone() },
                Request::Kill,
                Request::Ping,
            ] {
                let frame = request.encode().expect("short");
                let length = frame_length(&frame).expect("sane").expect("whole");
                prop_assert_eq!(length, frame.len() - FRAME_HEADER_BYTES);
                prop_assert_eq!(Request::decode(&frame[FRAME_HEADER_BYTES..]), Ok(request));
            }
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            Request::decode(&bytes).ok();
            Response::decode(&bytes).ok();
        }
    }

    #[test]
    fn responses_survive_the_wire() {
        let exited = Exited {
            ending: Ending::Signal(9),
            user_cpu: Duration::from_micros(3),
            system_cpu: Duration::from_secs(4),
            peak_memory_bytes: 5,
            wall_time: Duration::from_nanos(6),
        };
        for response in [
            Response::Hello { version: VERSION },
            Response::Failed {
                operation: "mount /proc".to_owned(),
                errno: 1,
            },
            Response::Started,
            Response::NotStarted { errno: 2 },
            Response::Exited(exited),
            Response::Exited(Exited {
                ending: Ending::Code(-1),
                ..exited
            }),
            Response::Wiped,
            Response::NotWiped { errno: 13 },
            Response::Pong,
        ] {
            let frame = response.encode().expect("short");
            assert_eq!(Response::decode(&frame[FRAME_HEADER_BYTES..]), Ok(response));
        }
    }

    #[test]
    fn every_cut_of_a_frame_is_truncated() {
        let request = Request::Execute(Execute {
            arguments: vec![b"a".to_vec(), b"bc".to_vec()],
            environment: vec![b"A=b".to_vec()],
            working_directory: b"/work".to_vec(),
            root: b"/root".to_vec(),
            has_stdin: true,
        });
        let frame = request.encode().expect("short");
        let payload = &frame[FRAME_HEADER_BYTES..];
        for end in 0..payload.len() {
            assert_eq!(
                Request::decode(&payload[..end]),
                Err(DecodeError::Truncated),
                "cut at {end}"
            );
        }
        let longer = [payload, &[0]].concat();
        assert_eq!(Request::decode(&longer), Err(DecodeError::Trailing));
    }

    #[test]
    fn lengths_are_bounded_both_ways() {
        let long = Request::Wipe {
            directories: vec![vec![0; FRAME_LIMIT_BYTES]],
        };
        assert_eq!(long.encode(), Err(EncodeError::TooLong));
        assert_eq!(frame_length(&[0xff; 4]), Err(DecodeError::TooLong));
        assert_eq!(frame_length(&[0xff; 3]), Ok(None));
        let mut hostile = vec![3];
        hostile.extend_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(Request::decode(&hostile), Err(DecodeError::Truncated));
    }
}
