//! Waiting for a subscription: read your own write.

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::{Error, Position, Result, StoreErrorKind};

use super::checkpoint;
use super::wake::Known;
use crate::backend::Backend;
use crate::store::Shared;
use crate::waits::Waiter;

/// How often to ask about one that this process runs, and which will be heard of without asking.
const KNOWN_PAUSE: Duration = Duration::from_secs(1);

/// Waits until a subscription has applied everything up to a position.
///
/// Where this process runs it in several segments, it may hear of that later than it could: a page
/// tells where the slowest segment stands, and knows the others as they were when the first page of
/// its turn was looked at. A turn has an end, whoever finds nothing to do looks at all of them, and who
/// waits asks once in [`KNOWN_PAUSE`].
pub(crate) async fn wait_for<B: Backend>(
    shared: &Arc<Shared<B>>,
    position: Position,
    name: &str,
    timeout: Duration,
) -> Result<()> {
    let mut seen = None;
    match tokio::time::timeout(timeout, reached(shared, position, name, &mut seen)).await {
        Ok(result) => result,
        Err(_) => Err(timed_out(name, seen, position, timeout)),
    }
}

async fn reached<B: Backend>(
    shared: &Arc<Shared<B>>,
    position: Position,
    name: &str,
    seen: &mut Option<Position>,
) -> Result<()> {
    let is_behind = |known: &Known| !known.halted && known.position < position;
    let mut elsewhere = None;
    // Where this process runs the subscription and it is not there yet, the first question would
    // be in vain.
    let known = shared.advanced.known(name);
    let mut ask = !known.as_ref().is_some_and(is_behind);
    loop {
        if ask {
            let checkpoint = checkpoint::find(shared, name)
                .await?
                .ok_or_else(|| Error::unknown_subscription(name))?;
            *seen = Some(checkpoint.position);
            if checkpoint.position >= position {
                elsewhere.iter().for_each(Waiter::arrived);
                return Ok(());
            }
            if checkpoint.halted {
                return Err(Error::other(checkpoint.into_failure()));
            }
        }
        match shared.advanced.subscribe(name) {
            Some(mut progress) if is_behind(&progress.borrow()) => {
                *seen = (*seen).max(Some(progress.borrow().position));
                let changed = progress.wait_for(|known| !is_behind(known));
                let changed = tokio::time::timeout(KNOWN_PAUSE, changed).await;
                if changed.is_ok_and(|known| known.is_ok_and(|known| !known.halted)) {
                    // It was committed here, since this began to wait.
                    return Ok(());
                }
            }
            // Not known here, or what is known is not what the database says.
            _ => {
                let elsewhere =
                    elsewhere.get_or_insert_with(|| Waiter::begin(shared, name, position));
                elsewhere.turn().await;
            }
        }
        ask = true;
    }
}

fn timed_out(name: &str, seen: Option<Position>, wanted: Position, timeout: Duration) -> Error {
    let state = match seen {
        Some(seen) => format!(
            "it stands at {seen}, {} positions behind",
            wanted.0.saturating_sub(seen.0)
        ),
        None => "the database did not answer".to_owned(),
    };
    Error::store(
        StoreErrorKind::TimedOut,
        format!(
            "subscription {name:?} did not reach position {wanted} within {timeout:?}: {state}"
        ),
    )
}
