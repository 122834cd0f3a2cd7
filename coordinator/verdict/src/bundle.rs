//! All statements about a run together: an in-toto bundle, which is JSON Lines of envelopes.

use crate::envelope::{Envelope, EnvelopeError};
use crate::evidence::Evidence;
use crate::keys::{PublicKey, SigningKey};
use crate::statement::{GIT_COMMIT, Statement, VerdictPredicate};

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
    /// There is not exactly one verdict.
    #[error("it holds {found} verdicts, not one")]
    Verdicts {
        /// How many there are.
        found: usize,
    },
    /// Lines of several runs were put together.
    #[error("line {line} is about something else than line 1")]
    Mixed {
        /// Counted from 1.
        line: usize,
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
        let mut subjects = self.statements.iter().flat_map(|it| &it.subject);
        let commit = subjects.find_map(|subject| subject.digest.get(GIT_COMMIT));
        commit.map(String::as_str)
    }
}

/// Signs what a run says. The same run and key always give the same bytes.
#[must_use]
pub fn sign_bundle(run: &str, evidence: &Evidence, key: &SigningKey) -> String {
    let statements = [Statement::of_run(run, evidence)];
    let statements = statements.into_iter().chain(Statement::of_suites(evidence));
    let line = |statement: Statement| {
        let payload = serde_json::json!(statement).to_string();
        let envelope = Envelope::sign(payload.as_bytes(), key);
        format!("{}\n", serde_json::json!(envelope))
    };
    statements.map(line).collect()
}

/// What a bundle says, if each line of it was signed with this key and none contradicts itself.
///
/// # Errors
/// [`InvalidBundleError`] names the line.
pub fn verify_bundle(text: &str, key: &PublicKey) -> Result<Verified, InvalidBundleError> {
    let mut statements = Vec::new();
    let mut verdicts = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let line = index + 1;
        let statement = open(text, line, key)?;
        let invalid = |detail: String| InvalidBundleError::Statement { line, detail };
        if let Some(verdict) = statement.verdict() {
            verdicts.push(verdict.map_err(|error| invalid(error.to_string()))?);
        }
        statements.push(statement);
    }
    let is_other = |statement: &Statement| statement.subject != statements[0].subject;
    if let Some(index) = statements.iter().position(is_other) {
        return Err(InvalidBundleError::Mixed { line: index + 1 });
    }
    let verdict = match <[_; 1]>::try_from(verdicts) {
        Ok([verdict]) => verdict,
        Err(verdicts) => {
            let found = verdicts.len();
            return Err(InvalidBundleError::Verdicts { found });
        }
    };
    match verdict.contradiction() {
        Some(detail) => Err(InvalidBundleError::Contradiction { detail }),
        None => Ok(Verified {
            verdict,
            statements,
        }),
    }
}

fn open(text: &str, line: usize, key: &PublicKey) -> Result<Statement, InvalidBundleError> {
    let envelope: Envelope = serde_json::from_str(text)
        .map_err(|source| InvalidBundleError::NotAnEnvelope { line, source })?;
    let payload = envelope
        .open(key)
        .map_err(|source| InvalidBundleError::Envelope { line, source })?;
    let invalid = |detail: String| InvalidBundleError::Statement { line, detail };
    let statement: Statement =
        serde_json::from_slice(&payload).map_err(|error| invalid(error.to_string()))?;
    match statement.has_type() {
        true => Ok(statement),
        false => Err(invalid("its `_type` is another".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regatta_wire::v1;

    use super::*;
    use crate::evidence::tests::{gathered, run};

    fn bundle(key: &SigningKey) -> String {
        let tests = [("a", v1::TestStatus::Passed), ("b", v1::TestStatus::Flaky)];
        let events = run(&tests, v1::Verdict::Releasable);
        sign_bundle("r1", &gathered(&events).expect("is complete"), key)
    }

    #[test]
    fn what_was_signed_is_verified() {
        let key = SigningKey::generate().expect("random numbers");
        let signed = bundle(&key);
        assert_eq!(signed, bundle(&key), "it can be made again");
        let verified = verify_bundle(&signed, &key.public()).expect("is good");
        assert_eq!(verified.verdict.verdict, "RELEASABLE");
        assert_eq!(verified.statements.len(), 2);
        let other = SigningKey::generate().expect("random numbers");
        assert!(verify_bundle(&signed, &other.public()).is_err());
        let of_another = format!("{signed}{}", bundle(&other));
        assert!(verify_bundle(&of_another, &key.public()).is_err());
        let twice = signed.repeat(2);
        let error = verify_bundle(&twice, &key.public()).expect_err("two verdicts");
        assert!(matches!(error, InvalidBundleError::Verdicts { found: 2 }));
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
            sign_bundle("r1", &gathered(&events).expect("is complete"), &key)
        };
        let (good, dirty) = (of(|_| {}), of(|spec| spec.dirty = true));
        let commit = |bundle: &str| {
            let verified = verify_bundle(bundle, &key.public()).expect("is good");
            verified.commit().map(str::to_owned)
        };
        assert_eq!(commit(&good), Some("0123456789".repeat(4)));
        assert_eq!(commit(&dirty), None);
        let lines = |bundle: &str| {
            bundle
                .lines()
                .map(|line| format!("{line}\n"))
                .collect::<Vec<_>>()
        };
        let mixed = [lines(&dirty)[0].clone(), lines(&good)[1].clone()].concat();
        let error = verify_bundle(&mixed, &key.public()).expect_err("of two runs");
        assert!(
            matches!(error, InvalidBundleError::Mixed { line: 2 }),
            "{error}"
        );
    }

    #[test]
    fn a_signature_does_not_make_a_contradiction_true() {
        let key = SigningKey::generate().expect("random numbers");
        let events = run(&[("a", v1::TestStatus::Failed)], v1::Verdict::NotReleasable);
        let evidence = gathered(&events).expect("is complete");
        let mut statement = Statement::of_run("r1", &evidence);
        statement.predicate["verdict"] = "RELEASABLE".into();
        let payload = serde_json::json!(statement).to_string();
        let envelope = serde_json::json!(Envelope::sign(payload.as_bytes(), &key)).to_string();
        let error = verify_bundle(&envelope, &key.public()).expect_err("it lies");
        assert!(matches!(error, InvalidBundleError::Contradiction { .. }));
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
