//! The lines of code in the table that maps the classic pattern to this framework.

use cqrs_core::{
    Entity, FailurePolicy, Id, IdempotencyKey, InMemoryStore, PageRequest, Parking, Query,
    ReadModels, Repository, RequestContext, Result, RetryPolicy, RowProjection, Rows,
    Specification, Store, Subscription, TenantId, UnitOfWork,
};
use cqrs_sqlx::{SqlTransaction, Sqlite, SqliteStore, StoreOptions};

use super::{Order, OrderList, OrderRow, lines, pay};

const API_MAP: &str = include_str!("api-map.md");

fn squeezed(text: &str) -> String {
    text.chars().filter(|char| !char.is_whitespace()).collect()
}

/// Each line of code in the last column is compiled somewhere in these pages.
#[test]
fn every_line_of_the_api_map_is_compiled() {
    let sources = squeezed(&super::SOURCES.concat());
    let mut rows = 0;
    for line in lines(API_MAP) {
        let Some(row) = line.strip_suffix("` |") else {
            continue;
        };
        rows += 1;
        let (_, code) = row.rsplit_once("| `").expect("the last column is code");
        for code in code.split("`, `") {
            let code = squeezed(&code.replace("\\|", "|"));
            assert!(sources.contains(&code), "this is not compiled: {code}");
        }
    }
    assert!(rows > 40, "{rows} rows");
}

async fn in_a_unit_of_work<U: UnitOfWork>(uow: &mut U, id: Id<Order>) -> Result<()> {
    let f = Order::fields();
    let query = Query::filter(f.paid.eq(false))
        .order_by(f.customer.asc())
        .limit(10);
    let _ = uow.repository::<Order>().query(query).await?;
    let _: Specification<Order> = f.customer.eq("Ada") & !f.paid.eq(true);
    let locking = Query::filter(f.paid.eq(false)).limit(1).lock();
    let _ = uow.query(locking).await?;
    let skipping = Query::filter(f.paid.eq(false)).limit(1).skip_locked();
    let _ = uow.query(skipping).await?;
    uow.savepoint(async |uow| pay(uow, id).await).await?;
    uow.after_commit(|receipt| println!("{:?}", receipt.position()));
    let order = uow.get::<Order>(id).await?;
    uow.remove(order)?;
    Ok(())
}

#[tokio::test]
async fn the_lines_of_the_map_run() -> Result<()> {
    let policy = RetryPolicy::default();
    let options = StoreOptions::default().retry_policy(policy);
    let connect = "sqlite::memory:".parse().expect("a URL");
    let store = SqliteStore::connect_with(connect, options).await?;
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), OrderRow::table()])
        .await?;
    store.verify(&[Order::table(), OrderRow::table()]).await?;
    let t = TenantId::new("north")?;
    let ctx = RequestContext::tenant(t).with_actor("kim");
    store.inline_rows(OrderList)?;

    let items = [Order::place("Ada"), Order::place("Bob")];
    let id = items[0].id;
    let work = async |uow: &mut <SqliteStore as Store>::UnitOfWork, order| uow.save(order);
    store
        .execute_in_batches(&ctx, 500, items, work)
        .await
        .map_err(cqrs_core::Error::other)?;
    let key = IdempotencyKey::new("request 7")?;
    let work = async |uow: &mut <SqliteStore as Store>::UnitOfWork| pay(uow, id).await;
    let receipt = store.execute_once(&ctx, &key, work).await?;
    store.wait_for(&receipt, OrderList::NAME).await?;

    let row = store.read_models(&ctx).find::<OrderRow>(id).await?;
    assert!(row.is_some_and(|row| row.paid));
    let rows = store
        .live(&ctx)
        .of_aggregate::<Order, _>(&OrderList, &id)
        .await?;
    assert_eq!(rows.len(), 1);
    let request = PageRequest::first(20).with_total();
    let page = store.read(&ctx, async |uow| {
        uow.repository::<Order>()
            .page(Query::all(), request.clone())
            .await
    });
    assert_eq!(page.await?.total, Some(2));
    let read =
        async |uow: &mut <SqliteStore as Store>::UnitOfWork| uow.query(Query::<Order>::all()).await;
    assert_eq!(store.read(&ctx, read).await?.len(), 2);

    let mut uow = store.unit_of_work(&ctx);
    uow.connection().await?;
    uow.commit().await?;
    store
        .execute(&ctx, async |uow| in_a_unit_of_work(uow, id).await)
        .await?;
    let pay_again = store.execute(&ctx, async |uow| pay(uow, id).await);
    let error = pay_again.await.map(drop).err();
    assert!(error.is_some_and(|error| error.is_not_found() && !error.is_conflict()));
    let _ = InMemoryStore::new();

    // Not inline there.
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    let splittable = Subscription::<SqlTransaction<Sqlite>>::named("order_list").segments(4);
    assert_eq!(splittable.initial_segments(), 4);
    let list = Subscription::new(Rows(OrderList));
    let list = list.on_failure(FailurePolicy::Park(Parking::at_most(500)));
    assert_eq!(store.projector().subscribe(list).run_until_idle().await?, 0);
    let operator = RequestContext::system().with_actor("kim");
    let replayed = store.operations(&operator)?.replay_all("order_list").await;
    assert_eq!(replayed?, 0);
    Ok(())
}
