//! Counting instructions with callgrind.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::sides::Side;

/// How many loads come before those that are counted.
const WARM_UP: u32 = 5;

/// How many instructions a load has: the difference of two runs, divided by the loads that one has
/// more.
pub(super) fn instructions(database: &str, side: Side, loads: u32) -> Result<u64> {
    let (few, sum_of_few) = run(database, side, WARM_UP)?;
    let (many, sum_of_many) = run(database, side, WARM_UP + loads)?;
    let each = sum_of_few / i64::from(WARM_UP);
    ensure!(
        sum_of_many == each * i64::from(WARM_UP + loads),
        "{} loads other rows under callgrind",
        side.name()
    );
    Ok(many.saturating_sub(few) / u64::from(loads.max(1)))
}

/// The instructions of a whole run, and its checksum.
fn run(database: &str, side: Side, loads: u32) -> Result<(u64, i64)> {
    let program = std::env::current_exe()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["load-once", "--side", side.name(), "--loads"])
        .arg(loads.to_string())
        .args(["--database", database])
        .output()
        .context(
            "valgrind cannot be run; install it (Debian, Ubuntu: apt-get install valgrind), or \
             let `cargo xtask bench load` do so",
        )?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "callgrind failed:\n{told}");
    let counted = told
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse().ok())
        .with_context(|| format!("callgrind did not tell a count:\n{told}"))?;
    let sum = String::from_utf8_lossy(&output.stdout);
    Ok((counted, sum.trim().parse()?))
}
