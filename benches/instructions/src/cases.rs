//! What is counted: each piece of work by the framework, and the same by hand.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use cqrs_core::mapping::{Entity as _, RowCursor, Value, ValueRow};
use cqrs_core::staging::{NewEvent, StagedWrite};
use cqrs_core::{
    ContentHash, Envelope, EventHeader, EventSet as _, Metadata, Position, RawPayload,
    RequestContext, Specification, TenantId,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::domain::{Plain, Shipment, ShipmentEvent, TENANT, moment};

/// How many shipments a piece of work has.
const SHIPMENTS: u32 = 100;

/// A piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Rows become aggregates.
    Read,
    /// Aggregates become rows with their events, payloads and hashes.
    Stage,
    /// A condition is evaluated for rows.
    Evaluate,
    /// The key of a condition in a cache.
    CacheKey,
    /// Events of the log become typed ones.
    Decode,
    /// Payloads are hashed.
    Hash,
    /// Events get their envelopes.
    Envelope,
}

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// The framework.
    Ours,
    /// By hand, with serde and what the standard library has.
    Hand,
}

impl Case {
    /// The name, as the arguments have it.
    pub(crate) fn name(self) -> String {
        name(self)
    }
}

impl Side {
    /// The name, as the arguments have it.
    pub(crate) fn name(self) -> String {
        name(self)
    }
}

fn name(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Does a piece of work so many times, and returns a checksum that both sides share.
///
/// # Errors
///
/// Where the framework refuses, which it never does.
pub(crate) fn work(case: Case, side: Side, times: u32) -> Result<u64> {
    let shipments: Vec<Shipment> = (0..SHIPMENTS).map(Shipment::book).collect();
    let context = RequestContext::tenant(TenantId::new(TENANT)?);
    let staged = shipments
        .iter()
        .map(|shipment| StagedWrite::save(shipment.clone(), &context, moment()))
        .collect::<cqrs_core::Result<Vec<_>>>()?;
    let rows: Vec<ValueRow> = staged
        .iter()
        .map(|write| ValueRow::new(write.row.clone()))
        .collect();
    let metadata = context.metadata();
    let events: Vec<Envelope<RawPayload>> = staged
        .iter()
        .flat_map(|write| envelopes(write, metadata))
        .collect();
    let mut sum = 0;
    for _ in 0..times {
        sum += match (case, side) {
            (Case::Read, Side::Ours) => read(&rows)?,
            (Case::Read, Side::Hand) => read_by_hand(&rows)?,
            (Case::Stage, Side::Ours) => stage(&shipments, &context)?,
            (Case::Stage, Side::Hand) => stage_by_hand(&shipments)?,
            (Case::Evaluate, Side::Ours) => evaluate(&rows)?,
            (Case::Evaluate, Side::Hand) => evaluate_by_hand(&rows)?,
            (Case::CacheKey, Side::Ours) => cache_keys(),
            (Case::CacheKey, Side::Hand) => cache_keys_by_hand(),
            (Case::Decode, Side::Ours) => decode(&events)?,
            (Case::Decode, Side::Hand) => decode_by_hand(&events)?,
            (Case::Hash, Side::Ours) => hash(&events),
            (Case::Hash, Side::Hand) => hash_by_hand(&events),
            (Case::Envelope, Side::Ours) => envelop(&staged, metadata)?,
            (Case::Envelope, Side::Hand) => envelop_by_hand(&staged, metadata)?,
        };
    }
    Ok(sum)
}

fn read(rows: &[ValueRow]) -> Result<u64> {
    let mut sum = 0;
    for row in rows {
        let shipment = Shipment::read_row(&mut RowCursor::new(Shipment::table(), row))?;
        sum += black_box(&shipment).pieces.unsigned_abs();
    }
    Ok(sum)
}

fn read_by_hand(rows: &[ValueRow]) -> Result<u64> {
    let mut sum = 0;
    for row in rows {
        sum += black_box(plain(row.values())?).pieces.unsigned_abs();
    }
    Ok(sum)
}

fn plain(values: &[Value]) -> Result<Plain> {
    let [
        Value::Int(version),
        Value::Text(tenant),
        Value::Uuid(id),
        Value::Text(customer),
        note,
        Value::Int(pieces),
        Value::Float(kilograms),
        Value::Timestamp(ready_at),
    ] = values
    else {
        bail!("another row: {values:?}");
    };
    let note = match note {
        Value::Null => None,
        Value::Text(note) => Some(note.clone()),
        other => bail!("another note: {other:?}"),
    };
    Ok(Plain {
        version: *version,
        tenant: TenantId::new(tenant)?,
        id: *id,
        customer: customer.clone(),
        note,
        pieces: *pieces,
        kilograms: *kilograms,
        ready_at: *ready_at,
    })
}

fn stage(shipments: &[Shipment], context: &RequestContext) -> Result<u64> {
    let mut sum = 0;
    for shipment in shipments {
        let write = StagedWrite::save(shipment.clone(), context, moment())?;
        let [event] = black_box(&write.events[..]) else {
            bail!("another number of events");
        };
        sum += u64::from(event.content_hash.content()[0]);
    }
    Ok(sum)
}

/// The fields of the event in the order of their names, as the canonical text has them.
#[derive(Serialize, Deserialize)]
struct Booked {
    customer: String,
    kilograms: f64,
    note: Option<String>,
    pieces: i64,
}

fn stage_by_hand(shipments: &[Shipment]) -> Result<u64> {
    let mut sum = 0;
    for shipment in shipments {
        let shipment = shipment.clone();
        let payload = serde_json::to_string(&Booked {
            customer: shipment.customer.clone(),
            kilograms: shipment.kilograms,
            note: shipment.note.clone(),
            pieces: shipment.pieces,
        })?;
        let event = NewEvent {
            event_id: Uuid::now_v7(),
            aggregate_version: 1,
            event_type: "shipment.booked",
            schema_version: 1,
            schema_id: None,
            content_hash: ContentHash::from_bytes(&Sha256::digest(payload.as_bytes()))?,
            payload,
            occurred_at: moment(),
        };
        let id = shipment.id.uuid();
        let key = Value::Uuid(id);
        let row = vec![
            Value::Int(1),
            Value::Text(TENANT.to_owned()),
            key.clone(),
            Value::Text(shipment.customer),
            shipment.note.map_or(Value::Null, Value::Text),
            Value::Int(shipment.pieces),
            Value::Float(shipment.kilograms),
            Value::Timestamp(shipment.ready_at),
        ];
        let staged = black_box((id.to_string(), key, row, vec![event]));
        sum += u64::from(staged.3[0].content_hash.content()[0]);
    }
    Ok(sum)
}

fn condition(least: i64) -> Specification<Shipment> {
    let shipment = Shipment::fields();
    let heavy = shipment.kilograms.ge(10.0) & shipment.note.is_null();
    let many = shipment.pieces.between(least, 5) & shipment.customer.starts_with("customer");
    heavy | many
}

fn evaluate(rows: &[ValueRow]) -> Result<u64> {
    let condition = condition(3);
    let mut sum = 0;
    for row in rows {
        let truth = condition.predicate().evaluate(Shipment::table(), row)?;
        sum += u64::from(truth == Some(true));
    }
    Ok(sum)
}

/// The same on the values, with SQL's NULL.
fn evaluate_by_hand(rows: &[ValueRow]) -> Result<u64> {
    let mut sum = 0;
    for row in rows {
        let [
            _,
            _,
            _,
            Value::Text(customer),
            note,
            Value::Int(pieces),
            Value::Float(weight),
            _,
        ] = row.values()
        else {
            bail!("another row: {row:?}");
        };
        let heavy = *weight >= 10.0 && note.is_null();
        let many = (3..=5).contains(pieces) && customer.starts_with("customer");
        sum += u64::from(black_box(heavy || many));
    }
    Ok(sum)
}

fn cache_keys() -> u64 {
    (0..100)
        .map(|least| condition(least).cache_key().to_string().len() as u64)
        .sum()
}

/// The hash of a text that names the condition.
fn cache_keys_by_hand() -> u64 {
    (0..100)
        .map(|least| {
            let text = format!(
                "shipment: (kilograms >= {} and note is null) or (pieces between {least} and {} \
                 and customer starts with {:?})",
                10.0, 5, "customer"
            );
            let hash = ContentHash::of(&text);
            black_box(hash.to_string()).len() as u64
        })
        .sum()
}

fn hash(events: &[Envelope<RawPayload>]) -> u64 {
    let payloads = events.iter().map(|event| event.payload().as_str());
    payloads
        .map(|payload| u64::from(black_box(ContentHash::of(payload)).content()[0]))
        .sum()
}

fn hash_by_hand(events: &[Envelope<RawPayload>]) -> u64 {
    let payloads = events.iter().map(|event| event.payload().as_str());
    payloads
        .map(|payload| u64::from(black_box(Sha256::digest(payload.as_bytes()))[0]))
        .sum()
}

/// As a consumer gets them: the id is read, and the payload replaced by what was made of it.
fn envelop(staged: &[StagedWrite], metadata: &Metadata) -> Result<u64> {
    let mut sum = 0;
    for write in staged {
        for event in envelopes(write, metadata) {
            let event = black_box(event.with_payload(1_u64));
            let id: Uuid = event.aggregate_id()?;
            sum += event.payload() * u64::from(id.as_bytes()[15]);
        }
    }
    Ok(sum)
}

/// A value with the same fields, which are copied into it as they are.
fn envelop_by_hand(staged: &[StagedWrite], metadata: &Metadata) -> Result<u64> {
    let mut sum = 0;
    for write in staged {
        for event in &write.events {
            let stream = (
                write.tenant.clone(),
                write.aggregate_type.to_owned(),
                write.aggregate_id.clone(),
                event.aggregate_version,
            );
            let kind = (event.event_type.to_owned(), event.schema_version);
            let times = [event.occurred_at; 2];
            let rest = (event.content_hash, metadata.clone(), times);
            let payload: Arc<str> = event.payload.as_str().into();
            let event = black_box((event.event_id, stream, kind, rest, payload));
            let id = Uuid::parse_str(&event.1.2)?;
            sum += u64::from(id.as_bytes()[15]);
        }
    }
    Ok(sum)
}

fn envelopes(write: &StagedWrite, metadata: &Metadata) -> Vec<Envelope<RawPayload>> {
    let envelope = |event: &NewEvent| {
        let header = EventHeader {
            position: Position(1),
            event_id: event.event_id,
            tenant: write.tenant.clone(),
            aggregate_type: write.aggregate_type.to_owned(),
            aggregate_id: write.aggregate_id.clone(),
            aggregate_version: event.aggregate_version,
            event_type: event.event_type.to_owned(),
            schema_version: event.schema_version,
            schema_id: None,
            metadata: metadata.clone(),
            content_hash: event.content_hash,
            occurred_at: event.occurred_at,
            recorded_at: event.occurred_at,
        };
        Envelope::new(header, RawPayload::new(event.payload.as_str()))
    };
    write.events.iter().map(envelope).collect()
}

fn decode(events: &[Envelope<RawPayload>]) -> Result<u64> {
    let mut sum = 0;
    for event in events {
        let Some(ShipmentEvent::Booked { pieces, .. }) = ShipmentEvent::decode(event)? else {
            bail!("another event");
        };
        sum += black_box(pieces).unsigned_abs();
    }
    Ok(sum)
}

fn decode_by_hand(events: &[Envelope<RawPayload>]) -> Result<u64> {
    let mut sum = 0;
    for event in events {
        let event = match event.event_type() {
            "shipment.booked" => serde_json::from_str::<Booked>(event.payload().as_str())
                .with_context(|| event.event_id().to_string())?,
            other => bail!("another event: {other}"),
        };
        sum += black_box(event.pieces).unsigned_abs();
    }
    Ok(sum)
}
