//! A slot: one lease at a time, in one container at a time.

mod collect;
mod container_holder;
mod execution;
mod lease_run;
mod output;
mod output_digest;
mod output_spool;
mod persistent_worker;
mod program_message;
mod publish;
mod request;
mod view;
mod worker;

pub(crate) use output_spool::SpoolSettings;
pub(crate) use worker::{SlotCommand, SlotWorker, Workshop};
