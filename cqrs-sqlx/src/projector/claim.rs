//! Claiming a segment: its checkpoint is locked, moved, and its next page is read.
//!
//! The checkpoint is moved before the page is applied. Both are one transaction, so it makes no
//! difference to anyone, and saves a statement.
//!
//! Where the page is read by the statement that claims, that is no look at the horizon: the end of
//! the page was looked for before, so that everything up to it is visible to the statement. Locking
//! may wait and then find a newer checkpoint than the statement's snapshot holds; the page is read
//! after that one, since it comes from the locked row.
//!
//! That statement finds the end of the page before it reads it, so that the events go to the client
//! as they are read, and nothing keeps, counts or sorts them on the way.
//!
//! A page can also be looked at without a claim: see [`unlocked`](super::unlocked).

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use cqrs_core::integrity::Hashing;
use cqrs_core::mapping::{ColumnType, RowSource, Value};
use cqrs_core::{Envelope, Error, EventFilter, Position, RawPayload, Result, StoreErrorKind};
use tokio::time::Instant;

use super::checkpoint::{read, some};
use super::page_sql::{
    CLAIM_WIDTH, EVENT_WIDTH, Hold, Places, advance_seen_sql, advanced, checkpoint_sql,
    filter_parameters, is_seen_sql, look_sql, page_sql, takes_turns, whole_sql,
};
use super::turns::View;
use crate::backend::{Backend, Parameter, RowVersion};
use crate::log::{EVENT_COLUMNS, read_verified};

/// How far a page looks that is read under the lock of all writers. Where events are few among many, it
/// ends without one, and the next page goes on behind it.
const FURTHEST: i64 = 100_000;

/// A thousand years: a delay for ever is one that every database and calendar can hold.
const LONGEST_DELAY: Duration = Duration::from_secs(1_000 * 365 * 24 * 60 * 60);

/// Which segment of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: i64,
    pub(super) of: i64,
}

/// What to claim.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Where the page ends at the latest.
    pub(super) horizon: Position,
    /// How many events it holds at most.
    pub(super) most: u32,
    pub(super) which: Which,
}

/// Which segment.
#[derive(Debug, Clone)]
pub(super) enum Which {
    /// This one.
    Named(i64),
    /// That which is furthest behind, of those that a worker is to look at.
    Furthest(View),
}

/// A segment that is claimed, with its next page: nobody else can claim it before the transaction
/// ends.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) segment: Segment,
    /// Where it stood.
    pub(super) from: Position,
    /// Where it stands when the transaction is committed.
    pub(super) to: Position,
    /// Whether the page holds as many events as it may, so that there may be more.
    pub(super) is_full: bool,
    /// Handlers with side effects are not given what is not behind it.
    pub(super) mark: Position,
    /// How often its first event has failed.
    pub(super) attempts: u32,
    /// Whether events of its aggregates may be parked.
    pub(super) parks: bool,
    /// Whether parked events are to be replayed.
    pub(super) is_due: bool,
    /// Whether the number of segments is being changed.
    pub(super) is_changing: bool,
    /// The version of the row of the checkpoint, where it is not locked.
    pub(super) seen: Option<RowVersion>,
    /// Where the other segments stand at least; `None` where there are none.
    pub(super) others: Option<Position>,
    /// The time of the database, and when it was told.
    pub(super) now: DateTime<Utc>,
    told: Instant,
    /// How many events the database found, and the first of them.
    pub(super) rows: usize,
    pub(super) first: Option<Position>,
    /// Those of them that are to be applied.
    pub(super) page: Vec<Envelope<RawPayload>>,
    /// The positions of those that were taken out of the page, in order.
    pub(super) held: Vec<Position>,
    /// The event after those of the page whose row cannot be read.
    pub(super) unreadable: Option<(Position, Error)>,
}

impl Claim {
    /// How long ago the database was asked for the time.
    pub(super) fn age(&self) -> Duration {
        self.told.elapsed()
    }

    /// # Errors
    ///
    /// Where the event after those of the page cannot be read.
    pub(super) fn check_readable(&self) -> Result<()> {
        match &self.unreadable {
            Some((position, error)) => {
                Err(Error::other(format!("the event at {position}: {error}")))
            }
            None => Ok(()),
        }
    }

    /// The page behind this one, up to the horizon.
    pub(super) fn next(&self, horizon: Position, most: u32) -> Ahead {
        Ahead(Open {
            upto: horizon.max(self.to),
            most: most.into(),
            claim: Self {
                from: self.to,
                is_full: false,
                attempts: 0,
                seen: None,
                rows: 0,
                first: None,
                page: Vec::new(),
                held: Vec::new(),
                unreadable: None,
                ..*self
            },
        })
    }

    /// How many of the events that the database found come before the one of the page with a position.
    pub(super) fn rows_before(&self, position: Position) -> Option<usize> {
        let mut page = self.page.iter();
        let place = page.position(|event| event.position() == position)?;
        Some(place + self.held.partition_point(|held| *held < position))
    }

    /// How many of them could be read.
    pub(super) fn readable(&self) -> usize {
        self.page.len() + self.held.len()
    }
}

/// The statements that claim.
#[derive(Debug)]
pub(super) struct ClaimSql {
    name: Arc<str>,
    /// Everything in one, where the database can.
    whole: Option<Arc<str>>,
    /// Checkpoint and page without a lock, where the database knows the versions of rows.
    look: Option<Arc<str>>,
    checkpoint: Arc<str>,
    page: Arc<str>,
    advance: Arc<str>,
    /// Whether those statements know of what others are at.
    takes_turns: bool,
    /// Moves a checkpoint whose row is still of the version that was seen.
    pub(super) advance_seen: Arc<str>,
    /// Finds one whose row is.
    pub(super) is_seen: Arc<str>,
    filters: Vec<Parameter>,
    /// How events are compared with their hashes.
    hashing: Hashing,
}

impl ClaimSql {
    /// Those of a subscription; where a version is given, of segments whose rows are of it.
    pub(super) fn new<B: Backend>(
        name: &str,
        filter: &EventFilter,
        version: Option<u32>,
        hashing: &Hashing,
    ) -> Self {
        let dialect = &B::DIALECT;
        let places = Places {
            from: "$1",
            upto: "$2",
            most: "$3",
            segment: "$4",
            segments: "$5",
        };
        Self {
            name: name.into(),
            whole: dialect
                .claims_in_one
                .then(|| whole_sql(dialect, version, filter).into()),
            look: (!dialect.row_version.is_empty())
                .then(|| look_sql(dialect, version, filter).into()),
            page: page_sql(dialect, EVENT_COLUMNS, filter, &places, 6).into(),
            checkpoint: checkpoint_sql(dialect, version, Hold::Lock).into(),
            advance: format!(
                "UPDATE cqrs_segment SET position = $3, {} WHERE subscription = $1 AND segment = $2",
                advanced(dialect)
            )
            .into(),
            advance_seen: advance_seen_sql(dialect).into(),
            is_seen: is_seen_sql(dialect).into(),
            takes_turns: takes_turns(dialect),
            filters: filter_parameters(filter),
            hashing: hashing.clone(),
        }
    }

    /// Claims a segment in an open transaction and moves its checkpoint over the page that it
    /// reads; `None` where none that has anything to do is free.
    pub(super) async fn claim<B: Backend>(
        &self,
        connection: &mut B::Connection,
        wanted: &Wanted,
    ) -> Result<Option<Claim>> {
        if let Some(whole) = &self.whole {
            let begin = |row: &B::Row| Open::read(row, EVENT_WIDTH);
            return self.in_one::<B>(connection, whole, wanted, begin).await;
        }
        let mut claim = None;
        let parameters = self.wanted(wanted);
        B::fetch(connection, &self.checkpoint, &parameters, None, |row| {
            claim = Some(Open::read(row, 0)?);
            Ok(())
        })
        .await?;
        let Some(mut claim) = claim else {
            return Ok(None);
        };
        let furthest = Position(claim.claim.from.0.saturating_add(FURTHEST));
        claim.upto = claim.upto.min(furthest);
        let claim = self.read_page::<B>(connection, claim).await?;
        let moved = [
            Parameter::text(&*self.name),
            Parameter::int(claim.segment.number),
            Parameter::int(claim.to.0),
        ];
        B::execute(connection, &self.advance, &moved).await?;
        Ok(Some(claim))
    }

    /// Finds the segment that [`claim`](Self::claim) would, and reads its page, outside of any
    /// transaction: it locks and moves nothing. Only where the database knows the versions of rows.
    pub(super) async fn look<B: Backend>(
        &self,
        connection: &mut B::Connection,
        wanted: &Wanted,
    ) -> Result<Option<Claim>> {
        let Some(look) = &self.look else {
            return Ok(None);
        };
        let begin = |row: &B::Row| Open::seen(row, EVENT_WIDTH);
        self.in_one::<B>(connection, look, wanted, begin).await
    }

    /// Reads the page that follows one that was looked at.
    pub(super) async fn look_ahead<B: Backend>(
        &self,
        connection: &mut B::Connection,
        ahead: Ahead,
    ) -> Result<Claim> {
        self.read_page::<B>(connection, ahead.0).await
    }

    async fn in_one<B: Backend>(
        &self,
        connection: &mut B::Connection,
        sql: &Arc<str>,
        wanted: &Wanted,
        begin: impl Fn(&B::Row) -> Result<Open> + Send + Sync,
    ) -> Result<Option<Claim>> {
        let mut parameters = self.wanted(wanted);
        parameters.extend(self.filters.iter().cloned());
        let mut claim = None;
        B::fetch(connection, sql, &parameters, None, |row| {
            match &mut claim {
                Some(claim) => Open::add(claim, &self.hashing, row)?,
                None => claim = Some(begin(row)?),
            }
            Ok(())
        })
        .await?;
        Ok(claim.map(Open::finish))
    }

    async fn read_page<B: Backend>(
        &self,
        connection: &mut B::Connection,
        mut claim: Open,
    ) -> Result<Claim> {
        let mut parameters = vec![
            Parameter::int(claim.claim.from.0),
            Parameter::int(claim.upto.0),
            Parameter::int(claim.most),
            Parameter::int(claim.claim.segment.number),
            Parameter::int(claim.claim.segment.of),
        ];
        parameters.extend(self.filters.iter().cloned());
        B::fetch(connection, &self.page, &parameters, None, |row| {
            claim.add(&self.hashing, row)
        })
        .await?;
        Ok(claim.finish())
    }

    fn wanted(&self, wanted: &Wanted) -> Vec<Parameter> {
        let (named, view) = match &wanted.which {
            Which::Named(segment) => (*segment, &View::whole()),
            Which::Furthest(view) => (-1, view),
        };
        let mut parameters = vec![
            Parameter::text(&*self.name),
            Parameter::int(wanted.horizon.0),
            Parameter::int(wanted.most.into()),
            Parameter::int(named),
        ];
        if self.takes_turns {
            let except = view.except.iter().map(|segment| Value::Int(*segment));
            parameters.extend([
                Parameter::List(ColumnType::Int32, except.collect()),
                Parameter::int(view.home.at),
                Parameter::int(view.home.of),
            ]);
        }
        parameters
    }
}

/// A page that is still to be read.
pub(super) struct Ahead(Open);

/// A claim while its page is read.
struct Open {
    claim: Claim,
    upto: Position,
    most: i64,
}

impl Open {
    /// Reads a row with the columns of [`checkpoint_sql`] from an index on.
    fn read<R: RowSource>(row: &R, at: usize) -> Result<Self> {
        read(row, |row| {
            let from = Position(some(row.read_i64(at + 2)?)?);
            Ok(Self {
                upto: Position(some(row.read_i64(at + 3)?)?),
                most: some(row.read_i64(at + 4)?)?,
                claim: Claim {
                    segment: Segment {
                        number: some(row.read_i32(at)?)?.into(),
                        of: some(row.read_i32(at + 1)?)?.into(),
                    },
                    from,
                    to: from,
                    mark: Position(some(row.read_i64(at + 11)?)?),
                    is_full: false,
                    attempts: u32::try_from(some(row.read_i32(at + 5)?)?).unwrap_or(0),
                    parks: some(row.read_bool(at + 6)?)?,
                    is_due: some(row.read_bool(at + 7)?)?,
                    is_changing: some(row.read_bool(at + 10)?)?,
                    seen: None,
                    others: row.read_i64(at + 8)?.map(Position),
                    now: some(row.read_timestamp(at + 9)?)?,
                    told: Instant::now(),
                    rows: 0,
                    first: None,
                    page: Vec::new(),
                    held: Vec::new(),
                    unreadable: None,
                },
            })
        })
    }

    /// As [`read`](Self::read), with the version of the row behind those columns.
    fn seen<R: RowSource>(row: &R, at: usize) -> Result<Self> {
        let mut open = Self::read(row, at)?;
        let version = read(row, |row| {
            some(row.read_text(at + CLAIM_WIDTH)?.map(str::to_owned))
        })?;
        open.claim.seen = Some(RowVersion(version));
        Ok(open)
    }

    /// Takes the event of a row.
    fn add<R: RowSource>(&mut self, hashing: &Hashing, row: &R) -> Result<()> {
        let position = Position(read(row, |row| some(row.read_i64(0)?))?);
        if position <= self.claim.to {
            return Err(out_of_order(position, self.claim.to));
        }
        self.claim.rows += 1;
        self.claim.first.get_or_insert(position);
        self.claim.to = position;
        if self.claim.unreadable.is_none() {
            match read_verified(hashing, row) {
                Ok(event) => self.claim.page.push(event),
                Err(error) => self.claim.unreadable = Some((position, error)),
            }
        }
        Ok(())
    }

    fn finish(self) -> Claim {
        let mut claim = self.claim;
        claim.is_full = claim.rows as i64 >= self.most;
        if !claim.is_full {
            claim.to = self.upto;
        }
        claim
    }
}

/// The database is asked for the order of the log, and not left to itself with it.
#[cold]
fn out_of_order(position: Position, after: Position) -> Error {
    Error::store(
        StoreErrorKind::Database,
        format!("the database returned the event at {position} after the one at {after}"),
    )
}

/// A time after another.
pub(super) fn later(now: DateTime<Utc>, by: Duration) -> Result<DateTime<Utc>> {
    chrono::TimeDelta::from_std(by.min(LONGEST_DELAY))
        .ok()
        .and_then(|by| now.checked_add_signed(by))
        .ok_or_else(|| {
            Error::store(
                StoreErrorKind::Usage,
                format!("a delay of {by:?} leads out of the calendar"),
            )
        })
}
