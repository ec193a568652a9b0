//! What the pages on projections, on caching, and on the classic pattern show.

use std::time::Duration;

use cqrs_core::cache::{CacheOptions, Cached};
use cqrs_core::{
    Entity, Id, PageRequest, Query, ReadModels, RequestContext, Result, Store, TenantId, UnitOfWork,
};
use cqrs_sqlx::SqliteStore;

use super::guide_snippets::OrdersOf;
use super::{Order, OrderList, OrderRow, Orders, pay};

async fn prepared() -> Result<(SqliteStore, RequestContext)> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    let tables = [Order::table(), OrderRow::table()];
    store.create_tables(&tables).await?;
    let ctx = RequestContext::tenant(TenantId::new("north")?);
    Ok((store, ctx))
}

async fn place<U: UnitOfWork>(uow: &mut U, id: Id<Order>, customer: &str) -> Result<()> {
    let mut order = Order::place(customer);
    order.id = id;
    uow.save(order)
}

#[tokio::test]
async fn projections_run_inline_and_live() -> Result<()> {
    let (store, ctx) = prepared().await?;
    store.inline_rows(OrderList)?;
    let id = Id::new();
    store
        .execute(&ctx, async |uow| place(uow, id, "Ada").await)
        .await?;
    let row = store.read_models(&ctx).find::<OrderRow>(id).await?;
    assert!(row.is_some_and(|row| row.customer == "Ada"));

    let live = store.live(&ctx);
    let rows = live.of_aggregate::<Order, _>(&OrderList, &id).await?;
    assert_eq!(rows[0].customer, "Ada");
    let row = live.find(&OrderList, id).await?;
    assert_eq!(row.as_ref(), rows.first());

    let events = store.rebuild_inline(OrderList).await?;
    assert_eq!(events, 1);
    Ok(())
}

#[tokio::test]
async fn reads_are_cached() -> Result<()> {
    let (store, ctx) = prepared().await?;
    store.inline_rows(OrderList)?;
    let id = Id::new();
    store
        .execute(&ctx, async |uow| place(uow, id, "Ada").await)
        .await?;

    let options = CacheOptions::default()
        .max_rows(50_000)
        .time_to_live(Duration::from_secs(5));
    let cached = Cached::new(store.clone(), options);

    let rows = cached.read_models(&ctx);
    let row = rows.find::<OrderRow>(id).await?;
    let page = rows
        .page(Query::<OrderRow>::all(), PageRequest::first(20))
        .await?;
    let unpaid = cached.repository::<Order>(&ctx).find_unpaid(10).await?;
    let of_ada = cached.ask(&ctx, &OrdersOf, "Ada".to_owned()).await?;
    assert!(row.is_some_and(|row| !row.paid));
    assert_eq!((page.items.len(), unpaid.len(), of_ada.len()), (1, 1, 1));

    store.execute(&ctx, async |uow| pay(uow, id).await).await?;
    let row = rows.find::<OrderRow>(id).await?;
    assert!(row.is_some_and(|row| row.paid));

    let refused = store
        .execute(&ctx, async |_| {
            cached.read_models(&ctx).find::<OrderRow>(id).await
        })
        .await;
    assert!(refused.is_err());
    Ok(())
}
