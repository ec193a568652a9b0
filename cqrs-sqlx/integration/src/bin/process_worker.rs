//! A process manager in a process of its own, for tests that kill it.
//!
//! `process_worker <postgres url> [ticking]` runs [`Dunning`], or [`Ticking`], until it is killed.

use cqrs_core::conformance::fixtures::Dunning;
use cqrs_integration::stores;
use cqrs_integration::ticking::Ticking;
use cqrs_sqlx::StoreOptions;

#[tokio::main]
async fn main() {
    let usage = "usage: process_worker URL [ticking]";
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().expect(usage);
    let store = stores::postgres_with(&url, StoreOptions::default()).await;
    let projector = store.projector().page_size(10);
    let projector = match arguments.next().as_deref() {
        None => projector.process(Dunning),
        Some("ticking") => projector.process(Ticking),
        Some(other) => panic!("{usage}, not {other}"),
    };
    let _running = projector.start().await.expect("the projector starts");
    std::future::pending::<()>().await;
}
