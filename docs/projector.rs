//! What the page on the projector shows.

use std::time::Duration;

use cqrs_core::{
    ConsoleEventBus, Entity, Envelope, Error, EventHandler, FailurePolicy, Parking, Position,
    Query, ReadModels, RequestContext, Result, StartAt, Store, Subscription, TenantId, UnitOfWork,
};
use cqrs_sqlx::{
    ProjectorHandle, SqlTransaction, Sqlite, SqliteStore, SubscriptionState, SubscriptionStatus,
};

use super::{Order, OrderEvent, OrderList, OrderRow};

/// Counts the orders that were placed, with a statement for each.
struct PlacedCount;

impl EventHandler<SqlTransaction<Sqlite>> for PlacedCount {
    type Event = OrderEvent;

    fn name(&self) -> &str {
        "placed_count"
    }

    fn event_types(&self) -> Option<&'static [&'static str]> {
        Some(&["order.placed"])
    }

    async fn handle(
        &self,
        _: &Envelope<OrderEvent>,
        transaction: &mut SqlTransaction<Sqlite>,
    ) -> Result<()> {
        sqlx::query("UPDATE placed_count SET orders = orders + 1")
            .execute(transaction.connection())
            .await
            .map_err(Sqlite::error)?;
        Ok(())
    }

    async fn clear(&self, transaction: &mut SqlTransaction<Sqlite>) -> Result<()> {
        sqlx::query("UPDATE placed_count SET orders = 0")
            .execute(transaction.connection())
            .await
            .map_err(Sqlite::error)?;
        Ok(())
    }
}

fn orders() -> Subscription<SqlTransaction<Sqlite>> {
    Subscription::named("orders")
        .rows(OrderList)
        .each(PlacedCount)
        .on_failure(FailurePolicy::Park(Parking::at_most(500)))
}

async fn run(store: &SqliteStore) -> Result<ProjectorHandle> {
    let published = Subscription::named("published")
        .relay(ConsoleEventBus::stdout())
        .start_at(StartAt::Now);
    store
        .projector()
        .subscribe(orders())
        .subscribe(published)
        .deadline(Duration::from_secs(30))
        .start()
        .await
}

fn report(status: &SubscriptionStatus) {
    println!(
        "{}: at {}, {} positions and {:?} behind, {} parked",
        status.name, status.position, status.lag, status.lag_time, status.parked
    );
    for segment in &status.segments {
        if let SubscriptionState::Halted(failure) = &segment.state {
            println!("segment {}: {failure}", segment.segment);
        }
    }
}

async fn repair(store: &SqliteStore, ctx: &RequestContext) -> Result<()> {
    let operations = store.operations(ctx)?;
    for letter in operations
        .dead_letters("orders", Position::START, 100)
        .await?
    {
        println!(
            "{} {} at {}: {} attempts, {}",
            letter.aggregate_type,
            letter.aggregate_id,
            letter.position,
            letter.attempts,
            letter.error.as_deref().unwrap_or("stands behind another"),
        );
    }
    operations.replay_all("orders").await?;
    operations.resume("orders").await
}

async fn start_over(store: &SqliteStore, ctx: &RequestContext) -> Result<()> {
    let operations = store.operations(ctx)?;
    operations.pause("orders").await?;
    // ... repair what made the rows wrong ...
    operations.reset(&orders(), StartAt::Beginning).await?;
    operations.resume("orders").await
}

#[tokio::test]
async fn what_the_page_shows_works() -> Result<()> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), OrderRow::table()])
        .await?;
    let mut uow = store.unit_of_work(&RequestContext::system());
    sqlx::raw_sql(
        "CREATE TABLE placed_count (orders integer); INSERT INTO placed_count VALUES (0)",
    )
    .execute(uow.connection().await?)
    .await
    .map_err(Error::other)?;
    let _ = uow.commit().await?;

    let projector = run(&store).await?;
    let ctx = RequestContext::tenant(TenantId::new("north")?);
    let receipt = store
        .execute(&ctx, async |uow| uow.save(Order::place("Ada")))
        .await?;
    store.wait_for(&receipt, "orders").await?;
    store.wait_for(&receipt, "published").await?;
    for status in store.subscriptions().await? {
        report(&status);
        assert_eq!((status.lag, status.parked), (0, 0));
    }
    let operator = RequestContext::system().with_actor("kim");
    repair(&store, &operator).await?;
    start_over(&store, &operator).await?;
    let receipt = store
        .execute(&ctx, async |uow| uow.save(Order::place("Bo")))
        .await?;
    store.wait_for(&receipt, "orders").await?;
    let read_models = store.read_models(&ctx);
    let rows = read_models.query(Query::<OrderRow>::all()).await?;
    assert_eq!(rows.len(), 2);
    let records = store.operations(&operator)?.records(10).await?;
    assert_eq!(records.len(), 5);
    assert_eq!(records[0].actor.as_deref(), Some("kim"));
    projector.stop(Duration::from_secs(10)).await;
    assert_eq!(OrderRow::table().name(), "order_list");
    Ok(())
}
