//! Which read models are being built anew: one question of a projector, for all of its workers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cqrs_core::mapping::RowSource;
use cqrs_core::{Position, Result};
use tokio::sync::watch;

use super::checkpoint::{read, some};
use super::handle::Stopping;
use super::pace::Polling;
use super::subscription;
use super::worker::Worker;
use crate::backend::Backend;
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;

/// How late a projector that hears nothing notices what another process has asked for.
const EVERY: Duration = Duration::from_secs(10);

/// The names under which read models are being built.
type Names = BTreeSet<String>;

/// The names under which read models are being built, as far as they were looked for.
pub(super) fn channel() -> (watch::Sender<Names>, watch::Receiver<Names>) {
    watch::channel(Names::new())
}

/// Looks again and again, until it is told to stop.
pub(super) async fn look_again_and_again<B: Backend>(
    shared: Arc<Shared<B>>,
    tell: watch::Sender<Names>,
    mut stopping: Stopping,
) {
    let mut told = shared.operated.subscribe();
    loop {
        told.mark_unchanged();
        match look(&shared).await {
            Ok(found) => {
                tell.send_if_modified(|known| std::mem::replace(known, found.clone()) != found);
            }
            Err(_) if shared.readers.is_closed() => return,
            Err(error) => tracing::warn!(%error, "rebuilds could not be looked for"),
        }
        let changed = tokio::time::timeout(EVERY, told.changed());
        if stopping.or(changed).await.is_none() {
            return;
        }
    }
}

async fn look<B: Backend>(shared: &Arc<Shared<B>>) -> Result<Names> {
    let select = Select {
        sql: "SELECT building FROM cqrs_rebuild".into(),
        parameters: Vec::new(),
    };
    let name = |row: &B::Row| read(row, |row| some(row.read_text(0)?).map(str::to_owned));
    let found = reads::rows(Place::Alone(shared), &select, None, name).await?;
    Ok(found.into_iter().collect())
}

/// Has a worker build whenever its rows are to be built anew, until it is told to stop.
pub(super) async fn run<B: Backend>(
    mut worker: Worker<B>,
    mut names: watch::Receiver<Names>,
    horizon: watch::Receiver<Position>,
    polling: Polling,
    mut stopping: Stopping,
) {
    loop {
        let asked_for = names.wait_for(|names| names.contains(worker.name()));
        if !matches!(stopping.or(asked_for).await, Some(Ok(_))) {
            return;
        }
        subscription::run(&mut worker, horizon.clone(), polling, stopping.clone()).await;
        worker.shared().advanced.forget(worker.name());
        // It is over, or not for this version of the projection.
        let changed = tokio::time::timeout(EVERY, names.changed());
        if !matches!(stopping.or(changed).await, Some(Ok(Ok(())) | Err(_))) {
            return;
        }
    }
}
