//! Event buses: where events go beyond the database.

use std::future::Future;
use std::io::Write;

use crate::envelope::{Envelope, RawPayload};
use crate::error::{Error, Result};
use crate::event::DomainEvent;
use crate::projection::{Projection, Rebuilds};
use crate::schema::SchemaIds;
use crate::upcast;

/// A way out of the database: a broker, a webhook, a console.
///
/// Delivery is at least once: a page whose checkpoint was not committed is published again.
/// Consumers recognise an event by its [`event_id`](Envelope::event_id).
pub trait EventBus: Send + Sync + 'static {
    /// Publishes a page of events, in the order of the log.
    ///
    /// # Errors
    ///
    /// An error means that the whole page is published again later.
    fn publish(&self, page: &[Envelope<RawPayload>]) -> impl Future<Output = Result<()>> + Send;
}

/// Publishes the log to an [`EventBus`]: one more subscription, with its own checkpoint.
#[derive(Debug, Clone)]
pub struct Relay<B> {
    name: String,
    bus: B,
    upcasters: Vec<Upcaster>,
    schema_ids: SchemaIds,
}

/// Lifts an event of one aggregate type; `None` where it stays as it is.
type Upcaster =
    fn(&Envelope<RawPayload>) -> Result<Option<Envelope<RawPayload>>, crate::PayloadError>;

impl<B: EventBus> Relay<B> {
    /// A relay whose checkpoint is kept under `name`.
    pub fn new(name: impl Into<String>, bus: B) -> Self {
        Self {
            name: name.into(),
            bus,
            upcasters: Vec::new(),
            schema_ids: SchemaIds::default(),
        }
    }

    /// Has old events of an aggregate type lifted before they are published: consumers see the
    /// names and the schema versions of the code, whatever the log holds. Others are published as
    /// they are.
    ///
    /// One that cannot be lifted fails the page, as one that cannot be decoded does elsewhere.
    #[must_use]
    pub fn upcasting<E: DomainEvent>(mut self) -> Self {
        self.upcasters.push(upcast::lifted_raw::<E>);
        self
    }

    /// Gives events whose payload was [lifted](Self::upcasting) the ids of the schemas that they have
    /// then. Others are published with the id in the log, also where their name is a new one: it is
    /// the schema by which the payload was written.
    #[must_use]
    pub fn schema_ids(mut self, ids: SchemaIds) -> Self {
        self.schema_ids = ids;
        self
    }

    /// The page, with what is lifted in place of what was stored; `None` where nothing is.
    fn lifted(&self, page: &[Envelope<RawPayload>]) -> Result<Option<Vec<Envelope<RawPayload>>>> {
        let mut lifted: Option<Vec<_>> = None;
        for (index, event) in page.iter().enumerate() {
            for upcaster in &self.upcasters {
                let new = upcaster(event).map_err(|reason| Error::Undecodable {
                    position: event.position(),
                    reason,
                })?;
                if let Some(new) = new {
                    // A new name alone leaves the payload as it was written.
                    let is_changed = new.schema_version() != event.schema_version();
                    lifted.get_or_insert_with(|| page.to_vec())[index] = match is_changed {
                        true => new.identified(&self.schema_ids),
                        false => new,
                    };
                }
            }
        }
        Ok(lifted)
    }
}

impl<B: EventBus, T: Send + 'static> Projection<T> for Relay<B> {
    type Event = RawPayload;

    fn name(&self) -> &str {
        &self.name
    }

    /// The order of the events of each aggregate is kept, and no other.
    fn is_splittable(&self) -> bool {
        true
    }

    fn has_side_effects(&self) -> bool {
        true
    }

    /// It keeps nothing here.
    fn tables(&self) -> Option<Vec<Rebuilds>> {
        Some(Vec::new())
    }

    /// It has written nothing here.
    async fn clear(&self, _: &mut T) -> Result<()> {
        Ok(())
    }

    async fn apply(&self, page: &[Envelope<RawPayload>], _: &mut T) -> Result<()> {
        let lifted = self.lifted(page)?;
        self.bus.publish(lifted.as_deref().unwrap_or(page)).await
    }
}

/// Prints events, one a line, to standard output or another writer.
///
/// ```text
/// 42 north route_plan 0190b8c2-… v3 route_plan.dispatched {"driver":"Kim"}
/// ```
#[derive(Debug)]
pub struct ConsoleEventBus<W = std::io::Stdout> {
    writer: std::sync::Mutex<W>,
}

impl ConsoleEventBus {
    /// Prints to standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self::new(std::io::stdout())
    }
}

impl<W> ConsoleEventBus<W> {
    /// Prints to `writer`.
    pub fn new(writer: W) -> Self {
        Self {
            writer: std::sync::Mutex::new(writer),
        }
    }
}

impl<W: Write + Send + 'static> EventBus for ConsoleEventBus<W> {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        let mut writer = self
            .writer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for event in page {
            writeln!(
                writer,
                "{} {} {} {} v{} {} {}",
                event.position(),
                event.tenant().map_or("-", |tenant| tenant.as_str()),
                event.aggregate_type(),
                event.aggregate_id_str(),
                event.aggregate_version(),
                event.event_type(),
                event.payload().as_str(),
            )
            .map_err(Error::other)?;
        }
        writer.flush().map_err(Error::other)
    }
}
