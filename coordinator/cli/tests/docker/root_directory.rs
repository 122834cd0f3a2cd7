//! An action whose input root is its root directory, as a REAPI client asks for it.

use prost::Message as _;
use regatta_cas::{GrpcBlobStore, put_bytes};
use regatta_model::Digest;
use regatta_runtime::INIT_BINARY;
use regatta_wire::reapi;
use regatta_wire::reapi::execution_client::ExecutionClient;
use tonic::transport::Channel;

use super::fleet::Fleet;
use super::program::PATIENCE;

/// An input root with nothing but a static program that says which libraries its root lacks.
async fn upload(store: &GrpcBlobStore, properties: &[(&str, &str)]) -> Digest {
    let program = put_bytes(store, INIT_BINARY.into()).await.expect("stored");
    let root = reapi::Directory {
        files: vec![reapi::FileNode {
            name: "probe".to_owned(),
            digest: Some(program.into()),
            is_executable: true,
            ..Default::default()
        }],
        ..Default::default()
    };
    let command = reapi::Command {
        arguments: ["./probe", "probe-libraries", "libc.so.6"]
            .map(str::to_owned)
            .to_vec(),
        ..Default::default()
    };
    let property = |(name, value): &(&str, &str)| reapi::platform::Property {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    let root = put_bytes(store, root.encode_to_vec().into()).await;
    let command = put_bytes(store, command.encode_to_vec().into()).await;
    let action = reapi::Action {
        input_root_digest: Some(root.expect("stored").into()),
        command_digest: Some(command.expect("stored").into()),
        platform: Some(reapi::Platform {
            properties: properties.iter().map(property).collect(),
        }),
        ..Default::default()
    };
    let action = put_bytes(store, action.encode_to_vec().into()).await;
    action.expect("stored")
}

async fn stdout_of(channel: &Channel, properties: &[(&str, &str)]) -> String {
    let store = GrpcBlobStore::new(channel.clone(), "");
    let action = upload(&store, properties).await;
    let request = reapi::ExecuteRequest {
        action_digest: Some(action.into()),
        ..Default::default()
    };
    let mut client = ExecutionClient::new(channel.clone());
    let mut operations = client.execute(request).await.expect("taken").into_inner();
    while let Some(operation) = operations.message().await.expect("an operation") {
        let Some(regatta_wire::longrunning::operation::Result::Response(response)) =
            operation.result
        else {
            continue;
        };
        let response: reapi::ExecuteResponse = response.to_msg().expect("a response");
        let result = response.result.clone().expect("a result");
        assert_eq!(result.exit_code, 0, "{response:?}");
        return String::from_utf8_lossy(&result.stdout_raw).into_owned();
    }
    panic!("the operation has no end");
}

#[test]
fn an_input_root_is_the_root_directory_of_an_action_that_asks_for_it() {
    let fleet = Fleet::of(1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let url = fleet.url().replace("grpc://", "http://");
    runtime.block_on(async {
        let channel = Channel::from_shared(url).expect("a URL");
        let channel = channel.connect().await.expect("it listens");
        let both = async {
            let of_image = stdout_of(&channel, &[]).await;
            let of_inputs = stdout_of(&channel, &[("chroot-input-root", "true")]).await;
            let as_siso_says = stdout_of(&channel, &[("dockerChrootPath", ".")]).await;
            (of_image, of_inputs, as_siso_says)
        };
        let (of_image, of_inputs, as_siso_says) =
            tokio::time::timeout(PATIENCE, both).await.expect("in time");
        assert_eq!(of_image, "", "the image has it");
        assert_eq!(of_inputs, "libc.so.6\n", "the input root has none");
        assert_eq!(as_siso_says, of_inputs);
    });
    drop(runtime);
    fleet.stop();
}
