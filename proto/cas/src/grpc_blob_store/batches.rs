//! Batches of small blobs (REAPI, `BatchUpdateBlobs` and `BatchReadBlobs`).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use regatta_model::Digest;
use regatta_wire::reapi::{self, compressor, digest_function};
use tonic::Status;

use super::Remote;
use super::coalescer::Item;
use super::retry::{MAX_ATTEMPTS, answered, wait_after};
use super::status::{batch_status, is_mismatch, is_passing, store_error, told_to_wait};
use crate::StoreError;

/// The answer of the server about each blob.
type Answers<T> = HashMap<Digest, Result<T, Status>>;

/// What is known once there is nothing more to try.
struct Outcome<T> {
    answers: Answers<T>,
    /// Why there is no answer about the others.
    failure: Option<Status>,
}

/// Sends blobs, each once, and tells what became of each item.
pub(super) fn update(
    remote: Remote,
    batch: Vec<Item<Bytes>>,
) -> BoxFuture<'static, Vec<Result<(), StoreError>>> {
    async move {
        let blobs = batch.iter();
        let blobs = blobs.map(|item| (item.digest, item.input.clone()));
        let blobs: Arc<HashMap<Digest, Bytes>> = Arc::new(blobs.collect());
        let outcome = ask_about(digests_of(&batch), |digests| {
            let (remote, blobs) = (remote.clone(), Arc::clone(&blobs));
            async move { update_once(&remote, &digests, &blobs).await }
        });
        answers_in_order(&batch, outcome.await)
    }
    .boxed()
}

/// Reads blobs, each once, and tells what became of each item.
pub(super) fn read(
    remote: Remote,
    batch: Vec<Item<()>>,
) -> BoxFuture<'static, Vec<Result<Bytes, StoreError>>> {
    async move {
        let outcome = ask_about(digests_of(&batch), |digests| {
            let remote = remote.clone();
            async move { read_once(&remote, &digests).await }
        });
        answers_in_order(&batch, outcome.await)
    }
    .boxed()
}

/// The digests of a batch, each once.
fn digests_of<I>(batch: &[Item<I>]) -> Vec<Digest> {
    let mut digests: Vec<Digest> = batch.iter().map(|item| item.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    digests
}

/// Asks about blobs, and again about those that failed for a passing reason.
async fn ask_about<T, Answering: Future<Output = Result<Answers<T>, Status>>>(
    mut digests: Vec<Digest>,
    once: impl Fn(Vec<Digest>) -> Answering,
) -> Outcome<T> {
    let mut answers = Answers::with_capacity(digests.len());
    let mut attempt = 1;
    loop {
        let failure = match answered(once(digests.clone())).await {
            Ok(new) => {
                answers.extend(new);
                digests.retain(|digest| is_to_be_repeated(answers.get(digest)));
                None
            }
            Err(status) if is_passing(&status) => Some(status),
            Err(status) => {
                return Outcome {
                    answers,
                    failure: Some(status),
                };
            }
        };
        if digests.is_empty() || attempt >= MAX_ATTEMPTS {
            return Outcome { answers, failure };
        }
        tracing::debug!(
            attempt,
            blobs = digests.len(),
            "a part of a batch failed; trying again"
        );
        let of_blobs = digests.iter().filter_map(|digest| answers.get(digest));
        let failed = of_blobs.filter_map(|answer| answer.as_ref().err());
        let told = failed.chain(&failure).map(told_to_wait).max();
        tokio::time::sleep(wait_after(attempt, told.unwrap_or_default())).await;
        attempt += 1;
    }
}

fn is_to_be_repeated<T>(answer: Option<&Result<T, Status>>) -> bool {
    answer.is_some_and(|answer| answer.as_ref().is_err_and(is_passing))
}

async fn update_once(
    remote: &Remote,
    digests: &[Digest],
    blobs: &HashMap<Digest, Bytes>,
) -> Result<Answers<()>, Status> {
    let request = |digest: &Digest| reapi::batch_update_blobs_request::Request {
        digest: Some(digest.into()),
        data: blobs.get(digest).cloned().unwrap_or_default(),
        compressor: compressor::Value::Identity.into(),
    };
    let request = reapi::BatchUpdateBlobsRequest {
        instance_name: remote.instance_name.to_string(),
        requests: digests.iter().map(request).collect(),
        digest_function: digest_function::Value::Sha256.into(),
    };
    let answer = remote
        .storage
        .clone()
        .batch_update_blobs(request)
        .await?
        .into_inner();
    let answers = answer.responses.into_iter().filter_map(|answer| {
        let digest = Digest::try_from(answer.digest?).ok()?;
        Some((digest, batch_status(answer.status).map_or(Ok(()), Err)))
    });
    Ok(answers.collect())
}

async fn read_once(remote: &Remote, digests: &[Digest]) -> Result<Answers<Bytes>, Status> {
    let request = reapi::BatchReadBlobsRequest {
        instance_name: remote.instance_name.to_string(),
        digests: digests.iter().map(Into::into).collect(),
        acceptable_compressors: Vec::new(),
        digest_function: digest_function::Value::Sha256.into(),
    };
    let answer = remote
        .storage
        .clone()
        .batch_read_blobs(request)
        .await?
        .into_inner();
    let answers = answer.responses.into_iter().filter_map(|answer| {
        let digest = Digest::try_from(answer.digest?).ok()?;
        Some((
            digest,
            batch_status(answer.status).map_or(Ok(answer.data), Err),
        ))
    });
    Ok(answers.collect())
}

fn answers_in_order<I, T: Clone>(
    batch: &[Item<I>],
    outcome: Outcome<T>,
) -> Vec<Result<T, StoreError>> {
    let Outcome { answers, failure } = outcome;
    let answer_to = |item: &Item<I>| match (answers.get(&item.digest), &failure) {
        (Some(Ok(value)), _) => Ok(value.clone()),
        (Some(Err(status)), _) => Err(error_of(&item.digest, status)),
        (None, Some(status)) => Err(store_error(None, status)),
        (None, None) => Err(StoreError::Unavailable {
            detail: format!("the server did not answer about blob {}", item.digest),
        }),
    };
    batch.iter().map(answer_to).collect()
}

fn error_of(digest: &Digest, status: &Status) -> StoreError {
    if is_mismatch(status) {
        // What was sent had been verified, so the request is at fault, not the bytes.
        let detail = format!("the server refused blob {digest}: {}", status.message());
        return StoreError::Unavailable { detail };
    }
    store_error(Some(digest), status)
}
