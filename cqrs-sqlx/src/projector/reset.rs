//! Resetting a subscription: what it has written is removed, and it goes back in the log.

use std::sync::Arc;

use cqrs_core::{Error, Position, Result, StartAt, Subscription};

use super::operations::Operations;
use super::transaction::SqlTransaction;
use super::{checkpoint, dead_letters, queries, register};
use crate::backend::Backend;

impl<B: Backend> Operations<B> {
    /// [Resets](Subscription#resets) a subscription in all processes: removes what its handlers
    /// have written, and its dead letters, and brings it back in the log, never forward. A halted
    /// segment goes on; one that is paused stays so.
    ///
    /// The subscription is that of the [projector](crate::SqlStore::projector), with its handlers,
    /// which know what to remove. Readers find nothing until it has caught up. Events that were
    /// [removed](crate::SqlStore::remove_events) from the log do not come again.
    ///
    /// # Errors
    ///
    /// As for [all](Self#errors), and `Usage` where a handler does not say how it is
    /// [cleared](cqrs_core::Projection::clear), or where events are parked that a handler with side
    /// effects would not get again.
    pub async fn reset(
        &self,
        subscription: &Subscription<SqlTransaction<B>>,
        to: StartAt,
    ) -> Result<()> {
        let start = register::start(&self.shared, to).await?;
        let connection = queries::begin(&self.shared).await?;
        let mut transaction = SqlTransaction::new(Arc::clone(&self.shared), connection);
        let mut reset = self.reset_in(&mut transaction, subscription, start).await;
        if reset.is_ok() {
            reset = transaction.commit(false).await.map(drop);
        }
        let mut connection = transaction.into_connection();
        match reset {
            Ok(()) => {
                connection.end_work();
                drop(connection);
                self.wake(subscription.name(), true).await
            }
            Err(error) => {
                queries::rollback(connection).await;
                Err(error)
            }
        }
    }

    async fn reset_in(
        &self,
        transaction: &mut SqlTransaction<B>,
        subscription: &Subscription<SqlTransaction<B>>,
        start: Position,
    ) -> Result<()> {
        let name = subscription.name();
        let connection = transaction.connection_below().await?;
        if checkpoint::lock_all::<B>(connection, name)
            .await?
            .is_empty()
        {
            return Err(Error::unknown_subscription(name));
        }
        if subscription.has_side_effects() && dead_letters::count::<B>(connection, name).await? > 0
        {
            return Err(Error::parked_side_effects(name));
        }
        subscription.clear(transaction).await?;
        let connection = transaction.connection_below().await?;
        dead_letters::remove_all::<B>(connection, name).await?;
        checkpoint::set_back::<B>(connection, name, start).await?;
        if let Some(version) = register::version(subscription) {
            // Rows of another version are gone.
            checkpoint::set_version::<B>(connection, name, version).await?;
        }
        let operation = ("reset", format!("to {start}"));
        self.record(connection, name, operation).await
    }
}
