//! What the page on consistency shows.

use cqrs_core::{ConsistencyCheck, Entity, RequestContext, Result, Store, TenantId, UnitOfWork};
use cqrs_sqlx::SqliteStore;

use super::{Order, OrderList, OrderRow};

#[tokio::test]
async fn what_the_page_shows_works() -> Result<()> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    let tables = [Order::table(), OrderRow::table()];
    store.create_tables(&tables).await?;
    let ctx = RequestContext::tenant(TenantId::new("north")?);
    let order = Order::place("Ada");
    store
        .execute(&ctx, async |uow| uow.save(order.clone()))
        .await?;
    store.projector().rows(OrderList).run_until_idle().await?;

    let report = ConsistencyCheck::of(&OrderList)
        .run(&store, &RequestContext::system())
        .await?;
    println!("{report}");
    assert!(report.is_consistent());
    assert_eq!(report.rows, 1);
    Ok(())
}
