//! Caches: what is answered from where, and what is never answered.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot be unwrapped is a failure"
)]

mod freshness;
mod gated;
mod loads;
mod remote;

use cqrs_core::conformance::fixtures::{Parcel, Tallies};
use cqrs_core::{InMemoryStore, RequestContext, Store, TenantId, UnitOfWork};

use self::gated::Gated;

fn tenant(name: &str) -> RequestContext {
    RequestContext::tenant(TenantId::new(name).unwrap())
}

/// A store whose tallies are kept by its commits.
fn store() -> Gated {
    let store = InMemoryStore::new();
    store.inline_rows(Tallies).unwrap();
    Gated::new(store)
}

async fn register(store: &Gated, context: &RequestContext, label: &str) {
    let saved = store.execute(context, async |uow| uow.save(Parcel::register(label)));
    saved.await.unwrap();
}
