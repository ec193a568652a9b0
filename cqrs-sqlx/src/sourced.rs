//! Loading event-sourced aggregates: the last snapshot and the events after it, in one statement.

use std::fmt;
use std::sync::Arc;

use cqrs_core::history::VersionPaging;
use cqrs_core::integrity::Hashing;
use cqrs_core::mapping::{ColumnError, ColumnType, RowSource, Table, Value};
use cqrs_core::sourced::{Fold, NewSnapshot, RecordedEvent, Replay, Sourcing};
use cqrs_core::{
    AggregateRoot, AsOf, ContentHash, Error, Position, Result, StoreErrorKind, TenantId,
    TenantScope,
};

use crate::backend::{Backend, Parameter};
use crate::log::EVENT_COLUMNS;
use crate::reads::{self, Place};
use crate::select::Select;
use crate::snapshots::Due;
use crate::statements::Statements;
use crate::store::Shared;
use crate::tenancy::{self, TenantSite};

/// What is read of an event; a snapshot stands in the same columns, with its state in place of the
/// payload and no event type.
const COLUMNS: &str = "e.position, e.aggregate_version, e.event_type, e.schema_version, \
     CAST(e.payload AS text), e.occurred_at, e.actor, e.tenant_id, e.content_hash";

/// The columns of the table of snapshots.
pub(crate) const SNAPSHOT_COLUMNS: &str =
    "aggregate_type, aggregate_id, tenant_id, version, shape, state, recorded_at, event_id";

/// That the last event which a snapshot `s` stands for is in the log. After the log was restored from a
/// backup without its snapshots, one may be ahead of it; and where the log has grown past its version
/// again, another event is there. `NULL` where none is, and of a snapshot of a release that did not
/// write down the event.
///
/// A value and not `EXISTS`, of which Postgres makes a join: before the log was analysed that may read
/// all events of the aggregate for the one.
const IN_LOG: &str = "s.event_id = (SELECT u.event_id FROM cqrs_event AS u \
                      WHERE u.aggregate_type = s.aggregate_type \
                      AND u.aggregate_id = s.aggregate_id AND u.aggregate_version = s.version)";

/// How the aggregate with an id is loaded.
pub(crate) struct Stream {
    /// From its snapshot on, where it has snapshots.
    short: Option<Select>,
    /// From its first event on.
    whole: Select,
}

impl Stream {
    pub(crate) fn of<A: AggregateRoot>(
        statements: &Statements,
        scope: &TenantScope,
        id: &A::Id,
        sourcing: &Sourcing<A>,
    ) -> Self {
        let identity = identity(scope, A::table(), A::TYPE, id);
        Self::until(
            statements,
            A::table(),
            identity,
            Until::Now,
            sourcing.shape(),
        )
    }

    /// As it was.
    pub(crate) fn as_of<A: AggregateRoot>(
        statements: &Statements,
        scope: &TenantScope,
        id: &A::Id,
        sourcing: &Sourcing<A>,
        at: AsOf,
    ) -> Self {
        let (in_tenant, mut parameters) = identity(scope, A::table(), A::TYPE, id);
        let until = match at.within_range() {
            AsOf::Time(time) => {
                let time = Value::Timestamp(time);
                parameters.push(Parameter::new(ColumnType::Timestamp, time));
                Until::Time
            }
            at => {
                let version = match at {
                    AsOf::Version(version) => i64::try_from(version).unwrap_or(i64::MAX),
                    _ => i64::MAX,
                };
                parameters.push(Parameter::int(version));
                Until::Version
            }
        };
        let identity = (in_tenant, parameters);
        Self::until(statements, A::table(), identity, until, sourcing.shape())
    }

    /// `until` is the last of the parameters, where it is one.
    fn until(
        statements: &Statements,
        table: &'static Table,
        (in_tenant, parameters): (bool, Vec<Parameter>),
        until: Until,
        shape: Option<String>,
    ) -> Self {
        let [whole, short] = until.names(in_tenant);
        let last = until.last(parameters.len());
        let short = shape.map(|shape| {
            let mut parameters = parameters.clone();
            parameters.push(Parameter::text(shape));
            let shape = parameters.len();
            Select {
                sql: statements.get(table, short, || {
                    short_sql(in_tenant, table.is_chained(), shape, last.as_ref())
                }),
                parameters,
            }
        });
        let site = match until {
            Until::Now => TenantSite::Stream,
            Until::Version | Until::Time => TenantSite::StreamAsOf,
        };
        let whole = Select {
            sql: statements.get(table, whole, || {
                let last = last.as_ref().map(Last::in_place);
                let until = up_to("e.aggregate_version", last.as_deref());
                stream_sql(site, COLUMNS, &until, in_tenant)
            }),
            parameters,
        };
        Self { short, whole }
    }
}

/// Up to where a stream is read.
#[derive(Debug, Clone, Copy)]
enum Until {
    Now,
    Version,
    Time,
}

impl Until {
    /// The names of the statement that reads from the first event on, and of that which reads from
    /// the snapshot on.
    fn names(self, in_tenant: bool) -> [&'static str; 2] {
        match (self, in_tenant) {
            (Self::Now, false) => ["events of one", "snapshot and events"],
            (Self::Now, true) => ["events in a tenant", "snapshot and events in a tenant"],
            (Self::Version, false) => [
                "events until a version",
                "snapshot and events until a version",
            ],
            (Self::Version, true) => [
                "events until a version in a tenant",
                "snapshot and events until a version in a tenant",
            ],
            (Self::Time, false) => ["events until a time", "snapshot and events until a time"],
            (Self::Time, true) => [
                "events until a time in a tenant",
                "snapshot and events until a time in a tenant",
            ],
        }
    }

    /// The last version, where the parameter with this number says which.
    fn last(self, parameter: usize) -> Option<Last> {
        match self {
            Self::Now => None,
            Self::Version => Some(Last::Given(format!("${parameter}"))),
            // Clocks may go backwards, versions do not.
            Self::Time => Some(Last::Sought(format!(
                "SELECT max(l.aggregate_version) AS version FROM cqrs_event AS l \
                 WHERE l.aggregate_type = $1 AND l.aggregate_id = $2 \
                 AND l.occurred_at <= ${parameter}"
            ))),
        }
    }
}

/// The last version that is read.
enum Last {
    Given(String),
    /// By a query that may look at many events.
    Sought(String),
}

impl Last {
    /// For a statement that needs it in one place.
    fn in_place(&self) -> String {
        match self {
            Self::Given(version) => version.clone(),
            Self::Sought(query) => format!("({query})"),
        }
    }

    /// For one that needs it in several: what to begin `WITH` with, so that it is sought once, and the
    /// version.
    fn shared(&self) -> (String, String) {
        match self {
            Self::Given(version) => (String::new(), version.clone()),
            Self::Sought(query) => (
                format!("reached AS MATERIALIZED ({query}), "),
                "(SELECT r.version FROM reached AS r)".to_owned(),
            ),
        }
    }
}

/// The condition that a version is not behind the last one.
fn up_to(version: &str, last: Option<&str>) -> String {
    last.map_or_else(String::new, |last| format!(" AND {version} <= {last}"))
}

/// The events of an aggregate, sourced or not, as the log holds them.
pub(crate) fn events<A: AggregateRoot>(
    statements: &Statements,
    scope: &TenantScope,
    id: &A::Id,
) -> Select {
    let names = ["whole events", "whole events in a tenant"];
    of_stream::<A, _>(statements, scope, id, names, [], |in_tenant, _| {
        stream_sql(TenantSite::StreamEvents, EVENT_COLUMNS, "", in_tenant)
    })
}

/// A page of them, from the youngest on.
pub(crate) fn events_page<A: AggregateRoot>(
    statements: &Statements,
    scope: &TenantScope,
    id: &A::Id,
    paging: &VersionPaging,
) -> Select {
    let names = ["page of events", "page of events in a tenant"];
    let before = paging.before().unwrap_or(u64::MAX);
    let numbers = [before, paging.limit(), paging.skip()];
    of_stream::<A, _>(
        statements,
        scope,
        id,
        names,
        numbers,
        |in_tenant, [before, limit, skip]| {
            let until = format!(" AND e.aggregate_version < ${before}");
            let stream = stream_sql(TenantSite::StreamEvents, EVENT_COLUMNS, &until, in_tenant);
            format!("{stream} DESC LIMIT ${limit} OFFSET ${skip}")
        },
    )
}

/// How many there are.
pub(crate) fn event_count<A: AggregateRoot>(
    statements: &Statements,
    scope: &TenantScope,
    id: &A::Id,
) -> Select {
    let names = ["count of events", "count of events in a tenant"];
    of_stream::<A, _>(statements, scope, id, names, [], |in_tenant, _| {
        let tenant = confined(TenantSite::StreamEvents, "e.tenant_id", in_tenant);
        format!(
            "SELECT count(*) FROM cqrs_event AS e WHERE e.aggregate_type = $1 \
             AND e.aggregate_id = $2{tenant}"
        )
    })
}

/// A statement on the events of one aggregate, with its names outside of a tenant and in one. Its text
/// is written once, and is given the parameters that the numbers are.
fn of_stream<A: AggregateRoot, const N: usize>(
    statements: &Statements,
    scope: &TenantScope,
    id: &A::Id,
    names: [&'static str; 2],
    numbers: [u64; N],
    write: impl FnOnce(bool, [usize; N]) -> String,
) -> Select {
    let (in_tenant, mut parameters) = identity(scope, A::table(), A::TYPE, id);
    let first = parameters.len() + 1;
    let places = std::array::from_fn(|index| first + index);
    let integer = |number: u64| Parameter::int(i64::try_from(number).unwrap_or(i64::MAX));
    parameters.extend(numbers.map(integer));
    Select {
        sql: statements.get(A::table(), names[usize::from(in_tenant)], || {
            write(in_tenant, places)
        }),
        parameters,
    }
}

/// Which aggregate is meant, and whether within one tenant.
fn identity(
    scope: &TenantScope,
    table: &Table,
    aggregate_type: &str,
    id: &impl fmt::Display,
) -> (bool, Vec<Parameter>) {
    let tenant = scope.tenant().filter(|_| table.is_tenant());
    let mut parameters = vec![
        Parameter::text(aggregate_type),
        Parameter::text(id.to_string()),
    ];
    parameters.extend(tenant.map(|tenant| Parameter::text(tenant.as_str())));
    (tenant.is_some(), parameters)
}

fn confined(site: TenantSite, column: &str, in_tenant: bool) -> String {
    if in_tenant {
        format!(" AND {}", tenancy::equals(site, column, "$3"))
    } else {
        String::new()
    }
}

fn stream_sql(site: TenantSite, columns: &str, until: &str, in_tenant: bool) -> String {
    let tenant = confined(site, "e.tenant_id", in_tenant);
    format!(
        "SELECT {columns} FROM cqrs_event AS e WHERE e.aggregate_type = $1 \
         AND e.aggregate_id = $2{tenant}{until} ORDER BY e.aggregate_version"
    )
}

fn short_sql(in_tenant: bool, is_chained: bool, shape: usize, last: Option<&Last>) -> String {
    let (reached, last) = last.map(Last::shared).unzip();
    let reached = reached.unwrap_or_default();
    let before = up_to("s.version", last.as_deref());
    let until = up_to("e.aggregate_version", last.as_deref());
    let snapshot = confined(TenantSite::Snapshot, "s.tenant_id", in_tenant);
    let events = confined(TenantSite::StreamAfterSnapshot, "e.tenant_id", in_tenant);
    // The next event covers the last that the snapshot stands for.
    let hash = match is_chained {
        true => {
            "(SELECT h.content_hash FROM cqrs_event AS h WHERE h.aggregate_type = $1 \
             AND h.aggregate_id = $2 AND h.aggregate_version = last.version)"
        }
        false => "NULL",
    };
    format!(
        "WITH {reached}last AS (SELECT s.version, s.state, s.tenant_id FROM cqrs_snapshot AS s \
         WHERE s.aggregate_type = $1 AND s.aggregate_id = $2 AND s.shape = ${shape}{snapshot}{before} \
         AND {IN_LOG}) \
         SELECT CAST(0 AS bigint), last.version, CAST(NULL AS text), CAST(NULL AS integer), \
         last.state, CAST(NULL AS timestamp with time zone), CAST(NULL AS text), last.tenant_id, \
         {hash} FROM last \
         UNION ALL SELECT {COLUMNS} FROM cqrs_event AS e \
         WHERE e.aggregate_type = $1 AND e.aggregate_id = $2{events}{until} \
         AND e.aggregate_version > coalesce((SELECT last.version FROM last), 0) ORDER BY 2"
    )
}

/// Loads the aggregate. A snapshot that cannot be read costs a second statement, and is replaced
/// when the aggregate is saved next.
pub(crate) async fn load<B: Backend, A: AggregateRoot>(
    mut place: Place<'_, B>,
    hashing: &Hashing,
    stream: &Stream,
    id: &A::Id,
) -> Result<Option<A>> {
    if let Some(select) = &stream.short {
        let fold = fold(place.again(), hashing, select, || Fold::new(id.clone())).await?;
        if !fold.as_ref().is_some_and(Replay::is_unreadable) {
            return Ok(fold.and_then(Fold::finish));
        }
        tracing::warn!(aggregate = A::TYPE, %id, "a snapshot cannot be read, and is ignored");
    }
    let fold = fold(place, hashing, &stream.whole, || Fold::new(id.clone())).await?;
    Ok(fold.and_then(Fold::finish))
}

/// Makes a snapshot that is due, of what the log holds by now; `None` where that is no more than the
/// last one.
pub(crate) async fn take_snapshot<B: Backend>(
    shared: &Arc<Shared<B>>,
    due: &Due,
) -> Result<Option<NewSnapshot>> {
    let scope = &TenantScope::System;
    let (id, snapshot) = (&due.aggregate_id, &due.snapshot);
    let identity = identity(scope, due.table, due.aggregate_type, id);
    let shape = Some(snapshot.shape());
    let stream = Stream::until(&shared.statements, due.table, identity, Until::Now, shape);
    for select in stream.short.iter().chain([&stream.whole]) {
        let place = Place::Confined(shared, scope);
        let begin = || snapshot.begin(id);
        match fold(place, &shared.hashing, select, begin).await? {
            Some(replay) if replay.is_unreadable() => {}
            Some(replay) => return replay.take_snapshot(snapshot.taken_at()),
            None => break,
        }
    }
    Ok(None)
}

/// What the rows of a statement make of the aggregate; `None` where there are none.
async fn fold<B: Backend, F: AsMut<dyn Replay> + Send>(
    place: Place<'_, B>,
    hashing: &Hashing,
    select: &Select,
    begin: impl Fn() -> Option<F> + Send + Sync,
) -> Result<Option<F>> {
    let mut folds = reads::fold(place, select, None, |folds: &mut Vec<F>, row: &B::Row| {
        if folds.is_empty() {
            folds.extend(begin());
        }
        match folds.last_mut() {
            Some(fold) => step(fold.as_mut(), hashing, row),
            None => Ok(()),
        }
    })
    .await?;
    Ok(folds.pop())
}

/// Takes a row into the fold.
fn step(fold: &mut dyn Replay, hashing: &Hashing, row: &impl RowSource) -> Result<()> {
    let row = read(row).map_err(|error| {
        Error::store(StoreErrorKind::Schema, format!("table cqrs_event: {error}"))
    })?;
    match row {
        Read::Event(event, tenant) => {
            let (position, hash) = (event.position, event.content_hash);
            hashing
                .verify_payload(event.event_type, event.payload, hash, position)
                .map_err(|reason| Error::Undecodable { position, reason })?;
            fold.event(&RecordedEvent {
                tenant: tenant.as_ref(),
                ..event
            })
        }
        Read::Snapshot(version, state, tenant, last) => {
            fold.snapshot(version, state, tenant, last);
            Ok(())
        }
    }
}

enum Read<'r> {
    Event(RecordedEvent<'r>, Option<TenantId>),
    Snapshot(u64, &'r str, Option<TenantId>, Option<ContentHash>),
}

fn read<R: RowSource>(row: &R) -> Result<Read<'_>, ColumnError> {
    fn some<T>(value: Option<T>) -> Result<T, ColumnError> {
        value.ok_or(ColumnError::UnexpectedNull)
    }
    let version = u64::try_from(some(row.read_i64(1)?)?).map_err(ColumnError::invalid)?;
    let payload = some(row.read_text(4)?)?;
    let tenant = || {
        let tenant = row.read_text(7)?.map(TenantId::new).transpose();
        tenant.map_err(ColumnError::invalid)
    };
    let hash = row.read_bytes(8)?.map(ContentHash::from_bytes).transpose();
    let hash = hash.map_err(ColumnError::invalid)?;
    let Some(event_type) = row.read_text(2)? else {
        return Ok(Read::Snapshot(version, payload, tenant()?, hash));
    };
    let event = RecordedEvent {
        position: Position(some(row.read_i64(0)?)?),
        aggregate_version: version,
        event_type,
        schema_version: u32::try_from(some(row.read_i32(3)?)?).map_err(ColumnError::invalid)?,
        payload,
        content_hash: some(hash)?,
        occurred_at: some(row.read_timestamp(5)?)?,
        actor: row.read_text(6)?,
        tenant: None,
    };
    // The events of an aggregate are of one tenant.
    let tenant = if version == 1 { tenant()? } else { None };
    Ok(Read::Event(event, tenant))
}

/// The text of a statement that keeps the younger of two snapshots whose last events are in the log,
/// and keeps none of which that is not there.
pub(crate) fn replace_snapshot() -> Arc<str> {
    format!(
        "INSERT INTO cqrs_snapshot AS s \
         (aggregate_type, aggregate_id, tenant_id, version, shape, state, event_id) \
         SELECT $1, $2, $3, $4, $5, $6, l.event_id FROM cqrs_event AS l \
         WHERE l.aggregate_type = $1 AND l.aggregate_id = $2 AND l.aggregate_version = $4 \
         ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE \
         SET version = excluded.version, shape = excluded.shape, \
         state = excluded.state, recorded_at = excluded.recorded_at, event_id = excluded.event_id \
         WHERE s.version <= excluded.version OR s.shape <> excluded.shape \
         OR ({IN_LOG}) IS NOT TRUE"
    )
    .into()
}
