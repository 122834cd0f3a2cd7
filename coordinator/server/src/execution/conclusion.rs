//! From an agent's outcome to REAPI's response. Pure.

use regatta_model::{AgentId, Digest};
use regatta_wire::reapi;
use regatta_wire::v1::{ExecutionOutcome, OutcomeKind};

use crate::action_plan::LegacyOutputs;
use crate::status::{self, Failure};

/// What shells report for a process that the kernel killed (128 + SIGKILL).
const KILLED_EXIT_CODE: i32 = 137;

/// The response that an outcome makes, and whether its result may be remembered.
#[derive(Debug, PartialEq)]
pub(super) struct Conclusion {
    pub(super) response: reapi::ExecuteResponse,
    /// The command succeeded, so that its result is worth remembering.
    pub(super) is_success: bool,
    /// Inputs were missing at the agent that had been there.
    pub(super) lost_inputs: bool,
}

impl Conclusion {
    fn failed(failure: Failure, result: Option<reapi::ActionResult>, message: String) -> Self {
        let status = Some(failure.into());
        let response = reapi::ExecuteResponse {
            result,
            status,
            message,
            ..Default::default()
        };
        Self {
            response,
            is_success: false,
            lost_inputs: false,
        }
    }

    fn ran(result: reapi::ActionResult, message: String, is_success: bool) -> Self {
        let status = Some(status::ok());
        let result = Some(result);
        let response = reapi::ExecuteResponse {
            result,
            status,
            message,
            ..Default::default()
        };
        Self {
            response,
            is_success,
            lost_inputs: false,
        }
    }
}

/// What an accepted outcome means to the client (REAPI, `ExecuteResponse`).
pub(super) fn conclude(
    outcome: ExecutionOutcome,
    agent: &AgentId,
    queued: Option<prost_types::Timestamp>,
    legacy: Option<&LegacyOutputs>,
) -> Conclusion {
    let kind = outcome.kind();
    let ExecutionOutcome {
        result,
        message,
        missing_blobs,
        ..
    } = outcome;
    let result = result.map(|mut result| {
        if let Some(legacy) = legacy {
            legacy.copy_symlinks(&mut result);
        }
        with_provenance(result, agent, queued)
    });
    match (kind, result) {
        (OutcomeKind::Completed, Some(result)) => {
            let is_success = result.exit_code == 0;
            Conclusion::ran(result, message, is_success)
        }
        (OutcomeKind::OutOfMemory, result) => {
            let result = result.unwrap_or_default();
            let result = reapi::ActionResult {
                exit_code: KILLED_EXIT_CODE,
                ..result
            };
            Conclusion::ran(
                result,
                or(message, "the command exceeded its memory limit"),
                false,
            )
        }
        (OutcomeKind::TimedOut, result) => {
            let message = or(message, "the command exceeded its timeout");
            Conclusion::failed(status::deadline_exceeded(&message), result, message)
        }
        (OutcomeKind::Rejected | OutcomeKind::ImageAbsent, result) => {
            rejected(message, &missing_blobs, result)
        }
        (
            OutcomeKind::Completed
            | OutcomeKind::Infrastructure
            | OutcomeKind::RegistryUnreachable
            | OutcomeKind::StoreExhausted
            | OutcomeKind::Cancelled
            | OutcomeKind::Unspecified,
            _,
        ) => {
            let text = format!(
                "agent {agent} answered {} without a result",
                kind.as_str_name()
            );
            Conclusion::failed(status::internal(text), None, message)
        }
    }
}

/// A command that ran has a result even so: its exit code and its output say what it did.
fn rejected(
    message: String,
    missing: &[reapi::Digest],
    result: Option<reapi::ActionResult>,
) -> Conclusion {
    let missing: Vec<Digest> = missing
        .iter()
        .filter_map(|digest| Digest::try_from(digest).ok())
        .collect();
    let message = or(message, "the action cannot run anywhere");
    let failure = if missing.is_empty() {
        status::failed_precondition(&message)
    } else {
        status::missing_blobs(&message, &missing)
    };
    let lost_inputs = !missing.is_empty();
    Conclusion {
        lost_inputs,
        ..Conclusion::failed(failure, result, message)
    }
}

fn or(message: String, default: &str) -> String {
    if message.is_empty() {
        default.to_owned()
    } else {
        message
    }
}

fn with_provenance(
    mut result: reapi::ActionResult,
    agent: &AgentId,
    queued: Option<prost_types::Timestamp>,
) -> reapi::ActionResult {
    let metadata = result.execution_metadata.get_or_insert_default();
    if metadata.worker.is_empty() {
        metadata.worker = agent.to_string();
    }
    if metadata.queued_timestamp.is_none() {
        metadata.queued_timestamp = queued;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use regatta_wire::rpc::Code;

    fn outcome(kind: OutcomeKind, exit_code: Option<i32>) -> ExecutionOutcome {
        let result = exit_code.map(|exit_code| reapi::ActionResult {
            exit_code,
            ..Default::default()
        });
        ExecutionOutcome {
            kind: kind.into(),
            result,
            ..Default::default()
        }
    }

    #[track_caller]
    fn check(outcome: ExecutionOutcome, code: Code, exit_code: Option<i32>, is_success: bool) {
        let conclusion = conclude(outcome, &"agent".parse().expect("an id"), None, None);
        let response = conclusion.response;
        assert_eq!(response.status.expect("a status").code, i32::from(code));
        assert_eq!(response.result.map(|result| result.exit_code), exit_code);
        assert_eq!(conclusion.is_success, is_success);
    }

    #[test]
    fn outcomes_become_what_the_specification_wants() {
        use OutcomeKind as Kind;
        check(outcome(Kind::Completed, Some(0)), Code::Ok, Some(0), true);
        check(outcome(Kind::Completed, Some(3)), Code::Ok, Some(3), false);
        check(outcome(Kind::Completed, None), Code::Internal, None, false);
        check(
            outcome(Kind::TimedOut, Some(9)),
            Code::DeadlineExceeded,
            Some(9),
            false,
        );
        check(
            outcome(Kind::OutOfMemory, Some(0)),
            Code::Ok,
            Some(137),
            false,
        );
        check(
            outcome(Kind::Rejected, None),
            Code::FailedPrecondition,
            None,
            false,
        );
        check(
            outcome(Kind::ImageAbsent, None),
            Code::FailedPrecondition,
            None,
            false,
        );
        check(
            outcome(Kind::Rejected, Some(0)),
            Code::FailedPrecondition,
            Some(0),
            false,
        );
        check(
            outcome(Kind::Infrastructure, None),
            Code::Internal,
            None,
            false,
        );
        check(
            outcome(Kind::Unspecified, None),
            Code::Internal,
            None,
            false,
        );
    }

    #[test]
    #[expect(deprecated, reason = "this is about the fields of old clients")]
    fn old_clients_find_symlinks_where_they_look_for_them() {
        let link = |path: &str| reapi::OutputSymlink {
            path: path.to_owned(),
            target: "target".to_owned(),
            ..Default::default()
        };
        let conclude_for = |command: &reapi::Command| {
            let mut outcome = outcome(OutcomeKind::Completed, Some(0));
            outcome.result.as_mut().expect("a result").output_symlinks =
                vec![link("dir"), link("file")];
            let legacy = LegacyOutputs::of(command);
            let agent = "agent".parse().expect("an id");
            let conclusion = conclude(outcome, &agent, None, legacy.as_ref());
            conclusion.response.result.expect("a result")
        };
        let mut command = reapi::Command {
            output_files: vec!["file".to_owned(), "other".to_owned()],
            output_directories: vec!["dir".to_owned()],
            ..Default::default()
        };
        let result = conclude_for(&command);
        assert_eq!(result.output_symlinks.len(), 2);
        assert_eq!(result.output_file_symlinks, [link("file")]);
        assert_eq!(result.output_directory_symlinks, [link("dir")]);
        command.output_paths = vec!["file".to_owned()];
        let result = conclude_for(&command);
        assert_eq!(result.output_file_symlinks, []);
        assert_eq!(result.output_directory_symlinks, []);
    }

    #[test]
    fn inputs_lost_at_the_agent_are_named() {
        let gone = Digest::of(b"gone");
        let outcome = ExecutionOutcome {
            missing_blobs: vec![gone.into()],
            ..outcome(OutcomeKind::Rejected, None)
        };
        let conclusion = conclude(outcome, &"agent".parse().expect("an id"), None, None);
        assert!(conclusion.lost_inputs);
        let status = conclusion.response.status.expect("a status");
        assert_eq!(status.details.len(), 1);
    }
}
