//! All statements about a run together: an in-toto bundle, which is JSON Lines of envelopes.

use regatta_model::Digest;

use crate::envelope::{Envelope, EnvelopeError};
use crate::judgement::Judgement;
use crate::keys::{PublicKey, SigningKey};
use crate::predicate::VerdictPredicate;
use crate::provenance::PROVENANCE_TYPE;
use crate::statement::{GIT_COMMIT, Statement, Vouched, sha256};

/// Why a bundle is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBundleError {
    /// A line is no envelope.
    #[error("line {line} is no DSSE envelope")]
    NotAnEnvelope {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A line was not signed like this.
    #[error("line {line}")]
    Envelope {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        source: EnvelopeError,
    },
    /// What was signed is no statement of a kind that is known here.
    #[error("line {line} holds no in-toto statement: {detail}")]
    Statement {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        detail: String,
    },
    /// The first line is none.
    #[error("it does not begin with a verdict")]
    NoVerdict,
    /// The verdict does not vouch for a line, or for one that is not there.
    #[error(
        "it is not whole: the verdict vouches for {vouched} other statements, not for these {found}"
    )]
    Mixed {
        /// For how many the verdict vouches.
        vouched: usize,
        /// How many there are.
        found: usize,
    },
    /// A verdict was signed that cannot be.
    #[error("the verdict contradicts itself: {detail}")]
    Contradiction {
        /// In what.
        detail: &'static str,
    },
}

/// What a bundle says, and who says so is known.
#[derive(Clone, PartialEq, Debug)]
pub struct Verified {
    /// The verdict.
    pub verdict: VerdictPredicate,
    /// Every statement, the verdict's first.
    pub statements: Vec<Statement>,
}

impl Verified {
    /// The commit that the verdict is about, if its files were the commit's.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        // That of the verdict, which vouches for the others.
        let mut subjects = self.statements.iter().take(1).flat_map(|it| &it.subject);
        let commit = subjects.find_map(|subject| subject.digest.get(GIT_COMMIT));
        commit.map(String::as_str)
    }

    /// What its builds made with these bytes, each by its name: a `Tree`'s bytes are those of a directory.
    pub fn made<'a>(&'a self, digest: &Digest) -> impl Iterator<Item = &'a str> + use<'a> {
        let digest = sha256(digest);
        let builds = self.statements.iter();
        let builds = builds.filter(|it| it.predicate_type == PROVENANCE_TYPE);
        let made = builds.flat_map(|it| &it.subject);
        let made = made.filter(move |it| it.digest == digest);
        made.map(|it| it.name.as_str())
    }
}

/// Signs what runs say. The same runs, policy and key always give the same bytes.
#[must_use]
pub fn sign_bundle(judgement: &Judgement, key: &SigningKey) -> String {
    let named = |(name, it): (&str, Statement)| (name.to_owned(), payload(&it));
    let runs = || judgement.runs();
    let suites = runs().flat_map(|(_, evidence)| Statement::of_suites(evidence));
    let suites: Vec<_> = suites.map(named).collect();
    let builds = runs().flat_map(|(run, evidence)| Statement::of_builds(run, evidence));
    let builds: Vec<_> = builds.map(named).collect();
    let digest =
        |(name, payload): &(String, String)| (name.clone(), Digest::of(payload.as_bytes()));
    let vouched = Vouched {
        test_results: suites.iter().map(digest).collect(),
        provenance: builds.iter().map(digest).collect(),
    };
    let verdict = payload(&Statement::of_runs(judgement, &vouched));
    let line = |payload: String| {
        let envelope = Envelope::sign(payload.as_bytes(), key);
        format!("{}\n", serde_json::json!(envelope))
    };
    let payloads = suites.into_iter().chain(builds).map(|(_, payload)| payload);
    std::iter::once(verdict).chain(payloads).map(line).collect()
}

fn payload(statement: &Statement) -> String {
    serde_json::json!(statement).to_string()
}

/// What a bundle says, if each line of it was signed with this key and none contradicts itself.
///
/// # Errors
/// [`InvalidBundleError`] names the line.
pub fn verify_bundle(text: &str, key: &PublicKey) -> Result<Verified, InvalidBundleError> {
    let mut statements = Vec::new();
    let mut digests = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let (statement, digest) = open(text, index + 1, key)?;
        statements.push(statement);
        digests.push(digest);
    }
    let verdict = statements.first().and_then(Statement::verdict);
    let verdict = verdict.ok_or(InvalidBundleError::NoVerdict)?;
    let verdict = verdict.map_err(|error| InvalidBundleError::Statement {
        line: 1,
        detail: error.to_string(),
    })?;
    // Statements of other runs are as well signed as this one's.
    if !verdict.vouches_for(&digests[1..]) {
        return Err(InvalidBundleError::Mixed {
            vouched: verdict.test_results.len() + verdict.provenance.len(),
            found: digests.len() - 1,
        });
    }
    match verdict.contradiction() {
        Some(detail) => Err(InvalidBundleError::Contradiction { detail }),
        None => Ok(Verified {
            verdict,
            statements,
        }),
    }
}

/// A line's statement, with the digest of its bytes.
fn open(
    text: &str,
    line: usize,
    key: &PublicKey,
) -> Result<(Statement, Digest), InvalidBundleError> {
    let envelope: Envelope = serde_json::from_str(text)
        .map_err(|source| InvalidBundleError::NotAnEnvelope { line, source })?;
    let payload = envelope
        .open(key)
        .map_err(|source| InvalidBundleError::Envelope { line, source })?;
    let invalid = |detail: String| InvalidBundleError::Statement { line, detail };
    let statement: Statement =
        serde_json::from_slice(&payload).map_err(|error| invalid(error.to_string()))?;
    match statement.has_type() {
        true => Ok((statement, Digest::of(&payload))),
        false => Err(invalid("its `_type` is another".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regatta_wire::v1;

    use super::*;
    use crate::evidence::tests::{gathered, run};

    fn signed(run: &str, events: &[v1::RunEvent], key: &SigningKey) -> String {
        let evidence = gathered(events).expect("is complete");
        let judgement = Judgement::of((run.to_owned(), evidence), Vec::new(), None);
        sign_bundle(&judgement, key)
    }

    fn bundle(key: &SigningKey) -> String {
        let tests = [("a", v1::TestStatus::Passed), ("b", v1::TestStatus::Flaky)];
        let events = run(&tests, v1::Verdict::Releasable);
        signed("r1", &events, key)
    }

    #[test]
    fn what_was_signed_is_verified() {
        let key = SigningKey::generate().expect("random numbers");
        let signed = bundle(&key);
        assert_eq!(signed, bundle(&key), "it can be made again");
        let verified = verify_bundle(&signed, &key.public()).expect("is good");
        assert_eq!(verified.verdict.verdict, "RELEASABLE");
        assert_eq!(verified.statements.len(), 3);
        let made = |content: &[u8]| {
            let digest = Digest::of(content);
            verified
                .made(&digest)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(made(b"application"), ["out/app"]);
        assert!(made(b"another").is_empty());
        let other = SigningKey::generate().expect("random numbers");
        assert!(verify_bundle(&signed, &other.public()).is_err());
        let of_another = format!("{signed}{}", bundle(&other));
        assert!(verify_bundle(&of_another, &key.public()).is_err());
        let twice = signed.repeat(2);
        assert!(verify_bundle(&twice, &key.public()).is_err());
        assert!(verify_bundle("", &key.public()).is_err());
    }

    #[test]
    fn statements_of_several_runs_are_no_bundle() {
        let key = SigningKey::generate().expect("random numbers");
        let tests = [("a", v1::TestStatus::Passed)];
        let of = |change: fn(&mut v1::RunSpec)| {
            let mut events = run(&tests, v1::Verdict::Releasable);
            if let Some(v1::run_event::Event::RunStarted(started)) = &mut events[0].event {
                change(started.spec.as_mut().expect("is set"));
            }
            signed("r1", &events, &key)
        };
        let (good, dirty) = (of(|_| {}), of(|spec| spec.dirty = true));
        let commit = |bundle: &str| {
            let verified = verify_bundle(bundle, &key.public()).expect("is good");
            verified.commit().map(str::to_owned)
        };
        assert_eq!(commit(&good), Some("0123456789".repeat(4)));
        assert_eq!(commit(&dirty), None);
        // Two runs of the same files say other things, and neither vouches for the other's suites.
        let flaky = run(&[("a", v1::TestStatus::Flaky)], v1::Verdict::Releasable);
        let flaky = signed("r2", &flaky, &key);
        let lines = |bundle: &str| {
            let lines = bundle.lines().map(|line| format!("{line}\n"));
            lines.collect::<Vec<_>>()
        };
        let (good, flaky) = (lines(&good), lines(&flaky));
        for mixed in [
            vec![&good[0], &flaky[1]],
            vec![&good[0]],
            vec![&good[0], &good[1]],
            vec![&good[0], &good[1], &flaky[2]],
            vec![&good[0], &good[2], &good[1]],
            vec![&good[0], &good[1], &good[1]],
            vec![&good[1], &good[0]],
        ] {
            let mixed: String = mixed.into_iter().map(String::as_str).collect();
            assert!(verify_bundle(&mixed, &key.public()).is_err(), "{mixed}");
        }
    }

    proptest! {
        #[test]
        fn no_edited_bundle_is_good(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let key = SigningKey::generate().expect("random numbers");
            let signed = bundle(&key);
            let mut edited = signed.clone().into_bytes();
            let place = place.index(edited.len());
            edited[place] = byte;
            let verified = verify_bundle(&String::from_utf8_lossy(&edited), &key.public());
            let whole = verify_bundle(&signed, &key.public()).expect("is good");
            // What is not signed is the name of the key, and how the JSON is written.
            if let Ok(verified) = verified {
                prop_assert_eq!(verified, whole);
            }
        }
    }
}
