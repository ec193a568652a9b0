//! Restoring what a subscription keeps from a snapshot: the rows are brought back together with the
//! checkpoints that they had, and the subscription goes on from there.

use cqrs_core::{Position, Rebuilds, Result, Subscription};
use uuid::Uuid;

use super::checkpoint::{self, Checkpoint};
use super::dead_letters;
use super::operations::Operations;
use super::register::{self, NewSegments};
use super::snapshots::{self, ProjectionSnapshot, copied, usage};
use super::transaction::SqlTransaction;
use crate::backend::Backend;
use crate::retention;
use crate::statements::{names, quoted};

/// What a subscription was restored from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restored {
    /// This snapshot. The events behind it are applied by the projectors.
    Snapshot(ProjectionSnapshot),
    /// No snapshot fits: the subscription was [reset](Operations::reset) to the beginning of the
    /// log.
    Beginning,
}

impl<B: Backend> Operations<B> {
    /// Restores what a subscription keeps from its latest [snapshot](Self::snapshot) that fits: the
    /// rows of its tables are replaced by those of the snapshot, and it goes on from there. Where
    /// none fits, it is [reset](Self::reset) to the beginning of the log.
    ///
    /// A snapshot fits where it is of the same tables, columns and versions, is whole, and where
    /// all events behind it are still in the log. Why one was left out is a warning.
    ///
    /// Readers see the rows of the snapshot once this returns, and then how it catches up. Handlers
    /// with side effects get no event twice, as after a reset. A halted segment goes on, unless the
    /// subscription is paused: that it stays.
    ///
    /// # Errors
    ///
    /// As for [`reset`](Self::reset), and `Usage` where a handler does not say what
    /// [tables](cqrs_core::Projection::tables) it keeps.
    pub async fn restore(
        &self,
        subscription: &Subscription<SqlTransaction<B>>,
    ) -> Result<Restored> {
        self.restore_with(subscription, None).await
    }

    /// As [`restore`](Self::restore), from this snapshot and no other.
    ///
    /// # Errors
    ///
    /// As for [`restore`](Self::restore), and `Usage` where there is no such snapshot of the
    /// subscription, and where it does not fit.
    pub async fn restore_from(
        &self,
        subscription: &Subscription<SqlTransaction<B>>,
        id: Uuid,
    ) -> Result<()> {
        self.restore_with(subscription, Some(id)).await.map(drop)
    }

    async fn restore_with(
        &self,
        subscription: &Subscription<SqlTransaction<B>>,
        id: Option<Uuid>,
    ) -> Result<Restored> {
        let tables = snapshots::what_it_keeps(subscription)?;
        let mut transaction = self.begin_reset().await?;
        let restored = self
            .restore_in(&mut transaction, subscription, tables, id)
            .await;
        self.end_reset(transaction, subscription.name(), restored)
            .await
    }

    async fn restore_in(
        &self,
        transaction: &mut SqlTransaction<B>,
        subscription: &Subscription<SqlTransaction<B>>,
        tables: &[Rebuilds],
        id: Option<Uuid>,
    ) -> Result<(Restored, Position)> {
        let checkpoints = self.lock_to_reset(transaction, subscription).await?;
        let name = subscription.name();
        let connection = transaction.connection_below().await?;
        let mut found = snapshots::list_all::<B>(connection, name).await?;
        if let Some(id) = id {
            found.retain(|snapshot| snapshot.id == id);
            if found.is_empty() {
                return Err(usage(format!("subscription {name:?} has no snapshot {id}")));
            }
        }
        for snapshot in found {
            match self
                .misfit(connection, subscription, tables, &snapshot)
                .await?
            {
                None => {
                    self.bring_back(transaction, subscription, &checkpoints, &snapshot)
                        .await?;
                    let position = snapshot.position;
                    return Ok((Restored::Snapshot(snapshot), position));
                }
                Some(why) if id.is_some() => {
                    return Err(usage(format!(
                        "snapshot {} of subscription {name:?} does not fit: {why}",
                        snapshot.id
                    )));
                }
                Some(why) => {
                    tracing::warn!(subscription = name, snapshot = %snapshot.id, why, "a snapshot does not fit");
                }
            }
        }
        let start = Position::START;
        let to = self.go_back(transaction, subscription, &checkpoints, start);
        Ok((Restored::Beginning, to.await?))
    }

    /// Why a snapshot cannot be restored; `None` where it can.
    async fn misfit(
        &self,
        connection: &mut B::Connection,
        subscription: &Subscription<SqlTransaction<B>>,
        tables: &[Rebuilds],
        snapshot: &ProjectionSnapshot,
    ) -> Result<Option<String>> {
        let ours = tables.iter().map(|one| (one.table.name(), one.version));
        let theirs = snapshot.tables.iter();
        if !ours.eq(theirs.map(|one| (one.table.as_str(), one.version))) {
            return Ok(Some("it is of other tables or versions".to_owned()));
        }
        if snapshot.checkpoints.is_empty() {
            return Ok(Some("it cannot be read".to_owned()));
        }
        if snapshot.checkpoints.len() > 1 && !subscription.is_splittable() {
            return Ok(Some("it is of several segments".to_owned()));
        }
        for table in &snapshot.tables {
            let live = B::live_columns(connection, &table.table).await?;
            if copied(&live) != table.columns {
                return Ok(Some(format!("table {} has other columns", table.table)));
            }
            let copy = B::live_columns(connection, &table.copy).await?;
            let names = copy.iter().map(|column| column.name.as_str());
            if !names.eq(table.columns.iter().map(|(name, _)| name.as_str()))
                || snapshots::count::<B>(connection, &table.copy).await? != table.rows
            {
                return Ok(Some(format!(
                    "its copy {} is not as it was taken",
                    table.copy
                )));
            }
        }
        if self.despite_gaps {
            return Ok(None);
        }
        retention::hold::<B>(connection).await?;
        let filter = subscription.filter();
        let gap = retention::gap::<B>(connection, filter, snapshot.position).await?;
        Ok(gap.map(|gap| gap.to_string()))
    }

    async fn bring_back(
        &self,
        transaction: &mut SqlTransaction<B>,
        subscription: &Subscription<SqlTransaction<B>>,
        checkpoints: &[Checkpoint],
        snapshot: &ProjectionSnapshot,
    ) -> Result<()> {
        let name = subscription.name();
        let kept = subscription.tables().unwrap_or_default();
        for table in kept {
            transaction.changing(table.table.name());
        }
        let connection = transaction.connection_below().await?;
        for table in snapshot.tables.iter().rev() {
            let delete = format!("DELETE FROM {}", quoted(&table.table));
            B::execute_script(connection, delete).await?;
        }
        for (table, kept) in snapshot.tables.iter().zip(kept) {
            let (into, columns) = (quoted(&table.table), table.names());
            // In the order of its key, which the index of that takes fastest.
            let insert = format!(
                "INSERT INTO {into} ({columns}) SELECT {columns} FROM {} ORDER BY {}",
                quoted(&table.copy),
                names(kept.table.primary_key())
            );
            B::execute_script(connection, insert).await?;
        }
        // As in a reset.
        if !subscription.has_side_effects() {
            dead_letters::remove_all::<B>(connection, name).await?;
        }
        let records = snapshots::records_of(snapshot.id);
        let columns = B::live_columns(connection, &records).await?;
        if !columns.is_empty() {
            dead_letters::bring_back::<B>(connection, &records, &columns).await?;
        }
        let segments = NewSegments {
            positions: snapshot.checkpoints.clone(),
            marks: marks(checkpoints, snapshot.checkpoints.len()),
            version: register::version(subscription).unwrap_or(1),
        };
        register::replace_segments::<B>(connection, name, &segments).await?;
        if checkpoints.iter().any(|one| one.paused) {
            checkpoint::pause::<B>(connection, name).await?;
        }
        let detail = format!("{} at {}", snapshot.id, snapshot.position);
        self.record(connection, name, ("restore", detail)).await
    }
}

/// How far the segments have come that are replaced by so many.
fn marks(checkpoints: &[Checkpoint], count: usize) -> Vec<Position> {
    let marks = checkpoints.iter().map(|one| one.mark.max(one.position));
    if checkpoints.len() == count {
        return marks.collect();
    }
    // Aggregates are of other segments then. None must be above what was passed by all.
    vec![marks.min().unwrap_or(Position::START); count]
}
