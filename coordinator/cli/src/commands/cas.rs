//! `regatta cas`.

use std::io::Write as _;
use std::path::PathBuf;

use regatta_model::Timestamp;
use regatta_server::{
    CacheUsage, InspectError, StoreFault, StoreLocation, StoreReport, TenantUsage, cache_usage,
    verify_store,
};
use serde_json::{Value, json};

use super::table::table;
use crate::directories;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::options::{CasCommand, CasOptions};
use crate::standard_output::standard_output;

pub(super) async fn cas(options: CasOptions) -> Result<ExitCode, Failure> {
    let mut location = StoreLocation {
        state_directory: match options.state_dir {
            Some(directory) => directory,
            None => default_directory()?,
        },
        storage: options.storage,
        ledger: None,
    };
    let (text, code) = match options.command {
        CasCommand::Usage => {
            let usage = super::blocking(move || cache_usage(&location)).await?;
            let usage = usage.map_err(failure)?;
            let text = match options.json {
                true => usage_as_json(&usage),
                false => usage_as_table(&usage, Timestamp::from(std::time::SystemTime::now())),
            };
            (text, ExitCode::Good)
        }
        CasCommand::Verify { repair, ledger } => {
            let ledger = ledger.map(|it| it.resolve(&|name| std::env::var_os(name)));
            location.ledger = ledger.transpose().or_exit(ExitCode::BadConfiguration)?;
            let report = verify_store(&location, repair).await.map_err(failure)?;
            let text = match options.json {
                true => report_as_json(&report),
                false => report_as_text(&report),
            };
            let code = match report.is_good() {
                true => ExitCode::Good,
                false => ExitCode::NotReleasable,
            };
            (text, code)
        }
    };
    let mut stdout = standard_output();
    stdout.write_all(text.as_bytes()).or_exit(ExitCode::Local)?;
    Ok(code)
}

/// Where a coordinator of this user's is likely to be.
fn default_directory() -> Result<PathBuf, Failure> {
    let alone = directories::state("coordinator").or_exit(ExitCode::Local)?;
    if alone.exists() {
        return Ok(alone);
    }
    let up = directories::state("up").or_exit(ExitCode::Local)?;
    Ok(up.join("coordinator"))
}

fn failure(error: InspectError) -> Failure {
    let code = match error {
        InspectError::NoState { .. }
        | InspectError::NoStorage { .. }
        | InspectError::NotItsStorage { .. }
        | InspectError::Open(_)
        | InspectError::LedgerNotNamed
        | InspectError::OtherLedger { .. } => ExitCode::BadConfiguration,
        InspectError::Store(_) => ExitCode::Infrastructure,
        InspectError::Busy(_) | InspectError::Ledger(_) | InspectError::File { .. } => {
            ExitCode::Local
        }
    };
    Failure {
        code,
        error: error.into(),
    }
}

/// Each part of the usage with its name.
fn parts(usage: &CacheUsage) -> Vec<(String, TenantUsage)> {
    let tenants = usage.tenants.iter();
    let mut parts: Vec<_> = tenants
        .map(|(tenant, usage)| match tenant.as_str() {
            "" => ("(default)".to_owned(), *usage),
            name => (name.to_owned(), *usage),
        })
        .collect();
    for (name, part) in [
        ("(unclaimed)", usage.unclaimed),
        ("(verdicts)", usage.verdicts),
    ] {
        if part != TenantUsage::default() {
            parts.push((name.to_owned(), part));
        }
    }
    parts.push(("(all)".to_owned(), usage.all));
    parts
}

/// What a part of the table is.
const UNCLAIMED: &str = "(unclaimed) is what was found in the storage without a word of who used it: a coordinator that \
     is killed loses who used what in its last seconds. It counts for a tenant again once that uses it; until then it is \
     in no tenant's limit, and goes for --cache-size as what was used when it was found.\n";

fn usage_as_table(usage: &CacheUsage, now: Timestamp) -> String {
    let rows: Vec<[String; 7]> = parts(usage)
        .into_iter()
        .map(|(name, part)| {
            [
                name,
                size(part.bytes),
                size(part.verdict_bytes),
                (part.blobs + part.chunked_blobs).to_string(),
                part.results.to_string(),
                part.assets.to_string(),
                part.oldest_use
                    .map_or_else(String::new, |used| age(now, used)),
            ]
        })
        .collect();
    let note = match usage.is_own_part {
        true => {
            "This is what this coordinator has used. What else is in its storage is not counted: nothing goes from one \
             without a limit.\n"
        }
        false => "",
    };
    let unclaimed = match usage.unclaimed == TenantUsage::default() {
        true => "",
        false => UNCLAIMED,
    };
    let table = table(
        [
            "TENANT",
            "SIZE",
            "FOR VERDICTS",
            "BLOBS",
            "RESULTS",
            "ASSETS",
            "OLDEST USE",
        ],
        &rows,
    );
    format!("{table}{unclaimed}{note}")
}

fn usage_as_json(usage: &CacheUsage) -> String {
    let part = |part: &TenantUsage| {
        json!({
            "bytes": part.bytes,
            "verdict_bytes": part.verdict_bytes,
            "blobs": part.blobs,
            "chunked_blobs": part.chunked_blobs,
            "results": part.results,
            "assets": part.assets,
            "oldest_use_seconds": part.oldest_use.map(|used| used.as_nanos() / 1_000_000_000),
        })
    };
    let tenants = usage.tenants.iter();
    let tenants: serde_json::Map<String, Value> = tenants
        .map(|(tenant, usage)| (tenant.as_str().to_owned(), part(usage)))
        .collect();
    let object = json!({
        "version": 1,
        "is_own_part": usage.is_own_part,
        "all": part(&usage.all),
        "tenants": tenants,
        "unclaimed": part(&usage.unclaimed),
        "verdicts": part(&usage.verdicts),
    });
    format!("{object}\n")
}

fn report_as_text(report: &StoreReport) -> String {
    let mut text = String::new();
    for fault in &report.faults {
        let StoreFault {
            kind,
            digest,
            problem,
            repaired,
        } = fault;
        let end = if *repaired { "; removed" } else { "" };
        text.push_str(&format!("{kind} {digest}: {problem}{end}\n"));
    }
    if !report.leftovers.is_empty() {
        let count = report.leftovers.len();
        let end = match report.leftovers_removed {
            true => "removed",
            false => "--repair removes them",
        };
        text.push_str(&format!(
            "{count} files of unfinished uploads are left: {end}\n"
        ));
    }
    if !report.unfinished.is_empty() {
        text.push_str(&format!(
            "{} files of unfinished writes are in the storage, {} first: they are left alone, as another coordinator \
             may be writing them; if none does, remove them\n",
            report.unfinished.len(),
            report.unfinished[0].display()
        ));
    }
    text.push_str(&format!(
        "{} blobs ({}), {} blobs kept as chunks, {} action results and {} assets were looked at: {}\n",
        report.blobs,
        size(report.bytes),
        report.chunked_blobs,
        report.results,
        report.assets,
        match (report.faults.len(), report.is_good()) {
            (0, _) => "all is well".to_owned(),
            (count, true) => format!("{count} were wrong and removed"),
            (count, false) => format!("{count} are wrong; stop the coordinator and use --repair"),
        }
    ));
    text
}

fn report_as_json(report: &StoreReport) -> String {
    let faults = report.faults.iter().map(|fault| {
        json!({
            "kind": fault.kind,
            "digest": fault.digest.to_string(),
            "problem": fault.problem,
            "repaired": fault.repaired,
        })
    });
    let faults: Vec<Value> = faults.collect();
    let object = json!({
        "version": 1,
        "good": report.is_good(),
        "blobs": report.blobs,
        "bytes": report.bytes,
        "chunked_blobs": report.chunked_blobs,
        "results": report.results,
        "assets": report.assets,
        "faults": faults,
        "leftovers": report.leftovers.len(),
        "leftovers_removed": report.leftovers_removed,
        "unfinished": report.unfinished.len(),
    });
    format!("{object}\n")
}

/// A size in the largest unit of which there is a whole one.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes >> shift > 0);
    match unit {
        Some((shift, name)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

fn age(now: Timestamp, used: Timestamp) -> String {
    let seconds = now.since(used).as_secs();
    match () {
        () if seconds >= 2 * 86_400 => format!("{} days ago", seconds / 86_400),
        () if seconds >= 2 * 3600 => format!("{} hours ago", seconds / 3600),
        () => format!("{} minutes ago", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn usage_is_told_by_tenant() {
        let used = |seconds: u64| Some(Timestamp::from_nanos(seconds * 1_000_000_000));
        let one = TenantUsage {
            bytes: 3 << 29,
            verdict_bytes: 1 << 29,
            blobs: 2,
            chunked_blobs: 1,
            results: 4,
            oldest_use: used(1000),
            ..TenantUsage::default()
        };
        let usage = CacheUsage {
            all: one,
            tenants: BTreeMap::from([("".parse().expect("a name"), one)]),
            ..CacheUsage::default()
        };
        let text = usage_as_table(&usage, Timestamp::from_nanos(8200 * 1_000_000_000));
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        assert_eq!(lines[1], "(default) 1.5 GiB 512.0 MiB 3 4 0 2 hours ago");
        assert_eq!(lines[2], "(all) 1.5 GiB 512.0 MiB 3 4 0 2 hours ago");
        let object: Value = serde_json::from_str(&usage_as_json(&usage)).expect("JSON");
        assert_eq!(object["tenants"][""]["bytes"], 3 << 29);
        assert_eq!(object["tenants"][""]["verdict_bytes"], 1 << 29);
        assert_eq!(object["unclaimed"]["oldest_use_seconds"], Value::Null);
        assert_eq!(object["is_own_part"], false);
        assert_eq!(lines.len(), 3);
        let killed = CacheUsage {
            unclaimed: one,
            ..usage.clone()
        };
        let text = usage_as_table(&killed, Timestamp::from_nanos(0));
        let told: Vec<_> = text
            .lines()
            .filter(|it| it.contains("(unclaimed)"))
            .collect();
        assert!(told.len() == 2 && told[1].contains("is killed"), "{text}");
        let part = CacheUsage {
            is_own_part: true,
            ..usage
        };
        let text = usage_as_table(&part, Timestamp::from_nanos(0));
        assert!(text.ends_with("without a limit.\n"), "{text}");
    }
}
