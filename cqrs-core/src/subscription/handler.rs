//! A projection without its type.

use super::filter::EventFilter;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::{Error, Result};
use crate::event::EventSet;
use crate::projection::Projection;
use crate::store::BoxFuture;

pub(crate) trait Handler<T>: Send + Sync {
    /// The events that it reads.
    fn filter(&self) -> &EventFilter;

    /// Whether it acts on the world outside of its transaction.
    fn has_side_effects(&self) -> bool;

    /// Removes everything that it has written.
    fn clear<'a>(&'a self, transaction: &'a mut T) -> BoxFuture<'a, Result<()>>;

    /// Decodes those of a page that it reads, behind a mark where it has side effects, and applies
    /// them.
    fn apply<'a>(
        &'a self,
        page: &'a [Envelope<RawPayload>],
        mark: Position,
        transaction: &'a mut T,
    ) -> BoxFuture<'a, Result<()>>;
}

pub(super) struct Typed<P> {
    pub(super) projection: P,
    pub(super) filter: EventFilter,
}

impl<T: Send, P: Projection<T>> Handler<T> for Typed<P> {
    fn filter(&self) -> &EventFilter {
        &self.filter
    }

    fn has_side_effects(&self) -> bool {
        self.projection.has_side_effects()
    }

    fn clear<'a>(&'a self, transaction: &'a mut T) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.projection.clear(transaction))
    }

    fn apply<'a>(
        &'a self,
        page: &'a [Envelope<RawPayload>],
        mark: Position,
        transaction: &'a mut T,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mark = if self.has_side_effects() {
                mark
            } else {
                Position::START
            };
            let wanted = |raw: &&Envelope<_>| raw.position() > mark && self.filter.wants(raw);
            let mut events = Vec::with_capacity(page.len());
            for raw in page.iter().filter(wanted) {
                match P::Event::decode(raw) {
                    Ok(Some(event)) => events.push(raw.with_payload(event)),
                    Ok(None) => {}
                    Err(reason) => {
                        return Err(Error::Undecodable {
                            position: raw.position(),
                            reason,
                        });
                    }
                }
            }
            if events.is_empty() {
                return Ok(());
            }
            self.projection.apply(&events, transaction).await
        })
    }
}
