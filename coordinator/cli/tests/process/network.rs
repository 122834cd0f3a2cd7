//! A network of a test's own, in which whoever is at some place can be cut off.

use std::marker::PhantomData;
use std::process::{Command, Stdio};

use rustix::thread::UnshareFlags;

use super::program::Ended;

/// A place is an address below 127.1 that leads to 127.0.0.1. What belongs to a connection of somebody who is
/// cut off is dropped where it arrives, either way and without a word: both sides believe that it is on its way.
const RULES: &str = "
table inet places {
  set cut_off { type ipv4_addr; }
  chain lead { type nat hook output priority -100; ip daddr 127.1.0.0/16 dnat ip to 127.0.0.1; }
  chain arrive { type filter hook input priority 0; ct original ip daddr @cut_off drop; }
}
";

/// Somewhere from where a coordinator can be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(pub(crate) u8);

/// The network of the thread in which a test runs, and of all that the test starts.
#[derive(Debug)]
pub(crate) struct Network {
    /// It is this thread's alone.
    thread: PhantomData<*const ()>,
}

impl Network {
    /// Runs a test in a network of its own, which is gone with its last process.
    pub(crate) fn with(test: impl FnOnce(&Self) + Send) {
        // Not in the thread that runs tests: the next one there would be in this network.
        let run = || test(&Self::enter());
        let ended = std::thread::scope(|scope| scope.spawn(run).join());
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    fn enter() -> Self {
        #[expect(
            unsafe_code,
            reason = "unshare can break descriptor tables, which are not touched"
        )]
        // SAFETY: FILES is not among the flags.
        let entered = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) };
        entered.expect("these tests need root");
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        run(Command::new("nft").arg(RULES));
        Self {
            thread: PhantomData,
        }
    }

    /// The URL of a coordinator for somebody at a place.
    pub(crate) fn url(&self, coordinator: &str, place: Place) -> String {
        coordinator.replacen("127.0.0.1", &address(place), 1)
    }

    /// From now on nothing that is sent from a place to a coordinator arrives, or the other way.
    pub(crate) fn cut_off(&self, places: &[Place]) {
        self.change("add", places);
    }

    /// What is sent arrives again.
    pub(crate) fn join(&self, places: &[Place]) {
        self.change("delete", places);
    }

    fn change(&self, verb: &str, places: &[Place]) {
        let addresses: Vec<_> = places.iter().copied().map(address).collect();
        let elements = format!("{{ {} }}", addresses.join(", "));
        run(Command::new("nft").args([verb, "element", "inet", "places", "cut_off", &elements]));
    }
}

fn address(Place(number): Place) -> String {
    format!("127.1.0.{number}")
}

#[track_caller]
fn run(command: &mut Command) {
    Ended::of(command.stdin(Stdio::null())).expect_code(0);
}
