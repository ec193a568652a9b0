//! The rules of a route: capacity, time windows, and the way back to the depot.
//!
//! A vehicle leaves the depot when it opens, visits its stops in the given order and returns.
//! Between two points it travels in a straight line at one unit of distance per unit of time.
//! At a stop it waits until the window opens, then serves; it must arrive by
//! the time the window closes.
//! These are the rules of the vehicle routing problem with time windows in M. M. Solomon,
//! "Algorithms for the Vehicle Routing and Scheduling Problems with Time Window Constraints",
//! Operations Research 35 (1987); distance, time and load have no units there, and none here.
//!
//! Nothing here knows of files or of a store: a plan calls [`Schedule::check`] before it accepts a
//! route, and keeps what comes back.

use std::collections::HashMap;

use cqrs_core::ValueObject;
use serde::{Deserialize, Serialize};

use crate::violation::{Place, StopPlace, Violation};

/// How far past a closing time an arrival still counts as on time, in units of time.
///
/// A route may be planned to arrive exactly when a window closes.
/// An arrival is a sum of square roots, and each addition rounds: after a hundred legs at times
/// around a thousand the error stays below `1e-10`, yet an exact comparison would refuse the route
/// over it.
/// `1e-9` is ten times that error, and far below the resolution of any window.
/// It does not grow with the figures: where times exceed about `1e7`, neighbouring `f64`s are
/// further apart than this, and the comparison is exact.
const TOLERANCE: f64 = 1e-9;

/// Where every vehicle starts and ends, and when it is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ValueObject)]
pub(crate) struct Depot {
    /// East–west position.
    pub(crate) x: f64,
    /// North–south position.
    pub(crate) y: f64,
    /// When vehicles may leave.
    pub(crate) ready: f64,
    /// When the last vehicle must be back.
    pub(crate) due: f64,
}

/// One visit of a route: who, where, how much, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stop {
    /// Whom the vehicle visits; unique within a route.
    pub(crate) customer: u32,
    /// East–west position.
    pub(crate) x: f64,
    /// North–south position.
    pub(crate) y: f64,
    /// What the customer's goods take of the vehicle's capacity.
    pub(crate) demand: u32,
    /// When the window opens: service never begins before.
    pub(crate) ready: f64,
    /// When the window closes: the vehicle must have arrived, though service may end later.
    pub(crate) due: f64,
    /// How long the visit takes once it has begun.
    pub(crate) service: f64,
}

/// The times of a feasible route, as [`Schedule::check`] finds them; all figures are finite.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schedule {
    /// Length of the whole tour, with the legs from and to the depot.
    pub(crate) distance: f64,
    /// Sum of the demands, never above the capacity.
    pub(crate) load: u32,
    /// When the vehicle arrives at each stop, in the order of the stops, before any wait.
    pub(crate) arrivals: Vec<f64>,
    /// When the vehicle is back at the depot.
    pub(crate) finished_at: f64,
}

impl Schedule {
    /// Drives the route on paper and returns its times, or the first rule that it breaks.
    ///
    /// Rules are checked stop by stop, so the violation names the earliest stop at which the route
    /// goes wrong: for capacity, the one at which the load first exceeds it.
    ///
    /// # Errors
    ///
    /// A [`Violation`] if the route is empty, a figure is not finite, a window closes before it
    /// opens, a service time is negative, a customer comes twice, the load exceeds `capacity`, or
    /// the vehicle arrives at a stop or at the depot after it closed.
    pub(crate) fn check(depot: &Depot, capacity: u32, stops: &[Stop]) -> Result<Self, Violation> {
        depot.check()?;
        let Some(last) = stops.last() else {
            return Err(Violation::Empty);
        };

        let mut visited = HashMap::new();
        let mut load = 0;
        let mut distance = 0.0;
        let mut arrivals = Vec::with_capacity(stops.len());
        let mut here = (depot.x, depot.y);
        let mut free_at = depot.ready;

        for (position, stop) in (1..).zip(stops) {
            let at = stop.at(position);
            stop.check(at)?;
            if let Some(first) = visited.insert(stop.customer, position) {
                return Err(Violation::VisitedTwice { at, first });
            }
            load = add_load(load, capacity, stop, at)?;

            let leg = travel(here, (stop.x, stop.y));
            let arrival = free_at + leg;
            if is_late(arrival, stop.due) {
                let due = stop.due;
                return Err(Violation::Late { at, arrival, due });
            }
            distance += leg;
            arrivals.push(arrival);
            here = (stop.x, stop.y);
            free_at = arrival.max(stop.ready) + stop.service;
        }

        let leg = travel(here, (depot.x, depot.y));
        let finished_at = free_at + leg;
        if is_late(finished_at, depot.due) {
            return Err(Violation::LateReturn {
                after: last.at(stops.len()),
                arrival: finished_at,
                due: depot.due,
            });
        }
        Ok(Self {
            distance: distance + leg,
            load,
            arrivals,
            finished_at,
        })
    }
}

impl Depot {
    /// Refuses figures that would make every later comparison meaningless.
    fn check(&self) -> Result<(), Violation> {
        let place = Place::Depot;
        check_finite(place, [("x", self.x), ("y", self.y)])?;
        check_window(place, self.ready, self.due)
    }
}

impl Stop {
    /// Names this stop as the one at `position`, counted from 1.
    fn at(&self, position: usize) -> StopPlace {
        StopPlace {
            position,
            customer: self.customer,
        }
    }

    /// Refuses figures that would make every later comparison meaningless.
    fn check(&self, at: StopPlace) -> Result<(), Violation> {
        let place = Place::Stop(at);
        check_finite(
            place,
            [("x", self.x), ("y", self.y), ("service", self.service)],
        )?;
        check_window(place, self.ready, self.due)?;
        if self.service < 0.0 {
            let service = self.service;
            return Err(Violation::NegativeService { at, service });
        }
        Ok(())
    }
}

/// Refuses the first of these named figures that is NaN or infinite.
fn check_finite<const N: usize>(
    place: Place,
    figures: [(&'static str, f64); N],
) -> Result<(), Violation> {
    match figures.into_iter().find(|(_, value)| !value.is_finite()) {
        Some((field, value)) => Err(Violation::NotFinite {
            place,
            field,
            value,
        }),
        None => Ok(()),
    }
}

/// Refuses a window that is not one: NaN, infinite, or reversed.
fn check_window(place: Place, ready: f64, due: f64) -> Result<(), Violation> {
    check_finite(place, [("ready", ready), ("due", due)])?;
    if due < ready {
        return Err(Violation::WindowReversed { place, ready, due });
    }
    Ok(())
}

/// The load with `stop` on board, computed wide so that it cannot wrap round to one that fits.
fn add_load(load: u32, capacity: u32, stop: &Stop, at: StopPlace) -> Result<u32, Violation> {
    let sum = u64::from(load) + u64::from(stop.demand);
    match u32::try_from(sum) {
        Ok(load) if load <= capacity => Ok(load),
        _ => Err(Violation::OverCapacity {
            at,
            load: sum,
            capacity,
        }),
    }
}

/// Straight-line distance, which is also the travel time.
///
/// Not `f64::hypot`: its last digit may differ between platforms, while a square root is exactly
/// specified, so that every machine comes to the same verdict on a route.
/// Coordinates beyond `1e154` overflow to an infinite distance, which is late at any window.
fn travel(from: (f64, f64), to: (f64, f64)) -> f64 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    (dx * dx + dy * dy).sqrt()
}

/// Whether `arrival` is after `due` by more than rounding.
fn is_late(arrival: f64, due: f64) -> bool {
    arrival > due + TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reaches one figure of a `T`, so that a test can break it.
    type Figure<T> = fn(&mut T) -> &mut f64;

    fn depot() -> Depot {
        Depot {
            x: 0.0,
            y: 0.0,
            ready: 0.0,
            due: 100.0,
        }
    }

    /// A stop `x` east of the depot, open all day, with a demand of 1 and no service time.
    fn stop(customer: u32, x: f64) -> Stop {
        Stop {
            customer,
            x,
            y: 0.0,
            demand: 1,
            ready: 0.0,
            due: 100.0,
            service: 0.0,
        }
    }

    fn check(stops: &[Stop]) -> Result<Schedule, Violation> {
        Schedule::check(&depot(), 10, stops)
    }

    fn refusal(stops: &[Stop]) -> String {
        check(stops).unwrap_err().to_string()
    }

    #[test]
    fn a_route_is_driven_with_waits_and_services() {
        let mut near = stop(1, 3.0);
        near.y = 4.0;
        near.ready = 20.0;
        near.service = 2.5;
        near.demand = 4;
        let mut far = stop(2, 6.0);
        far.y = 8.0;
        far.service = 1.0;
        far.demand = 3;

        // 5 out, wait until 20, serve until 22.5, 5 on, serve until 28.5, 10 back.
        assert_eq!(
            check(&[near, far]).unwrap(),
            Schedule {
                distance: 20.0,
                load: 7,
                arrivals: vec![5.0, 27.5],
                finished_at: 38.5,
            }
        );
    }

    #[test]
    fn vehicles_leave_when_the_depot_opens() {
        let late_riser = Depot {
            ready: 40.0,
            ..depot()
        };
        let schedule = Schedule::check(&late_riser, 10, &[stop(1, 5.0)]).unwrap();
        assert_eq!(schedule.arrivals, [45.0]);
        assert_eq!(schedule.finished_at, 50.0);
        assert_eq!(schedule.distance, 10.0);
    }

    #[test]
    fn an_empty_route_is_refused() {
        assert_eq!(refusal(&[]), "the route has no stops");
    }

    #[test]
    fn arriving_exactly_at_closing_time_is_on_time() {
        let mut exact = stop(1, 30.0);
        exact.due = 30.0;
        assert_eq!(check(&[exact]).unwrap().arrivals, [30.0]);
    }

    #[test]
    fn a_rounding_error_is_not_lateness_but_a_millionth_is() {
        let mut rounded = stop(1, 30.0);
        rounded.due = 30.0 - 5e-10;
        assert!(check(&[rounded.clone()]).is_ok());

        rounded.due = 30.0 - 1e-6;
        assert_eq!(
            refusal(&[rounded]),
            "stop 1 (customer 1): arrives at 30.0, its window closed at 29.999999"
        );
    }

    #[test]
    fn lateness_names_the_stop_and_both_times() {
        let mut first = stop(4, 30.0);
        first.service = 13.25;
        let mut closed = stop(17, 60.0);
        closed.due = 70.0;
        assert_eq!(
            refusal(&[first, closed, stop(5, 61.0)]),
            "stop 2 (customer 17): arrives at 73.2, its window closed at 70"
        );
    }

    #[test]
    fn a_narrow_miss_is_shown_with_enough_decimals() {
        let mut narrow = stop(1, 30.000_04);
        narrow.due = 30.0;
        assert_eq!(
            refusal(&[narrow]),
            "stop 1 (customer 1): arrives at 30.00004, its window closed at 30"
        );
    }

    #[test]
    fn returning_exactly_when_the_depot_closes_is_on_time() {
        assert_eq!(check(&[stop(1, 50.0)]).unwrap().finished_at, 100.0);
    }

    #[test]
    fn returning_after_the_depot_closed_is_refused() {
        assert_eq!(
            refusal(&[stop(3, 10.0), stop(9, 50.5)]),
            "depot: returns at 101.0 from stop 2 (customer 9), it closed at 100"
        );
    }

    #[test]
    fn a_load_of_exactly_the_capacity_fits() {
        let mut heavy = stop(1, 1.0);
        heavy.demand = 9;
        assert_eq!(check(&[heavy, stop(2, 2.0)]).unwrap().load, 10);
    }

    #[test]
    fn overload_names_the_stop_that_no_longer_fits() {
        let mut heavy = stop(1, 1.0);
        heavy.demand = 9;
        assert_eq!(
            refusal(&[heavy, stop(2, 2.0), stop(7, 3.0), stop(8, 4.0)]),
            "stop 3 (customer 7): brings the load to 11, the vehicle carries 10"
        );
    }

    #[test]
    fn an_enormous_load_does_not_wrap_round() {
        let heavy = |customer| Stop {
            demand: u32::MAX,
            ..stop(customer, 1.0)
        };
        let stops = [heavy(1), heavy(2)];
        assert_eq!(
            Schedule::check(&depot(), u32::MAX, &stops),
            Err(Violation::OverCapacity {
                at: stops[1].at(2),
                load: 2 * u64::from(u32::MAX),
                capacity: u32::MAX,
            })
        );
        assert_eq!(
            Schedule::check(&depot(), u32::MAX, &stops[..1])
                .unwrap()
                .load,
            u32::MAX
        );
    }

    #[test]
    fn a_vehicle_without_capacity_carries_only_what_weighs_nothing() {
        let mut weightless = stop(1, 1.0);
        assert!(Schedule::check(&depot(), 0, &[weightless.clone()]).is_err());
        weightless.demand = 0;
        assert!(Schedule::check(&depot(), 0, &[weightless]).is_ok());
    }

    #[test]
    fn a_customer_is_visited_once() {
        assert_eq!(
            refusal(&[stop(1, 1.0), stop(7, 2.0), stop(3, 3.0), stop(7, 2.0)]),
            "stop 4 (customer 7): the route visits this customer at stop 2 already"
        );
    }

    #[test]
    fn the_earliest_stop_that_goes_wrong_is_named() {
        let mut closed = stop(2, 20.0);
        closed.due = 10.0;
        let mut heavy = stop(3, 21.0);
        heavy.demand = 50;
        assert!(
            refusal(&[stop(1, 1.0), closed, heavy]).starts_with("stop 2 (customer 2): arrives")
        );
    }

    #[test]
    fn every_figure_of_a_stop_must_be_finite() {
        let fields: [(&str, Figure<Stop>); 5] = [
            ("x", |stop| &mut stop.x),
            ("y", |stop| &mut stop.y),
            ("ready", |stop| &mut stop.ready),
            ("due", |stop| &mut stop.due),
            ("service", |stop| &mut stop.service),
        ];
        for (name, field) in fields {
            for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let mut broken = stop(7, 2.0);
                *field(&mut broken) = value;
                assert_eq!(
                    refusal(&[stop(1, 1.0), broken]),
                    format!("stop 2 (customer 7): {name} is {value}, expected a finite number")
                );
            }
        }
    }

    #[test]
    fn every_figure_of_the_depot_must_be_finite() {
        let fields: [(&str, Figure<Depot>); 4] = [
            ("x", |depot| &mut depot.x),
            ("y", |depot| &mut depot.y),
            ("ready", |depot| &mut depot.ready),
            ("due", |depot| &mut depot.due),
        ];
        for (name, field) in fields {
            let mut broken = depot();
            *field(&mut broken) = f64::NAN;
            assert_eq!(
                Schedule::check(&broken, 10, &[stop(1, 1.0)])
                    .unwrap_err()
                    .to_string(),
                format!("depot: {name} is NaN, expected a finite number")
            );
        }
    }

    #[test]
    fn a_window_must_not_close_before_it_opens() {
        let mut reversed = stop(7, 1.0);
        reversed.ready = 30.0;
        reversed.due = 20.5;
        assert_eq!(
            refusal(&[reversed]),
            "stop 1 (customer 7): its window opens at 30 and closes before, at 20.5"
        );

        let reversed = Depot {
            ready: 101.0,
            ..depot()
        };
        assert_eq!(
            Schedule::check(&reversed, 10, &[stop(1, 1.0)])
                .unwrap_err()
                .to_string(),
            "depot: its window opens at 101 and closes before, at 100"
        );
    }

    #[test]
    fn a_service_must_not_take_negative_time() {
        let mut back_in_time = stop(7, 1.0);
        back_in_time.service = -0.5;
        assert_eq!(
            refusal(&[back_in_time]),
            "stop 1 (customer 7): its service takes -0.5, expected at least 0"
        );
    }

    #[test]
    fn figures_too_large_to_add_are_late_not_accepted() {
        assert_eq!(
            refusal(&[stop(1, f64::MAX)]),
            "stop 1 (customer 1): arrives at inf, its window closed at 100"
        );
        assert_eq!(
            refusal(&[stop(1, 1e100)]),
            "stop 1 (customer 1): arrives at 1e100, its window closed at 100"
        );

        let forever = Depot {
            due: f64::MAX,
            ..depot()
        };
        let mut endless = stop(1, 1.0);
        endless.due = f64::MAX;
        endless.ready = f64::MAX;
        endless.service = f64::MAX;
        assert_eq!(
            Schedule::check(&forever, 10, &[endless])
                .unwrap_err()
                .to_string(),
            "depot: returns at inf from stop 1 (customer 1), it closed at 1.7976931348623157e308"
        );
    }

    #[test]
    fn stops_and_depots_survive_json() {
        let mut there = stop(7, -1.25);
        there.due = 0.1;
        let json = serde_json::to_string(&there).unwrap();
        assert_eq!(serde_json::from_str::<Stop>(&json).unwrap(), there);

        let json = serde_json::to_string(&depot()).unwrap();
        assert_eq!(serde_json::from_str::<Depot>(&json).unwrap(), depot());
    }
}
