//! Bulk work: inserts through COPY, and changes of many rows in one statement.
//!
//! COPY names no position, so positions come from the default of the column, in the order of the
//! rows. The server locks the table of a COPY before it takes the first row, in the same mode as an
//! INSERT: a position is drawn under the lock that the horizon looks for.
//!
//! A change is one statement for a batch of locked rows, which writes rows and events or neither:
//!
//! ```sql
//! WITH changed AS (
//!     UPDATE "route_plan" AS t SET "version" = t."version" + 1, "priority" = $1
//!     FROM unnest($2::uuid[], $3::int8[]) AS g(key, version)
//!     WHERE t."id" = g.key AND t."version" = g.version RETURNING 1),
//! logged AS (
//!     INSERT INTO cqrs_event (...) SELECT $4, ..., e.version + 1, ...
//!     FROM unnest($3::int8[], $16::text[], ...) WITH ORDINALITY AS e(version, tenant_id, ...)
//!     WHERE (SELECT count(*) FROM changed) = $19 ORDER BY e.ordinality RETURNING position)
//! SELECT position FROM logged ORDER BY position
//! ```

use cqrs_core::history::RevisionKind;
use cqrs_core::maintenance::{BulkChange, BulkWrites, ChosenRow, Inserted};
use cqrs_core::mapping::{Column, ColumnRole, Table, Value};
use cqrs_core::staging::{Operation, StagedWrite};
use cqrs_core::{
    AggregateRoot, ContentHash, Error, Metadata, Position, Result, StoreErrorKind, TenantId,
};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgConnection, PgCopyIn};
use uuid::Uuid;

use super::copy::Rows;
use super::error::{copy_error, error, is_disconnect};
use super::events::{self, ORIGIN};
use super::row::PgSource;
use super::write::history::{Kept, keep, not_kept};
use super::{Session, bind, write};
use crate::backend::bind::{bind, query};
use crate::backend::{Returned, Written, version_column, written_columns};
use crate::log::{EVENT_COLUMNS, read_event};
use crate::statements::{Statements, names, quoted};

/// What is sent at once.
const CHUNK: usize = 128 * 1024;
/// How much of the events is held back while rows are sent.
const HELD_BACK: usize = 8 * 1024 * 1024;
/// How much of the rows that follow is encoded after each piece of events that was sent: as much as
/// the server has work for.
const MEANWHILE: usize = 24 * 1024;
/// How much of them is encoded at most before it is their turn.
const AHEAD: usize = 2 * 1024 * 1024;
/// How many aggregates are one statement where COPY is not to be had, or their children are rows
/// too.
const ARRAY: usize = 1_000;

/// Inserts rows and events within a transaction.
pub(super) async fn insert(
    session: &mut Session,
    statements: &Statements,
    writes: BulkWrites<'_>,
    metadata: &Metadata,
) -> Result<Inserted> {
    let mut writes = writes.peekable();
    let table = match writes.peek() {
        Some(Ok(write)) => write.table,
        _ => return writes.next().transpose().map(|_| Inserted::default()),
    };
    if !table.children().is_empty() {
        return insert_by_arrays(session, statements, writes, metadata).await;
    }
    if is_row_security_active(&mut session.connection, table).await? {
        return insert_by_arrays(session, statements, writes, metadata).await;
    }
    let columns: Vec<(usize, &Column)> = written_columns(table, Operation::Insert).collect();
    let source = Source {
        writes: writes.fuse(),
        columns: &columns,
        metadata,
    };
    copy(session, statements, table, source).await
}

/// The server refuses COPY into a table whose policies apply to the role.
async fn is_row_security_active(connection: &mut PgConnection, table: &Table) -> Result<bool> {
    sqlx::query_scalar("SELECT coalesce(row_security_active(to_regclass(quote_ident($1))), false)")
        .bind(table.name())
        .fetch_one(connection)
        .await
        .map_err(|cause| error(cause, "asking for row-level security"))
}

async fn insert_by_arrays(
    session: &mut Session,
    statements: &Statements,
    mut writes: impl Iterator<Item = Result<StagedWrite>> + Send,
    metadata: &Metadata,
) -> Result<Inserted> {
    let mut inserted = Inserted::default();
    loop {
        let batch: Vec<StagedWrite> = writes.by_ref().take(ARRAY).collect::<Result<_>>()?;
        if batch.is_empty() {
            return Ok(inserted);
        }
        let returned = Returned::Positions;
        let written = write::apply(session, statements, &[], &batch, metadata, returned)
            .await
            .map_err(write::Failure::into_error)?;
        inserted.rows += batch.len();
        inserted.position = inserted.position.max(written.position);
    }
}

/// What is to be inserted, and how it is encoded.
struct Source<'s, W> {
    writes: W,
    columns: &'s [(usize, &'s Column)],
    metadata: &'s Metadata,
}

/// Copies rows and their events in turns. While the server takes the events of one batch, the next
/// is begun to be encoded, so that neither waits for the other.
async fn copy<W>(
    session: &mut Session,
    statements: &Statements,
    table: &'static Table,
    mut source: Source<'_, W>,
) -> Result<Inserted>
where
    W: Iterator<Item = Result<StagedWrite>> + Send,
{
    let mut inserted = Inserted::default();
    let mut last = None;
    let mut batch = Batch::of(table);
    loop {
        batch
            .copy_rows(&mut session.connection, &mut source)
            .await?;
        let mut next = Batch::of(table);
        batch
            .copy_events(&mut session.connection, &mut next, &mut source)
            .await?;
        let of = (table, batch.sent.kind);
        let kept = keep(
            session,
            statements,
            of,
            RevisionKind::Created,
            &batch.kept,
            source.metadata,
            not_written,
        );
        if !kept.await? {
            return Err(not_kept(table));
        }
        inserted.rows += batch.sent.ids.len();
        last = batch.last.or(last);
        if next.sent.ids.is_empty() {
            break;
        }
        batch = next;
    }
    if let Some(last) = last {
        inserted.position = Some(position(&mut session.connection, &last).await?);
    }
    Ok(inserted)
}

/// Some rows with their events.
struct Batch {
    rows: Rows,
    events: Rows,
    sent: Sent,
    /// Those of which a revision is to be kept.
    kept: Vec<Kept>,
    last: Option<StagedWrite>,
    /// Nothing follows.
    ends: bool,
}

impl Batch {
    fn of(table: &'static Table) -> Self {
        Self {
            rows: Rows::new(),
            events: Rows::new(),
            sent: Sent {
                table,
                kind: "",
                ids: Vec::new(),
            },
            kept: Vec::new(),
            last: None,
            ends: false,
        }
    }

    /// Encodes until there are so many bytes of rows, or enough of events, or nothing follows.
    fn encode<W>(&mut self, source: &mut Source<'_, W>, rows: usize) -> Result<()>
    where
        W: Iterator<Item = Result<StagedWrite>>,
    {
        while !self.is_full() && self.rows.len() < rows {
            let Some(write) = source.writes.next().transpose()? else {
                self.ends = true;
                break;
            };
            self.rows.begin(source.columns.len());
            for (index, column) in source.columns {
                self.rows.value(column.column_type(), &write.row[*index])?;
            }
            for event in &write.events {
                self.events.event(&write, event, source.metadata)?;
            }
            self.sent.kind = write.aggregate_type;
            self.sent.ids.push(write.aggregate_id.clone());
            if write.table.keeps_history() {
                self.kept.push(Kept::of(&write));
            }
            self.last = Some(write);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.ends || self.events.len() >= HELD_BACK
    }

    /// Sends the rows, and encodes what is not yet.
    async fn copy_rows<W>(
        &mut self,
        connection: &mut PgConnection,
        source: &mut Source<'_, W>,
    ) -> Result<()>
    where
        W: Iterator<Item = Result<StagedWrite>>,
    {
        let table = self.sent.table;
        let into = format!(
            "COPY {} ({}) FROM STDIN BINARY",
            quoted(table.name()),
            names(source.columns.iter().map(|(_, column)| *column))
        );
        let mut copy = begin(connection, &into, &self.sent).await?;
        loop {
            if let Err(cause) = self.encode(source, CHUNK) {
                return Err(give_up(copy, &self.sent, cause).await);
            }
            if self.is_full() {
                break;
            }
            copy = send(copy, self.rows.take(), &self.sent).await?;
        }
        self.rows.end();
        copy = send(copy, self.rows.take(), &self.sent).await?;
        copy.finish()
            .await
            .map_err(|cause| self.sent.error(cause))?;
        Ok(())
    }

    /// Sends the events, and encodes some of the next batch meanwhile.
    async fn copy_events<W>(
        &mut self,
        connection: &mut PgConnection,
        next: &mut Self,
        source: &mut Source<'_, W>,
    ) -> Result<()>
    where
        W: Iterator<Item = Result<StagedWrite>>,
    {
        let into = format!("COPY cqrs_event ({}) FROM STDIN BINARY", events::COLUMNS);
        let mut copy = begin(connection, &into, &self.sent).await?;
        self.events.end();
        let events = self.events.take();
        for chunk in events.chunks(CHUNK) {
            copy = send(copy, chunk, &self.sent).await?;
            let rows = (next.rows.len() + MEANWHILE).min(AHEAD);
            if let Err(cause) = next.encode(source, rows) {
                return Err(give_up(copy, &self.sent, cause).await);
            }
        }
        copy.finish()
            .await
            .map_err(|cause| self.sent.error(cause))?;
        Ok(())
    }
}

/// What a COPY carried, to say what was wrong with it.
struct Sent {
    table: &'static Table,
    kind: &'static str,
    ids: Vec<String>,
}

impl Sent {
    fn error(&self, cause: sqlx::Error) -> Error {
        copy_error(cause, self.table, self.kind, &self.ids)
    }
}

/// Ends a COPY since what follows cannot be written; why. Its transaction is rolled back.
async fn give_up(copy: PgCopyIn<&mut PgConnection>, sent: &Sent, cause: Error) -> Error {
    // Not with `abort`: where the server has refused the COPY already, that leaves an answer unread,
    // and each later statement is given the answer to the one before it.
    match copy.finish().await {
        Err(failed) if is_disconnect(&failed) => sent.error(failed),
        _ => cause,
    }
}

async fn begin<'c>(
    connection: &'c mut PgConnection,
    statement: &str,
    sent: &Sent,
) -> Result<PgCopyIn<&'c mut PgConnection>> {
    connection
        .copy_in_raw(statement)
        .await
        .map_err(|cause| sent.error(cause))
}

async fn send<'c>(
    mut copy: PgCopyIn<&'c mut PgConnection>,
    data: impl std::ops::Deref<Target = [u8]>,
    sent: &Sent,
) -> Result<PgCopyIn<&'c mut PgConnection>> {
    copy.send(data).await.map_err(|cause| sent.error(cause))?;
    Ok(copy)
}

/// The position of the last event of a write.
async fn position(connection: &mut PgConnection, write: &StagedWrite) -> Result<Position> {
    let version = i64::try_from(write.new_version).unwrap_or(i64::MAX);
    sqlx::query_scalar(
        "SELECT position FROM cqrs_event
         WHERE aggregate_type = $1 AND aggregate_id = $2 AND aggregate_version = $3",
    )
    .bind(write.aggregate_type)
    .bind(&write.aggregate_id)
    .bind(version)
    .fetch_one(connection)
    .await
    .map(Position)
    .map_err(|cause| error(cause, "looking for the events of a bulk insert"))
}

/// Changes rows that are locked, and appends their events.
pub(super) async fn change<A: AggregateRoot>(
    session: &mut Session,
    statements: &Statements,
    change: &BulkChange<A>,
    rows: &[ChosenRow<A>],
    returned: Returned,
) -> Result<Written> {
    let table = A::table();
    let mut arguments = PgArguments::default();
    for (index, value) in &change.assignments {
        let column = &table.columns()[*index];
        bind::add(&mut arguments, column.column_type(), value)?;
    }
    bind::add_column(
        &mut arguments,
        key_column(table).column_type(),
        rows.iter().map(|row| &row.key),
    )?;
    let version = |row: &ChosenRow<A>| i64::try_from(row.version).unwrap_or(i64::MAX);
    bind(&mut arguments, rows.iter().map(version).collect::<Vec<_>>())?;
    events::bind_origin(&mut arguments, &change.metadata)?;
    let event = &change.event;
    bind(&mut arguments, A::TYPE)?;
    bind(&mut arguments, event.event_type)?;
    let schema_version = i32::try_from(event.schema_version).unwrap_or(i32::MAX);
    bind(&mut arguments, schema_version)?;
    bind(&mut arguments, event.payload.as_str())?;
    let events: Vec<Uuid> = rows.iter().map(|_| Uuid::now_v7()).collect();
    let each = rows.iter().zip(&events);
    let hashes = each.map(|(row, event)| change.hash_of(row, *event));
    let hashes: Vec<_> = hashes.take_while(|_| table.is_chained()).collect();
    match table.is_chained() {
        true => {
            let all = hashes.iter().map(ContentHash::to_bytes);
            bind(&mut arguments, all.collect::<Vec<_>>())?;
        }
        false => bind(&mut arguments, event.content_hash.to_bytes())?,
    }
    bind(&mut arguments, event.occurred_at)?;
    bind(&mut arguments, event.schema_id.as_deref())?;
    let tenants = rows.iter().map(|row| row.tenant.as_ref());
    let tenants: Vec<Option<&str>> = tenants.map(|id| id.map(TenantId::as_str)).collect();
    bind(&mut arguments, tenants)?;
    let ids: Vec<&str> = rows.iter().map(|row| row.aggregate_id.as_str()).collect();
    bind(&mut arguments, ids)?;
    bind(&mut arguments, events)?;
    bind(
        &mut arguments,
        i64::try_from(rows.len()).unwrap_or(i64::MAX),
    )?;
    if table.is_chained() {
        let links = hashes.iter().map(|hash| hash.link().map(Vec::from));
        bind(&mut arguments, links.collect::<Vec<_>>())?;
    }

    if change.deletes {
        keep_changed(session, statements, change, rows).await?;
    }
    let sql = change_sql(table, &change.assignments, change.deletes, returned).into();
    let logged = query(&sql, arguments)
        .fetch_all(&mut session.connection)
        .await
        .map_err(|cause| error(cause, "changing rows in bulk"))?;
    if logged.len() != rows.len() {
        return Err(Error::store(
            StoreErrorKind::Database,
            format!(
                "not all rows of table {} were changed; a trigger may keep them",
                table.name()
            ),
        ));
    }
    if !change.deletes {
        keep_changed(session, statements, change, rows).await?;
    }
    let mut written = Written::default();
    for row in logged {
        let position = row
            .try_get(0)
            .map_err(|cause| error(cause, "changing rows in bulk"))?;
        written.position = written.position.max(Some(Position(position)));
        if returned == Returned::Events {
            written.envelopes.push(read_event(&PgSource(row))?);
        }
    }
    Ok(written)
}

/// Keeps the revisions of rows that a change has changed, or is about to delete.
async fn keep_changed<A: AggregateRoot>(
    session: &mut Session,
    statements: &Statements,
    change: &BulkChange<A>,
    rows: &[ChosenRow<A>],
) -> Result<()> {
    let table = A::table();
    if !table.keeps_history() {
        return Ok(());
    }
    let time = change.event.occurred_at;
    let kept = rows.iter().map(|row| {
        Kept::changed(
            &row.key,
            &row.aggregate_id,
            row.version,
            change.deletes,
            time,
        )
    });
    let kept: Vec<Kept> = kept.collect();
    let of = (table, A::TYPE);
    match keep(
        session,
        statements,
        of,
        change.kind,
        &kept,
        &change.metadata,
        not_written,
    )
    .await?
    {
        true => Ok(()),
        false => Err(not_kept(table)),
    }
}

fn not_written(cause: sqlx::Error) -> Error {
    error(cause, "keeping revisions")
}

fn key_column(table: &Table) -> &Column {
    table
        .key_columns()
        .next()
        .expect("the derive gives every aggregate a key")
}

fn change_sql(
    table: &Table,
    assignments: &[(usize, Value)],
    deletes: bool,
    returned: Returned,
) -> String {
    let returned = match returned {
        Returned::Positions => "position",
        Returned::Events => EVENT_COLUMNS,
    };
    let name = quoted(table.name());
    let key = key_column(table);
    let keys = assignments.len() + 1;
    let versions = keys + 1;
    let first = versions + ORIGIN;
    let at = |offset: usize| format!("${}", first + offset);
    // The heads of chains differ from row to row, and so do the hashes of their events.
    let head = table.column_with(ColumnRole::ChainHead).map(Column::name);
    let (links, link) = match head {
        Some(_) => (format!(", {}::bytea[]", at(12)), ", link"),
        None => (String::new(), ""),
    };
    let source = format!(
        "unnest(${keys}::{}, ${versions}::int8[]{links}) AS g(key, version{link})",
        bind::array_type(key.column_type())
    );
    let version = quoted(version_column(table));
    let guard = format!(
        "t.{} = g.key AND t.{version} = g.version",
        quoted(key.name())
    );
    let changed = if deletes {
        format!("DELETE FROM {name} AS t USING {source} WHERE {guard} RETURNING 1")
    } else {
        let set: String = assignments
            .iter()
            .enumerate()
            .map(|(place, (index, _))| {
                let column = &table.columns()[*index];
                let cast = bind::cast(column.column_type());
                format!(", {} = ${}{cast}", quoted(column.name()), place + 1)
            })
            .collect();
        let set = match head {
            Some(head) => format!("{set}, {} = g.link", quoted(head)),
            None => set,
        };
        format!(
            "UPDATE {name} AS t SET {version} = t.{version} + 1{set} FROM {source} WHERE {guard} \
             RETURNING 1"
        )
    };
    let children: String = match deletes {
        true => table
            .children()
            .iter()
            .enumerate()
            .map(|(index, child)| {
                let name = quoted(child.name());
                let parent = child
                    .column_with(ColumnRole::Parent)
                    .map_or("", Column::name);
                let parent = quoted(parent);
                format!(
                    ", children_{index} AS (DELETE FROM {name} AS t USING {source} \
                     WHERE t.{parent} = g.key)"
                )
            })
            .collect(),
        false => String::new(),
    };
    let origin = write::placeholders(versions + 1, ORIGIN);
    let (hash, hashes, content_hash) = match head {
        Some(_) => (
            "e.content_hash".to_owned(),
            format!(", {}::bytea[]", at(5)),
            "content_hash, ",
        ),
        None => (at(5), String::new(), ""),
    };
    format!(
        "WITH changed AS ({changed}){children}, logged AS (INSERT INTO cqrs_event ({}) SELECT {origin}, \
         e.tenant_id, {}, e.aggregate_id, e.event_id, e.version + 1, {}, {}, {}::json, {}, {}, {} \
         FROM unnest(${versions}::int8[], {}::text[], {}::text[], {}::uuid[]{hashes}) WITH ORDINALITY \
         AS e(version, tenant_id, aggregate_id, event_id, {content_hash}ordinality) \
         WHERE (SELECT count(*) FROM changed) = {} ORDER BY e.ordinality RETURNING {returned}) \
         SELECT {returned} FROM logged ORDER BY position",
        events::COLUMNS,
        at(1),
        at(2),
        at(3),
        at(4),
        hash,
        at(6),
        at(7),
        at(8),
        at(9),
        at(10),
        at(11),
    )
}
