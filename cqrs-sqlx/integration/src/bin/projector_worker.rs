//! A projector in a process of its own, for tests that kill it.
//!
//! `projector_worker <postgres url>` keeps the parcel views until it is killed, and prints the
//! position of each page before it applies it.

use cqrs_core::{Envelope, Projection, ProjectionTransaction, Result, Rows};
use cqrs_integration::domain::{ParcelEvent, ParcelViews};
use cqrs_integration::stores;
use cqrs_sqlx::StoreOptions;

struct Announced;

impl<T: ProjectionTransaction> Projection<T> for Announced {
    type Event = ParcelEvent;

    fn name(&self) -> &str {
        Projection::<T>::name(&Rows(ParcelViews))
    }

    async fn apply(&self, page: &[Envelope<ParcelEvent>], transaction: &mut T) -> Result<()> {
        println!("applying {}", page[0].position());
        Rows(ParcelViews).apply(page, transaction).await
    }
}

#[tokio::main]
async fn main() {
    let url = std::env::args()
        .nth(1)
        .expect("usage: projector_worker URL");
    let store = stores::postgres_with(&url, StoreOptions::default()).await;
    let _running = store
        .projector()
        .page_size(20)
        .projection(Announced)
        .start()
        .await
        .expect("the projector starts");
    std::future::pending::<()>().await;
}
