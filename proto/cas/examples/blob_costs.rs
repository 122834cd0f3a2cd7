//! Measures what blobs cost: throughput next to a plain file copy, and presence.
//!
//! `cargo run --release -p regatta-cas --example blob_costs`
#![expect(clippy::print_stdout, reason = "it prints its measurements")]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use regatta_cas::{
    BlobRange, BlobStore, DiskCache, DiskCacheSettings, ExistenceIndex, MemoryBlobStore,
    ObjectStoreBlobStore, VerifyingBlobStore, file_body,
};
use regatta_model::{Digest, DigestHasher};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const LARGE_BYTES: u64 = 1 << 30;
const DIGESTS: u64 = 10_000;

#[tokio::main]
async fn main() -> Outcome {
    let directory = tempfile::tempdir()?;
    measure_large_blob(directory.path()).await?;
    measure_presence().await
}

fn report(what: &str, took: Duration) {
    println!("{what:<44} {took:>10.1?}");
}

async fn measure_large_blob(directory: &Path) -> Outcome {
    let source = directory.join("source");
    let digest = write_source(&source)?;
    let started = Instant::now();
    fs::copy(&source, directory.join("copy"))?;
    report("1 GiB: file copy", started.elapsed());
    fs::remove_file(directory.join("copy"))?;

    let url = format!("file://{}", directory.join("store").display());
    let plain: Arc<dyn BlobStore> = Arc::new(ObjectStoreBlobStore::open(&url)?);
    let verifying: Arc<dyn BlobStore> = Arc::new(VerifyingBlobStore::new(Arc::clone(&plain)));
    // Each in both places, because writeback and what was written before weigh as much as hashing.
    let rounds = [("", &plain), (", verified", &verifying)];
    for (name, store) in rounds.into_iter().chain(rounds.into_iter().rev()) {
        // Replacing a file would add the cost of freeing the old one.
        plain.delete(&digest).await?;
        let started = Instant::now();
        store
            .put(&digest, file_body(File::open(&source)?, 0, LARGE_BYTES))
            .await?;
        report(
            &format!("1 GiB: put into a directory{name}"),
            started.elapsed(),
        );
        let started = Instant::now();
        let body = store.get(&digest, BlobRange::ALL).await?;
        body.try_for_each(|_| std::future::ready(Ok(()))).await?;
        report(
            &format!("1 GiB: get from a directory{name}"),
            started.elapsed(),
        );
    }
    let settings = DiskCacheSettings {
        directory: directory.join("tier"),
        capacity_bytes: 2 * LARGE_BYTES,
        min_free_bytes: 0,
    };
    let tier = DiskCache::open(settings)?.tier(plain, &Digest::EMPTY);
    let started = Instant::now();
    tier.file(&digest, false).await?;
    report(
        "1 GiB: fetch into the disk tier, verified",
        started.elapsed(),
    );
    let started = Instant::now();
    tier.file(&digest, false).await?;
    report("1 GiB: pin in the disk tier", started.elapsed());
    Ok(())
}

fn write_source(path: &Path) -> Outcome<Digest> {
    let (mut file, mut hasher) = (File::create(path)?, DigestHasher::new());
    for at in 0..LARGE_BYTES >> 20 {
        let piece: Vec<u8> = at.to_le_bytes().repeat(1 << 17);
        file.write_all(&piece)?;
        hasher.update(&piece);
    }
    Ok(hasher.finish())
}

async fn measure_presence() -> Outcome {
    let index = ExistenceIndex::new(
        Arc::new(MemoryBlobStore::new()),
        100_000,
        Duration::from_secs(60),
    );
    let digests: Vec<Digest> = (0..DIGESTS)
        .map(|at| Digest::of(&at.to_le_bytes()))
        .collect();
    for at in 0..DIGESTS {
        let bytes = bytes::Bytes::copy_from_slice(&at.to_le_bytes());
        regatta_cas::put_bytes(&index, bytes).await?;
    }
    let started = Instant::now();
    index.find_missing(&digests).await?;
    report("10,000 digests: presence from the index", started.elapsed());
    Ok(())
}
