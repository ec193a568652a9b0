//! An aggregate as it was.

use chrono::{DateTime, Utc};

use crate::aggregate::AggregateRoot;
use crate::envelope::{Envelope, RawPayload};
use crate::error::{Error, Result};
use crate::event::EventSet;

/// Up to where the events of an aggregate are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsOf {
    /// Up to this version.
    Version(u64),
    /// Up to the last that happened at this time or before, by the clock of the store that wrote it.
    Time(DateTime<Utc>),
}

impl From<DateTime<Utc>> for AsOf {
    fn from(time: DateTime<Utc>) -> Self {
        Self::Time(time)
    }
}

/// Reads the events of one aggregate, for [`EventHistory::events`](crate::EventHistory::events).
///
/// # Errors
///
/// [`Undecodable`](Error::Undecodable) where one cannot be read.
pub fn decode_events<A: AggregateRoot>(
    events: impl IntoIterator<Item = Envelope<RawPayload>>,
) -> Result<Vec<Envelope<Option<A::Event>>>> {
    let decode = |event: Envelope<RawPayload>| match A::Event::decode(&event) {
        Ok(payload) => Ok(event.with_payload(payload)),
        Err(reason) => Err(Error::Undecodable {
            position: event.position(),
            reason,
        }),
    };
    events.into_iter().map(decode).collect()
}
