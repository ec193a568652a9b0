//! Listening to other processes, as long as somebody here wants to hear.

use std::time::Duration;

use cqrs_core::{Error, StoreErrorKind};

use crate::backend::{Backend, Heard, Topic};
use crate::projector::Backoff;

/// The pauses before it listens again, after it could not.
const FIRST_DEAF: Duration = Duration::from_millis(100);
const LONGEST_DEAF: Duration = Duration::from_secs(30);

/// What a listener has to know.
#[derive(Debug)]
pub(crate) enum Ear {
    /// It hears from now on, and what was told before may have been missed.
    Opened,
    /// Something was told.
    Heard(Heard),
    /// It hears nothing, until it is opened again.
    Closed,
}

/// Listens until the future is dropped, also after the connection was lost.
pub(crate) async fn listen<B: Backend>(
    backend: &B,
    topics: &[Topic],
    mut hear: impl FnMut(Ear),
) -> std::convert::Infallible {
    let mut deaf = Backoff::new(FIRST_DEAF, LONGEST_DEAF);
    loop {
        let error = match backend.listen(topics).await {
            Ok(mut listener) => {
                deaf.reset();
                hear(Ear::Opened);
                loop {
                    match B::heard(&mut listener).await {
                        Ok(Some(heard)) => hear(Ear::Heard(heard)),
                        Ok(None) => hear(Ear::Opened),
                        Err(error) => break error,
                    }
                }
            }
            Err(error) => error,
        };
        hear(Ear::Closed);
        if is_hopeless(&error) {
            tracing::info!(%error, "what other processes do is found by polling alone");
            std::future::pending::<()>().await;
        }
        let pause = deaf.next();
        tracing::warn!(%error, ?pause, "what other processes do is found by polling alone");
        tokio::time::sleep(pause).await;
    }
}

/// Whether there is nothing to hear by this way, however often it is tried.
fn is_hopeless(error: &Error) -> bool {
    matches!(error, Error::Store(error) if *error.kind() == StoreErrorKind::Usage)
}
