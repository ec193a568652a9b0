//! Claiming a segment: its checkpoint is locked, moved, and its next page is read.
//!
//! The checkpoint is moved before the page is applied. Both are one transaction, so it makes no
//! difference to anyone, and saves a statement.
//!
//! Where the page is read by the statement that claims, that is no look at the horizon: the end of
//! the page was looked for before, so that everything up to it is visible to the statement. Locking
//! may wait and then find a newer checkpoint than the statement's snapshot holds; the page is read
//! after that one, since it comes from the locked row.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use cqrs_core::mapping::{ColumnType, RowSource, Value};
use cqrs_core::{Envelope, Error, EventFilter, Position, RawPayload, Result, StoreErrorKind};

use super::checkpoint::{FORGETS_FAILURES, read, some};
use crate::backend::{Backend, Dialect, Parameter};
use tokio::time::Instant;

use crate::log::{EVENT_COLUMNS, read_event};

/// A thousand years: a delay for ever is one that every database and calendar can hold.
const LONGEST_DELAY: Duration = Duration::from_secs(1_000 * 365 * 24 * 60 * 60);

/// How many columns [`EVENT_COLUMNS`] are.
const EVENT_WIDTH: usize = 18;

/// Which segment of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: i64,
    pub(super) of: i64,
}

/// What to claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Where the page ends at the latest.
    pub(super) horizon: Position,
    /// How many events it holds at most.
    pub(super) most: u32,
    /// This segment alone, not the one that is furthest behind.
    pub(super) segment: Option<i64>,
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
    /// The event after those of the page whose row cannot be read.
    pub(super) unreadable: Option<(Position, Error)>,
}

impl Claim {
    /// How long ago the database was asked for the time.
    pub(super) fn age(&self) -> Duration {
        self.told.elapsed()
    }

    /// Which of the events that are applied has a position.
    pub(super) fn place_of(&self, position: Position) -> Option<usize> {
        self.page
            .iter()
            .position(|event| event.position() == position)
    }
}

/// The statements that claim.
#[derive(Debug)]
pub(super) struct ClaimSql {
    name: Arc<str>,
    /// Everything in one, where the database can.
    whole: Option<Arc<str>>,
    checkpoint: Arc<str>,
    page: Arc<str>,
    advance: Arc<str>,
    filters: Vec<Parameter>,
}

impl ClaimSql {
    /// Those of a subscription; where a version is given, of segments whose rows are of it.
    pub(super) fn new<B: Backend>(name: &str, filter: &EventFilter, version: Option<u32>) -> Self {
        let dialect = &B::DIALECT;
        let checkpoint = checkpoint_sql(dialect, version);
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
                .then(|| whole_sql(dialect, &checkpoint, filter).into()),
            page: page_sql(dialect, filter, &places, 6).into(),
            checkpoint: checkpoint.into(),
            advance: format!(
                "UPDATE cqrs_segment SET position = $3, {} WHERE subscription = $1 AND segment = $2",
                advanced(dialect)
            )
            .into(),
            filters: filter_parameters(filter),
        }
    }

    /// Claims a segment in an open transaction and moves its checkpoint over the page that it
    /// reads; `None` where none that has anything to do is free.
    pub(super) async fn claim<B: Backend>(
        &self,
        connection: &mut B::Connection,
        wanted: Wanted,
    ) -> Result<Option<Claim>> {
        let mut parameters = vec![
            Parameter::text(&*self.name),
            Parameter::int(wanted.horizon.0),
            Parameter::int(wanted.most.into()),
            Parameter::int(wanted.segment.unwrap_or(-1)),
        ];
        let mut claim = None;
        if let Some(whole) = &self.whole {
            parameters.extend(self.filters.iter().cloned());
            B::fetch(connection, whole, &parameters, None, |row| {
                let claim = match &mut claim {
                    Some(claim) => claim,
                    none => none.insert(Open::read(row, EVENT_WIDTH)?),
                };
                claim.add(row)
            })
            .await?;
            return Ok(claim.map(Open::finish));
        }
        B::fetch(connection, &self.checkpoint, &parameters, None, |row| {
            claim = Some(Open::read(row, 0)?);
            Ok(())
        })
        .await?;
        let Some(mut claim) = claim else {
            return Ok(None);
        };
        let mut parameters = vec![
            Parameter::int(claim.claim.from.0),
            Parameter::int(claim.upto.0),
            Parameter::int(claim.most),
            Parameter::int(claim.claim.segment.number),
            Parameter::int(claim.claim.segment.of),
        ];
        parameters.extend(self.filters.iter().cloned());
        B::fetch(connection, &self.page, &parameters, None, |row| {
            claim.add(row)
        })
        .await?;
        let claim = claim.finish();
        let moved = [
            Parameter::text(&*self.name),
            Parameter::int(claim.segment.number),
            Parameter::int(claim.to.0),
        ];
        B::execute(connection, &self.advance, &moved).await?;
        Ok(Some(claim))
    }
}

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
                    others: row.read_i64(at + 8)?.map(Position),
                    now: some(row.read_timestamp(at + 9)?)?,
                    told: Instant::now(),
                    rows: 0,
                    first: None,
                    page: Vec::new(),
                    unreadable: None,
                },
            })
        })
    }

    /// Takes the event of a row, if it has one.
    fn add<R: RowSource>(&mut self, row: &R) -> Result<()> {
        let Some(position) = read(row, |row| row.read_i64(0))? else {
            return Ok(());
        };
        self.claim.rows += 1;
        self.claim.first.get_or_insert(Position(position));
        self.claim.to = Position(position);
        if self.claim.unreadable.is_none() {
            match read_event(row) {
                Ok(event) => self.claim.page.push(event),
                Err(error) => self.claim.unreadable = Some((Position(position), error)),
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

/// What becomes of a row whose checkpoint is moved.
fn advanced(dialect: &Dialect) -> String {
    format!("{FORGETS_FAILURES}, updated_at = {}", dialect.now)
}

/// Locks the segment that is furthest behind of those that have anything to do. Where the clock of
/// the database was set back since a failure was recorded or a replay was set, it is not waited
/// for. The parameters are the name, the horizon, the size of a page, and the number of a segment
/// or -1.
fn checkpoint_sql(dialect: &Dialect, version: Option<u32>) -> String {
    let of_version = version.map(|version| format!(" AND s.version = {version}"));
    let of_version = of_version.unwrap_or_default();
    let (now, lock) = (dialect.now, dialect.claim);
    let end = "CASE WHEN s.barrier < $2 THEN s.barrier ELSE $2 END";
    let open_page = dialect.open_page;
    let due =
        format!("(s.replay_at <= {now} OR s.replay_at IS NOT NULL AND s.replay_set_at > {now})");
    format!(
        "SELECT s.segment, s.segments, s.position, \
         CASE WHEN {end} < s.position THEN s.position ELSE {end} END AS upto, \
         CASE WHEN s.failed_attempts > 0 THEN 1 ELSE $3 END AS most, \
         s.failed_attempts, s.parks, coalesce({due}, FALSE) AS due, \
         (SELECT min(o.position) FROM cqrs_segment AS o \
          WHERE o.subscription = $1 AND o.segment <> s.segment) AS others, {now} AS now, \
         s.barrier IS NOT NULL AS changing, s.mark{open_page} \
         FROM cqrs_segment AS s \
         WHERE s.subscription = $1 AND s.status = 'active' AND ($4 < 0 OR s.segment = $4){of_version} \
         AND (s.position < {end} OR {due}) \
         AND (s.retry_at IS NULL OR s.retry_at <= {now} OR s.updated_at > {now}) \
         ORDER BY s.position, s.segment LIMIT 1{lock}"
    )
}

/// Where a page's statement finds its values.
pub(super) struct Places<'a> {
    pub(super) from: &'a str,
    pub(super) upto: &'a str,
    pub(super) most: &'a str,
    pub(super) segment: &'a str,
    pub(super) segments: &'a str,
}

/// Reads a page; the filters are bound from `first` on.
pub(super) fn page_sql(
    dialect: &Dialect,
    filter: &EventFilter,
    places: &Places<'_>,
    first: usize,
) -> String {
    let Places {
        from,
        upto,
        most,
        segment,
        segments,
    } = places;
    let columns = [
        filter.aggregate_types().map(|_| "aggregate_type"),
        filter.event_types().map(|_| "event_type"),
    ];
    let filters: String = columns
        .into_iter()
        .flatten()
        .zip(first..)
        .map(|(column, number)| {
            let list = format!("${number}");
            let test = (dialect.in_list)(column, ColumnType::Text, &list);
            format!(" AND {test}")
        })
        .collect();
    let in_segment = (dialect.in_segment)(segment, segments);
    format!(
        "SELECT {EVENT_COLUMNS} FROM cqrs_event WHERE position > {from} AND position <= {upto}\
         {filters} AND ({segments} = 1 OR {in_segment}) ORDER BY position LIMIT {most}"
    )
}

pub(super) fn filter_parameters(filter: &EventFilter) -> Vec<Parameter> {
    [filter.aggregate_types(), filter.event_types()]
        .into_iter()
        .flatten()
        .map(|types| {
            let types = types.iter().map(|&name| Value::Text(name.to_owned()));
            Parameter::List(ColumnType::Text, types.collect())
        })
        .collect()
}

/// Claims, reads the page and moves the checkpoint.
fn whole_sql(dialect: &Dialect, checkpoint: &str, filter: &EventFilter) -> String {
    let places = Places {
        from: "c.position",
        upto: "c.upto",
        most: "c.most",
        segment: "c.segment",
        segments: "c.segments",
    };
    // Columns of the log and of the claim have one name in one place only: `position`.
    let page = page_sql(dialect, filter, &places, 5);
    let advanced = advanced(dialect);
    format!(
        "WITH claimed AS MATERIALIZED ({checkpoint}), \
         page AS MATERIALIZED (\
         SELECT e.* FROM claimed AS c CROSS JOIN LATERAL ({page}) AS e), \
         moved AS (UPDATE cqrs_segment AS s SET position = CASE \
         WHEN (SELECT count(*) FROM page) < c.most THEN c.upto \
         ELSE (SELECT max(position) FROM page) END, {advanced} \
         FROM claimed AS c WHERE s.subscription = $1 AND s.segment = c.segment) \
         SELECT e.*, c.* FROM claimed AS c LEFT JOIN page AS e ON TRUE ORDER BY e.position"
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
