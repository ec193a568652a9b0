//! What is asked of ours.

use std::fmt;

/// A limit of what may be found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    /// This, or more.
    AtLeast(f64),
    /// This, or less.
    AtMost(f64),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {least:.2}"),
            Self::AtMost(most) => write!(f, "<= {most:.2}"),
        }
    }
}

/// What is asked of ours in a case, and what was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Goal {
    /// The part of the benchmark.
    pub(crate) part: &'static str,
    /// The case.
    pub(crate) case: String,
    /// The sides compared, or what else is asked for.
    pub(crate) what: String,
    /// What was found.
    pub(crate) found: f64,
    /// What is asked for.
    pub(crate) bound: Bound,
}

impl Goal {
    /// Whether what was found is what is asked for. What could not be computed is not.
    pub(crate) fn is_met(&self) -> bool {
        self.found.is_finite()
            && match self.bound {
                Bound::AtLeast(least) => self.found >= least,
                Bound::AtMost(most) => self.found <= most,
            }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let met = if self.is_met() { "met" } else { "MISSED" };
        let Self {
            what, found, bound, ..
        } = self;
        write!(f, "{what} {found:.2}, {bound}: {met}")
    }
}

/// The goals, a line for each.
pub(super) fn table(goals: &[Goal]) -> String {
    let mut lines = vec![format!(
        "{:<9} {:<38} {:<28} {:>9}  {:<10} met",
        "part", "case", "ratio", "found", "target"
    )];
    for goal in goals {
        lines.push(format!(
            "{:<9} {:<38} {:<28} {:>9.2}  {:<10} {}",
            goal.part,
            goal.case,
            goal.what,
            goal.found,
            goal.bound.to_string(),
            if goal.is_met() { "yes" } else { "NO" },
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(found: f64, bound: Bound) -> Goal {
        Goal {
            part: "drain",
            case: "bulk".to_owned(),
            what: "ours/loop".to_owned(),
            found,
            bound,
        }
    }

    #[test]
    fn a_bound_is_met_where_it_is_reached() {
        assert!(goal(0.85, Bound::AtLeast(0.85)).is_met());
        assert!(!goal(0.84, Bound::AtLeast(0.85)).is_met());
        assert!(goal(1.2, Bound::AtMost(1.2)).is_met());
        assert!(!goal(1.21, Bound::AtMost(1.2)).is_met());
        assert!(!goal(f64::NAN, Bound::AtMost(1.0)).is_met());
        assert!(!goal(f64::NAN, Bound::AtLeast(1.0)).is_met());
        assert!(!goal(f64::INFINITY, Bound::AtLeast(1.0)).is_met());
    }

    #[test]
    fn the_table_says_what_was_missed() {
        let table = table(&[
            goal(0.9, Bound::AtLeast(0.85)),
            goal(0.8, Bound::AtLeast(0.85)),
        ]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].ends_with("0.90  >= 0.85    yes"), "{table}");
        assert!(lines[2].ends_with("0.80  >= 0.85    NO"), "{table}");
    }
}
