//! What leases are for, sealed and kept by the agents that hold them.
//!
//! Leases are in no ledger (design, decision D5): a coordinator that starts anew learns from its agents what they are
//! doing. An agent is not believed in that: it gives back what the coordinator that granted the lease has sealed, so
//! that it can answer for nothing that it was not given.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use regatta_model::{
    AgentId, Digest, FencingToken, InvalidIdError, LeaseId, Resources, TenantId, UnitIndex,
};
use regatta_scheduler::{Claim, DesiredLease, HeldLease};
use regatta_wire::v1;
use ring::hmac;

use super::leases::{Lease, fan_out, one_to_one};
use super::report::ReportedLease;

/// How long a seal is, in bytes.
const SEAL_BYTES: usize = 32;

/// What seals claims, and tells a coordinator's own from others.
#[derive(Clone)]
pub struct ClaimKey(hmac::Key);

impl ClaimKey {
    /// A key that is known already: that of the coordinator before this one.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// One that nobody has.
    #[must_use]
    pub fn random() -> Self {
        let halves = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        let mut secret = [0; 32];
        for (part, half) in secret.chunks_exact_mut(16).zip(halves) {
            part.copy_from_slice(half.as_bytes());
        }
        Self::new(secret)
    }

    /// What the agent of a lease is to keep; nothing if no part of it can be taken up by another coordinator.
    pub(super) fn seal(&self, desired: &DesiredLease, lease: &Lease) -> Bytes {
        let work = &lease.work;
        let claimed = |unit: &UnitIndex| {
            let plan = work.units.get(unit.0 as usize);
            let key = plan.and_then(|plan| plan.expected.key);
            v1::ClaimedUnit {
                unit: unit.0,
                key_hash: key.map_or_else(Bytes::new, |key| Bytes::copy_from_slice(key.hash())),
                key_size_bytes: key
                    .map_or(0, |key| i64::try_from(key.size_bytes()).unwrap_or(i64::MAX)),
            }
        };
        let units: Vec<_> = lease.units.iter().map(claimed).collect();
        if units.iter().all(|unit| unit.key_hash.is_empty()) {
            return Bytes::new();
        }
        let claim = v1::LeaseClaim {
            agent_id: lease.agent.to_string(),
            lease_id: desired.lease.0,
            fencing_token: desired.token.0,
            instance_name: work.tenant.to_string(),
            cpu_milli: work.spec.cpu_milli,
            memory_bytes: work.spec.memory_bytes,
            units,
            one_execution: lease.is_one_execution(),
        };
        self.sealed(&claim)
    }

    fn sealed(&self, claim: &v1::LeaseClaim) -> Bytes {
        let claim = claim.encode_to_vec();
        let mut sealed = BytesMut::with_capacity(SEAL_BYTES + claim.len());
        sealed.put_slice(hmac::sign(&self.0, &claim).as_ref());
        sealed.put_slice(&claim);
        sealed.freeze()
    }

    /// What a lease that an agent reports is for; `None` if it does not say, or was not given it.
    fn open(&self, agent: &AgentId, reported: &ReportedLease) -> Option<Claim> {
        let (seal, claim) = reported.claim.split_at_checked(SEAL_BYTES)?;
        if hmac::verify(&self.0, claim, seal).is_err() {
            tracing::warn!(%agent, lease = reported.lease.0, "a claim is not sealed with this key");
            return None;
        }
        let claim = v1::LeaseClaim::decode(claim).ok()?;
        let is_own = claim.agent_id == agent.as_str()
            && claim.lease_id == reported.lease.0
            && claim.fencing_token == reported.token.0;
        if !is_own {
            tracing::warn!(%agent, lease = reported.lease.0, "a claim is of another lease");
            return None;
        }
        valid_claim(claim, reported.first_index)
            .inspect_err(|error| {
                tracing::warn!(%agent, lease = reported.lease.0, %error, "a claim cannot be read");
            })
            .ok()
    }
}

impl fmt::Debug for ClaimKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClaimKey")
    }
}

fn valid_claim(claim: v1::LeaseClaim, acknowledged: u32) -> Result<Claim, InvalidIdError> {
    let unit = |unit: v1::ClaimedUnit| {
        let hash: Option<[u8; 32]> = unit.key_hash.as_ref().try_into().ok();
        let size = u64::try_from(unit.key_size_bytes).ok();
        let key = hash.zip(size);
        let key = key.map(|(hash, size)| Digest::new(hash, size));
        (UnitIndex(unit.unit), key)
    };
    Ok(Claim {
        tenant: claim.instance_name.parse::<TenantId>()?,
        resources: Resources {
            cpu_milli: claim.cpu_milli,
            memory_bytes: claim.memory_bytes,
        },
        units: claim.units.into_iter().map(unit).collect(),
        together: claim.one_execution,
        acknowledged,
    })
}

/// The claims of leases that are in no book yet.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_agent: HashMap<AgentId, BTreeMap<LeaseId, KnownClaim>>,
}

/// How to read what an agent reports of a lease.
#[derive(Debug)]
struct KnownClaim {
    token: FencingToken,
    /// What the agent calls its units, if they are one execution.
    together: Option<Vec<UnitIndex>>,
}

impl Claims {
    /// The report of a lease that is in no book, as the scheduler understands it, and the outcomes apart, each under
    /// its index.
    pub(super) fn held(
        &mut self,
        key: &ClaimKey,
        agent: &AgentId,
        reported: ReportedLease,
    ) -> (HeldLease, Vec<(u32, v1::ExecutionOutcome)>) {
        let claim = key.open(agent, &reported);
        if let Some(claim) = &claim {
            let units = claim.units.iter().map(|(unit, _)| *unit);
            let known = KnownClaim {
                token: reported.token,
                together: claim.together.then(|| units.collect()),
            };
            let of_agent = self.by_agent.entry(agent.clone()).or_default();
            of_agent.insert(reported.lease, known);
        }
        let known = self.by_agent.get(agent);
        let known = known.and_then(|known| known.get(&reported.lease));
        let known = known.filter(|known| known.token == reported.token);
        let (held, outcomes) = match known.and_then(|known| known.together.as_ref()) {
            Some(units) => fan_out(units, reported),
            None => one_to_one(reported),
        };
        (HeldLease { claim, ..held }, outcomes)
    }

    /// A lease goes into the book. Whether its units are one execution.
    pub(super) fn take(&mut self, agent: &AgentId, lease: LeaseId) -> bool {
        let known = self.by_agent.get_mut(agent);
        let known = known.and_then(|known| known.remove(&lease));
        known.is_some_and(|known| known.together.is_some())
    }

    /// Forgets what is said of leases that an agent is not to hold.
    pub(super) fn retain(&mut self, agent: &AgentId, held: &BTreeSet<LeaseId>) {
        let Some(known) = self.by_agent.get_mut(agent) else {
            return;
        };
        known.retain(|lease, _| held.contains(lease));
        if known.is_empty() {
            self.by_agent.remove(agent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ClaimKey {
        ClaimKey::new([7; 32])
    }

    fn agent(name: &str) -> AgentId {
        name.parse().expect("is a name")
    }

    fn message() -> v1::LeaseClaim {
        let digest = Digest::of(b"unit");
        let claimed = |unit| v1::ClaimedUnit {
            unit,
            key_hash: Bytes::copy_from_slice(digest.hash()),
            key_size_bytes: 4,
        };
        v1::LeaseClaim {
            agent_id: "a".to_owned(),
            lease_id: 7,
            fencing_token: 8,
            instance_name: "tenant".to_owned(),
            cpu_milli: 1000,
            memory_bytes: 1,
            units: vec![claimed(3), v1::ClaimedUnit::default()],
            one_execution: true,
        }
    }

    fn reported(claim: Bytes) -> ReportedLease {
        let outcome = v1::ExecutionOutcome {
            kind: v1::OutcomeKind::Rejected.into(),
            ..Default::default()
        };
        ReportedLease {
            lease: LeaseId(7),
            token: FencingToken(8),
            phase: v1::LeasePhase::Running,
            slot: None,
            first_index: 0,
            outcomes: vec![outcome],
            claim,
        }
    }

    #[test]
    fn a_claim_comes_back_as_it_was_given() {
        let claim = key().open(&agent("a"), &reported(key().sealed(&message())));
        let expected = Claim {
            tenant: "tenant".parse().expect("is a name"),
            resources: Resources {
                cpu_milli: 1000,
                memory_bytes: 1,
            },
            units: vec![
                (UnitIndex(3), Some(Digest::of(b"unit"))),
                (UnitIndex(0), None),
            ],
            together: true,
            acknowledged: 0,
        };
        assert_eq!(claim, Some(expected));
    }

    #[test]
    fn no_agent_claims_what_it_was_not_given() {
        let sealed = key().sealed(&message());
        let opened = |agent: &AgentId, report: &ReportedLease| key().open(agent, report);
        assert_eq!(opened(&agent("b"), &reported(sealed.clone())), None);
        let other_lease = ReportedLease {
            lease: LeaseId(9),
            ..reported(sealed.clone())
        };
        assert_eq!(opened(&agent("a"), &other_lease), None);
        let other_token = ReportedLease {
            token: FencingToken(9),
            ..reported(sealed.clone())
        };
        assert_eq!(opened(&agent("a"), &other_token), None);
        let forged = ClaimKey::random().sealed(&message());
        assert_eq!(opened(&agent("a"), &reported(forged)), None);
        for position in 0..sealed.len() {
            let mut edited = sealed.to_vec();
            edited[position] ^= 1;
            let report = reported(edited.into());
            assert_eq!(opened(&agent("a"), &report), None, "byte {position}");
        }
        for length in 0..sealed.len() {
            let report = reported(sealed.slice(..length));
            assert_eq!(opened(&agent("a"), &report), None, "{length} bytes");
        }
    }

    #[test]
    fn the_one_outcome_of_a_lease_is_that_of_each_unit_as_long_as_it_is_claimed() {
        let mut claims = Claims::default();
        let agent = agent("a");
        let told = |claims: &mut Claims, claim: Bytes| {
            let (held, outcomes) = claims.held(&key(), &agent, reported(claim));
            let units: Vec<u32> = held.outcomes.iter().map(|it| it.unit.0).collect();
            (held.claim.is_some(), units, outcomes.len())
        };
        let first = told(&mut claims, key().sealed(&message()));
        assert_eq!(first, (true, vec![3, 0], 2));
        assert_eq!(told(&mut claims, Bytes::new()), (false, vec![3, 0], 2));
        claims.retain(&agent, &BTreeSet::new());
        assert_eq!(told(&mut claims, Bytes::new()), (false, vec![0], 1));
    }
}
