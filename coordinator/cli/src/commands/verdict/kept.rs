//! Verdicts that were given before.

use regatta_model::Digest;
use regatta_verdict::PublicKey;
use regatta_wire::v1;
use regatta_wire::v1::get_verdict_request::Subject as Asked;
use regatta_wire::v1::list_verdicts_request::Subject;
use serde_json::{Value, json};

use super::print;
use crate::client::{Client, refused};
use crate::commands::table::table;
use crate::exit_code::{ExitCode, Failure};
use crate::history::system_time;
use crate::options::VerdictOptions;
use crate::watch::verdict_word;

/// How many are looked at: those that were given last.
const LOOKED_AT: u32 = 1000;
/// How much of a digest or an id tells it from others, in characters.
const SHORT: usize = 12;

/// Prints what was said, and when.
pub(super) async fn list(
    client: &Client,
    subject: Asked,
    options: &VerdictOptions,
) -> Result<ExitCode, Failure> {
    if options.output.is_some() {
        let message = "several verdicts may have been given: say which to write (--kept=BUNDLE)";
        return Err(Failure::new(ExitCode::BadConfiguration, message));
    }
    let given = ask(client, subject).await?;
    if given.is_empty() && !options.json {
        tracing::warn!("no verdict of it was given yet; `regatta verdict` gives one");
    }
    print(&match options.json {
        true => given
            .iter()
            .map(|it| format!("{}\n", as_json(it)))
            .collect(),
        false => as_table(&given),
    })?;
    Ok(ExitCode::Good)
}

/// The one whose bundle's digest begins like this.
pub(super) async fn find(
    client: &Client,
    subject: Asked,
    beginning: &str,
) -> Result<v1::GivenVerdict, Failure> {
    let given = ask(client, subject).await?;
    choose(given, beginning)
}

fn choose(given: Vec<v1::GivenVerdict>, beginning: &str) -> Result<v1::GivenVerdict, Failure> {
    let count = given.len();
    let begins = |it: &v1::GivenVerdict| bundle(it).starts_with(beginning);
    let mut found: Vec<_> = given.into_iter().filter(begins).collect();
    let message = match (found.pop(), found.is_empty()) {
        (Some(one), true) => return Ok(one),
        (Some(_), false) => format!(
            "{} verdicts of it have bundles that begin with {beginning}; say more",
            found.len() + 1
        ),
        (None, _) => format!(
            "of the {count} verdicts of it that were given, none has a bundle that begins with {beginning}; \
             --kept lists them"
        ),
    };
    Err(Failure::new(ExitCode::BadConfiguration, message))
}

async fn ask(client: &Client, subject: Asked) -> Result<Vec<v1::GivenVerdict>, Failure> {
    let subject = match subject {
        Asked::RunId(run) => Some(Subject::RunId(run)),
        Asked::Commit(commit) => Some(Subject::Commit(commit)),
        Asked::Bundle(_) => None,
    };
    let request = v1::ListVerdictsRequest {
        instance_name: client.instance().to_owned(),
        subject,
        limit: LOOKED_AT,
    };
    let listed = client.runs().list_verdicts(request).await;
    let listed = listed.map_err(|status| refused("list verdicts", &status))?;
    Ok(listed.into_inner().verdicts)
}

fn as_table(given: &[v1::GivenVerdict]) -> String {
    if given.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = given.iter().map(row).collect();
    let headings = [
        "GIVEN", "AND LAST", "VERDICT", "RUN", "POLICY", "KEY", "BUNDLE",
    ];
    table(headings, &rows)
}

fn row(given: &v1::GivenVerdict) -> [String; 7] {
    let policy = given.policy.as_ref().map(|it| it.hash.as_str());
    let gone = if given.is_gone { " (gone)" } else { "" };
    [
        time(given.first_given_at.as_ref()),
        time(given.last_given_at.as_ref()),
        verdict_word(given.verdict()).1.to_owned(),
        beginning(&given.run_id),
        beginning(policy.unwrap_or_default()),
        beginning(&key(given)),
        format!("{}{gone}", beginning(&bundle(given))),
    ]
}

fn as_json(given: &v1::GivenVerdict) -> Value {
    json!({
        "bundle": bundle(given),
        "verdict": verdict_word(given.verdict()).1,
        "run_id": given.run_id,
        "commit": given.commit,
        "policy": given.policy.as_ref().map(|it| &it.hash),
        "key": key(given),
        "public_key": given.public_key,
        "first_given_at": time(given.first_given_at.as_ref()),
        "last_given_at": time(given.last_given_at.as_ref()),
        "is_gone": given.is_gone,
    })
}

/// The digest of its bundle.
fn bundle(given: &v1::GivenVerdict) -> String {
    let digest = given.bundle.as_ref();
    let digest = digest.and_then(|digest| Digest::try_from(digest).ok());
    digest.map(|digest| digest.hash_hex()).unwrap_or_default()
}

/// The id of the key that verifies it.
fn key(given: &v1::GivenVerdict) -> String {
    let key = PublicKey::from_pem(&given.public_key);
    key.map(|key| key.id()).unwrap_or_default()
}

fn beginning(text: &str) -> String {
    text.chars().take(SHORT).collect()
}

fn time(timestamp: Option<&prost_types::Timestamp>) -> String {
    let time = timestamp.and_then(system_time);
    let time = time.and_then(|time| jiff::Timestamp::try_from(time).ok());
    time.map(|time| format!("{time:.0}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(content: &[u8]) -> v1::GivenVerdict {
        v1::GivenVerdict {
            bundle: Some(Digest::of(content).into()),
            verdict: v1::Verdict::NotReleasable.into(),
            run_id: "0123456789abcdef".to_owned(),
            first_given_at: Some(prost_types::Timestamp::default()),
            last_given_at: Some(prost_types::Timestamp {
                seconds: 60,
                nanos: 0,
            }),
            ..v1::GivenVerdict::default()
        }
    }

    #[test]
    fn the_beginning_of_a_digest_is_enough_if_no_other_has_it() {
        let (one, two) = (given(b"one"), given(b"two"));
        let both = vec![one.clone(), two];
        let chosen = |beginning: &str| {
            let chosen = choose(both.clone(), beginning);
            chosen.map_err(|failure| (failure.code, failure.to_string()))
        };
        assert_eq!(chosen(&bundle(&one)), Ok(one.clone()));
        assert_eq!(chosen(&bundle(&one)[..8]), Ok(one));
        let (code, text) = chosen("").expect_err("two");
        assert_eq!(code, ExitCode::BadConfiguration);
        assert!(text.starts_with("2 verdicts"), "{text}");
        let (_, text) = chosen("x").expect_err("none");
        assert!(text.contains("of the 2 verdicts"), "{text}");
    }

    #[test]
    fn what_is_stored_no_longer_is_told_all_the_same() {
        let gone = v1::GivenVerdict {
            is_gone: true,
            ..given(b"one")
        };
        let table = as_table(std::slice::from_ref(&gone));
        let row: Vec<_> = table.lines().nth(1).expect("a row").split("  ").collect();
        let expected = [
            "1970-01-01T00:00:00Z",
            "1970-01-01T00:01:00Z",
            "NOT_RELEASABLE",
            "0123456789ab",
        ];
        assert_eq!(row[..4], expected);
        assert!(table.trim_end().ends_with(" (gone)"), "{table}");
        assert_eq!(as_table(&[]), "");
        assert_eq!(as_json(&gone)["is_gone"], true);
    }
}
