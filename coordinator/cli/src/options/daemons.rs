//! Options of the commands that stay.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use regatta_model::ImageReference;

/// Options of `regatta up`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta up\n  regatta up --slots 4 --image debian:stable-slim\n  regatta up --runtime process   without Docker"
)]
pub struct UpOptions {
    /// Where the coordinator listens.
    #[command(flatten)]
    pub listen: ListenOptions,
    /// What the agent works with.
    #[command(flatten)]
    pub work: WorkOptions,
    /// Where everything is kept; by default below the user's state directory
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Options of `regatta coordinator`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta coordinator\n  regatta coordinator --listen 127.0.0.1:0 --announce addresses.json"
)]
pub struct CoordinatorOptions {
    /// Where it listens.
    #[command(flatten)]
    pub listen: ListenOptions,
    /// The image for work that names none
    #[arg(long)]
    pub image: Option<ImageReference>,
    /// Where blobs and action results are stored: file:///DIR, s3://BUCKET/PREFIX, memory://
    #[arg(long, value_name = "URL")]
    pub storage: Option<String>,
    /// Where everything is kept; by default below the user's state directory
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Options of `regatta agent`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta agent --coordinator grpc://build-host:8980\n  regatta agent --slots 2 --runtime process"
)]
pub struct AgentOptions {
    /// What it works with.
    #[command(flatten)]
    pub work: WorkOptions,
    /// Its name; by default one that is made once and kept
    #[arg(long, value_name = "NAME")]
    pub name: Option<regatta_model::AgentId>,
    /// Where everything is kept; by default below the user's state directory
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Where a coordinator listens.
#[derive(Clone, Debug, Args)]
pub struct ListenOptions {
    /// The address for gRPC; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8980", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// The address for metrics and health; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8981", value_name = "ADDRESS")]
    pub http_listen: SocketAddr,
    /// Write the addresses that are listened on to this file as JSON, once they are
    #[arg(long, value_name = "FILE")]
    pub announce: Option<PathBuf>,
}

/// What an agent works with.
#[derive(Clone, Debug, Args)]
pub struct WorkOptions {
    /// How many commands run at a time; by default one for each CPU
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub slots: Option<u32>,
    /// The image for work that names none
    #[arg(long)]
    pub image: Option<ImageReference>,
    /// What runs commands
    #[arg(long, value_enum, default_value_t)]
    pub runtime: RuntimeChoice,
    /// How much the blobs and input trees of one tenant may take up, such as 20GiB
    #[arg(long, value_name = "SIZE", value_parser = crate::config::parse_size)]
    pub cache_quota: Option<u64>,
    /// How much of the file system must stay free, such as 1GiB
    #[arg(long, value_name = "SIZE", value_parser = crate::config::parse_size)]
    pub minimum_free: Option<u64>,
}

/// What runs commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum RuntimeChoice {
    /// Docker; without it, an error that says what to do.
    #[default]
    Auto,
    /// Docker containers.
    Docker,
    /// Plain processes of this machine: nothing isolates them, images mean nothing.
    Process,
}
