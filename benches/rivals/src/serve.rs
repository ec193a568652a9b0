//! What is done for each rival in the same way: pools, filling, writers, loaders, counting.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};
use uuid::Uuid;

use crate::harness::{Sample, Timing, Worker, slice};
use crate::protocol::{
    Answer, Append, Appending, Changed, Done, Holds, Measured, Placed, Turn, Work,
};

/// Another crate, used as its documentation says.
pub(crate) trait Rival: Clone + Send + Sync + 'static {
    /// What is emptied before it is filled again.
    const TRUNCATE: &'static str;
    /// Fill it with the orders `$1`, each with `$2` events.
    const FILL: &'static [&'static str];
    /// Counts orders and events, and adds up the pieces of the events.
    const HOLDS: &'static str;
    /// Counts the rows of the read table, and adds up their pieces.
    const READS: &'static str =
        "SELECT count(*), coalesce(sum(quantity), 0)::int8 FROM order_total";

    /// Creates the schema that it ships.
    fn setup(pool: &PgPool) -> impl Future<Output = Result<()>> + Send;

    /// Opens it.
    fn open(pool: &PgPool) -> Self;

    /// Places a new order. Returns how often it had to be repeated.
    fn create(&self, placed: Placed) -> impl Future<Output = Result<u64>> + Send;

    /// Loads an order and changes it. Returns how often it had to be repeated.
    fn change(&self, order: Uuid, changed: Changed) -> impl Future<Output = Result<u64>> + Send;

    /// Loads an order, and returns its pieces.
    fn load(&self, order: Uuid) -> impl Future<Output = Result<i64>> + Send;

    /// Brings all so many events into the read table, from the first one. Returns how long that
    /// took, without what an application does once when it starts.
    fn replay(&self, pool: &PgPool, events: u64) -> impl Future<Output = Result<Duration>> + Send;
}

/// The read table of all but those that bring their own.
pub(crate) const READ_TABLE: &str =
    "CREATE TABLE order_total (id uuid PRIMARY KEY, quantity bigint NOT NULL)";
/// An event in the read table.
pub(crate) const UPSERT: &str = "INSERT INTO order_total (id, quantity) VALUES ($1, $2) \
     ON CONFLICT (id) DO UPDATE SET quantity = order_total.quantity + excluded.quantity";

/// The rows to fill the tables with: for each event `id`, `number` (of the order, as text),
/// `version`, `name` of the event, and `fields`, the inside of its JSON.
macro_rules! seeds {
    () => {
        " FROM generate_series(1, $2::int) AS version, \
         unnest($1::uuid[]) WITH ORDINALITY AS o (id, number), \
         LATERAL (SELECT CASE version WHEN 1 THEN 'Placed' ELSE 'Changed' END, \
         CASE version WHEN 1 THEN concat('\"customer\":\"customer ', number, \
         '\",\"note\":\"Leave it with the neighbours, please.\",\"quantity\":1') \
         ELSE concat('\"by\":1,\"note\":\"Changed on the phone, call ', version, '.\"') END) \
         AS e (name, fields) ORDER BY version, number"
    };
}
pub(crate) use seeds;

/// The orders that a side was filled with.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    ids: Arc<[Uuid]>,
    events: usize,
}

/// Does the work with this rival.
pub(crate) async fn serve<R: Rival>(url: &str, work: Work, orders: &mut Orders) -> Result<Answer> {
    let options: PgConnectOptions = url.parse()?;
    match work {
        Work::Setup => setup::<R>(&options).await,
        Work::Fill {
            orders: count,
            events,
        } => {
            *orders = Orders {
                ids: (0..count).map(|_| Uuid::now_v7()).collect(),
                events,
            };
            fill::<R>(&options, orders).await
        }
        Work::Append(append) => self::append::<R>(&options, append, orders).await,
        Work::Load {
            ramp_ms,
            measured_ms,
        } => load::<R>(&options, timing(ramp_ms, measured_ms), orders).await,
        Work::Replay { waits } => replay::<R>(&replaying(&options, waits), orders).await,
        Work::Check => check::<R>(&options).await,
    }
}

/// A pool as large as the framework's, without the ping before each acquire that it lacks too.
fn pool(options: &PgConnectOptions, connections: usize) -> Result<PgPool> {
    Ok(PgPoolOptions::new()
        .max_connections(u32::try_from(connections)?)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options.clone()))
}

fn timing(ramp_ms: u64, measured_ms: u64) -> Timing {
    Timing {
        ramp: Duration::from_millis(ramp_ms),
        measured: Duration::from_millis(measured_ms),
    }
}

/// How a replay connects. Everything that it writes waits for the disk, or nothing does.
fn replaying(options: &PgConnectOptions, waits: bool) -> PgConnectOptions {
    let commit = if waits { "on" } else { "off" };
    options.clone().options([("synchronous_commit", commit)])
}

async fn setup<R: Rival>(options: &PgConnectOptions) -> Result<Answer> {
    let pool = pool(options, 4)?;
    R::setup(&pool).await?;
    // A vacuum in the middle of a slice would fall on one side alone.
    pool.execute(
        "DO $$ DECLARE name text; BEGIN FOR name IN SELECT oid::regclass FROM pg_class \
         WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP \
         EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = false)', name); \
         END LOOP; END $$",
    )
    .await?;
    pool.close().await;
    Ok(Answer::Done)
}

async fn fill<R: Rival>(options: &PgConnectOptions, orders: &Orders) -> Result<Answer> {
    let mut connection = PgConnection::connect_with(options).await?;
    connection.execute(R::TRUNCATE).await?;
    for fill in R::FILL {
        sqlx::query(fill)
            .bind(&orders.ids[..])
            .bind(i32::try_from(orders.events)?)
            .execute(&mut connection)
            .await
            .with_context(|| (*fill).to_owned())?;
    }
    connection.execute("VACUUM (ANALYZE)").await?;
    connection.execute("CHECKPOINT").await?;
    connection.close().await?;
    Ok(Answer::Done)
}

async fn append<R: Rival>(
    options: &PgConnectOptions,
    append: Append,
    orders: &Orders,
) -> Result<Answer> {
    let pool = pool(options, append.writers)?;
    let rival = R::open(&pool);
    let writers = Turn::of_all_writers(append.writers)
        .map(|turn| Writer {
            rival: rival.clone(),
            command: append.command,
            orders: Arc::clone(&orders.ids),
            turn,
            done: Done::default(),
        })
        .collect();
    let timing = timing(append.ramp_ms, append.measured_ms);
    let (writers, sample) = slice(writers, timing).await?;
    pool.close().await;
    let mut done = Done::default();
    for writer in writers {
        done.add(writer.done);
    }
    measured(sample, done)
}

async fn load<R: Rival>(
    options: &PgConnectOptions,
    timing: Timing,
    orders: &Orders,
) -> Result<Answer> {
    let pool = pool(options, 1)?;
    let loader = Loader {
        rival: R::open(&pool),
        orders: Arc::clone(&orders.ids),
        pieces: i64::try_from(orders.events)?,
        turn: Turn::of_all_writers(1).next().context("no loader")?,
        units: 0,
    };
    let (loaders, sample) = slice(vec![loader], timing).await?;
    pool.close().await;
    let units = loaders.iter().map(|loader| loader.units).sum();
    measured(
        sample,
        Done {
            units,
            ..Done::default()
        },
    )
}

async fn replay<R: Rival>(options: &PgConnectOptions, orders: &Orders) -> Result<Answer> {
    let pool = pool(options, 4)?;
    let rival = R::open(&pool);
    let events = orders.ids.len() * orders.events;
    let units = u64::try_from(events)?;
    let sample = Sample::once(events, rival.replay(&pool, units).await?);
    pool.close().await;
    measured(
        sample,
        Done {
            units,
            ..Done::default()
        },
    )
}

async fn check<R: Rival>(options: &PgConnectOptions) -> Result<Answer> {
    let mut connection = PgConnection::connect_with(options).await?;
    let (orders, events, quantity) = sqlx::query_as(R::HOLDS).fetch_one(&mut connection).await?;
    let (rows, total) = sqlx::query_as(R::READS).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(Answer::Holds(Holds {
        orders,
        events,
        quantity,
        rows,
        total,
    }))
}

fn measured(sample: Sample, done: Done) -> Result<Answer> {
    let nanos = sample
        .latencies
        .iter()
        .map(|time| u64::try_from(time.as_nanos()));
    Ok(Answer::Measured(Measured {
        per_s: sample.per_s,
        latencies_ns: nanos.collect::<Result<_, _>>()?,
        done,
    }))
}

/// Places or changes orders, and keeps count of them.
struct Writer<R> {
    rival: R,
    command: Appending,
    orders: Arc<[Uuid]>,
    turn: Turn,
    done: Done,
}

impl<R: Rival> Worker for Writer<R> {
    async fn work(&mut self) -> Result<()> {
        let (quantity, retries) = match self.command {
            Appending::Create => {
                let placed = self.turn.placed();
                (placed.quantity, self.rival.create(placed).await?)
            }
            Appending::Change => {
                let changed = self.turn.changed();
                let order = self.orders[self.turn.order(self.orders.len())];
                (changed.by, self.rival.change(order, changed).await?)
            }
        };
        self.turn.next();
        self.done.add(Done {
            units: 1,
            quantity,
            retries,
        });
        Ok(())
    }
}

/// Loads orders, and looks at what it was given.
struct Loader<R> {
    rival: R,
    orders: Arc<[Uuid]>,
    pieces: i64,
    turn: Turn,
    units: u64,
}

impl<R: Rival> Worker for Loader<R> {
    async fn work(&mut self) -> Result<()> {
        let order = self.orders[self.turn.order(self.orders.len())];
        let found = self.rival.load(order).await?;
        ensure!(
            found == self.pieces,
            "{found} pieces instead of {}",
            self.pieces
        );
        self.turn.next();
        self.units += 1;
        Ok(())
    }
}
