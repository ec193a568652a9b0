//! Reads routing instances and their best-known routes from a folder of text files.
//!
//! An instance `0025_X.txt` holds the vehicle's capacity, the number of customers, then a row
//! `id x y demand ready due service` for the depot, which is customer 0, and for each customer.
//! `best_known_25.txt` holds, for each instance, a header `name vehicles distance nodes` and a line
//! per route: its number of stops, then its customers in order. Blank lines separate the instances.
//!
//! What is malformed is refused with the file, the line, what was expected and what was found;
//! nothing is guessed or skipped.
//! Whether a route can be driven is not judged here, see [`Schedule`](crate::schedule::Schedule):
//! a file may well hold a route that a plan must refuse.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::num::{IntErrorKind, ParseIntError};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::schedule::{Depot, Stop};

/// File of the best-known routes in a folder of instances.
const BEST_KNOWN_FILE: &str = "best_known_25.txt";

/// How the file names of the instances begin; larger instances in the same folder are left alone.
const INSTANCE_PREFIX: &str = "0025_";

/// Columns of a customer's row.
const CUSTOMER_COLUMNS: [&str; 7] = ["id", "x", "y", "demand", "ready", "due", "service"];

/// Columns of the header of an instance's best-known routes.
const BEST_KNOWN_COLUMNS: [&str; 4] = ["name", "vehicles", "distance", "nodes"];

/// Reads every instance `0025_*.txt` of a folder with its best-known routes, sorted by name.
///
/// # Errors
///
/// An [`ImportError`] if the folder or a file cannot be read or is malformed, if there is no
/// instance, if an instance has no routes or routes have no instance, or if the routes of an
/// instance do not visit its customers: one is unknown, on two routes, or on none.
pub(crate) fn read_folder(folder: &Path) -> Result<Vec<Solved>, ImportError> {
    let files = instance_files(folder)?;
    if files.is_empty() {
        return Err(ImportError {
            file: folder.to_owned(),
            line: None,
            reason: format!("expected instances named {INSTANCE_PREFIX}*.txt, found none"),
        });
    }

    let routes_file = folder.join(BEST_KNOWN_FILE);
    let mut best_known: BTreeMap<String, BestKnown> = best_known::read(&routes_file)?
        .into_iter()
        .map(|routes| (routes.instance.clone(), routes))
        .collect();

    let mut solved = Vec::with_capacity(files.len());
    for file in files {
        let instance = Instance::read(&file)?;
        let Some(routes) = best_known.remove(&instance.name) else {
            return Err(ImportError {
                file: routes_file,
                line: None,
                reason: format!("expected routes for instance {}, found none", instance.name),
            });
        };
        solved.push(Solved::pair(instance, routes, &routes_file)?);
    }

    match best_known.into_values().min_by_key(|routes| routes.line) {
        Some(orphan) => Err(ImportError {
            file: routes_file,
            line: Some(orphan.line),
            reason: format!(
                "routes for instance {:?}: expected its file {:?} in the same folder, found none",
                orphan.instance,
                format!("{}.txt", orphan.instance)
            ),
        }),
        None => Ok(solved),
    }
}

/// The instances of a folder, sorted by name: the order of a folder's listing is arbitrary.
fn instance_files(folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let cannot_list = |error| ImportError {
        file: folder.to_owned(),
        line: None,
        reason: format!("cannot list the folder of instances: {error}"),
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot_list)? {
        let entry = entry.map_err(cannot_list)?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with(INSTANCE_PREFIX) && name.ends_with(".txt"))
        {
            files.push(entry.path());
        }
    }
    // By name without the ending: with it, `X-1.txt` would come before `X.txt`.
    files.sort_by(|one, other| one.file_stem().cmp(&other.file_stem()));
    Ok(files)
}

/// An instance with its best-known routes, which visit each of its customers on one route.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Solved {
    /// Depot, customers and vehicles.
    pub(crate) instance: Instance,
    /// The routes as their file has them.
    pub(crate) best_known: BestKnown,
    /// The same routes with their stops in full, in the same order.
    pub(crate) routes: Vec<Vec<Stop>>,
}

impl Solved {
    /// Looks up the customers of each route; `routes_file` is for the error.
    fn pair(
        instance: Instance,
        best_known: BestKnown,
        routes_file: &Path,
    ) -> Result<Self, ImportError> {
        let name = &instance.name;
        let error = |line, reason| ImportError {
            file: routes_file.to_owned(),
            line: Some(line),
            reason,
        };
        let customers: HashMap<u32, &Customer> = instance
            .customers
            .iter()
            .map(|customer| (customer.id, customer))
            .collect();
        let mut routes = Vec::with_capacity(best_known.routes.len());
        let mut line_of_visit = HashMap::new();

        for (line, route) in (best_known.line + 1..).zip(&best_known.routes) {
            let mut stops = Vec::with_capacity(route.len());
            for id in route {
                let Some(&customer) = customers.get(id) else {
                    let reason = format!("expected a customer of instance {name}, found {id}");
                    return Err(error(line, reason));
                };
                // Twice on the same route is for the plan to refuse; on two routes, each plan by
                // itself looks right, so nobody else would see it.
                match line_of_visit.insert(id, line) {
                    Some(first) if first != line => {
                        let reason = format!(
                            "expected each customer of instance {name} on one route, \
                             found {id} on the route of line {first} also"
                        );
                        return Err(error(line, reason));
                    }
                    _ => stops.push(Stop::from(customer)),
                }
            }
            routes.push(stops);
        }

        let on_a_route = |customer: &&Customer| line_of_visit.contains_key(&customer.id);
        if let Some(left_out) = instance.customers.iter().find(|one| !on_a_route(one)) {
            let reason = format!(
                "expected each customer of instance {name} on one route, found {} on none",
                left_out.id
            );
            return Err(error(best_known.line, reason));
        }
        Ok(Self {
            instance,
            best_known,
            routes,
        })
    }
}

/// A routing problem: one depot, its vehicles, and the customers to visit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Instance {
    /// Name of the file without its ending, such as `0025_R101`.
    pub(crate) name: String,
    /// What each vehicle carries.
    pub(crate) capacity: u32,
    /// Where the vehicles start and end; its id, demand and service are 0.
    pub(crate) depot: Customer,
    /// The customers, in the order of the file, without the depot.
    pub(crate) customers: Vec<Customer>,
}

impl Instance {
    /// Reads an instance, which is named after its file.
    ///
    /// # Errors
    ///
    /// An [`ImportError`] if the file cannot be read or is malformed.
    pub(crate) fn read(path: &Path) -> Result<Self, ImportError> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&name, path, &read_text(path)?)
    }

    /// Parses the text of an instance; `path` is for the error.
    ///
    /// # Errors
    ///
    /// An [`ImportError`] with the line, if the text is malformed.
    pub(crate) fn parse(name: &str, path: &Path, text: &str) -> Result<Self, ImportError> {
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
        let depot = Customer::parse(row)?;
        if depot.id != 0 {
            return Err(row.error(format!("expected the depot, id 0, found id {}", depot.id)));
        }
        if depot.demand != 0 || depot.service != 0.0 {
            return Err(row.error(format!(
                "expected a depot with demand 0 and service 0, found {} and {}",
                depot.demand, depot.service
            )));
        }

        let mut customers = Vec::new();
        let mut line_of_id = HashMap::from([(depot.id, row.number)]);
        for row in &lines[3..] {
            let customer = Customer::parse(row)?;
            if let Some(first) = line_of_id.insert(customer.id, row.number) {
                return Err(row.error(format!(
                    "expected an id of its own, found {}, which line {first} has",
                    customer.id
                )));
            }
            customers.push(customer);
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

/// Somebody to visit; the depot has the same columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Customer {
    /// Unique within the instance; 0 is the depot.
    pub(crate) id: u32,
    /// East–west position.
    pub(crate) x: f64,
    /// North–south position.
    pub(crate) y: f64,
    /// What the customer's goods take of a vehicle's capacity.
    pub(crate) demand: u32,
    /// When the window opens.
    pub(crate) ready: f64,
    /// When the window closes, not before it opens.
    pub(crate) due: f64,
    /// How long a visit takes, not negative.
    pub(crate) service: f64,
}

impl Customer {
    /// Parses the row of a customer or of the depot.
    fn parse(row: &Line<'_>) -> Result<Self, ImportError> {
        let [id, x, y, demand, ready, due, service] = row.columns(CUSTOMER_COLUMNS)?;
        let customer = Self {
            id: row.whole("id", id)?,
            x: row.finite("x", x)?,
            y: row.finite("y", y)?,
            demand: row.whole("demand", demand)?,
            ready: row.finite("ready", ready)?,
            due: row.finite("due", due)?,
            service: row.not_negative("service", service)?,
        };
        if customer.due < customer.ready {
            return Err(row.error(format!(
                "expected due, a time not before ready {ready}, found {due:?}"
            )));
        }
        Ok(customer)
    }
}

impl From<&Customer> for Stop {
    fn from(customer: &Customer) -> Self {
        Self {
            customer: customer.id,
            x: customer.x,
            y: customer.y,
            demand: customer.demand,
            ready: customer.ready,
            due: customer.due,
            service: customer.service,
        }
    }
}

impl From<&Customer> for Depot {
    /// Leaves out what a depot has not: an id, a demand, a service time.
    fn from(customer: &Customer) -> Self {
        Self {
            x: customer.x,
            y: customer.y,
            ready: customer.ready,
            due: customer.due,
        }
    }
}

/// The best routes that are known for an instance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BestKnown {
    /// Name of the instance.
    pub(crate) instance: String,
    /// Number of routes, each a vehicle's.
    pub(crate) vehicles: usize,
    /// Sum of the distances of all routes, rounded as the file has it.
    pub(crate) distance: f64,
    /// How many nodes the search visited that found the routes; says nothing about them.
    pub(crate) nodes: u64,
    /// Customers of each route, in the order of their visits.
    pub(crate) routes: Vec<Vec<u32>>,
    /// Line of the header, counted from 1; the routes are on the lines that follow it.
    pub(crate) line: usize,
}

/// Readers of the file of best-known routes.
pub(crate) mod best_known {
    use super::*;

    /// Reads a file of best-known routes, in its order.
    ///
    /// # Errors
    ///
    /// An [`ImportError`] if the file cannot be read or is malformed.
    pub(crate) fn read(path: &Path) -> Result<Vec<BestKnown>, ImportError> {
        parse(path, &read_text(path)?)
    }

    /// Parses the text of a file of best-known routes; `path` is for the error.
    ///
    /// # Errors
    ///
    /// An [`ImportError`] with the line, if the text is malformed.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<BestKnown>, ImportError> {
        let lines = lines(path, text);
        let mut all: Vec<BestKnown> = Vec::new();
        for block in lines.split(Line::is_blank) {
            // Two blank lines in a row leave an empty block between them.
            let [header, routes @ ..] = block else {
                continue;
            };
            let next = parse_block(header, routes)?;
            if let Some(first) = all.iter().find(|one| one.instance == next.instance) {
                return Err(header.error(format!(
                    "expected each instance once, found {:?}, which line {} has",
                    next.instance, first.line
                )));
            }
            all.push(next);
        }
        if all.is_empty() {
            return Err(missing_line(path, &lines, "a header"));
        }
        Ok(all)
    }

    /// Parses the header of an instance and the routes that follow it.
    fn parse_block(header: &Line<'_>, routes: &[Line<'_>]) -> Result<BestKnown, ImportError> {
        let [instance, vehicles, distance, nodes] = header.columns(BEST_KNOWN_COLUMNS)?;
        let best_known = BestKnown {
            instance: instance.to_owned(),
            vehicles: header.whole("vehicles", vehicles)?,
            distance: header.not_negative("distance", distance)?,
            nodes: header.whole("nodes", nodes)?,
            routes: routes.iter().map(parse_route).collect::<Result<_, _>>()?,
            line: header.number,
        };
        if best_known.routes.len() != best_known.vehicles {
            return Err(header.error(format!(
                "expected {vehicles} routes, one for each vehicle, found {}",
                best_known.routes.len()
            )));
        }
        Ok(best_known)
    }

    /// Parses a route.
    ///
    /// A route without customers is well-formed: refusing it is for the plan.
    fn parse_route(line: &Line<'_>) -> Result<Vec<u32>, ImportError> {
        let mut columns = line.text.split_whitespace();
        let count = columns.next().unwrap_or_default();
        let count: usize = line.whole("the number of stops", count)?;
        let route = columns
            .map(|id| line.whole("a customer's id", id))
            .collect::<Result<Vec<u32>, _>>()?;
        if route.len() != count {
            return Err(line.error(format!(
                "expected {count} stops on this route, found {}",
                route.len()
            )));
        }
        Ok(route)
    }
}

/// Why a file was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", place(file, *line))]
pub(crate) struct ImportError {
    /// The file, or the folder.
    pub(crate) file: PathBuf,
    /// The line, counted from 1; none if the matter is with the file as a whole.
    pub(crate) line: Option<usize>,
    /// What was expected, and what was found.
    pub(crate) reason: String,
}

/// Where an error is, in the form that editors and terminals make a link of.
fn place(file: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}:{line}", file.display()),
        None => file.display().to_string(),
    }
}

/// Reads a file that must be UTF-8.
fn read_text(path: &Path) -> Result<String, ImportError> {
    let error = |line, reason| ImportError {
        file: path.to_owned(),
        line,
        reason,
    };
    let bytes = fs::read(path).map_err(|cause| error(None, format!("cannot read: {cause}")))?;
    String::from_utf8(bytes).map_err(|cause| {
        let valid_up_to = cause.utf8_error().valid_up_to();
        let (before, after) = cause.as_bytes().split_at(valid_up_to);
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        let found = after.first().copied().unwrap_or_default();
        error(
            Some(line),
            format!("expected UTF-8 text, found the byte 0x{found:02X}"),
        )
    })
}

/// The lines of a text, without the blank ones at its end.
fn lines<'a>(file: &'a Path, text: &'a str) -> Vec<Line<'a>> {
    text.trim_end()
        .lines()
        .zip(1..)
        .map(|(text, number)| Line { file, number, text })
        .collect()
}

/// The error for a text that ends where `what` should stand.
fn missing_line(file: &Path, lines: &[Line<'_>], what: &str) -> ImportError {
    ImportError {
        file: file.to_owned(),
        line: Some(lines.len() + 1),
        reason: format!("expected {what}, found the end of the file"),
    }
}

/// A line of a file, and the parsers of its columns.
struct Line<'a> {
    /// The file, for errors.
    file: &'a Path,
    /// Counted from 1.
    number: usize,
    /// Without the line end.
    text: &'a str,
}

impl<'a> Line<'a> {
    /// The error that this line is refused with.
    fn error(&self, reason: String) -> ImportError {
        ImportError {
            file: self.file.to_owned(),
            line: Some(self.number),
            reason,
        }
    }

    /// Whether there is nothing but tabs and spaces.
    fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// Splits at tabs and spaces into exactly the columns of these names.
    fn columns<const N: usize>(&self, names: [&str; N]) -> Result<[&'a str; N], ImportError> {
        let columns: Vec<&str> = self.text.split_whitespace().collect();
        columns.try_into().map_err(|columns: Vec<&str>| {
            self.error(format!(
                "columns: expected {N} ({}), found {}",
                names.join(", "),
                columns.len()
            ))
        })
    }

    /// Parses a whole number of 0 or more; `what` names it in the error.
    fn whole<T: FromStr<Err = ParseIntError>>(
        &self,
        what: &str,
        column: &str,
    ) -> Result<T, ImportError> {
        column.parse().map_err(|error: ParseIntError| {
            let remark = match error.kind() {
                IntErrorKind::PosOverflow => ", which is too large",
                _ => "",
            };
            self.error(format!(
                "expected {what}, a whole number of 0 or more, found {column:?}{remark}"
            ))
        })
    }

    /// Parses a number that is neither NaN nor infinite, both of which `f64` would accept.
    fn finite(&self, what: &str, column: &str) -> Result<f64, ImportError> {
        match column.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(self.error(format!(
                "expected {what}, a finite number, found {column:?}"
            ))),
        }
    }

    /// Parses a finite number of 0 or more.
    fn not_negative(&self, what: &str, column: &str) -> Result<f64, ImportError> {
        match self.finite(what, column)? {
            number if number < 0.0 => Err(self.error(format!(
                "expected {what}, a number of 0 or more, found {column:?}"
            ))),
            number => Ok(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs::write;

    use tempfile::TempDir;

    const SMALL: &str = "\
        20\n\
        3\n\
        0\t0\t0\t0\t0\t100\t0\n\
        1\t3\t4\t10\t0\t50\t5\n\
        2\t-6\t8.5\t10\t10\t60\t5\n\
        3\t0\t10\t20\t0\t90\t0\n";

    const ROUTES: &str = "0025_S1  2  45.5  7\n2    1 2\n1    3\n";

    fn parse(text: &str) -> Result<Instance, ImportError> {
        Instance::parse("0025_S1", Path::new("dir/0025_S1.txt"), text)
    }

    /// The error of `SMALL` after one replacement.
    fn refusal(from: &str, to: &str) -> String {
        assert!(SMALL.contains(from), "the text has no {from:?}");
        parse(&SMALL.replacen(from, to, 1)).unwrap_err().to_string()
    }

    fn parse_routes(text: &str) -> Result<Vec<BestKnown>, ImportError> {
        best_known::parse(Path::new("routes.txt"), text)
    }

    fn routes_refusal(text: &str) -> String {
        parse_routes(text).unwrap_err().to_string()
    }

    /// A folder of these files.
    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for (name, text) in files {
            write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    /// The error of reading a folder, with the folder's own path left out.
    fn folder_refusal(files: &[(&str, &str)]) -> String {
        let folder = folder(files);
        let error = read_folder(folder.path()).unwrap_err().to_string();
        let path = folder.path().display().to_string();
        error.strip_prefix(&path).unwrap().to_owned()
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
            Customer {
                id: 2,
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

        let expected = parse_routes(ROUTES).unwrap();
        assert_eq!(
            parse_routes(&ROUTES.replace('\n', "\r\n")).unwrap(),
            expected
        );
        assert_eq!(parse_routes(&format!("{ROUTES}\n\n")).unwrap(), expected);
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

    #[test]
    fn best_known_routes_are_read_in_full() {
        let text = format!("{ROUTES}\n\n0025_S2 1 0 0\n1 5\n");
        let best_known = parse_routes(&text).unwrap();
        assert_eq!(
            best_known[0],
            BestKnown {
                instance: "0025_S1".to_owned(),
                vehicles: 2,
                distance: 45.5,
                nodes: 7,
                routes: vec![vec![1, 2], vec![3]],
                line: 1,
            }
        );
        assert_eq!(best_known[1].instance, "0025_S2");
        assert_eq!(best_known[1].routes, [[5]]);
        assert_eq!(best_known[1].line, 6);
        assert_eq!(best_known.len(), 2);
    }

    #[test]
    fn a_route_without_stops_is_left_to_the_plan() {
        let best_known = parse_routes("0025_S1 1 0 0\n0\n").unwrap();
        assert_eq!(best_known[0].routes, [Vec::<u32>::new()]);
    }

    #[test]
    fn malformed_best_known_routes_are_refused() {
        let expected = [
            ("", "1: expected a header, found the end of the file"),
            (
                "0025_S1 2 45.5\n",
                "1: columns: expected 4 (name, vehicles, distance, nodes), found 3",
            ),
            (
                "0025_S1 2 45.5 7 8\n",
                "1: columns: expected 4 (name, vehicles, distance, nodes), found 5",
            ),
            (
                "0025_S1 two 45.5 7\n",
                "1: expected vehicles, a whole number of 0 or more, found \"two\"",
            ),
            (
                "0025_S1 2 nan 7\n",
                "1: expected distance, a finite number, found \"nan\"",
            ),
            (
                "0025_S1 2 -1 7\n",
                "1: expected distance, a number of 0 or more, found \"-1\"",
            ),
            (
                "0025_S1 2 45.5 7.5\n",
                "1: expected nodes, a whole number of 0 or more, found \"7.5\"",
            ),
            (
                "0025_S1 3 45.5 7\n2 1 2\n1 3\n",
                "1: expected 3 routes, one for each vehicle, found 2",
            ),
            (
                "0025_S1 1 45.5 7\n2 1 2\n1 3\n",
                "1: expected 1 routes, one for each vehicle, found 2",
            ),
            (
                "0025_S1 2 45.5 7\n2 1 2\n2 3\n",
                "3: expected 2 stops on this route, found 1",
            ),
            (
                "0025_S1 2 45.5 7\n2 1 x\n1 3\n",
                "2: expected a customer's id, a whole number of 0 or more, found \"x\"",
            ),
            (
                "0025_S1 1 45.5 7\n1 3\n0025_S2 1 45.5 7\n1 3\n",
                "3: expected the number of stops, a whole number of 0 or more, found \"0025_S2\"",
            ),
            (
                "0025_S1 1 45.5 7\n1 3\n\n0025_S1 1 45.5 7\n1 3\n",
                "4: expected each instance once, found \"0025_S1\", which line 1 has",
            ),
        ];
        for (text, error) in expected {
            assert_eq!(routes_refusal(text), format!("routes.txt:{error}"));
        }
    }

    #[test]
    fn a_folder_is_paired_and_sorted_and_the_rest_left_alone() {
        let routes = format!("0025_S2 1 40 1\n3 3 2 1\n\n0025_S1-b 1 40 1\n3 1 2 3\n\n{ROUTES}");
        let folder = folder(&[
            ("0025_S2.txt", SMALL),
            ("0025_S1.txt", SMALL),
            ("0025_S1-b.txt", SMALL),
            ("0025_S3.bak", "not read"),
            ("0100_S1.txt", "not read"),
            (BEST_KNOWN_FILE, &routes),
        ]);
        let solved = read_folder(folder.path()).unwrap();
        let names: Vec<&str> = solved
            .iter()
            .map(|one| one.instance.name.as_str())
            .collect();
        assert_eq!(names, ["0025_S1", "0025_S1-b", "0025_S2"]);

        let [first, _, second] = &solved[..] else {
            unreachable!()
        };
        assert_eq!(first.best_known.instance, "0025_S1");
        assert_eq!(first.routes[1], [Stop::from(&first.instance.customers[2])]);
        let order: Vec<u32> = second.routes[0].iter().map(|stop| stop.customer).collect();
        assert_eq!(order, [3, 2, 1]);
        assert_eq!(Depot::from(&first.instance.depot).due, 100.0);
    }

    #[test]
    fn a_folder_must_exist_and_hold_instances_and_routes() {
        let parent = TempDir::new().unwrap();
        let error = read_folder(&parent.path().join("absent")).unwrap_err();
        assert_eq!(error.line, None);
        assert_eq!(error.file, parent.path().join("absent"));
        assert!(
            error
                .reason
                .starts_with("cannot list the folder of instances: ")
        );

        assert_eq!(
            folder_refusal(&[(BEST_KNOWN_FILE, ROUTES)]),
            ": expected instances named 0025_*.txt, found none"
        );
        let error = folder_refusal(&[("0025_S1.txt", SMALL)]);
        assert!(
            error.starts_with("/best_known_25.txt: cannot read: "),
            "{error}"
        );
    }

    #[test]
    fn instances_and_routes_must_match() {
        assert_eq!(
            folder_refusal(&[
                ("0025_S1.txt", SMALL),
                ("0025_S2.txt", SMALL),
                (BEST_KNOWN_FILE, ROUTES),
            ]),
            "/best_known_25.txt: expected routes for instance 0025_S2, found none"
        );
        let orphans = format!("{ROUTES}\n0025_S9 0 0 0\n\n0025_S8 0 0 0\n");
        assert_eq!(
            folder_refusal(&[("0025_S1.txt", SMALL), (BEST_KNOWN_FILE, &orphans)]),
            "/best_known_25.txt:5: routes for instance \"0025_S9\": \
             expected its file \"0025_S9.txt\" in the same folder, found none"
        );
    }

    #[test]
    fn routes_visit_the_customers_of_their_instance() {
        let refusal = |routes| folder_refusal(&[("0025_S1.txt", SMALL), (BEST_KNOWN_FILE, routes)]);
        assert_eq!(
            refusal("0025_S1 2 45.5 7\n2 1 2\n2 3 4\n"),
            "/best_known_25.txt:3: expected a customer of instance 0025_S1, found 4"
        );
        assert_eq!(
            refusal("0025_S1 2 45.5 7\n2 1 2\n2 3 0\n"),
            "/best_known_25.txt:3: expected a customer of instance 0025_S1, found 0"
        );
        assert_eq!(
            refusal("0025_S1 2 45.5 7\n2 1 2\n2 3 1\n"),
            "/best_known_25.txt:3: expected each customer of instance 0025_S1 on one route, \
             found 1 on the route of line 2 also"
        );
        assert_eq!(
            refusal("0025_S1 1 45.5 7\n2 1 2\n"),
            "/best_known_25.txt:1: expected each customer of instance 0025_S1 on one route, \
             found 3 on none"
        );
    }

    #[test]
    fn a_customer_twice_on_one_route_is_left_to_the_plan() {
        let folder = folder(&[
            ("0025_S1.txt", SMALL),
            (BEST_KNOWN_FILE, "0025_S1 1 45.5 7\n4 1 2 3 1\n"),
        ]);
        let solved = read_folder(folder.path()).unwrap();
        assert_eq!(solved[0].routes[0].len(), 4);
    }

    #[test]
    fn what_is_not_utf_8_is_refused_with_its_line() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("0025_S1.txt");
        write(&file, b"20\n3\n0\t\xFF\t0\n").unwrap();
        assert_eq!(
            Instance::read(&file).unwrap_err(),
            ImportError {
                file,
                line: Some(3),
                reason: "expected UTF-8 text, found the byte 0xFF".to_owned(),
            }
        );
    }
}
