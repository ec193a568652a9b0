//! Sessions: connections, and how they are opened.

use cqrs_core::Result;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row};

use super::Postgres;
use super::error::error;
use crate::backend::{Process, transaction};
use crate::connections::Connect;

/// Reads which process of the server works for a connection. Who has taken another role by the options
/// of the connection does not see when it began.
///
/// Has the server notice after half a minute that this host is gone, unless it is set to sooner: what
/// the session holds is free then, as it is at once where only this process ends. By a statement, since
/// there are poolers that refuse options. A server that does not know its defaults says -1.
const OPENED: &str = "SELECT pid, coalesce(backend_start::text, ''), CASE WHEN $1 THEN (
         SELECT count(set_config(name,
             least(nullif(greatest(current_setting(name)::int, 0), 0), most)::text, false))
         FROM (VALUES ('tcp_keepalives_idle', 15), ('tcp_keepalives_interval', 5),
                      ('tcp_keepalives_count', 3), ('tcp_user_timeout', 30000))
             AS limits (name, most)) END
     FROM pg_stat_activity WHERE pid = pg_backend_pid()";

/// A connection, and the server process that works for it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) connection: PgConnection,
    pub(super) process: Process,
}

impl Connect for Postgres {
    type Connection = Session;

    async fn connect(&self) -> Result<Session> {
        let connect = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            let settings = self.options.get_options().unwrap_or_default();
            let row = sqlx::query(OPENED)
                .bind(!settings.contains("tcp_"))
                .fetch_one(&mut connection)
                .await?;
            let process = Process {
                id: row.try_get(0)?,
                started: row.try_get(1)?,
            };
            Ok(Session {
                connection,
                process,
            })
        };
        connect
            .await
            .map_err(|cause| error(cause, "connecting to the database"))
    }

    fn is_idle(session: &Session) -> bool {
        transaction::depth::<sqlx::Postgres>(&session.connection) == 0
    }

    /// The server rolls back and ends when the socket closes.
    async fn repair(&self, _: Session) -> Option<Session> {
        None
    }
}
