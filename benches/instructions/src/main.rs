//! What the parts of the framework that do no I/O cost: mapping, staging with payloads and hashes,
//! specifications, decoding.
//!
//! Each piece of work is counted twice under callgrind, with some repetitions and with more of
//! them; the difference is what a repetition costs without the start of the program. The same
//! work by hand is counted too, and their ratio is compared with the one in `recorded.json`: the
//! compiler and the machine change both counts, but hardly their ratio.

mod cases;
mod domain;

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum as _};
use cqrs_instructions::callgrind;
use serde::{Deserialize, Serialize};

use cases::{Case, Side};

/// Repetitions that come before those that are counted.
const WARM_UP: u32 = 5;
/// Repetitions that are counted.
const COUNTED: u32 = 20;
/// How far a ratio may rise above the recorded one.
const RISE: f64 = 1.05;
/// What was recorded.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recorded.json");

/// Counts the instructions of what does no I/O.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Fail where a ratio is more than 5 % above the recorded one.
    #[arg(long)]
    check: bool,
    /// Record the ratios.
    #[arg(long, conflicts_with = "check")]
    record: bool,
    /// Print a line of JSON for each piece of work.
    #[arg(long)]
    json: bool,
    /// What callgrind runs: this piece of work.
    #[arg(long, hide = true, requires_all = ["side", "times"])]
    case: Option<Case>,
    /// Who does it.
    #[arg(long, hide = true)]
    side: Option<Side>,
    /// How often.
    #[arg(long, hide = true)]
    times: Option<u32>,
}

/// Instructions of a repetition.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Count {
    ours: u64,
    hand: u64,
}

impl Count {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn ratio(self) -> f64 {
        self.ours as f64 / self.hand as f64
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let (Some(case), Some(side), Some(times)) = (arguments.case, arguments.side, arguments.times)
    {
        println!("{}", cases::work(case, side, times)?);
        return Ok(ExitCode::SUCCESS);
    }
    let recorded = recorded()?;
    let mut counts = BTreeMap::new();
    let mut risen = Vec::new();
    if !arguments.json {
        println!("| work | ours | by hand | ratio | recorded |\n|---|---|---|---|---|");
    }
    for &case in Case::value_variants() {
        let count = count(case)?;
        let before = recorded.get(&case.name()).map(|count| count.ratio());
        if arguments.json {
            let most = before.map(|before| before * RISE);
            println!("{}", serde_json::to_string(&(case.name(), count, most))?);
        } else {
            println!(
                "| {} | {} | {} | {:.2} | {} |",
                case.name(),
                count.ours,
                count.hand,
                count.ratio(),
                before.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            );
        }
        if before.is_none_or(|before| count.ratio() > before * RISE) {
            risen.push(case.name());
        }
        counts.insert(case.name(), count);
    }
    if arguments.record {
        fs::write(RECORDED, serde_json::to_string_pretty(&counts)? + "\n")?;
    } else if arguments.check && !risen.is_empty() {
        eprintln!(
            "more than 5 % above what is recorded, or not recorded: {}; if it is worth it, \
             record it with `cargo xtask bench instructions --record`",
            risen.join(", ")
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn recorded() -> Result<BTreeMap<String, Count>> {
    let text = fs::read_to_string(RECORDED).with_context(|| format!("reading {RECORDED}"))?;
    serde_json::from_str(&text).with_context(|| format!("reading {RECORDED}"))
}

/// Counts both sides of a piece of work, and checks that they did the same.
fn count(case: Case) -> Result<Count> {
    let (ours, sum) = instructions(case, Side::Ours)?;
    let (hand, sum_by_hand) = instructions(case, Side::Hand)?;
    ensure!(
        sum == sum_by_hand,
        "{}: {sum} by the framework, {sum_by_hand} by hand",
        case.name()
    );
    Ok(Count { ours, hand })
}

fn instructions(case: Case, side: Side) -> Result<(u64, String)> {
    let run = |times: u32| {
        let (case, side) = (case.name(), side.name());
        let times = times.to_string();
        callgrind::run(&["--case", &case, "--side", &side, "--times", &times])
    };
    let (few, _) = run(WARM_UP)?;
    let (many, sum) = run(WARM_UP + COUNTED)?;
    Ok((many.saturating_sub(few) / u64::from(COUNTED), sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_do_the_same_work() {
        for &case in Case::value_variants() {
            let ours = cases::work(case, Side::Ours, 2).expect("it never fails");
            let hand = cases::work(case, Side::Hand, 2).expect("it never fails");
            assert_eq!(ours, hand, "{}", case.name());
            assert!(ours > 0, "{}", case.name());
        }
    }

    #[test]
    fn each_piece_of_work_is_recorded() {
        let recorded = recorded().expect("it is there");
        let names: Vec<_> = Case::value_variants()
            .iter()
            .map(|case| case.name())
            .collect();
        let mut recorded: Vec<_> = recorded.into_keys().collect();
        recorded.sort_by_key(|name| names.iter().position(|other| other == name));
        assert_eq!(recorded, names);
    }
}
