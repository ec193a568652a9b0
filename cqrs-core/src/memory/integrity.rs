//! The check of the log in memory.

use super::state::{Shared, State};
use crate::envelope::{Envelope, RawPayload};
use crate::integrity::{ChainedAggregate, LogCheck, LogCheckReport, LogScan, StoredEvent};
use crate::mapping::{ColumnRole, Key, Value};

pub(super) fn check(shared: &Shared, check: &LogCheck) -> LogCheckReport {
    let state = shared.lock();
    let mut scan = LogScan::new(check, &shared.hashing, Some(state.end()));
    for event in state.log() {
        scan.event(&stored(&state, event));
    }
    scan.events_end();
    for aggregate in check.aggregates() {
        check_streams(&state, &mut scan, aggregate);
    }
    scan.finish()
}

fn check_streams(state: &State, scan: &mut LogScan<'_>, aggregate: &ChainedAggregate) {
    let own = |event: &&Envelope<RawPayload>| event.aggregate_type() == aggregate.aggregate_type;
    let mut events: Vec<_> = state.log().iter().filter(own).collect();
    events.sort_by_key(|event| (event.aggregate_id_str(), event.aggregate_version()));
    for event in events {
        scan.linked(aggregate, &stored(state, event));
    }
    scan.end_stream(aggregate);
    for key in scan.ended() {
        let column = match aggregate.table.is_sourced() {
            true => match &key {
                Value::Text(id) => aggregate.key(id),
                _ => None,
            },
            false => Some(key.clone()),
        };
        let row = column.and_then(|key| state.row(aggregate.table.name(), &Key::new(vec![key])));
        let Some(row) = row else { continue };
        let version = super::overlay::version(aggregate.table, row.values());
        let head = aggregate.table.index_of(ColumnRole::ChainHead);
        let link = head.and_then(|head| match &row.values()[head] {
            Value::Bytes(link) => Some(link.as_slice()),
            _ => None,
        });
        scan.head(key, version, link);
    }
    scan.heads_end();
}

fn stored(state: &State, event: &Envelope<RawPayload>) -> StoredEvent {
    StoredEvent {
        position: event.position(),
        event: Ok(event.clone()),
        is_sourced: state.is_sourced(event.aggregate_type()),
    }
}
