//! A coordinator's storage: the real stacks over a bucket in any weather.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use regatta_cas::{ListedBlobStore, StoreError, put_bytes};
use regatta_ledger::LedgerTenure;
use regatta_model::Digest;
use regatta_server::storage_over_objects::{StorageChoices, StorageOverObjects};
use regatta_server::{CacheSettings, TenantCacheLimits};
use tokio::sync::watch;

use super::{Clock, Services, tenant};
use crate::bucket::WeatheredBucket;
use crate::job::InputTree;
use crate::large::chunking;
use crate::plan::{KEEP, KEEP_VERDICTS, StoragePlan};
use crate::said::{Promise, Said, SaidQueue};
use crate::stock::{Durable, PLACES};
use crate::weather::Weather;

/// How long a blob is known to be there without asking: a tenth of what it is in earnest.
const INDEX_EXPIRY: Duration = Duration::from_secs(60);
/// How much memory blobs that were read lately may take, in bytes, and the largest of them.
const MEMORY_TIER_BYTES: (u64, u64) = (256, 128);
pub(super) fn promise(blobs: Vec<Digest>, asked: Duration, by: &'static str) -> Said {
    Said::Promised(Promise {
        blobs,
        asked,
        lasts: KEEP,
        by,
    })
}

/// Uploads what is missing, as clients do.
pub(super) async fn upload_inputs(
    services: &Services,
    inputs: InputTree,
    clock: Clock,
    said: &SaidQueue,
) -> Result<(), StoreError> {
    let blobs = services.blobs.of(&tenant());
    let (asked, digests) = (clock.now(), inputs.digests().collect::<Vec<_>>());
    let missing = blobs.find_missing(&digests).await?;
    let present = digests.iter().filter(|it| !missing.contains(it));
    let present = promise(present.copied().collect(), asked, "an answer");
    services.answer(said, present).await?;
    for bytes in inputs.blobs {
        if missing.contains(&Digest::of(&bytes)) {
            upload_blob(services, bytes, clock, said).await?;
        }
    }
    Ok(())
}

/// Uploads a blob.
pub(super) async fn upload_blob(
    services: &Services,
    bytes: Bytes,
    clock: Clock,
    said: &SaidQueue,
) -> Result<(), StoreError> {
    let blobs = services.blobs.of(&tenant());
    let stored = put_bytes(blobs.as_ref(), bytes).await?;
    let stored = promise(vec![stored], clock.now(), "an upload");
    services.answer(said, stored).await
}

impl Services {
    /// Says something of the storage once it may be said, as the layer does that all calls go through.
    pub(super) async fn answer(&self, said: &SaidQueue, answer: Said) -> Result<(), StoreError> {
        self.sure().await?;
        said.say(answer);
        Ok(())
    }

    /// Waits until something may be said of the storage.
    pub(super) async fn sure(&self) -> Result<(), StoreError> {
        let sure = self.answers.wait().await;
        sure.map_err(|error| StoreError::Unavailable {
            detail: error.to_string(),
        })
    }
}

pub(super) fn open_storage(
    durable: &Durable,
    weather: &Weather,
    (place, plan): (usize, StoragePlan),
    tenure: Option<watch::Receiver<LedgerTenure>>,
) -> std::io::Result<StorageOverObjects> {
    let bucket = |place: &'static str| -> Arc<dyn ListedBlobStore> {
        Arc::new(WeatheredBucket {
            place,
            shelf: durable.stock.shelf(place),
            weather: weather.clone(),
        })
    };
    let last = durable.last_place.load(Ordering::Relaxed);
    let (memory_bytes, max_blob_bytes) = MEMORY_TIER_BYTES;
    let choices = StorageChoices {
        cache: CacheSettings {
            max_bytes: plan.max_bytes,
            other_tenants: TenantCacheLimits {
                max_bytes: plan.tenant_bytes,
                max_age: plan.max_age,
            },
            keep: KEEP,
            keep_verdicts: KEEP_VERDICTS,
            ..CacheSettings::default()
        },
        packs: plan.packs,
        is_alone: !plan.is_swept,
        memory_bytes,
        max_blob_bytes,
        presence_expiry: INDEX_EXPIRY,
        chunking: chunking(),
        is_succession: last != PLACES && last != place,
        tenure,
    };
    let opened = StorageOverObjects::open(bucket, &durable.states.of(place), choices)?;
    durable.last_place.store(place, Ordering::Relaxed);
    Ok(opened)
}
