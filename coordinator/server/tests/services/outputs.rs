//! What a client is told of the outputs of its action.

use futures::StreamExt as _;
use regatta_model::Digest;
use regatta_wire::reapi;
use regatta_wire::reapi::symlink_absolute_path_strategy::Value as SymlinkStrategy;
use regatta_wire::v1::OutcomeKind;

use crate::execution::{job, last_of, outcome};
use crate::fake_agent::FakeAgent;
use crate::harness::{Running, noise};

/// Executes a command and gives its result.
async fn run(coordinator: &Running, command: &reapi::Command) -> reapi::ActionResult {
    let action = reapi::Action {
        command_digest: Some(coordinator.store_message(command).await.into()),
        ..job("").action()
    };
    let request = reapi::ExecuteRequest {
        action_digest: Some(coordinator.store_message(&action).await.into()),
        ..job("").request()
    };
    let operations = coordinator.execution().execute(request).await.unwrap();
    last_of(operations.into_inner()).await.result.unwrap()
}

fn link(path: &str) -> reapi::OutputSymlink {
    reapi::OutputSymlink {
        path: path.to_owned(),
        target: "target".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
#[expect(deprecated, reason = "this is about the fields of old clients")]
async fn clients_of_every_version_name_their_outputs() {
    let coordinator = Running::start().await;
    let agent = FakeAgent::start(&coordinator, |spec| {
        let mut outcome = outcome(OutcomeKind::Completed, 0);
        let paths = &spec.command.as_ref().unwrap().output_paths;
        let links = paths.iter().map(|path| link(path)).collect();
        outcome.result.as_mut().unwrap().output_symlinks = links;
        Some(outcome)
    })
    .await;
    let mut command = reapi::Command {
        arguments: vec!["make".to_owned()],
        output_files: vec!["file".to_owned()],
        output_directories: vec!["dir".to_owned()],
        ..Default::default()
    };
    let result = run(&coordinator, &command).await;
    assert_eq!(result.output_symlinks, [link("dir"), link("file")]);
    assert_eq!(result.output_file_symlinks, [link("file")]);
    assert_eq!(result.output_directory_symlinks, [link("dir")]);
    command.output_paths = vec!["new".to_owned()];
    let result = run(&coordinator, &command).await;
    assert_eq!(result.output_symlinks, [link("new")]);
    assert_eq!(result.output_file_symlinks, []);
    assert_eq!(result.output_directory_symlinks, []);
    let [old, new] = &agent.seen()[..] else {
        panic!("it runs for each of them")
    };
    let old = old.command.as_ref().unwrap();
    assert_eq!(old.output_paths, ["dir", "file"]);
    assert_eq!(old.output_directories, ["dir"], "it is made ahead");
    let new = new.command.as_ref().unwrap();
    assert_eq!(new.output_paths, ["new"]);
    assert_eq!(new.output_directories, Vec::<String>::new());
}

#[tokio::test]
async fn absolute_symlinks_are_kept_as_the_capabilities_say() {
    let coordinator = Running::start().await;
    let request = reapi::GetCapabilitiesRequest::default();
    let told = coordinator.capabilities().get_capabilities(request).await;
    let told = told.unwrap().into_inner().cache_capabilities.unwrap();
    let strategy = told.symlink_absolute_path_strategy();
    assert_eq!(strategy, SymlinkStrategy::Allowed);
    let with_link = reapi::Directory {
        symlinks: vec![reapi::SymlinkNode {
            name: "absolute".to_owned(),
            target: "/usr/bin/env".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let root = coordinator.store_message(&with_link).await;
    let tree = reapi::Tree {
        root: Some(with_link),
        children: Vec::new(),
    };
    let tree = coordinator.store_message(&tree).await;
    let expected = reapi::ActionResult {
        output_symlinks: vec![reapi::OutputSymlink {
            target: "/usr/bin/env".to_owned(),
            ..link("out")
        }],
        output_directories: vec![reapi::OutputDirectory {
            path: "dir".to_owned(),
            tree_digest: Some(tree.into()),
            root_directory_digest: Some(root.into()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let made = expected.clone();
    let agent = FakeAgent::start(&coordinator, move |_| {
        let mut outcome = outcome(OutcomeKind::Completed, 0);
        outcome.result = Some(made.clone());
        Some(outcome)
    })
    .await;
    let mut job = job("link");
    job.input_root = Some(root);
    for cached in [false, true] {
        let response = last_of(job.start(&coordinator).await.unwrap()).await;
        assert_eq!(response.cached_result, cached, "{response:?}");
        let result = response.result.unwrap();
        assert_eq!(result.output_symlinks, expected.output_symlinks);
        assert_eq!(result.output_directories, expected.output_directories);
    }
    let seen = agent.seen()[0].input_root.clone();
    assert_eq!(seen, Some(root.into()));
}

#[tokio::test]
async fn output_that_does_not_fit_into_the_answer_stays_out_of_it() {
    let coordinator = Running::start().await;
    let output = noise(3 << 20, 1);
    let digest: reapi::Digest = coordinator.store(output.clone()).await.into();
    let file = reapi::OutputFile {
        path: "file".to_owned(),
        digest: Some(digest.clone()),
        ..Default::default()
    };
    let made = reapi::ActionResult {
        stdout_digest: Some(digest.clone()),
        stderr_digest: Some(digest),
        output_files: vec![file],
        ..Default::default()
    };
    let _agent = FakeAgent::start(&coordinator, move |_| {
        let mut outcome = outcome(OutcomeKind::Completed, 0);
        outcome.result = Some(made.clone());
        Some(outcome)
    })
    .await;
    let action = job("loud").upload(&coordinator).await;
    let request = reapi::ExecuteRequest {
        inline_stderr: true,
        inline_output_files: vec!["file".to_owned()],
        ..job("loud").request()
    };
    let lookup = reapi::GetActionResultRequest {
        instance_name: "main".to_owned(),
        action_digest: Some(action.into()),
        inline_stdout: true,
        inline_stderr: true,
        inline_output_files: vec!["file".to_owned()],
        ..Default::default()
    };
    // The client takes no more than 4 MiB. First it executes, then it finds the result.
    let mut results = Vec::new();
    for _ in 0..2 {
        let operations = coordinator.execution().execute(request.clone()).await;
        let response = last_of(operations.unwrap().into_inner()).await;
        results.push(response.result.unwrap());
    }
    let found = coordinator.action_cache().get_action_result(lookup).await;
    results.push(found.unwrap().into_inner());
    for result in results {
        assert!(result.stdout_raw == output, "the first fits");
        assert_eq!(result.stderr_raw, "");
        assert_eq!(result.output_files[0].contents, "");
        assert!(result.stderr_digest.is_some() && result.output_files[0].digest.is_some());
    }
}

#[tokio::test]
async fn a_tree_that_repeats_its_root_is_not_remembered() {
    let coordinator = Running::start().await;
    let root = reapi::Directory {
        symlinks: vec![reapi::SymlinkNode {
            name: "a".to_owned(),
            target: "b".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let tree = reapi::Tree {
        root: Some(root.clone()),
        children: vec![root],
    };
    let tree: Digest = coordinator.store_message(&tree).await;
    let agent = FakeAgent::start(&coordinator, move |_| {
        let mut outcome = outcome(OutcomeKind::Completed, 0);
        outcome.result.as_mut().unwrap().output_directories = vec![reapi::OutputDirectory {
            path: "dir".to_owned(),
            tree_digest: Some(tree.into()),
            ..Default::default()
        }];
        Some(outcome)
    })
    .await;
    for _ in 0..2 {
        let mut operations = job("tree").start(&coordinator).await.unwrap();
        while operations.next().await.is_some() {}
    }
    assert_eq!(agent.seen().len(), 2);
}
