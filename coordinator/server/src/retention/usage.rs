//! How much is stored, and who uses it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use regatta_model::{Digest, TenantId, Timestamp};

use super::USE_LOG;
use super::entry::{Claimant, Entry, Key, Kind, Seconds};
use super::record::Record;
use super::use_log::UseLog;

/// How much is stored, by the log of uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CacheUsage {
    /// Of all tenants together: what several use counts once.
    pub all: TenantUsage,
    /// Of each tenant: what several use counts for each of them.
    pub tenants: BTreeMap<TenantId, TenantUsage>,
    /// What was found in the store, and no tenant has used since.
    pub unclaimed: TenantUsage,
    /// What verdicts name that were given.
    pub verdicts: TenantUsage,
}

/// How much somebody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantUsage {
    /// All of it, in bytes.
    pub bytes: u64,
    /// Blobs that are stored as wholes, chunks of others among them.
    pub blobs: u64,
    /// Blobs that are stored as chunks.
    pub chunked_blobs: u64,
    /// Action results.
    pub results: u64,
    /// Assets.
    pub assets: u64,
    /// When what was unused for longest was used.
    pub oldest_use: Option<Timestamp>,
}

impl TenantUsage {
    fn add(&mut self, entry: &Entry, used: Seconds) {
        self.bytes += entry.size_bytes;
        let count = match entry.key.kind {
            Kind::Result => &mut self.results,
            Kind::Asset => &mut self.assets,
            Kind::Mapping => &mut self.chunked_blobs,
            Kind::Blob => &mut self.blobs,
        };
        *count += 1;
        let used = Timestamp::from_nanos(u64::from(used) * 1_000_000_000);
        self.oldest_use = Some(self.oldest_use.map_or(used, |oldest| oldest.min(used)));
    }
}

/// Notes that things were removed from the store while no coordinator ran. It is not for a log that somebody
/// uses.
///
/// # Errors
/// The log cannot be written.
pub(crate) fn note_gone(
    state: &Path,
    gone: impl Iterator<Item = (Kind, Digest)>,
) -> io::Result<()> {
    let gone = gone.map(|(kind, digest)| Record::Gone {
        key: Key { kind, digest },
    });
    let gone: Vec<Record> = gone.collect();
    if gone.is_empty() {
        return Ok(());
    }
    let (mut log, _) = UseLog::open(&state.join(USE_LOG))?;
    log.append(&gone)?;
    log.sync()
}

/// What the log below a coordinator's state directory says, whether or not the coordinator runs. It is some
/// seconds old if it does.
///
/// # Errors
/// The log cannot be read.
pub(crate) fn usage_of(state: &Path) -> io::Result<CacheUsage> {
    let recalled = UseLog::peek(&state.join(USE_LOG))?;
    let names = recalled.tenants.iter().filter_map(|record| match record {
        Record::Tenant { claimant, tenant } => Some((*claimant, tenant)),
        Record::Used { .. }
        | Record::Released { .. }
        | Record::Gone { .. }
        | Record::Opened
        | Record::Complete => None,
    });
    let names: BTreeMap<Claimant, &TenantId> = names.collect();
    let mut usage = CacheUsage::default();
    for entry in &recalled.entries {
        usage.all.add(entry, entry.last_used());
        for claim in &entry.claims {
            let part = match names.get(&claim.claimant) {
                Some(tenant) => usage.tenants.entry((*tenant).clone()).or_default(),
                None if claim.claimant == Claimant::VERDICTS => &mut usage.verdicts,
                None => &mut usage.unclaimed,
            };
            part.add(entry, claim.used);
        }
    }
    Ok(usage)
}
