//! An aggregate as it was.

use chrono::{DateTime, Utc};

use crate::aggregate::AggregateRoot;
use crate::envelope::{Envelope, RawPayload};
use crate::error::{Error, Result};
use crate::event::EventSet;
use crate::history::VersionPaging;
use crate::specification::Page;

/// Up to where the events of an aggregate are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsOf {
    /// Up to this version.
    Version(u64),
    /// Up to the last that happened at this time or before, by the clock of the store that wrote it.
    Time(DateTime<Utc>),
}

/// The first second of the year 0, and the last of the year 9999.
const YEARS: (i64, i64) = (-62_167_219_200, 253_402_300_799);

impl AsOf {
    /// With a time that every store can compare: no event has one before the year 0, or after 9999.
    #[must_use]
    pub fn within_range(self) -> Self {
        let Self::Time(time) = self else {
            return self;
        };
        let seconds = time.timestamp();
        let within = seconds.clamp(YEARS.0, YEARS.1);
        match DateTime::from_timestamp(within, 0) {
            Some(bound) if within != seconds => Self::Time(bound),
            _ => self,
        }
    }
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

/// The page of what was found: events from the youngest on, up to [`limit`](VersionPaging::limit).
/// For authors of stores.
///
/// # Errors
///
/// As [`decode_events`], for those of the page.
pub fn page_of_events<A: AggregateRoot>(
    paging: &VersionPaging,
    found: Vec<Envelope<RawPayload>>,
    total: Option<u64>,
) -> Result<Page<Envelope<Option<A::Event>>>> {
    let found = found.into_iter().map(|event| {
        let version = event.aggregate_version();
        (event, version)
    });
    let Page { items, next, total } = paging.page(found.collect(), total);
    let items = decode_events::<A>(items)?;
    Ok(Page { items, next, total })
}
