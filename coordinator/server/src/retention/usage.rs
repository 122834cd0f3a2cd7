//! How much is stored, and who uses it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use regatta_model::{Digest, TenantId, Timestamp};

use super::USE_LOG;
use super::entry::{Claim, Claimant, Entry, Key, Kind, charged};
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
    /// What is kept for verdicts that were given, which counts for tenants, too.
    pub verdicts: TenantUsage,
    /// Whether it is only what this coordinator has used: a storage without a limit is not listed, as nothing goes
    /// from it.
    pub is_own_part: bool,
}

/// The file in the state directory that says that the log of uses does not name what is not used here.
const OWN_PART: &str = "uses-of-a-part";

/// Notes whether the log of uses comes to name all that is stored.
///
/// # Errors
/// The state directory cannot be written.
pub(crate) fn note_coverage(state: &Path, is_all: bool) -> io::Result<()> {
    let mark = state.join(OWN_PART);
    match is_all {
        false => std::fs::write(mark, ""),
        true => match std::fs::remove_file(mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        },
    }
}

/// The file in the state directory that says which storage the log of uses is about.
const STORAGE: &str = "uses-of";

/// Notes which storage the log of uses is about.
///
/// # Errors
/// The state directory cannot be written.
pub(crate) fn note_storage(state: &Path, url: &str) -> io::Result<()> {
    match noted_storage(state)?.as_deref() == Some(url) {
        true => Ok(()),
        false => std::fs::write(state.join(STORAGE), url),
    }
}

/// Which storage the log of uses is about, if that was noted.
///
/// # Errors
/// The state directory cannot be read.
pub(crate) fn noted_storage(state: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(state.join(STORAGE)) {
        // One that is cut off by a full disk says nothing.
        Ok(url) => Ok(Some(url).filter(|url| !url.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How much somebody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantUsage {
    /// All of it, in bytes.
    pub bytes: u64,
    /// What of it is kept for verdicts, in bytes.
    pub verdict_bytes: u64,
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
    /// Counts something that these claims are for.
    fn add<'a>(&mut self, entry: &Entry, claims: impl Iterator<Item = &'a Claim> + Clone) {
        let Some(used) = claims.clone().map(|claim| claim.used).max() else {
            return;
        };
        self.bytes += entry.size_bytes;
        if claims.into_iter().any(|it| it.claimant.is_for_verdicts()) {
            self.verdict_bytes += entry.size_bytes;
        }
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
        | Record::Complete
        | Record::Stopped
        | Record::Held { .. } => None,
    });
    let names: BTreeMap<Claimant, &TenantId> = names.collect();
    let mut usage = CacheUsage {
        is_own_part: state.join(OWN_PART).exists(),
        ..CacheUsage::default()
    };
    for entry in &recalled.entries {
        let claims = entry.claims.iter();
        usage.all.add(entry, claims.clone());
        let for_verdicts = claims.clone().filter(|it| it.claimant.is_for_verdicts());
        usage.verdicts.add(entry, for_verdicts);
        for payer in charged(claims.clone()).filter(|it| !it.is_for_verdicts()) {
            let part = match names.get(&payer) {
                Some(tenant) => usage.tenants.entry((*tenant).clone()).or_default(),
                None => &mut usage.unclaimed,
            };
            part.add(
                entry,
                claims.clone().filter(|it| it.claimant.payer() == payer),
            );
        }
    }
    Ok(usage)
}
