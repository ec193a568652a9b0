//! Counting instructions with callgrind.

use anyhow::{Result, ensure};
use cqrs_instructions::callgrind;

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
    let loads = loads.to_string();
    let (counted, sum) = callgrind::run(&[
        "load-once",
        "--side",
        side.name(),
        "--loads",
        &loads,
        "--database",
        database,
    ])?;
    Ok((counted, sum.parse()?))
}
