//! The log of uses, and the clock that it goes by.

use tokio_util::sync::CancellationToken;

use super::*;

#[tokio::test(start_paused = true)]
async fn time_passes_steadily_whatever_is_set() {
    let wall = Arc::new(AtomicU32::new(1_000_000));
    let set = Arc::clone(&wall);
    let clock = steady_clock(&move || wall.load(Ordering::Relaxed));
    for (jump, passed) in [(1_086_400, 0), (1_086_400, 10), (0, 10), (5, 25)] {
        set.store(jump, Ordering::Relaxed);
        let passed_before = clock() - 1_000_000;
        tokio::time::advance(Duration::from_secs(u64::from(passed - passed_before))).await;
        assert_eq!(clock(), 1_000_000 + passed);
    }
}

#[tokio::test]
async fn what_was_used_ahead_of_the_clock_was_used_now() {
    let settings = CacheSettings {
        keep_verdicts: Duration::from_secs(900),
        ..settings()
    };
    let mut world = World::new(23, settings);
    let tenant = world.tenant(0);
    upload(&world, &world.node, &tenant, &[1, 2]).await;
    let for_verdicts = world.node.for_verdicts(&tenant);
    let named = Digest::of(&content(1));
    assert_eq!(for_verdicts.find_missing(&[named]).await.unwrap(), []);
    world.node.retention().flush();
    world.clock.fetch_sub(500_000, Ordering::Relaxed);
    let now = world.now();
    // What a start made of it holds for the next.
    for _ in 0..2 {
        world.crash();
        let entries = world.node.retention().index.entries();
        let claims = entries.iter().flat_map(|entry| &entry.claims);
        let used: Vec<Seconds> = claims.map(|claim| claim.used).collect();
        assert_eq!(used, [now; 3]);
        world.node.retention().flush();
        world.pass(KEEP);
    }
    world.pass(1000);
    world.node.evictor.pass(0).await;
    assert_eq!(world.node.retention().index.all().count, 0);
}

#[tokio::test]
async fn a_log_is_complete_only_if_a_coordinator_ended_it() {
    let world = World::new(13, settings());
    let tenant = world.tenant(0);
    let open = || {
        let log = UseLogFrom::TheLastTerm;
        let opened = Retention::open(world.state.path(), None, settings(), log);
        opened.unwrap().1
    };
    upload(&world, &world.node, &tenant, &[1]).await;
    assert!(!open(), "nobody ended it");
    world.node.retention().close(false);
    assert!(!open(), "it was not known to be complete");
    world.node.retention().close(true);
    assert!(open());
    assert!(!open(), "whoever opened it last did not end it");
}

#[tokio::test]
async fn what_an_earlier_terms_log_knows_counts_as_used_now_and_is_not_all() {
    let world = World::new(14, settings());
    let tenant = world.tenant(0);
    upload(&world, &world.node, &tenant, &[1]).await;
    // One thing is claimed by verdicts alone.
    let retention = world.node.retention();
    let entry = retention
        .index
        .entries()
        .into_iter()
        .find(|it| it.key.kind == Kind::Blob);
    let entry = entry.unwrap();
    let (key, [claim]) = (entry.key, entry.claims[..].try_into().unwrap());
    retention
        .index
        .touch(key, Claimant::NOBODY.for_verdicts(), claim.used);
    retention.index.release(key, claim);
    retention.close(true);
    let later = world.clock.load(Ordering::Relaxed) + 7 * KEEP;
    for (log, is_complete, used_later) in [
        (UseLogFrom::AnEarlierTerm, false, true),
        (UseLogFrom::TheLastTerm, true, false),
    ] {
        // Whoever opens it writes into it.
        let state = tempfile::tempdir().unwrap();
        let log_of = |directory: &Path| directory.join(USE_LOG);
        std::fs::copy(log_of(world.state.path()), log_of(state.path())).unwrap();
        let clock: Clock = Box::new(move || later);
        let opened = Retention::open_at(state.path(), None, settings(), (log, clock));
        let (retention, was_complete) = opened.unwrap();
        assert_eq!(was_complete, is_complete, "{log:?}");
        let entries = retention.index.entries();
        assert!(!entries.is_empty());
        let all_later = entries.iter().all(|entry| entry.last_used() == later);
        assert_eq!(all_later, used_later, "{log:?}");
        // Whoever is killed at once has made it this term's all the same.
        drop(retention);
        let clock: Clock = Box::new(move || later);
        let last = (UseLogFrom::TheLastTerm, clock);
        let again = Retention::open_at(state.path(), None, settings(), last);
        let (retention, was_complete) = again.unwrap();
        assert!(!was_complete);
        assert_eq!(retention.index.entries().len(), entries.len());
        let entries = retention.index.entries();
        let all_later = entries.iter().all(|entry| entry.last_used() == later);
        assert_eq!(all_later, used_later, "{log:?}");
    }
}

/// How a coordinator ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Knowing all that is stored, or not.
    Stopped {
        is_complete: bool,
    },
    Killed,
    /// And the next one is stopped at once.
    KilledThenStopped {
        is_complete: bool,
    },
}

/// What may go after that of what was used long before, and asked for just before a kill.
async fn check_ending(ending: Ending) {
    let mut world = World::new(31, settings());
    let tenant = world.tenant(0);
    upload(&world, &world.node, &tenant, &[1, 2]).await;
    world.node.retention().flush();
    world.pass(KEEP * 5);
    match ending {
        Ending::Stopped { is_complete } => world.node.retention().close(is_complete),
        // The log is not told that they were asked for.
        Ending::Killed => drop(upload(&world, &world.node, &tenant, &[1, 2]).await),
        Ending::KilledThenStopped { is_complete } => {
            upload(&world, &world.node, &tenant, &[1, 2]).await;
            world.crash();
            world.node.retention().close(is_complete);
        }
    }
    world.crash();
    let evict = async || {
        // The dice may not let it at first.
        for _ in 0..20 {
            world.node.evictor.pass(u64::MAX).await;
        }
        world.node.retention().digests(Kind::Blob).len()
    };
    if !matches!(ending, Ending::Stopped { .. }) {
        assert_eq!(evict().await, 2, "they were told to be there: {ending:?}");
        world.pass(KEEP);
        assert_eq!(evict().await, 2, "{ending:?}");
        world.pass(1);
    }
    assert_eq!(evict().await, 0, "{ending:?}");
}

#[tokio::test]
async fn what_was_promised_ahead_of_a_kill_is_kept_and_limits_hold_after_that() {
    check_ending(Ending::Killed).await;
    for is_complete in [true, false] {
        check_ending(Ending::Stopped { is_complete }).await;
        check_ending(Ending::KilledThenStopped { is_complete }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_of_an_eviction_is_in_good_order() {
    let world = World::new(41, settings());
    let numbers: Vec<u64> = (0..100).collect();
    upload(&world, &world.node, &world.tenant(0), &numbers).await;
    world.pass(KEEP * 5);
    let asked = Arc::new(tokio::sync::Notify::new());
    let asking = Arc::clone(&asked);
    let store = WatchedDeletions::with(move |_| {
        asking.notify_one();
        std::future::pending().boxed()
    });
    let mut evictor = Arc::into_inner(world.node.evictor).expect("is nobody else's");
    let place = evictor.places.of_kind.get_mut(&Kind::Blob).unwrap();
    place.store = store;
    let stop = CancellationToken::new();
    let evicting = tokio::spawn(evictor.run(stop.clone()));
    asked.notified().await;
    stop.cancel();
    evicting.await.unwrap();
    let recalled = UseLog::peek(&world.state.path().join(USE_LOG)).unwrap();
    assert_eq!(recalled.end, LogEnd::Stopped);
    let doubt = world.state.path().join(DOUBT);
    assert!(doubt.exists(), "what may be gone is believed to be there");
    assert_eq!(
        recalled.held_until(world.clock.load(Ordering::Relaxed), 1),
        None
    );
}

#[tokio::test]
async fn the_log_is_told_what_goes_before_it_goes() {
    let mut world = World::new(37, settings());
    upload(&world, &world.node, &world.tenant(0), &[1, 2, 3]).await;
    world.node.retention().flush();
    world.pass(KEEP * 5);
    let (log, deleted) = (
        world.state.path().join(USE_LOG),
        Arc::new(AtomicU32::new(0)),
    );
    let counted = Arc::clone(&deleted);
    let store = WatchedDeletions::with(move |digest| {
        let recalled = UseLog::peek(&log).unwrap();
        let mut known = recalled.entries.iter();
        assert!(
            known.all(|entry| entry.key.digest != digest),
            "a log names what is gone"
        );
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(()).boxed()
    });
    let evictor = Arc::get_mut(&mut world.node.evictor).unwrap();
    let place = evictor.places.of_kind.get_mut(&Kind::Blob).unwrap();
    place.store = store;
    evictor.pass(u64::MAX).await;
    assert_eq!(deleted.load(Ordering::Relaxed), 3);
}

#[test]
fn usage_says_whether_it_is_all_that_is_stored() {
    let state = tempfile::tempdir().unwrap();
    let is_own_part = || usage_of(state.path()).unwrap().is_own_part;
    assert!(!is_own_part());
    for is_all in [true, false, false, true] {
        note_coverage(state.path(), is_all).unwrap();
        assert_eq!(is_own_part(), !is_all);
    }
}
