//! A database of the benchmark's own: made at the start, dropped at the end, and brought back to
//! the same state before every slice.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};
use uuid::Uuid;

/// How many orders there are before each slice.
///
/// Enough that no plan prefers a sequential scan, and that writers which take turns on them are
/// not always at the same pages.
pub(crate) const SEEDS: usize = 10_000;
/// The tenant of all orders.
pub(crate) const TENANT: &str = "north";
/// The actor of the measured commands.
pub(crate) const ACTOR: &str = "dispatcher@north";

/// The quantity of an order that was there before.
const SEED_QUANTITY: i64 = 1;

/// A database that exists as long as the benchmark runs.
#[derive(Debug)]
pub(crate) struct Scratch {
    server: PgConnectOptions,
    name: String,
}

impl Scratch {
    /// Creates it on the server of this URL.
    ///
    /// # Errors
    ///
    /// Where the server refuses.
    pub(crate) async fn create(url: &str) -> Result<Self> {
        let server: PgConnectOptions = url.parse()?;
        let name = format!("cqrs_bench_{}", Uuid::now_v7().simple());
        let mut connection = PgConnection::connect_with(&server)
            .await
            .context("connecting to the server of DATABASE_URL")?;
        connection
            .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .await?;
        Ok(Self { server, name })
    }

    /// Does work in one, and drops it whatever came of that.
    ///
    /// # Errors
    ///
    /// That of the work; and where the server refuses.
    pub(crate) async fn within(
        url: &str,
        work: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let scratch = Self::create(url).await?;
        let done = work(&scratch).await;
        let dropped = scratch.drop().await;
        done.and(dropped)
    }

    /// How to connect to it.
    pub(crate) fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Drops it.
    ///
    /// # Errors
    ///
    /// Where the server refuses.
    pub(crate) async fn drop(self) -> Result<()> {
        let mut connection = PgConnection::connect_with(&self.server).await?;
        connection
            .execute(AssertSqlSafe(format!(
                "DROP DATABASE {} WITH (FORCE)",
                self.name
            )))
            .await?;
        Ok(())
    }
}

/// What a slice committed, by what its writers say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Orders placed.
    pub(crate) placed: u64,
    /// Orders changed.
    pub(crate) changed: u64,
    /// The sum of the quantities of the orders placed.
    pub(crate) quantity: i64,
    /// The sum of the changes.
    pub(crate) by: i64,
}

impl Tally {
    /// Adds what another writer committed.
    pub(crate) fn add(&mut self, other: Self) {
        self.placed += other.placed;
        self.changed += other.changed;
        self.quantity += other.quantity;
        self.by += other.by;
    }
}

/// The tables that all sides write, seen from outside.
#[derive(Debug)]
pub(crate) struct Tables {
    connection: PgConnection,
    seeds: Vec<Uuid>,
}

impl Tables {
    /// Connects, and prepares the orders that are there before each slice.
    ///
    /// # Errors
    ///
    /// Where the database fails.
    pub(crate) async fn prepare(options: &PgConnectOptions) -> Result<Self> {
        let mut connection = PgConnection::connect_with(options).await?;
        // A vacuum in the middle of a slice would fall on one side alone.
        for table in ["bench_order", "cqrs_event"] {
            connection
                .execute(AssertSqlSafe(format!(
                    "ALTER TABLE {table} SET (autovacuum_enabled = false)"
                )))
                .await?;
        }
        let seeds = (0..SEEDS).map(|_| Uuid::now_v7()).collect();
        Ok(Self { connection, seeds })
    }

    /// Has a unique key refuse a second order of a customer.
    ///
    /// # Errors
    ///
    /// Where the database fails.
    pub(crate) async fn let_customers_have_one_order(&mut self) -> Result<()> {
        let sql = "CREATE UNIQUE INDEX ON bench_order (customer)";
        self.connection.execute(sql).await?;
        Ok(())
    }

    /// The ids of the orders that are there before each slice.
    pub(crate) fn seeds(&self) -> &[Uuid] {
        &self.seeds
    }

    /// Brings the tables back to the state in which every slice finds them.
    ///
    /// Were they left to grow instead, whoever comes later in a round would have deeper indexes
    /// and more dead rows, and the faster side would burden the others with what it wrote more.
    /// They are not left empty, for a statement that is planned on an empty table scans it. The
    /// checkpoint lets every slice pay for the same full-page images.
    ///
    /// # Errors
    ///
    /// Where the database fails.
    pub(crate) async fn reset(&mut self) -> Result<()> {
        let connection = &mut self.connection;
        connection
            .execute("TRUNCATE bench_order, cqrs_event")
            .await?;
        sqlx::query(
            "INSERT INTO bench_order (id, version, tenant_id, created_at, created_by, \
             updated_at, updated_by, customer, note, quantity) \
             SELECT id, 1, $2, now(), 'seed', now(), 'seed', 'customer ' || number, \
             'Leave it with the neighbours, please.', $3 \
             FROM unnest($1::uuid[]) WITH ORDINALITY AS seed(id, number)",
        )
        .bind(&self.seeds)
        .bind(TENANT)
        .bind(SEED_QUANTITY)
        .execute(&mut *connection)
        .await?;
        connection
            .execute(
                "INSERT INTO cqrs_event (correlation_id, actor, tenant_id, aggregate_type, \
                 aggregate_id, event_id, aggregate_version, event_type, schema_version, payload, \
                 content_hash, occurred_at) \
                 SELECT id, 'seed', tenant_id, 'order', id::text, id, 1, 'order.placed', 1, \
                 payload::json, sha256(convert_to(payload, 'UTF8')), now() FROM bench_order AS o, \
                 concat('{\"customer\":\"', customer, '\",\"note\":\"', note, \
                 '\",\"quantity\":', quantity, '}') AS payload ORDER BY o.id",
            )
            .await?;
        connection
            .execute("VACUUM (ANALYZE) bench_order, cqrs_event")
            .await?;
        connection.execute("CHECKPOINT").await?;
        Ok(())
    }

    /// Checks that the tables hold what the writers of a slice say that they committed: as many
    /// rows and events, the sums of both, versions without gaps, hashes that are those of the
    /// payloads, ids that occur once.
    ///
    /// # Errors
    ///
    /// What differs.
    pub(crate) async fn verify(&mut self, tally: &Tally) -> Result<()> {
        let seeds = i64::try_from(self.seeds.len())?;
        let orders = seeds + i64::try_from(tally.placed)?;
        let events = orders + i64::try_from(tally.changed)?;
        let quantity = seeds * SEED_QUANTITY + tally.quantity + tally.by;
        let found: (i64, i64, i64, i64, i64, i64) = sqlx::query_as(
            "SELECT count(*), coalesce(sum(quantity), 0)::int8, \
             (SELECT count(*) FROM cqrs_event), \
             (SELECT count(DISTINCT event_id) FROM cqrs_event), \
             (SELECT coalesce(sum(coalesce(payload->>'quantity', payload->>'by')::int8), 0)::int8 \
              FROM cqrs_event), \
             (SELECT count(*) FROM cqrs_event \
              WHERE content_hash <> sha256(convert_to(payload::text, 'UTF8'))) FROM bench_order",
        )
        .fetch_one(&mut self.connection)
        .await?;
        let expected = (orders, quantity, events, events, quantity, 0);
        ensure!(
            found == expected,
            "orders, their quantity, events, different ids of events, quantity of the events, \
             wrong hashes: expected {expected:?}, found {found:?}"
        );
        let wrong: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM bench_order AS o FULL JOIN ( \
                 SELECT aggregate_id, count(*) AS events, min(aggregate_version) AS lowest, \
                        max(aggregate_version) AS highest, max(event_id::text) AS latest \
                 FROM cqrs_event WHERE aggregate_type = 'order' GROUP BY aggregate_id) AS e \
             ON o.id::text = e.aggregate_id \
             WHERE (e.lowest, e.highest, e.events) IS DISTINCT FROM (1, o.version, o.version)",
        )
        .fetch_one(&mut self.connection)
        .await?;
        ensure!(
            wrong == 0,
            "{wrong} orders have gaps in the versions of their events"
        );
        Ok(())
    }

    /// What the measured commands left in every column, apart from what differs between any two
    /// commits: which columns are NULL, and the values that are always the same. Equal for all
    /// sides, or they do not do the same work.
    ///
    /// # Errors
    ///
    /// Where the database fails.
    pub(crate) async fn shape(&mut self) -> Result<Vec<String>> {
        let shapes = sqlx::query_scalar(
            "SELECT DISTINCT shape FROM ( \
                 (SELECT concat_ws(' ', 'order', tenant_id, updated_by, 'without', ( \
                      SELECT string_agg(key, ', ' ORDER BY key) FROM jsonb_each(to_jsonb(o)) \
                      WHERE value = 'null')) AS shape \
                  FROM bench_order AS o WHERE updated_by = $1 LIMIT 500) \
                 UNION ALL \
                 (SELECT concat_ws(' ', 'event', aggregate_type, event_type, schema_version, \
                      tenant_id, actor, length(content_hash), 'with', ( \
                      SELECT string_agg(key, ', ') FROM json_object_keys(payload) AS key), \
                      'without', ( \
                      SELECT string_agg(key, ', ' ORDER BY key) FROM jsonb_each(to_jsonb(e)) \
                      WHERE value = 'null')) \
                  FROM cqrs_event AS e WHERE actor = $1 LIMIT 500)) AS shapes ORDER BY 1",
        )
        .bind(ACTOR)
        .fetch_all(&mut self.connection)
        .await?;
        Ok(shapes)
    }

    /// The server, and how durable its commits are.
    ///
    /// # Errors
    ///
    /// Where the database fails.
    pub(crate) async fn server(&mut self) -> Result<String> {
        Ok(sqlx::query_scalar(
            "SELECT concat('Postgres ', current_setting('server_version'), ', fsync ', \
             current_setting('fsync'), ', full_page_writes ', \
             current_setting('full_page_writes'))",
        )
        .fetch_one(&mut self.connection)
        .await?)
    }
}

/// A statement that a side prepared, and how the server runs it.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Its text.
    pub(crate) statement: String,
    /// Its plan, a line for each step.
    pub(crate) steps: Vec<String>,
    /// How many executions had a plan made for their parameters.
    pub(crate) custom: i64,
    /// How many executions had the plan that serves any parameters.
    pub(crate) generic: i64,
}

/// How often a turn may scan a table from its beginning to its end: what the harness does there itself,
/// when it fills, counts and compares.
const SCANS_OF_A_TURN: i64 = 40;

/// Checks that nobody scanned these tables whole for what an index is for: neither the sides, nor the
/// connections that a store has for itself, as those of flushes, of projectors and of the horizon. What
/// is counted is what was scanned since it was asked last, and it may be so much for each turn on
/// average: of one turn, it is exact; of many, a statement is found that scans in most of them, or
/// hundreds of times in some.
///
/// To be asked when all connections of the sides are closed: a session tells what it counted when it
/// ends.
///
/// # Errors
///
/// Where a table was scanned more often, or a session does not end.
pub(crate) async fn ensure_no_scans(
    database: &PgConnectOptions,
    tables: &[&str],
    turns: usize,
) -> Result<()> {
    let mut connection = PgConnection::connect_with(database).await?;
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let others: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        .fetch_one(&mut connection)
        .await?;
        if others == 0 {
            break;
        }
        ensure!(Instant::now() < patience, "{others} sessions do not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let scans: Vec<(String, i64)> = sqlx::query_as(
        "SELECT relname::text, seq_scan FROM pg_stat_user_tables \
         WHERE relname = ANY ($1) ORDER BY 1",
    )
    .bind(tables.iter().map(ToString::to_string).collect::<Vec<_>>())
    .fetch_all(&mut connection)
    .await?;
    connection.execute("SELECT pg_stat_reset()").await?;
    connection.close().await?;
    let most = SCANS_OF_A_TURN * i64::try_from(turns)?;
    for (table, scans) in scans {
        ensure!(
            scans <= most,
            "{table} was scanned {scans} times in {turns} turns: some statement has a plan without \
             its index"
        );
    }
    Ok(())
}

/// The setting of this connection on which the durability of its commits depends.
///
/// # Errors
///
/// Where the database fails.
pub(crate) async fn synchronous_commit(connection: &mut PgConnection) -> Result<String> {
    Ok(sqlx::query_scalar("SHOW synchronous_commit")
        .fetch_one(connection)
        .await?)
}

/// The plans of the statements that were prepared on this connection for the tables of the
/// benchmark.
///
/// # Errors
///
/// Where the database fails, and where a statement scans a whole table.
pub(crate) async fn plans(connection: &mut PgConnection) -> Result<Vec<Plan>> {
    let mut transaction = connection.begin().await?;
    // The plan that serves any parameters; the one for NULLs would be empty.
    transaction
        .execute("SET LOCAL plan_cache_mode = force_generic_plan")
        .await?;
    let statements: Vec<(String, String, i32, i64, i64)> = sqlx::query_as(
        "SELECT name, statement, cardinality(parameter_types), custom_plans, generic_plans FROM pg_prepared_statements \
         WHERE statement LIKE '%bench_order%' OR statement LIKE '%INTO cqrs_event%' \
         ORDER BY prepare_time",
    )
    .fetch_all(&mut *transaction)
    .await?;
    let mut plans = Vec::new();
    for (name, statement, parameters, custom, generic) in statements {
        // These lines ask for them too.
        if statement.contains("pg_prepared_statements") {
            continue;
        }
        let nulls = vec!["NULL"; usize::try_from(parameters)?].join(", ");
        let explain = format!("EXPLAIN EXECUTE \"{name}\"({nulls})");
        let steps: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
            .persistent(false)
            .fetch_all(&mut *transaction)
            .await?;
        ensure!(
            !steps.iter().any(|step| step.contains("Seq Scan")),
            "a statement scans a whole table:\n{statement}\n{}",
            steps.join("\n")
        );
        plans.push(Plan {
            statement,
            steps,
            custom,
            generic,
        });
    }
    transaction.rollback().await?;
    ensure!(!plans.is_empty(), "no statement was prepared");
    Ok(plans)
}
