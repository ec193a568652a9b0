//! The horizon task: one for all subscriptions of a projector.

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::{Position, Result};
use tokio::sync::watch;
use tokio::time::Instant;

use super::errors::is_closed;
use super::handle::Stopping;
use super::pace::Pace;
use super::queries;
use crate::backend::{Backend, Horizon};
use crate::reads::is_unavailable;
use crate::store::Shared;

/// Commits may be signalled faster than looking makes sense.
const SHORTEST_GAP: Duration = Duration::from_millis(1);

/// Looks at the log, again and again.
pub(super) async fn run<B: Backend>(
    shared: Arc<Shared<B>>,
    horizon: watch::Sender<Position>,
    mut pace: Pace,
    mut stopping: Stopping,
) {
    let mut committed = shared.committed.subscribe();
    let mut known = B::Horizon::default();
    loop {
        committed.mark_unchanged();
        let looked_at = Instant::now();
        let pause = match look(&shared, &mut known).await {
            Ok(found) => {
                let moved = horizon.send_if_modified(|position| {
                    std::mem::replace(position, found.position) != found.position
                });
                pace.after(moved, found.writers)
            }
            Err(error) if is_closed(&error) => return,
            Err(error) => {
                tracing::warn!(%error, "the horizon of the log could not be looked for");
                pace.after(false, false)
            }
        };
        let woken = async {
            let _ = tokio::time::timeout(pause, committed.changed()).await;
            tokio::time::sleep_until(looked_at + SHORTEST_GAP).await;
        };
        if stopping.or(woken).await.is_none() {
            return;
        }
        if committed.has_changed().unwrap_or(false) {
            pace.woken();
        }
    }
}

/// Looks once.
pub(super) async fn look<B: Backend>(
    shared: &Shared<B>,
    known: &mut B::Horizon,
) -> Result<Horizon> {
    let mut connection = shared.readers.acquire().await?;
    let result = B::horizon(connection.begin_work(), known).await;
    match &result {
        Err(error) if is_unavailable(error) => queries::discard(connection, &shared.readers),
        _ => connection.end_work(),
    }
    result
}
