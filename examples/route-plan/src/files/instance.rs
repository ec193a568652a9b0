//! The file of an instance.

use std::collections::HashMap;
use std::path::Path;

use super::error::ImportError;
use super::text::{Line, lines, missing_line, read_text};
use crate::schedule::{Depot, Stop};

/// Columns of a customer's row.
const COLUMNS: [&str; 7] = ["id", "x", "y", "demand", "ready", "due", "service"];

/// A routing problem: one depot, its vehicles, and the customers to visit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Instance {
    /// Name of the file without its ending, such as `0025_R101`.
    pub(crate) name: String,
    /// What each vehicle carries.
    pub(crate) capacity: u32,
    /// Where the vehicles start and end.
    pub(crate) depot: Depot,
    /// The customers, in the order of the file.
    pub(crate) customers: Vec<Stop>,
}

impl Instance {
    /// Reads an instance, which is named after its file.
    ///
    /// # Errors
    ///
    /// An [`ImportError`] if the file cannot be read or is malformed.
    pub(super) fn read(path: &Path) -> Result<Self, ImportError> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&name, path, &read_text(path)?)
    }

    /// Parses the text of an instance; `path` is for the error.
    fn parse(name: &str, path: &Path, text: &str) -> Result<Self, ImportError> {
        let lines = lines(path, text);
        let missing = |what: &str| missing_line(path, &lines, what);

        let first = lines
            .first()
            .ok_or_else(|| missing("the vehicle capacity"))?;
        let [capacity] = first.columns(["capacity"])?;
        let capacity = first.whole("the vehicle capacity", capacity)?;

        let second = lines
            .get(1)
            .ok_or_else(|| missing("the number of customers"))?;
        let [count] = second.columns(["customers"])?;
        let count: usize = second.whole("the number of customers", count)?;

        let row = lines.get(2).ok_or_else(|| missing("the depot"))?;
        let depot = parse_depot(row)?;

        let mut customers = Vec::new();
        let mut line_of_id = HashMap::from([(0, row.number)]);
        for row in &lines[3..] {
            let stop = parse_stop(row)?;
            if let Some(first) = line_of_id.insert(stop.customer, row.number) {
                return Err(row.error(format!(
                    "expected an id of its own, found {}, which line {first} has",
                    stop.customer
                )));
            }
            customers.push(stop);
        }
        if customers.len() != count {
            return Err(second.error(format!(
                "expected {count} customers after the depot, found {}",
                customers.len()
            )));
        }
        Ok(Self {
            name: name.to_owned(),
            capacity,
            depot,
            customers,
        })
    }
}

/// Parses the depot, which has the columns of a customer: its id, demand and service are 0.
fn parse_depot(row: &Line<'_>) -> Result<Depot, ImportError> {
    let stop = parse_stop(row)?;
    if stop.customer != 0 {
        return Err(row.error(format!(
            "expected the depot, id 0, found id {}",
            stop.customer
        )));
    }
    if stop.demand != 0 || stop.service != 0.0 {
        return Err(row.error(format!(
            "expected a depot with demand 0 and service 0, found {} and {}",
            stop.demand, stop.service
        )));
    }
    Ok(Depot {
        x: stop.x,
        y: stop.y,
        ready: stop.ready,
        due: stop.due,
    })
}

fn parse_stop(row: &Line<'_>) -> Result<Stop, ImportError> {
    let [id, x, y, demand, ready, due, service] = row.columns(COLUMNS)?;
    let stop = Stop {
        customer: row.whole("id", id)?,
        x: row.finite("x", x)?,
        y: row.finite("y", y)?,
        demand: row.whole("demand", demand)?,
        ready: row.finite("ready", ready)?,
        due: row.finite("due", due)?,
        service: row.not_negative("service", service)?,
    };
    if stop.due < stop.ready {
        return Err(row.error(format!(
            "expected due, a time not before ready {ready}, found {due:?}"
        )));
    }
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::SMALL;
    use super::*;

    fn parse(text: &str) -> Result<Instance, ImportError> {
        Instance::parse("0025_S1", Path::new("dir/0025_S1.txt"), text)
    }

    /// The error of `SMALL` after one replacement.
    fn refusal(from: &str, to: &str) -> String {
        assert!(SMALL.contains(from), "the text has no {from:?}");
        parse(&SMALL.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn an_instance_is_read_in_full() {
        let instance = parse(SMALL).unwrap();
        assert_eq!(instance.name, "0025_S1");
        assert_eq!(instance.capacity, 20);
        assert_eq!(instance.depot.due, 100.0);
        assert_eq!(instance.customers.len(), 3);
        assert_eq!(
            instance.customers[1],
            Stop {
                customer: 2,
                x: -6.0,
                y: 8.5,
                demand: 10,
                ready: 10.0,
                due: 60.0,
                service: 5.0,
            }
        );
    }

    #[test]
    fn line_ends_and_blank_lines_at_the_end_do_not_matter() {
        let expected = parse(SMALL).unwrap();
        let variants = [
            SMALL.replace('\n', "\r\n"),
            SMALL.trim_end().to_owned(),
            format!("{SMALL}\n \t\n\r\n"),
            SMALL.replace('\t', "   "),
        ];
        for variant in variants {
            assert_eq!(parse(&variant).unwrap(), expected);
        }
    }

    #[test]
    fn a_file_that_ends_early_says_what_is_missing() {
        let refusal = |text| parse(text).unwrap_err().to_string();
        let expected = [
            (
                "",
                "dir/0025_S1.txt:1: expected the vehicle capacity, found the end of the file",
            ),
            (
                "\n\n",
                "dir/0025_S1.txt:1: expected the vehicle capacity, found the end of the file",
            ),
            (
                "20\n",
                "dir/0025_S1.txt:2: expected the number of customers, found the end of the file",
            ),
            (
                "20\n3\n",
                "dir/0025_S1.txt:3: expected the depot, found the end of the file",
            ),
        ];
        for (text, error) in expected {
            assert_eq!(refusal(text), error);
        }
    }

    #[test]
    fn columns_are_counted() {
        assert_eq!(
            refusal("\t50\t5\n", "\t50\n"),
            "dir/0025_S1.txt:4: columns: expected 7 \
             (id, x, y, demand, ready, due, service), found 6"
        );
        assert_eq!(
            refusal("\t50\t5\n", "\t50\t5\t1\n"),
            "dir/0025_S1.txt:4: columns: expected 7 \
             (id, x, y, demand, ready, due, service), found 8"
        );
        assert_eq!(
            refusal("\n1\t", "\n\n1\t"),
            "dir/0025_S1.txt:4: columns: expected 7 \
             (id, x, y, demand, ready, due, service), found 0"
        );
        assert_eq!(
            refusal("20\n", "20 4\n"),
            "dir/0025_S1.txt:1: columns: expected 1 (capacity), found 2"
        );
        assert_eq!(
            refusal("\n3\n", "\n3 4\n"),
            "dir/0025_S1.txt:2: columns: expected 1 (customers), found 2"
        );
    }

    #[test]
    fn what_is_not_a_number_is_quoted() {
        let at = "dir/0025_S1.txt:";
        let expected = [
            (
                "20\n",
                "many\n",
                "1: expected the vehicle capacity, a whole number of 0 or more, found \"many\"",
            ),
            (
                "\n3\n",
                "\n3.0\n",
                "2: expected the number of customers, a whole number of 0 or more, found \"3.0\"",
            ),
            (
                "\n1\t",
                "\n-1\t",
                "4: expected id, a whole number of 0 or more, found \"-1\"",
            ),
            (
                "\t3\t",
                "\twest\t",
                "4: expected x, a finite number, found \"west\"",
            ),
            (
                "\t4\t",
                "\t4,5\t",
                "4: expected y, a finite number, found \"4,5\"",
            ),
            (
                "\t10\t0\t50",
                "\t-10\t0\t50",
                "4: expected demand, a whole number of 0 or more, found \"-10\"",
            ),
            (
                "\t10\t0\t50",
                "\t4294967296\t0\t50",
                "4: expected demand, a whole number of 0 or more, found \"4294967296\", which is too large",
            ),
            (
                "\t0\t50\t",
                "\tNaN\t50\t",
                "4: expected ready, a finite number, found \"NaN\"",
            ),
            (
                "\t50\t",
                "\tinf\t",
                "4: expected due, a finite number, found \"inf\"",
            ),
            (
                "\t50\t5\n",
                "\t50\t1e999\n",
                "4: expected service, a finite number, found \"1e999\"",
            ),
            (
                "\t50\t5\n",
                "\t50\t-5\n",
                "4: expected service, a number of 0 or more, found \"-5\"",
            ),
            (
                "\t50\t5\n",
                "\t50\t\u{1b}[2J\n",
                "4: expected service, a finite number, found \"\\u{1b}[2J\"",
            ),
        ];
        for (from, to, error) in expected {
            assert_eq!(refusal(from, to), format!("{at}{error}"));
        }
    }

    #[test]
    fn a_window_must_not_close_before_it_opens() {
        assert_eq!(
            refusal("\t10\t60\t", "\t60.5\t60\t"),
            "dir/0025_S1.txt:5: expected due, a time not before ready 60.5, found \"60\""
        );
        let instant = SMALL.replacen("\t10\t60\t", "\t60\t60\t", 1);
        assert!(parse(&instant).is_ok());
    }

    #[test]
    fn ids_are_unique() {
        assert_eq!(
            refusal("\n3\t0\t10", "\n1\t0\t10"),
            "dir/0025_S1.txt:6: expected an id of its own, found 1, which line 4 has"
        );
        assert_eq!(
            refusal("\n3\t0\t10", "\n0\t0\t10"),
            "dir/0025_S1.txt:6: expected an id of its own, found 0, which line 3 has"
        );
    }

    #[test]
    fn the_customers_are_as_many_as_announced() {
        assert_eq!(
            refusal("\n3\n", "\n4\n"),
            "dir/0025_S1.txt:2: expected 4 customers after the depot, found 3"
        );
        assert_eq!(
            refusal("\n3\n", "\n2\n"),
            "dir/0025_S1.txt:2: expected 2 customers after the depot, found 3"
        );
    }

    #[test]
    fn the_depot_comes_first_and_takes_nothing() {
        assert_eq!(
            refusal("0\t0\t0\t0\t0\t100\t0\n", ""),
            "dir/0025_S1.txt:3: expected the depot, id 0, found id 1"
        );
        assert_eq!(
            refusal("0\t0\t0\t0\t0\t100\t0\n", "0\t0\t0\t4\t0\t100\t9\n"),
            "dir/0025_S1.txt:3: expected a depot with demand 0 and service 0, found 4 and 9"
        );
    }
}
