//! Telling other processes of commits, and hearing of theirs.
//!
//! `NOTIFY` takes a lock of the whole server until its transaction has committed: in the
//! transactions of writers it would have them commit one after the other. So it is sent after
//! them, alone. It tells nothing but that there is something to look for.

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};

const CHANNEL: &str = "cqrs_committed";

/// Tells who listens. A notification is not worth waiting for the disk.
pub(super) async fn tell(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, '')")
        .bind(CHANNEL)
        .execute(connection)
        .await
        .map(drop)
}

/// A connection that listens.
#[derive(Debug)]
pub(crate) struct Listener(PgListener);

impl Listener {
    pub(super) async fn open(options: &PgConnectOptions) -> Result<Self, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Self(listener))
    }

    /// The process that told; `None` where the connection was lost, and is there again.
    pub(super) async fn hear(&mut self) -> Result<Option<i32>, sqlx::Error> {
        let heard = self.0.try_recv().await?;
        Ok(heard.and_then(|heard| i32::try_from(heard.process_id()).ok()))
    }
}
