use futures::TryStreamExt as _;
use regatta_model::Digest;
use regatta_wire::bytestream::ReadRequest;
use regatta_wire::reapi;
use tonic::Code;

use crate::harness::{Running, details, missing_in, noise};

fn lookup(instance_name: &str, action: Digest) -> reapi::GetActionResultRequest {
    reapi::GetActionResultRequest {
        instance_name: instance_name.to_owned(),
        action_digest: Some(action.into()),
        inline_stdout: true,
        inline_output_files: vec!["wanted".to_owned()],
        ..Default::default()
    }
}

fn file(path: &str, digest: Digest) -> reapi::OutputFile {
    let digest = Some(digest.into());
    reapi::OutputFile {
        path: path.to_owned(),
        digest,
        ..Default::default()
    }
}

fn update(action: Digest, result: reapi::ActionResult) -> reapi::UpdateActionResultRequest {
    reapi::UpdateActionResultRequest {
        instance_name: "main".to_owned(),
        action_digest: Some(action.into()),
        action_result: Some(result),
        ..Default::default()
    }
}

#[tokio::test]
async fn clients_write_results_only_where_they_may() {
    let coordinator = Running::start_with(|config| {
        config.clients_may_write = ["team/a".parse().unwrap()].into();
    })
    .await;
    let action = coordinator.store("action").await;
    for (instance_name, expected) in [
        ("team/a", true),
        ("main", false),
        ("team", false),
        ("", false),
    ] {
        let request = reapi::UpdateActionResultRequest {
            instance_name: instance_name.to_owned(),
            ..update(action, reapi::ActionResult::default())
        };
        let written = coordinator
            .action_cache()
            .update_action_result(request)
            .await;
        let code = written.map_or_else(|refused| refused.code(), |_| Code::Ok);
        let expected_code = if expected {
            Code::Ok
        } else {
            Code::PermissionDenied
        };
        assert_eq!(code, expected_code, "{instance_name}");
        let found = coordinator
            .action_cache()
            .get_action_result(lookup(instance_name, action))
            .await;
        assert_eq!(found.is_ok(), expected, "{instance_name}");
        let request = reapi::GetCapabilitiesRequest {
            instance_name: instance_name.to_owned(),
        };
        let told = coordinator.capabilities().get_capabilities(request).await;
        let told = told.unwrap().into_inner().cache_capabilities.unwrap();
        let told = told.action_cache_update_capabilities.unwrap();
        assert_eq!(told.update_enabled, expected, "{instance_name}");
    }
}

#[tokio::test]
async fn results_come_back_with_what_was_asked_for_inline() {
    let coordinator =
        Running::start_with(|config| config.clients_may_write = ["main".parse().unwrap()].into())
            .await;
    let mut cache = coordinator.action_cache();
    let (stdout, wanted) = (
        coordinator.store("out").await,
        coordinator.store("file").await,
    );
    let result = reapi::ActionResult {
        output_files: vec![file("other", wanted), file("wanted", wanted)],
        stdout_digest: Some(stdout.into()),
        ..Default::default()
    };
    let action = Digest::of(b"action");
    let refused = cache
        .update_action_result(update(action, result.clone()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(missing_in(&details(&refused)), [format!("blobs/{action}")]);
    coordinator.store("action").await;
    cache
        .update_action_result(update(action, result))
        .await
        .unwrap();
    let found = cache
        .get_action_result(lookup("main", action))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found.stdout_raw, "out");
    assert_eq!(found.output_files[0].contents, "");
    assert_eq!(found.output_files[1].contents, "file");
    for unknown in [lookup("other", action), lookup("main", stdout)] {
        let absent = cache.get_action_result(unknown).await.unwrap_err();
        assert_eq!(absent.code(), Code::NotFound);
    }
    let refused = cache
        .get_action_result(lookup("a/blobs/b", action))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_result_does_not_outlive_its_blobs() {
    let writable = |config: &mut regatta_server::CoordinatorConfig| {
        config.clients_may_write = ["main".parse().unwrap()].into();
    };
    let coordinator = Running::start_with(writable).await;
    let output = coordinator.store("output").await;
    let [output_file] = &coordinator.stored_files()[..] else {
        panic!("one blob was stored")
    };
    let output_file = output_file.clone();
    let action = coordinator.store("action").await;
    let result = reapi::ActionResult {
        output_files: vec![file("o", output)],
        ..Default::default()
    };
    let mut cache = coordinator.action_cache();
    cache
        .update_action_result(update(action, result))
        .await
        .unwrap();
    assert!(
        cache
            .get_action_result(lookup("main", action))
            .await
            .is_ok()
    );
    std::fs::remove_file(output_file).unwrap();
    let coordinator = Running::start_in(coordinator.stop().await, writable).await;
    let mut cache = coordinator.action_cache();
    let absent = cache
        .get_action_result(lookup("main", action))
        .await
        .unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
    coordinator.store("output").await;
    let absent = cache
        .get_action_result(lookup("main", action))
        .await
        .unwrap_err();
    assert_eq!(absent.code(), Code::NotFound, "the entry itself is gone");
}

/// Larger than what is kept in memory.
const LARGE: usize = 300 << 10;

/// What becomes of a read of a blob as a stream, or in a batch.
async fn read(coordinator: &Running, digest: Digest, as_stream: bool) -> Result<(), (i32, String)> {
    if as_stream {
        let request = ReadRequest {
            resource_name: format!("main/blobs/{digest}"),
            ..Default::default()
        };
        let read = async {
            let answers = coordinator.byte_stream().read(request).await?;
            answers.into_inner().try_collect::<Vec<_>>().await
        };
        let read: Result<_, tonic::Status> = read.await;
        return read
            .map(drop)
            .map_err(|status| (status.code().into(), status.message().to_owned()));
    }
    let request = reapi::BatchReadBlobsRequest {
        digests: vec![digest.into()],
        ..Default::default()
    };
    let answer = coordinator.cas().batch_read_blobs(request).await.unwrap();
    let status = answer.into_inner().responses.remove(0).status.unwrap();
    match status.code {
        0 => Ok(()),
        code => Err((code, status.message)),
    }
}

#[tokio::test]
async fn a_read_of_what_somebody_else_deleted_says_what_to_do_and_ends_the_results_that_name_it() {
    let coordinator =
        Running::start_with(|config| config.clients_may_write = ["main".parse().unwrap()].into())
            .await;
    for (seed, as_stream) in [(1, true), (2, false)] {
        let before = coordinator.stored_files();
        let output = coordinator.store(noise(LARGE, seed)).await;
        let mut files = coordinator.stored_files();
        files.retain(|file| !before.contains(file));
        let action = coordinator.store(format!("action {seed}")).await;
        let result = reapi::ActionResult {
            output_files: vec![file("o", output)],
            ..Default::default()
        };
        let mut cache = coordinator.action_cache();
        let updated = cache.update_action_result(update(action, result)).await;
        updated.unwrap();
        read(&coordinator, output, as_stream).await.unwrap();
        std::fs::remove_file(&files[0]).unwrap();
        let (code, message) = read(&coordinator, output, as_stream).await.unwrap_err();
        assert_eq!(code, i32::from(Code::NotFound), "{message}");
        for advice in ["upload it", "run again what made it", "regatta cas verify"] {
            assert!(message.contains(advice), "{message}");
        }
        assert_eq!(coordinator.missing(&[output]).await, [output]);
        let absent = cache.get_action_result(lookup("main", action)).await;
        assert_eq!(absent.unwrap_err().code(), Code::NotFound);
        coordinator.store(noise(LARGE, seed)).await;
        read(&coordinator, output, as_stream).await.unwrap();
    }
}

#[tokio::test]
async fn a_blob_cut_off_by_a_power_loss_is_missing() {
    let coordinator = Running::start().await;
    let output = coordinator.store("output").await;
    let [file] = &coordinator.stored_files()[..] else {
        panic!("one blob was stored")
    };
    std::fs::write(file, "out").unwrap();
    let coordinator = Running::start_in(coordinator.stop().await, |_| {}).await;
    assert_eq!(coordinator.missing(&[output]).await, [output]);
    coordinator.store("output").await;
    assert_eq!(coordinator.missing(&[output]).await, []);
}
