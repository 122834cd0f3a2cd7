//! `regatta agents` and `regatta drain`.

use std::io::Write;

use regatta_wire::v1;

use super::table::table;
use crate::client::{Client, refused};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::history::system_time;
use crate::options::ListFormat;
use crate::standard_output::standard_output;
use crate::terminal::visible_json;

pub(super) async fn agents(client: &Client, format: ListFormat) -> Result<ExitCode, Failure> {
    let listed = client.fleet().list_agents(v1::ListAgentsRequest {}).await;
    let agents = listed
        .map_err(|status| refused("list the agents", &status))?
        .into_inner()
        .agents;
    let text = match format {
        ListFormat::Table => as_table(&agents),
        ListFormat::Json => as_json(&agents),
    };
    standard_output()
        .write_all(text.as_bytes())
        .or_exit(ExitCode::Local)?;
    Ok(ExitCode::Good)
}

pub(super) async fn drain(
    client: &Client,
    agent: String,
    drain: bool,
) -> Result<ExitCode, Failure> {
    let request = v1::DrainAgentRequest {
        agent_id: agent,
        drain,
    };
    let drained = client.fleet().drain_agent(request).await;
    drained.map_err(|status| refused("drain the agent", &status))?;
    Ok(ExitCode::Good)
}

fn as_table(agents: &[v1::AgentStatus]) -> String {
    let rows: Vec<_> = agents
        .iter()
        .map(|agent| {
            let offer = agent.offer.clone().unwrap_or_default();
            let images: Vec<_> = offer
                .images
                .iter()
                .map(|image| image.reference.as_str())
                .collect();
            [
                agent.agent_id.clone(),
                state(agent),
                occupancy(agent, &offer),
                offer.runtime,
                offer.hostname,
                offer.version,
                images.join(","),
            ]
        })
        .collect();
    table(
        [
            "AGENT", "STATE", "BUSY", "RUNTIME", "HOST", "VERSION", "IMAGES",
        ],
        &rows,
    )
}

/// How many slots are busy of how many; and how many CPUs there are if they are fewer, for each job asks for some.
fn occupancy(agent: &v1::AgentStatus, offer: &v1::AgentOffer) -> String {
    let (busy, slots, cpus) = (busy(agent), offer.slots, offer.cpu_milli / 1000);
    match cpus < u64::from(slots) {
        true => format!("{busy}/{slots} (CPUs: {cpus})"),
        false => format!("{busy}/{slots}"),
    }
}

fn busy(agent: &v1::AgentStatus) -> usize {
    let running = agent
        .leases
        .iter()
        .filter(|lease| lease.phase() != v1::LeasePhase::Finished);
    running.count()
}

/// Until when it gets no work.
fn paused_until(agent: &v1::AgentStatus) -> Option<jiff::Timestamp> {
    let until = agent.paused_until.as_ref().and_then(system_time)?;
    let until = jiff::Timestamp::try_from(until).ok()?;
    until.round(jiff::Unit::Second).ok()
}

fn state(agent: &v1::AgentStatus) -> String {
    match (
        agent.connected,
        agent.draining,
        agent.unavailable_reason.as_str(),
    ) {
        (false, _, _) => "lost".to_owned(),
        (true, true, _) => "draining".to_owned(),
        (true, false, "") => match paused_until(agent) {
            Some(until) => format!("paused until {until} (it lost too many leases in a row)"),
            None => "ready".to_owned(),
        },
        (true, false, reason) => format!("unavailable ({reason})"),
    }
}

fn as_json(agents: &[v1::AgentStatus]) -> String {
    let mut text = String::new();
    for agent in agents {
        let offer = agent.offer.clone().unwrap_or_default();
        let images: Vec<_> = offer.images.iter().map(|image| &image.reference).collect();
        let leases: Vec<_> = agent
            .leases
            .iter()
            .map(|lease| serde_json::json!({ "run_id": lease.run_id, "description": lease.description }))
            .collect();
        let object = serde_json::json!({
            "agent_id": agent.agent_id,
            "state": state(agent),
            "paused_until": paused_until(agent).map(|until| until.to_string()),
            "slots": offer.slots,
            "runtime": offer.runtime,
            "hostname": offer.hostname,
            "version": offer.version,
            "images": images,
            "leases": leases,
        });
        text.push_str(&visible_json(&object.to_string()));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_says_how_it_is() {
        let offer = v1::AgentOffer {
            slots: 2,
            cpu_milli: 2000,
            runtime: "docker".to_owned(),
            hostname: "h".to_owned(),
            version: "1".to_owned(),
            ..v1::AgentOffer::default()
        };
        let agent = v1::AgentStatus {
            agent_id: "a".to_owned(),
            offer: Some(offer),
            connected: true,
            unavailable_reason: "the disk is full".to_owned(),
            leases: vec![v1::AgentLease::default()],
            ..v1::AgentStatus::default()
        };
        let text = as_table(std::slice::from_ref(&agent));
        assert!(
            text.contains("a      unavailable (the disk is full)  1/2   docker   h"),
            "{text}"
        );
        let object: serde_json::Value =
            serde_json::from_str(&as_json(std::slice::from_ref(&agent))).expect("JSON");
        assert_eq!(object["slots"], 2);
        let offer = v1::AgentOffer {
            cpu_milli: 1500,
            ..agent.offer.clone().unwrap_or_default()
        };
        assert_eq!(occupancy(&agent, &offer), "1/2 (CPUs: 1)");
    }

    #[test]
    fn an_agent_that_is_paused_says_until_when() {
        let agent = v1::AgentStatus {
            agent_id: "a".to_owned(),
            connected: true,
            paused_until: Some(prost_types::Timestamp {
                seconds: 1_800_000_000,
                nanos: 1_000,
            }),
            ..v1::AgentStatus::default()
        };
        let text = as_table(std::slice::from_ref(&agent));
        let expected =
            "a      paused until 2027-01-15T08:00:00Z (it lost too many leases in a row)";
        assert!(text.contains(expected), "{text}");
        let object: serde_json::Value = serde_json::from_str(&as_json(&[agent])).expect("JSON");
        assert_eq!(object["paused_until"], "2027-01-15T08:00:00Z");
    }
}
