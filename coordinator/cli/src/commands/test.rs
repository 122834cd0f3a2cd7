//! `regatta test`: the tests of the project here, which needs no configuration.

mod cargo;
mod cmake;
mod go;
mod jest;
mod one_suite;
mod policy;
mod programs;
mod project;
mod python;

use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::options::{GlobalOptions, ProjectKind, TestOptions};
use crate::watch::{Ended, Tally};
use project::Project;

pub(super) async fn test(
    global: &GlobalOptions,
    options: TestOptions,
) -> Result<ExitCode, Failure> {
    let here = std::env::current_dir().or_exit(ExitCode::Local)?;
    if options.archive.is_some() {
        return cargo::test(global, options).await;
    }
    let kind = match options.selection.manifest_path {
        Some(_) => Some(ProjectKind::Cargo),
        None => options.project,
    };
    let Project { kind, root } = Project::of(&here, kind)?;
    match kind {
        ProjectKind::Cargo => cargo::test(global, options).await,
        ProjectKind::Python => python::test(global, options, root).await,
        ProjectKind::Go => go::test(global, options, root).await,
        ProjectKind::Cmake => cmake::test(global, options, root).await,
        ProjectKind::Jest => jest::test(global, options, root).await,
    }
}

/// What the process ends with: a run without trouble in which no test ran is most probably a misspelt
/// filter, and the coordinator gives no verdict on it.
pub(super) fn end(ended: &Ended, tally: &Tally) -> Result<ExitCode, Failure> {
    let selected = match ended {
        Ended::Finished(finished) => {
            let counts = finished.counts.unwrap_or_default();
            finished.cancelled || tally.trouble || counts.planned > counts.skipped
        }
        Ended::Left => true,
    };
    match selected {
        true => Ok(ended.exit_code(tally)),
        false => Err(Failure::new(
            ExitCode::NothingSelected,
            "no test ran: none was selected",
        )),
    }
}

#[cfg(test)]
mod tests {
    use regatta_wire::v1;

    use super::*;

    fn finished(verdict: v1::Verdict, planned: u32, skipped: u32) -> Ended {
        Ended::Finished(v1::RunFinished {
            verdict: verdict.into(),
            counts: Some(v1::Counts {
                planned,
                skipped,
                ..v1::Counts::default()
            }),
            ..v1::RunFinished::default()
        })
    }

    #[test]
    fn a_run_of_nothing_is_not_good() {
        let with = |ended: &Ended, trouble| {
            let mut tally = Tally::default();
            tally.trouble = trouble;
            end(ended, &tally).unwrap_or_else(|failure| failure.code)
        };
        let code = |ended: &Ended| with(ended, false);
        assert_eq!(
            code(&finished(v1::Verdict::Releasable, 3, 1)),
            ExitCode::Good
        );
        assert_eq!(
            code(&finished(v1::Verdict::Releasable, 0, 0)),
            ExitCode::NothingSelected
        );
        assert_eq!(
            code(&finished(v1::Verdict::Releasable, 2, 2)),
            ExitCode::NothingSelected
        );
        let unknown = finished(v1::Verdict::Unknown, 0, 0);
        assert_eq!(code(&unknown), ExitCode::NothingSelected);
        assert_eq!(with(&unknown, true), ExitCode::Infrastructure);
        assert_eq!(code(&Ended::Left), ExitCode::Cancelled);
    }
}
