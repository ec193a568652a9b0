//! What the page on interceptors shows.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cqrs_core::{
    Change, CommitReceipt, DomainError, Entity, Intercepted, InterceptedCommit, Interceptor,
    RequestContext, Result, Store, TenantId, UnitOfWork,
};
use cqrs_sqlx::{SqliteStore, StoreOptions};

use super::Order;

#[derive(Debug)]
struct CustomerMissing;

impl fmt::Display for CustomerMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an order needs a customer")
    }
}

impl std::error::Error for CustomerMissing {}
impl DomainError for CustomerMissing {}

/// Customers are written in one way, and there is one.
struct Customers;

impl Interceptor for Customers {
    fn before_insert(&self, write: &mut Intercepted<'_>) -> Result<()> {
        let Some(order) = write.aggregate_mut::<Order>() else {
            return Ok(());
        };
        order.customer = order.customer.trim().to_owned();
        if order.customer.is_empty() {
            return Err(CustomerMissing.into());
        }
        Ok(())
    }
}

#[derive(Debug)]
struct TooManyAtOnce;

impl fmt::Display for TooManyAtOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one command changes at most a hundred aggregates")
    }
}

impl std::error::Error for TooManyAtOnce {}
impl DomainError for TooManyAtOnce {}

/// No command is a mass change by accident.
struct Limit;

impl Interceptor for Limit {
    fn before_commit(&self, commit: &InterceptedCommit<'_>) -> Result<()> {
        if commit.changes().count() > 100 {
            return Err(TooManyAtOnce.into());
        }
        Ok(())
    }
}

/// Counts what was committed.
#[derive(Default)]
struct Counts {
    orders: AtomicU64,
    events: AtomicU64,
}

struct Count(Arc<Counts>);

impl Interceptor for Count {
    fn after_insert(&self, change: &Change<'_>) {
        let customer: Option<String> = change.field(&Order::fields().customer);
        let is_order = u64::from(customer.is_some());
        self.0.orders.fetch_add(is_order, Ordering::Relaxed);
    }

    fn after_commit(&self, _: &InterceptedCommit<'_>, receipt: &CommitReceipt) {
        let events = receipt.events().len() as u64;
        self.0.events.fetch_add(events, Ordering::Relaxed);
    }
}

async fn open(counts: &Arc<Counts>) -> Result<SqliteStore> {
    let options = StoreOptions::default()
        .interceptor(Customers)
        .interceptor(Limit)
        .interceptor(Count(Arc::clone(counts)));
    let memory = "sqlite::memory:".parse().expect("a URL of SQLite");
    SqliteStore::connect_with(memory, options).await
}

#[tokio::test]
async fn interceptors_run_around_every_write() -> Result<()> {
    let counts = Arc::new(Counts::default());
    let store = open(&counts).await?;
    store.migrate().await?;
    store.create_tables(&[Order::table()]).await?;
    let ctx = RequestContext::tenant(TenantId::new("north")?);

    let order = Order::place(" Ada ");
    let id = order.id;
    store
        .execute(&ctx, async |uow| uow.save(order.clone()))
        .await?;
    let refused = store
        .execute(&ctx, async |uow| uow.save(Order::place(" ")))
        .await;
    assert!(refused.is_err_and(|error| error.domain::<CustomerMissing>().is_some()));
    let refused = store
        .execute(&ctx, async |uow| {
            (0..101).try_for_each(|_| uow.save(Order::place("Bob")))
        })
        .await;
    assert!(refused.is_err_and(|error| error.domain::<TooManyAtOnce>().is_some()));

    let order: Order = store.read(&ctx, async |uow| uow.get(id).await).await?;
    assert_eq!(order.customer, "Ada");
    assert_eq!(counts.orders.load(Ordering::Relaxed), 1);
    assert_eq!(counts.events.load(Ordering::Relaxed), 1);
    Ok(())
}
