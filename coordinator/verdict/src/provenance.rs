//! What was made, from what and how: SLSA provenance (specification v1.0, "Provenance").

use std::collections::BTreeMap;

use regatta_wire::v1;
use serde_json::{Value, json};

use crate::evidence::{Evidence, JobEvidence};
use crate::stages::written;
use crate::statement::{Described, GIT_COMMIT, SHA256, Subject, sha256};

/// SLSA's predicate.
pub const PROVENANCE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// How a job's command becomes files. The name leads nowhere (RFC 6761): it is but a name.
const BUILD_TYPE: &str = "https://regatta.invalid/build/v1";
/// Who vouches for it: whoever has the key that signs.
const BUILDER: &str = "https://regatta.invalid/coordinator/v1";

/// The builds of a run that made something, each with what it made and how.
pub(crate) fn of_builds<'a>(
    run: &'a str,
    evidence: &'a Evidence,
) -> impl Iterator<Item = (&'a v1::Job, Vec<Subject>, Value)> {
    evidence.spec.jobs.iter().filter_map(move |job| {
        let ended = evidence.jobs.get(&job.name)?;
        let has_passed = ended.status == v1::JobStatus::Passed;
        (has_passed && !ended.artefacts.is_empty()).then(|| {
            let made = ended.artefacts.iter().map(|(path, digest)| Subject {
                name: path.clone(),
                digest: sha256(digest),
            });
            (job, made.collect(), predicate(run, job, ended, evidence))
        })
    })
}

fn predicate(run: &str, job: &v1::Job, ended: &JobEvidence, evidence: &Evidence) -> Value {
    json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": parameters(job),
            "internalParameters": {
                "cached": ended.cached,
                "cachedFrom": ended.cached_from,
                "agent": ended.agent(),
            },
            "resolvedDependencies": dependencies(job, ended, evidence),
        },
        "runDetails": {
            "builder": { "id": BUILDER },
            "metadata": metadata(run, ended),
        },
    })
}

/// When what was made was made, and in which run: an earlier one if its result was known. What is not known is left
/// out.
fn metadata(run: &str, ended: &JobEvidence) -> Value {
    let (run, times) = match ended.cached {
        true => (ended.cached_from.as_str(), ended.cached_times.unzip()),
        false => {
            let stages = &ended.stages;
            (
                run,
                (stages.started_at.or(stages.queued_at), stages.finished_at),
            )
        }
    };
    let (started_on, finished_on) = times;
    let mut metadata = serde_json::Map::new();
    let known = (!run.is_empty()).then(|| run.to_owned());
    for (name, value) in [
        ("invocationId", known),
        ("startedOn", started_on.map(written)),
        ("finishedOn", finished_on.map(written)),
    ] {
        metadata.extend(value.map(|value| (name.to_owned(), Value::from(value))));
    }
    Value::Object(metadata)
}

/// What whoever asked for it could choose.
fn parameters(job: &v1::Job) -> Value {
    let arguments = match &job.kind {
        Some(v1::job::Kind::Build(build)) => &build.arguments[..],
        Some(v1::job::Kind::Suite(_)) | None => &[],
    };
    let environment = job.environment.iter();
    let environment: BTreeMap<_, _> = environment.map(|it| (&it.name, &it.value)).collect();
    let properties = job
        .platform
        .iter()
        .flat_map(|platform| &platform.properties);
    let platform: Vec<_> = properties.map(|it| [&it.name, &it.value]).collect();
    json!({
        "job": job.name,
        "arguments": arguments,
        "environment": environment,
        "workingDirectory": job.working_directory,
        "outputPaths": job.output_paths,
        "platform": platform,
        "network": job.network,
    })
}

/// The files that it was given, the commit that they are of, what other jobs made for it, and its image.
fn dependencies(job: &v1::Job, ended: &JobEvidence, evidence: &Evidence) -> Vec<Described> {
    let described = |name: String, algorithm: &str, digest: String| Described {
        name: Some(name),
        digest: BTreeMap::from([(algorithm.to_owned(), digest)]),
    };
    let mut all = Vec::new();
    if let Some(root) = &job.input_root {
        all.push(described("inputs".to_owned(), SHA256, root.hash.clone()));
    }
    if !evidence.spec.dirty && !evidence.spec.commit.is_empty() {
        let commit = evidence.spec.commit.clone();
        all.push(described("commit".to_owned(), GIT_COMMIT, commit));
    }
    for from in &job.inputs_from {
        let made = evidence.jobs.get(&from.job).into_iter();
        let made = made.flat_map(|job| &job.artefacts);
        let wanted =
            made.filter(|(path, _)| from.output_path.is_empty() || from.output_path == **path);
        all.extend(wanted.map(|(path, digest)| Described {
            name: Some(format!("{}/{path}", from.job)),
            digest: sha256(digest),
        }));
    }
    if let Some(image) = ended.image().strip_prefix("sha256:") {
        all.push(described("image".to_owned(), SHA256, image.to_owned()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::{gathered, is_end_of, run};

    #[test]
    fn what_was_made_is_told_with_what_it_was_made_from() {
        let events = run(&[], v1::Verdict::Releasable);
        let evidence = gathered(&events).expect("is complete");
        let all: Vec<_> = of_builds("r1", &evidence).collect();
        let [(job, subjects, predicate)] = &all[..] else {
            panic!("one job made something")
        };
        assert_eq!(
            (job.name.as_str(), subjects[0].name.as_str()),
            ("make", "out/app")
        );
        let definition = &predicate["buildDefinition"];
        assert_eq!(definition["externalParameters"]["job"], "make");
        let dependencies = &definition["resolvedDependencies"];
        assert_eq!(dependencies[0]["name"], "inputs");
        assert_eq!(dependencies[1]["digest"][GIT_COMMIT], evidence.spec.commit);
        let metadata = json!({
            "invocationId": "r1",
            "startedOn": "1970-01-01T00:00:11.000Z",
            "finishedOn": "1970-01-01T00:00:11.000Z",
        });
        assert_eq!(
            predicate["runDetails"]["metadata"], metadata,
            "of the job, not of its run"
        );
        assert_eq!(definition["internalParameters"]["agent"], "two");
        assert_eq!(dependencies[2]["name"], "image");
        assert_eq!(dependencies[2]["digest"][SHA256], "2");
    }

    #[test]
    fn what_was_known_was_made_by_the_run_that_made_it() {
        let mut events = run(&[], v1::Verdict::Releasable);
        let cached = |change: &dyn Fn(&mut v1::JobFinished), events: &mut Vec<v1::RunEvent>| {
            for event in events.iter_mut() {
                if let Some(v1::run_event::Event::JobFinished(finished)) = &mut event.event
                    && finished.job == "make"
                {
                    change(finished);
                }
            }
        };
        let at = |seconds: i64| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let earlier = |finished: &mut v1::JobFinished| {
            finished.cached = true;
            finished.cached_from = "r0".to_owned();
            finished.cached_where = finished.r#where.take();
            let result = finished.result.get_or_insert_default();
            let metadata = result.execution_metadata.get_or_insert_default();
            metadata.execution_start_timestamp = at(1);
            metadata.execution_completed_timestamp = at(3);
        };
        cached(&earlier, &mut events);
        let evidence = gathered(&events).expect("is complete");
        let (_, _, predicate) = of_builds("r1", &evidence).next().expect("is made");
        let metadata = json!({
            "invocationId": "r0",
            "startedOn": "1970-01-01T00:00:01.000Z",
            "finishedOn": "1970-01-01T00:00:03.000Z",
        });
        assert_eq!(predicate["runDetails"]["metadata"], metadata);
        let definition = &predicate["buildDefinition"];
        assert_eq!(definition["internalParameters"]["agent"], "two");
        assert_eq!(definition["resolvedDependencies"][2]["digest"][SHA256], "2");
        // Of one that an earlier release stored, nobody knows.
        let unknown = |finished: &mut v1::JobFinished| {
            finished.cached_from = String::new();
            finished.cached_where = None;
            finished.result.get_or_insert_default().execution_metadata = None;
        };
        cached(&unknown, &mut events);
        let evidence = gathered(&events).expect("is complete");
        let (_, _, predicate) = of_builds("r1", &evidence).next().expect("is made");
        assert_eq!(predicate["runDetails"]["metadata"], json!({}));
    }

    #[test]
    fn a_build_that_failed_made_nothing() {
        let mut events = run(&[], v1::Verdict::NotReleasable);
        for event in events.iter_mut().filter(|it| is_end_of(it, "make")) {
            if let Some(v1::run_event::Event::JobFinished(finished)) = &mut event.event {
                finished.status = v1::JobStatus::Failed.into();
            }
        }
        let evidence = gathered(&events).expect("is complete");
        assert_eq!(of_builds("r1", &evidence).count(), 0);
    }
}
