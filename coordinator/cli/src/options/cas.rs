//! Options about what is stored.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use regatta_model::TenantId;
use regatta_server::{CacheSettings, TenantCacheLimits};

use crate::ledger_reference::LedgerReference;

/// The name that stands for all tenants that have no limit of their own.
const OTHERS: &str = "*";

/// How much a coordinator keeps, and for how long.
#[derive(Clone, Debug, Args)]
pub struct CacheOptions {
    /// How much all blobs, action results and assets together may take up, such as 200GiB; what was used least
    /// recently goes [default: as much as the disk holds]. With --storage, this and the limits of tenants are
    /// for a coordinator that has the storage to itself
    #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
    pub cache_size: Option<u64>,
    /// How much of the disk stays free, if everything is in a directory; below half of it nothing more is
    /// stored [default: 1GiB, or a twentieth of a smaller disk]
    #[arg(long, value_name = "SIZE", value_parser = crate::config::parse_size)]
    pub cache_free: Option<u64>,
    /// How long everything is kept after its last use, whatever the limits say: clients count on what they were
    /// told is there [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::parse_duration)]
    pub cache_keep: Option<Duration>,
    /// How much of it a tenant may use, what its verdicts keep among it; `*` is each tenant that is not named (may be repeated)
    #[arg(long = "tenant-cache-size", value_name = "NAME=SIZE", value_parser = parse_tenant_size)]
    pub tenant_sizes: Vec<(Named, u64)>,
    /// How long something is kept after a tenant used it last; `*` is each tenant that is not named (may be
    /// repeated)
    #[arg(long = "tenant-cache-age", value_name = "NAME=DURATION", value_parser = parse_tenant_age)]
    pub tenant_ages: Vec<(Named, Duration)>,
    /// How long artefacts are kept after a verdict was given that names them [default: 365 days]. They take up
    /// to half of --tenant-cache-size, and all of them half of --cache-size or of the disk: what was named
    /// longest ago goes first
    #[arg(long, value_name = "DURATION", value_parser = crate::config::parse_duration)]
    pub keep_verdicts: Option<Duration>,
    /// How long the ledger remembers a run after it ended, with its events, such as 30d, or `all` for ever [default: 90
    /// days]. Runs of one commit go together, once the last of them may; those stay that a verdict names which was
    /// given in the last --keep-verdicts. What is known of tests (how long they take, how often they are flaky) stays
    #[arg(long, value_name = "DURATION|all", value_parser = parse_keep_runs)]
    pub keep_runs: Option<KeepRuns>,
}

/// How long runs are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeepRuns {
    /// For ever.
    All,
    /// For so long after they ended.
    For(Duration),
}

/// Whose limit it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Named {
    /// Each tenant's that has none of its own.
    Others,
    /// One tenant's.
    Tenant(TenantId),
}

impl CacheOptions {
    /// What they say.
    #[must_use]
    pub fn settings(&self) -> CacheSettings {
        let defaults = CacheSettings::default();
        let mut settings = CacheSettings {
            max_bytes: self.cache_size,
            min_free_bytes: self.cache_free,
            keep: self.cache_keep.unwrap_or(defaults.keep),
            keep_verdicts: self.keep_verdicts.unwrap_or(defaults.keep_verdicts),
            ..defaults
        };
        for (named, size) in &self.tenant_sizes {
            limits_of(&mut settings, named).max_bytes = Some(*size);
        }
        for (named, age) in &self.tenant_ages {
            limits_of(&mut settings, named).max_age = Some(*age);
        }
        settings
    }

    /// How long runs are kept; for ever if `None`.
    #[must_use]
    pub const fn keep_runs(&self, default: Option<Duration>) -> Option<Duration> {
        match self.keep_runs {
            Some(KeepRuns::All) => None,
            Some(KeepRuns::For(duration)) => Some(duration),
            None => default,
        }
    }
}

fn parse_keep_runs(text: &str) -> Result<KeepRuns, String> {
    if text == "all" {
        return Ok(KeepRuns::All);
    }
    match crate::config::parse_duration(text) {
        Ok(duration) => Ok(KeepRuns::For(duration)),
        Err(error) => Err(format!("{error}; or write `all`")),
    }
}

fn limits_of<'a>(settings: &'a mut CacheSettings, named: &Named) -> &'a mut TenantCacheLimits {
    match named {
        Named::Others => &mut settings.other_tenants,
        Named::Tenant(tenant) => settings.tenants.entry(tenant.clone()).or_default(),
    }
}

/// The least that may be kept: a smaller limit is a number whose unit was forgotten.
const LEAST_LIMIT_BYTES: u64 = 1 << 10;

fn parse_limit(text: &str) -> Result<u64, String> {
    match super::daemons::parse_some_size(text)? {
        bytes if bytes < LEAST_LIMIT_BYTES => Err(format!(
            "{bytes} bytes hold nothing; a number without a unit is bytes: write one, such as 200GiB"
        )),
        bytes => Ok(bytes),
    }
}

fn parse_tenant_size(text: &str) -> Result<(Named, u64), String> {
    let (named, size) = parse_named(text, "release=20GiB")?;
    Ok((named, parse_limit(size)?))
}

fn parse_tenant_age(text: &str) -> Result<(Named, Duration), String> {
    let (named, age) = parse_named(text, "release=720h")?;
    let age = crate::config::parse_duration(age).map_err(|error| error.to_string())?;
    Ok((named, age))
}

/// The name may be empty, as that of the default tenant is.
fn parse_named<'a>(text: &'a str, example: &str) -> Result<(Named, &'a str), String> {
    let parts = text.rsplit_once('=');
    let (name, value) = parts
        .ok_or_else(|| format!("write the tenant's name, `=` and a limit, such as `{example}`"))?;
    if name == OTHERS {
        return Ok((Named::Others, value));
    }
    let tenant = name.parse().map_err(|error| format!("{error}"))?;
    Ok((Named::Tenant(tenant), value))
}

/// Where a coordinator keeps what it stores.
#[derive(Clone, Debug, Args)]
pub struct CasOptions {
    /// The coordinator's state directory; by default that of `regatta coordinator`, or of `regatta up`
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where its blobs and action results are stored, if it was told: file:///DIR, s3://BUCKET/PREFIX
    #[arg(long, global = true, value_name = "URL")]
    pub storage: Option<String>,
    /// Print one JSON object
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: CasCommand,
}

/// What to do with what is stored.
#[derive(Clone, Debug, Subcommand)]
pub enum CasCommand {
    /// Say how much is stored, and how much each tenant uses; of a --storage without a limit, what its coordinator has
    /// used
    Usage,
    /// Read everything that is stored, and say what is wrong with it; a coordinator may run meanwhile
    #[command(
        after_help = "Ends with 0 if nothing is wrong or all of it was repaired, with 1 if something is."
    )]
    Verify {
        /// Remove what is wrong, so that whoever needs it sends or makes it again. It takes the state directory and
        /// the ledger as a coordinator does, and refuses to begin while one runs that has either; those that stand by
        /// wait until it is done
        #[arg(long)]
        repair: bool,
        /// The ledger that the coordinators of a --storage share, as they were told it
        #[arg(long, value_name = "ADDRESS", requires = "repair")]
        ledger: Option<LedgerReference>,
    },
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::options::{Command, Options};

    #[test]
    fn what_the_command_line_says_of_limits_goes_into_the_settings() {
        let line = "regatta coordinator --cache-size 2GiB --cache-keep 5m --tenant-cache-size *=1GiB \
                    --tenant-cache-age =30s --tenant-cache-size a=b=3MiB --tenant-cache-age a=b=1h";
        let options = Options::try_parse_from(line.split_whitespace()).expect("it is understood");
        let Command::Coordinator(options) = options.command else {
            panic!("{line} is a coordinator's");
        };
        let settings = options.cache.settings();
        assert_eq!(settings.max_bytes, Some(2 << 30));
        assert_eq!(settings.keep.as_secs(), 300);
        assert_eq!(settings.other_tenants.max_bytes, Some(1 << 30));
        let limits = |name: &str| settings.tenants[&name.parse::<TenantId>().expect("a name")];
        assert_eq!(limits("").max_age, Some(Duration::from_secs(30)));
        let both = TenantCacheLimits {
            max_bytes: Some(3 << 20),
            max_age: Some(Duration::from_secs(3600)),
        };
        assert_eq!(limits("a=b"), both);
    }

    #[test]
    fn runs_are_kept_for_a_while_or_for_ever() {
        let default = Some(Duration::from_secs(7));
        let keep = |line: &str| {
            let options = Options::try_parse_from(line.split_whitespace());
            match options.map(|options| options.command) {
                Ok(Command::Coordinator(options)) => Ok(options.cache.keep_runs(default)),
                Ok(Command::Up(options)) => Ok(options.cache.keep_runs(default)),
                Ok(_) => panic!("{line} is no coordinator's"),
                Err(error) => Err(error.to_string()),
            }
        };
        assert_eq!(keep("regatta coordinator"), Ok(default));
        assert_eq!(keep("regatta up --keep-runs all"), Ok(None));
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(keep("regatta coordinator --keep-runs 1h"), Ok(hour));
        for wrong in ["0s", "ever"] {
            let line = format!("regatta coordinator --keep-runs {wrong}");
            let refused = keep(&line).expect_err("is no time");
            assert!(refused.contains("or write `all`"), "{refused}");
        }
    }
}
