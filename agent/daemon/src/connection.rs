//! The agent's one connection to the coordinator, kept up.

mod sync;
mod translate;

pub(crate) use sync::{ConnectionSettings, Outgoing, keep_connected, randomness};
pub(crate) use translate::{Offer, in_first_words, report_to_wire};
