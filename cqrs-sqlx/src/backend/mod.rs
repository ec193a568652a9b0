//! What a database does its own way. Everything else in this crate is written against
//! [`Backend`].

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod bind;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod json_path;
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
use cqrs_core::mapping::{Column, ColumnRole, ColumnType, RowSource, Table, Value};
use cqrs_core::staging::{Operation, StagedWrite};
use cqrs_core::{
    AggregateRoot, Envelope, Error, JsonPlace, Metadata, Owned, Position, RawPayload, ReadModel,
    Result, RowAddress, StoreErrorKind, TenantScope, TextTest,
};
use uuid::Uuid;

use crate::connections::Connect;
use crate::health::HorizonHolder;
use crate::statements::Statements;
use crate::tenancy::{self, TenantSite};
use crate::verify::{LiveColumn, LiveForeignKey, LiveKey, ParameterType, Prepared, ResultColumn};

/// What is bound to one place of a statement, with the type of its values, which NULL and an empty
/// list do not tell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Parameter {
    /// One value.
    One(ColumnType, Value),
    /// One value, bound with the type of its column, where no text around it says that.
    Typed(ColumnType, Value),
    /// A list of values.
    List(ColumnType, Vec<Value>),
}

impl Parameter {
    pub(crate) fn new(column_type: ColumnType, value: Value) -> Self {
        Self::One(column_type, value)
    }

    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::new(ColumnType::Text, Value::Text(text.into()))
    }

    pub(crate) fn int(value: i64) -> Self {
        Self::new(ColumnType::Int64, Value::Int(value))
    }

    /// The values of rows of parameters, all of one form, as a list for each column.
    pub(crate) fn columns(rows: &[&[Self]]) -> Vec<Self> {
        let width = rows.first().map_or(0, |row| row.len());
        let column = |at: usize| {
            let values = rows.iter().filter_map(|row| match row.get(at)? {
                Self::One(_, value) | Self::Typed(_, value) => Some(value.clone()),
                Self::List(..) => None,
            });
            Self::List(rows[0][at].column_type(), values.collect())
        };
        (0..width).map(column).collect()
    }

    /// How many bytes of texts, documents and bytes there are in it.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::One(_, value) | Self::Typed(_, value) => size(value),
            Self::List(_, values) => values.iter().map(size).sum(),
        }
    }

    fn column_type(&self) -> ColumnType {
        match self {
            Self::One(of, _) | Self::Typed(of, _) | Self::List(of, _) => *of,
        }
    }
}

/// How many bytes of texts, documents and bytes a value has.
pub(crate) fn size(value: &Value) -> usize {
    match value {
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

/// The parameters of a statement, in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Parameters(pub(crate) Vec<Parameter>);

impl Parameters {
    /// Adds one and returns how the statement refers to it: `$1`.
    pub(crate) fn add(&mut self, parameter: Parameter) -> String {
        self.0.push(parameter);
        format!("${}", self.0.len())
    }
}

/// By what the process of the database's server is known that works for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Process {
    /// The same for as long as the connection lives: which one, and since when, as ids are used
    /// again.
    Own { id: i32, started: String },
    /// Behind a pooler each transaction may have another, which holds this lock until the transaction
    /// has ended.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "SQLite has no server")
    )]
    Holding(i64),
}

impl Process {
    /// Its id, where it is known for longer than a transaction.
    pub(crate) fn id(&self) -> Option<i32> {
        match self {
            Self::Own { id, .. } => Some(*id),
            Self::Holding(_) => None,
        }
    }
}

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

/// How the SQL that is shared by all databases differs in its words.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// Its name, as SQL of finders is given for it.
    pub(crate) name: &'static str,
    /// After a text column that is compared or sorted by its bytes.
    pub(crate) byte_order: &'static str,
    /// After the statement that claims a checkpoint: locks it, unless another has.
    pub(crate) claim: &'static str,
    /// Locks the rows of a table that have the numbers of a list, until the transaction ends; they
    /// need not exist. Empty where a transaction that writes has the database for itself.
    pub(crate) lock_rows: &'static str,
    /// After a query whose rows are locked until the transaction ends.
    pub(crate) lock: &'static str,
    /// After that, where rows that others have locked are left out.
    pub(crate) skip_locked: &'static str,
    /// Keeps others from adding to the log until the transaction ends. Empty where a transaction
    /// that writes has the database for itself.
    pub(crate) lock_log: &'static str,
    /// After the columns of a statement that begins a page: marks its transaction, for
    /// [`commit_and_begin`](Backend::commit_and_begin). Empty where [`mark`](Backend::mark) does.
    pub(crate) open_page: &'static str,
    /// Has what follows in a transaction fail where it would wait for a lock for long. Empty where a
    /// transaction that writes has the database for itself.
    pub(crate) hurry: &'static str,
    /// At the beginning of a transaction, has all its statements see one moment, at which these
    /// tables have their names, and keeps others from exchanging them. Empty where a transaction
    /// that writes has the database for itself.
    pub(crate) one_moment: fn(tables: &[&str]) -> String,
    /// Whether one statement can claim a checkpoint, move it, and read a page.
    pub(crate) claims_in_one: bool,
    /// The system column that has another value after each change of a row. Empty where rows have
    /// none.
    pub(crate) row_version: &'static str,
    /// After the columns that a statement returns: has the commit of its transaction not wait for the
    /// disk. Empty where nothing is [moved by its version](Backend::advance).
    pub(crate) without_flush: &'static str,
    /// Whether an aggregate, by its columns `aggregate_type` and `aggregate_id`, is of this segment
    /// of so many. The hash is the database's own, and of no meaning outside of it.
    pub(crate) in_segment: fn(segment: &str, segments: &str) -> String,
    /// Before an operand that is not to be looked up in an index. Empty where the planner knows better.
    pub(crate) unindexed: &'static str,
    /// The time now, of the database.
    pub(crate) now: &'static str,
    /// The type of a column.
    pub(crate) type_name: fn(ColumnType) -> &'static str,
    /// Whether an operand of this type is in the list that a parameter holds.
    pub(crate) in_list: fn(operand: &str, column_type: ColumnType, list: &str) -> String,
    /// Whether an operand is among what a query of one column selects. Of few, they are found by the
    /// index of the operand.
    pub(crate) in_rows: fn(operand: &str, query: &str) -> String,
    /// A test of an operand that is text.
    pub(crate) text_test:
        fn(operand: &str, test: TextTest, text: &str, parameters: &mut Parameters) -> String,
    /// What a place in the document of a column holds; NULL where it is of another kind.
    pub(crate) json: fn(column: &str, place: &JsonPlace, parameters: &mut Parameters) -> String,
    /// Whether a column differs from a parameter, where NULL is a value like any other.
    pub(crate) differs: fn(operand: &str, column_type: ColumnType, parameter: &str) -> String,
    /// After a statement that reads rows which are about to be changed.
    pub(crate) lock_to_change: &'static str,
    /// After a statement that reads rows which are about to be deleted.
    pub(crate) lock_to_delete: &'static str,
    /// The most parameters of one statement.
    pub(crate) max_parameters: usize,
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

/// What became of a commit.
#[derive(Debug)]
pub(crate) enum Committed<T = Written> {
    /// It is durable.
    Done(T),
    /// It was refused; nothing was written.
    Refused(Error),
    /// The connection broke before the answer came.
    Lost(Error),
}

/// What was written to the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Written {
    /// The ids of the events, in the order in which they were staged. Those of saves that turned
    /// out to change nothing are not among them.
    pub(crate) events: Vec<Uuid>,
    /// The highest position; `None` where nothing was written.
    pub(crate) position: Option<Position>,
    /// The events as the log holds them, where [`Returned::Events`] was asked for.
    pub(crate) envelopes: Vec<Envelope<RawPayload>>,
}

/// What a write to the log brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returned {
    /// The position of each event.
    Positions,
    /// Each event as the log holds it.
    Events,
}

/// By what a commit is recognised after its connection broke.
#[cfg_attr(
    not(feature = "postgres"),
    expect(dead_code, reason = "in process no answer is lost")
)]
#[derive(Debug)]
pub(crate) enum Proof<'a> {
    /// The events of these writes: at least one is in the log, or none is.
    Events(&'a [StagedWrite]),
    /// The id that the database gave the transaction.
    Transaction(String),
    /// There was no commit; only its locks must be gone before the work is done again.
    Nothing,
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

/// The columns that an operation writes, with their positions in the row.
pub(crate) fn written_columns(
    table: &'static Table,
    operation: Operation,
) -> impl Iterator<Item = (usize, &'static Column)> {
    let soft_delete = table.is_soft_delete();
    table
        .columns()
        .iter()
        .enumerate()
        .filter(move |(_, column)| {
            if !column.is_written() {
                return false;
            }
            let role = column.role();
            let deletion = matches!(role, ColumnRole::DeletedAt | ColumnRole::DeletedBy);
            match operation {
                Operation::Insert => !deletion,
                Operation::Update | Operation::UpdateIfChanged => {
                    !deletion && !StagedWrite::keeps(role)
                }
                Operation::Remove => {
                    soft_delete && !StagedWrite::keeps(role) && role != ColumnRole::Data
                }
            }
        })
}

/// The name of the version column.
pub(crate) fn version_column(table: &Table) -> &str {
    table
        .column_with(ColumnRole::Version)
        .map_or("version", Column::name)
}

/// The columns of a table of children that are written, with their positions in the row.
pub(crate) fn written_child_columns(
    table: &'static Table,
) -> impl Iterator<Item = (usize, &'static Column)> {
    let columns = table.columns().iter().enumerate();
    columns.filter(|(_, column)| column.is_written())
}

/// The columns by which a row of a table of children is found, with their positions in the row:
/// its primary key, and its tenant.
pub(crate) fn child_address(
    table: &'static Table,
) -> impl Iterator<Item = (usize, &'static Column)> {
    let is_key = |column: &Column| table.primary_key().any(|key| key == column);
    let columns = table.columns().iter().enumerate();
    columns.filter(move |(_, column)| column.role() == ColumnRole::Tenant || is_key(column))
}

/// The condition that a column of a child's address has a value.
pub(crate) fn child_equals(column: &Column, name: &str, value: &str) -> String {
    if column.role() == ColumnRole::Tenant {
        return tenancy::equals(TenantSite::ChildRows, name, value);
    }
    format!("{name} = {value}")
}

/// A number to lock by, which is the same in every process. FNV-1a.
pub(crate) fn stable_hash(bytes: impl IntoIterator<Item = u8>) -> i32 {
    let start = 0x811c_9dc5_u32;
    let hash = bytes.into_iter().fold(start, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.cast_signed()
}

/// The error of a change to children whose rows are not those that were loaded.
pub(crate) fn children_changed(table: &Table) -> Error {
    Error::store(
        StoreErrorKind::Contention,
        format!(
            "rows of {} are not those that were loaded: someone changed them without the version \
             of their aggregate",
            table.name()
        ),
    )
}
