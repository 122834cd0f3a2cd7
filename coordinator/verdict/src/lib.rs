//! Verdicts: from the events of a run to signed statements, and back.
//!
//! Responsibility: what a run's events are evidence of ([`Evidence`]), which runs speak for a commit
//! ([`DecisiveRun`]), what they come to by what a release requires ([`Judgement`], [`Policy`]), the in-toto
//! statements that say so ([`Statement`]), the envelopes that carry them ([`Envelope`], DSSE) and the keys that sign them. Pure: no
//! I/O, no clock; the same events and the same key give the same bytes, so that a verdict can be made again.
//!
//! Invariants:
//! - What is signed says no more than the events do.
//! - What is RELEASABLE has all that its policy requires.
//! - A statement that contradicts itself is no evidence, whoever has signed it.
//!
//! Sources: in-toto Attestation Framework v1 (statement, test-result predicate v0.1, bundle), DSSE v1.0.2,
//! RFC 8032 (Ed25519), RFC 8410 (its keys in PKCS #8 and SubjectPublicKeyInfo).

mod bundle;
mod counts;
mod decisive;
mod envelope;
mod evidence;
mod flaky;
mod judgement;
mod keys;
mod policy;
mod predicate;
mod provenance;
mod stages;
mod statement;

pub use bundle::{InvalidBundleError, Verified, sign_bundle, verify_bundle};
pub use counts::Counts;
pub use decisive::{Deciding, DecisiveRun, EndedRun};
pub use envelope::{Envelope, EnvelopeError, PAYLOAD_TYPE, Signature};
pub use evidence::{
    Evidence, EvidenceBuilder, IncompleteRunError, JobEvidence, SuiteEvidence, TestEvidence,
};
pub use flaky::{Failures, FlakyAcrossRuns};
pub use judgement::{Artefact, CachedResults, Judgement};
pub use keys::{InvalidKeyError, NewKeyError, PublicKey, SigningKey};
pub use policy::{Policy, RequiredJob, is_required};
pub use predicate::{
    CachedFrom, JobStatement, PolicyMismatchError, PolicyStatement, Requested, RunStatement,
    VerdictPredicate,
};
pub use provenance::PROVENANCE_TYPE;
pub use stages::Stages;
pub use statement::{Described, Statement, Subject, TEST_RESULT_TYPE, VERDICT_TYPE, Vouched};
