//! Resetting a subscription: what it has written is removed, and it goes back in the log.

use std::sync::Arc;

use cqrs_core::{Error, Position, Result, StartAt, Subscription};

use super::checkpoint::{self, Checkpoint};
use super::operations::Operations;
use super::transaction::SqlTransaction;
use super::{building, dead_letters, queries, register};
use crate::backend::Backend;

impl<B: Backend> Operations<B> {
    /// [Resets](Subscription#resets) a subscription in all processes: removes what its handlers
    /// have written, and its dead letters, and brings it back in the log, never forward. A halted
    /// segment goes on, unless the subscription is paused: that it stays. Where a handler has side effects, it is not given
    /// again what was skipped, so the records of that stay.
    ///
    /// The subscription is that of the [projector](crate::SqlStore::projector), with its handlers,
    /// which know what to remove. Readers find nothing until it has caught up.
    /// [`restore`](Self::restore) is faster where there is a snapshot.
    ///
    /// # Errors
    ///
    /// As for [all](Self#errors), and `Usage` where a handler does not say how it is
    /// [cleared](cqrs_core::Projection::clear), where events are parked that a handler with side
    /// effects would not get again, or where events that it reads have
    /// [left](crate::SqlStore::remove_events) the log, unless they [may](Self::despite_gaps).
    pub async fn reset(
        &self,
        subscription: &Subscription<SqlTransaction<B>>,
        to: StartAt,
    ) -> Result<()> {
        building::refuse_name(subscription.name())?;
        let start = register::start(&self.shared, subscription.name(), to).await?;
        let mut transaction = self.begin_reset().await?;
        let reset = self.reset_in(&mut transaction, subscription, start).await;
        self.end_reset(transaction, subscription.name(), reset)
            .await
    }

    async fn reset_in(
        &self,
        transaction: &mut SqlTransaction<B>,
        subscription: &Subscription<SqlTransaction<B>>,
        start: Position,
    ) -> Result<((), Position)> {
        let checkpoints = self.lock_to_reset(transaction, subscription).await?;
        let to = self.go_back(transaction, subscription, &checkpoints, start);
        Ok(((), to.await?))
    }

    /// Begins the transaction of a reset.
    pub(super) async fn begin_reset(&self) -> Result<SqlTransaction<B>> {
        let connection = queries::begin(&self.shared).await?;
        Ok(SqlTransaction::new(Arc::clone(&self.shared), connection))
    }

    /// Locks the segments of a subscription, and looks whether it may be reset.
    pub(super) async fn lock_to_reset(
        &self,
        transaction: &mut SqlTransaction<B>,
        subscription: &Subscription<SqlTransaction<B>>,
    ) -> Result<Vec<Checkpoint>> {
        let name = subscription.name();
        let connection = transaction.connection_below().await?;
        let checkpoints = checkpoint::lock_all::<B>(connection, name).await?;
        if checkpoints.is_empty() {
            return Err(Error::unknown_subscription(name));
        }
        if subscription.has_side_effects() && dead_letters::count::<B>(connection, name).await? > 0
        {
            return Err(Error::parked_side_effects(name));
        }
        Ok(checkpoints)
    }

    /// Removes what a subscription has written, and brings it back in the log; where it then stands.
    /// Where it has side effects, nothing is parked.
    pub(super) async fn go_back(
        &self,
        transaction: &mut SqlTransaction<B>,
        subscription: &Subscription<SqlTransaction<B>>,
        checkpoints: &[Checkpoint],
        start: Position,
    ) -> Result<Position> {
        let name = subscription.name();
        let connection = transaction.connection_below().await?;
        self.refuse_gaps(connection, subscription, start).await?;
        subscription.clear(transaction).await?;
        let connection = transaction.connection_below().await?;
        // What was skipped does not come again for handlers with side effects, and its record says so.
        if !subscription.has_side_effects() {
            dead_letters::remove_all::<B>(connection, name).await?;
        }
        checkpoint::set_back::<B>(connection, name, start).await?;
        if let Some(version) = register::version(subscription) {
            // Rows of another version are gone.
            checkpoint::set_version::<B>(connection, name, version).await?;
        }
        let operation = ("reset", format!("to {start}"));
        self.record(connection, name, operation).await?;
        let stood = checkpoints.iter().map(|one| one.position).min();
        Ok(stood.map_or(start, |stood| stood.min(start)))
    }

    /// Ends the transaction of a reset, after which the subscription stands at a position, and tells
    /// the projectors.
    pub(super) async fn end_reset<T>(
        &self,
        mut transaction: SqlTransaction<B>,
        name: &str,
        mut reset: Result<(T, Position)>,
    ) -> Result<T> {
        if reset.is_ok()
            && let Err(error) = transaction.commit(false).await
        {
            reset = Err(error);
        }
        let mut connection = transaction.into_connection();
        match reset {
            Ok((done, position)) => {
                connection.end_work();
                drop(connection);
                self.wake(name, Some(position)).await;
                Ok(done)
            }
            Err(error) => {
                queries::rollback(connection).await;
                Err(error)
            }
        }
    }
}
