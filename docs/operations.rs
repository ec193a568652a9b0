//! What the page on operations shows.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use cqrs_core::{Delivery, Entity, Id, Inbox, RequestContext, Result, Store, TenantId, UnitOfWork};
use cqrs_sqlx::{HealthLimits, Retention, SqliteStore, StoreOptions};

use super::{Order, OrderList, OrderRow, pay};

#[rustfmt::skip]
async fn paid_elsewhere(store: &SqliteStore, ctx: &RequestContext, message: &str, id: Id<Order>) -> Result<()> {
    let inbox = Inbox::new("payments")?;
    let receipt = inbox
        .process(store, ctx, message, async |uow| pay(uow, id).await)
        .await?;
    if *receipt.output() == Delivery::Repeated {
        println!("{message} was here before");
    }
    Ok(())
}

#[tokio::test]
async fn what_the_page_shows_works() -> Result<()> {
    let options = StoreOptions::default().notifications(false);
    let connect = "sqlite::memory:".parse().expect("a URL of SQLite");
    let store = SqliteStore::connect_with(connect, options).await?;
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
    for _ in 0..2 {
        paid_elsewhere(&store, &ctx, "m1", id).await?;
    }
    let health = store.health(&HealthLimits::default()).await?;
    for problem in &health.problems {
        eprintln!("{problem}");
    }
    assert!(health.is_healthy());
    for holder in store.horizon_holders().await? {
        if holder.age > Duration::from_secs(10) {
            eprintln!("{holder}");
        }
    }

    let inbox = Inbox::new("payments")?;
    let month_ago = Utc::now() - TimeDelta::days(30);
    let forgotten = store.forget_messages(&inbox, month_ago).await?;
    assert_eq!(forgotten, 0);

    let projector = store.projector().rows(OrderList);
    assert_eq!(projector.run_until_idle().await?, 2, "paid once");
    let retention = Retention::older_than(Duration::from_secs(90 * 24 * 60 * 60)).keep("account");
    let removed = store
        .remove_events(&RequestContext::system(), &retention)
        .await?;
    println!("{} events in {} batches", removed.events, removed.batches);
    assert_eq!(removed.events, 0);
    Ok(())
}
