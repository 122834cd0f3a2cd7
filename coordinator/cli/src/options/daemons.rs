//! Options of the commands that stay.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use regatta_model::{ImageReference, TenantId};

use super::cas::CacheOptions;
use crate::ledger_reference::LedgerReference;

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
    /// How much is stored.
    #[command(flatten)]
    pub cache: CacheOptions,
    /// Where everything is kept; by default below the user's state directory
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Options of `regatta coordinator`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta coordinator\n  regatta coordinator --listen 127.0.0.1:0 --announce addresses.json\n  regatta coordinator --standby --ledger postgres://regatta@db/regatta --storage s3://bucket \\\n    --verdict-key key.pem"
)]
pub struct CoordinatorOptions {
    /// Where it listens.
    #[command(flatten)]
    pub listen: ListenOptions,
    /// The image for work that names none; results of another one are not found in the cache
    #[arg(long)]
    pub image: Option<ImageReference>,
    /// A tenant (REAPI instance name) whose clients may write action results, and so are trusted as agents
    /// are (may be repeated)
    #[arg(long, value_name = "TENANT")]
    pub clients_may_write: Vec<regatta_model::TenantId>,
    /// How long an action goes on that nobody watches [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::parse_duration)]
    pub abandoned_grace: Option<Duration>,
    /// The longest timeout that an action may ask for [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::parse_duration)]
    pub maximum_timeout: Option<Duration>,
    /// Where blobs and action results are stored: file:///DIR, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX,
    /// azure://CONTAINER/PREFIX, memory://; credentials and the like of a bucket come from the environment
    /// (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT, AWS_ALLOW_HTTP; GOOGLE_*; AZURE_*).
    /// Parts of uploads that one leaves in a bucket when it is killed are aborted by the next a day later, which needs
    /// the right to
    #[arg(long, value_name = "URL")]
    pub storage: Option<String>,
    /// Where runs are remembered, and what was learnt of tests: postgres://USER@HOST/DATABASE, or where such an
    /// address is to be found: file:FILE, env:VARIABLE; by default a file in the state directory. A password
    /// comes from there, or from PGPASSFILE, never from this line, which everybody can see
    #[arg(
        long,
        env = "REGATTA_LEDGER",
        hide_env_values = true,
        value_name = "ADDRESS"
    )]
    pub ledger: Option<LedgerReference>,
    /// The key that signs verdicts, of `regatta keys --new`; by default one in the state directory
    #[arg(long, value_name = "FILE")]
    pub verdict_key: Option<PathBuf>,
    /// If another coordinator has the ledger, wait for its place instead of refusing to start, and pass calls on
    /// to it meanwhile; it is taken within ten seconds of its death. Both need the same ledger, storage and
    /// verdict key, and a state directory of their own
    #[arg(long, requires_all = ["ledger", "storage", "verdict_key"])]
    pub standby: bool,
    /// Take a ledger with runs whose last coordinator had another storage or another verdict key, which is refused
    /// otherwise; for the start that moves it. What those runs printed and what verdicts keep is found only if it was
    /// brought to the new storage
    #[arg(long)]
    pub adopt_ledger: bool,
    /// A tenant's share of the fleet, relative to the others', who have 1; may be given for each tenant
    #[arg(long = "tenant-weight", value_name = "NAME=N", value_parser = parse_tenant_weight)]
    pub tenant_weights: Vec<(TenantId, NonZeroU32)>,
    /// A platform property for those of a tenant's actions that do not name it, for clients that cannot say
    /// such a thing: `buildstream:chroot-input-root=true` (may be repeated); results of other ones are not found
    #[arg(long = "tenant-property", value_name = "TENANT:NAME=VALUE", value_parser = parse_tenant_property)]
    pub tenant_properties: Vec<(TenantId, String, String)>,
    /// How many of a hundred cached passes and skips a run executes all the same, to see whether they hold, if it
    /// executes anything; a run may ask for another share
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT", value_parser = super::work::parse_percent)]
    pub audit_hits: f64,
    /// How much is stored.
    #[command(flatten)]
    pub cache: CacheOptions,
    /// Where everything is kept; by default below the user's state directory
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Options of `regatta agent`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  regatta agent --coordinator grpc://build-host:8980\n  regatta agent --slots 2 --runtime process\n  regatta agent --label pool=large --cpus 8 --memory 16GiB\n\n\
    Ctrl-C and SIGTERM drain the agent: what runs is finished, for at most --drain-timeout, and nothing new\n\
    is taken. A second one ends it at once. Either way no container is left."
)]
pub struct AgentOptions {
    /// What it works with.
    #[command(flatten)]
    pub work: WorkOptions,
    /// Its name; by default one that is made once and kept
    #[arg(long, value_name = "NAME")]
    pub name: Option<regatta_model::AgentId>,
    /// The address for metrics and health, such as 127.0.0.1:8982; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<SocketAddr>,
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
    /// How much all cached blobs and input trees together may take up, such as 20GiB
    #[arg(long, value_name = "SIZE", value_parser = crate::config::parse_size)]
    pub cache_quota: Option<u64>,
    /// How much of the file system must stay free, such as 1GiB
    #[arg(long, value_name = "SIZE", value_parser = crate::config::parse_size)]
    pub minimum_free: Option<u64>,
    /// What actions may ask for by a platform property of this name and value (may be repeated)
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// How many CPUs commands may ask for together, such as 8 or 2.5; by default all of them
    #[arg(long, value_name = "COUNT", value_parser = crate::config::parse_cpus)]
    pub cpus: Option<u64>,
    /// How much memory commands may ask for together, such as 16GiB; by default all of it
    #[arg(long, value_name = "SIZE", value_parser = parse_some_size)]
    pub memory: Option<u64>,
    /// How long a drain may take before what still runs is killed [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::parse_duration)]
    pub drain_timeout: Option<Duration>,
    /// How large the outputs of one command may be together [default: 16GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_some_size)]
    pub max_output_size: Option<u64>,
    /// How much of each of a command's stdout and stderr is kept [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_some_size)]
    pub max_log_size: Option<u64>,
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

/// Names that say how to run an action, or what every agent says of itself: a label of that name would be
/// asked for by nobody, or would be a lie.
const TAKEN_LABELS: [&str; 9] = [
    "chroot-input-root",
    "container-image",
    "cpu",
    "dockerChrootPath",
    "dockerNetwork",
    "isolation",
    "memory",
    "network",
    "runtime",
];

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, _)) if TAKEN_LABELS.contains(&name) => Err(format!(
            "`{name}` has a meaning of its own as a platform property; choose another name"
        )),
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        Some(_) | None => Err("write it as NAME=VALUE, like pool=large".to_owned()),
    }
}

pub(super) fn parse_some_size(text: &str) -> Result<u64, String> {
    match crate::config::parse_size(text) {
        Ok(0) => Err("it must be more than nothing, such as 1GiB".to_owned()),
        Ok(size) => Ok(size),
        Err(error) => Err(error.to_string()),
    }
}

/// `NAME=N`; the name may be empty, as that of the default tenant is.
fn parse_tenant_weight(text: &str) -> Result<(TenantId, NonZeroU32), String> {
    let (name, weight) = text
        .rsplit_once('=')
        .ok_or("write the tenant's name, `=` and a number, such as `release=4`")?;
    let tenant = name.parse().map_err(|error| format!("{error}"))?;
    let weight = weight
        .parse()
        .map_err(|_| format!("`{weight}` is no share: write a whole number from 1"))?;
    Ok((tenant, weight))
}

/// `TENANT:NAME=VALUE`; the tenant may be empty, as the default one is.
fn parse_tenant_property(text: &str) -> Result<(TenantId, String, String), String> {
    let parts = text
        .split_once('=')
        .and_then(|(head, value)| Some((head.rsplit_once(':')?, value)));
    let Some(((tenant, name), value)) = parts.filter(|((_, name), _)| !name.is_empty()) else {
        let example = "buildstream:chroot-input-root=true";
        return Err(format!(
            "write tenant, `:`, name, `=` and value, such as `{example}`"
        ));
    };
    let tenant = tenant.parse().map_err(|error| format!("{error}"))?;
    Ok((tenant, name.to_owned(), value.to_owned()))
}
