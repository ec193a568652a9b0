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
    if args.iter().any(|arg| HELP.contains(&arg.as_str())) {
        return guarded::run(&mut help(args), Group::Own);
    }
    let part = named(&args);
    let is_instructions = part == Some(INSTRUCTIONS);
    match part {
        Some(part) if COUNTING.contains(&part) => {
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

/// The part that is named, if one is.
fn named(args: &[String]) -> Option<&str> {
    let mut words = args.iter().map(String::as_str);
    words.find(|word| !word.starts_with('-') && !HELP.contains(word))
}

/// The program that has the part which help is asked for, with what it is to be asked.
fn help(mut args: Vec<String>) -> Command {
    let mut command = match named(&args) {
        Some(INSTRUCTIONS) => {
            args = vec!["--help".to_owned()];
            program("cqrs-instructions", "counted")
        }
        _ => program("cqrs-benches", "release"),
    };
    command.args(args);
    command
}

fn program(package: &str, profile: &str) -> Command {
    let mut command = cargo::command();
    command.args(["run", "--profile", profile, "--package", package, "--"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_that_has_the_part_is_asked_for_help() {
        let asked = |line: &str| {
            let args = line.split(' ').map(str::to_owned).collect();
            let command = help(args);
            let words = command.get_args().map(|word| word.to_string_lossy());
            let words: Vec<_> = words.collect();
            (words[4].to_string(), words[6..].join(" "))
        };
        let of = |package: &str, args: &str| (package.to_owned(), args.to_owned());
        assert_eq!(
            asked("instructions --help"),
            of("cqrs-instructions", "--help")
        );
        assert_eq!(
            asked("help instructions"),
            of("cqrs-instructions", "--help")
        );
        assert_eq!(asked("--help"), of("cqrs-benches", "--help"));
        assert_eq!(asked("write -h"), of("cqrs-benches", "write -h"));
    }
}
