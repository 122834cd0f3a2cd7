use proptest::prelude::*;
use regatta_model::Digest;

use super::super::entry::charged;
use super::*;

/// The moment at which everything is planned.
const NOW: Seconds = 1000;

/// Nobody, and some tenants.
fn users() -> [Claimant; 4] {
    [0, 2, 3, 4].map(Claimant)
}

fn user() -> impl Strategy<Value = Claimant> {
    (0..4usize).prop_map(|at| users()[at])
}

/// Somebody, or verdicts that were given to them.
fn claimant(for_verdicts: f64) -> impl Strategy<Value = Claimant> {
    let for_verdicts = proptest::bool::weighted(for_verdicts);
    (user(), for_verdicts).prop_map(|(user, for_verdicts)| match for_verdicts {
        true => user.for_verdicts(),
        false => user,
    })
}

fn entry(for_verdicts: f64) -> impl Strategy<Value = Entry> {
    let claims = proptest::collection::btree_map(claimant(for_verdicts), 900..NOW + 5, 1..4);
    (0..4usize, 0..60u8, 1..50u64, claims, 0..9u64).prop_map(
        |(kind, seed, size_bytes, claims, order)| {
            let claims = claims.into_iter();
            let claims = claims.map(|(claimant, used)| Claim { claimant, used });
            Entry {
                key: Key {
                    kind: Kind::ALL[kind],
                    digest: Digest::of(&[seed]),
                },
                size_bytes,
                claims: claims.collect(),
                order,
            }
        },
    )
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    entries_of(0.3)
}

fn entries_of(for_verdicts: f64) -> impl Strategy<Value = Vec<Entry>> {
    proptest::collection::vec(entry(for_verdicts), 0..40).prop_map(|mut entries| {
        entries.sort_by_key(|entry| entry.key);
        entries.dedup_by_key(|entry| entry.key);
        entries
    })
}

fn claimant_limits() -> impl Strategy<Value = ClaimantLimits> {
    let limit = |most: u64| proptest::option::of(0..most);
    let age = proptest::option::of(0..120u32);
    (limit(600), age).prop_map(|(max_bytes, max_age)| ClaimantLimits { max_bytes, max_age })
}

fn limits() -> impl Strategy<Value = PlanLimits> {
    (
        claimant_limits(),
        proptest::collection::btree_map(user(), claimant_limits(), 0..3),
        proptest::option::of(0..900u64),
        proptest::option::of(0..40u64),
        (
            proptest::option::of(0..120u32),
            proptest::option::of(0..400u64),
        ),
        prop_oneof![Just(0), 0..300u64],
        0..60u32,
    )
        .prop_map(
            |(others, claimants, max_bytes, max_entries, verdicts, lacking_bytes, keep)| {
                PlanLimits {
                    others,
                    claimants,
                    max_bytes,
                    max_entries,
                    lacking_bytes,
                    keep_verdicts: verdicts.0,
                    max_verdict_bytes: verdicts.1,
                    keep,
                }
            },
        )
}

/// What is left of the entries.
fn carried_out(entries: &[Entry], plan: &Plan) -> Vec<Entry> {
    let gone: BTreeSet<Key> = plan.evictions.iter().map(|it| it.key).collect();
    let mut left = entries.to_vec();
    left.retain(|entry| !gone.contains(&entry.key));
    for entry in &mut left {
        let key = entry.key;
        entry
            .claims
            .retain(|claim| !plan.released.contains(&(key, *claim)));
    }
    left
}

fn is_kept(entry: &Entry) -> bool {
    let mut claims = entry.claims.iter();
    claims.any(|claim| claim.claimant.is_for_verdicts())
}

fn bytes_of(entries: &[Entry], claimant: Option<Claimant>) -> u64 {
    let of_claimant = entries.iter().filter(|entry| {
        let mut charged = charged(entry.claims.iter());
        claimant.is_none_or(|claimant| charged.any(|it| it == claimant))
    });
    of_claimant.map(|entry| entry.size_bytes).sum()
}

proptest! {
    #[test]
    fn what_was_used_lately_stays(entries in entries(), limits in limits()) {
        let plan = plan(&entries, &limits, NOW);
        for eviction in &plan.evictions {
            prop_assert!(eviction.last_used < NOW - limits.keep);
        }
        for (_, claim) in &plan.released {
            prop_assert!(claim.used < NOW - limits.keep);
        }
    }

    #[test]
    fn a_limit_is_kept_unless_what_exceeds_it_was_used_lately(entries in entries(), limits in limits()) {
        let left = carried_out(&entries, &plan(&entries, &limits, NOW));
        let is_old = |used: Seconds| used < NOW - limits.keep;
        let old: Vec<&Entry> = left.iter().filter(|entry| is_old(entry.last_used())).collect();
        if !old.is_empty() {
            // Verdicts keep what is old though there is too much, if what will go is enough.
            let will_go = |entry: &&Entry| old.iter().all(|old| is_kept(old)) && !is_kept(entry);
            let in_the_end: Vec<Entry> = left.iter().filter(|it| !will_go(it)).cloned().collect();
            let bytes = bytes_of(&in_the_end, None);
            prop_assert!(limits.max_bytes.is_none_or(|max| bytes <= max));
            prop_assert!(limits.max_entries.is_none_or(|max| in_the_end.len() as u64 <= max));
            prop_assert!(bytes_of(&entries, None) - bytes >= limits.lacking_bytes);
        }
        let of_verdicts = users().map(Claimant::for_verdicts);
        let claims = entries.iter().flat_map(|entry| &entry.claims);
        let mut of_verdicts_lately = claims.filter(|it| it.claimant.is_for_verdicts() && !is_old(it.used));
        if of_verdicts_lately.next().is_none() {
            let bytes: u64 = of_verdicts.iter().map(|it| bytes_of(&left, Some(*it))).sum();
            prop_assert!(limits.max_verdict_bytes.is_none_or(|max| bytes <= max));
        }
        for claimant in users().into_iter().chain(of_verdicts) {
            let own = limits.of(claimant);
            let claims = left.iter().flat_map(|entry| &entry.claims);
            let mut claims = claims.filter(|claim| claim.claimant == claimant && is_old(claim.used));
            if claims.clone().next().is_some() {
                prop_assert!(own.max_bytes.is_none_or(|max| bytes_of(&left, Some(claimant)) <= max));
            }
            prop_assert!(claims.all(|claim| own.max_age.is_none_or(|age| claim.used >= NOW - age)));
        }
    }

    /// A result is used no later than what it names, by the same tenant: whatever a result could name.
    #[test]
    fn whatever_could_name_something_goes_before_it(entries in entries(), limits in limits()) {
        let plan = plan(&entries, &limits, NOW);
        let place = |key: &Key| plan.evictions.iter().position(|it| it.key == *key);
        for named in &entries {
            let Some(at) = place(&named.key) else { continue };
            for naming in entries.iter().filter(|it| it.key.kind < named.key.kind) {
                let [claim] = naming.claims[..] else { continue };
                let names = named.claims.iter().any(|it| {
                    it.claimant == claim.claimant
                        && (it.used, named.order) >= (claim.used, naming.order)
                });
                if names {
                    let before = place(&naming.key);
                    prop_assert!(before.is_some_and(|before| before < at), "{naming:?} {named:?}");
                }
            }
        }
    }

    #[test]
    fn what_verdicts_keep_goes_for_all_after_everything_else(entries in entries(), limits in limits()) {
        // Nothing of it goes for another reason.
        let limits = PlanLimits {
            others: ClaimantLimits::default(),
            claimants: BTreeMap::new(),
            keep_verdicts: None,
            max_verdict_bytes: None,
            ..limits
        };
        let plan = plan(&entries, &limits, NOW);
        let gone = |entry: &&Entry| plan.evictions.iter().any(|it| it.key == entry.key);
        let unkept = entries.iter().filter(gone).filter(|it| is_kept(it)).count();
        prop_assert_eq!(plan.unkept, unkept);
        if unkept > 0 {
            let mut left = entries.iter().filter(|it| !gone(it) && !is_kept(it));
            prop_assert!(left.all(|it| it.last_used() >= NOW - limits.keep));
        }
        // Without the last of it, there would be too much even if all else were gone.
        let went = entries.iter().filter(gone).filter(|it| is_kept(it));
        if let Some(last) = went.max_by_key(|it| (it.last_used(), it.order, it.key)) {
            let kept: Vec<Entry> = entries.iter().filter(|it| is_kept(it) && !gone(it)).cloned().collect();
            let kept_bytes = bytes_of(&kept, None) + last.size_bytes;
            let (total, count) = (bytes_of(&entries, None), entries.len() as u64);
            let margin = |max: u64| max - max / MARGIN_DIVISOR;
            let exceeds = |amount: u64, kept: u64, max: Option<u64>| {
                max.is_some_and(|max| amount > max && kept > margin(max))
            };
            let is_needed = total - kept_bytes < limits.lacking_bytes
                || exceeds(total, kept_bytes, limits.max_bytes)
                || exceeds(count, kept.len() as u64 + 1, limits.max_entries);
            prop_assert!(is_needed);
        }
    }

    #[test]
    fn nothing_goes_without_need_and_no_more_than_asked_for(entries in entries_of(0.0), limits in limits()) {
        let plan = plan(&entries, &limits, NOW);
        let unlimited = PlanLimits {
            keep: limits.keep,
            ..PlanLimits::default()
        };
        prop_assert_eq!(super::plan(&entries, &unlimited, NOW), Plan::default());
        // Without the last that went for all, what was asked for would not be reached.
        let of_all = |it: &&Eviction| matches!(it.reason, Reason::Disk | Reason::Size | Reason::Count);
        let order = |key: &Key| entries.iter().find(|it| it.key == *key).map(|it| it.order);
        let of_all = plan.evictions.iter().filter(of_all);
        let last = of_all.max_by_key(|it| (it.last_used, order(&it.key), it.key));
        if let Some(last) = last {
            let kept = bytes_of(&carried_out(&entries, &plan), None) + last.size_bytes;
            let count = (entries.len() - plan.evictions.len() + 1) as u64;
            let freed = bytes_of(&entries, None) - kept;
            let margin = |max: u64| max - max / MARGIN_DIVISOR;
            let is_needed = freed < limits.lacking_bytes
                || limits.max_bytes.is_some_and(|max| kept > margin(max))
                || limits.max_entries.is_some_and(|max| count > margin(max));
            prop_assert!(is_needed);
        }
    }

    /// What went once does not go on going: a limit that was met is met.
    #[test]
    fn planning_again_plans_nothing(entries in entries(), limits in limits()) {
        let left = carried_out(&entries, &plan(&entries, &limits, NOW));
        let limits = PlanLimits { lacking_bytes: 0, ..limits };
        prop_assert_eq!(plan(&left, &limits, NOW), Plan::default());
    }
}

#[test]
fn what_others_use_stays_for_them() {
    let shared = Entry {
        key: Key {
            kind: Kind::Blob,
            digest: Digest::of(b"shared"),
        },
        size_bytes: 10,
        claims: vec![
            Claim {
                claimant: Claimant(2),
                used: 100,
            },
            Claim {
                claimant: Claimant(3),
                used: 900,
            },
        ],
        order: 0,
    };
    let limits = PlanLimits {
        others: ClaimantLimits {
            max_age: Some(300),
            max_bytes: None,
        },
        keep: 10,
        ..PlanLimits::default()
    };
    let planned = plan(std::slice::from_ref(&shared), &limits, NOW);
    assert_eq!(planned.evictions, []);
    assert_eq!(planned.released, [(shared.key, shared.claims[0])]);
    let later = plan(&[shared], &limits, 1300);
    assert_eq!(later.evictions.len(), 1);
    assert_eq!(later.evictions[0].reason, Reason::Age);
}

#[test]
fn whoever_was_given_the_most_verdicts_keeps_less_and_the_oldest_goes_first() {
    let [_, one, two, _] = users();
    let artefact = |seed: u8, by: Claimant, used| Entry {
        key: Key {
            kind: Kind::Blob,
            digest: Digest::of(&[seed]),
        },
        size_bytes: 10,
        claims: vec![Claim {
            claimant: by.for_verdicts(),
            used,
        }],
        order: 0,
    };
    // The oldest of all is the only one of its tenant.
    let mut entries = vec![artefact(0, two, 10)];
    entries.extend((1..=10).map(|seed| artefact(seed, one, 100 + Seconds::from(seed))));
    let gone = |limits: &PlanLimits| {
        let planned = plan(&entries, limits, NOW);
        assert_eq!(planned.unkept, planned.evictions.len());
        let gone = planned.evictions.into_iter();
        gone.map(|it| (it.last_used, it.reason)).collect::<Vec<_>>()
    };
    let unlimited = PlanLimits {
        keep: 10,
        keep_verdicts: Some(5000),
        ..PlanLimits::default()
    };
    assert_eq!(gone(&unlimited), []);
    let together = PlanLimits {
        max_verdict_bytes: Some(90),
        ..unlimited.clone()
    };
    // Of 90, one has 10, and the other a level of 80 but for a tenth.
    let oldest = [101, 102, 103].map(|used| (used, Reason::Verdicts));
    assert_eq!(gone(&together), oldest);
    let of_tenant = PlanLimits {
        claimants: BTreeMap::from([(
            one,
            ClaimantLimits {
                max_bytes: Some(180),
                max_age: None,
            },
        )]),
        ..unlimited
    };
    assert_eq!(gone(&of_tenant), oldest[..2]);
}

#[test]
fn what_verdicts_keep_outlasts_a_burst_of_uploads() {
    let [_, user, ..] = users();
    let entry = |seed: u8, claimant: Claimant, used: Seconds| Entry {
        key: Key {
            kind: Kind::Blob,
            digest: Digest::of(&[seed]),
        },
        size_bytes: 10,
        claims: vec![Claim { claimant, used }],
        order: 0,
    };
    let kept = (0..5).map(|seed| entry(seed, user.for_verdicts(), 100));
    let burst = (5..20).map(|seed| entry(seed, user, NOW));
    let entries: Vec<Entry> = kept.chain(burst).collect();
    let by_size = PlanLimits {
        keep: 60,
        max_bytes: Some(100),
        ..PlanLimits::default()
    };
    let by_disk = PlanLimits {
        max_bytes: None,
        lacking_bytes: 110,
        ..by_size.clone()
    };
    for limits in [by_size, by_disk] {
        assert_eq!(plan(&entries, &limits, NOW), Plan::default());
        let later = plan(&entries, &limits, NOW + 61);
        assert_eq!((later.evictions.len(), later.unkept), (11, 0));
        // If all of the burst were not enough, it is not waited for.
        let more = PlanLimits {
            max_bytes: limits.max_bytes.map(|_| 40),
            lacking_bytes: limits.lacking_bytes + 50,
            ..limits
        };
        assert!(plan(&entries, &more, NOW).unkept > 0);
    }
}
