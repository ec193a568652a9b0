//! What the page on tenants shows.

use cqrs_core::{Entity, RequestContext, Result, TenantId, TenantScope};
use cqrs_sqlx::{PgStore, StoreOptions};
use sqlx::postgres::PgConnectOptions;

use super::Order;

fn contexts() -> Result<[RequestContext; 2]> {
    let north = RequestContext::tenant(TenantId::new("north")?).with_actor("ann");
    let everyone = RequestContext::system().with_actor("nightly job");
    Ok([north, everyone])
}

fn migration() -> String {
    let mut sql = PgStore::create_table_sql(Order::table());
    sql.push_str(&PgStore::row_level_security_sql(&[Order::table()]));
    sql
}

async fn open(url: PgConnectOptions) -> Result<PgStore> {
    let options = StoreOptions::default().row_level_security();
    let store = PgStore::connect_with(url, options).await?;
    store.verify(&[Order::table()]).await?;
    Ok(store)
}

#[test]
fn a_context_has_a_scope() -> Result<()> {
    let [north, everyone] = contexts()?;
    assert!(north.scope().tenant().is_some());
    assert_eq!(*everyone.scope(), TenantScope::System);
    Ok(())
}

#[test]
fn the_migration_has_a_policy() {
    let sql = migration();
    assert!(sql.contains("CREATE POLICY cqrs_tenant ON \"orders\""));
}

/// On a server without such a role the error says so; what the page shows runs in the integration
/// tests.
#[tokio::test]
async fn a_superuser_is_refused() {
    let database = cqrs_integration::database::TestDatabase::create().await;
    let url = database.url().parse().expect("a URL of Postgres");
    let error = open(url).await.expect_err("there are no tables");
    assert!(error.to_string().contains("superuser"), "{error}");
}
