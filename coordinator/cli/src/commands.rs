//! What each command does, put together from the other modules.

mod agents;
mod cancel;
mod cas;
mod commit_policy;
mod completions;
mod daemons;
mod doctor;
mod exec;
mod flake;
mod history;
mod keys;
mod logs;
mod plan;
mod ps;
mod rerun;
mod run;
mod run_id;
mod table;
mod test;
mod verdict;
mod why;

use crate::client::Client;
use crate::exit_code::{ExitCode, Failure};
use crate::logging::{self, Verbosity};
use crate::options::{Command, GlobalOptions, Options};

/// Does what the command line says.
///
/// # Errors
/// It cannot be done; the failure says why, and what the process ends with.
pub async fn execute(options: Options) -> Result<ExitCode, Failure> {
    let global = &options.global;
    logging::set_up(global, verbosity(&options.command));
    match options.command {
        Command::Up(up) => Box::pin(daemons::up(global, up)).await,
        Command::Coordinator(coordinator) => {
            Box::pin(daemons::coordinator(global, coordinator)).await
        }
        Command::Agent(agent) => daemons::agent(global, agent).await,
        Command::Run(run) => run::run(global, run).await,
        Command::Flake(flake) => Box::pin(flake::flake(global, *flake)).await,
        Command::Rerun(rerun) => rerun::rerun(global, rerun).await,
        Command::Test(test) => Box::pin(test::test(global, *test)).await,
        Command::Exec(exec) => exec::exec(global, exec).await,
        Command::Cancel { run } => {
            let client = connect(global).await?;
            let run = run_id::complete(&client, run).await?;
            cancel::cancel(&client, run).await
        }
        Command::Ps { all, limit, format } => {
            ps::ps(&connect(global).await?, all, limit, format).await
        }
        Command::Logs {
            run,
            job,
            test,
            all,
        } => {
            let client = connect(global).await?;
            let run = run_id::complete(&client, run).await?;
            let request = logs::request(run, job, test, all);
            logs::logs(&client, request, global.paint()).await
        }
        Command::History(options) => history::history(&connect(global).await?, options).await,
        Command::Why(options) => why::why(&connect(global).await?, options).await,
        Command::Verdict(verdict) => verdict::verdict(global, verdict).await,
        Command::Verify(verify) => verdict::verify(&verify),
        Command::Keys { new: Some(file) } => keys::make(&file),
        Command::Keys { new: None } => keys::show(&connect(global).await?).await,
        Command::Cas(options) => cas::cas(options).await,
        Command::Agents { format } => agents::agents(&connect(global).await?, format).await,
        Command::Drain { agent, undo } => {
            agents::drain(&connect(global).await?, agent, !undo).await
        }
        Command::Doctor { image } => doctor::doctor(global, image.as_deref()).await,
        Command::Completions { shell } => completions::completions(shell),
    }
}

fn verbosity(command: &Command) -> Verbosity {
    match command {
        Command::Up(_) | Command::Coordinator(_) | Command::Agent(_) => Verbosity::Daemon,
        Command::Run(_)
        | Command::Rerun(_)
        | Command::Flake(_)
        | Command::Test(_)
        | Command::Exec(_)
        | Command::Cancel { .. }
        | Command::Ps { .. }
        | Command::Logs { .. }
        | Command::History(_)
        | Command::Why(_)
        | Command::Verdict(_)
        | Command::Verify(_)
        | Command::Keys { .. }
        | Command::Cas(_)
        | Command::Agents { .. }
        | Command::Drain { .. }
        | Command::Doctor { .. }
        | Command::Completions { .. } => Verbosity::Command,
    }
}

async fn connect(global: &GlobalOptions) -> Result<Client, Failure> {
    Ok(Client::connect(&global.coordinator, &global.instance).await?)
}

/// Runs something that blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    use crate::exit_code::OrExit;
    tokio::task::spawn_blocking(work)
        .await
        .or_exit(ExitCode::Local)
}
