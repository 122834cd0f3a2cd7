//! What jobs print, on a terminal and elsewhere.

use std::process::Command;

use super::fleet::Fleet;
use super::program::{Ended, write};

/// It is red, clears the screen, and says that something else has passed.
const PIPELINE: &str = r#"
[jobs.shown]
run = '''
printf '\033[31mred\033[0m \033[2Jgone FAIL\rPASS \033]0;title\007\n'
exit 3
'''
"#;
const RAW: &str = "\u{1b}[31mred\u{1b}[0m \u{1b}[2Jgone FAIL\rPASS \u{1b}]0;title\u{7}\n";
const HARMLESS: &str = "\u{1b}[31mred\u{1b}[0m ␛[2Jgone FAIL␍PASS ␛]0;title␇";

#[test]
fn a_terminal_shows_what_was_printed_and_does_not_act_on_it() {
    let fleet = Fleet::of(1);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("regatta.toml", PIPELINE)]);
    let here = |command: &mut Command| Ended::of(command.current_dir(project.path()));
    let on_terminal = |arguments: &[&str]| {
        let mut regatta = fleet.command();
        let regatta = regatta.args(arguments);
        let line = std::iter::once(regatta.get_program()).chain(regatta.get_args());
        let line: Vec<_> = line.map(|word| word.to_string_lossy()).collect();
        // util-linux's: runs a command on a pseudo-terminal.
        let mut script = Command::new("script");
        for (name, value) in regatta.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        here(script.args(["-qec", &line.join(" "), "/dev/null"]))
    };
    for options in [&[][..], &["--live-output"]] {
        let arguments = [&["run", "--no-cache"], options].concat();
        let piped = here(fleet.command().args(&arguments));
        piped.expect_code(101);
        let all = format!("{}{}", piped.stdout, piped.stderr);
        assert!(all.contains(RAW.trim_end()), "{all:?}");
        let shown = on_terminal(&arguments);
        shown.expect_code(101);
        assert!(shown.stdout.contains(HARMLESS), "{:?}", shown.stdout);
        assert!(
            !shown.stdout.contains("[2Jgone FAIL\r"),
            "{:?}",
            shown.stdout
        );
    }
    let runs = here(fleet.command().args(["ps", "--all"]));
    let run = runs.stdout.lines().nth(1).expect("a run");
    let run = run.split_whitespace().next().expect("an id");
    assert_eq!(here(fleet.command().args(["logs", run])).stdout, RAW);
    let shown = on_terminal(&["logs", run]);
    shown.expect_code(0);
    assert!(shown.stdout.contains(HARMLESS), "{:?}", shown.stdout);
    fleet.stop();
}
