//! Revisions in memory.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::sourced::View;
use crate::aggregate::AggregateRoot;
use crate::context::{Metadata, TenantScope};
use crate::error::Result;
use crate::history::{
    Forgotten, Image, Revision, RevisionKind, StoredRevision, VersionPaging, not_kept,
};
use crate::mapping::ValueRow;
use crate::sourced::AsOf;
use crate::specification::{Page, PageRequest};
use crate::staging::StagedWrite;

/// The revisions of all aggregates.
#[derive(Debug, Clone, Default)]
pub(super) struct Revisions(HashMap<&'static str, BTreeMap<String, Vec<StoredRevision>>>);

impl Revisions {
    /// Keeps what a write leaves of an aggregate: `row`, or the row that it deletes.
    pub(super) fn keep(
        &mut self,
        write: &StagedWrite,
        kind: RevisionKind,
        metadata: &Metadata,
        row: Option<&ValueRow>,
    ) {
        let (true, Some(row)) = (write.table.keeps_history(), row) else {
            return;
        };
        let image = Image::of(write.table, row);
        let revision = StoredRevision::of(write, kind, metadata, image);
        let of_type = self.0.entry(write.aggregate_type).or_default();
        let revisions = of_type.entry(write.aggregate_id.clone()).or_default();
        revisions.push(revision);
    }

    /// Adds younger ones.
    pub(super) fn add(&mut self, younger: Self) {
        for (kind, aggregates) in younger.0 {
            let of_type = self.0.entry(kind).or_default();
            for (id, revisions) in aggregates {
                of_type.entry(id).or_default().extend(revisions);
            }
        }
    }

    fn of(&self, kind: &str, id: &str) -> &[StoredRevision] {
        let of_type = self.0.get(kind);
        of_type
            .and_then(|of_type| of_type.get(id))
            .map_or(&[], Vec::as_slice)
    }

    /// Removes revisions that are older than a time, except the last before it of each aggregate
    /// whose row is still there. The end of one that is not goes last: by clocks that differ, a
    /// revision before it may be younger.
    pub(super) fn forget<A: AggregateRoot>(
        &mut self,
        before: DateTime<Utc>,
        scope: &TenantScope,
    ) -> Forgotten {
        let mut rows = 0;
        for revisions in self.0.entry(A::TYPE).or_default().values_mut() {
            let old = |revision: &StoredRevision| revision.changed_at < before;
            let last = revisions.iter().rfind(|revision| old(revision));
            let goes_on = |last: &StoredRevision| {
                let earlier = &mut revisions.iter();
                earlier.any(|one| one.version < last.version && !old(one))
            };
            let needed = last.filter(|last| !is_end::<A>(last.kind) || goes_on(last));
            let needed = needed.map(|last| last.version);
            let length = revisions.len();
            revisions.retain(|revision| {
                !old(revision)
                    || Some(revision.version) == needed
                    || !scope.admits(revision.tenant.as_ref())
            });
            rows += length - revisions.len();
        }
        Forgotten { rows, last: None }
    }
}

/// Whether the row is gone with it.
fn is_end<A: AggregateRoot>(kind: RevisionKind) -> bool {
    match kind {
        RevisionKind::Purged => true,
        RevisionKind::Removed => !A::table().is_soft_delete(),
        _ => false,
    }
}

impl View<'_> {
    /// The revisions of an aggregate within the scope, from the youngest on.
    fn revisions_of<A: AggregateRoot>(&self, id: &A::Id) -> Vec<StoredRevision> {
        let id = id.to_string();
        let own = self.overlay.revisions().of(A::TYPE, &id);
        let seen = self.rows.last_version(A::TYPE, &id);
        let seen = own
            .first()
            .map_or(seen, |first| first.version.saturating_sub(1));
        let committed = self.log.revisions.of(A::TYPE, &id).iter();
        let committed = committed.filter(|revision| revision.version <= seen);
        let revisions = committed.chain(own).rev();
        let scope = self.context.scope();
        revisions
            .filter(|revision| scope.admits(revision.tenant.as_ref()))
            .cloned()
            .collect()
    }

    pub(super) fn revisions<A: AggregateRoot>(
        &self,
        id: &A::Id,
        request: PageRequest,
    ) -> Result<Page<Revision<A>>> {
        let paging = VersionPaging::new(request)?;
        let all = self.revisions_of::<A>(id);
        let total = paging.wants_total().then_some(all.len() as u64);
        let is_before = |revision: &StoredRevision| {
            paging
                .before()
                .is_none_or(|before| revision.version < before)
        };
        let skip = usize::try_from(paging.skip()).unwrap_or(usize::MAX);
        let limit = usize::try_from(paging.limit()).unwrap_or(usize::MAX);
        let found = all.into_iter().filter(is_before).skip(skip).take(limit);
        Ok(Revision::page(&paging, found.collect(), total))
    }

    /// The revision of an aggregate that says what it was; `None` where it did not exist.
    ///
    /// # Errors
    ///
    /// `NotInHistory`.
    pub(super) fn revision_as_of<A: AggregateRoot>(
        &self,
        id: &A::Id,
        at: AsOf,
    ) -> Result<Option<StoredRevision>> {
        let mut revisions = self.revisions_of::<A>(id);
        let last = match at {
            AsOf::Version(version) => revisions.iter().find(|one| one.version <= version),
            AsOf::Time(time) => revisions.iter().find(|one| one.changed_at <= time),
        };
        if let Some(last) = last {
            return Ok(Some(last.clone()).filter(|last| last.kind.is_living()));
        }
        match revisions.pop().map(|first| first.kind) {
            Some(RevisionKind::Created) => Ok(None),
            Some(_) => Err(not_kept::<A>(id)),
            None if self.any_row::<A>(id)?.is_some() => Err(not_kept::<A>(id)),
            None => Ok(None),
        }
    }
}
