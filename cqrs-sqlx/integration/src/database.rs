//! Fresh databases for tests.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use cqrs_core::mapping::Table;
use cqrs_sqlx::PgStore;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

/// Returns the URL of the Postgres server that the tests run on.
///
/// # Panics
///
/// If `DATABASE_URL` is not set.
pub fn postgres_url() -> String {
    std::env::var("DATABASE_URL").expect(
        "this test needs PostgreSQL: run `cargo xtask test`, \
         or set DATABASE_URL=postgres://user:password@host/database",
    )
}

/// The plan of a statement that the connection has prepared, for whatever parameters.
///
/// `like` is how it begins, as a pattern; `arguments` are SQL.
///
/// # Panics
///
/// If there is no such statement.
pub async fn generic_plan(connection: &mut PgConnection, like: &str, arguments: &str) -> String {
    let set = "SET LOCAL plan_cache_mode = force_generic_plan";
    connection.execute(set).await.expect("in a transaction");
    let found = "SELECT name FROM pg_prepared_statements WHERE statement LIKE $1";
    let name: String = sqlx::query_scalar(found)
        .bind(like)
        .fetch_one(&mut *connection)
        .await
        .expect("it is prepared");
    let explain = format!("EXPLAIN EXECUTE {name}({arguments})");
    let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
        .fetch_all(connection)
        .await
        .expect("it has a plan");
    plan.join("\n")
}

/// A Postgres database of its own for one test.
///
/// It is dropped with the value, whoever is still connected to it.
/// The drop blocks the thread until the server has answered: a process that ends sooner
/// would leave its last database behind.
#[derive(Debug)]
pub struct TestDatabase {
    server: String,
    name: String,
    url: String,
}

impl TestDatabase {
    /// Creates an empty database on the server of [`postgres_url`].
    ///
    /// It is encoded in UTF-8; collation and everything else is the server's default. The server
    /// creates some three hundred files for it, which is quick only where its data is in memory.
    ///
    /// # Panics
    ///
    /// If `DATABASE_URL` is not set, if the server cannot be reached, or if the user may not
    /// create databases.
    pub async fn create() -> Self {
        let server = postgres_url();
        let name = format!("cqrs_test_{}", Uuid::now_v7().simple());
        let url = url_of(&options(&server).database(&name));
        // Nobody can be connected to `template0`, so concurrent tests never find it in use.
        // The strategy is left to the server: since PostgreSQL 15 that is `wal_log`, which needs
        // no checkpoint, and before 15 there is no choice.
        let sql = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'");
        administer(&server, sql)
            .await
            .unwrap_or_else(|error| panic!("no test database on DATABASE_URL: {error}"));
        Self { server, name, url }
    }

    /// Returns the URL of this database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the name of this database, unique on its server.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestDatabase {
    /// Drops the database; a failure leaves it on the server and is not reported.
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        administer_in_drop(std::mem::take(&mut self.server), sql);
    }
}

/// A test's own runtime cannot be entered from a drop, so the statement gets another.
fn administer_in_drop(server: String, sql: String) {
    let dropper = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        if let Ok(runtime) = runtime {
            let _ = runtime.block_on(administer(&server, sql));
        }
    });
    let _ = dropper.join();
}

/// A Postgres database whose tables are behind policies of row-level security, and a role that they
/// hold for: neither a superuser nor the owner of the tables.
#[derive(Debug)]
pub struct SecuredDatabase {
    // Dropped before the role, which else has rights in it.
    database: Option<TestDatabase>,
    role: String,
    url: String,
    member_url: String,
}

impl SecuredDatabase {
    /// Creates these tables, those of the framework, their policies, and the role.
    ///
    /// # Panics
    ///
    /// If a statement fails.
    pub async fn create(tables: &[&'static Table]) -> Self {
        const PASSWORD: &str = "of a test";
        let database = TestDatabase::create().await;
        let owner = PgStore::connect(database.url()).await.expect("it is there");
        owner.migrate().await.expect("migrations apply");
        owner
            .create_tables(tables)
            .await
            .expect("tables are created");
        owner.close();
        let role = database.name().replace("cqrs_test_", "cqrs_role_");
        let sql = format!(
            "{policies}
             CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}';
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
             GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role};
             CREATE ROLE {role}_member LOGIN PASSWORD '{PASSWORD}' IN ROLE {role};
             ALTER ROLE {role}_member SET role = '{role}'",
            policies = PgStore::row_level_security_sql(tables),
        );
        administer(database.url(), sql)
            .await
            .expect("policies and a role are created");
        let options = options(database.url()).username(&role).password(PASSWORD);
        Self {
            url: url_of(&options),
            member_url: url_of(&options.username(&format!("{role}_member"))),
            database: Some(database),
            role,
        }
    }

    /// The URL for the role.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL for a role that runs as the other one once it has logged in, and as that may not end its
    /// own processes.
    pub fn member_url(&self) -> &str {
        &self.member_url
    }

    /// The URL for a superuser, whom policies do not concern.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn superuser_url(&self) -> &str {
        let database = self.database.as_ref();
        database.expect("it is only taken out in the drop").url()
    }
}

impl Drop for SecuredDatabase {
    fn drop(&mut self) {
        drop(self.database.take());
        let role = &self.role;
        let sql = format!("DROP ROLE IF EXISTS {role}, {role}_member");
        administer_in_drop(postgres_url(), sql);
    }
}

/// A `SQLite` file of its own for one test, removed with the value.
#[derive(Debug)]
pub struct TestFile {
    // Held for its drop, which removes the directory.
    _directory: TempDir,
    path: PathBuf,
}

impl TestFile {
    /// Makes an empty directory for the file; the file itself is created by the first connection.
    ///
    /// The file is alone in its directory, so its journals are removed with it.
    ///
    /// # Panics
    ///
    /// If the system's directory for temporary files cannot be written.
    pub fn create() -> Self {
        let directory = TempDir::new().expect("the directory for temporary files is writable");
        let path = directory.path().join("test.db");
        Self {
            _directory: directory,
            path,
        }
    }

    /// Returns the URL under which a connection creates or opens the file.
    pub fn url(&self) -> String {
        format!("sqlite://{}?mode=rwc", self.path.display())
    }

    /// Returns where the file is or will be.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Parses a Postgres URL.
///
/// # Panics
///
/// If it is none.
pub(crate) fn options(url: &str) -> PgConnectOptions {
    PgConnectOptions::from_str(url)
        .unwrap_or_else(|error| panic!("not the URL of a PostgreSQL database: {error}"))
}

/// Writes connect options as a URL.
pub(crate) fn url_of(options: &PgConnectOptions) -> String {
    let mut url = options.to_url_lossy();
    let _ = url.query_pairs_mut().extend_pairs(omitted(options));
    url.to_string()
}

/// Writes connect options as a URL that leads to a port of this machine, without TLS.
pub(crate) fn url_through(options: PgConnectOptions, port: u16) -> String {
    let options = options.port(port).ssl_mode(PgSslMode::Disable);
    let mut url = options.to_url_lossy();
    // Not by the options: a socket in them wins over a host, and cannot be taken out.
    url.set_host(Some("127.0.0.1"))
        .expect("the URL of a server has a host");
    let _ = url.query_pairs_mut().extend_pairs(omitted(&options));
    url.to_string()
}

/// Returns what sqlx leaves out of the URL of its options.
fn omitted(options: &PgConnectOptions) -> impl Iterator<Item = (&str, &str)> {
    let name = options.get_application_name();
    let settings = options.get_options();
    name.map(|name| ("application_name", name))
        .into_iter()
        .chain(settings.map(|settings| ("options", settings)))
}

/// Runs one statement on a connection of its own.
async fn administer(server: &str, sql: String) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(server).await?;
    // The statement holds nothing but a name made here.
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{PgPool, SqlitePool};

    async fn exists(name: &str) -> bool {
        let mut connection = PgConnection::connect(&postgres_url()).await.unwrap();
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_database_lives_as_long_as_its_value() {
        let database = TestDatabase::create().await;
        let name = database.name().to_owned();
        let pool = PgPool::connect(database.url()).await.unwrap();
        let current: String = sqlx::query_scalar("SELECT current_database()::text")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(current, name);
        assert!(exists(&name).await);

        // The pool is still open: its connections do not keep the database.
        drop(database);
        assert!(!exists(&name).await);
    }

    #[tokio::test]
    async fn databases_are_created_at_the_same_time() {
        let (one, two, three) = tokio::join!(
            TestDatabase::create(),
            TestDatabase::create(),
            TestDatabase::create(),
        );
        assert_ne!(one.name(), two.name());
        assert_ne!(two.name(), three.name());
    }

    #[tokio::test]
    async fn a_file_is_shared_by_its_connections_and_removed() {
        let file = TestFile::create();
        let pool = SqlitePool::connect(&file.url()).await.unwrap();
        sqlx::query("CREATE TABLE t (n INTEGER)")
            .execute(&pool)
            .await
            .unwrap();
        let other = SqlitePool::connect(&file.url()).await.unwrap();
        sqlx::query("INSERT INTO t VALUES (1)")
            .execute(&other)
            .await
            .unwrap();
        pool.close().await;
        other.close().await;

        let path = file.path().to_owned();
        assert!(path.exists());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_url_keeps_what_the_options_say() {
        let url = "postgres://ada:p%40ss@db.example:6543/plans?application_name=it&options=-c%20statement_timeout%3D5s&sslmode=disable";
        let options = options(&url_of(&options(url)));
        assert_eq!(options.get_host(), "db.example");
        assert_eq!(options.get_port(), 6543);
        assert_eq!(options.get_username(), "ada");
        assert_eq!(options.get_database(), Some("plans"));
        assert_eq!(options.get_application_name(), Some("it"));
        assert_eq!(options.get_options(), Some("-c statement_timeout=5s"));
    }

    #[test]
    fn a_url_through_a_proxy_forgets_the_socket() {
        let url = "postgres://ada:secret@localhost/plans?host=%2Frun%2Fpostgresql";
        let options = options(&url_through(options(url), 6543));
        assert_eq!(options.get_socket(), None);
        assert_eq!(options.get_host(), "127.0.0.1");
        assert_eq!(options.get_port(), 6543);
        assert_eq!(options.get_database(), Some("plans"));
        assert!(matches!(options.get_ssl_mode(), PgSslMode::Disable));
    }
}
