//! What a database does its own way. Everything else in this crate is written against
//! [`Backend`].

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod bind;
mod columns;
mod commit;
mod dialect;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod json_path;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod migrations;
mod parameter;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod rows;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod schema;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod transaction;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod url;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cqrs_core::maintenance::{BulkChange, BulkWrites, ChosenRow, Inserted};
use cqrs_core::mapping::{ColumnType, RowSource, Table, Value};
use cqrs_core::staging::StagedWrite;
use cqrs_core::{
    AggregateRoot, Error, Metadata, Owned, Position, ReadModel, Result, RowAddress, TenantScope,
};

use crate::connections::Connect;
use crate::health::HorizonHolder;
use crate::statements::Statements;
use crate::verify::{LiveColumn, LiveForeignKey, LiveKey, ParameterType, Prepared, ResultColumn};

pub(crate) use self::columns::version_column;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use self::columns::{
    child_address, child_equals, children_changed, written_child_columns, written_columns,
};
pub(crate) use self::commit::{Committed, Process, Proof, Returned, Written};
pub(crate) use self::dialect::Dialect;
pub(crate) use self::parameter::{Parameter, Parameters, size};

/// What processes tell each other about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    /// Events were committed.
    Committed,
    /// An operator has changed what a subscription is to do.
    Operated,
    /// Somebody waits for a subscription.
    Awaited,
    /// A subscription is where somebody waits for it, or halted.
    Arrived,
}

/// Something that a process tells the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: Topic,
    pub(crate) content: String,
}

/// Something that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) topic: Topic,
    pub(crate) content: String,
    /// The process of the server that told it.
    pub(crate) teller: Option<i32>,
}

/// By what an open transaction is told from one that was begun after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark(pub(crate) String);

/// The version of a row, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowVersion(pub(crate) String);

/// Moving a checkpoint, if its row is still of the version that was seen.
#[cfg_attr(
    not(feature = "postgres"),
    expect(dead_code, reason = "SQLite locks what it writes")
)]
#[derive(Debug, Clone)]
pub(crate) struct Advance {
    /// The statement: subscription, segment, position and version are bound in this order, and it
    /// returns the new version.
    pub(crate) sql: Arc<str>,
    /// A query that finds a row while the checkpoint is of the version that was seen: subscription,
    /// segment and version are bound.
    pub(crate) is_seen: Arc<str>,
    pub(crate) subscription: Arc<str>,
    pub(crate) segment: i64,
    pub(crate) position: Position,
    pub(crate) seen: RowVersion,
}

/// What is written to a read table: rows that are inserted or replaced, and others that are deleted.
#[cfg_attr(
    not(feature = "postgres"),
    expect(dead_code, reason = "SQLite locks what it writes")
)]
#[derive(Debug)]
pub(crate) struct RowWrites {
    pub(crate) table: &'static Table,
    pub(crate) upserts: Vec<Vec<Value>>,
    pub(crate) deletes: Vec<RowAddress>,
}

/// The horizon of the log, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Horizon {
    /// Every event up to here that will ever exist is visible to a statement that begins now.
    pub(crate) position: Position,
    /// Whether writers are under way, so that looking again soon may find more.
    pub(crate) writers: bool,
}

/// A database.
///
/// Sealed: the backends of this crate are [`Postgres`](crate::Postgres) and
/// [`Sqlite`](crate::Sqlite), each behind its feature.
#[expect(private_bounds, reason = "sealed")]
pub trait Backend: Backed {
    /// sqlx's connection to it.
    type Raw: Send;
}

/// The operations of a [`Backend`].
///
/// None of them retries. Errors are classified ([`cqrs_core::StoreErrorKind`]).
pub(crate) trait Backed: Connect + Clone + std::fmt::Debug {
    /// A row of a result.
    type Row: RowSource + 'static;
    /// What the horizon remembers from one look to the next.
    type Horizon: Default + Send;
    /// What hears of the commits of other processes.
    type Listener: Send;

    /// How often to look for events that nothing told of, while something happens.
    const POLL_INTERVAL: Duration;

    /// Its words.
    const DIALECT: Dialect;

    /// sqlx's connection.
    fn raw(connection: &mut Self::Connection) -> &mut Self::Raw
    where
        Self: Backend;

    /// Begins a transaction that will write.
    fn begin(connection: &mut Self::Connection) -> impl Future<Output = Result<()>> + Send;

    /// Begins a transaction that refuses to write, and whose reads all see one moment. It is
    /// rolled back, never committed.
    fn begin_reading(connection: &mut Self::Connection) -> impl Future<Output = Result<()>> + Send;

    /// Confines the open transaction to a tenant scope, which policies of the database enforce. Only
    /// for stores that were asked for that.
    fn confine(
        connection: &mut Self::Connection,
        scope: &TenantScope,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Where the policies do not hold for these tables, or the framework's own.
    fn policy_gaps(
        connection: &mut Self::Connection,
        tables: &[&str],
    ) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Sets a savepoint in the transaction.
    fn begin_savepoint(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Forgets the innermost savepoint. Where it fails, the savepoint stays.
    fn release_savepoint(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Rolls back to the innermost savepoint, and forgets it.
    fn roll_back_savepoint(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Commits the transaction.
    fn commit(connection: &mut Self::Connection) -> impl Future<Output = Result<()>> + Send;

    /// Commits the transaction of a page and begins another like it, in one round trip where it
    /// can. Refuses where a statement has failed in it, or where it is over, also where another was
    /// begun since.
    fn commit_and_begin(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Rolls the transaction back.
    fn rollback(connection: &mut Self::Connection) -> impl Future<Output = Result<()>> + Send;

    /// Runs a query and hands each row to `each` as it arrives.
    ///
    /// Where a table is given, the columns of the result must have the types of its columns.
    fn fetch<F>(
        connection: &mut Self::Connection,
        sql: &Arc<str>,
        parameters: &[Parameter],
        table: Option<&'static Table>,
        each: F,
    ) -> impl Future<Output = Result<()>> + Send
    where
        F: FnMut(&Self::Row) -> Result<()> + Send;

    /// As [`fetch`](Self::fetch), and waits for what `each` returns before it goes on.
    fn fetch_slowly<F, W>(
        connection: &mut Self::Connection,
        sql: &Arc<str>,
        parameters: &[Parameter],
        table: &'static Table,
        each: F,
    ) -> impl Future<Output = Result<()>> + Send
    where
        F: FnMut(&Self::Row) -> Result<W> + Send,
        W: Future<Output = ()> + Send;

    /// Runs a statement; how many rows it changed.
    fn execute(
        connection: &mut Self::Connection,
        sql: &Arc<str>,
        parameters: &[Parameter],
    ) -> impl Future<Output = Result<u64>> + Send;

    /// Runs statements without parameters, separated by semicolons.
    fn execute_script(
        connection: &mut Self::Connection,
        sql: String,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Commits writes on a connection that is in no transaction, in as few round trips as it can.
    fn commit_writes(
        connection: &mut Self::Connection,
        statements: &Statements,
        writes: &[StagedWrite],
        metadata: &Metadata,
    ) -> impl Future<Output = Committed> + Send;

    /// Commits writes of one table and operation, each of another caller, in one statement, on a
    /// connection that is in no transaction. `None` for each that was not written, for whatever
    /// reason: who asks for it alone is told.
    fn commit_together(
        _: &mut Self::Connection,
        _: &Statements,
        _: &[(&StagedWrite, &Metadata)],
    ) -> impl Future<Output = Committed<Vec<Option<Written>>>> + Send {
        std::future::ready(Committed::Refused(Error::other(
            "commits are not coalesced in this database",
        )))
    }

    /// Reads rows of a table by their keys, for callers who see the living rows of all tenants, or each
    /// of its own: the lists are of the tenants, where there are any, and of the keys. `each` gets the
    /// rows that are there as they arrive, with the place of what they were asked by.
    fn read_together<F>(
        _: &mut Self::Connection,
        _: &Statements,
        _: &'static Table,
        _: &[Parameter],
        _: F,
    ) -> impl Future<Output = Result<()>> + Send
    where
        F: FnMut(usize, &Self::Row) + Send,
    {
        std::future::ready(Err(Error::other(
            "loads are not coalesced in this database",
        )))
    }

    /// Checks guards and applies writes within a transaction. Until it ends, nobody changes what is
    /// guarded.
    fn apply_writes(
        connection: &mut Self::Connection,
        statements: &Statements,
        guards: &[StagedWrite],
        writes: &[StagedWrite],
        metadata: &Metadata,
        returned: Returned,
    ) -> impl Future<Output = Result<Written>> + Send;

    /// Inserts new rows of one table with their events within a transaction; see
    /// [`BulkStore::bulk_insert`](cqrs_core::maintenance::BulkStore::bulk_insert).
    fn insert_in_bulk(
        connection: &mut Self::Connection,
        statements: &Statements,
        writes: BulkWrites<'_>,
        metadata: &Metadata,
    ) -> impl Future<Output = Result<Inserted>> + Send;

    /// Changes rows that the transaction has locked, and appends the event of each; the position
    /// of the last, and the events where they are asked for.
    fn change_in_bulk<A: AggregateRoot>(
        connection: &mut Self::Connection,
        statements: &Statements,
        change: &BulkChange<A>,
        rows: &[ChosenRow<A>],
        returned: Returned,
    ) -> impl Future<Output = Result<Written>> + Send;

    /// The process of the server that works for this connection.
    fn process(connection: &Self::Connection) -> Process;

    /// Whether each transaction of a connection may have another process: then nothing of the session
    /// lasts longer than a transaction.
    fn is_pooled(&self) -> bool {
        false
    }

    /// How many transactions and savepoints sqlx counts on the connection.
    fn depth(connection: &Self::Connection) -> usize;

    /// Marks the open transaction, in which something was written, before SQL of the application
    /// runs in it: that may end the transaction and begin another.
    fn mark(connection: &mut Self::Connection)
    -> impl Future<Output = Result<Option<Mark>>> + Send;

    /// Whether the transaction that was begun, and where there is a mark the one that was marked,
    /// is still open, after SQL of the application ran in it. `true` also where the database
    /// refuses every statement that follows in one that failed. A mark that is good for one look
    /// is taken out.
    ///
    /// After `false` the transaction is rolled back as every other.
    fn is_in_transaction(
        connection: &mut Self::Connection,
        mark: &mut Option<Mark>,
    ) -> impl Future<Output = Result<bool>> + Send;

    /// The id that the database gave the open transaction; `None` where it wrote nothing yet, or
    /// where commits cannot be lost.
    fn transaction_id(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<Option<String>>> + Send;

    /// Finds out what became of commits whose connection broke: waits until the server is
    /// certain not to work on them any more, and looks for the proof of each. `None` for one that
    /// was not committed.
    fn resolve(
        &self,
        process: Process,
        proofs: &[Proof<'_>],
    ) -> impl Future<Output = Result<Vec<Option<Written>>>> + Send;

    /// Whether a process works on a statement that waits for a lock of another; then that is
    /// cancelled.
    fn give_up_waiting(&self, process: &Process) -> impl Future<Output = Result<bool>> + Send;

    /// Advances what is known of the horizon and returns it: every event up to it that will ever
    /// exist is visible to a statement that begins now.
    fn horizon(
        connection: &mut Self::Connection,
        known: &mut Self::Horizon,
    ) -> impl Future<Output = Result<Horizon>> + Send;

    /// The transactions that hold the horizon, the oldest first.
    fn holders(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<Vec<HorizonHolder>>> + Send;

    /// Tells who [listens](Self::listen) in other processes. Not within a transaction.
    fn notify(
        connection: &mut Self::Connection,
        messages: &[Message],
    ) -> impl Future<Output = Result<()>> + Send;

    /// Begins to listen to what is told about these topics, on a connection of its own.
    fn listen(&self, topics: &[Topic]) -> impl Future<Output = Result<Self::Listener>> + Send;

    /// Waits until there is something to hear; `None` where something may have been missed.
    fn heard(listener: &mut Self::Listener) -> impl Future<Output = Result<Option<Heard>>> + Send;

    /// Loads read rows from a table with the columns of theirs. See
    /// [`cqrs_core::ProjectionTransaction::load`].
    ///
    /// Where they are for a page without a lock, as they are while its checkpoint is as it was seen:
    /// `None` where it is not.
    fn load_rows<R: ReadModel>(
        connection: &mut Self::Connection,
        statements: &Statements,
        table: &'static Table,
        addresses: &[RowAddress],
        page: Option<&Advance>,
    ) -> impl Future<Output = Result<Option<Vec<Owned<R>>>>> + Send;

    /// Writes read rows. See [`cqrs_core::ProjectionTransaction::upsert`].
    fn upsert_rows(
        connection: &mut Self::Connection,
        statements: &Statements,
        table: &'static Table,
        rows: Vec<Vec<Value>>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Deletes read rows. See [`cqrs_core::ProjectionTransaction::delete`].
    fn delete_rows(
        connection: &mut Self::Connection,
        statements: &Statements,
        table: &'static Table,
        addresses: &[RowAddress],
    ) -> impl Future<Output = Result<()>> + Send;

    /// Moves a checkpoint and writes rows in one statement. Returns the new version of its row; `None`
    /// where that is not the one that was seen, and then nothing is written. Only where rows have
    /// versions.
    fn advance(
        connection: &mut Self::Connection,
        statements: &Statements,
        advance: &Advance,
        writes: Option<&RowWrites>,
    ) -> impl Future<Output = Result<Option<RowVersion>>> + Send;

    /// The columns of a result.
    fn result_columns(row: &Self::Row) -> Vec<ResultColumn>;

    /// Whether a column of a result whose type the driver names so may be read as a type.
    fn can_decode(column_type: ColumnType, type_name: &str) -> bool;

    /// Prepares a statement, with parameters of these types where some are given.
    fn prepare(
        connection: &mut Self::Connection,
        sql: &Arc<str>,
        parameters: &[ParameterType],
    ) -> impl Future<Output = Result<Prepared>> + Send;

    /// Whether the driver names the type of a parameter so.
    fn is_parameter_type(parameter: ParameterType, type_name: &str) -> bool;

    /// Brings the framework's own tables up to date.
    fn migrate(connection: &mut Self::Connection) -> impl Future<Output = Result<()>> + Send;

    /// The statements that create a table, and those of its children.
    fn create_table_sql(table: &Table) -> String;

    /// The statements that create the [shadow](Table::shadow) of a table, with what belongs to the
    /// table in the database and not in the code: indexes, constraints, rights, policies.
    ///
    /// # Errors
    ///
    /// `Usage` where something hangs on the table that would not survive
    /// [the switch](Self::exchange).
    fn shadow_sql(
        connection: &mut Self::Connection,
        table: &'static Table,
    ) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Puts the shadow of a table in its place, in the open transaction.
    ///
    /// # Errors
    ///
    /// Also where something hangs on the table by now that could not follow. The transaction has to
    /// be rolled back then.
    fn exchange(
        connection: &mut Self::Connection,
        table: &'static Table,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Keeps those that may not see all rows of a table from those of a copy of it.
    fn guard_copy(
        connection: &mut Self::Connection,
        table: &str,
        copy: &str,
    ) -> impl Future<Output = Result<()>> + Send;

    /// The columns of a table of the database; empty where there is no such table.
    fn live_columns(
        connection: &mut Self::Connection,
        table: &str,
    ) -> impl Future<Output = Result<Vec<LiveColumn>>> + Send;

    /// The primary and the unique keys of a table of the database, of all rows and of plain columns.
    fn live_keys(
        connection: &mut Self::Connection,
        table: &str,
    ) -> impl Future<Output = Result<Vec<LiveKey>>> + Send;

    /// The foreign keys of a table of the database.
    fn live_foreign_keys(
        connection: &mut Self::Connection,
        table: &str,
    ) -> impl Future<Output = Result<Vec<LiveForeignKey>>> + Send;

    /// Whether a live column can hold values of a type, or what would be expected of it.
    fn fits(column_type: ColumnType, live: &LiveColumn) -> std::result::Result<(), &'static str>;
}

/// A number to lock by, which is the same in every process. FNV-1a.
pub(crate) fn stable_hash(bytes: impl IntoIterator<Item = u8>) -> i32 {
    let start = 0x811c_9dc5_u32;
    let hash = bytes.into_iter().fold(start, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.cast_signed()
}
