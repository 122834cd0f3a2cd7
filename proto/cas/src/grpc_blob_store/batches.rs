//! Batches of small blobs (REAPI, `BatchUpdateBlobs` and `BatchReadBlobs`).

use std::collections::HashMap;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use regatta_model::Digest;
use regatta_wire::reapi::{self, compressor, digest_function};
use tonic::Status;

use super::Remote;
use super::coalescer::Item;
use super::retry::with_retries;
use super::status::{batch_status, is_mismatch, is_passing, store_error};
use crate::StoreError;

/// The answer of the server about each blob.
type Answers<T> = HashMap<Digest, Result<T, Status>>;

/// Sends blobs, each once, and tells what became of each item.
pub(super) fn update(
    remote: Remote,
    batch: Vec<Item<Bytes>>,
) -> BoxFuture<'static, Vec<Result<(), StoreError>>> {
    async move {
        let blobs: HashMap<Digest, Bytes> = batch
            .iter()
            .map(|item| (item.digest, item.input.clone()))
            .collect();
        let answers = with_retries(|| async {
            let answers = update_once(&remote, &blobs).await?;
            retry_if_all_pass(answers)
        });
        answers_in_order(&batch, answers.await)
    }
    .boxed()
}

/// Reads blobs, each once, and tells what became of each item.
pub(super) fn read(
    remote: Remote,
    batch: Vec<Item<()>>,
) -> BoxFuture<'static, Vec<Result<Bytes, StoreError>>> {
    async move {
        let mut digests: Vec<Digest> = batch.iter().map(|item| item.digest).collect();
        digests.sort_unstable();
        digests.dedup();
        let answers = with_retries(|| async {
            let answers = read_once(&remote, &digests).await?;
            retry_if_all_pass(answers)
        });
        answers_in_order(&batch, answers.await)
    }
    .boxed()
}

/// A batch in which some blob failed for a passing reason is worth repeating as a whole.
fn retry_if_all_pass<T>(answers: Answers<T>) -> Result<Answers<T>, Status> {
    let passing = answers.values().filter_map(|answer| answer.as_ref().err());
    let passing: Vec<&Status> = passing.filter(|status| is_passing(status)).collect();
    match passing.first() {
        Some(status) if passing.len() == answers.len() => Err((*status).clone()),
        Some(_) | None => Ok(answers),
    }
}

async fn update_once(
    remote: &Remote,
    blobs: &HashMap<Digest, Bytes>,
) -> Result<Answers<()>, Status> {
    let request = |(digest, data): (&Digest, &Bytes)| reapi::batch_update_blobs_request::Request {
        digest: Some(digest.into()),
        data: data.clone(),
        compressor: compressor::Value::Identity.into(),
    };
    let request = reapi::BatchUpdateBlobsRequest {
        instance_name: remote.instance_name.to_string(),
        requests: blobs.iter().map(request).collect(),
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
    answers: Result<Answers<T>, Status>,
) -> Vec<Result<T, StoreError>> {
    let answer_to = |item: &Item<I>| match &answers {
        Ok(answers) => match answers.get(&item.digest) {
            Some(Ok(value)) => Ok(value.clone()),
            Some(Err(status)) => Err(error_of(&item.digest, status)),
            None => Err(StoreError::Unavailable {
                detail: format!("the server did not answer about blob {}", item.digest),
            }),
        },
        Err(status) => Err(store_error(None, status)),
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
