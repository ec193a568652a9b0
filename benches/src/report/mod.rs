//! Results: a table for people with the change since the last run, a line of JSON for each side
//! of a case, a chart for each part, and what is asked of ours.

mod chart;
mod goal;
mod record;
mod results;

use crate::harness::{Sample, Spread, interval_of_median, percentile_us};

use chart::{Bar, Panel};
use record::Record;

pub(crate) use goal::{Bound, Goal};
pub(crate) use results::{Extent, Results, directory};

/// The side that the others are compared with, unless a case says otherwise.
pub(crate) const OURS: &str = "ours";

/// By what sides are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Units of work per second: more is better.
    Rate,
    /// The median latency: less is better.
    P50,
    /// The 99th percentile of the latency: less is better.
    P99,
}

impl By {
    /// What it is of a sample.
    pub(crate) fn of(self, sample: &Sample) -> f64 {
        match self.quantile() {
            None => sample.per_s,
            Some(quantile) => percentile_us([sample], quantile),
        }
    }

    fn quantile(self) -> Option<f64> {
        match self {
            Self::Rate => None,
            Self::P50 => Some(0.50),
            Self::P99 => Some(0.99),
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Rate => "per second",
            Self::P50 => "p50 us",
            Self::P99 => "p99 us",
        }
    }
}

/// One side of a case, with what was measured in each round.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The name of the side.
    pub(crate) side: String,
    /// A sample for each round.
    pub(crate) samples: Vec<Sample>,
}

impl Measured {
    /// The median of the rounds' rates; of latencies, the percentile of all rounds together.
    fn spread(&self, by: By) -> Spread {
        let rounds = Spread::of(self.samples.iter().map(|sample| by.of(sample)));
        match by.quantile() {
            None => rounds,
            Some(quantile) => rounds.reporting(percentile_us(&self.samples, quantile)),
        }
    }
}

/// All sides of one case.
#[derive(Debug)]
pub(crate) struct Case {
    part: &'static str,
    case: String,
    writers: usize,
    delay_us: u64,
    subject: String,
    by: By,
    counted: &'static str,
    sides: Vec<Measured>,
}

impl Case {
    /// A case of one writer and no network, of the sides with these names, compared by their
    /// rates with [`OURS`].
    pub(crate) fn new<S: Into<String>>(
        part: &'static str,
        case: impl Into<String>,
        sides: impl IntoIterator<Item = S>,
        samples: Vec<Vec<Sample>>,
    ) -> Self {
        let sides = sides.into_iter().zip(samples);
        Self {
            part,
            case: case.into(),
            writers: 1,
            delay_us: 0,
            subject: OURS.to_owned(),
            by: By::Rate,
            counted: "",
            sides: sides
                .map(|(side, samples)| Measured {
                    side: side.into(),
                    samples,
                })
                .collect(),
        }
    }

    /// With so many writers at a time.
    pub(crate) fn with_writers(self, writers: usize) -> Self {
        Self { writers, ..self }
    }

    /// With a network that delivers so many microseconds late, each way.
    pub(crate) fn with_delay(self, delay_us: u64) -> Self {
        Self { delay_us, ..self }
    }

    /// With this side in place of ours, for the others to be compared with.
    pub(crate) fn comparing(self, subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            ..self
        }
    }

    /// With a name for what is counted, in the plural.
    pub(crate) fn counting(self, counted: &'static str) -> Self {
        Self { counted, ..self }
    }

    /// Compared by something else than rates.
    pub(crate) fn by(self, by: By) -> Self {
        Self { by, ..self }
    }

    /// The name of the case with its number of writers and its network.
    pub(crate) fn title(&self) -> String {
        let mut title = self.case.clone();
        if self.writers > 1 {
            title += &format!(", {} writers", self.writers);
        }
        if self.delay_us > 0 {
            title += &format!(", {} us late", self.delay_us);
        }
        title
    }

    fn side(&self, side: &str) -> Option<&Measured> {
        self.sides.iter().find(|measured| measured.side == side)
    }

    /// One side by another, taken within each round; of latencies, that of all rounds together.
    pub(crate) fn ratio(&self, by: By, side: &str, other: &str) -> Option<Spread> {
        let (side, other) = (self.side(side)?, self.side(other)?);
        let rounds = Spread::of_ratios(&side.samples, &other.samples, |sample| by.of(sample));
        Some(match by {
            By::Rate => rounds,
            _ => rounds.reporting(side.spread(by).value / other.spread(by).value),
        })
    }

    /// The interval that has the median ratio of two sides with 95 %; none of few rounds.
    pub(crate) fn interval(&self, by: By, side: &str, other: &str) -> Option<Spread> {
        let (side, other) = (self.side(side)?, self.side(other)?);
        let rounds = side.samples.iter().zip(&other.samples);
        interval_of_median(rounds.map(|(side, other)| by.of(side) / by.of(other)))
    }

    /// The goal for the ratio of two sides; none where one was not measured.
    pub(crate) fn goal(&self, by: By, side: &str, other: &str, bound: Bound) -> Option<Goal> {
        let found = self.ratio(by, side, other)?.value;
        let unit = match by {
            By::Rate => "",
            By::P50 => " p50",
            By::P99 => " p99",
        };
        Some(self.goal_of(format!("{side}/{other}{unit}"), found, bound))
    }

    /// The goals for the ratios of the subject to other sides, by what the case is compared by.
    pub(crate) fn goals(&self, bounds: &[(&str, Bound)]) -> Vec<Goal> {
        let goal = |&(side, bound): &(&str, Bound)| self.goal(self.by, &self.subject, side, bound);
        bounds.iter().filter_map(goal).collect()
    }

    /// The goal for a latency of a side, in milliseconds.
    pub(crate) fn goal_in_ms(&self, by: By, side: &str, bound: Bound) -> Option<Goal> {
        let us = self.side(side)?.spread(by).value;
        let name = if by == By::P99 { "p99" } else { "p50" };
        Some(self.goal_of(format!("{side} {name} ms"), us / 1e3, bound))
    }

    fn goal_of(&self, what: String, found: f64, bound: Bound) -> Goal {
        Goal {
            part: self.part,
            case: self.title(),
            what,
            found,
            bound,
        }
    }

    /// The table of the case; `before` knows the ratio of the last run to a side.
    fn table(&self, before: impl Fn(&str) -> Option<f64>) -> String {
        let times = self.times();
        let titles: String = times.iter().map(|time| format!("{:>27}", time.0)).collect();
        let mut lines = vec![
            format!("{}: {}", self.part, self.title()),
            format!(
                "  {:<15}{:>27}{titles}{:>24}  last run",
                "side",
                "per second",
                format!("{}/side", self.subject)
            ),
        ];
        for measured in &self.sides {
            let side = &measured.side;
            let ratio = self
                .ratio(self.by, &self.subject, side)
                .filter(|_| *side != self.subject);
            let (ratio, before) = ratio.map_or_else(Default::default, |ratio| {
                let before = before(side).map(|before| change(ratio, before));
                (cell(ratio, 2), before.unwrap_or_default())
            });
            let rate = measured.spread(By::Rate);
            let times = times.iter().map(|&(_, by, us, decimals)| {
                let time = cell(measured.spread(by).per(us), decimals);
                format!("{time:>27}")
            });
            let line = format!(
                "  {side:<15}{:>27}{}{ratio:>24}  {before}",
                cell(rate, usize::from(rate.value < 10.0)),
                times.collect::<String>(),
            );
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }

    /// The columns of times: title, what they show, in units of how many microseconds, and with how
    /// many decimals. Where each round was one piece of work, that is how long it took.
    fn times(&self) -> &'static [(&'static str, By, f64, usize)] {
        let mut samples = self.sides.iter().flat_map(|measured| &measured.samples);
        match samples.all(|sample| sample.latencies.len() == 1) {
            true => &[("seconds", By::P50, 1e6, 3)],
            false => &[("p50 us", By::P50, 1.0, 0), ("p99 us", By::P99, 1.0, 0)],
        }
    }

    fn records(&self) -> impl Iterator<Item = Record> {
        self.sides.iter().map(|measured| {
            let reported = |by| Some(measured.spread(by).value);
            Record {
                part: self.part.to_owned(),
                case: self.case.clone(),
                side: measured.side.clone(),
                writers: self.writers,
                delay_us: self.delay_us,
                per_s: reported(By::Rate),
                p50_us: reported(By::P50),
                p99_us: reported(By::P99),
                ratio: self
                    .ratio(self.by, &self.subject, &measured.side)
                    .filter(|_| measured.side != self.subject)
                    .map(|ratio| ratio.value),
                arguments: String::new(),
                amount: None,
                unit: None,
            }
        })
    }

    fn panel(&self) -> Panel {
        let bars = self.sides.iter().map(|measured| Bar {
            name: measured.side.clone(),
            value: measured.spread(self.by),
        });
        Panel {
            title: self.title(),
            unit: format!("{} {}", self.counted, self.by.unit())
                .trim_start()
                .to_owned(),
            bars: bars.collect(),
        }
    }
}

/// What is neither a rate nor a latency: instructions, lines, dead rows.
#[derive(Debug)]
pub(crate) struct Amounts {
    /// The part of the benchmark.
    pub(crate) part: &'static str,
    /// The case.
    pub(crate) case: String,
    /// Of what they are amounts.
    pub(crate) unit: &'static str,
    /// The sides, [`OURS`] first.
    pub(crate) sides: Vec<(&'static str, f64)>,
}

impl Amounts {
    fn amount(&self, side: &str) -> Option<f64> {
        let found = self.sides.iter().find(|(name, _)| *name == side);
        found.map(|(_, amount)| *amount)
    }

    /// The goal for our amount by that of another side.
    pub(crate) fn goal(&self, side: &str, bound: Bound) -> Option<Goal> {
        let found = self.amount(OURS)? / self.amount(side)?;
        Some(self.goal_of(format!("{OURS}/{side}"), found, bound))
    }

    /// The goal for an amount by itself.
    pub(crate) fn goal_of_side(&self, side: &str, bound: Bound) -> Option<Goal> {
        let found = self.amount(side)?;
        Some(self.goal_of(format!("{side}, {}", self.unit), found, bound))
    }

    fn goal_of(&self, what: String, found: f64, bound: Bound) -> Goal {
        Goal {
            part: self.part,
            case: self.case.clone(),
            what,
            found,
            bound,
        }
    }

    fn table(&self, before: impl Fn(&str) -> Option<f64>) -> String {
        let mut lines = vec![format!("{}: {}, {}", self.part, self.case, self.unit)];
        for &(side, amount) in &self.sides {
            let ratio = self.amount(OURS).filter(|_| side != OURS);
            let compared = ratio.map_or_else(String::new, |ours| {
                let ratio = ours / amount;
                let before = before(side).map(|before| change(Spread::of([ratio]), before));
                format!("{OURS}/side {ratio:.2}  {}", before.unwrap_or_default())
            });
            let line = format!("  {side:<15}{amount:>15.0}  {compared}");
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }

    fn records(&self) -> impl Iterator<Item = Record> {
        self.sides.iter().map(|&(side, amount)| Record {
            part: self.part.to_owned(),
            case: self.case.clone(),
            side: side.to_owned(),
            writers: 1,
            delay_us: 0,
            per_s: None,
            p50_us: None,
            p99_us: None,
            ratio: self
                .amount(OURS)
                .filter(|_| side != OURS)
                .map(|ours| ours / amount),
            arguments: String::new(),
            amount: Some(amount),
            unit: Some(self.unit.to_owned()),
        })
    }

    fn panel(&self) -> Panel {
        let bars = self.sides.iter().map(|&(side, amount)| Bar {
            name: side.to_owned(),
            value: Spread::of([amount]),
        });
        Panel {
            title: self.case.clone(),
            unit: self.unit.to_owned(),
            bars: bars.collect(),
        }
    }
}

/// `value (min..max)`, or the only value.
fn cell(spread: Spread, decimals: usize) -> String {
    let Spread { min, value, max } = spread;
    if min == max {
        return format!("{value:.decimals$}");
    }
    format!("{value:.decimals$} ({min:.decimals$}..{max:.decimals$})")
}

/// The ratio of the last run, and how far this one's is from it; marked where that is more than
/// the rounds of this run differ.
fn change(ratio: Spread, before: f64) -> String {
    let percent = (ratio.value / before - 1.0) * 100.0;
    let is_beyond = !(ratio.min..=ratio.max).contains(&before);
    // What is rounded to nothing is no change.
    let mark = if is_beyond && percent.abs() >= 0.5 {
        " !"
    } else {
        ""
    };
    format!("{before:.2} {percent:+.0}%{mark}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn measured(side: &str, rates: &[f64]) -> Measured {
        let sample = |&per_s| Sample {
            per_s,
            latencies: [100, 200].map(Duration::from_micros).to_vec(),
        };
        Measured {
            side: side.to_owned(),
            samples: rates.iter().map(sample).collect(),
        }
    }

    fn case() -> Case {
        let mut case = Case::new("write", "create", ["none"; 0], Vec::new()).with_writers(8);
        case.sides = vec![
            measured("ours", &[1000.0, 2000.0, 900.0]),
            measured("single", &[1000.0, 1600.0, 1000.0]),
        ];
        case
    }

    #[test]
    fn a_goal_names_the_case_and_its_sides() {
        let bounds = [("single", Bound::AtLeast(1.4))];
        assert_eq!(
            case().goals(&bounds),
            [Goal {
                part: "write",
                case: "create, 8 writers".to_owned(),
                what: "ours/single".to_owned(),
                found: 1.0,
                bound: Bound::AtLeast(1.4),
            }]
        );
    }

    #[test]
    fn a_side_that_was_not_measured_has_no_goal() {
        assert!(case().goals(&[("steps", Bound::AtLeast(1.4))]).is_empty());
    }

    #[test]
    fn latencies_are_told_in_milliseconds() {
        let goal = case().goal_in_ms(By::P99, "ours", Bound::AtMost(4.0));
        let goal = goal.expect("ours was measured");
        assert_eq!((goal.what.as_str(), goal.found), ("ours p99 ms", 0.2));
    }

    #[test]
    fn the_table_has_a_row_for_each_side_and_the_change() {
        let table = case().table(|side| (side == "single").then_some(0.8));
        assert_eq!(table.lines().count(), 4);
        assert!(table.contains("1000 (900..2000)"));
        assert!(table.contains("1.00 (0.90..1.25)"));
        assert!(table.ends_with("0.80 +25% !"), "{table}");
    }

    #[test]
    fn a_round_that_is_one_piece_of_work_has_its_time() {
        let once = [Sample::once(100, Duration::from_millis(1500))];
        let table = Case::new("bulk", "insert", [OURS], vec![once.to_vec()]).table(|_| None);
        assert!(
            table.contains("seconds") && !table.contains("p99"),
            "{table}"
        );
        assert!(table.ends_with("1.500"), "{table}");
    }

    #[test]
    fn a_change_within_the_spread_is_not_marked() {
        let ratio = Spread::of([0.9, 1.0, 1.2]);
        assert_eq!(change(ratio, 1.1), "1.10 -9%");
        assert_eq!(change(ratio, 0.5), "0.50 +100% !");
        assert_eq!(change(Spread::of([1.001]), 1.0), "1.00 +0%");
        assert_eq!(cell(Spread::of([2.5, 2.5]), 1), "2.5");
    }

    #[test]
    fn a_record_has_the_agreed_keys() {
        let records: Vec<_> = case()
            .records()
            .map(|record| serde_json::to_string(&record).expect("it is plain data"))
            .collect();
        assert_eq!(
            records[1],
            "{\"part\":\"write\",\"case\":\"create\",\"side\":\"single\",\"writers\":8,\
             \"delay_us\":0,\"per_s\":1000.0,\"p50_us\":100.0,\"p99_us\":200.0,\"ratio\":1.0,\
             \"arguments\":\"\"}"
        );
    }

    #[test]
    fn amounts_are_compared_and_recorded() {
        let amounts = Amounts {
            part: "mapping",
            case: "read".to_owned(),
            unit: "instructions",
            sides: vec![(OURS, 300.0), ("hand", 200.0)],
        };
        let goal = amounts
            .goal("hand", Bound::AtMost(1.4))
            .expect("both are there");
        assert!(!goal.is_met() && goal.found == 1.5);
        let record = amounts.records().next().expect("ours");
        assert_eq!(
            serde_json::to_string(&record).expect("it is plain data"),
            "{\"part\":\"mapping\",\"case\":\"read\",\"side\":\"ours\",\"writers\":1,\
             \"delay_us\":0,\"per_s\":null,\"p50_us\":null,\"p99_us\":null,\"arguments\":\"\",\
             \"amount\":300.0,\"unit\":\"instructions\"}"
        );
    }
}
