//! Event-sourced aggregates: the state is the fold of the events.

mod as_of;
mod decide;
mod fold;
mod snapshot;
mod state;

pub use self::as_of::{AsOf, decode_events, page_of_events};
pub use self::decide::Decide;
pub use self::fold::{Fold, RecordedEvent, Replay};
pub use self::snapshot::{DueSnapshot, NewSnapshot, SnapshotPolicy};
pub(crate) use self::snapshot::{SnapshotMark, due, shape};
pub use self::state::{NoColumns, SnapshotCodec, Sourced, SourcedState, Sourcing, StateStored};
