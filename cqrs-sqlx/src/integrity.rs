//! The check of the log: what was changed in the database by others than the framework.

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::integrity::{ChainedAggregate, LogCheck, LogCheckReport, LogScan, StoredEvent};
use cqrs_core::mapping::{
    Column, ColumnError, ColumnRole, ColumnType, RowSource, Value, read_value,
};
use cqrs_core::{ContentHash, Error, Position, RequestContext, Result, StoreErrorKind};

use crate::backend::{Backend, Parameter, version_column};
use crate::log::{EVENT_COLUMNS, read_event};
use crate::projector;
use crate::reads::is_unavailable;
use crate::statements::quoted;
use crate::store::Shared;

/// The columns of the heads of event-sourced chains.
pub(crate) const HEAD_COLUMNS: &str =
    "aggregate_type, aggregate_id, tenant_id, version, content_hash";

/// Ends an insert of heads.
pub(crate) const REPLACE_HEAD: &str = "ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE \
     SET version = excluded.version, content_hash = excluded.content_hash";

/// How many bytes the hash of an event has at least that has a link.
pub(crate) const LINKED_HASH: usize = 65;

/// How many events of chains, or heads, are in memory at once.
const PAGE: usize = 1_000;

/// How long writers that are under way are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) async fn check<B: Backend>(
    shared: &Arc<Shared<B>>,
    context: &RequestContext,
    check: &LogCheck,
) -> Result<LogCheckReport> {
    if context.scope().tenant().is_some() {
        return Err(Error::store(
            StoreErrorKind::Usage,
            "the check of the log crosses tenants: it takes the scope of the system",
        ));
    }
    let horizon = horizon(shared).await?;
    let mut connection = projector::begin_reading(shared).await?;
    let mut scan = LogScan::new(check, &shared.hashing, horizon);
    match run::<B>(connection.get(), &mut scan, check).await {
        Ok(()) => {
            projector::rollback(connection).await;
            Ok(scan.finish())
        }
        Err(error) => {
            match is_unavailable(&error) {
                true => projector::discard(connection, &shared.readers),
                // The rest of the rows may still be on the way: it is repaired or closed.
                false => drop(connection),
            }
            Err(error)
        }
    }
}

/// How far the log can be anchored: up to where no event can still appear. Writers that are under way
/// are given a second to end, else it is not known.
async fn horizon<B: Backend>(shared: &Shared<B>) -> Result<Option<Position>> {
    projector::settled(shared, &mut B::Horizon::default(), PATIENCE).await
}

async fn run<B: Backend>(
    connection: &mut B::Connection,
    scan: &mut LogScan<'_>,
    check: &LogCheck,
) -> Result<()> {
    let sql = format!("SELECT {EVENT_COLUMNS}, sourced FROM cqrs_event ORDER BY position");
    B::fetch(connection, &sql.into(), &[], None, |row| {
        scan.event(&stored(row)?);
        Ok(())
    })
    .await?;
    scan.events_end();
    for aggregate in check.aggregates() {
        streams::<B>(connection, scan, aggregate).await?;
        match aggregate.table.is_sourced() {
            true => lonely_streams::<B>(connection, scan, aggregate).await?,
            false => lonely_rows::<B>(connection, scan, aggregate).await?,
        }
    }
    Ok(())
}

/// The events of an aggregate type, stream by stream, with the heads of those that have ended. The place
/// of an event has its position too: who has changed the log may have dropped its unique key.
async fn streams<B: Backend>(
    connection: &mut B::Connection,
    scan: &mut LogScan<'_>,
    aggregate: &ChainedAggregate,
) -> Result<()> {
    let sql: Arc<str> = format!(
        "SELECT {EVENT_COLUMNS}, sourced FROM cqrs_event WHERE aggregate_type = $1 \
         AND (aggregate_id, aggregate_version, position) > ($2, $3, $4) \
         ORDER BY aggregate_id, aggregate_version, position LIMIT $5"
    )
    .into();
    let mut after = (String::new(), i64::MIN, i64::MIN);
    loop {
        let parameters = [
            Parameter::text(aggregate.aggregate_type),
            Parameter::text(after.0.as_str()),
            Parameter::int(after.1),
            Parameter::int(after.2),
            Parameter::int(PAGE as i64),
        ];
        let mut rows = 0;
        B::fetch(connection, &sql, &parameters, None, |row| {
            rows += 1;
            let place = || {
                let (position, version) = (some(row.read_i64(0)?)?, some(row.read_i64(5)?)?);
                Ok((some(row.read_text(4)?)?.to_owned(), version, position))
            };
            after = place().map_err(unreadable)?;
            scan.linked(aggregate, &stored(row)?);
            Ok(())
        })
        .await?;
        if rows < PAGE {
            scan.end_stream(aggregate);
        }
        heads::<B>(connection, scan, aggregate).await?;
        if rows < PAGE {
            return Ok(());
        }
    }
}

/// The heads of the streams that have ended.
async fn heads<B: Backend>(
    connection: &mut B::Connection,
    scan: &mut LogScan<'_>,
    aggregate: &ChainedAggregate,
) -> Result<()> {
    let ended = scan.ended();
    if ended.is_empty() {
        return Ok(());
    }
    let table = aggregate.table;
    let in_list = B::DIALECT.in_list;
    let (sql, key_type, is_sourced) = match table.is_sourced() {
        true => {
            let list = in_list("aggregate_id", ColumnType::Text, "$1");
            let sql = format!(
                "SELECT aggregate_id, version, content_hash FROM cqrs_chain_head \
                 WHERE {list} AND aggregate_type = $2"
            );
            (sql, ColumnType::Text, true)
        }
        false => {
            let Some((key, key_type)) = key_column(aggregate) else {
                return Ok(());
            };
            let head = table.column_with(ColumnRole::ChainHead);
            let head = head.map_or("NULL".to_owned(), |head| quoted(head.name()));
            let sql = format!(
                "SELECT {key}, {}, {head} FROM {} WHERE {}",
                quoted(version_column(table)),
                quoted(table.name()),
                in_list(&key, key_type, "$1"),
            );
            (sql, key_type, false)
        }
    };
    let mut parameters = vec![Parameter::List(key_type, ended)];
    if is_sourced {
        parameters.push(Parameter::text(aggregate.aggregate_type));
    }
    B::fetch(connection, &sql.into(), &parameters, None, |row| {
        let read = || {
            let version = u64::try_from(some(row.read_i64(1)?)?).unwrap_or(0);
            Ok((read_value(row, 0, key_type)?, version))
        };
        let (key, version) = read().map_err(unreadable)?;
        // A head that cannot be read is another one.
        let head = row.read_bytes(2).ok().flatten();
        match head.filter(|_| is_sourced) {
            None => scan.head(key, version, head),
            Some(hash) => {
                let link = ContentHash::from_bytes(hash)
                    .ok()
                    .and_then(|hash| hash.link());
                scan.head(key, version, link.as_ref().map(<[u8; 32]>::as_slice));
            }
        }
        Ok(())
    })
    .await?;
    scan.heads_end();
    Ok(())
}

/// The heads of event-sourced aggregates of which the log knows nothing.
async fn lonely_streams<B: Backend>(
    connection: &mut B::Connection,
    scan: &mut LogScan<'_>,
    aggregate: &ChainedAggregate,
) -> Result<()> {
    let sql = "SELECT h.aggregate_id, h.version FROM cqrs_chain_head AS h \
         WHERE h.aggregate_type = $1 AND NOT EXISTS (SELECT 1 FROM cqrs_event AS e \
         WHERE e.aggregate_type = h.aggregate_type AND e.aggregate_id = h.aggregate_id)";
    let parameters = [Parameter::text(aggregate.aggregate_type)];
    B::fetch(connection, &sql.into(), &parameters, None, |row| {
        let read = || Ok((some(row.read_text(0)?)?, some(row.read_i64(1)?)?));
        let (id, version) = read().map_err(unreadable)?;
        scan.lonely_head(aggregate, id, u64::try_from(version).unwrap_or(0));
        Ok(())
    })
    .await
}

/// The rows of aggregates of which the log knows nothing.
async fn lonely_rows<B: Backend>(
    connection: &mut B::Connection,
    scan: &mut LogScan<'_>,
    aggregate: &ChainedAggregate,
) -> Result<()> {
    let Some((key, key_type)) = key_column(aggregate) else {
        return Ok(());
    };
    let (table, version) = (
        quoted(aggregate.table.name()),
        version_column(aggregate.table),
    );
    let version = quoted(version);
    let known = (B::DIALECT.in_list)("aggregate_id", ColumnType::Text, "$2");
    let known: Arc<str> = format!(
        "SELECT DISTINCT aggregate_id FROM cqrs_event WHERE aggregate_type = $1 AND {known}"
    )
    .into();
    let mut after: Option<Value> = None;
    loop {
        let behind = after.as_ref().map(|_| format!(" WHERE {key} > $1"));
        let sql = format!(
            "SELECT {key}, {version} FROM {table}{} ORDER BY {key} LIMIT {PAGE}",
            behind.unwrap_or_default()
        );
        let parameters = after.take().map(|key| Parameter::Typed(key_type, key));
        let mut page: Vec<(String, u64)> = Vec::new();
        let mut rows = 0;
        B::fetch(
            connection,
            &sql.into(),
            parameters.as_slice(),
            None,
            |row| {
                let read = || Ok((read_value(row, 0, key_type)?, some(row.read_i64(1)?)?));
                let (key, version) = read().map_err(unreadable)?;
                rows += 1;
                after = Some(key.clone());
                let id = aggregate.id(key);
                page.extend(id.map(|id| (id, u64::try_from(version).unwrap_or(0))));
                Ok(())
            },
        )
        .await?;
        let ids = page.iter().map(|(id, _)| Value::Text(id.clone())).collect();
        let parameters = [
            Parameter::text(aggregate.aggregate_type),
            Parameter::List(ColumnType::Text, ids),
        ];
        B::fetch(connection, &known, &parameters, None, |row| {
            let id = some(row.read_text(0).map_err(unreadable)?).map_err(unreadable)?;
            page.retain(|(own, _)| own != id);
            Ok(())
        })
        .await?;
        for (id, version) in page {
            scan.lonely_head(aggregate, &id, version);
        }
        if rows < PAGE {
            return Ok(());
        }
    }
}

/// The name and the type of the key column.
fn key_column(aggregate: &ChainedAggregate) -> Option<(String, ColumnType)> {
    let key: &Column = aggregate.table.key_columns().next()?;
    Some((quoted(key.name()), key.column_type()))
}

/// An event of a row with [`EVENT_COLUMNS`] and `sourced`. Only its position must be readable. A state of
/// a trace without the trace is nothing that an envelope has, so nothing else would find it.
fn stored<R: RowSource>(row: &R) -> Result<StoredEvent> {
    let position = row.read_i64(0).and_then(some).map_err(unreadable)?;
    let is_sourced = row.read_bool(18).and_then(some);
    let (event, is_sourced) = match (read_event(row), is_sourced) {
        (Ok(event), Ok(is_sourced)) => (Ok(event), is_sourced),
        (Err(error), _) => (Err(error.to_string()), false),
        (_, Err(error)) => (Err(format!("sourced: {error}")), false),
    };
    let is_stray = matches!(
        (row.read_text(14), row.read_text(15)),
        (Ok(None), Ok(Some(_)))
    );
    let event = match is_stray {
        true => Err("tracestate stands without traceparent".to_owned()),
        false => event,
    };
    Ok(StoredEvent {
        position: Position(position),
        event,
        is_sourced,
    })
}

fn some<T>(value: Option<T>) -> std::result::Result<T, ColumnError> {
    value.ok_or(ColumnError::UnexpectedNull)
}

fn unreadable(error: ColumnError) -> Error {
    Error::store(StoreErrorKind::Schema, format!("checking the log: {error}"))
}
