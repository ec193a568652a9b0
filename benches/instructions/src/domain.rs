//! An aggregate with a column of most types.

use chrono::{DateTime, TimeZone as _, Utc};
use cqrs_core::{Aggregate, DomainEvent, Id, Root, TenantId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The tenant of all shipments.
pub(crate) const TENANT: &str = "north";

/// What happens to a shipment.
#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "shipment")]
pub(crate) enum ShipmentEvent {
    /// It was booked.
    Booked {
        /// By whom.
        customer: String,
        /// What is to be known.
        note: Option<String>,
        /// How many pieces.
        pieces: i64,
        /// How heavy it is.
        kilograms: f64,
    },
    /// It was picked up.
    PickedUp {
        /// By whom.
        driver: String,
    },
}

/// What is carried.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "shipment", event = ShipmentEvent, tenant)]
pub(crate) struct Shipment {
    #[aggregate(id)]
    pub(crate) id: Id<Shipment>,
    #[aggregate(root)]
    root: Root<ShipmentEvent>,
    pub(crate) customer: String,
    pub(crate) note: Option<String>,
    pub(crate) pieces: i64,
    pub(crate) kilograms: f64,
    pub(crate) ready_at: DateTime<Utc>,
}

impl Shipment {
    /// Books one; the `number` makes it differ from others.
    pub(crate) fn book(number: u32) -> Self {
        let customer = format!("customer {number}");
        let note = number
            .is_multiple_of(3)
            .then(|| "Leave it with the neighbours.".to_owned());
        let (pieces, kilograms) = (i64::from(number % 7), f64::from(number) / 4.0);
        let mut root = Root::new();
        root.raise(ShipmentEvent::Booked {
            customer: customer.clone(),
            note: note.clone(),
            pieces,
            kilograms,
        });
        Self {
            id: Id::from_uuid(Uuid::from_u128(number.into())),
            root,
            customer,
            note,
            pieces,
            kilograms,
            ready_at: moment(),
        }
    }
}

/// A shipment as somebody would read it by hand.
#[derive(Debug)]
#[expect(dead_code, reason = "who reads by hand fills all fields")]
pub(crate) struct Plain {
    pub(crate) version: i64,
    pub(crate) tenant: TenantId,
    pub(crate) id: Uuid,
    pub(crate) customer: String,
    pub(crate) note: Option<String>,
    pub(crate) pieces: i64,
    pub(crate) kilograms: f64,
    pub(crate) ready_at: DateTime<Utc>,
}

/// A point in time, always the same.
pub(crate) fn moment() -> DateTime<Utc> {
    Utc.timestamp_opt(1_700_000_000, 0)
        .single()
        .unwrap_or_default()
}
