//! What the page on backups shows.

use cqrs_core::integrity::LogCheck;
use cqrs_core::{ConsistencyCheck, Entity, Position, RequestContext, Result, Store, UnitOfWork};
use cqrs_integration::database::TestDatabase;
use cqrs_sqlx::{Backend, PgStore, SqlStore, SqliteStore};
use sqlx::{Connection, SqliteConnection};

use super::{Order, OrderEvent, OrderList, OrderRow};

type AnyResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

async fn pause_all<B: Backend>(store: &SqlStore<B>, ctx: &RequestContext) -> Result<()> {
    let operations = store.operations(ctx)?;
    for subscription in store.subscriptions().await? {
        operations.pause(&subscription.name).await?;
    }
    Ok(())
}

async fn check<B: Backend>(store: &SqlStore<B>, ctx: &RequestContext) -> Result<()> {
    store.verify(&[Order::table(), OrderRow::table()]).await?;
    store.verify_events::<OrderEvent>().await?;
    let log = store.check_log(ctx, &LogCheck::new()).await?;
    for found in log.breaks() {
        eprintln!("{found}");
    }
    let rows = ConsistencyCheck::of(&OrderList).run(store, ctx).await?;
    println!("{rows}");
    Ok(())
}

async fn back_up(database: &str, copy: &str) -> sqlx::Result<()> {
    let mut connection = SqliteConnection::connect(database).await?;
    sqlx::query("VACUUM INTO $1")
        .bind(copy)
        .execute(&mut connection)
        .await?;
    connection.close().await
}

async fn create<B: Backend>(store: &SqlStore<B>) -> Result<()> {
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), OrderRow::table()])
        .await
}

async fn place<B: Backend>(store: &SqlStore<B>, customer: &str) -> Result<Position> {
    let ctx = RequestContext::tenant("north".parse()?);
    let receipt = store
        .execute(&ctx, async |uow| uow.save(Order::place(customer)))
        .await?;
    Ok(receipt.position().expect("an event was written"))
}

#[tokio::test]
async fn a_copy_of_a_database_in_use_is_whole() -> AnyResult {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let url = format!("sqlite:{}", path("orders.db"));
    let store = SqliteStore::connect(&url).await?;
    create(&store).await?;
    place(&store, "Ada").await?;
    store.projector().rows(OrderList).run_until_idle().await?;
    back_up(&url, &path("copy.db")).await?;
    place(&store, "Ben").await?;

    let copy = SqliteStore::connect(&format!("sqlite:{}", path("copy.db"))).await?;
    let ctx = RequestContext::system().with_actor("restore");
    check(&copy, &ctx).await?;
    pause_all(&copy, &ctx).await?;
    place(&copy, "Cid").await?;
    assert!(
        copy.projector()
            .rows(OrderList)
            .run_until_idle()
            .await
            .is_err(),
        "it is paused"
    );
    copy.operations(&ctx)?.resume("order_list").await?;
    assert_eq!(copy.projector().rows(OrderList).run_until_idle().await?, 1);
    Ok(())
}

const NO_POSITION_TWICE: &str =
    "SELECT setval('cqrs_event_position', nextval('cqrs_event_position') + 1000000)";

#[tokio::test]
async fn positions_may_leap() -> AnyResult {
    assert!(include_str!("backup.md").contains(NO_POSITION_TWICE));
    let database = TestDatabase::create().await;
    let store = PgStore::connect(database.url()).await?;
    create(&store).await?;
    let first = place(&store, "Ada").await?;
    store.projector().rows(OrderList).run_until_idle().await?;
    let mut connection = sqlx::PgConnection::connect(database.url()).await?;
    sqlx::query(NO_POSITION_TWICE)
        .execute(&mut connection)
        .await?;
    connection.close().await?;
    let second = place(&store, "Ben").await?;
    assert!(second.0 > first.0 + 1_000_000);
    assert_eq!(store.projector().rows(OrderList).run_until_idle().await?, 1);
    check(&store, &RequestContext::system()).await?;
    Ok(())
}
