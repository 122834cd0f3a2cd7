//! The digests under which results are known.

use prost::Message as _;
use regatta_model::Digest;
use regatta_wire::convert::duration_to_wire;
use regatta_wire::reapi;

use super::context::JobContext;
use super::plan::PlannedJob;
use super::surroundings::Surroundings;

/// Changes whenever the same action would be run or judged in another way by this release.
const SALT_VERSION: &str = "regatta 2";

/// The digest of the action that a job's command with these arguments is, with the job's inputs.
///
/// It covers everything that the outcome may depend on: arguments, environment, inputs, outputs, image
/// and platform, resources, timeout, network, where the inputs appear, and, in `judge`, how the outcome
/// is read.
pub(super) fn action_key(
    job: &JobContext,
    command: &reapi::Command,
    judge: &str,
    do_not_cache: bool,
) -> Digest {
    let inputs = &job.input_root;
    let action = action(job.job(), &job.surroundings, inputs, command, judge);
    let action = reapi::Action {
        do_not_cache,
        ..action
    };
    Digest::of(&action.encode_to_vec())
}

/// What tells one attempt at a part of a job's action from every other, in whichever process: who does it for a
/// coordinator that is gone does it for the next.
pub(super) fn attempt_key(
    job: &JobContext,
    (action, part): (&Digest, &str),
    attempt: u32,
) -> Digest {
    let (run, job, action) = (job.run.run.to_string(), job.name(), action.to_string());
    let names = ["regatta attempt", &run, &job, &action, part];
    Digest::of(format!("{}\0{attempt}", names.join("\0")).as_bytes())
}

fn action(
    job: &PlannedJob,
    surroundings: &Surroundings,
    input_root: &Digest,
    command: &reapi::Command,
    judge: &str,
) -> reapi::Action {
    reapi::Action {
        command_digest: Some(Digest::of(&command.encode_to_vec()).into()),
        input_root_digest: Some(input_root.into()),
        timeout: Some(duration_to_wire(job.timeout)),
        do_not_cache: false,
        salt: salt(job, surroundings, judge).into(),
        platform: Some(platform(job, surroundings)),
    }
}

/// What has no place in an action. A test that takes too much memory may pass with more of it, and one
/// that counts its processors may fail with fewer.
fn salt(job: &PlannedJob, surroundings: &Surroundings, judge: &str) -> String {
    let settings = &job.settings;
    format!(
        "{SALT_VERSION};{judge};runtime={};cpu={};memory={};network={};isolation={};mount={}",
        surroundings.runtime_in_keys(),
        settings.resources.cpu_milli,
        settings.resources.memory_bytes,
        settings.network,
        settings.isolation,
        job.mount_path
    )
}

fn platform(job: &PlannedJob, surroundings: &Surroundings) -> reapi::Platform {
    let property = |name: &str, value: &str| reapi::platform::Property {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let image = surroundings.image_in_keys();
    let image = image.iter().map(|it| property("container-image", it));
    let rest = job
        .settings
        .requirements
        .iter()
        .map(|(name, value)| property(name, value));
    let mut properties: Vec<_> = image.chain(rest).collect();
    properties.sort_by(|one, other| (&one.name, &one.value).cmp(&(&other.name, &other.value)));
    reapi::Platform { properties }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use regatta_model::Resources;
    use regatta_wire::v1;

    use super::*;
    use crate::action_plan::PlanDefaults;
    use crate::runs::plan::Plan;
    use crate::runs::tests::fixture::{build, spec};

    fn key(job: v1::Job, surroundings: &Surroundings) -> Digest {
        let defaults = PlanDefaults {
            image: None,
            resources: Resources::default(),
            timeout: Duration::from_secs(60),
            maximum_timeout: Duration::from_secs(600),
            tenant_properties: BTreeMap::new(),
        };
        let plan = Plan::new(spec(vec![job]), &defaults).expect("is accepted");
        let job = &plan.jobs[0];
        let action = action(job, surroundings, &job.input_root, &job.template, "judge");
        Digest::of(&action.encode_to_vec())
    }

    #[test]
    fn whatever_can_change_a_result_changes_its_key() {
        let job = || build("make", &[], &["make"]);
        let changes: [fn(&mut v1::Job); 6] = [
            |_| {},
            |job| job.cpu_milli = 4000,
            |job| job.memory_bytes = 4 << 30,
            |job| job.network = true,
            |job| job.isolation = v1::Isolation::Fresh.into(),
            |job| job.mount_path = "/src".to_owned(),
        ];
        let mut keys: BTreeSet<Digest> = changes
            .iter()
            .map(|change| {
                let mut job = job();
                change(&mut job);
                key(job, &Surroundings::Processes)
            })
            .collect();
        for id in ["sha256:a", "sha256:b"] {
            let image = Surroundings::Image {
                reference: "img:1".parse().expect("is a reference"),
                id: id.to_owned(),
            };
            keys.insert(key(job(), &image));
        }
        assert_eq!(keys.len(), changes.len() + 2);
        assert!(keys.contains(&key(job(), &Surroundings::Processes)));
    }
}
