//! The command that conformance suites run in containers: static, so that an image needs nothing else.
//!
//! Each subcommand shows one property of the container to the suite outside.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let name = arguments.get(1).map_or("", String::as_str);
    let rest = arguments.get(2..).unwrap_or_default();
    match perform(name, rest) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            writeln!(io::stderr(), "{name}: {error}").ok();
            ExitCode::from(99)
        }
    }
}

fn perform(name: &str, arguments: &[String]) -> io::Result<u8> {
    match (name, arguments) {
        ("exit", [code]) => return code.parse().map_err(io::Error::other),
        ("signal", [number]) => raise(number.parse().map_err(io::Error::other)?),
        ("print", [stdout, stderr]) => {
            io::stdout().write_all(stdout.as_bytes())?;
            io::stderr().write_all(stderr.as_bytes())?;
        }
        ("arguments", words) => io::stdout().write_all(words.join("\0").as_bytes())?,
        ("flood", [bytes]) => flood(bytes.parse().map_err(io::Error::other)?)?,
        ("environment", []) => environment()?,
        ("directory", []) => write_line(std::env::current_dir()?.as_os_str().as_bytes())?,
        ("print-and-hang", [text]) => {
            io::stdout().write_all(text.as_bytes())?;
            io::stdout().flush()?;
            hang();
        }
        ("daemon", [text]) => daemon(text)?,
        ("fork-bomb", []) => fork_bomb()?,
        ("orphans", [count]) => orphans(count.parse().map_err(io::Error::other)?)?,
        ("eat", [bytes]) => eat(bytes.parse().map_err(io::Error::other)?),
        ("burn", [milliseconds]) => burn(milliseconds.parse().map_err(io::Error::other)?),
        ("write", [path, text]) => fs::write(path, text)?,
        ("append", [path, text]) => fs::OpenOptions::new()
            .append(true)
            .open(path)?
            .write_all(text.as_bytes())?,
        ("overwrite-start", [path, text]) => fs::OpenOptions::new()
            .write(true)
            .open(path)?
            .write_all(text.as_bytes())?,
        ("close-file", [path]) => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o400))?;
        }
        ("make-directory", [path]) => fs::create_dir_all(path)?,
        ("close-directory", [path]) => close_directory(path)?,
        ("remove", [path]) => fs::remove_file(path)?,
        ("read", [path]) => io::stdout().write_all(&fs::read(path)?)?,
        ("list", [path]) => list(path)?,
        ("follow", [path]) => write_line(fs::read_link(path)?.as_os_str().as_bytes())?,
        ("status", []) => io::stdout().write_all(&fs::read("/proc/self/status")?)?,
        ("input", []) => {
            io::copy(&mut io::stdin(), &mut io::stdout())?;
        }
        ("loopback", []) => {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            TcpStream::connect(listener.local_addr()?)?;
        }
        ("connect", [address]) => {
            let address: SocketAddr = address.parse().map_err(io::Error::other)?;
            TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        }
        ("unix-connect", [path]) => {
            UnixStream::connect(path)?;
        }
        _ => return Err(io::Error::other("unknown subcommand")),
    }
    Ok(0)
}

fn write_line(bytes: &[u8]) -> io::Result<()> {
    io::stdout().write_all(bytes)?;
    io::stdout().write_all(b"\n")
}

/// Every variable, in the order of the environment, each ended by NUL.
fn environment() -> io::Result<()> {
    io::stdout().write_all(&fs::read("/proc/self/environ")?)
}

fn list(path: &str) -> io::Result<()> {
    let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<OsString>>>()?;
    names.sort();
    names
        .iter()
        .try_for_each(|name| write_line(name.as_bytes()))
}

/// The same pattern to both outputs, interleaved.
fn flood(bytes: usize) -> io::Result<()> {
    let block: Vec<u8> = (0..=250).collect();
    let mut left = bytes;
    while left > 0 {
        let take = left.min(block.len());
        io::stdout().write_all(&block[..take])?;
        io::stderr().write_all(&block[..take])?;
        left -= take;
    }
    io::stdout().flush()
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

fn burn(milliseconds: u64) {
    let end = Instant::now() + Duration::from_millis(milliseconds);
    let mut number = 1_u64;
    while Instant::now() < end {
        number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005));
    }
}

fn eat(bytes: usize) {
    let mut memory = vec![0_u8; bytes];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(&memory);
}

fn close_directory(path: &str) -> io::Result<()> {
    fs::write(format!("{path}/inside"), "x")?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o0))
}

fn fork() -> io::Result<i32> {
    #[expect(
        unsafe_code,
        reason = "the suite needs processes that std would not make"
    )]
    // SAFETY: this program has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

fn raise(signal: i32) {
    #[expect(unsafe_code, reason = "std cannot raise signals")]
    // SAFETY: this program has one thread. std handles SIGSEGV itself, so the default comes first.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Leaves a process behind that nothing but a PID namespace or a subreaper can find.
fn daemon(text: &str) -> io::Result<()> {
    if fork()? != 0 {
        return Ok(());
    }
    rustix::process::setsid()?;
    if fork()? != 0 {
        return Ok(());
    }
    io::stdout().write_all(text.as_bytes())?;
    io::stdout().flush()?;
    hang()
}

/// Forks until the kernel refuses, and tells how many children that were.
fn fork_bomb() -> io::Result<()> {
    for count in 0..100_000 {
        match fork() {
            Ok(0) => hang(),
            Ok(_) => {}
            Err(_) => return write_line(format!("{count}").as_bytes()),
        }
    }
    Err(io::Error::other("nothing stopped it"))
}

/// Makes orphans one after the other, each of which ends at once.
fn orphans(count: usize) -> io::Result<()> {
    for _ in 0..count {
        let middle = fork()?;
        if middle == 0 {
            fork()?;
            std::process::exit(0);
        }
        let pid = rustix::process::Pid::from_raw(middle);
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())?;
    }
    Ok(())
}
