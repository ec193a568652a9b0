//! SQLite.

mod bind;
mod bulk;
mod conditions;
mod connection;
mod error;
#[cfg(test)]
mod fixture;
mod horizon;
mod open;
mod prepare;
mod row;
mod rows;
mod schema;
mod session;
mod shadow;
mod write;

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::maintenance::{BulkChange, BulkWrites, ChosenRow, Inserted};
use cqrs_core::mapping::{ColumnType, Table, Value};
use cqrs_core::staging::StagedWrite;
use cqrs_core::{
    AggregateRoot, Error, Metadata, Owned, ReadModel, Result, RowAddress, StoreErrorKind,
    TenantScope,
};
use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Row};

use self::bind::arguments;
use self::error::error;
use self::row::SqliteSource;
use self::session::Session;
use crate::backend::bind::query;
use crate::backend::migrations::{self, migrations};
use crate::backend::{
    Advance, Backed, Backend, Committed, Dialect, Heard, Horizon, Mark, Message, Parameter,
    Process, Proof, Returned, RowVersion, RowWrites, Topic, Written, transaction,
};
use crate::connections::Connect;
use crate::health::HorizonHolder;
use crate::statements::Statements;
use crate::verify::{LiveColumn, LiveForeignKey, LiveKey, ParameterType, Prepared, ResultColumn};

/// The SQLite backend.
///
/// How values are stored: `bool` and integers as INTEGER, floats as REAL, text and JSON as TEXT,
/// bytes as BLOB, a UUID as a BLOB of 16 bytes, a date as TEXT `2024-02-03`, and a point in time
/// as TEXT `2024-02-03T04:05:06.789000Z`, always of this width, so that text order is time order.
#[derive(Debug, Clone)]
pub struct Sqlite {
    options: Arc<SqliteConnectOptions>,
}

impl Sqlite {
    /// Classifies an error of SQL of your own, so that a busy database is retried as in the
    /// framework's: `.map_err(Sqlite::error)?`.
    #[must_use]
    pub fn error(cause: sqlx::Error) -> cqrs_core::Error {
        error::error(cause, "running SQL of the application")
    }

    pub(crate) fn new(options: SqliteConnectOptions) -> Self {
        Self {
            options: Arc::new(options),
        }
    }

    /// Whether the database lives in memory. Then each connection may have a database of its own,
    /// and where they share one they fail on each other's locks without waiting: a store must use
    /// one connection for everything.
    pub(crate) fn is_in_memory(&self) -> bool {
        connection::is_in_memory(&self.options)
    }
}

impl Backend for Sqlite {
    type Raw = SqliteConnection;
}

impl Connect for Sqlite {
    type Connection = Session;

    fn is_the_database(&self) -> bool {
        self.is_in_memory()
    }

    async fn connect(&self) -> Result<Session> {
        Session::open(&self.options).await
    }

    fn is_idle(connection: &Session) -> bool {
        transaction::depth::<sqlx::Sqlite>(connection) == 0
    }

    /// What nobody waits for any more is interrupted.
    async fn repair(&self, connection: Session) -> Option<Session> {
        connection.repair().await
    }
}

impl Backed for Sqlite {
    type Row = SqliteSource;
    type Horizon = ();
    type Listener = ();

    // A look costs microseconds, and there is nothing else that tells of other processes.
    const POLL_INTERVAL: Duration = Duration::from_millis(10);

    const DIALECT: Dialect = Dialect {
        name: "sqlite",
        // The default of a column, unless a user's own table declares another.
        byte_order: " COLLATE BINARY",
        // There is one writer at a time, so whoever reads in a transaction has claimed it.
        claim: "",
        lock_rows: "",
        // A transaction that writes has the lock of the whole database from its beginning.
        lock: "",
        skip_locked: "",
        lock_log: "",
        open_page: "",
        hurry: "",
        one_moment: |_| String::new(),
        claims_in_one: false,
        row_version: "",
        without_flush: "",
        in_segment: conditions::in_segment,
        unindexed: "+",
        // Of the same width as every other time.
        now: "(strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')",
        type_name: schema::type_name,
        in_list: conditions::in_list,
        in_rows: conditions::in_rows,
        text_test: conditions::text_test,
        json: conditions::json,
        differs: |operand, column_type, parameter| match column_type {
            ColumnType::Text | ColumnType::Json => {
                format!("{operand} COLLATE BINARY IS NOT {parameter}")
            }
            _ => format!("{operand} IS NOT {parameter}"),
        },
        // Whoever writes holds the lock of the database.
        lock_to_change: "",
        lock_to_delete: "",
        // SQLITE_MAX_VARIABLE_NUMBER
        max_parameters: 32_766,
    };

    fn raw(connection: &mut Session) -> &mut SqliteConnection {
        connection
    }

    async fn begin(connection: &mut Session) -> Result<()> {
        connection::begin(connection).await
    }

    async fn begin_reading(connection: &mut Session) -> Result<()> {
        connection::begin_reading(connection).await
    }

    /// Never called: opening a store with row-level security fails.
    async fn confine(_: &mut Session, _: &TenantScope) -> Result<()> {
        Err(no_row_security())
    }

    async fn policy_gaps(_: &mut Session, _: &[&str]) -> Result<Vec<String>> {
        Err(no_row_security())
    }

    async fn begin_savepoint(connection: &mut Session) -> Result<()> {
        transaction::begin::<sqlx::Sqlite>(connection, None)
            .await
            .map_err(|cause| error(cause, "setting a savepoint"))
    }

    async fn release_savepoint(connection: &mut Session) -> Result<()> {
        transaction::release::<sqlx::Sqlite>(connection)
            .await
            .map_err(|cause| error(cause, "releasing a savepoint"))
    }

    async fn roll_back_savepoint(connection: &mut Session) -> Result<()> {
        transaction::roll_back_one::<sqlx::Sqlite>(connection)
            .await
            .map_err(|cause| error(cause, "rolling back to a savepoint"))
    }

    async fn commit(connection: &mut Session) -> Result<()> {
        connection::commit(connection).await
    }

    async fn commit_and_begin(connection: &mut Session) -> Result<()> {
        connection::commit(connection).await?;
        connection::begin(connection).await
    }

    async fn rollback(connection: &mut Session) -> Result<()> {
        connection::rollback(connection).await
    }

    /// The types are checked with each value, since SQLite stores them with the values: `table`
    /// tells nothing more.
    async fn fetch<F>(
        connection: &mut Session,
        sql: &Arc<str>,
        parameters: &[Parameter],
        _table: Option<&'static Table>,
        mut each: F,
    ) -> Result<()>
    where
        F: FnMut(&SqliteSource) -> Result<()> + Send,
    {
        let arguments = arguments(parameters)?;
        let mut rows = query(sql, arguments).fetch(&mut **connection);
        while let Some(row) = rows
            .try_next()
            .await
            .map_err(|cause| error(cause, "reading"))?
        {
            each(&SqliteSource(row))?;
        }
        Ok(())
    }

    async fn fetch_slowly<F, W>(
        connection: &mut Session,
        sql: &Arc<str>,
        parameters: &[Parameter],
        _table: &'static Table,
        mut each: F,
    ) -> Result<()>
    where
        F: FnMut(&SqliteSource) -> Result<W> + Send,
        W: Future<Output = ()> + Send,
    {
        let arguments = arguments(parameters)?;
        let mut rows = query(sql, arguments).fetch(&mut **connection);
        while let Some(row) = rows
            .try_next()
            .await
            .map_err(|cause| error(cause, "reading"))?
        {
            let wait = each(&SqliteSource(row))?;
            wait.await;
        }
        Ok(())
    }

    async fn execute(
        connection: &mut Session,
        sql: &Arc<str>,
        parameters: &[Parameter],
    ) -> Result<u64> {
        let arguments = arguments(parameters)?;
        query(sql, arguments)
            .execute(&mut **connection)
            .await
            .map(|result| result.rows_affected())
            .map_err(|cause| error(cause, "writing"))
    }

    async fn execute_script(connection: &mut Session, sql: String) -> Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut **connection)
            .await
            .map(drop)
            .map_err(|cause| error(cause, "running a script"))
    }

    async fn commit_writes(
        connection: &mut Session,
        statements: &Statements,
        writes: &[StagedWrite],
        metadata: &Metadata,
    ) -> Committed {
        write::commit(connection, statements, writes, metadata).await
    }

    async fn apply_writes(
        connection: &mut Session,
        statements: &Statements,
        guards: &[StagedWrite],
        writes: &[StagedWrite],
        metadata: &Metadata,
        returned: Returned,
    ) -> Result<Written> {
        write::check(connection, statements, guards).await?;
        write::apply(connection, statements, writes, metadata, returned).await
    }

    async fn insert_in_bulk(
        connection: &mut Session,
        statements: &Statements,
        writes: BulkWrites<'_>,
        metadata: &Metadata,
    ) -> Result<Inserted> {
        bulk::insert(connection, statements, writes, metadata).await
    }

    async fn change_in_bulk<A: AggregateRoot>(
        connection: &mut Session,
        statements: &Statements,
        change: &BulkChange<A>,
        rows: &[ChosenRow<A>],
        returned: Returned,
    ) -> Result<Written> {
        bulk::change(connection, statements, change, rows, returned).await
    }

    /// The database is part of this process: there is no other that could outlive a connection.
    fn process(_: &Session) -> Process {
        Process::Own {
            id: 0,
            started: String::new(),
        }
    }

    fn depth(connection: &Session) -> usize {
        transaction::depth::<sqlx::Sqlite>(connection)
    }

    /// Transactions have no ids here. A savepoint goes with the transaction that it was set in.
    async fn mark(connection: &mut Session) -> Result<Option<Mark>> {
        connection::mark(connection).await?;
        Ok(Some(Mark(String::new())))
    }

    async fn is_in_transaction(connection: &mut Session, mark: &mut Option<Mark>) -> Result<bool> {
        let marked = mark.take().is_some();
        if marked && connection::release_mark(connection).await? {
            return Ok(true);
        }
        Ok(connection::is_in_transaction(connection).await? && !marked)
    }

    /// No commit is ever lost, so none needs to be recognised.
    async fn transaction_id(_: &mut Session) -> Result<Option<String>> {
        Ok(None)
    }

    /// [`commit_writes`](Self::commit_writes) and [`commit`](Self::commit) lose no answer. Who wants
    /// the lock of a connection that was given up waits until it is repaired.
    async fn resolve(&self, _: Process, proofs: &[Proof<'_>]) -> Result<Vec<Option<Written>>> {
        if proofs.iter().all(|proof| matches!(proof, Proof::Nothing)) {
            return Ok(proofs.iter().map(|_| None).collect());
        }
        Err(Error::store(
            StoreErrorKind::OutcomeUnknown,
            "the outcome of a commit cannot be looked up in SQLite, which loses no answers",
        ))
    }

    /// Whoever waits for the lock of all gives up by itself.
    async fn give_up_waiting(&self, _: &Process) -> Result<bool> {
        Ok(false)
    }

    async fn horizon(connection: &mut Session, (): &mut Self::Horizon) -> Result<Horizon> {
        horizon::look(connection)
            .await
            .map_err(|cause| error(cause, "looking for the horizon of the log"))
    }

    /// What a writer has not committed has drawn no position.
    async fn holders(_: &mut Session) -> Result<Vec<HorizonHolder>> {
        Ok(Vec::new())
    }

    /// There is nobody to tell.
    async fn notify(_: &mut Session, _: &[Message]) -> Result<()> {
        Ok(())
    }

    async fn listen(&self, _: &[Topic]) -> Result<()> {
        Ok(())
    }

    /// Nobody ever tells.
    async fn heard((): &mut ()) -> Result<Option<Heard>> {
        std::future::pending().await
    }

    async fn load_rows<R: ReadModel>(
        connection: &mut Session,
        statements: &Statements,
        table: &'static Table,
        addresses: &[RowAddress],
        _: Option<&Advance>,
    ) -> Result<Option<Vec<Owned<R>>>> {
        rows::load(connection, statements, table, addresses)
            .await
            .map(Some)
    }

    async fn upsert_rows(
        connection: &mut Session,
        statements: &Statements,
        table: &'static Table,
        rows: Vec<Vec<Value>>,
    ) -> Result<()> {
        rows::upsert(connection, statements, table, rows).await
    }

    async fn delete_rows(
        connection: &mut Session,
        statements: &Statements,
        table: &'static Table,
        addresses: &[RowAddress],
    ) -> Result<()> {
        rows::delete(connection, statements, table, addresses).await
    }

    /// Never called: rows have no versions here.
    async fn advance(
        _: &mut Session,
        _: &Statements,
        _: &Advance,
        _: Option<&RowWrites>,
    ) -> Result<Option<RowVersion>> {
        Ok(None)
    }

    fn result_columns(row: &SqliteSource) -> Vec<ResultColumn> {
        prepare::columns(row.0.columns())
    }

    fn can_decode(column_type: ColumnType, type_name: &str) -> bool {
        prepare::can_decode(column_type, type_name)
    }

    async fn prepare(
        connection: &mut Session,
        sql: &Arc<str>,
        _: &[ParameterType],
    ) -> Result<Prepared> {
        prepare::prepare(connection, sql).await
    }

    /// It knows none.
    fn is_parameter_type(_: ParameterType, _: &str) -> bool {
        true
    }

    async fn migrate(connection: &mut Session) -> Result<()> {
        let migrations = migrations!("sqlite");
        // sqlx takes no lock on SQLite. The write lock keeps two processes from doing it twice,
        // and the transactions within become savepoints.
        connection::begin(connection).await?;
        match migrations.run_direct(None, &mut **connection, false).await {
            Ok(()) => connection::commit(connection).await,
            Err(cause) => {
                connection::rollback(connection).await?;
                Err(migrations::failed(cause, error::error))
            }
        }
    }

    fn create_table_sql(table: &Table) -> String {
        schema::create_table_sql(table)
    }

    async fn live_columns(connection: &mut Session, table: &str) -> Result<Vec<LiveColumn>> {
        schema::live_columns(connection, table).await
    }

    async fn live_keys(connection: &mut Session, table: &str) -> Result<Vec<LiveKey>> {
        schema::live_keys(connection, table).await
    }

    async fn live_foreign_keys(
        connection: &mut Session,
        table: &str,
    ) -> Result<Vec<LiveForeignKey>> {
        schema::live_foreign_keys(connection, table).await
    }

    async fn shadow_sql(connection: &mut Session, table: &'static Table) -> Result<Vec<String>> {
        shadow::create_sql(connection, table).await
    }

    async fn exchange(connection: &mut Session, table: &'static Table) -> Result<()> {
        shadow::exchange(connection, table).await
    }

    /// Whoever reads one table of the file reads all.
    async fn guard_copy(_: &mut Session, _: &str, _: &str) -> Result<()> {
        Ok(())
    }

    fn fits(column_type: ColumnType, live: &LiveColumn) -> std::result::Result<(), &'static str> {
        schema::fits(column_type, live)
    }
}

fn no_row_security() -> Error {
    Error::store(
        StoreErrorKind::Usage,
        "SQLite has no row-level security: open the store without \
         `StoreOptions::row_level_security`, or use Postgres",
    )
}

#[cfg(test)]
mod tests;
