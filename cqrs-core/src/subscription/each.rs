//! Handlers of single events.

use std::future::Future;

use crate::envelope::Envelope;
use crate::error::Result;
use crate::event::EventSet;
use crate::projection::Projection;

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

    async fn apply(&self, page: &[Envelope<H::Event>], transaction: &mut T) -> Result<()> {
        for event in page {
            self.0.handle(event, transaction).await?;
        }
        Ok(())
    }
}
