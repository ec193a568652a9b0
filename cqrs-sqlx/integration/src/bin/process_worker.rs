//! A process manager in a process of its own, for tests that kill it.
//!
//! `process_worker <postgres url>` runs [`Dunning`] until it is killed.

use cqrs_core::conformance::fixtures::Dunning;
use cqrs_integration::stores;
use cqrs_sqlx::StoreOptions;

#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).expect("usage: process_worker URL");
    let store = stores::postgres_with(&url, StoreOptions::default()).await;
    let _running = store
        .projector()
        .page_size(10)
        .process(Dunning)
        .start()
        .await
        .expect("the projector starts");
    std::future::pending::<()>().await;
}
