//! A projection without its type.

use super::filter::EventFilter;
use crate::envelope::{Envelope, RawPayload};
use crate::error::{Error, Result};
use crate::event::EventSet;
use crate::projection::Projection;
use crate::store::BoxFuture;

pub(super) trait Handler<T>: Send + Sync {
    /// The events that it reads.
    fn filter(&self) -> &EventFilter;

    /// Decodes those of a page that it reads, and applies them.
    fn apply<'a>(
        &'a self,
        page: &'a [Envelope<RawPayload>],
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

    fn apply<'a>(
        &'a self,
        page: &'a [Envelope<RawPayload>],
        transaction: &'a mut T,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut events = Vec::with_capacity(page.len());
            for raw in page.iter().filter(|raw| self.filter.wants(raw)) {
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
