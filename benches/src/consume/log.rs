//! A log to consume, seen from outside.

use anyhow::{Context as _, Result, ensure};
use cqrs_core::Entity as _;
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Executor as _};
use uuid::Uuid;

use super::projections::Seen;
use crate::database::TENANT;
use crate::domain::Order;

/// How many events an order has.
const EVENTS_OF_AN_ORDER: i64 = 10;

/// The log, the usual outbox with the same events, and the read table.
pub(super) struct Log {
    pub(super) connection: PgConnection,
    database: PgConnectOptions,
    /// The position of its last event.
    pub(super) end: i64,
}

impl Log {
    pub(super) async fn prepare(database: &PgConnectOptions) -> Result<Self> {
        let store = PgStore::connect_with(database.clone(), StoreOptions::default()).await?;
        store.migrate().await?;
        store
            .create_tables(&[Order::table(), Seen::table()])
            .await?;
        store.close();
        let mut connection = PgConnection::connect_with(database).await?;
        connection
            .execute(
                "CREATE TABLE bench_checkpoint (position bigint NOT NULL); \
                 INSERT INTO bench_checkpoint VALUES (0); \
                 CREATE TABLE bench_outbox (position bigint PRIMARY KEY, tenant_id text NOT NULL, \
                 aggregate_id text NOT NULL, event_type text NOT NULL, payload json NOT NULL, \
                 status text NOT NULL DEFAULT 'NEW'); \
                 CREATE INDEX ON bench_outbox (position) WHERE status = 'NEW'",
            )
            .await?;
        Ok(Self {
            connection,
            database: database.clone(),
            end: 0,
        })
    }

    /// A store, as an application opens it.
    pub(super) async fn store(&self) -> Result<PgStore> {
        Ok(PgStore::connect_with(self.database.clone(), StoreOptions::default()).await?)
    }

    /// A connection of somebody who consumes by hand, whose pages are as durable as those of a projection
    /// that writes rows alone: a crash may take the last ones, rows and checkpoint.
    pub(super) async fn consumer(&self) -> Result<PgConnection> {
        let options = self.database.clone();
        let quick = options.options([("synchronous_commit", "off")]);
        Ok(PgConnection::connect_with(&quick).await?)
    }

    /// A connection of somebody else.
    pub(super) async fn connect(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect_with(&self.database).await?)
    }

    /// Fills the log with so many events, ten for each order, in turns.
    pub(super) async fn fill(&mut self, events: i64) -> Result<()> {
        let orders = (events / EVENTS_OF_AN_ORDER).max(1);
        let ids: Vec<Uuid> = (0..orders).map(|_| Uuid::now_v7()).collect();
        let connection = &mut self.connection;
        connection
            .execute("TRUNCATE cqrs_event, bench_outbox RESTART IDENTITY")
            .await?;
        sqlx::query(
            "INSERT INTO cqrs_event (correlation_id, actor, tenant_id, aggregate_type, \
             aggregate_id, event_id, aggregate_version, event_type, schema_version, payload, \
             content_hash, occurred_at) \
             SELECT id, 'seed', $2, 'order', id::text, gen_random_uuid(), version, type, 1, \
             payload::json, sha256(convert_to(payload, 'UTF8')), now() \
             FROM generate_series(0, $3 - 1) AS number, \
             LATERAL (SELECT ($1::uuid[])[number % $4 + 1] AS id, number / $4 + 1 AS version) AS o, \
             LATERAL (SELECT CASE version WHEN 1 THEN 'order.placed' ELSE 'order.changed' END, \
             CASE version WHEN 1 THEN concat('{\"customer\":\"customer ', number, \
             '\",\"note\":\"Leave it with the neighbours.\",\"quantity\":', number % 90 + 1, '}') \
             ELSE concat('{\"by\":', number % 9 + 1, ',\"note\":\"Changed on the phone, call ', \
             number, '.\"}') END) AS e (type, payload) ORDER BY number",
        )
        .bind(&ids)
        .bind(TENANT)
        .bind(events)
        .bind(orders)
        .execute(&mut *connection)
        .await?;
        connection.execute("VACUUM (ANALYZE) cqrs_event").await?;
        self.end = sqlx::query_scalar("SELECT max(position) FROM cqrs_event")
            .fetch_one(connection)
            .await?;
        Ok(())
    }

    /// Copies the log to the usual outbox.
    pub(super) async fn fill_outbox(&mut self) -> Result<()> {
        self.connection.execute("TRUNCATE bench_outbox").await?;
        self.connection
            .execute(
                "INSERT INTO bench_outbox SELECT position, tenant_id, aggregate_id, event_type, \
                 payload FROM cqrs_event ORDER BY position",
            )
            .await?;
        self.connection
            .execute("VACUUM (ANALYZE) bench_outbox")
            .await?;
        Ok(())
    }

    /// Has everyone begin again, with an empty read table, and removes what was written since the
    /// log was filled.
    pub(super) async fn rewind(&mut self) -> Result<()> {
        let connection = &mut self.connection;
        connection
            .execute(
                "TRUNCATE bench_seen, bench_order, cqrs_segment, cqrs_subscription; \
                 UPDATE bench_checkpoint SET position = 0",
            )
            .await?;
        let removed = sqlx::query("DELETE FROM cqrs_event WHERE position > $1")
            .bind(self.end)
            .execute(&mut *connection)
            .await?
            .rows_affected();
        if removed > 0 {
            connection.execute("VACUUM (ANALYZE) cqrs_event").await?;
        }
        connection.execute("VACUUM bench_checkpoint").await?;
        connection.execute("CHECKPOINT").await?;
        Ok(())
    }

    /// Checks that the read table is what the log says, up to where it was filled; or what the
    /// outbox says that was sent.
    pub(super) async fn verify(&mut self, side: &str, is_outbox: bool) -> Result<()> {
        const LOG: &str = "SELECT count(*), count(*) FILTER (WHERE (e.last, e.amount) \
             IS DISTINCT FROM (s.last, s.amount)) FROM ( \
                 SELECT DISTINCT ON (aggregate_id) tenant_id, aggregate_id::uuid AS id, \
                 position AS last, coalesce(payload->>'quantity', payload->>'by')::int8 AS amount \
                 FROM cqrs_event WHERE position <= $1 ORDER BY aggregate_id, position DESC) AS e \
             FULL JOIN (SELECT * FROM bench_seen WHERE last <= $1) AS s USING (tenant_id, id)";
        const OUTBOX: &str = "SELECT count(*), count(*) FILTER (WHERE (e.last, e.amount) \
             IS DISTINCT FROM (s.last, s.amount)) FROM ( \
                 SELECT DISTINCT ON (aggregate_id) tenant_id, aggregate_id::uuid AS id, \
                 position AS last, coalesce(payload->>'quantity', payload->>'by')::int8 AS amount \
                 FROM bench_outbox WHERE position <= $1 AND status = 'SENT' \
                 ORDER BY aggregate_id, position DESC) AS e \
             FULL JOIN (SELECT * FROM bench_seen WHERE last <= $1) AS s USING (tenant_id, id)";
        let sql = if is_outbox { OUTBOX } else { LOG };
        let (rows, wrong): (i64, i64) = sqlx::query_as(sql)
            .bind(self.end)
            .fetch_one(&mut self.connection)
            .await
            .context("reading the read table")?;
        ensure!(
            rows > 0 && wrong == 0,
            "{side} did not do its work: {wrong} of {rows} rows are wrong"
        );
        Ok(())
    }
}
