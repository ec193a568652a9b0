//! What the page on rebuilds shows.

use cqrs_core::{
    Entity, Envelope, Id, ReadModel, ReadModels, RequestContext, Result, RowProjection, Store,
    Subscription, TenantId, UnitOfWork,
};
use cqrs_sqlx::{Restored, SqliteStore, SwitchOver};

use super::{Order, OrderEvent, OrderList, OrderRow};

/// What the list of orders has become: it counts events.
#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "order_list", tenant)]
struct OrderTotal {
    #[read_model(key)]
    id: Id<Order>,
    events: i64,
}

struct OrderTotals;

impl RowProjection for OrderTotals {
    type Event = OrderEvent;
    type Row = OrderTotal;

    const NAME: &'static str = "orders";
    const VERSION: u32 = 2;

    fn key(&self, event: &Envelope<OrderEvent>) -> Result<Option<Id<Order>>> {
        Ok(Some(event.aggregate_id()?))
    }

    fn apply(&self, row: &mut Option<OrderTotal>, event: &Envelope<OrderEvent>) -> Result<()> {
        let id = event.aggregate_id()?;
        row.get_or_insert(OrderTotal { id, events: 0 }).events += 1;
        Ok(())
    }
}

async fn rebuild(store: &SqliteStore, ctx: &RequestContext) -> Result<()> {
    let orders = Subscription::named("orders").rows(OrderTotals);
    let building = store
        .operations(ctx)?
        .rebuild(&orders, SwitchOver::WhenReady)
        .await?;
    let mut progress = store.watch_progress(&building);
    while let Some(progress) = progress.next().await? {
        println!("{progress}");
    }
    Ok(())
}

async fn nightly(store: &SqliteStore, ctx: &RequestContext) -> Result<()> {
    let orders = Subscription::named("orders").rows(OrderTotals);
    let operations = store.operations(ctx)?;
    operations.snapshot(&orders).await?;
    for old in operations.snapshots("orders").await?.iter().skip(7) {
        operations.remove_snapshot("orders", old.id).await?;
    }
    Ok(())
}

async fn repair(store: &SqliteStore, ctx: &RequestContext) -> Result<()> {
    let orders = Subscription::named("orders").rows(OrderTotals);
    match store.operations(ctx)?.restore(&orders).await? {
        Restored::Snapshot(snapshot) => println!("as of position {}", snapshot.position),
        _ => println!("from the first event"),
    }
    Ok(())
}

#[tokio::test]
async fn what_the_page_shows_works() -> Result<()> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), OrderRow::table()])
        .await?;
    let ctx = RequestContext::tenant(TenantId::new("north")?);
    let order = Order::place("Ada");
    let id = order.id;
    store
        .execute(&ctx, async |uow| uow.save(order.clone()))
        .await?;
    let old = Subscription::named("orders").rows(OrderList);
    store.projector().subscribe(old).run_until_idle().await?;
    let new = Subscription::named("orders").rows(OrderTotals);
    let running = store.projector().subscribe(new).start().await?;
    rebuild(&store, &RequestContext::system()).await?;
    assert_eq!(store.subscriptions().await?[0].version, 2);
    let row = store.read_models(&ctx).find::<OrderTotal>(id).await?;
    assert!(row.is_some_and(|row| row.events == 1));
    nightly(&store, &RequestContext::system()).await?;
    repair(&store, &RequestContext::system()).await?;
    let row = store.read_models(&ctx).find::<OrderTotal>(id).await?;
    assert!(row.is_some_and(|row| row.events == 1));
    drop(running);
    Ok(())
}
