//! Many seeds, each in a process of its own, whose random numbers begin with it.

mod bugs;
mod shrink;

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::process::{Child, Command, Stdio};

use regatta_model::PlantedBug;

use crate::plan::{Faults, Plan};
use crate::violation::Invariant;
use crate::world::{Played, play};
use crate::{isolation, panics};

/// How long a seed may take, in seconds: a hundred times what it does.
const SEED_LIMIT_SECONDS: &str = "60";
/// How many lines of a trace are shown of a seed that fails.
const SHOWN_LINES: usize = 60;
/// How much memory the stack of a simulation may take.
const STACK_BYTES: usize = 64 << 20;

/// Plays seeds, and fails if one of them breaks an invariant.
#[derive(clap::Parser, Debug)]
#[command(name = "cargo xtask simulate", about)]
pub(crate) struct Arguments {
    /// How many seeds to play.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Play this one alone, and show all of what happens.
    #[arg(long, conflicts_with_all = ["seeds", "first_seed"])]
    seed: Option<u64>,
    /// Which faults there may be.
    #[arg(long, value_enum, default_value_t)]
    faults: Faults,
    /// Go on when a seed fails, and say how many do.
    #[arg(long)]
    keep_going: bool,
    /// Leave these faults of the plan out, by their places in it.
    #[arg(long, value_delimiter = ',')]
    omit: Vec<usize>,
    /// How many processes at once; as many as there are processors if it is not said.
    #[arg(long)]
    jobs: Option<usize>,
    /// Plant this bug.
    #[arg(long, value_parser = planted_bug)]
    plant: Option<PlantedBug>,
    /// Plant each bug there is in turn, and play seeds until each is found: what it breaks is known.
    #[arg(long, conflicts_with = "plant")]
    bugs: bool,
    /// Play one seed for the process that asks.
    #[arg(long, hide = true)]
    play: bool,
}

fn planted_bug(name: &str) -> Result<PlantedBug, String> {
    let found = PlantedBug::ALL
        .into_iter()
        .find(|bug| format!("{bug:?}") == name);
    found.ok_or_else(|| {
        let names: Vec<String> = PlantedBug::ALL
            .iter()
            .map(|bug| format!("{bug:?}"))
            .collect();
        format!("there are: {}", names.join(", "))
    })
}

/// Plays what is asked for; whether every invariant held.
pub(crate) fn run(arguments: &Arguments) -> io::Result<bool> {
    match arguments.seed {
        Some(seed) => play_here(arguments, seed),
        None if arguments.bugs => bugs::find_all(arguments),
        None => play_all(arguments),
    }
}

/// Plays one seed in a thread of its own, whose hash maps have the order that the seed gives them.
fn play_here(arguments: &Arguments, seed: u64) -> io::Result<bool> {
    if let Some(bug) = arguments.plant {
        bug.plant();
    }
    let plan = Plan::of_seed(seed, arguments.faults).without(&arguments.omit);
    panics::notice();
    isolation::seed_random_numbers(seed);
    let simulation = std::thread::Builder::new().stack_size(STACK_BYTES);
    let simulation = simulation.spawn(move || play(&plan))?;
    let played = simulation.join().map_err(|_| {
        io::Error::other(panics::take().unwrap_or_else(|| "the simulation panicked".to_owned()))
    })??;
    let lines = if arguments.play {
        SHOWN_LINES
    } else {
        usize::MAX
    };
    show(seed, &played, lines, arguments.play);
    Ok(played.violation.is_none())
}

fn show(seed: u64, played: &Played, lines: usize, briefly: bool) {
    if !briefly || played.violation.is_some() {
        for line in played.trace.tail(lines) {
            println!("{line}");
        }
    }
    let fingerprint = played.trace.fingerprint();
    let summary = played.summary;
    match &played.violation {
        None => println!("seed {seed}: {fingerprint:016x} {summary:?}"),
        Some(violation) => println!("seed {seed}: {fingerprint:016x} VIOLATION {violation}"),
    }
}

/// What a process said of its seed.
struct Told {
    seed: u64,
    text: String,
    good: bool,
}

impl Told {
    /// The invariant that it says was broken.
    fn broken(&self) -> Option<&str> {
        let (_, violation) = self.last_line().split_once("VIOLATION ")?;
        let (invariant, _) = violation.split_once(':')?;
        Some(invariant)
    }

    /// How many blobs it says went whose promises had run out.
    fn gone(&self) -> u64 {
        let said = self.last_line().split_once("gone: ");
        let number = said.and_then(|(_, rest)| rest.split_once(','));
        number
            .and_then(|(number, _)| number.parse().ok())
            .unwrap_or(0)
    }

    fn breaks(&self, invariant: Invariant) -> bool {
        !self.good && self.broken() == Some(invariant.name())
    }

    fn last_line(&self) -> &str {
        self.text.trim_end().lines().last().unwrap_or_default()
    }
}

fn play_all(arguments: &Arguments) -> io::Result<bool> {
    let (mut played, mut failed, mut first) = (0_u64, 0_u64, None);
    let mut gone = 0;
    play_each(arguments, arguments.plant, |told| {
        played += 1;
        gone += told.gone();
        if told.good {
            return true;
        }
        failed += 1;
        if arguments.keep_going {
            println!("{}", told.last_line());
        } else {
            first = Some(told.seed);
        }
        arguments.keep_going
    })?;
    let from = arguments.first_seed;
    match failed {
        0 => println!(
            "{played} seeds from {from} on: every invariant held; {gone} blobs were let go that had been promised"
        ),
        _ => println!("{failed} of {played} seeds from {from} on broke an invariant"),
    }
    if let Some(seed) = first {
        let (told, omitted) = shrink::shrink(arguments, seed)?;
        println!("{}", told.text);
        let line = command_line(arguments, seed, &omitted);
        println!("to see all of it: {line}");
    }
    Ok(failed == 0)
}

/// What shows all of a seed.
fn command_line(arguments: &Arguments, seed: u64, omitted: &[usize]) -> String {
    let mut line = format!("cargo xtask simulate --seed {seed}");
    if arguments.faults != Faults::default() {
        line.push_str(&format!(" --faults {}", name_of(arguments.faults)));
    }
    if !omitted.is_empty() {
        line.push_str(&format!(" --omit {}", list(omitted)));
    }
    if let Some(bug) = arguments.plant {
        line.push_str(&format!(" --plant {bug:?}"));
    }
    line
}

/// Plays seeds, several at once, and tells of them in their order until `hear` has heard enough.
fn play_each(
    arguments: &Arguments,
    plant: Option<PlantedBug>,
    mut hear: impl FnMut(&Told) -> bool,
) -> io::Result<()> {
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = arguments.jobs.unwrap_or(available).max(1);
    let mut seeds = arguments.first_seed..arguments.first_seed.saturating_add(arguments.seeds);
    let mut running: VecDeque<(u64, Child)> = VecDeque::new();
    loop {
        while running.len() < jobs
            && let Some(seed) = seeds.next()
        {
            running.push_back((seed, start(arguments, plant, &arguments.omit, seed)?));
        }
        let Some((seed, child)) = running.pop_front() else {
            return Ok(());
        };
        let told = finish(seed, child)?;
        if !hear(&told) {
            break;
        }
    }
    for (_, mut child) in running {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

fn name_of(faults: Faults) -> String {
    let value = clap::ValueEnum::to_possible_value(&faults);
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn list(places: &[usize]) -> String {
    let places: Vec<String> = places.iter().map(usize::to_string).collect();
    places.join(",")
}

fn start(
    arguments: &Arguments,
    plant: Option<PlantedBug>,
    omitted: &[usize],
    seed: u64,
) -> io::Result<Child> {
    // Time stands still for a seed that spins: somebody else has to end it.
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", SEED_LIMIT_SECONDS]);
    command.arg(std::env::current_exe()?);
    command.args(["--play", "--seed", &seed.to_string()]);
    command.args(["--faults", &name_of(arguments.faults)]);
    if !omitted.is_empty() {
        command.args(["--omit", &list(omitted)]);
    }
    if let Some(bug) = plant {
        command.args(["--plant", &format!("{bug:?}")]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn()
}

fn finish(seed: u64, mut child: Child) -> io::Result<Told> {
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut text)?;
    }
    let status = child.wait()?;
    if text.is_empty() {
        text = format!("seed {seed}: its process ended with {status}");
    }
    Ok(Told {
        seed,
        text,
        good: status.success(),
    })
}
