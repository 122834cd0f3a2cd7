//! Which parts of a test's key differ between two runs, its files aside.

use std::collections::{BTreeMap, BTreeSet};

use regatta_wire::convert::duration_from_wire;
use regatta_wire::v1;

use super::Told;

/// What changed from one run to the next that the test's key covers, a line each.
pub(crate) fn changed_parts(before: &Told, now: &Told) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |what: &str, before: String, now: String| {
        if before != now {
            lines.push(format!("{what}: {} -> {}", or_none(&before), or_none(&now)));
        }
    };
    let (old, new) = (&before.job, &now.job);
    compare("command", command(old), command(new));
    compare(
        "working directory",
        old.working_directory.clone(),
        new.working_directory.clone(),
    );
    compare("mount path", old.mount_path.clone(), new.mount_path.clone());
    compare("timeout", timeout(old), timeout(new));
    compare(
        "cpu (thousandths)",
        old.cpu_milli.to_string(),
        new.cpu_milli.to_string(),
    );
    compare(
        "memory (bytes)",
        old.memory_bytes.to_string(),
        new.memory_bytes.to_string(),
    );
    compare("network", old.network.to_string(), new.network.to_string());
    compare(
        "isolation",
        old.isolation().as_str_name().to_owned(),
        new.isolation().as_str_name().to_owned(),
    );
    // Of a result that was cached nobody knows the image: its key has it.
    if let (Some(old), Some(new)) = (image(before), image(now)) {
        compare("image", old, new);
    }
    compare("inputs from other jobs", inputs_from(old), inputs_from(new));
    let (old_platform, new_platform) = (platform(old), platform(new));
    lines.extend(changed("platform property", &old_platform, &new_platform));
    // A value may be long, or nobody's business: whoever asks can look it up.
    let (old, new) = (environment(old), environment(new));
    lines.extend(changed_names("environment variable", &old, &new));
    let (old, new) = (&before.outputs, &now.outputs);
    lines.extend(changed_names("output of a job it needs", old, new));
    lines
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

fn command(job: &v1::Job) -> String {
    match &job.kind {
        Some(v1::job::Kind::Suite(suite)) => {
            let adapter = suite.adapter().as_str_name();
            let adapter = adapter.strip_prefix("SUITE_ADAPTER_").unwrap_or(adapter);
            let shards = match suite.shards {
                0 => String::new(),
                shards => format!(", {shards} shards"),
            };
            let (command, adapter) = (suite.run_arguments.join(" "), adapter.to_lowercase());
            format!("{command} ({adapter}{shards})")
        }
        Some(v1::job::Kind::Build(_)) | None => String::new(),
    }
}

fn timeout(job: &v1::Job) -> String {
    let timeout = job.timeout.as_ref().map(duration_from_wire);
    match timeout {
        Some(Ok(timeout)) => format!("{timeout:?}"),
        Some(Err(_)) | None => "the coordinator's".to_owned(),
    }
}

/// What an image was that a test ran in, by its content; `None` if it did not run.
fn image(told: &Told) -> Option<String> {
    let place = told.result.r#where.as_ref();
    place.map(|place| place.image_id.clone())
}

fn inputs_from(job: &v1::Job) -> String {
    let all = job.inputs_from.iter();
    let all = all.map(|from| format!("{} {} {}", from.job, from.output_path, from.at));
    let all: Vec<_> = all.map(|text| text.trim_end().to_owned()).collect();
    all.join(", ")
}

fn platform(job: &v1::Job) -> BTreeMap<String, String> {
    let properties = job
        .platform
        .iter()
        .flat_map(|platform| &platform.properties);
    let pairs = properties.map(|it| (it.name.clone(), it.value.clone()));
    pairs.collect()
}

fn environment(job: &v1::Job) -> BTreeMap<String, String> {
    let variables = job.environment.iter();
    let pairs = variables.map(|it| (it.name.clone(), it.value.clone()));
    pairs.collect()
}

fn changed_names(
    what: &str,
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Vec<String> {
    differing(before, now)
        .into_iter()
        .map(|name| {
            let how = match (before.get(name), now.get(name)) {
                (None, _) => "is new",
                (_, None) => "is gone",
                (Some(_), Some(_)) => "is another",
            };
            format!("{what} {name} {how}")
        })
        .collect()
}

fn changed(
    what: &str,
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Vec<String> {
    let value = |map: &BTreeMap<String, String>, name: &str| {
        map.get(name).map_or("none", String::as_str).to_owned()
    };
    differing(before, now)
        .into_iter()
        .map(|name| {
            format!(
                "{what} {name}: {} -> {}",
                value(before, name),
                value(now, name)
            )
        })
        .collect()
}

fn differing<'a>(
    before: &'a BTreeMap<String, String>,
    now: &'a BTreeMap<String, String>,
) -> Vec<&'a String> {
    let names: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    let differs = |name: &&String| before.get(*name) != now.get(*name);
    names.into_iter().filter(differs).collect()
}

#[cfg(test)]
mod tests {
    use regatta_wire::reapi::command::EnvironmentVariable;

    use super::*;

    fn told(job: v1::Job) -> Told {
        Told {
            run: "r".to_owned(),
            job,
            result: v1::TestResult::default(),
            skipped_lookup: false,
            outputs: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn each_part_that_changed_is_named() {
        let variable = |name: &str, value: &str| EnvironmentVariable {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let before = told(v1::Job {
            environment: vec![variable("A", "1"), variable("B", "1"), variable("C", "1")],
            ..v1::Job::default()
        });
        let mut now = told(v1::Job {
            environment: vec![variable("A", "1"), variable("B", "2"), variable("D", "1")],
            network: true,
            timeout: Some(regatta_wire::convert::duration_to_wire(
                std::time::Duration::from_secs(90),
            )),
            ..v1::Job::default()
        });
        now.outputs.insert("make: out".to_owned(), "ab".to_owned());
        assert_eq!(changed_parts(&before, &before), Vec::<String>::new());
        assert_eq!(
            changed_parts(&before, &now),
            [
                "timeout: the coordinator's -> 90s",
                "network: false -> true",
                "environment variable B is another",
                "environment variable C is gone",
                "environment variable D is new",
                "output of a job it needs make: out is new",
            ]
        );
    }
}
