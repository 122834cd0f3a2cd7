//! Verdicts that were given: kept as they were, with what they name (ADR 19).

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use regatta_cas::{BlobRange, BlobStore, BlobStream, StoreError, stream_of};
use regatta_ledger::{ForgottenSubject, GivenVerdict, LedgerError, NamedArtefact, VerdictQuery};
use regatta_model::{Digest, RunId, TenantId, Verdict};
use regatta_verdict::{Artefact, Judgement, Policy, PublicKey};
use regatta_wire::convert::timestamp_to_wire;
use regatta_wire::v1;
use tokio::time::timeout;

use super::event;
use super::log::now;
use super::registry::RunRegistry;
use crate::action_cache::files_of;
use crate::cas::find_missing;
use crate::status::with_sources;

/// How long whoever asks for a verdict waits until it is kept, at most.
const KEEP_PATIENCE: Duration = Duration::from_secs(10);
/// How much of that it waits for the disk: all that anybody has written goes first.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);
/// How many verdicts a list holds if its caller does not say, and at most.
const DEFAULT_LIST: usize = 50;
const MAX_LIST: usize = 1000;

/// Why a verdict is not kept, which holds all the same. Ask for it again once that is mended.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepVerdictError {
    /// Its bundle is not stored.
    #[error("its bundle could not be stored")]
    Store(#[from] StoreError),
    /// Its bundle is stored, and nobody will know of it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What it was made from went meanwhile.
    #[error("its run is no longer kept")]
    Forgotten,
    /// Nobody knows.
    #[error("the ledger or the storage has not answered for {KEEP_PATIENCE:?}")]
    Slow,
}

/// Why a verdict that was given cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadVerdictError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("no verdict {bundle} was given to this tenant")]
    NeverGiven { bundle: Digest },
    #[error(
        "verdict {bundle} was given, and is stored no longer: there was no room for it, its time was over, or it was \
         damaged; whoever was given it may have it yet"
    )]
    Gone { bundle: Digest },
    #[error("the bundle cannot be read")]
    Store(#[source] StoreError),
}

/// A verdict that was given, and whether it is stored yet.
#[derive(Debug)]
pub(super) struct Listed {
    given: GivenVerdict,
    is_gone: bool,
}

impl RunRegistry {
    /// Keeps a verdict that is given to a tenant, with the artefacts that it names, those of them that are there.
    pub(super) async fn keep_verdict(
        &self,
        tenant: &TenantId,
        judgement: &Judgement,
        (bundle, key): (&Bytes, &PublicKey),
    ) -> Result<(), KeepVerdictError> {
        let keeping = self.keep_all(tenant, judgement, (bundle, key));
        let kept = timeout(KEEP_PATIENCE, keeping).await;
        kept.unwrap_or(Err(KeepVerdictError::Slow))
    }

    /// What it names first, then its bundle, and only then, once a loss of power can take neither, that there is one.
    async fn keep_all(
        &self,
        tenant: &TenantId,
        judgement: &Judgement,
        (bundle, key): (&Bytes, &PublicKey),
    ) -> Result<(), KeepVerdictError> {
        let blobs = self.for_verdicts(tenant);
        let artefacts = judgement.artefacts();
        keep_artefacts(blobs.as_ref(), &artefacts).await?;
        let digest = Digest::of(bundle);
        let missing = blobs.find_missing(&[digest]).await?;
        if !missing.is_empty() {
            blobs.put(&digest, stream_of(bundle.clone())).await?;
        }
        // Also if it was there: whoever stored it may not have come so far.
        match timeout(SETTLE_PATIENCE, self.settle()).await {
            Ok(settled) => settled?,
            Err(_) => {
                tracing::warn!(bundle = %digest, "the disk has much to write: a loss of power may take this verdict")
            }
        }
        let named = artefacts.into_iter().map(|it| NamedArtefact {
            name: it.name,
            digest: it.digest,
            is_tree: it.is_tree,
        });
        let given = given(tenant, judgement, digest, key)?;
        let runs = runs_named(judgement);
        let speaker = ForgottenSubject::Run(given.run.clone());
        let ledger = self.ledger();
        let kept = ledger.keep_verdict(given, named.collect(), runs);
        kept.await?;
        // Then nothing was kept. Those of one commit have gone together if any has; else they stay from now on.
        match ledger.is_forgotten(speaker).await? {
            true => Err(KeepVerdictError::Forgotten),
            false => Ok(()),
        }
    }

    /// The verdicts that were given of a run or of a commit.
    pub(super) async fn given_verdicts(
        &self,
        query: VerdictQuery,
    ) -> Result<Vec<Listed>, ReadVerdictError> {
        let limit = match query.limit {
            0 => DEFAULT_LIST,
            limit => limit.min(MAX_LIST),
        };
        let query = VerdictQuery { limit, ..query };
        let found = self.ledger().find_verdicts(query).await?;
        let bundles: Vec<Digest> = found.iter().map(|it| it.bundle).collect();
        let blobs = self.blobs();
        let missing = find_missing(blobs.as_ref(), &bundles).await;
        let missing = missing.map_err(ReadVerdictError::Store)?;
        let listed = found.into_iter().map(|given| Listed {
            is_gone: missing.contains(&given.bundle),
            given,
        });
        Ok(listed.collect())
    }

    /// One that was given to a tenant, as it was.
    pub(super) async fn read_given(
        &self,
        tenant: TenantId,
        bundle: Digest,
    ) -> Result<BlobStream, ReadVerdictError> {
        let query = VerdictQuery {
            tenant: Some(tenant),
            bundle: Some(bundle),
            limit: 1,
            ..VerdictQuery::default()
        };
        if self.ledger().find_verdicts(query).await?.is_empty() {
            return Err(ReadVerdictError::NeverGiven { bundle });
        }
        let body = self.blobs().get(&bundle, BlobRange::ALL).await;
        body.map_err(|error| match error {
            StoreError::NotFound { .. } => ReadVerdictError::Gone { bundle },
            error => ReadVerdictError::Store(error),
        })
    }
}

/// Has artefacts stay for as long as verdicts of the tenant that these blobs are for.
async fn keep_artefacts(blobs: &dyn BlobStore, artefacts: &[Artefact]) -> Result<(), StoreError> {
    let mut digests: Vec<Digest> = artefacts.iter().map(|it| it.digest).collect();
    for tree in artefacts.iter().filter(|it| it.is_tree) {
        match files_of(blobs, &tree.digest).await {
            Ok(files) => digests.extend(files),
            Err(error) => {
                let error = with_sources(&error);
                tracing::warn!(tree = %tree.digest, error, "a directory of a verdict may not be kept");
            }
        }
    }
    find_missing(blobs, &digests).await.map(drop)
}

/// The runs that a verdict is made from, those whose results they found in the cache, and those in which tests failed that
/// passed in them.
fn runs_named(judgement: &Judgement) -> Vec<RunId> {
    let judged = judgement.runs().map(|(run, _)| run);
    let flaky = judgement.flaky_across_runs().iter();
    let failed: BTreeSet<&str> = flaky.map(|it| it.failed_in.as_str()).collect();
    let named = judged
        .chain(judgement.cached_from().into_keys())
        .chain(failed);
    named.filter_map(|run| run.parse().ok()).collect()
}

fn given(
    tenant: &TenantId,
    judgement: &Judgement,
    bundle: Digest,
    key: &PublicKey,
) -> Result<GivenVerdict, LedgerError> {
    let (speaker, _) = judgement.runs().next().unzip();
    let run = speaker.unwrap_or_default().parse();
    let at = now();
    Ok(GivenVerdict {
        tenant: tenant.clone(),
        bundle,
        commit: judgement.commit().unwrap_or_default().to_owned(),
        run: run.map_err(|_| LedgerError::Closed)?,
        verdict: match judgement.verdict() {
            v1::Verdict::Releasable => Verdict::Releasable,
            v1::Verdict::NotReleasable => Verdict::NotReleasable,
            v1::Verdict::Unknown | v1::Verdict::Unspecified => Verdict::Unknown,
        },
        policy: judgement.policy().map(Policy::digest),
        public_key: key.to_pem(),
        first_given_at: at,
        last_given_at: at,
    })
}

impl Listed {
    /// How clients are told of it.
    pub(super) fn to_wire(&self) -> v1::GivenVerdict {
        let given = &self.given;
        v1::GivenVerdict {
            bundle: Some(given.bundle.into()),
            verdict: event::verdict(given.verdict).into(),
            run_id: given.run.to_string(),
            commit: given.commit.clone(),
            policy: given.policy.map(Into::into),
            public_key: given.public_key.clone(),
            first_given_at: Some(timestamp_to_wire(given.first_given_at)),
            last_given_at: Some(timestamp_to_wire(given.last_given_at)),
            is_gone: self.is_gone,
        }
    }
}
