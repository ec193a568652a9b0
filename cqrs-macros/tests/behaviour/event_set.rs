//! `#[derive(EventSet)]`.

use cqrs_core::{
    ContentHash, DomainEvent, Envelope, EventHeader, EventSet, Metadata, PayloadError, Position,
    RawPayload,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
enum OrderEvent {
    #[event(version = 2, upcast(1 = in_cents), was("order.created"))]
    Placed {
        cents: i64,
    },
    Cancelled,
}

#[derive(Deserialize)]
struct PlacedV1 {
    euros: i64,
}

#[derive(Serialize)]
struct PlacedV2 {
    cents: i64,
}

fn in_cents(old: PlacedV1) -> PlacedV2 {
    let cents = old.euros * 100;
    PlacedV2 { cents }
}

/// A single event type is a struct.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "payment", name = "payment.received", was("order.created"))]
struct PaymentReceived {
    order: String,
}

#[derive(Debug, PartialEq, EventSet)]
enum Checkout {
    Order(OrderEvent),
    Payment(PaymentReceived),
}

fn raw(aggregate: &str, event_type: &str, version: u32, payload: &str) -> Envelope<RawPayload> {
    let header = EventHeader {
        position: Position(1),
        event_id: Uuid::nil(),
        tenant: None,
        aggregate_type: aggregate.to_owned(),
        aggregate_id: "A1".to_owned(),
        aggregate_version: 1,
        event_type: event_type.to_owned(),
        schema_version: version,
        schema_id: None,
        metadata: Metadata {
            correlation_id: Uuid::nil(),
            causation_id: None,
            actor: None,
            trace: None,
        },
        content_hash: ContentHash::of(payload),
        occurred_at: chrono::DateTime::UNIX_EPOCH,
        recorded_at: chrono::DateTime::UNIX_EPOCH,
    };
    Envelope::new(header, RawPayload::new(payload))
}

#[test]
fn the_aggregate_says_which_member_an_event_is_of() {
    assert_eq!(Checkout::aggregate_types(), Some(&["order", "payment"][..]));
    let decode = |aggregate, event_type, version, payload| {
        Checkout::decode(&raw(aggregate, event_type, version, payload)).expect("it can be read")
    };
    assert_eq!(
        decode("order", "order.placed", 2, r#"{"cents":7}"#),
        Some(Checkout::Order(OrderEvent::Placed { cents: 7 }))
    );
    assert_eq!(
        decode("payment", "payment.received", 1, r#"{"order":"A1"}"#),
        Some(Checkout::Payment(PaymentReceived { order: "A1".into() }))
    );
    // An event of an aggregate that is not in the set.
    assert_eq!(decode("parcel", "order.cancelled", 1, "{}"), None);
}

#[test]
fn members_read_old_events_and_leave_markers_out() {
    let old = raw("order", "order.created", 1, r#"{"euros":2}"#);
    let placed = Checkout::Order(OrderEvent::Placed { cents: 200 });
    assert_eq!(Checkout::decode(&old).expect("it is lifted"), Some(placed));
    // Another member may have had an event type of that name too.
    let old = raw("payment", "order.created", 1, r#"{"order":"A2"}"#);
    let received = Checkout::Payment(PaymentReceived { order: "A2".into() });
    assert_eq!(Checkout::decode(&old).expect("it is read"), Some(received));
    let marker = raw("payment", "cqrs.changed", 1, "{}");
    assert!(marker.is_change_marker());
    assert_eq!(Checkout::decode(&marker).expect("it is skipped"), None);
}

#[test]
fn what_a_member_cannot_read_is_its_error() {
    let unknown = raw("payment", "payment.lost", 1, "{}");
    match Checkout::decode(&unknown) {
        Err(PayloadError::UnknownEventType { aggregate_type, .. }) => {
            assert_eq!(aggregate_type, "payment");
        }
        other => panic!("expected an unknown event type, got {other:?}"),
    }
    let malformed = raw("order", "order.placed", 2, "{}");
    let error = Checkout::decode(&malformed).expect_err("a field lacks");
    assert!(error.to_string().contains("order.placed"), "{error}");
}

#[test]
fn event_types_are_those_of_all_members() {
    for known in ["order.cancelled", "payment.received", "order.created"] {
        assert!(Checkout::may_hold(known), "{known}");
    }
    assert!(!Checkout::may_hold("payment.lost"));
    assert_eq!(Checkout::other_names("order.placed"), ["order.created"]);
    assert_eq!(Checkout::other_names("payment.received"), ["order.created"]);
    let both = ["order.placed", "payment.received"];
    assert_eq!(Checkout::other_names("order.created"), both);
    assert!(Checkout::other_names("payment.lost").is_empty());
}
