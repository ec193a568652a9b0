//! A process with a projector, which may be stopped or killed.

use std::time::Duration;

use cqrs_core::{FailurePolicy, Parking, Subscription};
use cqrs_integration::random::Random;
use cqrs_sqlx::{PgStore, Postgres, ProjectorHandle, SqlTransaction, StoreOptions};

use super::poison::{Poison, Poisoned};

pub(super) struct Replica {
    store: PgStore,
    handle: ProjectorHandle,
}

impl Replica {
    /// Starts one; `None` where its first session was killed before it ran.
    pub(super) async fn start(url: &str, poison: &Poison, random: &mut Random) -> Option<Self> {
        let options = StoreOptions::default().max_connections(4);
        let connect = url.parse().expect("a Postgres URL");
        let store = PgStore::connect_with(connect, options).await.ok()?;
        let subscription = subscription(poison).segments(1 + random.below(3) as u32);
        let handle = store
            .projector()
            .subscribe(subscription)
            .workers(1 + random.below(2) as usize)
            .page_size(1 + random.below(20) as u32)
            .poll_interval(Duration::from_millis(5))
            .retry_delays([Duration::from_millis(1)])
            .start()
            .await
            .ok()?;
        Some(Self { store, handle })
    }

    pub(super) async fn stop(self) {
        self.handle.stop(Duration::from_secs(60)).await;
        self.store.close();
    }

    /// Cancels whatever it is in the middle of.
    pub(super) fn kill(self) {
        drop(self.handle);
        self.store.close();
    }
}

/// What every replica runs.
pub(super) fn subscription(poison: &Poison) -> Subscription<SqlTransaction<Postgres>> {
    Subscription::new(Poisoned(poison.clone()))
        .on_failure(FailurePolicy::Park(Parking::at_most(100_000)))
}

/// A store of a process that only commits.
pub(super) async fn writer(url: &str) -> PgStore {
    loop {
        let options = StoreOptions::default().max_connections(6);
        let connect = url.parse().expect("a Postgres URL");
        if let Ok(store) = PgStore::connect_with(connect, options).await {
            return store;
        }
        tokio::task::yield_now().await;
    }
}
