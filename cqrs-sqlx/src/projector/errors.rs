//! What an error means to the projector.

use cqrs_core::{Error, StoreErrorKind};

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
}
