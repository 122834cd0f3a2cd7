//! What a command is given, and what is told of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use super::subject::{Claims, Subject};
use crate::port::ExitStatus;

/// Codes arrive as they are.
pub async fn exit_codes_are_told(subject: &Subject) {
    let mut warm = subject.warm().await;
    for code in [0, 1, 7, 127, 255] {
        warm.run(&["exit", &code.to_string()])
            .await
            .expect_code(code);
    }
    warm.stop().await;
}

/// Signals are not codes.
pub async fn signals_are_told(subject: &Subject) {
    let mut warm = subject.warm().await;
    for signal in [1, 6, 9, 11, 13, 15] {
        let outcome = warm.run(&["signal", &signal.to_string()]).await;
        assert_eq!(outcome.exit.status, ExitStatus::Signal(signal));
    }
    warm.stop().await;
}

/// Both outputs arrive apart, byte for byte, 5 MB included.
pub async fn output_is_exact(subject: &Subject) {
    let mut warm = subject.warm().await;
    let outcome = warm.run(&["print", "to stdout ü\n", "to stderr"]).await;
    outcome.expect_code(0);
    assert_eq!(outcome.stdout, "to stdout ü\n".as_bytes());
    assert_eq!(outcome.stderr, b"to stderr");
    let length = 5 * 1024 * 1024;
    let outcome = warm.run(&["flood", &length.to_string()]).await;
    outcome.expect_code(0);
    let expected: Vec<u8> = (0..=250).cycle().take(length).collect();
    assert!(
        outcome.stdout == expected,
        "{} bytes of standard output",
        outcome.stdout.len()
    );
    assert!(
        outcome.stderr == expected,
        "{} bytes of standard error",
        outcome.stderr.len()
    );
    warm.stop().await;
}

/// Nothing is added to the environment, lost from it, or changed; arguments may be empty.
pub async fn environment_and_arguments_are_exact(subject: &Subject) {
    let mut warm = subject.warm().await;
    let outcome = warm.run(&["environment"]).await;
    assert_eq!(outcome.expect_code(0).text(), "");
    let variables = [
        ("A", "1"),
        ("EMPTY", ""),
        ("LINES", "a\nb"),
        ("Ü", "= ü '\"$A"),
    ];
    let variables: BTreeMap<_, _> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let expected: String = variables
        .iter()
        .map(|(n, v)| format!("{n}={v}\0"))
        .collect();
    let outcome = warm
        .run_changed(&["environment"], |c| c.environment = variables)
        .await;
    assert_eq!(outcome.expect_code(0).text(), expected);
    let outcome = warm.run(&["arguments", "", "a b", "ü\n", "--"]).await;
    assert_eq!(outcome.expect_code(0).text(), "\0a b\0ü\n\0--");
    warm.stop().await;
}

/// The working directory is the work path, or below it.
pub async fn working_directories_are_below_the_work_path(subject: &Subject) {
    let mut warm = subject.warm().await;
    let below = warm.lower.join("a/ü b");
    fs::create_dir_all(&below).expect("new");
    fs::hard_link(warm.lower.join("testee"), below.join("testee")).expect("linked");
    warm.renew().await;
    let root = warm.container.work_path().display().to_string();
    let outcome = warm.run(&["directory"]).await;
    assert_eq!(outcome.expect_code(0).text(), format!("{root}\n"));
    let below = PathBuf::from("a/ü b");
    let outcome = warm
        .run_changed(&["directory"], |c| c.working_directory = below)
        .await;
    assert_eq!(outcome.expect_code(0).text(), format!("{root}/a/ü b\n"));
    warm.stop().await;
}

/// What cannot start says why, and the container stays good.
pub async fn programs_that_cannot_start_say_why(subject: &Subject) {
    let mut warm = subject.warm().await;
    fs::write(warm.lower.join("data"), "data").expect("written");
    let script = warm.lower.join("garbage");
    fs::write(&script, "no program").expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("set");
    warm.renew().await;
    for (program, directory, errno) in [
        ("./missing", "", Errno::NOENT),
        ("missing", "", Errno::NOENT),
        ("", "", Errno::NOENT),
        ("./data", "", Errno::ACCESS),
        ("./data/below", "", Errno::NOTDIR),
        ("./garbage", "", Errno::NOEXEC),
        ("./testee", "no-such-directory", Errno::NOENT),
    ] {
        let change = |command: &mut crate::port::ContainerCommand| {
            program.clone_into(&mut command.arguments[0]);
            command.working_directory = PathBuf::from(directory);
        };
        let outcome = warm.run_changed(&["exit", "0"], change).await;
        match outcome.exit.status {
            ExitStatus::NotStarted { errno: found } => {
                let lenient = errno == Errno::NOTDIR && found == Errno::NOENT.raw_os_error();
                assert!(
                    lenient || found == errno.raw_os_error(),
                    "{program}: errno {found}"
                );
            }
            other => panic!("{program}: {other:?}"),
        }
    }
    warm.run(&["exit", "3"]).await.expect_code(3);
    warm.stop().await;
}

/// A name without a slash is looked up in the command's own `PATH`.
pub async fn programs_are_found_in_the_path(subject: &Subject) {
    let mut warm = subject.warm().await;
    fs::create_dir(warm.lower.join("bin")).expect("new");
    fs::hard_link(warm.lower.join("testee"), warm.lower.join("bin/tool")).expect("linked");
    warm.renew().await;
    let path = format!("/nonexistent:{}", warm.inside("bin"));
    let outcome = warm.run_changed(&["exit", "5"], |command| {
        "tool".clone_into(&mut command.arguments[0]);
        command.environment.insert("PATH".to_owned(), path);
    });
    outcome.await.expect_code(5);
    warm.stop().await;
}

/// What no exec would take is the command's failure, not the container's.
pub async fn huge_commands_do_not_start(subject: &Subject) {
    let mut warm = subject.warm().await;
    for bytes in [512 * 1024, 9 * 1024 * 1024] {
        let huge = "x".repeat(bytes);
        let outcome = warm.run(&["arguments", &huge]).await;
        let expected = ExitStatus::NotStarted {
            errno: Errno::TOOBIG.raw_os_error(),
        };
        assert_eq!(outcome.exit.status, expected, "{bytes} bytes");
    }
    warm.run(&["exit", "0"]).await.expect_code(0);
    warm.stop().await;
}

/// A command starts with three descriptors, nothing ignored or blocked, and no way to more privileges.
pub async fn commands_start_clean(subject: &Subject) {
    let mut warm = subject.warm().await;
    // The fourth is the listing's own.
    let descriptors = warm.run(&["list", "/proc/self/fd"]).await;
    assert_eq!(descriptors.expect_code(0).text(), "0\n1\n2\n3\n");
    warm.run(&["input"]).await.expect_code(0);
    let status = warm.run(&["status"]).await.expect_code(0).text();
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}"))
            .trim()
            .to_owned()
    };
    assert_eq!(field("Umask"), "0022");
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("SigBlk").trim_matches('0'), "");
    // Rust's own start-up ignores SIGPIPE (13), nothing else.
    assert_eq!(field("SigIgn"), "0000000000001000");
    if subject.claims >= Claims::Namespaces {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set).trim_matches('0'), "", "{set}");
        }
    }
    warm.stop().await;
}

/// A command reads what it is given, while it runs, and the end of it.
pub async fn input_is_what_is_given(subject: &Subject) {
    let mut warm = subject.warm().await;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let writer = std::thread::spawn(move || {
        let mut write = fs::File::from(write);
        let length = 3 * 1024 * 1024;
        write.write_all(&vec![b'x'; length]).expect("is read");
        length
    });
    let outcome = warm.run_changed(&["input"], |command| command.stdin = Some(read));
    let outcome = outcome.await;
    let expected = writer.join().expect("it writes");
    outcome.expect_code(0);
    assert!(outcome.stdout == vec![b'x'; expected]);
    // The next one has none.
    assert_eq!(warm.run(&["input"]).await.expect_code(0).text(), "");
    warm.stop().await;
}

/// Usage is in the right units and includes descendants.
pub async fn usage_is_plausible(subject: &Subject) {
    let mut warm = subject.warm().await;
    let idle = warm.run(&["exit", "0"]).await.exit;
    assert!(
        idle.usage.user_cpu + idle.usage.system_cpu < Duration::from_millis(500),
        "{idle:?}"
    );
    assert!(idle.usage.peak_memory_bytes > 0, "{idle:?}");
    assert!(idle.usage.peak_memory_bytes < 32 << 20, "{idle:?}");
    assert!(
        idle.wall_time > Duration::ZERO && idle.wall_time < Duration::from_secs(30),
        "{idle:?}"
    );
    // Little, because other processes share the processors.
    let busy = warm.run(&["burn", "1000"]).await.exit;
    assert!(busy.usage.user_cpu > Duration::from_millis(20), "{busy:?}");
    assert!(
        busy.usage.user_cpu <= busy.wall_time + Duration::from_millis(50),
        "{busy:?}"
    );
    assert!(busy.wall_time >= Duration::from_millis(900), "{busy:?}");
    let greedy = warm.run(&["eat", "67108864"]).await.exit;
    assert!(greedy.usage.peak_memory_bytes >= 64 << 20, "{greedy:?}");
    assert!(greedy.usage.peak_memory_bytes < 96 << 20, "{greedy:?}");
    warm.stop().await;
}
