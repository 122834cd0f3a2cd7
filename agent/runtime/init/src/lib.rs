//! The first process of every Regatta container, and the protocol it speaks with its agent.
//!
//! Responsibility: start one command at a time inside the container, tell how it ended and what it
//! used, and leave no process behind.
//!
//! Invariants:
//! - It talks to nobody but the agent, over one Unix stream that it opens before any command runs. The
//!   agent accepts once and then removes the socket, so a command can never reach it.
//! - When that stream ends (the agent died, however), it kills everything and exits.
//! - It is single-threaded and knows no network, no image format and no Docker.
//! - Frames have bounded lengths, and a malformed frame is an error, never a panic.
//! - A command inherits exactly three descriptors, default signal dispositions, `umask` 022, and can
//!   gain no privileges.

mod accounting;
mod codec;
mod command_line;
mod connection;
mod job;
mod libraries;
mod message;
mod namespaces;
mod processes;
mod removal;
mod server;

pub use codec::{DecodeError, EncodeError, FRAME_HEADER_BYTES, FRAME_LIMIT_BYTES, frame_length};
pub use command_line::run;
pub use libraries::missing_libraries;
pub use message::{Ending, Execute, Exited, Request, Response, VERSION};
pub use removal::{empty_directory, empty_open_directory};
