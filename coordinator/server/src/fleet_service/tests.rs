use regatta_wire::v1::fleet_client::FleetClient;
use tonic::Code;

use super::*;
use crate::runs::tests::fake_agent::first_report;
use crate::runs::tests::fixture::Fixture;

type States = Streaming<v1::DesiredState>;

async fn connect(
    fixture: &Fixture,
    first: v1::AgentReport,
) -> (mpsc::Sender<v1::AgentReport>, States) {
    let (reports, outgoing) = mpsc::channel(4);
    reports.send(first).await.expect("is open");
    let mut client = FleetClient::new(fixture.channel.clone());
    let states = client
        .sync(ReceiverStream::new(outgoing))
        .await
        .expect("connects");
    (reports, states.into_inner())
}

/// How a connection ends.
async fn end_of(states: &mut States) -> Status {
    loop {
        match states.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a reason"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn another_version_is_refused_and_told_both() {
    let fixture = Fixture::start().await;
    let report = v1::AgentReport {
        protocol_version: 99,
        ..first_report("a")
    };
    let (_reports, mut states) = connect(&fixture, report).await;
    let status = end_of(&mut states).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("99") && status.message().contains("speaks 1"));
}

#[tokio::test]
async fn a_report_that_breaks_a_rule_names_the_field() {
    let fixture = Fixture::start().await;
    let report = v1::AgentReport {
        offer: None,
        ..first_report("a")
    };
    let (_reports, mut states) = connect(&fixture, report).await;
    let status = end_of(&mut states).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().starts_with("offer"),
        "{}",
        status.message()
    );

    let (reports, mut states) = connect(&fixture, first_report("a")).await;
    states.message().await.expect("goes on");
    reports.send(first_report("a")).await.expect("is open");
    let status = end_of(&mut states).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().starts_with("sequence"),
        "{}",
        status.message()
    );
}

#[tokio::test]
async fn the_newer_of_two_connections_wins() {
    let fixture = Fixture::start().await;
    let (_first, mut older) = connect(&fixture, first_report("a")).await;
    older.message().await.expect("goes on");
    let newer = v1::AgentReport {
        incarnation: "2".to_owned(),
        ..first_report("a")
    };
    let (_second, mut states) = connect(&fixture, newer).await;
    assert!(states.message().await.expect("goes on").is_some());
    assert_eq!(end_of(&mut older).await.code(), Code::AlreadyExists);
    let agents = fixture.dispatcher.list_agents();
    assert_eq!(agents.len(), 1);
    assert!(agents[0].connected);
}

#[tokio::test]
async fn agents_are_listed_and_drained() {
    let fixture = Fixture::start().await;
    let (reports, mut states) = connect(&fixture, first_report("a")).await;
    states.message().await.expect("goes on");
    let mut client = FleetClient::new(fixture.channel.clone());
    let drain = |agent: &str| v1::DrainAgentRequest {
        agent_id: agent.to_owned(),
        drain: true,
    };
    let unknown = client
        .drain_agent(drain("b"))
        .await
        .expect_err("is unknown");
    assert_eq!(unknown.code(), Code::NotFound);
    client.drain_agent(drain("a")).await.expect("is drained");
    while !states
        .message()
        .await
        .expect("goes on")
        .expect("a state")
        .drain
    {}
    let listed = client
        .list_agents(v1::ListAgentsRequest {})
        .await
        .expect("lists");
    assert!(listed.into_inner().agents[0].draining);
    drop(reports);
    while fixture.dispatcher.list_agents()[0].connected {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "this one is made by whoever broke the stream"
)]
async fn a_stream_that_breaks_is_not_one_that_ends() {
    let fixture = Fixture::start().await;
    let broken = || Err(Status::out_of_range("the message is too large"));
    for before in [Vec::new(), vec![Ok(first_report("a"))]] {
        let mut reports = futures::stream::iter(before.into_iter().chain([broken()]));
        let (states, _receiver) = mpsc::channel(4);
        let ended = serve(&fixture.dispatcher, &mut reports, &states).await;
        let failure = ended.expect_err("the stream broke");
        assert!(failure.message().contains("too large"), "{failure:?}");
        assert_eq!(Status::from(failure).code(), Code::OutOfRange);
    }
}
