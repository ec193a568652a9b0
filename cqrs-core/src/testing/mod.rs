//! For the tests of an application: commands on aggregates, and the payloads of old events.
//!
//! No store is needed, and nothing is asynchronous.

mod diff;
mod golden;
mod scenario;

pub use self::golden::Golden;
pub use self::scenario::{CommandResult, Given, Outcome, given, given_stored};
