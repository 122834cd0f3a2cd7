//! A gate that lets so many through at once, and those who wait for the same in turn with others.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Lets at most so many be inside at once. When somebody leaves, one of those enters who wait for the next party
/// in turn, the first of them: whoever comes alone waits for one of each other party, not for all.
#[derive(Debug)]
pub(super) struct FairGate<Party: Clone + Eq + Hash> {
    state: Mutex<State<Party>>,
}

#[derive(Debug)]
struct State<Party: Clone + Eq + Hash> {
    free: usize,
    /// The next number of a turn or of somebody who waits.
    next: u64,
    /// Those whose turn comes, in its order; each has somebody who waits.
    turns: BTreeMap<u64, Party>,
    waiting: HashMap<Party, Waiting<Party>>,
}

#[derive(Debug)]
struct Waiting<Party: Clone + Eq + Hash> {
    turn: u64,
    /// In the order in which they came.
    places: BTreeMap<u64, oneshot::Sender<Pass<Party>>>,
}

/// Somebody is inside until this is dropped.
#[derive(Debug)]
pub(super) struct Pass<Party: Clone + Eq + Hash> {
    /// `None` for one that nobody took.
    gate: Option<Arc<FairGate<Party>>>,
}

impl<Party: Clone + Eq + Hash> Drop for Pass<Party> {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            let mut state = gate.lock();
            state.free += 1;
            gate.let_in(&mut state);
        }
    }
}

/// Somebody waits; dropping it leaves the queue.
struct Place<'a, Party: Clone + Eq + Hash> {
    gate: &'a FairGate<Party>,
    party: Party,
    number: u64,
}

impl<Party: Clone + Eq + Hash> Drop for Place<'_, Party> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        let Some(waiting) = state.waiting.get_mut(&self.party) else {
            return;
        };
        // Taken out of the lock with what it may hold.
        let place = waiting.places.remove(&self.number);
        let (is_empty, turn) = (waiting.places.is_empty(), waiting.turn);
        if is_empty {
            state.turns.remove(&turn);
            state.waiting.remove(&self.party);
        }
        drop(state);
        drop(place);
    }
}

impl<Party: Clone + Eq + Hash> FairGate<Party> {
    /// A gate that `limit` may have passed at once.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                free: limit,
                next: 0,
                turns: BTreeMap::new(),
                waiting: HashMap::new(),
            }),
        })
    }

    /// Waits until one of `party` may enter. Whoever stops waiting costs nobody a turn.
    pub(super) async fn enter(self: &Arc<Self>, party: Party) -> Pass<Party> {
        let (sender, receiver) = oneshot::channel();
        let place = {
            let mut state = self.lock();
            let number = state.wait(party.clone(), sender);
            self.let_in(&mut state);
            Place {
                gate: self,
                party,
                number,
            }
        };
        let pass = receiver.await;
        drop(place);
        // The other half is dropped with its place, or sends.
        pass.unwrap_or(Pass { gate: None })
    }

    /// Lets those enter for whom there is room.
    fn let_in(self: &Arc<Self>, state: &mut State<Party>) {
        while state.free > 0 {
            let Some(place) = state.next_place() else {
                return;
            };
            let pass = Pass {
                gate: Some(Arc::clone(self)),
            };
            match place.send(pass) {
                Ok(()) => state.free -= 1,
                // Nobody waits there any more.
                Err(mut pass) => pass.gate = None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<Party>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Party: Clone + Eq + Hash> State<Party> {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Somebody waits; answers the number of the place.
    fn wait(&mut self, party: Party, sender: oneshot::Sender<Pass<Party>>) -> u64 {
        let (place, turn) = (self.number(), self.number());
        let waiting = self.waiting.entry(party.clone()).or_insert_with(|| {
            self.turns.insert(turn, party);
            Waiting {
                turn,
                places: BTreeMap::new(),
            }
        });
        waiting.places.insert(place, sender);
        place
    }

    /// Whose turn it is; the party's next turn comes after all others'.
    fn next_place(&mut self) -> Option<oneshot::Sender<Pass<Party>>> {
        let (_, party) = self.turns.pop_first()?;
        let turn = self.number();
        let waiting = self.waiting.get_mut(&party)?;
        let (_, place) = waiting.places.pop_first()?;
        if waiting.places.is_empty() {
            self.waiting.remove(&party);
        } else {
            waiting.turn = turn;
            self.turns.insert(turn, party);
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;

    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    type Entering = Pin<Box<dyn Future<Output = Pass<u8>> + Send>>;

    fn enter(gate: &Arc<FairGate<u8>>, party: u8) -> Entering {
        let gate = Arc::clone(gate);
        Box::pin(async move { gate.enter(party).await })
    }

    #[test]
    fn one_who_comes_alone_waits_for_one_of_each_other_party() {
        let gate = FairGate::new(1);
        let inside = enter(&gate, 0).now_or_never().expect("there is room");
        let mut crowd: Vec<Entering> = (0..200).map(|at| enter(&gate, at % 2)).collect();
        let mut alone = enter(&gate, 2);
        assert!(crowd.iter_mut().all(|it| it.now_or_never().is_none()));
        assert!((&mut alone).now_or_never().is_none());
        let mut inside = vec![inside];
        for _ in 0..2 {
            inside.clear();
            inside.extend(crowd.iter_mut().filter_map(|it| it.now_or_never()));
            assert_eq!(inside.len(), 1);
            drop(crowd.remove(0));
        }
        inside.clear();
        assert!(alone.now_or_never().is_some());
    }

    proptest! {
        /// Whoever comes, enters, leaves or goes away: no more are inside than may be, nobody waits while there is
        /// room, and nothing is left of those who are gone.
        #[test]
        fn room_is_neither_lost_nor_made(
            limit in 1..4usize,
            steps in proptest::collection::vec((0..4u8, 0..3u8, any::<prop::sample::Index>()), 0..60),
        ) {
            let gate = FairGate::new(limit);
            let (mut outside, mut inside): (Vec<Entering>, Vec<Pass<u8>>) = Default::default();
            for (step, party, at) in steps {
                match step {
                    0 | 1 => outside.push(enter(&gate, party)),
                    2 if !outside.is_empty() => drop(outside.swap_remove(at.index(outside.len()))),
                    3 if !inside.is_empty() => drop(inside.swap_remove(at.index(inside.len()))),
                    _ => {}
                }
                // One whose turn it is and who goes away before it looks must not keep the room.
                if step != 3 {
                    let mut still = Vec::new();
                    for mut entering in outside.drain(..) {
                        match (&mut entering).now_or_never() {
                            Some(pass) => inside.push(pass),
                            None => still.push(entering),
                        }
                    }
                    outside = still;
                    prop_assert!(outside.is_empty() || gate.lock().free == 0);
                }
                prop_assert!(inside.len() <= limit);
            }
            drop((outside, inside));
            let state = gate.lock();
            prop_assert_eq!(state.free, limit);
            prop_assert!(state.turns.is_empty() && state.waiting.is_empty());
        }
    }
}
