//! Comparing the rows of a projection with the log.

use std::sync::Arc;

use cqrs_core::consistency::Shadow;
use cqrs_core::integrity::Hashing;
use cqrs_core::mapping::{MappingError, RowSource, Table, Value, read_value};
use cqrs_core::{Entity, Envelope, Error, Position, RawPayload, Result, RowProjection};

use super::checkpoint::{self, Checkpoint, read, some};
use super::claim::Segment;
use super::page_sql::{Places, filter_parameters, page_sql};
use super::{building, queries};
use crate::backend::{Backend, Parameter};
use crate::log::{EVENT_COLUMNS, read_verified};
use crate::reads::is_unavailable;
use crate::statements::{list, qualified, quoted};
use crate::store::Shared;

/// How many events are read at once.
const PAGE: i64 = 1_000;

/// Compares in one transaction that reads, so that checkpoints, rows, dead letters and log are of
/// one moment.
pub(crate) async fn compare<B: Backend, P: RowProjection>(
    shared: &Arc<Shared<B>>,
    shadow: &mut Shadow<'_, P>,
) -> Result<()> {
    building::refuse_name(shadow.subscription())?;
    let table = P::Row::table().name();
    let mut connection = queries::begin_reading_at_one_moment(shared, &[table]).await?;
    let compared = compare_on(shared, connection.get(), shadow).await;
    match &compared {
        Err(error) if is_unavailable(error) => queries::discard(connection, &shared.readers),
        _ => queries::rollback(connection).await,
    }
    compared
}

async fn compare_on<B: Backend, P: RowProjection>(
    shared: &Shared<B>,
    connection: &mut B::Connection,
    shadow: &mut Shadow<'_, P>,
) -> Result<()> {
    let segments = segments(shared, connection, shadow.subscription()).await?;
    let end = segments.iter().map(|(_, position)| *position).min();
    shadow.stands_at(end.unwrap_or(Position::START));
    let name = [Parameter::text(shadow.subscription())];
    let sql = "SELECT position FROM cqrs_dead_letter WHERE subscription = $1";
    B::fetch(connection, &sql.into(), &name, None, |row| {
        shadow.leave_out(Position(read(row, |row| some(row.read_i64(0)?))?));
        Ok(())
    })
    .await?;

    let places = Places {
        from: "$1",
        upto: "$2",
        most: "$3",
        segment: "$4",
        segments: "$5",
    };
    let log: Arc<str> = page_sql(&B::DIALECT, EVENT_COLUMNS, shadow.filter(), &places, 6).into();
    let table = P::Row::table();
    let columns = table.columns().iter();
    let columns = list(columns.map(|column| qualified(table, column.name())));
    let rows: Arc<str> = format!("SELECT {columns} FROM {}", quoted(table.name())).into();
    while shadow.next_part()? {
        for (segment, end) in &segments {
            let part = (*segment, *end);
            fold::<B, P>(connection, &shared.hashing, &log, shadow, part).await?;
        }
        if !shadow.has_room() {
            continue;
        }
        shadow.folded();
        B::fetch(connection, &rows, &[], Some(table), |row| {
            shadow.compare(&values(table, row)?)
        })
        .await?;
    }
    Ok(())
}

/// Folds the events of a segment, as far as there is room.
async fn fold<B: Backend, P: RowProjection>(
    connection: &mut B::Connection,
    hashing: &Hashing,
    sql: &Arc<str>,
    shadow: &mut Shadow<'_, P>,
    (segment, end): (Segment, Position),
) -> Result<()> {
    let mut position = shadow.after();
    while shadow.has_room() && position < end {
        let mut parameters = vec![
            Parameter::int(position.0),
            Parameter::int(end.0),
            Parameter::int(PAGE),
            Parameter::int(segment.number),
            Parameter::int(segment.of),
        ];
        parameters.extend(filter_parameters(shadow.filter()));
        let mut page: Vec<Envelope<RawPayload>> = Vec::new();
        let from = position;
        B::fetch(connection, sql, &parameters, None, |row| {
            // What was left out may be unreadable.
            position = Position(read(row, |row| some(row.read_i64(0)?))?);
            if !shadow.leaves_out(position) {
                page.push(read_verified(hashing, row)?);
            }
            Ok(())
        })
        .await?;
        if position == from {
            position = end;
        }
        page.iter().try_for_each(|event| shadow.add(event))?;
        shadow.tell(position, end);
    }
    Ok(())
}

/// Where the segments of a subscription stand. An inline projection has applied whatever is in the
/// log.
async fn segments<B: Backend>(
    shared: &Shared<B>,
    connection: &mut B::Connection,
    name: &str,
) -> Result<Vec<(Segment, Position)>> {
    let sql = format!(
        "SELECT {} FROM cqrs_segment WHERE subscription = $1 ORDER BY segment",
        checkpoint::COLUMNS
    );
    let mut found = Vec::new();
    B::fetch(
        connection,
        &sql.into(),
        &[Parameter::text(name)],
        None,
        |row| {
            let checkpoint = Checkpoint::read(row)?;
            found.push((checkpoint.segment, checkpoint.position));
            Ok(())
        },
    )
    .await?;
    if !found.is_empty() {
        return Ok(found);
    }
    if !shared.inline.current().contains(name) {
        return Err(Error::unknown_subscription(name));
    }
    let sql = "SELECT coalesce(max(position), 0) FROM cqrs_event";
    B::fetch(connection, &sql.into(), &[], None, |row| {
        let whole = Segment { number: 0, of: 1 };
        found.push((whole, Position(read(row, |row| some(row.read_i64(0)?))?)));
        Ok(())
    })
    .await?;
    Ok(found)
}

/// The values of a row that holds all columns of its table.
fn values<R: RowSource>(table: &Table, row: &R) -> Result<Vec<Value>> {
    let columns = table.columns().iter().enumerate();
    let values = columns.map(|(index, column)| {
        read_value(row, index, column.column_type()).map_err(|reason| {
            Error::Mapping(MappingError {
                table: table.name().to_owned(),
                column: column.name().to_owned(),
                reason,
            })
        })
    });
    values.collect()
}
