//! What a scene needs of a database, and what happens to that.

use std::future::Future;
use std::sync::Arc;

use cqrs_integration::cluster::Cluster;
use cqrs_integration::each::Kind;
use cqrs_sqlx::{Postgres, Sqlite};
use sqlx::{Connection as _, PgConnection};

/// What may happen to the server.
#[derive(Clone)]
pub(super) enum Server {
    Stays,
    Crashes(Arc<Cluster>),
}

/// A database on which scenes are played.
pub(super) trait Place: Kind {
    /// Removes what an earlier scene has left.
    fn clean(url: &str) -> impl Future<Output = ()> + Send;

    /// Ends the other sessions for which a condition holds; whether there are sessions at all.
    fn terminate(url: &str, condition: &'static str) -> impl Future<Output = bool> + Send;
}

impl Place for Postgres {
    /// Its sessions may still be ending.
    async fn clean(url: &str) {
        Self::terminate(url, "true").await;
        let mut connection = loop {
            match PgConnection::connect(url).await {
                Ok(connection) => break connection,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        sqlx::raw_sql(
            "TRUNCATE cqrs_event, cqrs_subscription, cqrs_segment, cqrs_dead_letter, cqrs_operation,
                      cqrs_rebuild, cqrs_projection_snapshot, cqrs_removed, parcel, parcel_view,
                      parcel_copy;
             DROP TABLE IF EXISTS parcel_view__new, parcel_copy__new;
             DO $$ DECLARE copy regclass; BEGIN
                 FOR copy IN SELECT oid FROM pg_class WHERE relname LIKE 'cqrs\\_copy\\_%' LOOP
                     EXECUTE 'DROP TABLE ' || copy;
                 END LOOP;
             END $$;
             ALTER SEQUENCE cqrs_event_position RESTART",
        )
        .execute(&mut connection)
        .await
        .unwrap();
    }

    async fn terminate(url: &str, condition: &'static str) -> bool {
        let Ok(mut connection) = PgConnection::connect(url).await else {
            return true;
        };
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND backend_type = 'client backend' AND {condition}"
        );
        let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await;
        true
    }
}

impl Place for Sqlite {
    /// Each scene has a file of its own.
    async fn clean(_: &str) {}

    async fn terminate(_: &str, _: &'static str) -> bool {
        false
    }
}
