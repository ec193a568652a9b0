//! `cargo xtask test`: all tests, on a private Postgres.

use std::env;
use std::io;
use std::process::Stdio;

use crate::args;
use crate::cargo;
use crate::cluster::{Cluster, DATABASE_URL, Durability};
use crate::failure::{Failure, Result};
use crate::guarded::{self, Group, GuardedChild};
use crate::install_postgres::Install;
use crate::test_totals::{self, TestTotals};

/// The server that the tests use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Server {
    /// One of our own.
    #[default]
    Private,
    /// The one that `DATABASE_URL` names.
    FromEnvironment,
}

/// What to test, and where.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Options {
    filter: Option<String>,
    packages: Vec<String>,
    targets: Vec<String>,
    server: Server,
    install: Install,
    libtest: Vec<String>,
}

impl Options {
    /// Reads the arguments after `test`.
    ///
    /// # Errors
    ///
    /// For an unknown option, or a second filter.
    pub(crate) fn parse(args: Vec<String>) -> Result<Self> {
        let (own, libtest) = args::split_at_dashes(args);
        let mut options = Self {
            libtest: libtest.unwrap_or_default(),
            ..Self::default()
        };
        let mut own = own.into_iter();
        while let Some(arg) = own.next() {
            if let Some(install) = args::install_option(&arg) {
                options.install = install;
            } else if arg == "--use-database-url" {
                options.server = Server::FromEnvironment;
            } else if arg == "-p" || arg == "--package" {
                let package = own
                    .next()
                    .ok_or_else(|| Failure::new(format!("`{arg}` needs the name of a package")))?;
                options.packages.push(package);
            } else if arg == "--test" {
                let target = own
                    .next()
                    .ok_or_else(|| Failure::new(format!("`{arg}` needs the name of a target")))?;
                options.targets.push(target);
            } else if arg.starts_with('-') {
                return Err(args::unexpected("test", &arg));
            } else if let Some(first) = &options.filter {
                return Err(Failure::new(format!(
                    "there can be one FILTER, not both `{first}` and `{arg}`; more go after `--`"
                )));
            } else {
                options.filter = Some(arg);
            }
        }
        Ok(options)
    }

    /// The arguments for cargo.
    fn cargo_args(&self) -> Vec<&str> {
        let mut args = vec!["test", "--all-features", "--no-fail-fast"];
        if self.packages.is_empty() {
            args.push("--workspace");
        }
        for package in &self.packages {
            args.extend(["--package", package]);
        }
        for target in &self.targets {
            args.extend(["--test", target]);
        }
        args.extend(self.filter.as_deref());
        if !self.libtest.is_empty() {
            args.push("--");
            args.extend(self.libtest.iter().map(String::as_str));
        }
        args
    }

    /// Why a successful run of no test at all is not what was asked for, if so.
    fn complaint(&self, totals: TestTotals) -> Option<String> {
        if !totals.is_empty() || self.libtest.iter().any(|arg| arg == "--list") {
            return None;
        }
        Some(match &self.filter {
            Some(filter) => format!(
                "no test matches `{filter}`; it has to be a part of the test's path within its \
                 crate, such as `module::test`"
            ),
            None => "no test was run".to_owned(),
        })
    }
}

/// Runs the tests, prints the totals on a line of their own, and returns the exit code of cargo.
///
/// # Errors
///
/// When no test was run, or when there is no server to run them on.
pub(crate) fn run(options: &Options) -> Result<u8> {
    let mut command = cargo::command();
    command.args(options.cargo_args()).stdout(Stdio::piped());
    // Lives until the end of this function.
    let _cluster = match options.server {
        Server::Private => {
            let cluster = Cluster::start(Durability::None, options.install)?;
            cluster.apply_to(&mut command);
            Some(cluster)
        }
        Server::FromEnvironment if env::var_os(DATABASE_URL).is_some() => None,
        Server::FromEnvironment => {
            return Err(Failure::new(format!(
                "`--use-database-url` was given, but {DATABASE_URL} is not set"
            )));
        }
    };
    let mut child = GuardedChild::spawn(&mut command, Group::Own)?;
    let stdout = child
        .take_stdout()
        .ok_or_else(|| Failure::new("cargo has no output"))?;
    let mut totals = test_totals::copy_and_count(stdout, io::stdout().lock())
        .map_err(|error| Failure::of("cannot pass on the output of the tests", error))?;
    let code = guarded::exit_code(child.wait()?);
    if code != 0 {
        totals = totals.with_crashes_as_failures();
        if totals.failed == 0 {
            eprintln!("\nxtask: cargo failed, not because of a test: see its errors above");
        }
    }
    println!(
        "\n{} passed, {} failed, {} ignored",
        totals.passed, totals.failed, totals.ignored
    );
    match options.complaint(totals) {
        Some(complaint) if code == 0 => Err(Failure::new(complaint)),
        _ => Ok(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(args.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn everything_is_tested_by_default() {
        assert_eq!(
            parse(&[]).unwrap().cargo_args(),
            ["test", "--all-features", "--no-fail-fast", "--workspace"]
        );
    }

    #[test]
    fn filter_and_libtest_arguments_reach_cargo() {
        let options =
            parse(&["outbox", "--use-database-url", "--", "--nocapture", "more"]).unwrap();
        assert_eq!(options.server, Server::FromEnvironment);
        assert_eq!(
            options.cargo_args(),
            [
                "test",
                "--all-features",
                "--no-fail-fast",
                "--workspace",
                "outbox",
                "--",
                "--nocapture",
                "more"
            ]
        );
    }

    #[test]
    fn targets_reach_cargo() {
        let options = parse(&["--test", "store", "locks"]).unwrap();
        assert!(
            options
                .cargo_args()
                .ends_with(&["--test", "store", "locks"])
        );
    }

    #[test]
    fn packages_replace_the_workspace() {
        let options = parse(&["-p", "cqrs-core", "--package", "cqrs-sqlx"]).unwrap();
        let args = options.cargo_args();
        assert!(!args.contains(&"--workspace"));
        assert!(args.ends_with(&["--package", "cqrs-core", "--package", "cqrs-sqlx"]));
    }

    #[test]
    fn mistakes_are_named() {
        for (args, part) in [
            (&["--quick"][..], "--quick"),
            (&["a", "b"], "`a` and `b`"),
            (&["-p"], "name of a package"),
            (&["--test"], "name of a target"),
        ] {
            let failure = parse(args).unwrap_err().to_string();
            assert!(failure.contains(part), "{failure}");
        }
    }

    #[test]
    fn a_run_without_tests_is_a_mistake_unless_only_a_list_was_wanted() {
        let none = TestTotals::default();
        let ignored = TestTotals { ignored: 1, ..none };
        let filtered = parse(&["nothing"]).unwrap();
        assert!(filtered.complaint(none).unwrap().contains("`nothing`"));
        assert_eq!(filtered.complaint(ignored), None);
        assert!(parse(&[]).unwrap().complaint(none).is_some());
        assert_eq!(parse(&["--", "--list"]).unwrap().complaint(none), None);
    }
}
