//! For the tests of an application: commands on aggregates, process managers, projections, and the
//! payloads of old events, and their schemas.
//!
//! No store is needed, and nothing is asynchronous.

mod diff;
mod golden;
mod process;
mod projection;
mod recorder;
mod scenario;
#[cfg(feature = "schema")]
mod schema_files;
#[cfg(feature = "sealed")]
mod sealed;
mod unasked;

pub use self::golden::Golden;
pub use self::process::{ProcessScenario, process};
pub use self::projection::{ProjectionScenario, projection};
pub use self::scenario::{CommandResult, Given, Outcome, given, given_stored};
#[cfg(feature = "schema")]
pub use self::schema_files::SchemaFiles;
#[cfg(feature = "sealed")]
pub use self::sealed::subject_key;
