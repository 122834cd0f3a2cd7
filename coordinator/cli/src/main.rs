//! The `regatta` command. Everything is in the library, where tests can reach it.

fn main() -> std::process::ExitCode {
    regatta::main().into()
}
