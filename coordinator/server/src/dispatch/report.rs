//! From an agent's messages to what the dispatcher can trust.

use std::collections::BTreeSet;

use bytes::Bytes;
use regatta_model::{
    AgentId, Digest, FencingToken, ImageReference, LeaseId, Platform, Resources, SlotIndex,
    UnitIndex,
};
use regatta_scheduler::{Offer, OutcomeKind};
use regatta_wire::{PROTOCOL_VERSION, reapi, v1};

use super::RUNTIME_PROPERTY;

/// How much of an outcome's message is kept, in bytes: it is repeated for each unit that shares the outcome.
const MAX_MESSAGE_BYTES: usize = 16 << 10;
/// The longest incarnation that is accepted, in bytes.
const MAX_INCARNATION_BYTES: usize = 256;

/// A report that obeys every rule of `fleet.proto`.
#[derive(Clone, Debug)]
pub struct ValidReport {
    /// Who reports.
    pub agent: AgentId,
    /// Which start of its daemon.
    pub incarnation: String,
    /// The report's place in its connection, from 1.
    pub sequence: u64,
    pub(super) observed_version: u64,
    pub(super) offer: Option<(v1::AgentOffer, Offer)>,
    pub(super) leases: Vec<ReportedLease>,
    pub(super) draining: bool,
    pub(super) unavailable_reason: String,
}

/// A lease as an agent reports it.
#[derive(Clone, Debug)]
pub(super) struct ReportedLease {
    pub(super) lease: LeaseId,
    pub(super) token: FencingToken,
    pub(super) phase: v1::LeasePhase,
    /// The slot that works on it or did.
    pub(super) slot: Option<SlotIndex>,
    /// The place of the first of `outcomes` among all outcomes of the lease.
    pub(super) first_index: u32,
    pub(super) outcomes: Vec<v1::ExecutionOutcome>,
    /// What the lease is for, if the agent says so; sealed.
    pub(super) claim: Bytes,
}

/// A piece of live output that obeys the rules.
#[derive(Clone, Debug)]
pub struct ValidChunk {
    pub(super) lease: LeaseId,
    pub(super) token: FencingToken,
    pub(super) unit: UnitIndex,
    pub(super) stream: v1::OutputStream,
    pub(super) offset: u64,
    pub(super) data: Bytes,
}

/// Why a report cannot be taken. The agent has to be fixed or replaced.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidReportError {
    /// The agent speaks another version of the protocol.
    #[error(
        "the agent speaks protocol version {found}, this coordinator speaks {supported}: \
         run the same release of regatta on both"
    )]
    WrongVersion {
        /// The agent's version.
        found: u32,
        /// The coordinator's version.
        supported: u32,
    },
    /// A field breaks a rule.
    #[error("{field}: {problem}")]
    Field {
        /// The path to the field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Why a piece of output cannot be taken. The agent has to be fixed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidChunkError {
    /// The stream is neither standard output nor standard error.
    #[error("stream: {found} is not an output stream")]
    Stream {
        /// The number found.
        found: i32,
    },
}

fn invalid(field: impl Into<String>, problem: impl ToString) -> InvalidReportError {
    InvalidReportError::Field {
        field: field.into(),
        problem: problem.to_string(),
    }
}

impl TryFrom<v1::AgentReport> for ValidReport {
    type Error = InvalidReportError;

    fn try_from(report: v1::AgentReport) -> Result<Self, Self::Error> {
        if report.protocol_version != PROTOCOL_VERSION {
            return Err(InvalidReportError::WrongVersion {
                found: report.protocol_version,
                supported: PROTOCOL_VERSION,
            });
        }
        if report.incarnation.is_empty() || report.incarnation.len() > MAX_INCARNATION_BYTES {
            let problem = format!("must have 1 to {MAX_INCARNATION_BYTES} bytes");
            return Err(invalid("incarnation", problem));
        }
        if report.sequence == 0 {
            return Err(invalid("sequence", "counts from 1"));
        }
        let offer = report
            .offer
            .map(|offer| valid_offer(&offer).map(|valid| (offer, valid)));
        Ok(Self {
            agent: report
                .agent_id
                .parse()
                .map_err(|error| invalid("agent_id", error))?,
            incarnation: report.incarnation,
            sequence: report.sequence,
            observed_version: report.observed_version,
            offer: offer.transpose()?,
            leases: valid_leases(report.leases)?,
            draining: report.draining,
            unavailable_reason: report.unavailable_reason,
        })
    }
}

impl ValidReport {
    /// Why the agent takes no new work; `None` if it does.
    pub(super) fn refusal(&self) -> Option<String> {
        match self.unavailable_reason.as_str() {
            "" if self.draining => Some("it drains".to_owned()),
            "" => None,
            reason => Some(reason.to_owned()),
        }
    }

    /// Whether it says what the agent has to give.
    #[must_use]
    pub fn has_offer(&self) -> bool {
        self.offer.is_some()
    }
}

fn valid_offer(offer: &v1::AgentOffer) -> Result<Offer, InvalidReportError> {
    let mut platform = Platform::default();
    for (index, property) in offer.properties.iter().enumerate() {
        if property.name.is_empty() {
            return Err(invalid(
                format!("offer.properties[{index}].name"),
                "must not be empty",
            ));
        }
        platform.insert(&property.name, &property.value);
    }
    if !offer.runtime.is_empty() {
        platform.insert(RUNTIME_PROPERTY, &offer.runtime);
    }
    let mut images = Vec::new();
    for (index, image) in offer.images.iter().enumerate() {
        let field = || format!("offer.images[{index}]");
        let parse = |text: &str| {
            text.parse::<ImageReference>()
                .map_err(|error| invalid(field(), error))
        };
        images.push(parse(&image.reference)?);
        if !image.id.is_empty() && image.id != image.reference {
            images.push(parse(&image.id)?);
        }
    }
    let mut trees = Vec::new();
    for (index, tree) in offer.trees.iter().enumerate() {
        trees.push(valid_digest(Some(tree), || {
            format!("offer.trees[{index}]")
        })?);
    }
    Ok(Offer {
        slots: offer.slots,
        resources: Resources {
            cpu_milli: offer.cpu_milli,
            memory_bytes: offer.memory_bytes,
        },
        platform,
        images,
        trees,
    })
}

fn valid_leases(leases: Vec<v1::HeldLease>) -> Result<Vec<ReportedLease>, InvalidReportError> {
    let mut seen = BTreeSet::new();
    let mut valid = Vec::with_capacity(leases.len());
    for (index, lease) in leases.into_iter().enumerate() {
        if !seen.insert(lease.lease_id) {
            let problem = format!("lease {} is reported twice", lease.lease_id);
            return Err(invalid(format!("leases[{index}].lease_id"), problem));
        }
        valid.push(valid_lease(lease, &format!("leases[{index}]"))?);
    }
    Ok(valid)
}

fn valid_lease(mut lease: v1::HeldLease, path: &str) -> Result<ReportedLease, InvalidReportError> {
    let phase = match v1::LeasePhase::try_from(lease.phase) {
        Ok(v1::LeasePhase::Unspecified) | Err(_) => {
            let problem = format!("{} is no phase of a lease", lease.phase);
            return Err(invalid(format!("{path}.phase"), problem));
        }
        Ok(phase) => phase,
    };
    let carried = u32::try_from(lease.outcomes.len()).unwrap_or(u32::MAX);
    let first_index = lease.outcome_count.checked_sub(carried).ok_or_else(|| {
        let problem = format!(
            "{} is less than the {carried} outcomes sent",
            lease.outcome_count
        );
        invalid(format!("{path}.outcome_count"), problem)
    })?;
    for (index, outcome) in lease.outcomes.iter_mut().enumerate() {
        read_unknown_kind(outcome);
        let end = outcome.message.floor_char_boundary(MAX_MESSAGE_BYTES);
        outcome.message.truncate(end);
        check_outcome(outcome, &format!("{path}.outcomes[{index}]"))?;
    }
    Ok(ReportedLease {
        lease: LeaseId(lease.lease_id),
        token: FencingToken(lease.fencing_token),
        phase,
        slot: lease.slot.map(SlotIndex),
        first_index,
        outcomes: lease.outcomes,
        claim: lease.claim,
    })
}

/// A later release may know more kinds. The agent would tell it again on each connection if it was refused, and nothing else it
/// has done would be heard of.
fn read_unknown_kind(outcome: &mut v1::ExecutionOutcome) {
    if v1::OutcomeKind::try_from(outcome.kind).is_err() {
        let (kind, said) = (outcome.kind, &outcome.message);
        outcome.message = format!(
            "the agent is of a later release: this one does not know outcomes of kind {kind}; upgrade the coordinator: {said}"
        );
        outcome.set_kind(v1::OutcomeKind::Infrastructure);
    }
}

fn check_outcome(outcome: &v1::ExecutionOutcome, path: &str) -> Result<(), InvalidReportError> {
    use v1::OutcomeKind::{
        Cancelled, Completed, ImageAbsent, Infrastructure, OutOfMemory, RegistryUnreachable,
        Rejected, StoreExhausted, TimedOut, Unspecified,
    };
    let needs_result = match v1::OutcomeKind::try_from(outcome.kind) {
        Ok(Completed | TimedOut | OutOfMemory) => true,
        Ok(
            Rejected | ImageAbsent | RegistryUnreachable | StoreExhausted | Infrastructure
            | Cancelled,
        ) => false,
        Ok(Unspecified) | Err(_) => {
            let problem = format!("{} is no kind of outcome", outcome.kind);
            return Err(invalid(format!("{path}.kind"), problem));
        }
    };
    match &outcome.result {
        Some(result) => check_result(result, &format!("{path}.result"))?,
        None if needs_result => return Err(invalid(format!("{path}.result"), "is not set")),
        None => {}
    }
    for (index, blob) in outcome.missing_blobs.iter().enumerate() {
        valid_digest(Some(blob), || format!("{path}.missing_blobs[{index}]"))?;
    }
    Ok(())
}

fn check_result(result: &reapi::ActionResult, path: &str) -> Result<(), InvalidReportError> {
    for (index, file) in result.output_files.iter().enumerate() {
        valid_digest(file.digest.as_ref(), || {
            format!("{path}.output_files[{index}].digest")
        })?;
    }
    for (index, directory) in result.output_directories.iter().enumerate() {
        let digest = directory
            .tree_digest
            .as_ref()
            .or(directory.root_directory_digest.as_ref());
        valid_digest(digest, || {
            format!("{path}.output_directories[{index}].tree_digest")
        })?;
    }
    for (digest, name) in [
        (&result.stdout_digest, "stdout_digest"),
        (&result.stderr_digest, "stderr_digest"),
    ] {
        if digest.is_some() {
            valid_digest(digest.as_ref(), || format!("{path}.{name}"))?;
        }
    }
    Ok(())
}

fn valid_digest(
    digest: Option<&reapi::Digest>,
    field: impl Fn() -> String,
) -> Result<Digest, InvalidReportError> {
    let digest = digest.ok_or_else(|| invalid(field(), "is not set"))?;
    Digest::try_from(digest).map_err(|error| invalid(field(), error))
}

impl TryFrom<v1::OutputChunk> for ValidChunk {
    type Error = InvalidChunkError;

    fn try_from(chunk: v1::OutputChunk) -> Result<Self, Self::Error> {
        let stream = match v1::OutputStream::try_from(chunk.stream) {
            Ok(v1::OutputStream::Unspecified) | Err(_) => {
                return Err(InvalidChunkError::Stream {
                    found: chunk.stream,
                });
            }
            Ok(stream) => stream,
        };
        Ok(Self {
            lease: LeaseId(chunk.lease_id),
            token: FencingToken(chunk.fencing_token),
            unit: UnitIndex(chunk.unit),
            stream,
            offset: chunk.offset,
            data: chunk.data,
        })
    }
}

/// What the scheduler needs to know of an outcome that was checked.
pub(super) fn outcome_kind(outcome: &v1::ExecutionOutcome) -> OutcomeKind {
    match outcome.kind() {
        v1::OutcomeKind::Infrastructure | v1::OutcomeKind::Unspecified => {
            OutcomeKind::Infrastructure(outcome.message.clone())
        }
        v1::OutcomeKind::ImageAbsent => OutcomeKind::Unsuitable(outcome.message.clone()),
        v1::OutcomeKind::RegistryUnreachable | v1::OutcomeKind::StoreExhausted => {
            OutcomeKind::Unreachable(outcome.message.clone())
        }
        v1::OutcomeKind::Cancelled => OutcomeKind::Cancelled,
        v1::OutcomeKind::Completed
        | v1::OutcomeKind::TimedOut
        | v1::OutcomeKind::OutOfMemory
        | v1::OutcomeKind::Rejected => OutcomeKind::Answered,
    }
}

/// The slot of an outcome.
pub(super) const fn slot_of(outcome: &v1::ExecutionOutcome) -> SlotIndex {
    SlotIndex(outcome.slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> v1::AgentReport {
        v1::AgentReport {
            protocol_version: PROTOCOL_VERSION,
            agent_id: "a".to_owned(),
            incarnation: "1".to_owned(),
            sequence: 1,
            ..Default::default()
        }
    }

    fn lease() -> v1::HeldLease {
        v1::HeldLease {
            lease_id: 1,
            fencing_token: 1,
            phase: v1::LeasePhase::Running.into(),
            ..Default::default()
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut v1::AgentReport), expected: &str) {
        let mut message = report();
        change(&mut message);
        let error = ValidReport::try_from(message).expect_err("breaks a rule");
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    #[test]
    fn a_report_without_fault_passes() {
        let mut message = report();
        message.leases.push(lease());
        assert!(ValidReport::try_from(message).is_ok());
    }

    #[test]
    fn an_agent_that_takes_no_work_says_why() {
        for (draining, reason, expected) in [
            (false, "", None),
            (true, "", Some("it drains")),
            (false, "disk full: make room", Some("disk full: make room")),
            (true, "disk full: make room", Some("disk full: make room")),
        ] {
            let message = v1::AgentReport {
                draining,
                unavailable_reason: reason.to_owned(),
                ..report()
            };
            let report = ValidReport::try_from(message).expect("breaks no rule");
            assert_eq!(report.refusal().as_deref(), expected);
        }
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        check(
            |it| it.protocol_version = 7,
            "the agent speaks protocol version 7",
        );
        check(|it| it.agent_id.clear(), "agent_id:");
        check(|it| it.incarnation.clear(), "incarnation:");
        check(|it| it.sequence = 0, "sequence:");
        check(
            |it| it.leases = vec![lease(), lease()],
            "leases[1].lease_id:",
        );
        check(
            |it| {
                it.leases = vec![v1::HeldLease {
                    phase: 9,
                    ..lease()
                }]
            },
            "leases[0].phase:",
        );
        let bad_tree = reapi::Digest {
            hash: "zz".to_owned(),
            size_bytes: 1,
        };
        let offer = v1::AgentOffer {
            trees: vec![bad_tree],
            ..Default::default()
        };
        check(|it| it.offer = Some(offer), "offer.trees[0]:");
    }

    #[track_caller]
    fn check_outcome_refused(outcome: v1::ExecutionOutcome, count: u32, expected: &str) {
        let held = v1::HeldLease {
            outcomes: vec![outcome],
            outcome_count: count,
            ..lease()
        };
        check(|it| it.leases = vec![held], expected);
    }

    #[test]
    fn an_outcome_that_only_a_later_release_knows_is_the_machines() {
        let outcome = v1::ExecutionOutcome {
            kind: 99,
            message: "as it says".to_owned(),
            ..Default::default()
        };
        let held = v1::HeldLease {
            outcomes: vec![outcome],
            outcome_count: 1,
            ..lease()
        };
        let message = v1::AgentReport {
            leases: vec![held],
            ..report()
        };
        let report = ValidReport::try_from(message).expect("breaks no rule");
        match outcome_kind(&report.leases[0].outcomes[0]) {
            OutcomeKind::Infrastructure(said) => {
                assert!(
                    said.contains("kind 99") && said.ends_with("as it says"),
                    "{said}"
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn outcomes_are_checked_to_the_last_digest() {
        let kind = |kind: v1::OutcomeKind| v1::ExecutionOutcome {
            kind: kind.into(),
            ..Default::default()
        };
        let rejected = kind(v1::OutcomeKind::Rejected);
        check_outcome_refused(rejected, 0, "leases[0].outcome_count:");
        check_outcome_refused(
            kind(v1::OutcomeKind::Unspecified),
            1,
            "leases[0].outcomes[0].kind:",
        );
        check_outcome_refused(
            kind(v1::OutcomeKind::Completed),
            1,
            "leases[0].outcomes[0].result:",
        );
        let mut completed = kind(v1::OutcomeKind::Completed);
        completed.result = Some(reapi::ActionResult {
            output_files: vec![reapi::OutputFile::default()],
            ..Default::default()
        });
        check_outcome_refused(
            completed,
            1,
            "leases[0].outcomes[0].result.output_files[0].digest:",
        );
    }
}
