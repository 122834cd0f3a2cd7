//! `regatta verdict` and `regatta verify`.

mod if_cached;
mod kept;
mod lines;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use regatta_model::Digest;
use regatta_verdict::{PublicKey, Verified, verify_bundle};
use regatta_wire::v1;
use regatta_wire::v1::get_verdict_request::Subject;
use tonic::Code;

use super::commit_policy::CommitPolicy;
use super::run::place_of;
use super::{blocking, connect, keys, run_id};
use crate::artefact;
use crate::client::{Client, refused};
use crate::config;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::files::write_atomically;
use crate::git;
use crate::options::{GlobalOptions, VerdictOptions, VerifyOptions};
use crate::standard_output::standard_output;
use crate::terminal::visible_lines;

/// Prints what is known of a commit, or of a run.
pub(super) async fn verdict(
    global: &GlobalOptions,
    options: VerdictOptions,
) -> Result<ExitCode, Failure> {
    let client = connect(global).await?;
    let subject = match options.run.clone() {
        Some(run) => Subject::RunId(run_id::complete(&client, run).await?),
        None => Subject::Commit(commit(options.commit.clone()).await?),
    };
    match &options.kept {
        Some(None) => return kept::list(&client, subject, &options).await,
        Some(Some(beginning)) => {
            let found = kept::find(&client, subject, beginning).await?;
            return said_again(global, &client, &options, found).await;
        }
        None => {}
    }
    let mut fetched = fetch(&client, subject.clone()).await?;
    if let (Fetched::Nothing(why), Subject::Commit(commit)) = (&mut fetched, &subject) {
        let is_answered = match options.if_cached {
            true => if_cached::run(global, commit, why).await?,
            false => {
                if_cached::advise(commit, why).await?;
                false
            }
        };
        if is_answered {
            fetched = fetch(&client, subject).await?;
        }
    }
    let Some(bundle) = fetched.said()? else {
        return Ok(ExitCode::Unknown);
    };
    let key = keys::of_coordinator(&client).await?;
    show(global, &options, &bundle, &key)
}

/// Prints a verdict that was given before, as it was.
async fn said_again(
    global: &GlobalOptions,
    client: &Client,
    options: &VerdictOptions,
    given: v1::GivenVerdict,
) -> Result<ExitCode, Failure> {
    let key = PublicKey::from_pem(&given.public_key).or_exit(ExitCode::Infrastructure)?;
    let now = keys::of_coordinator(client).await?;
    if key.id() != now.id() {
        tracing::warn!(
            "it was signed with another key than this coordinator's of today, {}: believe it if you know that it was \
             the coordinator's then",
            now.id()
        );
    }
    let fetched = fetch(client, Subject::Bundle(given.bundle.unwrap_or_default())).await?;
    let Some(bundle) = fetched.said()? else {
        return Ok(ExitCode::Unknown);
    };
    show(global, options, &bundle, &key)
}

/// Prints and writes signed statements, once they are verified.
fn show(
    global: &GlobalOptions,
    options: &VerdictOptions,
    bundle: &str,
    key: &PublicKey,
) -> Result<ExitCode, Failure> {
    let verified = verify_bundle(bundle, key).or_exit(ExitCode::Infrastructure)?;
    if let Some(file) = &options.output {
        let written = write_atomically(file, bundle.as_bytes());
        written.or_exit(ExitCode::Local)?;
    }
    let lines;
    let text = match options.json {
        true => bundle,
        false => {
            lines = lines::of(&verified, key, global.paint());
            &lines
        }
    };
    print(text)?;
    Ok(exit_code(&verified))
}

/// Checks a file, without any coordinator.
pub(super) fn verify(options: &VerifyOptions) -> Result<ExitCode, Failure> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path);
        text.map_err(|error| {
            let message = format!("{} cannot be read: {error}", path.display());
            Failure::new(ExitCode::Local, message)
        })
    };
    let key = PublicKey::from_pem(&read(&options.key)?);
    let key = key.map_err(|error| {
        let message = format!("{}: {error}", options.key.display());
        Failure::new(ExitCode::BadConfiguration, message)
    })?;
    let refused = |detail: String| {
        let message = format!("{} cannot be believed: {detail}", options.file.display());
        Failure::new(ExitCode::NotReleasable, message)
    };
    let verified = verify_bundle(&read(&options.file)?, &key);
    let verified = verified.map_err(|error| refused(chain(&error)))?;
    if let Some(commit) = &options.commit {
        let of = verified.commit();
        if of != Some(commit.as_str()) {
            let of = of.unwrap_or("no commit");
            return Err(refused(format!("it speaks of {of}, not of {commit}")));
        }
    }
    if let Some(file) = &options.policy {
        let root = config::root_of(file);
        let (place, policy) = (place_of(file), config::load(file, &root)?.policy);
        let policy = policy.unwrap_or_default().of_pipeline(&place);
        let policy = match CommitPolicy::beside(&place, &root)?.policy {
            Some(of_commit) => policy.and(of_commit),
            None => policy,
        };
        let checked = verified.verdict.check_policy(&policy);
        checked.map_err(|error| refused(format!("{error}; not by that of {}", file.display())))?;
    }
    let made = made_by_it(&verified, &options.artefact)?;
    let strange: Vec<String> = made.iter().filter_map(Made::complaint).collect();
    if !strange.is_empty() {
        return Err(refused(strange.join("; ")));
    }
    let mut text = lines::of(&verified, &key, crate::watch::Paint::Plain);
    made.iter().for_each(|it| text.push_str(&it.line()));
    print(&text)?;
    Ok(exit_code(&verified))
}

/// Something here, and what builds made of the same bytes.
struct Made<'a> {
    path: &'a Path,
    digest: Digest,
    names: Vec<&'a str>,
}

/// What builds of a verdict made of what is here.
fn made_by_it<'a>(verified: &'a Verified, paths: &'a [PathBuf]) -> Result<Vec<Made<'a>>, Failure> {
    let made = paths.iter().map(|path| {
        let digest = artefact::digest_of(path).or_exit(ExitCode::Local)?;
        let names = verified.made(&digest).collect();
        Ok(Made {
            path,
            digest,
            names,
        })
    });
    made.collect()
}

impl Made<'_> {
    /// Why it is not what it should be, if it is not.
    fn complaint(&self) -> Option<String> {
        let Self {
            path,
            digest,
            names,
        } = self;
        names.is_empty().then(|| {
            let path = path.display();
            let hash = digest.hash_hex();
            format!("{path} (sha256 {hash}) is nothing that a build of it has made")
        })
    }

    fn line(&self) -> String {
        let names = self.names.join(", ");
        format!("{} is {names}, as it was made\n", self.path.display())
    }
}

/// An error with all that is below it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = standard_output();
    write!(stdout, "{text}").or_exit(ExitCode::Local)
}

/// The commit's whole id.
async fn commit(name: String) -> Result<String, Failure> {
    let here = std::env::current_dir().or_exit(ExitCode::Local)?;
    let found = blocking({
        let name = name.clone();
        move || git::resolve(&here, &name)
    });
    match found.await? {
        Ok(id) => Ok(id),
        // Of another repository, or without any here.
        Err(_) if git::is_id(&name) => Ok(name),
        Err(detail) => {
            let message =
                format!("git knows no commit `{name}` here; write its whole id ({detail})");
            Err(Failure::new(ExitCode::BadConfiguration, message))
        }
    }
}

/// What a coordinator has to say.
enum Fetched {
    /// The signed statements.
    Bundle(String),
    /// No run is there that could speak; why.
    Nothing(String),
    /// Runs are there, and nothing follows from them; why.
    Unclear(String),
}

impl Fetched {
    /// The signed statements; if there are none, that is printed.
    fn said(self) -> Result<Option<String>, Failure> {
        match self {
            Self::Bundle(bundle) => Ok(Some(bundle)),
            Self::Nothing(why) | Self::Unclear(why) => {
                print(&format!("UNKNOWN: {}\n", visible_lines(&why)))?;
                Ok(None)
            }
        }
    }
}

async fn fetch(client: &Client, subject: Subject) -> Result<Fetched, Failure> {
    let request = v1::GetVerdictRequest {
        instance_name: client.instance().to_owned(),
        subject: Some(subject),
    };
    let failed = |status: tonic::Status| refused("give a verdict", &status);
    let pieces = match client.runs().get_verdict(request).await {
        Ok(pieces) => pieces.into_inner(),
        Err(status) if status.code() == Code::NotFound => {
            return Ok(Fetched::Nothing(status.message().to_owned()));
        }
        Err(status) if status.code() == Code::FailedPrecondition => {
            return Ok(Fetched::Unclear(status.message().to_owned()));
        }
        Err(status) => return Err(failed(status)),
    };
    let pieces: Vec<_> = pieces.try_collect().await.map_err(failed)?;
    for piece in pieces
        .iter()
        .filter(|piece| !piece.unkept_reason.is_empty())
    {
        tracing::warn!(
            "this verdict holds, but the coordinator could not keep it: {}; write it to a file (--output)",
            piece.unkept_reason
        );
    }
    let bytes: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece.data.iter().copied())
        .collect();
    String::from_utf8(bytes)
        .map(Fetched::Bundle)
        .or_exit(ExitCode::Infrastructure)
}

fn exit_code(verified: &Verified) -> ExitCode {
    match verified.verdict.verdict.as_str() {
        "RELEASABLE" => ExitCode::Good,
        "NOT_RELEASABLE" => ExitCode::NotReleasable,
        _ => ExitCode::Unknown,
    }
}
