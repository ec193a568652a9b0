//! Compares the read model with the files that it came from.

use anyhow::ensure;

use crate::day;
use crate::files::Solved;
use crate::read_model::RoutePlanRow;
use crate::table::Total;

/// The files round distances to three decimals.
const ROUNDING: f64 = 0.000_5 + 1e-9;

/// Checks that the plans of an instance are all there, add up to what its files say, and stand
/// where the day should have brought them; `rows` are those of its tenant.
///
/// # Errors
///
/// What was expected and what was found.
pub(crate) fn instance(solved: &Solved, rows: &[RoutePlanRow]) -> anyhow::Result<Total> {
    let name = &solved.instance.name;
    let of_instance = || rows.iter().filter(|row| row.instance == *name);

    let found = Total::of(of_instance());
    let plans = solved.routes.len();
    ensure!(
        found.plans == plans,
        "{name}: expected {plans} plans in the list, found {}",
        found.plans
    );
    let stops = solved.instance.customers.len() as u64;
    ensure!(
        found.stops == stops,
        "{name}: expected {stops} stops in the list, found {}",
        found.stops
    );
    let distance = solved.distance;
    ensure!(
        (found.distance - distance).abs() <= ROUNDING,
        "{name}: expected a distance of {distance} in the list, found {:.3}",
        found.distance
    );
    for row in of_instance() {
        let goal = day::goal(row.id);
        ensure!(
            row.status == goal,
            "{name}, route {}: expected the plan to be {goal}, found {}",
            row.route,
            row.status
        );
    }
    Ok(found)
}
