//! The framework's sides.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cqrs_core::{
    AggregateRoot as _, Entity as _, Id, RequestContext, Store as _, TenantId, UnitOfWork as _,
};
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use uuid::Uuid;

use super::orders::{AnyOrder, BulkTotal, EachTotal, KeptOrder, OrderTotal, SourcedOrder, Totals};
use super::protocol::{Append, Appending, Changed, Done, Holds, Placed, Turn};
use super::{after, verify};
use crate::database::{ACTOR, SEEDS, Scratch, TENANT, Tables, Tally};
use crate::domain::Order;
use crate::harness::{Sample, Timing, Worker, slice};
use crate::report::OURS;

/// The side whose orders are stored as rows.
pub(super) const STATE: &str = "ours_state";
/// The same, with coalesced commits and loads.
pub(super) const COALESCED: &str = "ours_coalesced";
/// The side whose orders have snapshots.
pub(super) const KEPT: &str = "ours_snapshot";
/// After how many events there is a snapshot.
pub(super) const SNAPSHOT_EVERY: usize = 100;
/// How many commits, or loads, go out together at most.
const TOGETHER: usize = 128;
/// How many connections a store has that does not write.
const CONNECTIONS: usize = 4;

/// The framework, with a database for each form of an order.
pub(super) struct Ours {
    sourced: Scratch,
    kept: Scratch,
    state: Scratch,
    tables: Tables,
}

impl Ours {
    pub(super) async fn create(url: &str) -> Result<Self> {
        let (sourced, kept) = (Scratch::create(url).await?, Scratch::create(url).await?);
        let state = Scratch::create(url).await?;
        for scratch in [&sourced, &kept] {
            prepare(scratch).await?;
        }
        let tables = prepare(&state).await?;
        Ok(Self {
            sourced,
            kept,
            state,
            tables,
        })
    }

    pub(super) async fn drop(self) -> Result<()> {
        for scratch in [self.sourced, self.kept, self.state] {
            scratch.drop().await?;
        }
        Ok(())
    }

    /// A slice of commands on event-sourced orders.
    pub(super) async fn append(&self, append: Append) -> Result<(Sample, Done)> {
        let seeds = self.fill(SEEDS, 1).await?;
        let store = open(&self.sourced, append.writers).await?;
        let written = write::<SourcedOrder>(store, append, seeds).await?;
        let expected = after(SEEDS, append.command, written.1)?;
        verify(OURS, expected, self.holds().await?)?;
        Ok(written)
    }

    /// A slice of commands on orders that are stored as rows, on one of the sides [`STATE`] and
    /// [`COALESCED`].
    pub(super) async fn append_state(
        &mut self,
        side: &'static str,
        append: Append,
    ) -> Result<(Sample, Done)> {
        self.tables.reset().await?;
        let seeds = self.tables.seeds().into();
        let store = match side {
            COALESCED => {
                open_with(&self.state, append.writers, |all| all.coalesce(TOGETHER)).await?
            }
            _ => open(&self.state, append.writers).await?,
        };
        let written = write::<Order>(store, append, seeds).await?;
        let Done {
            units, quantity, ..
        } = written.1;
        let tally = match append.command {
            Appending::Create => Tally {
                placed: units,
                quantity,
                ..Tally::default()
            },
            Appending::Change => Tally {
                changed: units,
                by: quantity,
                ..Tally::default()
            },
        };
        self.tables.verify(&tally).await.context(side)?;
        Ok(written)
    }

    /// A slice of loads of event-sourced orders, with so many events of one piece each.
    pub(super) async fn load(
        &self,
        orders: &Arc<[Uuid]>,
        events: usize,
        timing: Timing,
    ) -> Result<Sample> {
        read::<SourcedOrder>(&self.sourced, orders, events, timing).await
    }

    /// The same of orders that have snapshots.
    pub(super) async fn load_kept(
        &self,
        orders: &Arc<[Uuid]>,
        events: usize,
        timing: Timing,
    ) -> Result<Sample> {
        read::<KeptOrder>(&self.kept, orders, events, timing).await
    }

    /// Replaces the log by that of so many event-sourced orders, each with so many events, as the
    /// rivals' are replaced.
    pub(super) async fn fill(&self, orders: usize, events: usize) -> Result<Arc<[Uuid]>> {
        let ids: Arc<[Uuid]> = (0..orders).map(|_| Uuid::now_v7()).collect();
        let mut connection = PgConnection::connect_with(&self.sourced.options()).await?;
        connection
            .execute("TRUNCATE cqrs_event RESTART IDENTITY")
            .await?;
        sqlx::query(
            "INSERT INTO cqrs_event (correlation_id, actor, tenant_id, aggregate_type, \
             aggregate_id, event_id, aggregate_version, event_type, schema_version, payload, \
             content_hash, occurred_at) \
             SELECT id, 'seed', $3, 'order', id::text, gen_random_uuid(), version, type, 1, \
             payload::json, sha256(convert_to(payload, 'UTF8')), now() \
             FROM generate_series(1, $2) AS version, \
             unnest($1::uuid[]) WITH ORDINALITY AS o (id, number), \
             LATERAL (SELECT CASE version WHEN 1 THEN 'order.placed' ELSE 'order.changed' END, \
             CASE version WHEN 1 THEN concat('{\"customer\":\"customer ', number, \
             '\",\"note\":\"Leave it with the neighbours, please.\",\"quantity\":1}') \
             ELSE concat('{\"by\":1,\"note\":\"Changed on the phone, call ', version, '.\"}') END) \
             AS e (type, payload) ORDER BY version, number",
        )
        .bind(&ids[..])
        .bind(i32::try_from(events)?)
        .bind(TENANT)
        .execute(&mut connection)
        .await?;
        connection.execute("VACUUM (ANALYZE)").await?;
        connection.execute("CHECKPOINT").await?;
        connection.close().await?;
        Ok(ids)
    }

    /// Writes so many orders with so many events, some of them after the last snapshot.
    pub(super) async fn fill_kept(&self, orders: usize, events: usize) -> Result<Arc<[Uuid]>> {
        let store = open(&self.kept, CONNECTIONS).await?;
        let context = context()?;
        let mut ids = Vec::new();
        for _ in 0..orders {
            let placed = store
                .execute(&context, async |uow| {
                    let mut order = KeptOrder::place(Placed {
                        customer: "customer".to_owned(),
                        note: "Leave it with the neighbours, please.".to_owned(),
                        quantity: 1,
                    });
                    (1..SNAPSHOT_EVERY / 2).for_each(|_| order.change(one_more()));
                    let id = *order.id();
                    uow.save(order)?;
                    Ok(id)
                })
                .await?;
            let id = placed.into_output();
            let mut written = SNAPSHOT_EVERY / 2;
            while written < events {
                let more = SNAPSHOT_EVERY.min(events - written);
                store
                    .execute(&context, async |uow| {
                        let mut order: KeptOrder = uow.get(id).await?;
                        (0..more).for_each(|_| order.change(one_more()));
                        uow.save(order)
                    })
                    .await?;
                written += more;
                store.snapshots_written().await;
            }
            ids.push(id.uuid());
        }
        store.close();
        let mut connection = PgConnection::connect_with(&self.kept.options()).await?;
        let snapshots: i64 = sqlx::query_scalar("SELECT count(*) FROM cqrs_snapshot")
            .fetch_one(&mut connection)
            .await?;
        ensure!(snapshots == i64::try_from(orders)?, "{snapshots} snapshots");
        connection.execute("VACUUM (ANALYZE)").await?;
        connection.execute("CHECKPOINT").await?;
        connection.close().await?;
        Ok(ids.into())
    }

    /// Brings the log into the read table, from the beginning.
    pub(super) async fn replay(&self, replay: Replay, waits: bool) -> Result<(Sample, Holds)> {
        let mut connection = PgConnection::connect_with(&self.sourced.options()).await?;
        connection
            .execute("TRUNCATE order_total, cqrs_segment, cqrs_subscription")
            .await?;
        connection.execute("VACUUM (ANALYZE)").await?;
        connection.execute("CHECKPOINT").await?;
        connection.close().await?;
        let store = open_to_replay(&self.sourced, waits).await?;
        let projector = match replay {
            Replay::Fold => store.projector().rows(Totals),
            Replay::Bulk => store.projector().projection(BulkTotal),
            Replay::Each => store.projector().each(EachTotal),
        };
        let begun = Instant::now();
        let events = usize::try_from(projector.run_until_idle().await?)?;
        let sample = Sample::once(events, begun.elapsed());
        store.close();
        Ok((sample, self.holds().await?))
    }

    /// What the tables of the event-sourced orders hold.
    async fn holds(&self) -> Result<Holds> {
        let mut connection = PgConnection::connect_with(&self.sourced.options()).await?;
        let (orders, events, quantity, rows, total) = sqlx::query_as(
            "SELECT count(DISTINCT aggregate_id), count(*), \
             coalesce(sum(coalesce(payload->>'quantity', payload->>'by')::int8), 0)::int8, \
             (SELECT count(*) FROM order_total), \
             (SELECT coalesce(sum(quantity), 0)::int8 FROM order_total) FROM cqrs_event",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok(Holds {
            orders,
            events,
            quantity,
            rows,
            total,
        })
    }
}

/// Creates the tables in a database.
async fn prepare(scratch: &Scratch) -> Result<Tables> {
    let store = open(scratch, CONNECTIONS).await?;
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), OrderTotal::table()])
        .await?;
    store.close();
    Tables::prepare(&scratch.options()).await
}

async fn open(scratch: &Scratch, connections: usize) -> Result<PgStore> {
    open_with(scratch, connections, |options| options).await
}

async fn open_with(
    scratch: &Scratch,
    connections: usize,
    more: impl FnOnce(StoreOptions) -> StoreOptions,
) -> Result<PgStore> {
    let options = more(StoreOptions::default().max_connections(connections));
    Ok(PgStore::connect_with(scratch.options(), options).await?)
}

/// A store for a replay. Everything that it writes waits for the disk, or nothing does: pages of
/// rows alone wait only where more than the disk is asked for, which without a standby is the same.
async fn open_to_replay(scratch: &Scratch, waits: bool) -> Result<PgStore> {
    let commit = if waits { "remote_apply" } else { "off" };
    let options = scratch.options().options([("synchronous_commit", commit)]);
    let all = StoreOptions::default().max_connections(CONNECTIONS);
    Ok(PgStore::connect_with(options, all).await?)
}

fn context() -> Result<RequestContext> {
    Ok(RequestContext::tenant(TenantId::new(TENANT)?).with_actor(ACTOR))
}

fn one_more() -> Changed {
    Changed {
        by: 1,
        note: "Changed on the phone, call 7.".to_owned(),
    }
}

/// A slice of commands, on a store that was opened for it.
async fn write<O: AnyOrder>(
    store: PgStore,
    append: Append,
    orders: Arc<[Uuid]>,
) -> Result<(Sample, Done)> {
    let context = context()?;
    let writers = Turn::of_all_writers(append.writers)
        .map(|turn| Writer::<O> {
            store: store.clone(),
            context: context.clone(),
            command: append.command,
            orders: Arc::clone(&orders),
            turn,
            done: Done::default(),
            form: PhantomData,
        })
        .collect();
    let timing = timing(append.ramp_ms, append.measured_ms);
    let (writers, sample) = slice(writers, timing).await?;
    store.close();
    let mut done = Done::default();
    for writer in writers {
        done.add(writer.done);
    }
    Ok((sample, done))
}

/// A slice of loads, on a store that is opened for it.
async fn read<O: AnyOrder>(
    scratch: &Scratch,
    orders: &Arc<[Uuid]>,
    events: usize,
    timing: Timing,
) -> Result<Sample> {
    let store = open(scratch, 1).await?;
    let loader = Loader::<O> {
        store: store.clone(),
        context: context()?,
        orders: Arc::clone(orders),
        pieces: i64::try_from(events)?,
        turn: Turn::of_all_writers(1).next().context("no loader")?,
        form: PhantomData,
    };
    let (_, sample) = slice(vec![loader], timing).await?;
    store.close();
    Ok(sample)
}

/// How the framework replays.
#[derive(Debug, Clone, Copy)]
pub(super) enum Replay {
    /// With rows that are loaded, folded and written, a page at a time.
    Fold,
    /// With a statement for each page.
    Bulk,
    /// With a statement for each event.
    Each,
}

pub(super) fn timing(ramp_ms: u64, measured_ms: u64) -> Timing {
    Timing {
        ramp: Duration::from_millis(ramp_ms),
        measured: Duration::from_millis(measured_ms),
    }
}

/// Places or changes orders, and keeps count of them.
struct Writer<O> {
    store: PgStore,
    context: RequestContext,
    command: Appending,
    orders: Arc<[Uuid]>,
    turn: Turn,
    done: Done,
    form: PhantomData<fn() -> O>,
}

impl<O: AnyOrder> Worker for Writer<O> {
    async fn work(&mut self) -> Result<()> {
        let (receipt, quantity) = match self.command {
            Appending::Create => {
                let placed = self.turn.placed();
                let receipt = self
                    .store
                    .execute(&self.context, async |uow| {
                        uow.save(O::place(placed.clone()))
                    })
                    .await?;
                (receipt, placed.quantity)
            }
            Appending::Change => {
                let changed = self.turn.changed();
                let id: Id<O> = Id::from_uuid(self.orders[self.turn.order(self.orders.len())]);
                let receipt = self
                    .store
                    .execute(&self.context, async |uow| {
                        let mut order: O = uow.get(id).await?;
                        order.change(changed.clone());
                        uow.save(order)
                    })
                    .await?;
                (receipt, changed.by)
            }
        };
        ensure!(receipt.position().is_some(), "nothing was written");
        self.turn.next();
        self.done.add(Done {
            units: 1,
            quantity,
            retries: 0,
        });
        Ok(())
    }
}

/// Loads orders, and looks at what it was given.
struct Loader<O> {
    store: PgStore,
    context: RequestContext,
    orders: Arc<[Uuid]>,
    pieces: i64,
    turn: Turn,
    form: PhantomData<fn() -> O>,
}

impl<O: AnyOrder> Worker for Loader<O> {
    async fn work(&mut self) -> Result<()> {
        let id: Id<O> = Id::from_uuid(self.orders[self.turn.order(self.orders.len())]);
        let mut uow = self.store.unit_of_work(&self.context);
        let found = uow.get::<O>(id).await?.quantity();
        ensure!(
            found == self.pieces,
            "{found} pieces instead of {}",
            self.pieces
        );
        self.turn.next();
        Ok(())
    }
}
