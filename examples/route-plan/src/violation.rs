//! Why a route cannot be driven, in words.

use std::fmt;

use cqrs_core::DomainError;

/// From here on a number is shown with an exponent.
const LARGE: f64 = 1e15;

/// Why a route cannot be driven; its text names the place and the figures.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Violation {
    /// There is nothing to visit.
    #[error("the route has no stops")]
    Empty,
    /// A position or a time is NaN or infinite, so no rule can be checked against it.
    #[error("{place}: {field} is {value}, expected a finite number")]
    NotFinite {
        /// Whose figure it is.
        place: Place,
        /// Which figure.
        field: &'static str,
        /// What it holds.
        value: f64,
    },
    /// The window closes before it opens.
    #[error(
        "{place}: its window opens at {} and closes before, at {}",
        figure(*ready),
        figure(*due)
    )]
    WindowReversed {
        /// Whose window it is.
        place: Place,
        /// When it opens.
        ready: f64,
        /// When it closes.
        due: f64,
    },
    /// The service time is negative: the vehicle would leave before it began.
    #[error("{at}: its service takes {}, expected at least 0", figure(*service))]
    NegativeService {
        /// Where.
        at: StopPlace,
        /// The service time given.
        service: f64,
    },
    /// The customer is already on this route.
    #[error("{at}: the route visits this customer at stop {first} already")]
    VisitedTwice {
        /// The second visit.
        at: StopPlace,
        /// Position of the first visit, from 1.
        first: usize,
    },
    /// This stop is the first that no longer fits into the vehicle.
    #[error("{at}: brings the load to {load}, the vehicle carries {capacity}")]
    OverCapacity {
        /// The stop that does not fit.
        at: StopPlace,
        /// The load with it.
        load: u64,
        /// What the vehicle carries.
        capacity: u32,
    },
    /// The vehicle arrives after the stop's window closed.
    #[error("{at}: arrives at {}, its window closed at {}", past(*arrival, *due), figure(*due))]
    Late {
        /// Where.
        at: StopPlace,
        /// When the vehicle arrives.
        arrival: f64,
        /// When the window closed.
        due: f64,
    },
    /// The vehicle is back after the depot closed.
    #[error(
        "depot: returns at {} from {after}, it closed at {}",
        past(*arrival, *due),
        figure(*due)
    )]
    LateReturn {
        /// The last stop.
        after: StopPlace,
        /// When the vehicle is back.
        arrival: f64,
        /// When the depot closed.
        due: f64,
    },
}

/// A point of a route, as a [`Violation`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Start and end.
    Depot,
    /// A visit.
    Stop(StopPlace),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depot => formatter.write_str("depot"),
            Self::Stop(at) => at.fmt(formatter),
        }
    }
}

/// A visit by its place in the route and its customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StopPlace {
    /// Place in the route; the first stop is 1.
    pub(crate) position: usize,
    /// Whom the stop visits.
    pub(crate) customer: u32,
}

impl fmt::Display for StopPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "stop {} (customer {})",
            self.position, self.customer
        )
    }
}

impl DomainError for Violation {}

/// Shows a time with the fewest decimals that still put it after `limit`.
///
/// Rounded to a fixed number of decimals, a narrow miss would read "arrives at 90.0, its window
/// closed at 90".
fn past(time: f64, limit: f64) -> String {
    if time.abs() >= LARGE {
        return figure(time);
    }
    (1..=9)
        .map(|decimals| format!("{time:.decimals$}"))
        .find(|text| text.parse::<f64>().is_ok_and(|shown| shown > limit))
        .unwrap_or_else(|| figure(time))
}

/// Shows a number as short as it can be read back; large ones with an exponent, not 300 digits.
fn figure(value: f64) -> String {
    if value.abs() >= LARGE {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}
