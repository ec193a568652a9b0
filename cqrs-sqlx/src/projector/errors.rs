//! What an error, or a panic, means to the projector.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use cqrs_core::{Error, Result, StoreErrorKind};

/// Whether the store was closed, so that nothing can come any more.
pub(super) fn is_closed(error: &Error) -> bool {
    matches!(error, Error::Store(store) if *store.kind() == StoreErrorKind::Usage)
}

/// Whether the error says nothing about the page: the same may succeed when it is run again.
pub(super) fn is_transient(error: &Error) -> bool {
    matches!(error, Error::Store(store) if matches!(
        store.kind(),
        StoreErrorKind::Unavailable | StoreErrorKind::PoolTimedOut | StoreErrorKind::Contention
    ))
}

/// The messages of an error and of its sources.
pub(super) fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let message = cause.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        source = cause.source();
    }
    text
}

/// Runs a future; a panic in it becomes an error. What the future borrowed is not used again
/// before it is repaired.
pub(super) async fn catch_panic<F: Future>(future: F) -> Result<F::Output> {
    let mut future = pin!(future);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic_error(panic.as_ref()))),
        },
    )
    .await
}

fn panic_error(panic: &(dyn Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with something that is no text");
    Error::other(format!("the projection panicked: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_described_with_its_sources_once() {
        let below = std::io::Error::other("below");
        let error = Error::Store(
            cqrs_core::StoreError::new(StoreErrorKind::Database, "above").with_source(below),
        );
        assert_eq!(describe(&error), "above: below");
        assert_eq!(describe(&Error::other("alone")), "alone");
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error() {
        let error = catch_panic(async { panic!("at {}", 7) }).await.unwrap_err();
        assert_eq!(error.to_string(), "the projection panicked: at 7");
    }
}
