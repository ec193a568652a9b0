//! Sessions: connections whose statements can be interrupted.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cqrs_core::Result;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::connection;
use super::error::error;

/// After how many instructions of its machine SQLite asks whether to go on: a tenth of a millisecond
/// or so.
const INSTRUCTIONS: i32 = 10_000;

/// A connection, and a way to end the statement that it works on.
///
/// A statement of which nobody takes the result any more goes on in the thread of its connection, and
/// keeps the lock of all writers; nothing that is sent to that thread is heard before its end.
#[derive(Debug)]
pub(crate) struct Session {
    connection: SqliteConnection,
    is_unwanted: Arc<AtomicBool>,
}

impl Session {
    /// Opens one.
    pub(super) async fn open(options: &SqliteConnectOptions) -> Result<Self> {
        let mut connection = connection::open(options).await?;
        let is_unwanted = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&is_unwanted);
        connection
            .lock_handle()
            .await
            .map_err(|cause| error(cause, "connecting to the database"))?
            .set_progress_handler(INSTRUCTIONS, move || !asked.load(Ordering::Relaxed));
        Ok(Self {
            connection,
            is_unwanted,
        })
    }

    /// Ends whatever is under way; `None` where that fails.
    pub(super) async fn repair(self) -> Option<Self> {
        let Self {
            mut connection,
            is_unwanted,
        } = self;
        is_unwanted.store(true, Ordering::Relaxed);
        let is_over = connection::is_at_rest(&mut connection).await;
        is_unwanted.store(false, Ordering::Relaxed);
        let connection = connection::repair(is_over.then_some(connection)?).await?;
        Some(Self {
            connection,
            is_unwanted,
        })
    }
}

impl Deref for Session {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::super::fixture::TempDatabase;
    use super::*;

    const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                           INSERT INTO t SELECT count(*) FROM n";

    async fn run(session: &mut Session, sql: &'static str) -> sqlx::Result<()> {
        sqlx::raw_sql(sql).execute(&mut **session).await.map(drop)
    }

    #[tokio::test]
    async fn repair_ends_what_nobody_waits_for() {
        let database = TempDatabase::new();
        let mut session = Session::open(&database.options()).await.unwrap();
        run(
            &mut session,
            "CREATE TABLE t (a); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)",
        )
        .await
        .unwrap();
        // Sent, and given up.
        let hangs = pin!(run(&mut session, ENDLESS)).poll(&mut Context::from_waker(Waker::noop()));
        assert!(hangs.is_pending());
        let mut session = session.repair().await.unwrap();

        // Nothing is left of it, and nothing that follows is interrupted.
        let mut other = Session::open(&database.options()).await.unwrap();
        run(&mut other, "BEGIN IMMEDIATE; COMMIT").await.unwrap();
        let long = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) \
                    INSERT INTO t SELECT count(*) FROM n";
        run(&mut session, long).await.unwrap();
        let rows: Vec<i64> = sqlx::query_scalar("SELECT a FROM t")
            .fetch_all(&mut *session)
            .await
            .unwrap();
        assert_eq!(rows, [100_000]);
    }
}
