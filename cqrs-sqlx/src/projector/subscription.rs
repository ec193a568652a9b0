//! The loop of one subscription: when to run a pass, and when to wait for what.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cqrs_core::__private::catch_panic;
use cqrs_core::{Error, Position};
use futures_util::future::{Either, select};
use tokio::sync::watch;

use super::errors::is_transient;
use super::handle::Stopping;
use super::pace::{Backoff, DOUBT, Polling};
use super::pass::Pass;
use super::worker::Worker;
use crate::backend::Backend;

/// The pauses after an error that is not the projection's.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// The first pause while another worker holds the subscription.
const FIRST_ELSEWHERE: Duration = Duration::from_millis(5);

/// What the loop waits for before the next pass.
enum Next {
    /// Nothing.
    Now,
    /// This much time.
    After(Duration),
    /// Another horizon, or so much time that it is better to ask.
    Horizon(Duration),
    /// Somebody resumes the subscription.
    Resume,
}

/// Runs passes until it is told to stop, or there is nothing left to build.
pub(super) async fn run<B: Backend>(
    worker: &mut Worker<B>,
    mut horizon: watch::Receiver<Position>,
    polling: Polling,
    mut stopping: Stopping,
) {
    let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
    let mut elsewhere = Backoff::new(FIRST_ELSEWHERE, polling.shortest.min(DOUBT));
    let mut resumed = worker.shared().operated.subscribe();
    let shared = Arc::clone(worker.shared());
    let mut behind = None;
    while !stopping.is_set() {
        let upto = *horizon.borrow_and_update();
        resumed.mark_unchanged();
        // Of what is not a handler's either: the task would end, and nobody know.
        let passed = catch_panic(worker.run_once(upto)).await;
        let passed = passed.and_then(|passed| passed);
        let is_behind = worker.has_more() && matches!(passed, Ok(Pass::Moved { .. }));
        behind = is_behind.then(|| {
            let before = behind.take();
            before.unwrap_or_else(|| shared.watching.fall_behind())
        });
        let next = match passed {
            Ok(pass) => {
                backoff.reset();
                if !matches!(pass, Pass::Elsewhere) {
                    elsewhere.reset();
                }
                match pass {
                    Pass::Moved { .. } | Pass::Narrowed | Pass::Failed | Pass::Overtaken => {
                        Next::Now
                    }
                    Pass::UpToDate { replay } => {
                        Next::Horizon(replay.map_or(DOUBT, |replay| replay.min(DOUBT)))
                    }
                    // What comes may be of a segment that nobody is at, and waits for no pause.
                    Pass::Elsewhere if worker.may_find_more() => Next::Horizon(elsewhere.next()),
                    Pass::Elsewhere => Next::After(elsewhere.next()),
                    // What stands still are some segments; the others have the next event.
                    Pass::Delayed(delay) if worker.is_split() => Next::Horizon(delay.min(DOUBT)),
                    Pass::Halted if worker.is_split() => Next::Horizon(polling.until_doubt()),
                    // Somebody elsewhere may cut the delay short.
                    Pass::Delayed(delay) => Next::After(delay.min(DOUBT)),
                    Pass::Halted => Next::Resume,
                    Pass::Absent if worker.builds => return,
                    Pass::Absent => {
                        worker.doubt();
                        Next::After(DOUBT)
                    }
                }
            }
            Err(_) if worker.shared().writers.is_closed() => return,
            Err(error) => {
                let pause = backoff.next();
                report(worker.name(), &error, pause);
                worker.doubt();
                Next::After(pause)
            }
        };
        let waited = match next {
            Next::Now => continue,
            Next::After(pause) => {
                let pause = tokio::time::sleep(pause);
                stopping
                    .or(select(pin!(pause), pin!(resumed.changed())))
                    .await
                    .map(drop)
            }
            Next::Resume => {
                worker.doubt();
                let resumed = tokio::time::timeout(polling.until_doubt(), resumed.changed());
                stopping.or(resumed).await.map(drop)
            }
            Next::Horizon(pause) => {
                let (moved, told) = (pin!(horizon.changed()), pin!(resumed.changed()));
                let changed = tokio::time::timeout(pause, select(moved, told));
                match stopping.or(changed).await {
                    // The horizon task has ended, and with it everything there is to do.
                    None | Some(Ok(Either::Left((Err(_), _)))) => None,
                    Some(Ok(Either::Left((Ok(()), _)))) => Some(()),
                    Some(Ok(Either::Right(_)) | Err(_)) => {
                        worker.doubt();
                        Some(())
                    }
                }
            }
        };
        if waited.is_none() {
            return;
        }
    }
}

fn report(subscription: &str, error: &Error, pause: Duration) {
    if is_transient(error) {
        tracing::warn!(subscription, %error, ?pause, "the database is away or busy");
    } else {
        tracing::error!(subscription, %error, ?pause, "the subscription cannot be run");
    }
}
