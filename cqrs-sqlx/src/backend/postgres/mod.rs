//! Postgres.

mod advance;
mod bind;
mod bulk;
mod conditions;
mod copy;
mod error;
mod events;
mod holders;
mod horizon;
mod loads;
mod lost;
mod migrate;
#[cfg(test)]
mod model;
mod notify;
mod prepare;
mod process;
mod row;
mod row_security;
mod rows;
mod schema;
mod session;
mod shadow;
mod waiting;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cqrs_core::maintenance::{BulkChange, BulkWrites, ChosenRow, Inserted};
use cqrs_core::mapping::{ColumnType, RowSource, Table, Value};
use cqrs_core::staging::StagedWrite;
use cqrs_core::{
    AggregateRoot, Error, Metadata, Owned, ReadModel, Result, RowAddress, StoreErrorKind,
    TenantScope,
};
use futures_util::TryStreamExt;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Executor as _, Row, SqlSafeStr as _, SqlStr};
use tokio::sync::Semaphore;

use self::error::error;
use self::row::PgSource;
pub(crate) use self::session::Session;
use crate::backend::bind::query;
use crate::backend::schema::migrations;
use crate::backend::{
    Advance, Backed, Backend, Committed, Dialect, Heard, Horizon, Mark, Message, Parameter,
    Process, Proof, Returned, RowVersion, RowWrites, Topic, Written, transaction, url,
};
use crate::connections::Connect;
use crate::health::HorizonHolder;
use crate::lent;
use crate::statements::Statements;
use crate::verify::{LiveColumn, LiveForeignKey, LiveKey, ParameterType, Prepared, ResultColumn};

/// How many connections there are for coalesced commits and loads.
const FLUSHERS: usize = 4;

/// How many connections there are at most to find out what became of lost commits.
const RESOLVERS: usize = 2;

/// Settings for statements that carry the work of many callers.
///
/// These are not to wait for the lock that one of them needs. And the server, which knows how long
/// their arrays are, would take a plan for just so many rows for cheaper than one for any, and make one
/// each time: that took as long as all else that it does for a flush of eight.
const IN_FLUSHES: [(&str, &str); 2] = [
    ("lock_timeout", "50ms"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// The Postgres backend.
#[derive(Debug, Clone)]
pub struct Postgres {
    options: Arc<PgConnectOptions>,
    /// Whether its statements carry the work of many callers: [`IN_FLUSHES`].
    flushes: bool,
    /// Whether a connection was found to lead through a pooler.
    pooled: Arc<AtomicBool>,
    /// Shared by all connections of a store: when a server comes back, it is not to be met by one
    /// from everybody who lost an answer.
    resolvers: Arc<Semaphore>,
}

impl Postgres {
    /// Classifies an error of SQL of your own, so that a deadlock in it is retried as one in the
    /// framework's: `.map_err(Postgres::error)?`.
    #[must_use]
    pub fn error(cause: sqlx::Error) -> cqrs_core::Error {
        error(cause, "running SQL of the application")
    }

    pub(crate) fn new(options: PgConnectOptions) -> Self {
        Self {
            options: Arc::new(options),
            flushes: false,
            pooled: Arc::default(),
            resolvers: Arc::new(Semaphore::new(RESOLVERS)),
        }
    }

    /// The same, for statements that carry the work of many callers.
    fn flushing(&self) -> Self {
        let mut flushing = Self {
            flushes: true,
            ..self.clone()
        };
        // A pooler refuses it, or forgets it.
        if !self.is_pooled() {
            let options = PgConnectOptions::clone(&self.options);
            flushing.options = Arc::new(options.options(IN_FLUSHES));
        }
        flushing
    }
}

impl Backend for Postgres {
    type Raw = PgConnection;
}

impl Backed for Postgres {
    type Row = PgSource;
    type Horizon = horizon::PgHorizon;
    type Listener = notify::Listener;

    const POLL_INTERVAL: Duration = Duration::from_millis(100);

    const DIALECT: Dialect = Dialect {
        name: "postgres",
        byte_order: " COLLATE \"C\"",
        claim: " FOR UPDATE SKIP LOCKED",
        // In the order of the list, which is the same for everyone.
        lock_rows: "SELECT pg_advisory_xact_lock($1, k) FROM unnest($2::int4[]) AS k",
        lock: " FOR UPDATE",
        skip_locked: " SKIP LOCKED",
        lock_log: "LOCK TABLE cqrs_event IN SHARE MODE",
        // Forgotten when the transaction ends.
        open_page: ", set_config('cqrs.page', 'open', true) AS opened",
        // Whoever reads a table that is about to be exchanged waits behind that.
        hurry: "SET LOCAL lock_timeout = '1s'",
        one_moment: shadow::one_moment,
        claims_in_one: true,
        // The transaction that wrote it.
        row_version: "xmin",
        // Who has chosen `remote_apply` reads on standbys what was committed here. A setting of the
        // transaction: one of the session would stay with a connection of a pooler.
        without_flush: ", set_config('synchronous_commit', \
             CASE current_setting('synchronous_commit') \
             WHEN 'remote_apply' THEN 'remote_apply' ELSE 'off' END, true)",
        in_segment: conditions::in_segment,
        unindexed: "",
        now: "clock_timestamp()",
        type_name: schema::type_name,
        in_list: conditions::in_list,
        in_rows: conditions::in_rows,
        text_test: conditions::text_test,
        json: conditions::json,
        differs: |operand, column_type, parameter| {
            format!(
                "{operand} IS DISTINCT FROM {parameter}{}",
                bind::cast(column_type)
            )
        },
        lock_to_change: " FOR NO KEY UPDATE",
        lock_to_delete: " FOR UPDATE",
        // Their number is sent in 16 bits.
        max_parameters: 65_535,
    };

    fn raw(session: &mut Session) -> &mut PgConnection {
        &mut session.connection
    }

    async fn begin(session: &mut Session) -> Result<()> {
        session
            .begin()
            .await
            .map_err(|cause| error(cause, "beginning a transaction"))
    }

    async fn begin_reading(session: &mut Session) -> Result<()> {
        let begin = SqlStr::from_static("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY");
        transaction::begin::<sqlx::Postgres>(&mut session.connection, Some(begin))
            .await
            .map_err(|cause| error(cause, "beginning a transaction"))
    }

    async fn confine(session: &mut Session, scope: &TenantScope) -> Result<()> {
        row_security::confine(&mut session.connection, scope).await
    }

    async fn policy_gaps(session: &mut Session, tables: &[&str]) -> Result<Vec<String>> {
        row_security::gaps(&mut session.connection, tables).await
    }

    async fn begin_savepoint(session: &mut Session) -> Result<()> {
        transaction::begin::<sqlx::Postgres>(&mut session.connection, None)
            .await
            .map_err(|cause| error(cause, "setting a savepoint"))
    }

    async fn release_savepoint(session: &mut Session) -> Result<()> {
        transaction::release::<sqlx::Postgres>(&mut session.connection)
            .await
            .map_err(|cause| error(cause, "releasing a savepoint"))
    }

    async fn roll_back_savepoint(session: &mut Session) -> Result<()> {
        transaction::roll_back_one::<sqlx::Postgres>(&mut session.connection)
            .await
            .map_err(|cause| error(cause, "rolling back to a savepoint"))
    }

    async fn commit(session: &mut Session) -> Result<()> {
        transaction::commit::<sqlx::Postgres>(&mut session.connection)
            .await
            .map_err(|cause| error(cause, "committing"))
    }

    /// A commit in a transaction that has failed is a silent rollback; a savepoint is refused in it,
    /// and outside of any.
    async fn commit_and_begin(session: &mut Session) -> Result<()> {
        const COMMIT: &str = "SAVEPOINT cqrs_look; RELEASE SAVEPOINT cqrs_look;
             SELECT 1 / (current_setting('cqrs.page', true) IS NOT DISTINCT FROM 'open')::int;
             COMMIT AND CHAIN";
        let sql = match process::hold(&session.process) {
            None => SqlStr::from_static(COMMIT),
            Some(hold) => AssertSqlSafe(format!("{COMMIT}; {hold}")).into_sql_str(),
        };
        let commit = sqlx::raw_sql(sql);
        match commit.execute(&mut session.connection).await {
            Ok(_) => Ok(()),
            Err(cause) if error::in_transaction(&cause) == Some(false) => Err(lent::ended()),
            Err(cause) if error::is_division_by_zero(&cause) => Err(lent::ended()),
            Err(cause) => Err(error(cause, "committing")),
        }
    }

    async fn rollback(session: &mut Session) -> Result<()> {
        transaction::rollback::<sqlx::Postgres>(&mut session.connection)
            .await
            .map_err(|cause| error(cause, "rolling back"))
    }

    async fn fetch<F>(
        session: &mut Session,
        sql: &Arc<str>,
        parameters: &[Parameter],
        table: Option<&'static Table>,
        mut each: F,
    ) -> Result<()>
    where
        F: FnMut(&PgSource) -> Result<()> + Send,
    {
        let arguments = arguments(parameters)?;
        let mut rows = query(sql, arguments).fetch(&mut session.connection);
        let mut unchecked = table;
        while let Some(row) = rows
            .try_next()
            .await
            .map_err(|cause| error(cause, "reading"))?
        {
            if let Some(table) = unchecked.take() {
                row::check_columns(&row, table)?;
            }
            each(&PgSource(row))?;
        }
        Ok(())
    }

    async fn fetch_slowly<F, W>(
        session: &mut Session,
        sql: &Arc<str>,
        parameters: &[Parameter],
        table: &'static Table,
        mut each: F,
    ) -> Result<()>
    where
        F: FnMut(&PgSource) -> Result<W> + Send,
        W: Future<Output = ()> + Send,
    {
        let arguments = arguments(parameters)?;
        let mut rows = query(sql, arguments).fetch(&mut session.connection);
        let mut unchecked = Some(table);
        while let Some(row) = rows
            .try_next()
            .await
            .map_err(|cause| error(cause, "reading"))?
        {
            if let Some(table) = unchecked.take() {
                row::check_columns(&row, table)?;
            }
            let wait = each(&PgSource(row))?;
            wait.await;
        }
        Ok(())
    }

    async fn read_together<F>(
        session: &mut Session,
        statements: &Statements,
        table: &'static Table,
        wanted: &[Parameter],
        mut each: F,
    ) -> Result<()>
    where
        F: FnMut(usize, &PgSource) + Send,
    {
        let sql = loads::by_keys(statements, table, wanted);
        let place = table.columns().len();
        let each = |row: &PgSource| {
            let place = row.read_i64(place).map_err(Error::other)?;
            let place = place.and_then(|place| usize::try_from(place - 1).ok());
            each(place.unwrap_or(usize::MAX), row);
            Ok(())
        };
        if !session.is_pooled() {
            return Self::fetch(session, &sql, wanted, Some(table), each).await;
        }
        // What flushes need is set for a transaction there.
        Self::begin(session).await?;
        let read = Self::fetch(session, &sql, wanted, Some(table), each).await;
        let ended = Self::rollback(session).await;
        read.and(ended)
    }

    async fn execute(
        session: &mut Session,
        sql: &Arc<str>,
        parameters: &[Parameter],
    ) -> Result<u64> {
        let arguments = arguments(parameters)?;
        query(sql, arguments)
            .execute(&mut session.connection)
            .await
            .map(|result| result.rows_affected())
            .map_err(|cause| error(cause, "writing"))
    }

    async fn execute_script(session: &mut Session, sql: String) -> Result<()> {
        session
            .connection
            .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
            .await
            .map(|_| ())
            .map_err(|cause| error(cause, "running a script"))
    }

    async fn commit_writes(
        session: &mut Session,
        statements: &Statements,
        writes: &[StagedWrite],
        metadata: &Metadata,
    ) -> Committed {
        write::commit(session, statements, writes, metadata).await
    }

    async fn commit_together(
        session: &mut Session,
        statements: &Statements,
        writes: &[(&StagedWrite, &Metadata)],
    ) -> Committed<Vec<Option<Written>>> {
        write::together::commit(session, statements, writes).await
    }

    async fn apply_writes(
        session: &mut Session,
        statements: &Statements,
        guards: &[StagedWrite],
        writes: &[StagedWrite],
        metadata: &Metadata,
        returned: Returned,
    ) -> Result<Written> {
        write::apply(session, statements, guards, writes, metadata, returned)
            .await
            .map_err(write::Failure::into_error)
    }

    async fn insert_in_bulk(
        session: &mut Session,
        statements: &Statements,
        writes: BulkWrites<'_>,
        metadata: &Metadata,
    ) -> Result<Inserted> {
        bulk::insert(session, statements, writes, metadata).await
    }

    async fn change_in_bulk<A: AggregateRoot>(
        session: &mut Session,
        statements: &Statements,
        change: &BulkChange<A>,
        rows: &[ChosenRow<A>],
        returned: Returned,
    ) -> Result<Written> {
        bulk::change(session, statements, change, rows, returned).await
    }

    fn process(session: &Session) -> Process {
        session.process.clone()
    }

    fn is_pooled(&self) -> bool {
        self.pooled.load(Ordering::Relaxed)
    }

    fn depth(session: &Session) -> usize {
        transaction::depth::<sqlx::Postgres>(&session.connection)
    }

    /// The server never gives an id twice.
    async fn mark(session: &mut Session) -> Result<Option<Mark>> {
        Ok(Self::transaction_id(session).await?.map(Mark))
    }

    /// There are savepoints in transactions alone.
    async fn is_in_transaction(session: &mut Session, mark: &mut Option<Mark>) -> Result<bool> {
        let look = sqlx::raw_sql(
            "SAVEPOINT cqrs_look; RELEASE SAVEPOINT cqrs_look;
             SELECT pg_current_xact_id_if_assigned()::text",
        );
        let doing = "looking for the transaction";
        match look.fetch_all(&mut session.connection).await {
            Ok(rows) => {
                let id = rows.first().map(|row| row.try_get::<Option<String>, _>(0));
                let id = id
                    .transpose()
                    .map_err(|cause| error(cause, doing))?
                    .flatten();
                Ok(mark
                    .as_ref()
                    .is_none_or(|mark| Some(&mark.0) == id.as_ref()))
            }
            Err(cause) => error::in_transaction(&cause).ok_or_else(|| error(cause, doing)),
        }
    }

    async fn transaction_id(session: &mut Session) -> Result<Option<String>> {
        sqlx::query_scalar("SELECT pg_current_xact_id_if_assigned()::text")
            .fetch_one(&mut session.connection)
            .await
            .map_err(|cause| error(cause, "asking for the transaction's id"))
    }

    async fn resolve(
        &self,
        process: Process,
        proofs: &[Proof<'_>],
    ) -> Result<Vec<Option<Written>>> {
        lost::resolve(self, &process, proofs).await
    }

    /// On a connection of its own: those of the store may all be in use.
    async fn give_up_waiting(&self, process: &Process) -> Result<bool> {
        let mut session = self.connect().await?;
        waiting::give_up(&mut session.connection, process)
            .await
            .map_err(|cause| error(cause, "looking for who waits for a lock"))
    }

    async fn horizon(session: &mut Session, known: &mut Self::Horizon) -> Result<Horizon> {
        horizon::look(&mut session.connection, known)
            .await
            .map_err(|cause| error(cause, "looking for the horizon of the log"))
    }

    async fn holders(session: &mut Session) -> Result<Vec<HorizonHolder>> {
        holders::look(&mut session.connection)
            .await
            .map_err(|cause| error(cause, "looking for who holds the horizon of the log"))
    }

    async fn notify(session: &mut Session, messages: &[Message]) -> Result<()> {
        notify::tell(&mut session.connection, messages)
            .await
            .map_err(|cause| error(cause, "telling other processes"))
    }

    /// A pooler hands what is told to whoever has the process by then.
    async fn listen(&self, topics: &[Topic]) -> Result<notify::Listener> {
        if self.is_pooled() {
            return Err(Error::store(
                StoreErrorKind::Usage,
                "a connection that leads through a pooler hears nothing",
            ));
        }
        notify::Listener::open(&self.options, topics)
            .await
            .map_err(|cause| error(cause, "listening to other processes"))
    }

    async fn heard(listener: &mut notify::Listener) -> Result<Option<Heard>> {
        listener
            .hear()
            .await
            .map_err(|cause| error(cause, "listening to other processes"))
    }

    async fn load_rows<R: ReadModel>(
        session: &mut Session,
        statements: &Statements,
        table: &'static Table,
        addresses: &[RowAddress],
        page: Option<&Advance>,
    ) -> Result<Option<Vec<Owned<R>>>> {
        let connection = &mut session.connection;
        match page {
            Some(page) => rows::load_for(connection, statements, table, addresses, page).await,
            None => rows::load(connection, statements, table, addresses)
                .await
                .map(Some),
        }
    }

    async fn upsert_rows(
        session: &mut Session,
        statements: &Statements,
        table: &'static Table,
        rows: Vec<Vec<Value>>,
    ) -> Result<()> {
        rows::upsert(&mut session.connection, statements, table, rows).await
    }

    async fn delete_rows(
        session: &mut Session,
        statements: &Statements,
        table: &'static Table,
        addresses: &[RowAddress],
    ) -> Result<()> {
        rows::delete(&mut session.connection, statements, table, addresses).await
    }

    async fn advance(
        session: &mut Session,
        statements: &Statements,
        advance: &Advance,
        writes: Option<&RowWrites>,
    ) -> Result<Option<RowVersion>> {
        advance::run(&mut session.connection, statements, advance, writes).await
    }

    fn result_columns(row: &PgSource) -> Vec<ResultColumn> {
        prepare::columns(row.0.columns())
    }

    fn can_decode(column_type: ColumnType, type_name: &str) -> bool {
        schema::can_decode(column_type, type_name)
    }

    async fn prepare(
        session: &mut Session,
        sql: &Arc<str>,
        parameters: &[ParameterType],
    ) -> Result<Prepared> {
        prepare::prepare(&mut session.connection, sql, parameters).await
    }

    fn is_parameter_type(parameter: ParameterType, type_name: &str) -> bool {
        prepare::is_named(parameter, type_name)
    }

    async fn migrate(session: &mut Session) -> Result<()> {
        let migrator = migrations(&[
            (
                1,
                "log",
                include_str!("../../../migrations/postgres/0001_log.sql"),
            ),
            (
                2,
                "receipt",
                include_str!("../../../migrations/postgres/0002_receipt.sql"),
            ),
            (
                3,
                "segment",
                include_str!("../../../migrations/postgres/0003_segment.sql"),
            ),
            (
                4,
                "dead letter",
                include_str!("../../../migrations/postgres/0004_dead_letter.sql"),
            ),
            (
                5,
                "history",
                include_str!("../../../migrations/postgres/0005_history.sql"),
            ),
            (
                6,
                "mark",
                include_str!("../../../migrations/postgres/0006_mark.sql"),
            ),
            (
                7,
                "rebuild",
                include_str!("../../../migrations/postgres/0007_rebuild.sql"),
            ),
            (
                9,
                "attempts",
                include_str!("../../../migrations/postgres/0009_attempts.sql"),
            ),
            (
                10,
                "sourced",
                include_str!("../../../migrations/postgres/0010_sourced.sql"),
            ),
            (
                11,
                "chain head",
                include_str!("../../../migrations/postgres/0011_chain_head.sql"),
            ),
            (
                12,
                "subject key",
                include_str!("../../../migrations/postgres/0012_subject_key.sql"),
            ),
            (
                13,
                "process",
                include_str!("../../../migrations/postgres/0013_process.sql"),
            ),
            (
                14,
                "projection snapshot",
                include_str!("../../../migrations/postgres/0014_projection_snapshot.sql"),
            ),
            (
                16,
                "process parked",
                include_str!("../../../migrations/postgres/0016_process_parked.sql"),
            ),
            (
                18,
                "sourced type",
                include_str!("../../../migrations/postgres/0018_sourced_type.sql"),
            ),
            (
                19,
                "snapshot event",
                include_str!("../../../migrations/postgres/0019_snapshot_event.sql"),
            ),
        ]);
        migrate::run(session, migrator).await
    }

    fn create_table_sql(table: &Table) -> String {
        schema::create_table_sql(table)
    }

    async fn live_columns(session: &mut Session, table: &str) -> Result<Vec<LiveColumn>> {
        schema::live_columns(&mut session.connection, table).await
    }

    async fn live_keys(session: &mut Session, table: &str) -> Result<Vec<LiveKey>> {
        schema::live_keys(&mut session.connection, table).await
    }

    async fn live_foreign_keys(session: &mut Session, table: &str) -> Result<Vec<LiveForeignKey>> {
        schema::live_foreign_keys(&mut session.connection, table).await
    }

    async fn shadow_sql(session: &mut Session, table: &'static Table) -> Result<Vec<String>> {
        shadow::create_sql(&mut session.connection, table).await
    }

    async fn exchange(session: &mut Session, table: &'static Table) -> Result<()> {
        for sql in shadow::exchange_sql(&mut session.connection, table).await? {
            Self::execute_script(session, sql).await?;
        }
        Ok(())
    }

    async fn guard_copy(session: &mut Session, table: &str, copy: &str) -> Result<()> {
        row_security::guard_copy(&mut session.connection, table, copy).await
    }

    fn fits(column_type: ColumnType, live: &LiveColumn) -> std::result::Result<(), &'static str> {
        schema::fits(column_type, live)
    }
}

fn arguments(parameters: &[Parameter]) -> Result<PgArguments> {
    let mut arguments = PgArguments::default();
    for parameter in parameters {
        bind::add_parameter(&mut arguments, parameter)?;
    }
    Ok(arguments)
}

impl crate::SqlStore<Postgres> {
    /// The statements that put tables behind policies of row-level security, with the framework's
    /// own, for [`StoreOptions::row_level_security`](crate::StoreOptions::row_level_security): to
    /// put into a migration of your own, after those that create the tables. Tables without tenants
    /// are left out. The statements may be run again.
    ///
    /// The role that the application connects as must not be a superuser and must not have
    /// `BYPASSRLS`. It needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the tables, and `USAGE`
    /// and `SELECT` on the sequence `cqrs_event_position`.
    #[must_use]
    pub fn row_level_security_sql(tables: &[&Table]) -> String {
        row_security::sql(tables)
    }

    /// Opens a store. Connects once, to find out early that it can.
    ///
    /// # Errors
    ///
    /// [`Store`](cqrs_core::Error::Store), of kind [`Usage`](cqrs_core::StoreErrorKind::Usage) where
    /// the URL is malformed or of another database, else where the database cannot be
    /// reached.
    pub async fn connect(url: &str) -> Result<Self> {
        let options: PgConnectOptions = url::parse(url, &["postgres", "postgresql"])?;
        Self::connect_with(options, crate::StoreOptions::default()).await
    }

    /// As [`connect`](Self::connect), with options.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with(
        options: PgConnectOptions,
        store: crate::StoreOptions,
    ) -> Result<Self> {
        let backend = Postgres::new(options);
        let connections = crate::connections::Connections::new(
            backend.clone(),
            store.max_connections,
            store.acquire_timeout,
        );
        drop(connections.acquire().await?);
        let open = crate::connections::Connections::new;
        let notifier = store
            .notifications
            .then(|| open(backend.clone(), 1, store.acquire_timeout));
        let flushers = store
            .coalesce
            .map(|_| open(backend.flushing(), FLUSHERS, store.acquire_timeout));
        Ok(Self::from_parts(
            backend,
            connections.clone(),
            connections,
            notifier,
            flushers,
            store,
        ))
    }
}
