//! What is run where no part is named.

use anyhow::{Result, ensure};
use clap::Parser as _;

use crate::{Arguments, Part};

/// The whole run: about 20 minutes on two cores. The ten minutes of `bloat` are left out.
pub(crate) const WHOLE: &[&str] = &[
    "write --writers 1,8 --seconds 0.8 --rounds 4",
    "write --writers 32 --seconds 0.8 --rounds 5 --sides ours,single,held,steps,ours_coalesced",
    "write --writers 1 --seconds 0.8 --rounds 4 --delay-us 500",
    "load",
    "drain --rounds 3",
    "latency",
    "rebuild --rounds 3",
    "sourced",
    "bulk --rounds 3",
    "sqlite",
    "query",
    "mapping",
    "compile",
    "growth",
];

/// The short run: about 3 minutes.
pub(crate) const QUICK: &[&str] = &[
    "write --writers 1 --seconds 0.2 --rounds 1",
    "write --writers 32 --seconds 0.2 --rounds 1 --sides ours,single,held,steps,ours_coalesced",
    "write --writers 1 --seconds 0.2 --rounds 1 --delay-us 500",
    "load --seconds 0.3 --rounds 2 --loads 5",
    "drain --events 20000 --rounds 1",
    "latency --seconds 1 --rounds 1 --sides here,told --pairs 2 --slice 0.4",
    "rebuild --events 20000,200000 --rounds 1",
    "sourced --seconds 0.3 --rounds 2",
    "bulk --rows 20000 --rounds 1",
    "sqlite --seconds 0.3 --rounds 1 --events 10000",
    "query --seconds 0.2 --rounds 2",
    "mapping",
    "compile --aggregates 1,5 --rounds 1",
    "growth --events 50000,200000 --length 50000 --tenants 10,1000 --projections 1,4 \
     --children 1,100 --seconds 0.2 --rounds 1",
];

/// The parts of a plan with their lines, or those of this name.
///
/// # Errors
///
/// Where a line is none that a user might give, and where no line is left.
pub(crate) fn parts(plan: &[&str], name: Option<&str>) -> Result<Vec<(String, Part)>> {
    let mut parts = Vec::new();
    for &line in plan {
        let mut words = line.split_whitespace();
        if name.is_none_or(|name| words.next() == Some(name)) {
            let arguments = ["bench"].into_iter().chain(line.split_whitespace());
            let part = Arguments::try_parse_from(arguments)?.part;
            parts.extend(part.map(|part| (line.to_owned(), part)));
        }
    }
    ensure!(!parts.is_empty(), "there is no short form of this part");
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts that users are told of.
    const NAMES: [&str; 14] = [
        "bulk", "compile", "drain", "growth", "latency", "load", "mapping", "query", "rebuild",
        "sourced", "sqlite", "write", "write", "write",
    ];

    #[test]
    fn each_part_is_planned_with_arguments_that_it_has() {
        for plan in [WHOLE, QUICK] {
            let parts = parts(plan, None).expect("each line is one that a user might give");
            let mut names: Vec<&str> = parts
                .iter()
                .filter_map(|(line, _)| line.split_whitespace().next())
                .collect();
            names.sort_unstable();
            assert_eq!(names, NAMES);
        }
    }

    #[test]
    fn a_part_by_its_name() {
        let writes = parts(QUICK, Some("write")).expect("it is planned");
        assert_eq!(writes.len(), 3);
        assert!(parts(QUICK, Some("bloat")).is_err());
    }
}
