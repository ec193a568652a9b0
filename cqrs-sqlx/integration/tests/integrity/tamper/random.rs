//! Random changes of the tables: the first break that is reported is where the change is.
//!
//! `CQRS_SEED` repeats a run that failed.

use std::collections::BTreeMap;

use cqrs_core::integrity::{Anchor, Break, BreakKind, LogCheckReport};
use cqrs_core::{Envelope, Position, RawPayload, RequestContext};
use cqrs_integration::random::{self, Random};
use cqrs_sqlx::StoreOptions;

use super::domain::work;
use super::{check, checked, keys, with};
use cqrs_integration::each::{Fresh, Kind};

const RUNS: u64 = 150;

/// The events of each stream, in order.
type Streams = BTreeMap<(String, String), Vec<Envelope<RawPayload>>>;

/// What a change must lead to.
#[derive(Debug)]
enum Expected {
    /// The first break is at this position.
    At(i64),
    /// A break of a stream of which no event is left, and none with a position.
    Stream,
    /// Nothing but an anchor knows.
    Anchor,
}

pub(super) async fn tampering<K: Kind>() {
    let seed = random::seed();
    for options in [
        StoreOptions::default(),
        StoreOptions::default().hash_keys(keys()),
    ] {
        let (fresh, store) = with::<K>(options).await;
        work(&store, &mut Random::new(seed), 25).await;
        store.snapshots_written().await;
        let system = RequestContext::system();
        let log = store.events(&system, Position::START, 1_000).await.unwrap();
        let mut streams = Streams::new();
        for event in log {
            let stream = (
                event.aggregate_type().to_owned(),
                event.aggregate_id_str().to_owned(),
            );
            streams.entry(stream).or_default().push(event);
        }
        let before = checked(&store, &check()).await;
        assert!(before.is_intact(), "{before:?}");
        let anchored = check().anchored(before.anchor().unwrap());
        keep(&fresh).await;
        for run in 0..RUNS {
            let mut random = Random::new(seed.wrapping_add(run));
            let (sql, expected) = change::<K>(&mut random, &streams);
            fresh.run(sql.clone()).await;
            let alone = checked(&store, &check()).await;
            let report = checked(&store, &anchored).await;
            let fits =
                !report.is_intact() && is_as(&expected, &alone, &report, before.anchor().unwrap());
            assert!(
                fits,
                "CQRS_SEED={seed}, run {run}, {sql}\nexpected {expected:?}: {alone:#?}"
            );
            restore(&fresh).await;
        }
        assert!(checked(&store, &anchored).await.is_intact());
    }
}

/// Whether the first break is the expected one, without the anchor and with it.
fn is_as(
    expected: &Expected,
    alone: &LogCheckReport,
    anchored: &LogCheckReport,
    anchor: Anchor,
) -> bool {
    let first = alone.first().and_then(|found| found.position);
    match *expected {
        Expected::At(position) => first == Some(Position(position)),
        Expected::Stream => {
            first.is_none() && matches!(alone.breaks(), [only] if only.stream.is_some())
        }
        Expected::Anchor => {
            let found = anchored.breaks();
            let is_anchor = |found: &Break| {
                matches!(found.kind, BreakKind::Anchor { .. })
                    && found.position == Some(anchor.position())
            };
            alone.is_intact() && matches!(found, [only] if is_anchor(only))
        }
    }
}

const TABLES: [&str; 3] = ["cqrs_event", "cqrs_chain_head", "vault"];

async fn keep<K: Kind>(fresh: &Fresh<K>) {
    for table in TABLES {
        fresh
            .run(format!(
                "CREATE TABLE kept_{table} AS SELECT * FROM {table}"
            ))
            .await;
    }
}

async fn restore<K: Kind>(fresh: &Fresh<K>) {
    for table in TABLES {
        let sql = format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept_{table}");
        fresh.run(sql).await;
    }
}

fn change<K: Kind>(random: &mut Random, streams: &Streams) -> (String, Expected) {
    let stream = random.below(streams.len() as u64) as usize;
    let ((kind, id), events) = streams.iter().nth(stream).unwrap();
    let index = random.below(events.len() as u64) as usize;
    let position = events[index].position().0;
    let next = events.get(index + 1).map(|event| event.position().0);
    let at = |sql: &str| format!("UPDATE cqrs_event SET {sql} WHERE position = {position}");
    match random.below(9) {
        0 => delete(events, index),
        1 => swap_versions(random, events),
        2 => swap_positions(random, events),
        3 => insert(kind, id, events, random),
        4 => head::<K>(random, kind, id, events),
        7 => {
            let sql = at("aggregate_version = aggregate_version + 1000");
            (sql, Expected::At(next.unwrap_or(position)))
        }
        5 => match next {
            Some(next) => (at("position = position + 100000"), Expected::At(next)),
            None => (at("position = position + 100000"), Expected::Anchor),
        },
        6 => (
            at(K::either(
                "recorded_at = recorded_at + interval '1 second'",
                "recorded_at = '2001-02-03T04:05:06.000007Z'",
            )),
            Expected::Anchor,
        ),
        _ => {
            let (sql, is_found_there) = column::<K>(random);
            // The last of a stream is missed where the stream ends now.
            let before = index.checked_sub(1).filter(|_| next.is_none());
            let found = match before {
                Some(before) if !is_found_there => events[before].position().0,
                _ => position,
            };
            (at(&sql), Expected::At(found))
        }
    }
}

/// Another value for any column that is not tried on its own, and whether the event is in its stream
/// still, and can be read.
fn column<K: Kind>(random: &mut Random) -> (String, bool) {
    let uuid = K::uuid(uuid::Uuid::now_v7());
    let flip = |from: u8| {
        K::either(
            format!(
                "content_hash = set_byte(content_hash, {from}, get_byte(content_hash, {from}) # 1)"
            ),
            format!(
                "content_hash = CAST(substr(content_hash, 1, {from}) || \
             CASE substr(content_hash, {0}, 1) WHEN x'00' THEN x'01' ELSE x'00' END || \
             substr(content_hash, {0} + 1) AS BLOB)",
                from + 1
            ),
        )
    };
    let kept = [
        format!("event_id = {uuid}"),
        "tenant_id = 'south'".to_owned(),
        "event_type = 'another'".to_owned(),
        "schema_version = schema_version + 1".to_owned(),
        "schema_id = 'another'".to_owned(),
        "payload = '{\"coins\":12345}'".to_owned(),
        flip(3),
        flip(40),
        format!("correlation_id = {uuid}"),
        format!("causation_id = {uuid}"),
        "actor = 'eve'".to_owned(),
        "actor = NULL".to_owned(),
        "traceparent = 'another'".to_owned(),
        "traceparent = 'another', tracestate = 'another'".to_owned(),
        K::either(
            "occurred_at = occurred_at + interval '1 microsecond'",
            "occurred_at = '2001-02-03T04:05:06.000007Z'",
        )
        .to_owned(),
        "sourced = NOT sourced".to_owned(),
    ];
    let lost = [
        "aggregate_type = 'another'",
        "aggregate_id = 'another'",
        K::either("content_hash = '\\x00'", "content_hash = x'00'"),
        K::either("schema_version = -1", "payload = x'00'"),
        "tracestate = 'another'",
    ];
    let chosen = random.below((kept.len() + lost.len()) as u64) as usize;
    match kept.get(chosen) {
        Some(sql) => (sql.clone(), true),
        None => (lost[chosen - kept.len()].to_owned(), false),
    }
}

fn delete(events: &[Envelope<RawPayload>], index: usize) -> (String, Expected) {
    let position = |index: usize| events.get(index).map(|event| event.position().0);
    let sql = format!(
        "DELETE FROM cqrs_event WHERE position = {}",
        events[index].position()
    );
    // The first behind it does not fit, or the stream ends too early.
    let found = position(index + 1).or_else(|| position(index.checked_sub(1)?));
    (sql, found.map_or(Expected::Stream, Expected::At))
}

/// Two events of a stream, the first before the second; else the only one is removed.
fn pair(random: &mut Random, events: &[Envelope<RawPayload>]) -> Option<(usize, usize)> {
    let second = 1 + random.below(
        (events.len() as u64)
            .checked_sub(1)
            .filter(|rest| *rest > 0)?,
    ) as usize;
    Some((random.below(second as u64) as usize, second))
}

fn swap_versions(random: &mut Random, events: &[Envelope<RawPayload>]) -> (String, Expected) {
    let Some((one, two)) = pair(random, events) else {
        return delete(events, 0);
    };
    let (one, two) = (&events[one], &events[two]);
    let set = |version: i64, at: Position| {
        format!("UPDATE cqrs_event SET aggregate_version = {version} WHERE position = {at};")
    };
    let (first, second) = (
        one.aggregate_version() as i64,
        two.aggregate_version() as i64,
    );
    let sql = [
        set(-1, one.position()),
        set(first, two.position()),
        set(second, one.position()),
    ];
    (sql.concat(), Expected::At(two.position().0))
}

fn swap_positions(random: &mut Random, events: &[Envelope<RawPayload>]) -> (String, Expected) {
    let Some((one, two)) = pair(random, events) else {
        return delete(events, 0);
    };
    let set = |from: i64, to: i64| {
        format!("UPDATE cqrs_event SET position = {to} WHERE position = {from};")
    };
    let (first, second) = (events[one].position().0, events[two].position().0);
    // The one behind the first stands before it.
    let found = match two == one + 1 {
        true => first,
        false => events[one + 1].position().0,
    };
    let sql = [set(first, -1), set(second, first), set(-1, second)];
    (sql.concat(), Expected::At(found))
}

/// A copy of an event behind the last of its stream, or in a stream of its own.
fn insert(
    kind: &str,
    id: &str,
    events: &[Envelope<RawPayload>],
    random: &mut Random,
) -> (String, Expected) {
    let (id, version) = match random.below(2) {
        0 => (id.to_owned(), events.len() + 1),
        _ => ("99".to_owned(), 1),
    };
    let copied = "event_id, tenant_id, event_type, schema_version, payload, content_hash, \
                  correlation_id, occurred_at, sourced";
    let last = events.last().unwrap().position();
    let sql = format!(
        "INSERT INTO cqrs_event (position, aggregate_type, aggregate_id, aggregate_version, {copied}) \
         SELECT 5000, '{kind}', '{id}', {version}, {copied} FROM cqrs_event WHERE position = {last}"
    );
    (sql, Expected::At(5_000))
}

/// Another end of the stream.
fn head<K: Kind>(
    random: &mut Random,
    kind: &str,
    id: &str,
    events: &[Envelope<RawPayload>],
) -> (String, Expected) {
    let (table, of, head) = match kind {
        "vault" => ("vault", format!("id = {id}"), "chain_head"),
        _ => (
            "cqrs_chain_head",
            format!("aggregate_id = '{id}'"),
            "content_hash",
        ),
    };
    let sql = match random.below(3) {
        0 => format!("DELETE FROM {table} WHERE {of}"),
        1 => format!("UPDATE {table} SET version = version - 1 WHERE {of}"),
        _ => format!(
            "UPDATE {table} SET {head} = {} WHERE {of}",
            K::either("'\\x00'", "x'00'")
        ),
    };
    (sql, Expected::At(events.last().unwrap().position().0))
}
