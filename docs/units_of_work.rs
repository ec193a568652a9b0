//! What the page on units of work shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cqrs_core::{
    BatchError, Entity, Error, Id, IdempotencyKey, Query, Repository, RequestContext, Result,
    Store, StoreErrorKind, TenantId, UnitOfWork,
};
use cqrs_sqlx::SqliteStore;

use super::{Order, Orders, pay};

async fn prepared() -> Result<(SqliteStore, RequestContext)> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    store.create_tables(&[Order::table()]).await?;
    let ctx = RequestContext::tenant(TenantId::new("north")?);
    Ok((store, ctx))
}

async fn place<U: UnitOfWork>(uow: &mut U, id: Id<Order>, customer: &str) -> Result<()> {
    let mut order = Order::place(customer);
    order.id = id;
    uow.save(order)
}

/// Pays those of the orders that are there.
async fn pay_known<U: UnitOfWork>(uow: &mut U, ids: &[Id<Order>]) -> Result<usize> {
    let mut paid = 0;
    for id in ids {
        match uow.savepoint(async |uow| pay(uow, *id).await).await {
            Ok(()) => paid += 1,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(paid)
}

#[tokio::test]
async fn a_savepoint_undoes_a_part() -> Result<()> {
    let (store, ctx) = prepared().await?;
    let order = Order::place("Ada");
    let ids = [Id::new(), order.id];
    let receipt = store
        .execute(&ctx, async |uow| {
            uow.save(order.clone())?;
            pay_known(uow, &ids).await
        })
        .await?;
    assert_eq!(receipt.events().len(), 2);
    assert_eq!(receipt.into_output(), 1);
    Ok(())
}

#[tokio::test]
async fn a_key_makes_a_command_happen_once() -> Result<()> {
    let (store, ctx) = prepared().await?;
    let header = "0b9c6a1e";
    let customer = "Ada".to_owned();

    let key = IdempotencyKey::new(header)?.for_request(&customer)?;
    let receipt = store
        .execute_once(&ctx, &key, async |uow| {
            let order = Order::place(&customer);
            let id = order.id;
            uow.save(order)?;
            Ok(id)
        })
        .await?;

    let again = store
        .execute_once(&ctx, &key, async |_| -> Result<Id<Order>> {
            unreachable!("the first receipt is returned")
        })
        .await?;
    assert_eq!(again, receipt);

    let other = IdempotencyKey::new(header)?.for_request(&"Bob")?;
    let refused = store.execute_once(&ctx, &other, async |_| Ok(Id::<Order>::new()));
    assert!(
        matches!(refused.await, Err(Error::Store(error)) if *error.kind() == StoreErrorKind::KeyReused)
    );

    let a_month_ago = chrono::Utc::now() - chrono::TimeDelta::days(30);
    assert_eq!(store.forget_receipts(a_month_ago).await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_import_commits_every_so_many() -> Result<(), BatchError> {
    let (store, ctx) = prepared().await.expect("a store");
    let customers: Vec<String> = (0..1_200).map(|n| format!("customer {n}")).collect();

    let done = store
        .execute_in_batches(&ctx, 500, customers, async |uow, customer| {
            place(uow, Id::new(), &customer).await
        })
        .await?;
    assert_eq!((done.items(), done.commits()), (1_200, 3));
    Ok(())
}

#[tokio::test]
async fn what_is_read_is_of_one_moment() -> Result<()> {
    let (store, ctx) = prepared().await?;
    store
        .execute(&ctx, async |uow| place(uow, Id::new(), "Ada").await)
        .await?;

    let (all, unpaid) = store
        .read(&ctx, async |uow| {
            let all = uow.query(Query::<Order>::all()).await?.len();
            let unpaid = uow.repository::<Order>().find_unpaid(100).await?.len();
            Ok((all, unpaid))
        })
        .await?;
    assert_eq!((all, unpaid), (1, 1));
    Ok(())
}

/// No order is placed for nobody, whoever placed it.
fn watch<U: UnitOfWork>(uow: &mut U, placed: &Arc<AtomicU64>) {
    uow.before_commit(async |uow| {
        let nobody = Order::fields().customer.eq("");
        if uow.repository::<Order>().exists(nobody).await? {
            return Err(Error::other("an order is for nobody"));
        }
        Ok(())
    });
    let placed = Arc::clone(placed);
    uow.after_commit(move |receipt| {
        placed.fetch_add(receipt.events().len() as u64, Ordering::Relaxed);
    });
}

#[tokio::test]
async fn hooks_run_around_the_commit() -> Result<()> {
    let (store, ctx) = prepared().await?;
    let placed = Arc::new(AtomicU64::new(0));
    for customer in ["Ada", ""] {
        let outcome = store
            .execute(&ctx, async |uow| {
                watch(uow, &placed);
                place(uow, Id::new(), customer).await
            })
            .await;
        assert_eq!(outcome.is_err(), customer.is_empty());
    }
    assert_eq!(placed.load(Ordering::Relaxed), 1);
    Ok(())
}

#[tokio::test]
async fn work_within_work_is_refused() -> Result<()> {
    let (store, ctx) = prepared().await?;
    let receipt = store
        .execute(&ctx, async |uow| {
            let nested = store.execute(&ctx, async |uow| place(uow, Id::new(), "Bob").await);
            assert!(nested.await.is_err());
            place(uow, Id::new(), "Ada").await
        })
        .await?;
    assert_eq!(receipt.events().len(), 1);
    Ok(())
}
