//! What clients do with large blobs.

use regatta_cas::{StoreError, read_all};

use super::storage::{promise, upload_blob, upload_inputs};
use super::{Clock, Services, tenant};
use crate::job::InputTree;
use crate::large::{LargeBlob, LargeUse};
use crate::said::{Said, SaidQueue};

/// Does something with a blob. Whoever fails to is told nothing.
pub(super) async fn have(
    services: Services,
    (blob, kind): (LargeBlob, LargeUse),
    clock: Clock,
    said: SaidQueue,
) {
    let had = match kind {
        LargeUse::Splice => splice(&services, &blob, clock, &said).await,
        LargeUse::Split => split(&services, &blob, clock, &said).await,
        LargeUse::Read => read(&services, &blob, &said).await,
    };
    drop(had);
}

/// Takes the chunks to be there, as one does who had it lately, and uploads what is missing if they are not.
async fn splice(
    services: &Services,
    blob: &LargeBlob,
    clock: Clock,
    said: &SaidQueue,
) -> Result<(), StoreError> {
    let (tenant, digest, chunks) = (tenant(), blob.digest, blob.chunks.clone());
    let pieces = InputTree {
        blobs: blob.pieces.clone(),
    };
    let mut pieces = Some(pieces);
    loop {
        let asked = clock.now();
        let spliced = services.chunks.splice(&tenant, &digest, &chunks).await;
        if spliced.is_ok() {
            let all = [vec![digest], chunks].concat();
            return services.answer(said, promise(all, asked, "a splice")).await;
        }
        let Some(pieces) = pieces.take() else {
            return Ok(());
        };
        upload_inputs(services, pieces, clock, said).await?;
    }
}

async fn split(
    services: &Services,
    blob: &LargeBlob,
    clock: Clock,
    said: &SaidQueue,
) -> Result<(), StoreError> {
    let (tenant, digest) = (tenant(), blob.digest);
    let blobs = services.blobs.of(&tenant);
    let asked = clock.now();
    if blobs.find_missing(&[digest]).await?.is_empty() {
        let there = promise(vec![digest], asked, "an answer");
        services.answer(said, there).await?;
    } else {
        upload_blob(services, blob.bytes.clone(), clock, said).await?;
    }
    let asked = clock.now();
    if let Ok(chunks) = services.chunks.split(&tenant, &digest).await {
        let all = [vec![digest], chunks].concat();
        services
            .answer(said, promise(all, asked, "a split"))
            .await?;
    }
    Ok(())
}

async fn read(services: &Services, blob: &LargeBlob, said: &SaidQueue) -> Result<(), StoreError> {
    let digest = blob.digest;
    let blobs = services.blobs.of(&tenant());
    let bytes = read_all(blobs.as_ref(), &digest, digest.size_bytes()).await?;
    said.say(Said::Read {
        digest,
        is_right: bytes == blob.bytes,
    });
    Ok(())
}
