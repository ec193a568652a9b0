//! Units of work that have failed.

use std::sync::Arc;

use crate::error::{Error, StoreError, StoreErrorKind};

/// Why a unit of work cannot be used any more, for authors of backends.
///
/// The error that spends it is returned once, and the work may swallow it. What comes later is a
/// [`Usage`](StoreErrorKind::Usage) error with that first one as its source; it is worth a retry
/// where the first one is, so that `execute` runs the work again after a conflict that the work
/// did not pass on.
#[derive(Debug, Clone, Default)]
pub struct Spent {
    /// `None` where a future was dropped in the middle of a step.
    cause: Option<Arc<Error>>,
}

impl Spent {
    /// Spent by this error.
    #[must_use]
    pub fn by(cause: &Error) -> Self {
        Self {
            cause: Some(Arc::new(copy(cause))),
        }
    }

    /// The error of everything that is asked of it from now on.
    #[must_use]
    pub fn error(&self) -> Error {
        let error = StoreError::new(
            StoreErrorKind::Usage,
            "the unit of work failed before and was rolled back; begin a new one",
        );
        Error::Store(match &self.cause {
            Some(cause) => error.caused_by(cause),
            None => error,
        })
    }
}

/// An error that says the same. One of the application is kept as its text.
fn copy(error: &Error) -> Error {
    match error {
        Error::NotFound { aggregate, id } => Error::NotFound {
            aggregate,
            id: id.clone(),
        },
        Error::Conflict {
            aggregate,
            id,
            expected,
            found,
        } => Error::Conflict {
            aggregate,
            id: id.clone(),
            expected: *expected,
            found: *found,
        },
        Error::UnexpectedVersion {
            aggregate,
            id,
            expected,
            found,
        } => Error::UnexpectedVersion {
            aggregate,
            id: id.clone(),
            expected: *expected,
            found: *found,
        },
        Error::AlreadyExists { aggregate, id } => Error::AlreadyExists {
            aggregate,
            id: id.clone(),
        },
        Error::TenantRequired { aggregate, id } => Error::TenantRequired {
            aggregate,
            id: id.clone(),
        },
        Error::Mapping(error) => Error::Mapping(error.clone()),
        Error::Store(error) => Error::Store(error.clone()),
        other => Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn the_first_cause_decides_whether_it_is_worth_a_retry() {
        let conflict = Error::Conflict {
            aggregate: "order",
            id: "1".to_owned(),
            expected: 1,
            found: 2,
        };
        let deadlock = Error::store(StoreErrorKind::Contention, "a deadlock");
        for cause in [conflict, deadlock] {
            let error = Spent::by(&cause).error();
            assert!(error.is_retryable());
            let source = error.source().expect("the first cause");
            assert_eq!(source.to_string(), cause.to_string());
            // Also where the error is the cause of another.
            assert!(Spent::by(&error).error().is_retryable());
        }
        for error in [
            Spent::by(&Error::other("no")).error(),
            Spent::default().error(),
        ] {
            assert!(!error.is_retryable());
        }
    }
}
