//! What can go wrong, and how a caller tells.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::context::InvalidTenantId;
use crate::envelope::{AggregateIdError, Position};
use crate::mapping::MappingError;
use crate::payload::PayloadError;

/// The result of the framework's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the domain itself: a rule of the business that said no.
///
/// Implement it (it has no methods) for the error type of your aggregates, and `?` turns it into
/// [`Error::Domain`], which is never retried and which [`Error::domain`] gives back typed.
///
/// # Example
///
/// ```
/// use cqrs_core::{DomainError, Error};
///
/// #[derive(Debug)]
/// struct OverCapacity;
/// impl std::fmt::Display for OverCapacity {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("over capacity")
///     }
/// }
/// impl std::error::Error for OverCapacity {}
/// impl DomainError for OverCapacity {}
///
/// fn load() -> Result<(), OverCapacity> { Err(OverCapacity) }
/// fn handler() -> cqrs_core::Result<()> { load()?; Ok(()) }
///
/// let error = handler().unwrap_err();
/// assert!(error.domain::<OverCapacity>().is_some());
/// assert!(!error.is_retryable());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not become an error of the framework by itself",
    note = "for an error of your own domain write `impl DomainError for {Self} {{}}`; for any other, `.map_err(Error::other)`"
)]
pub trait DomainError: std::error::Error + Any + Send + Sync {}

/// An error of the framework.
///
/// It is one enum, so that a service can map each case to its answer; ask the predicates first,
/// they stay true when cases are added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The domain said no.
    #[error("{0}")]
    Domain(Box<dyn DomainError>),
    /// There is no such aggregate in the tenant scope of the unit of work.
    #[error("{aggregate} {id} was not found")]
    NotFound {
        /// The aggregate's type.
        aggregate: &'static str,
        /// Its id.
        id: String,
    },
    /// There are several where one was expected.
    #[error("there is more than one {entity} where {condition}")]
    NotUnique {
        /// The aggregate's type, or the table of the read model.
        entity: &'static str,
        /// What was asked for.
        condition: String,
    },
    /// The aggregate was changed since it was loaded.
    #[error("{aggregate} {id} is at version {found}, the change was made on version {expected}")]
    Conflict {
        /// The aggregate's type.
        aggregate: &'static str,
        /// Its id.
        id: String,
        /// The version that the change was made on.
        expected: u64,
        /// The version in the store.
        found: u64,
    },
    /// The aggregate is not at the version that the caller has seen:
    /// [`expect_version`](crate::AggregateRoot::expect_version). Running the work again would not
    /// help, since the caller has to look again.
    #[error("{aggregate} {id} is at version {found}, and the caller has seen version {expected}")]
    UnexpectedVersion {
        /// The aggregate's type.
        aggregate: &'static str,
        /// Its id.
        id: String,
        /// The version that the caller has seen.
        expected: u64,
        /// The version at which the aggregate was loaded.
        found: u64,
    },
    /// An aggregate with this id exists, or existed once: ids are not used again.
    #[error("{aggregate} {id} already exists")]
    AlreadyExists {
        /// The aggregate's type.
        aggregate: &'static str,
        /// Its id.
        id: String,
    },
    /// A new aggregate that belongs to a tenant was saved under
    /// [`TenantScope::System`](crate::TenantScope::System), so its tenant is not known.
    #[error(
        "{aggregate} {id} needs a tenant: save it in the scope of one, or make its root with `Root::for_tenant`"
    )]
    TenantRequired {
        /// The aggregate's type.
        aggregate: &'static str,
        /// Its id.
        id: String,
    },
    /// A row does not fit its type, or the reverse.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// A payload could not be written.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// An event in the log cannot be read.
    #[error("event at position {position}: {reason}")]
    Undecodable {
        /// Where it stands.
        position: Position,
        /// Why.
        reason: PayloadError,
    },
    /// The aggregate existed at that time or version, and its history does not go back that far:
    /// it was begun later, or what was there is removed.
    #[error("the history of {aggregate} {id} does not go back that far")]
    NotInHistory {
        /// The aggregate's type.
        aggregate: &'static str,
        /// Its id.
        id: String,
    },
    /// Text that cannot name a tenant.
    #[error(transparent)]
    InvalidTenant(#[from] InvalidTenantId),
    /// An aggregate id in the log is not of the type asked for.
    #[error(transparent)]
    AggregateId(#[from] AggregateIdError),
    /// A sealed value could not be sealed or opened, or its key not be read.
    #[cfg(feature = "sealed")]
    #[error(transparent)]
    Sealed(#[from] crate::sealed::SealedError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A projection that runs [inline](crate::Store::inline) failed, so nothing was committed.
    /// The predicates answer for its cause.
    #[error("the inline projection {name:?} failed")]
    Projection {
        /// The projection's name.
        name: String,
        /// Why it failed.
        #[source]
        cause: Box<Error>,
    },
    /// Another error of a handler or projection.
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

/// A failure of the store below.
#[derive(Debug, Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// Whether it stands for an earlier error that is worth a retry.
    repeats: bool,
    /// Whether it is a page that cannot be applied, and not one of its events.
    of_page: bool,
}

/// What kind of failure a [`StoreError`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The database cannot be reached, the connection broke, or it has prepared its statements for
    /// a table that was changed since. Nothing was committed.
    Unavailable,
    /// No connection became free in time. Nothing was sent.
    PoolTimedOut,
    /// The database gave up on a transaction that may succeed when it is run again: a deadlock, a
    /// serialization failure, a busy database. Nothing was committed.
    Contention,
    /// A constraint of the database was violated. Nothing was committed.
    Constraint {
        /// Its name, where the database tells.
        name: Option<String>,
    },
    /// The connection broke during a commit, and what became of it could not be found out in
    /// time.
    OutcomeUnknown,
    /// The schema of the database is not the one that the code expects.
    Schema,
    /// A deadline passed.
    TimedOut,
    /// The idempotency key was used before, for another request: a mistake of the client. Nothing
    /// was done.
    KeyReused,
    /// The use was wrong: an unknown subscription, a unit of work used after its failure.
    Usage,
    /// Anything else that the database reports.
    Database,
}

impl StoreError {
    /// A failure of this kind.
    #[must_use]
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            repeats: false,
            of_page: false,
        }
    }

    /// Adds the error below.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Adds an earlier error of the framework, and is worth a retry where that is.
    pub(crate) fn caused_by(mut self, cause: &Arc<Error>) -> Self {
        self.repeats = cause.is_retryable();
        self.source = Some(Arc::clone(cause) as Arc<dyn std::error::Error + Send + Sync>);
        self
    }

    /// Says that it is a page that cannot be applied, and not one of its events.
    pub(crate) fn of_page(mut self) -> Self {
        self.of_page = true;
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> &StoreErrorKind {
        &self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl<E: DomainError> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Domain(Box::new(error))
    }
}

impl Error {
    /// Any other error, for handlers and projections.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    /// A failure of the store.
    pub fn store(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self::Store(StoreError::new(kind, message))
    }

    /// The error of a write in a [read-only](crate::Store::read_only) unit of work, for authors of
    /// backends, as those that follow.
    #[must_use]
    pub fn read_only() -> Self {
        Self::usage("the unit of work is read-only")
    }

    /// The error of a lock where it would not last: outside of a unit of work that writes.
    #[must_use]
    pub fn needs_writing_unit() -> Self {
        Self::usage("rows are locked in a unit of work that writes: a lock would not last here")
    }

    /// The error of a commit while a savepoint is open.
    #[must_use]
    pub fn open_savepoint() -> Self {
        Self::usage("a savepoint of the unit of work was left open: it can only be rolled back")
    }

    /// The error of ending a savepoint where none is open.
    #[must_use]
    pub fn no_savepoint() -> Self {
        Self::usage("the unit of work has no open savepoint")
    }

    /// The error of a second idempotency key in one unit of work.
    #[must_use]
    pub fn second_key() -> Self {
        Self::usage("the unit of work records another idempotency key already")
    }

    fn usage(message: &str) -> Self {
        Self::store(StoreErrorKind::Usage, message)
    }

    /// The domain's own error, if it is an `E`.
    #[must_use]
    pub fn domain<E: DomainError>(&self) -> Option<&E> {
        match self {
            Self::Domain(error) => (error.as_ref() as &dyn Any).downcast_ref(),
            Self::Projection { cause, .. } => cause.domain(),
            _ => None,
        }
    }

    /// Whether the aggregate was changed by someone else, also since the caller has
    /// [seen](Self::UnexpectedVersion) it, or exists already.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::Conflict { .. } | Self::UnexpectedVersion { .. } | Self::AlreadyExists { .. }
        )
    }

    /// Whether it is a page that a projection cannot apply, and not one of its events: what the
    /// projection says of itself is wrong, and smaller pages would only hide that. A store halts the
    /// subscription at once, whatever its policy. For authors of backends.
    #[must_use]
    pub fn is_of_page(&self) -> bool {
        matches!(self, Self::Store(error) if error.of_page)
    }

    /// Whether the aggregate does not exist in the tenant scope.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether running the whole command again may succeed, and is safe since nothing of it was
    /// committed: a stale version, contention, a lost connection; and the use of a unit of work
    /// that one of these has spent.
    ///
    /// A full pool is not among them: who waited for a connection in vain has waited long enough,
    /// and may hold it himself.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Conflict { .. } => true,
            Self::Store(error) => {
                error.repeats
                    || matches!(
                        error.kind,
                        StoreErrorKind::Unavailable | StoreErrorKind::Contention
                    )
            }
            Self::Projection { cause, .. } => cause.is_retryable(),
            _ => false,
        }
    }
}
