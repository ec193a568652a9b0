//! Running everything there is to run, without background tasks.

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::{Error, Position, Result};

use super::checkpoint;
use super::errors::is_transient;
use super::horizon::look;
use super::pace::Backoff;
use super::pass::Pass;
use super::worker::Worker;
use crate::backend::Backend;
use crate::store::Shared;

/// The pauses while something else has to happen first: a writer to end, another worker to let go.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long a delay is waited for before the next look.
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// How often an error of the database is taken for one that passes.
const TRANSIENT_ERRORS: u32 = 10;

/// Runs the workers, one after the other, until all are at the horizon and no writer is in
/// flight; how many events were applied.
pub(super) async fn run<B: Backend>(
    shared: &Arc<Shared<B>>,
    workers: &mut [Worker<B>],
) -> Result<u64> {
    let mut known = B::Horizon::default();
    let mut pause = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut reached = None;
    let mut applied = 0;
    loop {
        let horizon = look(shared, &mut known).await?;
        if reached == Some(horizon.position) && !horizon.writers {
            return Ok(applied);
        }
        for worker in &mut *workers {
            applied += drain(worker, horizon.position).await?;
        }
        // A projection may itself write events, so look once more.
        reached = Some(horizon.position);
        if horizon.writers {
            tokio::time::sleep(pause.next()).await;
        }
    }
}

/// Runs one worker up to the horizon.
async fn drain<B: Backend>(worker: &mut Worker<B>, horizon: Position) -> Result<u64> {
    let mut pause = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut transient = 0;
    let mut applied = 0;
    loop {
        match worker.run_once(horizon).await {
            Ok(Pass::Moved { events }) => applied += events,
            Ok(Pass::Narrowed | Pass::Failed | Pass::Overtaken) => {}
            Ok(Pass::UpToDate { .. } | Pass::Absent) => return Ok(applied),
            Ok(Pass::Elsewhere) => tokio::time::sleep(pause.next()).await,
            // Somebody elsewhere may cut it short.
            Ok(Pass::Delayed(delay)) => tokio::time::sleep(delay.min(LONGEST_DELAY)).await,
            Ok(Pass::Halted) => return Err(failure(worker).await?),
            Err(error) if is_transient(&error) && transient < TRANSIENT_ERRORS => {
                transient += 1;
                tokio::time::sleep(pause.next()).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn failure<B: Backend>(worker: &Worker<B>) -> Result<Error> {
    let (checkpoints, _) = checkpoint::all(worker.shared(), worker.name()).await?;
    let paused = checkpoints.iter().any(|checkpoint| checkpoint.paused);
    let halted = checkpoints.into_iter().find(|checkpoint| checkpoint.halted);
    let halted = halted.ok_or_else(|| match paused {
        true => Error::paused_subscription(worker.name()),
        false => Error::unknown_subscription(worker.name()),
    })?;
    Ok(Error::other(halted.into_failure()))
}
