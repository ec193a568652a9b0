//! Domain events.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::envelope::{Envelope, RawPayload};
use crate::payload::{self, PayloadError};
use crate::upcast::{self, Upcast};

/// Something that happened to an aggregate, in the words of the domain.
///
/// Derive it ([`#[derive(DomainEvent)]`](derive@crate::DomainEvent)) on an enum with a variant per
/// event type, next to serde's `Serialize` and `Deserialize`.
///
/// The log holds the content of the variant as JSON; which variant it is stands in the event type.
/// So renaming a variant without an `#[event(name = "...")]` is a change of the event type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a domain event",
    note = "write `#[derive(Serialize, Deserialize, DomainEvent)]` on it"
)]
pub trait DomainEvent: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The type of the aggregate that raises it.
    const AGGREGATE_TYPE: &'static str;

    /// One entry per variant, in the order of their declaration.
    const EVENT_TYPES: &'static [EventType];

    /// How payloads of older schema versions are lifted: a step from each.
    const UPCASTS: &'static [Upcast] = &[];

    /// Names that event types had, each with its position in [`EVENT_TYPES`](Self::EVENT_TYPES):
    /// old events have them still.
    const FORMER_NAMES: &'static [(&'static str, usize)] = &[];

    /// The position of this value's variant in [`EVENT_TYPES`](Self::EVENT_TYPES).
    fn variant(&self) -> usize;

    /// The type of this event.
    #[must_use]
    fn event_type(&self) -> &'static EventType {
        &Self::EVENT_TYPES[self.variant()]
    }
}

/// The stored name and schema version of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventType {
    /// The name in the log, for example `route_plan.dispatched`.
    pub name: &'static str,
    /// The version of its payload's schema, from 1.
    pub schema_version: u32,
}

/// What a consumer reads: the events of one aggregate type, a set of several, or raw ones.
///
/// Every [`DomainEvent`] is the set of itself, and [`RawPayload`] is the set of all events. For those
/// of several aggregates derive it ([`#[derive(EventSet)]`](derive@crate::EventSet)) on an enum with a
/// variant for each.
///
/// # Example
///
/// In a set the type of the event says which aggregate an id is of:
///
/// ```
/// # use cqrs_core::{AggregateIdError, DomainEvent, Envelope, EventSet};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
/// # #[event(aggregate = "order")]
/// # enum OrderEvent { Placed }
/// # #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
/// # #[event(aggregate = "payment")]
/// # enum PaymentEvent { Received { order: u64 } }
/// #[derive(Debug, EventSet)]
/// enum Checkout {
///     Order(OrderEvent),
///     Payment(PaymentEvent),
/// }
///
/// fn order_of(event: &Envelope<Checkout>) -> Result<u64, AggregateIdError> {
///     match event.payload() {
///         Checkout::Order(_) => event.aggregate_id(),
///         Checkout::Payment(PaymentEvent::Received { order }) => Ok(*order),
///     }
/// }
///
/// /// What is written for the events of one aggregate takes those of a set too.
/// fn on_payment(event: &Envelope<&PaymentEvent>) -> String {
///     format!("payment {}: {:?}", event.aggregate_id_str(), event.payload())
/// }
///
/// fn log(event: &Envelope<Checkout>) -> Option<String> {
///     match event.payload() {
///         Checkout::Order(_) => None,
///         Checkout::Payment(payment) => Some(on_payment(&event.with_payload(payment))),
///     }
/// }
/// # let _ = (order_of, log);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no set of events that a consumer could read",
    note = "read a type that derives `DomainEvent`; those of several aggregates through an enum with `#[derive(EventSet)]`; all through `RawPayload`"
)]
pub trait EventSet: Sized + Send + Sync + 'static {
    /// The aggregate types whose events belong to the set; `None` for every type.
    fn aggregate_types() -> Option<&'static [&'static str]>;

    /// Whether an event type may be in the set, as far as that is known: one that may not is a
    /// mistake where a consumer names those that it reads.
    #[must_use]
    fn may_hold(event_type: &str) -> bool {
        let _ = event_type;
        true
    }

    /// The other names under which events of this type are stored: of a type that was renamed.
    #[must_use]
    fn other_names(event_type: &str) -> Vec<&'static str> {
        let _ = event_type;
        Vec::new()
    }

    /// Decodes an event of one of these aggregate types; `None` where it does not belong to the
    /// set, as the framework's own [change markers](crate::staging::ChangeMarker).
    ///
    /// # Errors
    ///
    /// [`PayloadError`] where the event type is not known, its schema version is younger than that of
    /// the code or nothing lifts it, or the payload does not fit.
    fn decode(raw: &Envelope<RawPayload>) -> Result<Option<Self>, PayloadError>;
}

impl<E: DomainEvent> EventSet for E {
    fn aggregate_types() -> Option<&'static [&'static str]> {
        Some(const { &[E::AGGREGATE_TYPE] })
    }

    fn may_hold(event_type: &str) -> bool {
        upcast::variant_of::<E>(event_type).is_some()
    }

    fn other_names(event_type: &str) -> Vec<&'static str> {
        upcast::other_names::<E>(event_type)
    }

    fn decode(raw: &Envelope<RawPayload>) -> Result<Option<Self>, PayloadError> {
        if raw.is_change_marker() {
            return Ok(None);
        }
        payload::decode(
            raw.event_type(),
            raw.schema_version(),
            raw.payload().as_str(),
        )
        .map(Some)
    }
}

impl EventSet for RawPayload {
    fn aggregate_types() -> Option<&'static [&'static str]> {
        None
    }

    fn decode(raw: &Envelope<RawPayload>) -> Result<Option<Self>, PayloadError> {
        Ok(Some(raw.payload().clone()))
    }
}
