//! The project's own commands, run as `cargo xtask COMMAND`; `cargo xtask help` lists them.
//!
//! The tool depends on nothing but the standard library, so that the first `cargo xtask` in a fresh
//! checkout starts within seconds.

#[cfg(not(unix))]
compile_error!("xtask runs its PostgreSQL through Unix users and `sh`; on Windows, use WSL");

mod args;
mod bench;
mod cargo;
mod cargo_test;
mod ci;
mod cluster;
mod failure;
mod find_postgres;
mod guarded;
mod help;
mod install_postgres;
mod install_valgrind;
mod postgres;
mod service_user;
mod test_totals;

use std::process::ExitCode;

use crate::failure::{Failure, Result};

fn main() -> ExitCode {
    match dispatch() {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command that was asked for, and returns the exit code to pass on.
fn dispatch() -> Result<u8> {
    let mut args = args::from_environment()?;
    if args.is_empty() {
        help::print();
        return Ok(2);
    }
    match args.remove(0).as_str() {
        "test" => cargo_test::run(&cargo_test::Options::parse(args)?),
        "bench" => bench::run(args),
        "postgres" => postgres::run(postgres::Options::parse(args)?),
        "ci" => ci::run(args),
        "help" | "--help" | "-h" => {
            help::print();
            Ok(0)
        }
        unknown => Err(Failure::new(format!(
            "there is no command `{unknown}`; see `cargo xtask help`"
        ))),
    }
}
