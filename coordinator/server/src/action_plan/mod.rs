//! From a REAPI action to work for the fleet. Pure: everything it needs is given.
//!
//! Invariants:
//! - What passes can run somewhere: it has a program, its paths stay inside its input root, its timeout
//!   is within the coordinator's limits.
//! - Platform properties that say how to run (`container-image`, `isolation`, `network`, `cpu`, …) become
//!   fields of the lease; all others stay requirements that an agent must offer.

mod command;
mod platform;
mod quantity;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use regatta_model::{Digest, DigestHasher, ImageReference, Platform, Resources, RunId, TenantId};
use regatta_scheduler::ExpectedUnit;
use regatta_wire::convert::{
    InvalidDurationError, RequiredDigestError, duration_from_wire, duration_to_wire,
    required_digest,
};
use regatta_wire::{reapi, v1};

pub use command::{InvalidCommandError, LegacyOutputs, canonical_command};
pub use platform::{InvalidPropertyError, RunSettings, settings_of};
pub use quantity::{ParseQuantityError, parse_cpu_milli, parse_memory_bytes};

use crate::dispatch::{BatchShape, UnitPlan, Work};

/// How long an action is expected to take if nothing is known of it.
pub const DEFAULT_EXPECTED: Duration = Duration::from_secs(1);

/// What applies where an action says nothing, and what it may ask for at most.
#[derive(Clone, Debug)]
pub struct PlanDefaults {
    /// The image for actions without `container-image`; `None` leaves it to the agent.
    pub image: Option<ImageReference>,
    /// What one slot's worth of work uses; no memory means the agent's own share.
    pub resources: Resources,
    /// For actions without a timeout.
    pub timeout: Duration,
    /// The longest timeout that may be asked for.
    pub maximum_timeout: Duration,
    /// What the actions of a tenant's clients ask for by platform properties that they do not name
    /// themselves: some clients have no way to. Jobs of runs are not concerned.
    pub tenant_properties: BTreeMap<TenantId, Platform>,
}

impl PlanDefaults {
    /// A tenant's properties, and what they mean.
    ///
    /// # Errors
    /// [`InvalidPropertyError`] names the first property that no action could ask for.
    pub fn check_tenant_properties(&self) -> Result<(), (TenantId, InvalidPropertyError)> {
        for (tenant, properties) in &self.tenant_properties {
            settings_of(properties.clone(), self).map_err(|error| (tenant.clone(), error))?;
        }
        Ok(())
    }

    /// A digest of what decides how a tenant's actions run and is not in them: another image or other
    /// properties mean other results.
    pub(crate) fn fingerprint(&self, tenant: &TenantId) -> Digest {
        let image = self.image.as_ref().map(ToString::to_string);
        let properties = self.tenant_properties.get(tenant);
        let properties = properties.into_iter().flat_map(Platform::iter);
        let texts = properties.flat_map(|(name, value)| [name, value]);
        let mut hasher = DigestHasher::new();
        for text in std::iter::once(image.as_deref().unwrap_or_default()).chain(texts) {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finish()
    }

    /// What a tenant's action asks for, be it by itself or not.
    fn completed(&self, tenant: &TenantId, mut platform: Platform) -> Platform {
        let Some(properties) = self.tenant_properties.get(tenant) else {
            return platform;
        };
        let asked = |(name, _): &(&str, &str)| platform.get(name).is_none();
        for (name, value) in properties.iter().filter(asked).collect::<Vec<_>>() {
            platform.insert(name, value);
        }
        platform
    }
}

/// An action with everything about it that its messages do not say.
#[derive(Clone, Debug)]
pub struct ActionRequest<'a> {
    /// Who pays.
    pub tenant: TenantId,
    /// On behalf of what.
    pub run: RunId,
    /// Lower runs sooner.
    pub priority: i32,
    /// The digest of `action`.
    pub digest: Digest,
    /// The action.
    pub action: &'a reapi::Action,
    /// The command that it names.
    pub command: &'a reapi::Command,
}

/// Why an action cannot run. Its sender has to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionPlanError {
    /// A digest is not set, or none.
    #[error("the action is incomplete")]
    Digest(#[from] RequiredDigestError),
    /// The command cannot be run as it is.
    #[error("the command cannot run")]
    Command(#[from] InvalidCommandError),
    /// A platform property has a value that means nothing.
    #[error("the platform cannot be understood")]
    Property(#[from] InvalidPropertyError),
    /// The timeout is malformed.
    #[error("the timeout is no duration")]
    Timeout(#[from] InvalidDurationError),
    /// The timeout is longer than the coordinator allows.
    #[error("timeout of {} s exceeds the limit of {} s", asked.as_secs_f64(), limit.as_secs_f64())]
    TimeoutTooLong {
        /// What the action asks for.
        asked: Duration,
        /// What it may ask for.
        limit: Duration,
    },
}

impl ActionPlanError {
    /// The path to the offending field, as `google.rpc.BadRequest` wants it.
    #[must_use]
    pub fn field(&self) -> String {
        match self {
            Self::Digest(
                RequiredDigestError::Missing { field } | RequiredDigestError::Invalid { field, .. },
            ) => format!("action.{field}"),
            Self::Command(error) => format!("command.{}", error.field()),
            Self::Property(error) => format!("platform.properties[{}]", error.name()),
            Self::Timeout(_) | Self::TimeoutTooLong { .. } => "action.timeout".to_owned(),
        }
    }
}

/// The work that carries an action out.
///
/// # Errors
/// [`ActionPlanError`] names the field to fix.
pub fn plan_action(
    request: ActionRequest<'_>,
    defaults: &PlanDefaults,
) -> Result<Work, ActionPlanError> {
    let ActionRequest {
        tenant,
        run,
        priority,
        digest,
        action,
        command,
    } = request;
    let input_root = required_digest(action.input_root_digest.as_ref(), "input_root_digest")?;
    let timeout = timeout_of(action.timeout.as_ref(), defaults)?;
    let platform = defaults.completed(&tenant, platform_of(action, command));
    let settings = settings_of(platform, defaults)?;
    let command = canonical_command(command.clone())?;
    let merge_key = (!action.do_not_cache).then_some(digest);
    let RunSettings {
        image,
        isolation,
        network,
        mount_path,
        chroot,
        resources,
        requirements,
    } = settings;
    let spec = v1::LeaseSpec {
        instance_name: tenant.as_str().to_owned(),
        run_id: run.as_str().to_owned(),
        description: digest.to_string(),
        image: image.map_or_else(String::new, |image| image.as_str().to_owned()),
        isolation: platform::isolation_to_wire(isolation).into(),
        network,
        cpu_milli: resources.cpu_milli,
        memory_bytes: resources.memory_bytes,
        mount_path: mount_path.unwrap_or_default(),
        command: Some(command),
        input_root: Some(input_root.into()),
        timeout: Some(duration_to_wire(timeout)),
        executions: Vec::new(),
        stream_output: false,
        // It has none of these before it is leased.
        task_id: 0,
        claim: Bytes::new(),
        avoid_slot: None,
        chroot,
        worker: None,
        image_id: String::new(),
    };
    // All that an agent is told, but on whose behalf: what another coordinator's settings made of the action, this one
    // does not want.
    let told = || v1::LeaseSpec {
        run_id: String::new(),
        ..spec.clone()
    };
    let unit = UnitPlan {
        expected: ExpectedUnit {
            key: merge_key.map(|_| Digest::of(&told().encode_to_vec())),
            ..DEFAULT_EXPECTED.into()
        },
        extra_arguments: Vec::new(),
        extra_environment: Vec::new(),
    };
    Ok(Work {
        tenant,
        run,
        priority,
        platform: requirements,
        spec,
        units: vec![unit],
        failed_at: None,
        is_ahead: false,
        batch_overhead: Duration::ZERO,
        merge_key,
        shape: BatchShape::ExecutionPerUnit,
    })
}

/// The platform that counts: the action's if it has one, else the command's (REAPI, `Action.platform`).
fn platform_of(action: &reapi::Action, command: &reapi::Command) -> Platform {
    #[expect(
        deprecated,
        reason = "clients of versions before 2.2 know no other place"
    )]
    let platform = action.platform.as_ref().or(command.platform.as_ref());
    platform.map(Platform::from).unwrap_or_default()
}

/// The timeout of an action. Zero counts as unset, since no command could keep to it.
///
/// # Errors
/// It is malformed or above the maximum.
pub fn timeout_of(
    message: Option<&prost_types::Duration>,
    defaults: &PlanDefaults,
) -> Result<Duration, ActionPlanError> {
    let asked = message
        .map(duration_from_wire)
        .transpose()?
        .filter(|asked| !asked.is_zero());
    let Some(asked) = asked else {
        return Ok(defaults.timeout);
    };
    let limit = defaults.maximum_timeout;
    if asked > limit {
        return Err(ActionPlanError::TimeoutTooLong { asked, limit });
    }
    Ok(asked)
}

#[cfg(test)]
mod tests;
