//! Snapshots of what a subscription keeps: taking them, listing them, removing them.
//!
//! A snapshot is a copy of the tables beside them, in the same database, with the checkpoints of
//! the same moment. The database makes it alone, so it costs no memory here however large the
//! tables are, and it is in every backup. Restoring is [`restore`](super::restore)'s topic.

use chrono::{DateTime, Utc};
use cqrs_core::mapping::{ColumnType, RowSource, Value};
use cqrs_core::{Error, Position, Rebuilds, Result, StoreErrorKind, Subscription};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::checkpoint::{self, read, some};
use super::operations::Operations;
use super::transaction::SqlTransaction;
use super::{building, dead_letters, queries, register};
use crate::backend::{Backend, Parameter};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::statements::{list, quoted};
use crate::verify::LiveColumn;

/// What `cqrs_projection_snapshot` holds, in the order in which it is read.
pub(crate) const COLUMNS: &str =
    "id, subscription, checkpoints, tables, actor, correlation_id, taken_at";

/// A snapshot of what a subscription keeps. From [`Operations::snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectionSnapshot {
    /// Its id. A later snapshot has a greater one.
    pub id: Uuid,
    /// The subscription.
    pub subscription: String,
    /// Everything up to here was applied: the position of the segment that was furthest behind.
    pub position: Position,
    /// Its tables.
    pub tables: Vec<SnapshotTable>,
    /// Who took it.
    pub actor: Option<String>,
    /// When, by the clock of the database.
    pub taken_at: DateTime<Utc>,
    /// Where each segment stood.
    pub(super) checkpoints: Vec<Position>,
}

/// A table in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SnapshotTable {
    /// The table that was copied.
    pub table: String,
    /// The version of the projection that keeps it; see
    /// [`RowProjection::VERSION`](cqrs_core::RowProjection::VERSION).
    pub version: u32,
    /// How many rows it had.
    pub rows: u64,
    /// The columns that were copied, with the types that they had.
    pub(super) columns: Vec<(String, String)>,
    /// The table that holds the copy.
    pub(super) copy: String,
}

impl SnapshotTable {
    /// The names of its columns, quoted.
    pub(super) fn names(&self) -> String {
        list(self.columns.iter().map(|(name, _)| quoted(name)))
    }
}

impl<B: Backend> Operations<B> {
    /// Takes a snapshot of the tables that a subscription keeps, with its checkpoints and its records
    /// of skipped events of the same moment, for [`restore`](Self::restore). The copies are tables beside the others, named
    /// `cqrs_copy_*`, as large as they are without indexes.
    ///
    /// On Postgres nobody waits for it: the projectors go on. On SQLite writers wait.
    ///
    /// # Errors
    ///
    /// As for [all](Self#errors), and `Usage` where a handler does not say what
    /// [tables](cqrs_core::Projection::tables) it keeps, where these are of another version of the
    /// projection, and where events are parked, which the rows lack.
    pub async fn snapshot(
        &self,
        subscription: &Subscription<SqlTransaction<B>>,
    ) -> Result<ProjectionSnapshot> {
        let tables = what_it_keeps(subscription)?;
        let names: Vec<&str> = tables.iter().map(|one| one.table.name()).collect();
        let mut connection = queries::begin_at_one_moment(&self.shared, &names).await?;
        let taken = self.take(connection.get(), subscription, tables).await;
        queries::end(connection, taken).await
    }

    async fn take(
        &self,
        connection: &mut B::Connection,
        subscription: &Subscription<SqlTransaction<B>>,
        tables: &[Rebuilds],
    ) -> Result<ProjectionSnapshot> {
        let name = subscription.name();
        let checkpoints = checkpoint::read_all::<B>(connection, name).await?;
        let Some(first) = checkpoints.first() else {
            return Err(Error::unknown_subscription(name));
        };
        let version = register::version(subscription).unwrap_or(1);
        if first.version != version {
            return Err(usage(format!(
                "subscription {name:?} keeps rows of version {}, and this is version {version}",
                first.version
            )));
        }
        if !dead_letters::parked_aggregates::<B>(connection, name)
            .await?
            .is_empty()
        {
            return Err(usage(format!(
                "subscription {name:?} has parked events, which its rows lack: replay or discard \
                 them before a snapshot is taken"
            )));
        }
        let id = Uuid::now_v7();
        let mut copies = Vec::with_capacity(tables.len());
        for (table, number) in tables.iter().zip(0..) {
            let copy = format!("cqrs_copy_{}_{number}", id.simple());
            copies.push(copy_table::<B>(connection, table, copy).await?);
        }
        copy_records::<B>(connection, name, &records_of(id)).await?;
        let positions: Vec<i64> = checkpoints.iter().map(|one| one.position.0).collect();
        self.insert_snapshot(connection, id, name, &positions, &copies)
            .await?;
        let record = ("snapshot", id.to_string());
        self.record(connection, name, record).await?;
        let taken = list_all::<B>(connection, name).await?;
        let taken = taken.into_iter().find(|snapshot| snapshot.id == id);
        taken.ok_or_else(|| Error::other("the snapshot was not written"))
    }

    async fn insert_snapshot(
        &self,
        connection: &mut B::Connection,
        id: Uuid,
        name: &str,
        positions: &[i64],
        tables: &[SnapshotTable],
    ) -> Result<()> {
        let metadata = self.context.metadata();
        let actor = metadata.actor.clone().map_or(Value::Null, Value::Text);
        let parameters = [
            Parameter::new(ColumnType::Uuid, Value::Uuid(id)),
            Parameter::text(name),
            Parameter::text(json(&positions)?),
            Parameter::text(json(&tables)?),
            Parameter::new(ColumnType::Text, actor),
            Parameter::new(ColumnType::Uuid, Value::Uuid(metadata.correlation_id)),
        ];
        let sql = "INSERT INTO cqrs_projection_snapshot (id, subscription, checkpoints, tables, \
                   actor, correlation_id) VALUES ($1, $2, $3, $4, $5, $6)";
        B::execute(connection, &sql.into(), &parameters)
            .await
            .map(drop)
    }

    /// The snapshots of a subscription, the latest first.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) where the store fails.
    pub async fn snapshots(&self, subscription: &str) -> Result<Vec<ProjectionSnapshot>> {
        let select = Select {
            sql: list_sql().into(),
            parameters: vec![Parameter::text(subscription)],
        };
        let place = Place::Alone(&self.shared);
        reads::rows(place, &select, None, |row: &B::Row| read_snapshot(row)).await
    }

    /// Removes a snapshot with its copies; `false` where there is none with this id.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) where the store fails.
    pub async fn remove_snapshot(&self, subscription: &str, id: Uuid) -> Result<bool> {
        let mut connection = queries::begin(&self.shared).await?;
        let removed = async {
            let connection = connection.get();
            let found = list_all::<B>(connection, subscription).await?;
            let Some(snapshot) = found.into_iter().find(|snapshot| snapshot.id == id) else {
                return Ok(false);
            };
            let records = records_of(id);
            let copies = snapshot.tables.iter().map(|table| &table.copy);
            for copy in copies.chain([&records]) {
                let drop = format!("DROP TABLE IF EXISTS {}", quoted(copy));
                B::execute_script(connection, drop).await?;
            }
            let sql = "DELETE FROM cqrs_projection_snapshot WHERE id = $1";
            let parameters = [Parameter::new(ColumnType::Uuid, Value::Uuid(id))];
            B::execute(connection, &sql.into(), &parameters).await?;
            let record = ("remove_snapshot", id.to_string());
            self.record(connection, subscription, record).await?;
            Ok(true)
        }
        .await;
        queries::end(connection, removed).await
    }
}

/// The tables of a subscription, all of them.
pub(super) fn what_it_keeps<B: Backend>(
    subscription: &Subscription<SqlTransaction<B>>,
) -> Result<&[Rebuilds]> {
    subscription.check()?;
    let name = subscription.name();
    building::refuse_name(name)?;
    let tables = subscription.tables().filter(|tables| !tables.is_empty());
    let Some(tables) = tables else {
        return Err(usage(format!(
            "what subscription {name:?} keeps is not known: its handlers say it with \
             `Projection::tables`"
        )));
    };
    let aggregates = tables.iter().map(|one| one.table);
    match aggregates
        .into_iter()
        .find(|table| table.is_aggregate() || table.is_child())
    {
        None => Ok(tables),
        Some(table) => Err(usage(format!(
            "table {} of subscription {name:?} holds aggregates, which are no projection of events",
            table.name()
        ))),
    }
}

/// The columns of a table that are copied: all but those that the database computes.
pub(super) fn copied(live: &[LiveColumn]) -> Vec<(String, String)> {
    let kept = live.iter().filter(|column| !column.is_generated);
    kept.map(|column| (column.name.clone(), column.type_name.clone()))
        .collect()
}

async fn copy_table<B: Backend>(
    connection: &mut B::Connection,
    kept: &Rebuilds,
    copy: String,
) -> Result<SnapshotTable> {
    let table = kept.table.name();
    let live = B::live_columns(connection, table).await?;
    if live.is_empty() {
        let message = format!("table {table}: found no such table");
        return Err(Error::store(StoreErrorKind::Schema, message));
    }
    let mut copied = SnapshotTable {
        table: table.to_owned(),
        version: kept.version,
        rows: 0,
        columns: copied(&live),
        copy,
    };
    let (name, columns) = (quoted(&copied.copy), copied.names());
    let create = format!(
        "CREATE TABLE {name} AS SELECT {columns} FROM {}",
        quoted(table)
    );
    B::execute_script(connection, create).await?;
    B::guard_copy(connection, table, &copied.copy).await?;
    copied.rows = count::<B>(connection, &copied.copy).await?;
    Ok(copied)
}

/// The table with the records of what was skipped, which the rows of a snapshot lack. There is none
/// where nothing was.
pub(super) fn records_of(id: Uuid) -> String {
    format!("cqrs_copy_{}_skipped", id.simple())
}

async fn copy_records<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    copy: &str,
) -> Result<()> {
    if !dead_letters::has_skipped::<B>(connection, name).await? {
        return Ok(());
    }
    let (letters, into) = (dead_letters::TABLE, quoted(copy));
    let create = format!("CREATE TABLE {into} AS SELECT * FROM {letters} WHERE 1 = 0");
    B::execute_script(connection, create).await?;
    B::guard_copy(connection, letters, copy).await?;
    let insert = format!(
        "INSERT INTO {into} SELECT * FROM {letters} WHERE subscription = $1 AND status = 'skipped'"
    );
    B::execute(connection, &insert.into(), &[Parameter::text(name)])
        .await
        .map(drop)
}

/// How many rows a table has.
pub(super) async fn count<B: Backend>(connection: &mut B::Connection, table: &str) -> Result<u64> {
    let sql = format!("SELECT count(*) FROM {}", quoted(table));
    let mut rows = 0;
    B::fetch(connection, &sql.into(), &[], None, |row| {
        rows = read(row, |row| some(row.read_i64(0)?))?;
        Ok(())
    })
    .await?;
    Ok(u64::try_from(rows).unwrap_or(0))
}

/// The snapshots of a subscription in a transaction, the latest first.
pub(super) async fn list_all<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
) -> Result<Vec<ProjectionSnapshot>> {
    let mut found = Vec::new();
    B::fetch(
        connection,
        &list_sql().into(),
        &[Parameter::text(name)],
        None,
        |row| {
            found.push(read_snapshot(row)?);
            Ok(())
        },
    )
    .await?;
    Ok(found)
}

fn list_sql() -> String {
    format!(
        "SELECT {COLUMNS} FROM cqrs_projection_snapshot WHERE subscription = $1 ORDER BY id DESC"
    )
}

fn read_snapshot<R: RowSource>(row: &R) -> Result<ProjectionSnapshot> {
    let (checkpoints, tables) = read(row, |row| {
        Ok((
            some(row.read_text(2)?)?.to_owned(),
            some(row.read_text(3)?)?.to_owned(),
        ))
    })?;
    // What another release has written in another way fits nothing.
    let checkpoints: Vec<i64> = serde_json::from_str(&checkpoints).unwrap_or_default();
    let checkpoints: Vec<Position> = checkpoints.into_iter().map(Position).collect();
    read(row, |row| {
        Ok(ProjectionSnapshot {
            id: some(row.read_uuid(0)?)?,
            subscription: some(row.read_text(1)?)?.to_owned(),
            position: checkpoints.iter().copied().min().unwrap_or(Position::START),
            tables: serde_json::from_str(&tables).unwrap_or_default(),
            actor: row.read_text(4)?.map(str::to_owned),
            taken_at: some(row.read_timestamp(6)?)?,
            checkpoints,
        })
    })
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(Error::other)
}

pub(super) fn usage(message: String) -> Error {
    Error::store(StoreErrorKind::Usage, message)
}
