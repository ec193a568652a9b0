//! One test for both databases: how a test body that is generic over [`Kind`] gets its database,
//! and how it looks at it past the framework.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot be unwrapped is a failure"
)]

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::database::{TestDatabase, TestFile};
use crate::stores;
use cqrs_core::{Error, StoreErrorKind};
use cqrs_sqlx::{Backend, PgStore, Postgres, SqlStore, Sqlite, SqliteStore, StoreOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqlSafeStr, SqliteConnection};
use uuid::Uuid;

/// Runs each test on each database.
#[macro_export]
macro_rules! on_each {
    ($($name:ident),* $(,)?) => {
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name::<cqrs_sqlx::Postgres>().await;
                }
            )*
        }
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name::<cqrs_sqlx::Sqlite>().await;
                }
            )*
        }
    };
}
pub use crate::on_each;

/// A database as tests need it.
pub trait Kind: Backend {
    /// What lives as long as the database.
    type Guard: Send + Sync;

    /// An empty database, and its URL.
    fn create() -> impl Future<Output = (Self::Guard, String)> + Send;

    /// A store on it.
    fn open(
        url: &str,
        options: StoreOptions,
    ) -> impl Future<Output = cqrs_core::Result<SqlStore<Self>>> + Send;

    /// Runs statements on a connection of their own.
    fn run(url: &str, sql: String) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Runs statements on a connection that is given.
    fn run_on(
        connection: &mut Self::Raw,
        sql: String,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Runs statements in a nested transaction and ends it.
    fn nested(
        connection: &mut Self::Raw,
        sql: String,
        keep: bool,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// The only column of a query, of texts.
    fn texts(url: &str, sql: String) -> impl Future<Output = Vec<String>> + Send;

    /// The rows of a table as texts, in order.
    fn dump(url: &str, table: &str) -> impl Future<Output = Vec<String>> + Send;

    /// Runs an application's own migrations.
    fn migrate(
        url: &str,
        migrations: Vec<String>,
    ) -> impl Future<Output = Result<(), MigrateError>> + Send;

    /// Waits until nobody but the caller is connected.
    fn deserted(url: &str) -> impl Future<Output = ()> + Send;

    /// Checks that no transaction was ended to break a deadlock.
    fn assert_no_deadlock(url: &str) -> impl Future<Output = ()> + Send;

    /// A UUID in SQL.
    fn uuid(uuid: Uuid) -> String;

    /// What differs between the databases.
    fn either<T>(postgres: T, sqlite: T) -> T;
}

fn migrator(migrations: Vec<String>) -> Migrator {
    let migrations = migrations.into_iter().zip(1..).map(|(sql, version)| {
        let sql = AssertSqlSafe(sql).into_sql_str();
        Migration::new(
            version,
            "application".into(),
            MigrationType::Simple,
            sql,
            false,
        )
    });
    Migrator::with_migrations(migrations.collect())
}

/// What is done alike on both connections. In a generic function it would need more bounds on
/// sqlx's traits than it has lines.
macro_rules! alike {
    ($connection:ty) => {
        async fn run(url: &str, sql: String) -> sqlx::Result<()> {
            let mut connection = <$connection>::connect(url).await?;
            Self::run_on(&mut connection, sql).await?;
            connection.close().await
        }

        async fn run_on(connection: &mut $connection, sql: String) -> sqlx::Result<()> {
            let script = sqlx::raw_sql(AssertSqlSafe(sql));
            script.execute(connection).await.map(drop)
        }

        async fn nested(connection: &mut $connection, sql: String, keep: bool) -> sqlx::Result<()> {
            let mut nested = connection.begin().await?;
            Self::run_on(&mut nested, sql).await?;
            if keep {
                nested.commit().await
            } else {
                nested.rollback().await
            }
        }

        async fn texts(url: &str, sql: String) -> Vec<String> {
            let mut connection = <$connection>::connect(url).await.unwrap();
            sqlx::query_scalar(AssertSqlSafe(sql))
                .fetch_all(&mut connection)
                .await
                .unwrap()
        }

        async fn migrate(url: &str, migrations: Vec<String>) -> Result<(), MigrateError> {
            let mut connection = <$connection>::connect(url).await?;
            migrator(migrations)
                .run_direct(None, &mut connection, false)
                .await
        }
    };
}

impl Kind for Postgres {
    type Guard = TestDatabase;

    async fn create() -> (TestDatabase, String) {
        let database = TestDatabase::create().await;
        let url = database.url().to_owned();
        (database, url)
    }

    async fn open(url: &str, options: StoreOptions) -> cqrs_core::Result<PgStore> {
        PgStore::connect_with(url.parse().expect("a Postgres URL"), options).await
    }

    alike!(PgConnection);

    async fn dump(url: &str, table: &str) -> Vec<String> {
        Self::texts(url, format!("SELECT t::text FROM {table} AS t ORDER BY 1")).await
    }

    async fn deserted(url: &str) {
        let mut connection = PgConnection::connect(url).await.unwrap();
        loop {
            let others: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid()
                       AND backend_type = 'client backend'",
            )
            .fetch_one(&mut connection)
            .await
            .unwrap();
            if others == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn assert_no_deadlock(url: &str) {
        let sql = "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()";
        assert_eq!(Self::texts(url, sql.to_owned()).await, ["0"]);
    }

    fn uuid(uuid: Uuid) -> String {
        format!("'{uuid}'::uuid")
    }

    fn either<T>(postgres: T, _: T) -> T {
        postgres
    }
}

impl Kind for Sqlite {
    type Guard = TestFile;

    async fn create() -> (TestFile, String) {
        let file = TestFile::create();
        let url = file.url();
        (file, url)
    }

    async fn open(url: &str, options: StoreOptions) -> cqrs_core::Result<SqliteStore> {
        let connect: SqliteConnectOptions = url.parse().expect("a URL of SQLite");
        SqliteStore::connect_with(connect, options).await
    }

    alike!(SqliteConnection);

    async fn dump(url: &str, table: &str) -> Vec<String> {
        let columns = Self::texts(
            url,
            format!("SELECT name FROM pragma_table_info('{table}')"),
        );
        let columns: Vec<String> = columns
            .await
            .iter()
            .map(|column| format!("quote(\"{column}\")"))
            .collect();
        let row = columns.join(" || ', ' || ");
        Self::texts(url, format!("SELECT {row} FROM {table} ORDER BY 1")).await
    }

    /// Who gets the write lock is the only one in the middle of anything.
    async fn deserted(url: &str) {
        Self::run(url, "BEGIN IMMEDIATE; COMMIT".to_owned())
            .await
            .unwrap();
    }

    /// There is one lock.
    async fn assert_no_deadlock(_: &str) {}

    fn uuid(uuid: Uuid) -> String {
        format!("x'{}'", uuid.simple())
    }

    fn either<T>(_: T, sqlite: T) -> T {
        sqlite
    }
}

/// A database of its own for one test.
pub struct Fresh<K: Kind> {
    /// Where it is.
    pub url: String,
    // Held for its drop, which removes the database.
    _guard: K::Guard,
}

impl<K: Kind> Fresh<K> {
    /// An empty one.
    pub async fn empty() -> Self {
        let (guard, url) = K::create().await;
        Self { url, _guard: guard }
    }

    /// One with all tables, and a store on it.
    pub async fn with_store() -> (Self, SqlStore<K>) {
        Self::with(StoreOptions::default()).await
    }

    /// As [`with_store`](Self::with_store), with options.
    pub async fn with(options: StoreOptions) -> (Self, SqlStore<K>) {
        let fresh = Self::empty().await;
        let store = stores::with_tables(fresh.open(options).await).await;
        (fresh, store)
    }

    /// A store on it.
    pub async fn open(&self, options: StoreOptions) -> SqlStore<K> {
        K::open(&self.url, options).await.unwrap()
    }

    /// Runs statements past the framework.
    pub async fn run(&self, sql: impl Into<String>) {
        let sql = sql.into();
        K::run(&self.url, sql.clone())
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Makes all events two hours older.
    pub async fn age(&self) {
        self.run(K::either(
            "UPDATE cqrs_event SET recorded_at = recorded_at - interval '2 hours'",
            "UPDATE cqrs_event SET recorded_at = \
             strftime('%Y-%m-%dT%H:%M:%f', recorded_at, '-2 hours') || '000Z'",
        ))
        .await;
    }

    /// The number that a query finds.
    pub async fn number(&self, sql: impl Display) -> i64 {
        let sql = format!("SELECT CAST(({sql}) AS text)");
        let found = K::texts(&self.url, sql).await;
        found[0].parse().expect("a number")
    }

    /// The rows of a table as texts, in order.
    pub async fn dump(&self, table: &str) -> Vec<String> {
        K::dump(&self.url, table).await
    }

    /// Everything that a command may change.
    pub async fn state(&self) -> (Vec<String>, Vec<String>) {
        (self.dump("parcel").await, self.dump("cqrs_event").await)
    }
}

/// Polls a future to its end, or until it was not ready for the `limit`th time, and drops it.
pub async fn poll_up_to<F: Future>(limit: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut pending = 0;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if pending == limit => Poll::Ready(None),
        Poll::Pending => {
            pending += 1;
            Poll::Pending
        }
    })
    .await
}

/// The kind of a store's error.
pub fn kind(error: &Error) -> &StoreErrorKind {
    match error {
        Error::Store(error) => error.kind(),
        other => panic!("not the store's error: {other:?}"),
    }
}

/// The messages of an error and of its sources.
pub fn messages(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", messages(source)),
        None => error.to_string(),
    }
}
