//! What goes wrong with images: one clear error each, and the right exit code.

use super::fleet::Fleet;
use super::program::{Ended, write};

#[test]
fn a_command_that_the_image_lacks() {
    let fleet = Fleet::of(1);
    let ended = Ended::of(fleet.command().args(["exec", "--", "no-such-program"]));
    ended
        .expect_code(127)
        .expect_complaint(&["no-such-program", "PATH"]);
    fleet.stop();
}

#[test]
fn an_image_that_cannot_be_had() {
    let fleet = Fleet::of(1);
    let ended =
        Ended::of(
            fleet
                .command()
                .args(["exec", "--image", "no-such-image:1", "--", "true"]),
        );
    ended.expect_code(98).expect_complaint(&["no-such-image:1"]);
    let project = tempfile::tempdir().expect("a directory");
    let text = "[jobs.a]\nimage = 'no-such-image:1'\nrun = 'true'\nretry = 2\n";
    write(project.path(), &[("regatta.toml", text)]);
    let mut run = fleet.command();
    run.current_dir(project.path());
    let ended = Ended::of(run.args(["--message-format", "json", "run"]));
    ended.expect_code(98);
    assert_eq!(ended.finished()["verdict"], "UNKNOWN", "{ended:#?}");
    // One if a registry has no such image, as many as an infrastructure loss may take if none answers.
    let leases = ended.finished()["leases"].as_u64().expect("a count");
    assert!((1..=3).contains(&leases), "`retry` is for tests: {leases}");
    let warnings = ended.lines("warning");
    let text = warnings[0]["message"].as_str().expect("a text");
    assert!(text.contains("no-such-image:1"), "{ended:#?}");
    fleet.stop();
}
