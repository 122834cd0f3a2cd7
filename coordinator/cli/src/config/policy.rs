//! What a release requires.

use std::collections::BTreeSet;

use regatta_verdict::{Policy, RequiredJob};

use super::error::{ConfigError, ConfigProblem, nearest};
use super::pipeline::JobConfig;
use super::section::Section;

const KEYS: &[&str] = &["max_flaky", "max_quarantined", "required"];

/// The policy of a file: all of its jobs, unless it says otherwise.
pub(super) fn read_policy(
    section: Option<&Section<'_>>,
    jobs: &[JobConfig],
) -> Result<Policy, ConfigError> {
    let names: BTreeSet<String> = jobs.iter().map(|job| job.name.to_string()).collect();
    let Some(section) = section else {
        return Ok(Policy {
            required_jobs: names.into_iter().map(RequiredJob::own).collect(),
            ..Policy::default()
        });
    };
    section.allow(KEYS)?;
    let required_jobs = match section.texts("required")? {
        Some(required) => {
            let mut chosen = BTreeSet::new();
            for name in required {
                // Without jobs of its own, a file speaks of the suites that `regatta test` finds.
                if !jobs.is_empty() && !names.contains(name.get_ref()) {
                    let problem = ConfigProblem::UnknownNeed {
                        place: section.place.clone(),
                        name: name.get_ref().clone(),
                        nearest: nearest(name.get_ref(), names.iter().map(String::as_str)),
                    };
                    return Err(section.source.error(&name.span(), problem));
                }
                chosen.insert(name.into_inner());
            }
            chosen
        }
        None => names,
    };
    Ok(Policy {
        max_flaky: section.count("max_flaky", u32::MAX)?,
        max_quarantined: section.count("max_quarantined", u32::MAX)?,
        required_jobs: required_jobs.into_iter().map(RequiredJob::own).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    fn policy(text: &str) -> Result<regatta_verdict::Policy, String> {
        let pipeline = parse(text, "regatta.toml".as_ref(), ".".as_ref());
        let pipeline = pipeline.map_err(|error| error.to_string())?;
        Ok(pipeline.policy.expect("a file has one"))
    }

    #[test]
    fn all_jobs_are_required_unless_some_are_named() {
        const JOBS: &str = "[jobs]\nb = { run = 'x' }\na = { run = 'x' }\n";
        let required = |text: &str| {
            let policy = policy(&format!("{JOBS}{text}")).expect("is good");
            let jobs = policy.required_jobs.into_iter();
            jobs.map(|it| it.job).collect::<Vec<_>>()
        };
        assert_eq!(required(""), ["a", "b"]);
        assert_eq!(required("[policy]\nmax_flaky = 0\n"), ["a", "b"]);
        assert_eq!(required("[policy]\nrequired = ['b']\n"), ["b"]);
        let limits = policy("[policy]\nmax_flaky = 3\nrequired = ['unit tests']\n");
        let limits = limits.expect("its jobs are elsewhere");
        assert_eq!((limits.max_flaky, limits.max_quarantined), (Some(3), None));
        for (bad, words) in [
            (
                "required = ['bb']",
                "[policy] needs `bb`, which is no job; ",
            ),
            ("require = ['b']", "did you mean `required`"),
            ("max_flaky = -1", "`max_flaky` in [policy]"),
        ] {
            let error = policy(&format!("{JOBS}[policy]\n{bad}\n")).expect_err("is bad");
            assert!(error.starts_with("regatta.toml:"), "{error}");
            assert!(error.contains(words), "{error}");
        }
    }
}
