//! `cargo xtask postgres`: a private Postgres to use by hand.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::Command;

use crate::args;
use crate::cluster::{Cluster, DATABASE_URL, Durability};
use crate::failure::{Failure, Result};
use crate::guarded::{self, Group};
use crate::install_postgres::Install;

/// How to start the server, and what to run on it.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Options {
    durability: Durability,
    install: Install,
    /// The command and its arguments; `None` to wait for the user instead.
    command: Option<Vec<String>>,
}

impl Options {
    /// Reads the arguments after `postgres`.
    ///
    /// # Errors
    ///
    /// For an unknown argument, or `--` without a command.
    pub(crate) fn parse(args: Vec<String>) -> Result<Self> {
        let (own, command) = args::split_at_dashes(args);
        if command.as_ref().is_some_and(Vec::is_empty) {
            return Err(Failure::new("a command has to follow `--`"));
        }
        let mut options = Self {
            command,
            ..Self::default()
        };
        for arg in own {
            if let Some(install) = args::install_option(&arg) {
                options.install = install;
            } else if arg == "--durable" {
                options.durability = Durability::Full;
            } else {
                return Err(args::unexpected("postgres", &arg));
            }
        }
        Ok(options)
    }
}

/// Runs the server for a command, whose exit code it returns, or until the user has enough.
///
/// # Errors
///
/// When the server or the command cannot be started.
pub(crate) fn run(options: Options) -> Result<u8> {
    let cluster = Cluster::start(options.durability, options.install)?;
    match options.command {
        Some(words) => {
            let mut words = words.into_iter();
            let mut command = Command::new(words.next().unwrap_or_default());
            command.args(words);
            cluster.apply_to(&mut command);
            // A command that talks to the user has to stay in the foreground.
            let group = if io::stdin().is_terminal() {
                Group::Shared
            } else {
                Group::Own
            };
            guarded::run(&mut command, group)
        }
        None => wait_for_user(&cluster).map(|()| 0),
    }
}

fn wait_for_user(cluster: &Cluster) -> Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{DATABASE_URL}={}", cluster.database_url())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::of("cannot print the address", error))?;
    eprintln!("xtask: Enter, end of input, or Ctrl-C stops it");
    io::stdin()
        .read_line(&mut String::new())
        .map_err(|error| Failure::of("cannot read from standard input", error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(args.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_follows_the_dashes_is_the_command() {
        let options = parse(&["--durable", "--", "psql", "--durable"]).unwrap();
        assert_eq!(options.durability, Durability::Full);
        assert_eq!(
            options.command,
            Some(vec!["psql".to_owned(), "--durable".to_owned()])
        );
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse(&["psql"]).unwrap_err().to_string().contains("`psql`"));
        assert!(parse(&["--"]).unwrap_err().to_string().contains("`--`"));
    }
}
