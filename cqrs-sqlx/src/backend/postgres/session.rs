//! Sessions: connections, and how they are opened.

use std::sync::atomic::Ordering;

use cqrs_core::{Error, Result, StoreErrorKind};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Row, SqlStr};

use super::error::error;
use super::{Postgres, process};
use crate::backend::{Process, transaction};
use crate::connections::Connect;

/// Reads which process of the server works for a connection. Who has taken another role by the options
/// of the connection does not see when it began.
///
/// A process of our own was told by us how to begin: the client, as the server calls it, is who set
/// what sqlx sends with the name of the user. A pooler begins its processes itself, and sets later what
/// it passes on at all. The name of the application says nothing, since the configuration of a pooler
/// may have the same. It has to prepare statements by names of its own: every client uses the same.
///
/// Has the server notice after half a minute that this host is gone, unless it is set to sooner: what
/// the session holds is free then, as it is at once where only this process ends. By a statement, since
/// there are poolers that refuse options. A server that does not know its defaults says -1.
const OPENED: &str = "SELECT pid, coalesce(backend_start::text, ''), is_own,
         is_own OR EXISTS (SELECT FROM pg_prepared_statements
                           WHERE statement LIKE 'SELECT pid, coalesce(backend_start%'
                             AND name NOT LIKE 'sqlx\\_s\\_%') AS is_renamed,
         CASE WHEN $1 AND is_own THEN (
         SELECT count(set_config(name,
             least(nullif(greatest(current_setting(name)::int, 0), 0), most)::text, false))
         FROM (VALUES ('tcp_keepalives_idle', 15), ('tcp_keepalives_interval', 5),
                      ('tcp_keepalives_count', 3), ('tcp_user_timeout', 30000))
             AS limits (name, most)) END
     FROM pg_stat_activity, (
         SELECT EXISTS (
             SELECT FROM pg_settings
             WHERE name = 'extra_float_digits' AND setting = '2' AND source = 'client')
     ) AS begun (is_own)
     WHERE pid = pg_backend_pid()";

/// A connection, and the server process that works for it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) connection: PgConnection,
    pub(super) process: Process,
    begin: SqlStr,
}

impl Session {
    /// Whether each transaction may have another process of the server.
    pub(super) fn is_pooled(&self) -> bool {
        matches!(self.process, Process::Holding(_))
    }

    /// Begins a transaction, by which its process is found where it is another each time.
    pub(super) async fn begin(&mut self) -> sqlx::Result<()> {
        transaction::begin::<sqlx::Postgres>(&mut self.connection, Some(self.begin.clone())).await
    }
}

impl Connect for Postgres {
    type Connection = Session;

    async fn connect(&self) -> Result<Session> {
        let connect = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            let settings = self.options.get_options().unwrap_or_default();
            let opened = sqlx::query(OPENED)
                .bind(!settings.contains("tcp_"))
                .fetch_one(&mut connection)
                .await?;
            Ok((connection, opened))
        };
        let (connection, opened) = connect.await.map_err(|cause: sqlx::Error| {
            if is_mixed_up(&cause) {
                mixed_up()
            } else {
                error(cause, "connecting to the database")
            }
        })?;
        let process = self.process_of(&opened)?;
        Ok(Session {
            connection,
            begin: process::begin(&process, self.flushes),
            process,
        })
    }

    fn is_idle(session: &Session) -> bool {
        transaction::depth::<sqlx::Postgres>(&session.connection) == 0
    }

    /// The server rolls back and ends when the socket closes.
    async fn repair(&self, _: Session) -> Option<Session> {
        None
    }
}

impl Postgres {
    fn process_of(&self, opened: &PgRow) -> Result<Process> {
        let read = || -> sqlx::Result<(Process, bool, bool)> {
            let own = Process::Own {
                id: opened.try_get(0)?,
                started: opened.try_get(1)?,
            };
            Ok((own, opened.try_get(2)?, opened.try_get(3)?))
        };
        let (own, is_own, is_renamed) =
            read().map_err(|cause| error(cause, "connecting to the database"))?;
        if is_own {
            return Ok(own);
        }
        if !is_renamed {
            return Err(mixed_up());
        }
        self.pooled.store(true, Ordering::Relaxed);
        Ok(process::behind_pooler())
    }
}

/// Whether a statement that was just prepared is not there, or one that was not is: 26000
/// `invalid_sql_statement_name`, 42P05 `duplicate_prepared_statement`.
fn is_mixed_up(cause: &sqlx::Error) -> bool {
    let code = cause.as_database_error().and_then(DatabaseError::code);
    matches!(code.as_deref(), Some("26000" | "42P05"))
}

fn mixed_up() -> Error {
    Error::store(
        StoreErrorKind::Usage,
        "the connection leads through a pooler that does not give prepared statements names of its \
         own: set `max_prepared_statements` of PgBouncer, 1.21 or later, and leave sqlx's statement \
         cache on (on a connection without a pooler: leave `extra_float_digits` of the options as it \
         is)",
    )
}
