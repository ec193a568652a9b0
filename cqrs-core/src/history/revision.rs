//! Revisions: what is kept of one change.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::difference::difference;
use super::{FieldChange, Image};
use crate::aggregate::AggregateRoot;
use crate::context::{Metadata, TenantId};
use crate::error::{Error, Result, StoreErrorKind};
use crate::mapping::{ColumnError, Loading};
use crate::specification::{Page, VersionPaging};
use crate::staging::{Operation, StagedWrite};

/// What a change did to an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RevisionKind {
    /// It was added.
    Created,
    /// It was changed.
    Changed,
    /// It was removed: marked as deleted, or deleted.
    Removed,
    /// It was marked as deleted, and is back.
    Restored,
    /// Its row was deleted for good.
    Purged,
}

impl RevisionKind {
    const ALL: [Self; 5] = [
        Self::Created,
        Self::Changed,
        Self::Removed,
        Self::Restored,
        Self::Purged,
    ];

    /// Its name in a store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Restored => "restored",
            Self::Purged => "purged",
        }
    }

    /// Whether the aggregate exists after it.
    #[must_use]
    pub const fn is_living(self) -> bool {
        !matches!(self, Self::Removed | Self::Purged)
    }
}

impl fmt::Display for RevisionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RevisionKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let kinds = &mut Self::ALL.into_iter();
        kinds.find(|kind| kind.name() == name).ok_or_else(|| {
            let message = format!("a revision of a kind that is not known: {name:?}");
            Error::store(StoreErrorKind::Schema, message)
        })
    }
}

impl From<Operation> for RevisionKind {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Insert => Self::Created,
            Operation::Update | Operation::UpdateIfChanged => Self::Changed,
            Operation::Remove => Self::Removed,
        }
    }
}

/// A revision as a store holds it, for authors of stores.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRevision {
    /// The version that the aggregate reached with the change.
    pub version: u64,
    /// What the change did.
    pub kind: RevisionKind,
    /// Whose it is.
    pub tenant: Option<TenantId>,
    /// Who acted.
    pub actor: Option<String>,
    /// What the change belongs to.
    pub correlation_id: Uuid,
    /// When it happened.
    pub changed_at: DateTime<Utc>,
    /// What the aggregate was after it; before it, where its row was deleted.
    pub image: Image,
}

impl StoredRevision {
    /// The revision that a write leaves.
    #[must_use]
    pub fn of(write: &StagedWrite, kind: RevisionKind, metadata: &Metadata, image: Image) -> Self {
        Self {
            version: write.new_version,
            kind,
            tenant: write.tenant.clone(),
            actor: metadata.actor.clone(),
            correlation_id: metadata.correlation_id,
            changed_at: write.staged_at(),
            image,
        }
    }

    /// The aggregate as it was.
    ///
    /// # Errors
    ///
    /// As [`Revision::aggregate`].
    pub fn aggregate<A: AggregateRoot>(&self) -> Result<A> {
        let row = self.image.row(A::table());
        row.and_then(|row| Loading::whole(&row))
            .map_err(|mut error| {
                let reason = format!(
                    "{} (in the history, at version {})",
                    error.reason, self.version
                );
                error.reason = ColumnError::invalid(reason);
                Error::Mapping(error)
            })
    }
}

/// What one step of the removal of old revisions did, for authors of stores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// How many were removed.
    pub rows: usize,
    /// The id and the version of the last one, where there may be more behind it.
    pub last: Option<(String, u64)>,
}

/// One change of an aggregate, and the aggregate as it was then.
///
/// [`EventHistory::revisions`](crate::EventHistory::revisions) finds them.
#[derive(Clone)]
pub struct Revision<A> {
    stored: StoredRevision,
    changes: Vec<FieldChange>,
    of: PhantomData<fn() -> A>,
}

impl<A: AggregateRoot> Revision<A> {
    /// The page of what was found: revisions from the youngest on, up to
    /// [`limit`](VersionPaging::limit). For authors of stores.
    #[must_use]
    pub fn page(
        paging: &VersionPaging,
        found: Vec<StoredRevision>,
        total: Option<u64>,
    ) -> Page<Self> {
        let older = found.iter().skip(1).map(Some).chain([None]);
        let pairs = found.iter().zip(older);
        let revisions: Vec<(Self, u64)> = pairs
            .map(|(stored, older)| {
                let changes =
                    older.map(|older| difference(A::table(), &older.image, &stored.image));
                let revision = Self {
                    stored: stored.clone(),
                    changes: changes.unwrap_or_default(),
                    of: PhantomData,
                };
                (revision, stored.version)
            })
            .collect();
        paging.page(revisions, total)
    }

    /// The version that the aggregate reached with the change. A change that raised several events
    /// passes over some.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.stored.version
    }

    /// What the change did.
    #[must_use]
    pub fn kind(&self) -> RevisionKind {
        self.stored.kind
    }

    /// Who acted; `None` where the [context](crate::RequestContext) did not say.
    #[must_use]
    pub fn actor(&self) -> Option<&str> {
        self.stored.actor.as_deref()
    }

    /// When it happened, by the clock of the store that wrote it.
    #[must_use]
    pub fn changed_at(&self) -> DateTime<Utc> {
        self.stored.changed_at
    }

    /// Shared by everything that one request set off.
    #[must_use]
    pub fn correlation_id(&self) -> Uuid {
        self.stored.correlation_id
    }

    /// Whose aggregate it is; `None` for one without tenants.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        self.stored.tenant.as_ref()
    }

    /// What differs from the revision before, without what the framework keeps: version and stamps.
    /// Nothing for the first one that is kept.
    #[must_use]
    pub fn changes(&self) -> &[FieldChange] {
        &self.changes
    }

    /// What differs in this revision from another one.
    #[must_use]
    pub fn changes_since(&self, other: &Self) -> Vec<FieldChange> {
        difference(A::table(), &other.stored.image, &self.stored.image)
    }

    /// The aggregate as it was after the change, or where the change deleted its row, before it. To
    /// save it is a [conflict](Error::Conflict), unless it is as it was.
    ///
    /// # Errors
    ///
    /// [`Mapping`](Error::Mapping) where it does not fit the type as that is now.
    pub fn aggregate(&self) -> Result<A> {
        self.stored.aggregate()
    }

    /// The aggregate's row and those of its children as they are kept, whether they fit the type
    /// or not.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.stored.image
    }
}

impl<A> fmt::Debug for Revision<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revision")
            .field("version", &self.stored.version)
            .field("kind", &self.stored.kind)
            .field("actor", &self.stored.actor)
            .field("changed_at", &self.stored.changed_at)
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}
