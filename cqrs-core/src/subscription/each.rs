//! Handlers of single events.

use std::future::Future;

use crate::envelope::Envelope;
use crate::error::Result;
use crate::event::EventSet;
use crate::projection::{Projection, Rebuilds, not_clearable};

/// A consumer of the log that handles one event at a time, in the transaction of its checkpoint.
///
/// A [`Projection`] gets whole pages, and can write each with one statement; this is for what has
/// to be done event by event, and costs a statement or more for each.
pub trait EventHandler<T>: Send + Sync + 'static {
    /// The events it reads.
    type Event: EventSet;

    /// The name of its subscription; its checkpoint is kept under it.
    fn name(&self) -> &str;

    /// As [`Projection::event_types`].
    fn event_types(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// As [`Projection::is_splittable`].
    fn is_splittable(&self) -> bool {
        false
    }

    /// As [`Projection::has_side_effects`].
    fn has_side_effects(&self) -> bool {
        false
    }

    /// As [`Projection::tables`]; not known, unless told.
    fn tables(&self) -> Option<Vec<Rebuilds>> {
        None
    }

    /// As [`Projection::clear`].
    ///
    /// # Errors
    ///
    /// As there.
    fn clear(&self, transaction: &mut T) -> impl Future<Output = Result<()>> + Send {
        let _ = transaction;
        let error = not_clearable(self.name());
        async { Err(error) }
    }

    /// Handles an event.
    ///
    /// # Transaction
    ///
    /// As in [`Projection::apply`].
    ///
    /// # Errors
    ///
    /// As in [`Projection::apply`].
    fn handle(
        &self,
        event: &Envelope<Self::Event>,
        transaction: &mut T,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// Runs an [`EventHandler`] as a [`Projection`].
#[derive(Debug, Clone)]
pub struct Each<H>(pub H);

impl<T: Send, H: EventHandler<T>> Projection<T> for Each<H> {
    type Event = H::Event;

    fn name(&self) -> &str {
        self.0.name()
    }

    fn event_types(&self) -> Option<&'static [&'static str]> {
        self.0.event_types()
    }

    fn is_splittable(&self) -> bool {
        self.0.is_splittable()
    }

    fn has_side_effects(&self) -> bool {
        self.0.has_side_effects()
    }

    fn tables(&self) -> Option<Vec<Rebuilds>> {
        self.0.tables()
    }

    async fn clear(&self, transaction: &mut T) -> Result<()> {
        self.0.clear(transaction).await
    }

    async fn apply(&self, page: &[Envelope<H::Event>], transaction: &mut T) -> Result<()> {
        for event in page {
            self.0.handle(event, transaction).await?;
        }
        Ok(())
    }
}
