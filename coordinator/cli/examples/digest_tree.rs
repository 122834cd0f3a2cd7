//! Measures what `regatta` does with an unchanged project of 50,000 files before it submits anything: find
//! the files, take their digests from the cache, build the tree.
//!
//! `cargo run --release -p regatta --example digest_tree [-- --json]`

#![expect(clippy::print_stdout, reason = "its result goes to standard output")]

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use regatta::tree::{Staging, walk};

const DIRECTORIES: usize = 500;
const FILES_PER_DIRECTORY: usize = 100;
/// A file that changed less long ago is always read.
const SETTLING: Duration = Duration::from_millis(2100);

fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let root = directory.path().canonicalize()?.join("project");
    for number in 0..DIRECTORIES {
        let directory = root.join(format!("directory-{number}"));
        fs::create_dir_all(&directory)?;
        for file in 0..FILES_PER_DIRECTORY {
            let path = directory.join(format!("file-{file}.rs"));
            fs::write(path, format!("{number} {file}"))?;
        }
    }
    let settled = Instant::now() + SETTLING;
    while Instant::now() < settled {
        std::thread::park_timeout(SETTLING);
    }
    let cache = directory.path().join("cache");
    let first = Pass::over(&root, &cache)?;
    let second = Pass::over(&root, &cache)?;
    ensure!(first.read == DIRECTORIES * FILES_PER_DIRECTORY && second.read == 0);
    if std::env::args().any(|argument| argument == "--json") {
        println!(
            "{}",
            serde_json::json!({ "first": first.json(), "unchanged": second.json() })
        );
    } else {
        println!("first: {first}\nunchanged: {second}");
    }
    Ok(())
}

/// What it took to digest the project once, as `regatta` does.
struct Pass {
    files: usize,
    read: usize,
    walked: Duration,
    took: Duration,
}

impl Pass {
    fn over(root: &Path, cache: &Path) -> Result<Self> {
        let started = Instant::now();
        let entries = walk(root, root, &[])?;
        let walked = started.elapsed();
        let mut staging = Staging::new(cache);
        staging.add(&[&entries])?;
        staging.save_cache();
        Ok(Self {
            files: entries.by_path.len(),
            read: staging.read_count(),
            walked,
            took: started.elapsed(),
        })
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "files": self.files,
            "files_read": self.read,
            "find_ms": self.walked.as_secs_f64() * 1e3,
            "ms": self.took.as_secs_f64() * 1e3,
        })
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            files,
            read,
            walked,
            took,
        } = self;
        write!(
            f,
            "{files} files in {took:.0?} ({walked:.0?} to find them), {read} read"
        )
    }
}
