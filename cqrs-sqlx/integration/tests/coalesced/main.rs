//! Commits, and loads, that are sent together: each caller gets what it would have got alone.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot be unwrapped is a failure"
)]

mod cancelled;
mod facts;
mod loads;
mod lost;
mod random;
mod runtimes;
mod silent;

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use cqrs_core::{CommitReceipt, RequestContext, Result, Store, UnitOfWork};
use cqrs_integration::domain::{self, Parcel, ParcelId};
use cqrs_integration::stores;
use cqrs_sqlx::{PgStore, PgUnitOfWork, StoreOptions};
use tokio::task::JoinSet;

/// What only a statement has that carries commits of several callers.
const FLUSH: &str = "e(correlation_id";

/// A store that sends commits together, as one that tests what goes over the wire.
async fn coalescing(url: &str) -> PgStore {
    stores::postgres_with(url, StoreOptions::default().coalesce(128)).await
}

/// So many parcels at version 1.
async fn registered(store: &PgStore, parcels: usize) -> Vec<ParcelId> {
    let mut uow = store.unit_of_work(&north());
    let ids = (0..parcels).map(|_| {
        let parcel = Parcel::register("known");
        let id = domain::id(&parcel);
        uow.save(parcel).unwrap();
        id
    });
    let ids = ids.collect();
    let _ = uow.commit().await.unwrap();
    ids
}

/// A unit of work that is about to change a parcel.
async fn weighed(store: &PgStore, id: ParcelId) -> PgUnitOfWork {
    let mut uow = store.unit_of_work(&north());
    let mut parcel: Parcel = uow.get(id).await.unwrap();
    parcel.weigh(1);
    uow.save(parcel).unwrap();
    uow
}

/// One that is about to add a parcel.
fn registering(store: &PgStore, label: &str) -> PgUnitOfWork {
    let mut uow = store.unit_of_work(&north());
    uow.save(Parcel::register(label)).unwrap();
    uow
}

/// Commits all of them at the same moment; the outcomes in their order.
async fn commit_all(work: Vec<PgUnitOfWork>) -> Vec<Result<CommitReceipt>> {
    let mut commits = JoinSet::new();
    for (number, uow) in work.into_iter().enumerate() {
        commits.spawn(async move { (number, uow.commit().await) });
    }
    let mut outcomes = commits.join_all().await;
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn north() -> RequestContext {
    stores::tenant("north")
}

/// Polls it once, and nobody is woken for it.
fn polled<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}
