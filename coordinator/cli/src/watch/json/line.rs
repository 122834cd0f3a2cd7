//! The lines, as they are written.

use std::io::{self, Write};

use serde::Serialize;

use crate::terminal::visible_json;

/// A line.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum Line<'a> {
    Hello {
        version: u32,
        regatta: &'a str,
    },
    RunSubmitted {
        run_id: &'a str,
        warnings: &'a [String],
    },
    RunStarted {
        jobs: Vec<&'a str>,
    },
    JobStarted {
        job: &'a str,
    },
    JobLeased {
        job: &'a str,
    },
    SuitePlanned {
        job: &'a str,
        planned: u32,
        cached: u32,
        skipped: u32,
    },
    Test(Test<'a>),
    HitsAudited {
        job: &'a str,
        agreed: u32,
    },
    RunResumed {},
    CancelRequested {},
    SuiteComplained {
        job: &'a str,
        message: &'a str,
    },
    TestRetried {
        #[serde(flatten)]
        attempt: Test<'a>,
        next_attempt: u32,
    },
    BuildRetried {
        #[serde(flatten)]
        attempt: Job<'a>,
        next_attempt: u32,
    },
    Output(Output<'a>),
    JobFinished(Job<'a>),
    InfrastructureRetry(InfrastructureRetry<'a>),
    TestSlow {
        job: &'a str,
        test: &'a str,
        others: u32,
        running: f64,
        agent: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        duplicate_agent: &'a str,
    },
    Warning {
        #[serde(skip_serializing_if = "str::is_empty")]
        job: &'a str,
        message: &'a str,
    },
    RunFinished(Run<'a>),
    Error {
        message: &'a str,
        exit_code: u8,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct Test<'a> {
    pub(super) job: &'a str,
    pub(super) test: &'a str,
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failure_class: Option<&'static str>,
    pub(super) duration: f64,
    pub(super) attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) message: &'a str,
    #[serde(flatten)]
    pub(super) provenance: Provenance<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) stdout: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) stderr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stdout_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stderr_digest: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) cached_from: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_audit: bool,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Provenance<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slot: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub(super) struct Output<'a> {
    pub(super) job: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) test: &'a str,
    pub(super) stream: &'static str,
    pub(super) offset: u64,
    pub(super) text: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Job<'a> {
    pub(super) job: &'a str,
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failure_class: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) message: &'a str,
    pub(super) cached: bool,
    pub(super) duration: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) counts: Option<Counts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i32>,
    #[serde(flatten)]
    pub(super) provenance: Provenance<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) cached_from: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct InfrastructureRetry<'a> {
    pub(super) job: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) test: &'a str,
    pub(super) agent: &'a str,
    pub(super) message: &'a str,
    pub(super) next_attempt: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Run<'a> {
    pub(super) verdict: &'static str,
    pub(super) reasons: &'a [String],
    pub(super) counts: Counts,
    pub(super) duration: f64,
    pub(super) leases: u64,
    pub(super) cancelled: bool,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Counts {
    pub(super) planned: u32,
    pub(super) passed: u32,
    pub(super) flaky: u32,
    pub(super) failed: u32,
    pub(super) cached: u32,
    pub(super) skipped: u32,
    pub(super) not_run: u32,
    pub(super) quarantined: u32,
}

/// Writes a line and sees to it that it is seen.
pub(super) fn write_line(writer: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    let json = serde_json::to_string(line)?;
    writer.write_all(visible_json(&json).as_bytes())?;
    writer.write_all(b"\n")?;
    writer.flush()
}
