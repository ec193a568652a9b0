//! Waiting for a subscription: read your own write.

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::{Error, Position, Result, StoreErrorKind};

use super::checkpoint;
use crate::backend::Backend;
use crate::store::Shared;
use crate::waits::Waiter;

/// How often to ask about one that this process runs, and which will be heard of without asking.
const KNOWN_PAUSE: Duration = Duration::from_secs(1);

/// Waits until a subscription has applied everything up to a position.
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
    let mut progress = shared.advanced.subscribe();
    let mut elsewhere = None;
    // Where this process runs the subscription and it is not there yet, the first question would
    // be in vain.
    let mut ask = progress
        .borrow()
        .get(name)
        .is_none_or(|known| known.halted || known.position >= position);
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
        let known = progress.borrow().get(name).copied();
        match known {
            Some(known) if !known.halted && known.position < position => {
                *seen = (*seen).max(Some(known.position));
                let changed = progress.wait_for(|all| {
                    all.get(name)
                        .is_none_or(|known| known.halted || known.position >= position)
                });
                let is_told = match tokio::time::timeout(KNOWN_PAUSE, changed).await {
                    Ok(Ok(all)) => all.get(name).is_some_and(|known| !known.halted),
                    _ => false,
                };
                if is_told {
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
