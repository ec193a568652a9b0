//! What the page on deployment shows.

use std::time::Duration;

use cqrs_core::{Entity, Result};
use cqrs_sqlx::{Backend, HealthLimits, PgStore, ProjectorHandle, SqlStore, SqliteStore};

use super::{Order, OrderList, OrderRow};

#[expect(dead_code, reason = "compiled, not run")]
async fn start(url: &str) -> Result<(PgStore, ProjectorHandle)> {
    let store = PgStore::connect(url).await?;
    store.verify(&[Order::table(), OrderRow::table()]).await?;
    let projector = store.projector().rows(OrderList).start().await?;
    Ok((store, projector))
}

async fn run<B: Backend>(
    store: SqlStore<B>,
    projector: ProjectorHandle,
    serve: impl Future<Output = ()>,
) {
    tokio::select! {
        () = serve => {}
        stopped = projector.ended() => eprintln!("the projector is gone: {stopped:?}"),
    }
    projector.stop(Duration::from_secs(20)).await;
    store.snapshots_written().await;
    store.close();
}

async fn is_ready<B: Backend>(store: &SqlStore<B>) -> bool {
    match store.health(&HealthLimits::default()).await {
        Ok(health) => {
            for problem in &health.problems {
                eprintln!("{problem}");
            }
            true
        }
        Err(error) => {
            eprintln!("the database does not answer: {error}");
            false
        }
    }
}

#[tokio::test]
async fn a_service_is_ready_and_ends() -> Result<()> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), OrderRow::table()])
        .await?;
    let projector = store.projector().rows(OrderList).start().await?;
    assert!(is_ready(&store).await);
    run(store.clone(), projector, async {}).await;
    assert!(!is_ready(&store).await, "it is closed");
    Ok(())
}
