//! The file of best-known routes.

use std::path::Path;

use super::error::ImportError;
use super::text::{Line, lines, missing_line, read_text};

/// Columns of the header of an instance's best-known routes.
const COLUMNS: [&str; 4] = ["name", "vehicles", "distance", "nodes"];

/// The best routes that are known for an instance.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BestKnown {
    /// Name of the instance.
    pub(super) instance: String,
    /// Sum of the distances of all routes, rounded as the file has it.
    pub(super) distance: f64,
    /// Customers of each route, in the order of their visits.
    pub(super) routes: Vec<Vec<u32>>,
    /// Line of the header, counted from 1; the routes are on the lines that follow it.
    pub(super) line: usize,
}

/// Reads a file of best-known routes, in its order.
///
/// # Errors
///
/// An [`ImportError`] if the file cannot be read or is malformed.
pub(super) fn read(path: &Path) -> Result<Vec<BestKnown>, ImportError> {
    parse(path, &read_text(path)?)
}

/// Parses the text of a file of best-known routes; `path` is for the error.
fn parse(path: &Path, text: &str) -> Result<Vec<BestKnown>, ImportError> {
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
    let [instance, vehicles, distance, _nodes] = header.columns(COLUMNS)?;
    let vehicles: usize = header.whole("vehicles", vehicles)?;
    let best_known = BestKnown {
        instance: instance.to_owned(),
        distance: header.not_negative("distance", distance)?,
        routes: routes.iter().map(parse_route).collect::<Result<_, _>>()?,
        line: header.number,
    };
    if best_known.routes.len() != vehicles {
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

#[cfg(test)]
mod tests {
    use super::super::fixture::ROUTES;
    use super::*;

    fn parse_routes(text: &str) -> Result<Vec<BestKnown>, ImportError> {
        parse(Path::new("routes.txt"), text)
    }

    fn routes_refusal(text: &str) -> String {
        parse_routes(text).unwrap_err().to_string()
    }

    #[test]
    fn best_known_routes_are_read_in_full() {
        let text = format!("{ROUTES}\n\n0025_S2 1 0 0\n1 5\n");
        let best_known = parse_routes(&text).unwrap();
        assert_eq!(
            best_known[0],
            BestKnown {
                instance: "0025_S1".to_owned(),
                distance: 45.5,
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
    fn line_ends_and_blank_lines_at_the_end_do_not_matter() {
        let expected = parse_routes(ROUTES).unwrap();
        assert_eq!(
            parse_routes(&ROUTES.replace('\n', "\r\n")).unwrap(),
            expected
        );
        assert_eq!(parse_routes(&format!("{ROUTES}\n\n")).unwrap(), expected);
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
}
