//! A gate that lets so many through at once: tenants in turn, and the runs of each.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Lets at most so many be inside at once, and of one tenant at most half of them. When somebody leaves, the
/// tenant in turn sends the first of its run in turn: whoever comes alone waits for one of each other run of the
/// tenant at most, however many each has, and another tenant's crowd leaves room. How many wait is bounded by how
/// many calls are open.
#[derive(Debug)]
pub(super) struct FairGate<Tenant: Party, Run: Party> {
    most_of_each: usize,
    state: Mutex<State<Tenant, Run>>,
}

/// What takes turns.
pub(super) trait Party: Clone + Eq + Hash {}

impl<Any: Clone + Eq + Hash> Party for Any {}

#[derive(Debug)]
struct State<Tenant: Party, Run: Party> {
    free: usize,
    /// The next number of a turn or of somebody who waits.
    next: u64,
    /// Tenants whose turn comes, in its order: somebody of theirs waits and may enter.
    turns: BTreeMap<u64, Tenant>,
    tenants: HashMap<Tenant, Crowd<Tenant, Run>>,
}

/// Those of one tenant.
#[derive(Debug)]
struct Crowd<Tenant: Party, Run: Party> {
    inside: usize,
    /// Its turn, if it has one.
    turn: Option<u64>,
    /// Runs, each with somebody who waits, in the order of their turns.
    turns: BTreeMap<u64, Run>,
    lines: HashMap<Run, Line<Tenant, Run>>,
}

/// Those of one run who wait.
#[derive(Debug)]
struct Line<Tenant: Party, Run: Party> {
    turn: u64,
    /// In the order in which they came.
    places: BTreeMap<u64, oneshot::Sender<Pass<Tenant, Run>>>,
}

/// Somebody is inside until this is dropped.
#[derive(Debug)]
pub(super) struct Pass<Tenant: Party, Run: Party> {
    /// `None` for one that nobody took.
    of: Option<(Arc<FairGate<Tenant, Run>>, Tenant)>,
}

impl<Tenant: Party, Run: Party> Drop for Pass<Tenant, Run> {
    fn drop(&mut self) {
        if let Some((gate, tenant)) = self.of.take() {
            let mut state = gate.lock();
            state.leave(&tenant, gate.most_of_each);
            gate.let_in(&mut state);
        }
    }
}

/// Somebody waits; dropping it leaves the line.
struct Place<'a, Tenant: Party, Run: Party> {
    gate: &'a FairGate<Tenant, Run>,
    tenant: Tenant,
    run: Run,
    number: u64,
}

impl<Tenant: Party, Run: Party> Drop for Place<'_, Tenant, Run> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        let place = state.give_up(&self.tenant, &self.run, self.number);
        // What it holds is dropped without the lock.
        drop(state);
        drop(place);
    }
}

impl<Tenant: Party, Run: Party> FairGate<Tenant, Run> {
    /// A gate that `limit` may have passed at once.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            most_of_each: limit.div_ceil(2),
            state: Mutex::new(State {
                free: limit,
                next: 0,
                turns: BTreeMap::new(),
                tenants: HashMap::new(),
            }),
        })
    }

    /// Waits until one of a tenant's run may enter. Whoever stops waiting costs nobody a turn.
    pub(super) async fn enter(self: &Arc<Self>, tenant: Tenant, run: Run) -> Pass<Tenant, Run> {
        let (sender, receiver) = oneshot::channel();
        let place = {
            let mut state = self.lock();
            let number = state.wait(&tenant, run.clone(), self.most_of_each, sender);
            self.let_in(&mut state);
            Place {
                gate: self,
                tenant,
                run,
                number,
            }
        };
        let pass = receiver.await;
        drop(place);
        // The other half is dropped with its place, or sends.
        pass.unwrap_or(Pass { of: None })
    }

    /// Lets those enter for whom there is room.
    fn let_in(self: &Arc<Self>, state: &mut State<Tenant, Run>) {
        while state.free > 0 {
            let Some((tenant, place)) = state.next_place() else {
                return;
            };
            let pass = Pass {
                of: Some((Arc::clone(self), tenant.clone())),
            };
            match place.send(pass) {
                Ok(()) => state.entered(&tenant),
                // Nobody waits there any more; dropped as it is, it would wait for the lock.
                Err(mut pass) => pass.of = None,
            }
            state.queue(&tenant, self.most_of_each);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<Tenant, Run>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Tenant: Party, Run: Party> State<Tenant, Run> {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Somebody waits; answers the number of the place.
    fn wait(
        &mut self,
        tenant: &Tenant,
        run: Run,
        most_of_each: usize,
        sender: oneshot::Sender<Pass<Tenant, Run>>,
    ) -> u64 {
        let (place, turn) = (self.number(), self.number());
        let crowd = self.tenants.entry(tenant.clone()).or_insert_with(|| Crowd {
            inside: 0,
            turn: None,
            turns: BTreeMap::new(),
            lines: HashMap::new(),
        });
        let line = crowd.lines.entry(run.clone()).or_insert_with(|| {
            crowd.turns.insert(turn, run);
            Line {
                turn,
                places: BTreeMap::new(),
            }
        });
        line.places.insert(place, sender);
        self.queue(tenant, most_of_each);
        place
    }

    /// Gives a tenant a turn after all others' if somebody of it may enter and it has none; forgets one of whom
    /// nobody is here.
    fn queue(&mut self, tenant: &Tenant, most_of_each: usize) {
        let number = self.number();
        let Some(crowd) = self.tenants.get_mut(tenant) else {
            return;
        };
        if crowd.turns.is_empty() {
            if let Some(turn) = crowd.turn.take() {
                self.turns.remove(&turn);
            }
            if crowd.inside == 0 {
                self.tenants.remove(tenant);
            }
        } else if crowd.turn.is_none() && crowd.inside < most_of_each {
            crowd.turn = Some(number);
            self.turns.insert(number, tenant.clone());
        }
    }

    /// Whose turn it is. The tenant has no turn from then on, and its run's next one comes after those of its others.
    fn next_place(&mut self) -> Option<(Tenant, oneshot::Sender<Pass<Tenant, Run>>)> {
        let (_, tenant) = self.turns.pop_first()?;
        let number = self.number();
        let crowd = self.tenants.get_mut(&tenant)?;
        crowd.turn = None;
        let (_, run) = crowd.turns.pop_first()?;
        let line = crowd.lines.get_mut(&run)?;
        let (_, place) = line.places.pop_first()?;
        if line.places.is_empty() {
            crowd.lines.remove(&run);
        } else {
            line.turn = number;
            crowd.turns.insert(number, run);
        }
        Some((tenant, place))
    }

    fn entered(&mut self, tenant: &Tenant) {
        self.free -= 1;
        if let Some(crowd) = self.tenants.get_mut(tenant) {
            crowd.inside += 1;
        }
    }

    fn leave(&mut self, tenant: &Tenant, most_of_each: usize) {
        self.free += 1;
        if let Some(crowd) = self.tenants.get_mut(tenant) {
            crowd.inside -= 1;
        }
        self.queue(tenant, most_of_each);
    }

    /// Takes somebody out who does not wait any more.
    fn give_up(
        &mut self,
        tenant: &Tenant,
        run: &Run,
        number: u64,
    ) -> Option<oneshot::Sender<Pass<Tenant, Run>>> {
        let crowd = self.tenants.get_mut(tenant)?;
        let line = crowd.lines.get_mut(run)?;
        let place = line.places.remove(&number);
        if line.places.is_empty() {
            crowd.turns.remove(&line.turn);
            crowd.lines.remove(run);
        }
        // It keeps the turn that it has if anybody waits.
        self.queue(tenant, 0);
        place
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;

    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    type Gate = FairGate<u8, u8>;
    type Entering = Pin<Box<dyn Future<Output = Pass<u8, u8>> + Send>>;

    fn enter(gate: &Arc<Gate>, tenant: u8, run: u8) -> Entering {
        let gate = Arc::clone(gate);
        Box::pin(async move { gate.enter(tenant, run).await })
    }

    fn look(entering: &mut Entering) -> Option<Pass<u8, u8>> {
        entering.now_or_never()
    }

    #[test]
    fn one_who_comes_alone_waits_for_one_of_each_other_run() {
        let gate = Gate::new(1);
        let mut inside = vec![look(&mut enter(&gate, 0, 0)).expect("there is room")];
        let mut crowd: Vec<Entering> = (0..200).map(|at| enter(&gate, 0, at % 2)).collect();
        let mut alone = enter(&gate, 0, 2);
        assert!(crowd.iter_mut().all(|it| look(it).is_none()));
        assert!(look(&mut alone).is_none());
        for _ in 0..2 {
            inside.clear();
            inside.extend(crowd.iter_mut().filter_map(look));
            assert_eq!(inside.len(), 1);
            drop(crowd.remove(0));
        }
        inside.clear();
        assert!(look(&mut alone).is_some());
    }

    #[test]
    fn a_tenants_crowd_leaves_room_for_others() {
        let gate = Gate::new(4);
        // Each with a run of its own.
        let mut crowd: Vec<Entering> = (0..100).map(|run| enter(&gate, 0, run)).collect();
        let mut inside: Vec<_> = crowd.iter_mut().filter_map(look).collect();
        assert_eq!(inside.len(), 2);
        let other = look(&mut enter(&gate, 1, 0));
        assert!(other.is_some());
        inside.clear();
        drop(crowd.drain(..2));
        inside.extend(crowd.iter_mut().filter_map(look));
        assert_eq!(inside.len(), 2);
    }

    /// Someone may go away just as the turn comes.
    #[test]
    fn a_place_that_nobody_waits_at_costs_nothing() {
        let gate = Gate::new(1);
        let inside = look(&mut enter(&gate, 0, 0));
        let (sender, receiver) = oneshot::channel();
        gate.lock().wait(&0, 1, 1, sender);
        drop(receiver);
        let mut next = enter(&gate, 0, 2);
        assert!(look(&mut next).is_none());
        drop(inside);
        assert!(look(&mut next).is_some());
        assert_eq!(gate.lock().free, 1);
    }

    proptest! {
        /// Whoever comes, enters, leaves or goes away: no more are inside than may be, nobody waits while there is
        /// room, and nothing is left of those who are gone.
        #[test]
        fn room_is_neither_lost_nor_made(
            limit in 1..5usize,
            steps in proptest::collection::vec(
                (0..4u8, 0..2u8, 0..3u8, any::<prop::sample::Index>()), 0..60,
            ),
        ) {
            let gate = Gate::new(limit);
            let (mut outside, mut inside) = (Vec::new(), Vec::new());
            for (step, tenant, run, at) in steps {
                match step {
                    0 | 1 => outside.push((tenant, enter(&gate, tenant, run))),
                    2 if !outside.is_empty() => drop(outside.swap_remove(at.index(outside.len()))),
                    3 if !inside.is_empty() => drop(inside.swap_remove(at.index(inside.len()))),
                    _ => {}
                }
                // One whose turn it is and who goes away before it looks must not keep the room.
                if step == 3 {
                    continue;
                }
                for (tenant, mut entering) in std::mem::take(&mut outside) {
                    match look(&mut entering) {
                        Some(pass) => inside.push((tenant, pass)),
                        None => outside.push((tenant, entering)),
                    }
                }
                prop_assert!(inside.len() <= limit);
                for tenant in 0..2u8 {
                    let of_tenant = inside.iter().filter(|(it, _)| *it == tenant).count();
                    let waits = outside.iter().any(|(it, _)| *it == tenant);
                    prop_assert!(of_tenant <= limit.div_ceil(2));
                    prop_assert!(!waits || inside.len() == limit || of_tenant == limit.div_ceil(2));
                }
            }
            drop((outside, inside));
            let state = gate.lock();
            prop_assert_eq!(state.free, limit);
            prop_assert!(state.turns.is_empty() && state.tenants.is_empty());
        }
    }
}
