//! A replica with a projector, which may be stopped or killed.

use std::process::Stdio;
use std::time::Duration;

use cqrs_integration::domain::ParcelEvent;
use cqrs_integration::each::Kind;
use cqrs_integration::random::Random;
use cqrs_sqlx::{ProjectorHandle, SqlStore, StoreOptions};
use tokio::process::{Child, Command};

use super::consumers::{Consumers, FirstRelease};

pub(super) enum Replica<K: Kind> {
    /// In this process.
    Task(SqlStore<K>, ProjectorHandle),
    /// In a process of its own. It keeps the views, and nothing fails there.
    Process(Child),
}

/// Which code a replica runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    /// It does not know all events, and keeps no copies.
    First,
    Second,
}

impl<K: Kind> Replica<K> {
    /// Starts one; `None` where its first session was killed before it ran.
    pub(super) async fn start(
        url: &str,
        release: Release,
        consumers: &Consumers,
        random: &mut Random,
    ) -> Option<Self> {
        let mut segments = || 1 + random.below(3) as u32;
        let subscriptions = match release {
            Release::First => {
                let views = consumers.views::<K, FirstRelease>().segments(segments());
                vec![views.on_failure(consumers.plan.views_before.clone())]
            }
            Release::Second => vec![
                consumers.views::<K, ParcelEvent>().segments(segments()),
                Consumers::copies(),
            ],
        };
        let relay = consumers.relay().segments(segments());
        let options = StoreOptions::default().max_connections(4);
        let store = K::open(url, options).await.ok()?;
        let mut projector = store
            .projector()
            .workers(1 + random.below(2) as usize)
            .page_size(1 + random.below(20) as u32)
            .poll_interval(Duration::from_millis(5))
            .retry_delays([Duration::from_millis(1)]);
        if let Some(deadline) = consumers.plan.deadline {
            projector = projector.deadline(deadline);
        }
        for subscription in subscriptions.into_iter().chain([relay]) {
            projector = projector.subscribe(subscription);
        }
        let handle = projector.start().await.ok()?;
        Some(Self::Task(store, handle))
    }

    pub(super) fn process(url: &str) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_projector_worker"))
            .arg(url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        Self::Process(process.unwrap())
    }

    pub(super) async fn stop(self) {
        match self {
            Self::Task(store, handle) => {
                handle.stop(Duration::from_secs(60)).await;
                store.close();
            }
            Self::Process(_) => self.kill().await,
        }
    }

    /// Ends it in the middle of whatever it does.
    pub(super) async fn kill(self) {
        match self {
            Self::Task(store, handle) => {
                drop(handle);
                store.close();
            }
            Self::Process(mut process) => process.kill().await.unwrap(),
        }
    }
}

/// A store of a process that only commits.
pub(super) async fn writer<K: Kind>(url: &str) -> SqlStore<K> {
    loop {
        let options = StoreOptions::default().max_connections(6);
        if let Ok(store) = K::open(url, options).await {
            return store;
        }
        tokio::task::yield_now().await;
    }
}
