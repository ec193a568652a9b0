//! The part `mapping`: the instructions of what does no I/O, which the program
//! `cqrs-instructions` counts. `cargo xtask bench instructions` runs that alone, without a server.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Deserialize;

use crate::report::{Amounts, Bound, OURS, Results};

/// How the part is run.
#[derive(Debug, Args)]
pub(crate) struct Options {}

/// Instructions of a piece of work.
#[derive(Debug, Deserialize)]
struct Count {
    ours: f64,
    hand: f64,
}

/// Runs the part.
///
/// # Errors
///
/// Where the program cannot be built, or valgrind not be run.
pub(crate) async fn run(_url: &str, _options: &Options, results: &mut Results) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "run",
            "--quiet",
            "--profile=counted",
            "--package=cqrs-instructions",
        ])
        .args(["--", "--json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("running cargo")?;
    ensure!(
        output.status.success(),
        "counting failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in String::from_utf8(output.stdout)?.lines() {
        let (case, count, most): (String, Count, Option<f64>) =
            serde_json::from_str(line).with_context(|| format!("reading {line}"))?;
        let counts = Amounts {
            part: "mapping",
            case,
            unit: "instructions",
            sides: vec![(OURS, count.ours), ("hand", count.hand)],
        };
        results.add_amounts(&counts)?;
        results.expect(most.and_then(|most| counts.goal("hand", Bound::AtMost(most))));
    }
    Ok(())
}
