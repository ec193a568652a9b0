//! `cargo xtask ci`: everything that must pass before a change is merged.

use std::time::Instant;

use crate::args;
use crate::bench;
use crate::cargo;
use crate::cargo_test;
use crate::failure::Result;
use crate::guarded::{self, Group};

/// What a step runs.
enum Work {
    /// Cargo with these arguments.
    Cargo(&'static [&'static str]),
    /// `cargo xtask test`.
    Tests,
    /// `cargo xtask bench instructions --check`.
    Instructions,
    /// `cargo check` of the rivals, which are a workspace of their own.
    Rivals,
}

/// A step: its name and its work.
type Step = (&'static str, Work);

/// All steps, the quick ones first.
const STEPS: [Step; 8] = [
    (
        "formatting",
        Work::Cargo(&["fmt", "--all", "--", "--check"]),
    ),
    (
        "lints, all features",
        Work::Cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "--deny=warnings",
        ]),
    ),
    (
        "lints, only postgres",
        Work::Cargo(&[
            "clippy",
            "--package=cqrs-sqlx",
            "--all-targets",
            "--no-default-features",
            "--features=postgres",
            "--",
            "--deny=warnings",
        ]),
    ),
    (
        "lints, only sqlite",
        Work::Cargo(&[
            "clippy",
            "--package=cqrs-sqlx",
            "--all-targets",
            "--no-default-features",
            "--features=sqlite",
            "--",
            "--deny=warnings",
        ]),
    ),
    (
        "lints, no feature",
        Work::Cargo(&[
            "clippy",
            "--package=cqrs-sqlx",
            "--all-targets",
            "--no-default-features",
            "--",
            "--deny=warnings",
        ]),
    ),
    (
        "documentation",
        Work::Cargo(&["doc", "--workspace", "--no-deps", "--all-features"]),
    ),
    ("instructions", Work::Instructions),
    ("tests", Work::Tests),
];

/// The step that is left out unless it is asked for: nobody but the benchmarks needs what it compiles,
/// which takes minutes where it is not there yet.
const RIVALS: Step = ("rivals", Work::Rivals);
/// What asks for it.
const WITH_RIVALS: &str = "--rivals";

/// Runs every step, and returns the exit code of the first that failed.
///
/// It goes on after a failure: one push should show all that is wrong.
///
/// # Errors
///
/// For an argument that it does not know. A step that cannot be run counts as failed.
pub(crate) fn run(args: Vec<String>) -> Result<u8> {
    if let Some(arg) = args.iter().find(|arg| *arg != WITH_RIVALS) {
        return Err(args::unexpected("ci", arg));
    }
    let more = (!args.is_empty()).then_some(RIVALS);
    let mut report = Vec::new();
    let mut first_failure = 0;
    for (name, work) in STEPS.iter().chain(&more) {
        eprintln!("\n==> {name}");
        let start = Instant::now();
        let code = work.run().unwrap_or_else(|failure| {
            eprintln!("xtask: {failure}");
            1
        });
        let result = if code == 0 { "ok" } else { "FAILED" };
        let line = format!(
            "{result:6}  {:6.1} s  {name}",
            start.elapsed().as_secs_f64()
        );
        eprintln!("<== {line}");
        report.push(line);
        if first_failure == 0 {
            first_failure = code;
        }
    }
    eprintln!("\n{}", report.join("\n"));
    Ok(first_failure)
}

impl Work {
    fn run(&self) -> Result<u8> {
        match self {
            Self::Cargo(args) => guarded::run(
                cargo::command()
                    .args(*args)
                    .env("RUSTDOCFLAGS", "--deny=warnings"),
                Group::Own,
            ),
            Self::Tests => cargo_test::run(&cargo_test::Options::default()),
            Self::Rivals => guarded::run(&mut cargo::check_rivals(), Group::Own),
            Self::Instructions => bench::run(vec!["instructions".into(), "--check".into()]),
        }
    }
}
