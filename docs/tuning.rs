//! The code of `tuning.md`.

use cqrs_core::{Entity, RequestContext, Result, Store, TenantId, UnitOfWork};
use cqrs_sqlx::{SqliteStore, StoreOptions};

use crate::Order;

/// On SQLite the option does nothing, so that code may run on both databases.
#[tokio::test]
async fn coalesced_commits_can_be_asked_for() -> Result<()> {
    let options = StoreOptions::default().coalesce(128);
    let connect = "sqlite::memory:".parse().expect("a URL of SQLite");
    let store = SqliteStore::connect_with(connect, options).await?;
    store.migrate().await?;
    store.create_tables(&[Order::table()]).await?;
    let ctx = RequestContext::tenant(TenantId::new("north")?);
    let order = Order::place("Ada");
    let receipt = store
        .execute(&ctx, async |uow| uow.save(order.clone()))
        .await?;
    assert_eq!(receipt.events().len(), 1);
    Ok(())
}
