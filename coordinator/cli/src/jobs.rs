//! From configurations and test binaries to the jobs that the coordinator takes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use regatta_model::{Digest, ImageReference, Isolation};
use regatta_wire::convert::{duration_to_wire, timestamp_to_wire};
use regatta_wire::{reapi, v1};

use crate::cargo::suites::ProgramSuite;
use crate::config::{JobAction, JobConfig, Pipeline, QuarantinedTest, SuiteAdapter, SuiteConfig};
use crate::jest::{self, Jest};
use crate::pytest::{self, Pytest};
use crate::tree::Source;

/// What commands find if nobody says otherwise: nothing is inherited from any machine, yet a shell script
/// without a PATH is of no use, and some programs fail without a home they can write to.
const BASE_ENVIRONMENT: [(&str, &str); 2] = [
    ("HOME", "/tmp"),
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
];
/// The platform property that names an image.
const IMAGE_PROPERTY: &str = "container-image";
const IMAGE_SCHEME: &str = "docker://";

/// The environment of every command, before its own is laid over it.
#[must_use]
pub fn base_environment() -> BTreeMap<String, String> {
    BASE_ENVIRONMENT
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// The environment as messages.
#[must_use]
pub fn environment_to_wire(
    environment: &BTreeMap<String, String>,
) -> Vec<reapi::command::EnvironmentVariable> {
    let variables = environment.iter();
    variables
        .map(|(name, value)| reapi::command::EnvironmentVariable {
            name: name.clone(),
            value: value.clone(),
        })
        .collect()
}

/// The platform that asks for an image.
#[must_use]
pub fn platform(image: Option<&ImageReference>) -> reapi::Platform {
    let property = |image: &ImageReference| reapi::platform::Property {
        name: IMAGE_PROPERTY.to_owned(),
        value: format!("{IMAGE_SCHEME}{image}"),
    };
    reapi::Platform {
        properties: image.map(property).into_iter().collect(),
    }
}

/// The wire's word for an isolation.
#[must_use]
pub const fn isolation_to_wire(isolation: Isolation) -> v1::Isolation {
    match isolation {
        Isolation::Run => v1::Isolation::Run,
        Isolation::Fresh => v1::Isolation::Fresh,
    }
}

/// How every suite of `regatta test` runs.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SuiteSettings {
    /// The image; the agents' own choice if `None`.
    pub image: Option<ImageReference>,
    /// For each test.
    pub timeout: Option<Duration>,
    /// How many more times a failed test is tried.
    pub retries: u32,
    /// Who may share a test's container.
    pub isolation: Isolation,
    /// Whether there is a network beyond loopback.
    pub network: bool,
    /// Keep tests whose names contain any of these.
    pub filters: Vec<String>,
    /// Run the tests marked `#[ignore]`, too.
    pub include_ignored: bool,
}

/// The job of a test program, whose input root is shown at `mount`.
#[must_use]
pub fn program_job(
    suite: &ProgramSuite,
    adapter: v1::SuiteAdapter,
    input_root: Digest,
    mount: &Path,
    settings: &SuiteSettings,
) -> v1::Job {
    v1::Job {
        name: suite.name.clone(),
        input_root: Some(input_root.into()),
        environment: environment_to_wire(&suite.environment),
        working_directory: suite.working_directory.clone(),
        platform: Some(platform(settings.image.as_ref())),
        isolation: isolation_to_wire(settings.isolation).into(),
        network: settings.network,
        timeout: settings.timeout.map(duration_to_wire),
        retries: settings.retries,
        mount_path: mount.display().to_string(),
        kind: Some(v1::job::Kind::Suite(v1::Suite {
            adapter: adapter.into(),
            discover_arguments: Vec::new(),
            run_arguments: vec![suite.program.clone()],
            junit_path: String::new(),
            filters: settings.filters.clone(),
            include_ignored: settings.include_ignored,
            only_tests: Vec::new(),
            quarantine: Vec::new(),
            repetition: None,
            no_duplicates: false,
            byproducts_path: String::new(),
            worker_arguments: Vec::new(),
            shards: 0,
        })),
        ..v1::Job::default()
    }
}

/// The job of a configuration.
#[must_use]
pub fn configured_job(job: &JobConfig, pipeline: &Pipeline, input_root: Digest) -> v1::Job {
    let mut environment = base_environment();
    environment.extend(job.environment.clone());
    // What a job does not produce cannot be laid into another.
    let producers = job.needs.iter().filter(|need| {
        let needed = pipeline.job(need);
        needed.is_some_and(|job| {
            !job.outputs.is_empty() && matches!(job.action, JobAction::Command(_))
        })
    });
    v1::Job {
        name: job.name.to_string(),
        needs: job.needs.clone(),
        input_root: Some(input_root.into()),
        inputs_from: producers
            .map(|need| v1::InputFrom {
                job: need.clone(),
                ..v1::InputFrom::default()
            })
            .collect(),
        environment: environment_to_wire(&environment),
        output_paths: job.outputs.clone(),
        platform: Some(platform(job.image.as_ref())),
        isolation: isolation_to_wire(job.isolation).into(),
        network: job.network,
        cpu_milli: job.cpu_milli,
        memory_bytes: job.memory_bytes,
        timeout: job.timeout.map(duration_to_wire),
        retries: job.retries,
        kind: Some(match &job.action {
            JobAction::Command(arguments) => v1::job::Kind::Build(v1::Build {
                arguments: arguments.clone(),
                do_not_cache: false,
            }),
            JobAction::Suite(suite) => v1::job::Kind::Suite(configured_suite(suite, job.timeout)),
        }),
        ..v1::Job::default()
    }
}

/// What a job's suite needs besides the job's inputs, by path.
#[must_use]
pub fn helper(job: &JobConfig) -> Option<(&'static str, Source)> {
    match &job.action {
        JobAction::Suite(suite) => match &suite.adapter {
            SuiteAdapter::Pytest(_) => Some((pytest::HELPER_PATH, Pytest::helper())),
            SuiteAdapter::Jest(_) => Some((jest::HELPER_PATH, Jest::helper())),
            SuiteAdapter::Libtest
            | SuiteAdapter::GoogleTest
            | SuiteAdapter::Go
            | SuiteAdapter::Ctest
            | SuiteAdapter::BazelSharding { .. }
            | SuiteAdapter::Contract { .. } => None,
        },
        JobAction::Command(_) => None,
    }
}

fn configured_suite(suite: &SuiteConfig, timeout: Option<Duration>) -> v1::Suite {
    let quarantine = suite.quarantine.iter().map(quarantined).collect();
    let no_duplicates = !suite.may_duplicate;
    let (adapter, junit_path) = match &suite.adapter {
        SuiteAdapter::Pytest(pytest) => {
            return v1::Suite {
                quarantine,
                no_duplicates,
                ..pytest.suite(timeout, suite.filters.clone())
            };
        }
        SuiteAdapter::Jest(jest) => {
            return v1::Suite {
                quarantine,
                no_duplicates,
                ..jest.suite(timeout, suite.filters.clone())
            };
        }
        SuiteAdapter::Libtest => (v1::SuiteAdapter::Libtest, String::new()),
        SuiteAdapter::GoogleTest => (v1::SuiteAdapter::Googletest, String::new()),
        SuiteAdapter::Go => (v1::SuiteAdapter::Go, String::new()),
        SuiteAdapter::Ctest => (v1::SuiteAdapter::Ctest, String::new()),
        SuiteAdapter::BazelSharding { .. } => (v1::SuiteAdapter::BazelSharding, String::new()),
        SuiteAdapter::Contract { junit } => (v1::SuiteAdapter::Contract, junit.clone()),
    };
    v1::Suite {
        adapter: adapter.into(),
        discover_arguments: suite.discover.clone(),
        run_arguments: suite.run.clone(),
        junit_path,
        filters: suite.filters.clone(),
        include_ignored: false,
        only_tests: Vec::new(),
        shards: match suite.adapter {
            SuiteAdapter::BazelSharding { shards } => shards,
            SuiteAdapter::Pytest(_)
            | SuiteAdapter::Jest(_)
            | SuiteAdapter::Libtest
            | SuiteAdapter::GoogleTest
            | SuiteAdapter::Go
            | SuiteAdapter::Ctest
            | SuiteAdapter::Contract { .. } => 0,
        },
        quarantine,
        repetition: None,
        no_duplicates,
        byproducts_path: String::new(),
        worker_arguments: suite.worker.clone(),
    }
}

fn quarantined(entry: &QuarantinedTest) -> v1::QuarantinedTest {
    v1::QuarantinedTest {
        test_id: entry.test.clone(),
        owner: entry.owner.clone(),
        expires: Some(timestamp_to_wire(entry.expires)),
        reason: entry.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_job_says_all_that_the_configuration_says() {
        let text = r#"
            [jobs.build]
            image = "rust:1"
            run = "make"
            outputs = ["tool"]
            timeout = "90s"
            retry = 1
            isolation = "fresh"
            network = true
            resources = { cpu = 2, memory = "1GiB" }
            [jobs.lint]
            run = "lint"
            [jobs.test]
            needs = ["build", "lint"]
            env = { PATH = "/bin" }
            suite = { discover = "list", run = "run", junit = "j.xml" }
        "#;
        let pipeline = crate::config::parse(text, "regatta.toml".as_ref(), ".".as_ref());
        let pipeline = pipeline.expect("it is good");
        let job = |name| {
            let job = pipeline.job(name).expect("it is there");
            configured_job(job, &pipeline, Digest::EMPTY)
        };
        let build = job("build");
        assert_eq!(
            build.platform.expect("set").properties[0].value,
            "docker://rust:1"
        );
        assert_eq!((build.cpu_milli, build.memory_bytes), (2000, 1 << 30));
        assert_eq!(build.timeout.expect("set").seconds, 90);
        assert_eq!(build.isolation, i32::from(v1::Isolation::Fresh));
        assert!(build.network && build.retries == 1);
        let test = job("test");
        assert_eq!(test.needs, ["build", "lint"]);
        let from: Vec<_> = test
            .inputs_from
            .iter()
            .map(|input| input.job.as_str())
            .collect();
        assert_eq!(from, ["build"]);
        let path = test
            .environment
            .iter()
            .find(|variable| variable.name == "PATH");
        assert_eq!(path.map(|variable| variable.value.as_str()), Some("/bin"));
        assert!(test.platform.expect("set").properties.is_empty());
    }
}
