//! `cargo xtask bench`: the benchmarks, on a private Postgres that is as durable as a real one.

use std::process::Command;

use crate::cargo;
use crate::cluster::{Cluster, Durability};
use crate::failure::Result;
use crate::guarded::{self, Group};
use crate::install_postgres::Install;
use crate::install_valgrind;

/// The part that needs no server.
const INSTRUCTIONS: &str = "instructions";
/// What needs nothing but the program.
const HELP: [&str; 3] = ["--help", "-h", "help"];
/// The parts that count with valgrind.
const COUNTING: [&str; 3] = ["load", "mapping", INSTRUCTIONS];

/// Runs the benchmarks with `args`, and returns their exit code.
///
/// # Errors
///
/// When there is no server to run them on, or no valgrind to count with.
pub(crate) fn run(mut args: Vec<String>) -> Result<u8> {
    if args.first().is_some_and(|arg| arg == "--") {
        args.remove(0);
    }
    let part = args.iter().find(|arg| !arg.starts_with('-'));
    let is_instructions = part.is_some_and(|part| part == INSTRUCTIONS);
    if args.iter().any(|arg| HELP.contains(&arg.as_str())) {
        let mut command = program("cqrs-benches", "release");
        command.args(args);
        return guarded::run(&mut command, Group::Own);
    }
    match part {
        Some(part) if COUNTING.contains(&part.as_str()) => {
            install_valgrind::find_or_install()?;
        }
        Some(_) => {}
        // The parts that count report that they failed, and the others go on.
        None => {
            if let Err(failure) = install_valgrind::find_or_install() {
                eprintln!("xtask: {failure}");
            }
        }
    }
    if is_instructions {
        args.retain(|arg| arg != INSTRUCTIONS);
        let mut command = program("cqrs-instructions", "counted");
        command.args(args);
        return guarded::run(&mut command, Group::Own);
    }
    let cluster = Cluster::start(Durability::Full, Install::IfMissing)?;
    let mut command = program("cqrs-benches", "release");
    command.args(args);
    cluster.apply_to(&mut command);
    guarded::run(&mut command, Group::Own)
}

fn program(package: &str, profile: &str) -> Command {
    let mut command = cargo::command();
    command.args(["run", "--profile", profile, "--package", package, "--"]);
    command
}
