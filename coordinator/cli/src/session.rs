//! Submitting a run and following it to its end.

use std::io;
use std::path::PathBuf;

use regatta_wire::v1;

use crate::client::Client;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::interrupts::Interrupts;
use crate::options::{GlobalOptions, MessageFormat, ReportArguments};
use crate::standard_output::{StandardOutput, standard_output};
use crate::submission::submit;
use crate::watch::{
    Ended, EventSink, GithubReport, GitlabReport, HumanReport, JsonReport, JunitReport,
    PlainScreen, ReportOptions, Screen, Tally, TtyScreen, WatchError, follow,
};

/// A run that the coordinator has accepted, and where its results go.
#[derive(Debug)]
pub struct Session<'a> {
    /// Options of every command.
    pub global: &'a GlobalOptions,
    /// The coordinator.
    pub client: &'a Client,
    /// What is shown.
    pub report: &'a ReportArguments,
    /// Where JUnit XML goes.
    pub junit: Option<PathBuf>,
    /// The directory from which the run's files come.
    pub project: PathBuf,
}

impl Session<'_> {
    /// Submits a run and follows it to its end.
    ///
    /// # Errors
    /// The coordinator refuses it, goes away for long, or a report cannot be written.
    pub async fn run(&self, spec: v1::RunSpec) -> Result<(Ended, Tally), Failure> {
        let mut interrupts =
            Interrupts::of_this_process(self.global.exit_with_stdin).or_exit(ExitCode::Local)?;
        let repeat = self.report.repeat.as_ref();
        let spec = match repeat {
            Some(repeat) => repeat.applied_to(spec),
            None => spec,
        };
        let submitted = submit(self.client, spec, &mut interrupts).await?;
        let mut human = HumanReport::new(self.report_options(), self.screen());
        let mut json = self.json_report(&submitted).or_exit(ExitCode::Local)?;
        let mut junit = self.junit.clone().map(JunitReport::new);
        let mut github = GithubReport::of_this_step(&self.project);
        let mut gitlab = GitlabReport::of_this_job(&self.project);
        let mut sinks: Vec<&mut dyn EventSink> = vec![&mut human];
        sinks.extend(json.as_mut().map(|sink| sink as &mut dyn EventSink));
        sinks.extend(junit.as_mut().map(|sink| sink as &mut dyn EventSink));
        sinks.extend(github.as_mut().map(|sink| sink as &mut dyn EventSink));
        sinks.extend(gitlab.as_mut().map(|sink| sink as &mut dyn EventSink));
        let runs = self.client.runs();
        let ended = follow(runs, &submitted.run_id, &mut sinks, &mut interrupts)
            .await
            .map_err(|error| watch_failure(&submitted.run_id, error))?;
        let tally = human.tally().clone();
        let counts = tally.finished.as_ref().and_then(|finished| finished.counts);
        if let (Some(repeat), Some(counts)) = (repeat, counts) {
            if counts.planned == 0 && tally.failed_suites + tally.failed_builds == 0 {
                let test = &repeat.test;
                let message = format!("no suite of this run has a test called `{test}`");
                return Err(Failure::new(ExitCode::NothingSelected, message));
            }
            let summary = repeat.summary(&counts, tally.lost);
            self.screen().result(&summary).or_exit(ExitCode::Local)?;
        }
        Ok((ended, tally))
    }

    fn report_options(&self) -> ReportOptions {
        ReportOptions {
            paint: self.global.paint(),
            level: self.report.status_level,
            live_output: self.report.live_output,
        }
    }

    fn screen(&self) -> Box<dyn Screen> {
        match (self.global.message_format, self.global.bar()) {
            (MessageFormat::Json, true) => Box::new(TtyScreen::on_standard_error()),
            (MessageFormat::Json, false) => Box::new(PlainScreen::on_standard_error()),
            (MessageFormat::Human, true) => Box::new(TtyScreen::new()),
            (MessageFormat::Human, false) => Box::new(PlainScreen::new()),
        }
    }

    fn json_report(
        &self,
        submitted: &v1::SubmitRunResponse,
    ) -> io::Result<Option<JsonReport<StandardOutput>>> {
        match self.global.message_format {
            MessageFormat::Human => Ok(None),
            MessageFormat::Json => {
                let mut report = JsonReport::new(standard_output());
                report.submitted(&submitted.run_id, &submitted.warnings)?;
                Ok(Some(report))
            }
        }
    }
}

/// What the end of watching means for the process.
#[must_use]
pub fn watch_failure(run_id: &str, error: WatchError) -> Failure {
    let code = match &error {
        WatchError::Unreachable { .. } => ExitCode::CoordinatorUnreachable,
        WatchError::Unknown { .. } | WatchError::Refused { .. } | WatchError::Gap { .. } => {
            ExitCode::Infrastructure
        }
        WatchError::Report(_) => ExitCode::Local,
    };
    Failure {
        code,
        error: anyhow::Error::new(error).context(format!(
            "run {run_id} was left alone; `regatta logs {run_id}` shows what became of it"
        )),
    }
}

/// The same for a run that somebody has named: that there is none is a mistake of theirs.
#[must_use]
pub fn watch_failure_of_named(run_id: &str, error: WatchError) -> Failure {
    match error {
        WatchError::Unknown { detail } => Failure::new(
            ExitCode::BadConfiguration,
            format!("cannot read the run: {detail}"),
        ),
        error => watch_failure(run_id, error),
    }
}
