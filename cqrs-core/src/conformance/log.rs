//! What the log says.

use std::collections::HashSet;

use uuid::Uuid;

use super::Harness;
use super::fixtures::{Counter, Locker, Parcel, ParcelEvent};
use super::support::{begin, err, north, ok, system, tenant, time};
use crate::context::TraceContext;
use crate::envelope::Envelope;
use crate::event::EventSet;
use crate::integrity::ContentHash;
use crate::unit_of_work::UnitOfWork;

/// The version of an aggregate is the number of its events; each event carries the version that it
/// led to, from 1 without gaps.
pub async fn versions_are_dense<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut parcel = bench.parcel(&north(), "dense").await;
    assert_eq!(parcel.root.version(), 1);
    assert!(parcel.root.raised().is_empty());

    parcel.relabel("a");
    parcel.move_to(1.0, 2.0);
    parcel.weigh(3);
    assert_eq!(parcel.root.version(), 1);
    let id = parcel.id;
    bench.save(&north(), parcel).await;
    let mut parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!(parcel.root.version(), 4);

    for _ in 0..20 {
        parcel.move_to(1.0, 2.0);
    }
    bench.save(&north(), parcel).await;
    let parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!(parcel.root.version(), 24);
    bench.remove(&north(), parcel).await;

    let stream = bench.stream::<Parcel>(&id).await;
    let versions: Vec<u64> = stream.iter().map(|(version, _)| *version).collect();
    assert_eq!(versions, (1..=25).collect::<Vec<_>>());
    let types: Vec<&str> = stream.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(
        types[..5],
        [
            "parcel.registered",
            "parcel.relabelled",
            "parcel.moved",
            "parcel.weighed_again",
            "parcel.moved",
        ]
    );
    assert_eq!(types[24], "cqrs.removed");
}

/// An event in the log carries its type and schema version, its aggregate, tenant, actor,
/// correlation, causation and trace, and when it happened by the clock of the store.
pub async fn events_say_all_about_themselves<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let correlation = Uuid::from_u128(1);
    let causation = Uuid::from_u128(2);
    let trace = TraceContext {
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        tracestate: Some("vendor=value".to_owned()),
    };
    let context = north()
        .with_actor("ann 😀")
        .with_correlation_id(correlation)
        .with_causation_id(causation)
        .with_trace(trace.clone());
    bench.clock.set(time(10));
    let mut parcel = Parcel::register("full");
    parcel.weigh(42);
    let id = parcel.id;
    let receipt = bench.saved(&context, parcel).await;

    let log = bench.log().await;
    assert_eq!(log.len(), 2);
    for (index, event) in log.iter().enumerate() {
        assert_eq!(event.aggregate_type(), "parcel");
        assert_eq!(event.aggregate_id_str(), id.to_string());
        assert_eq!(ok(event.aggregate_id::<crate::Id<Parcel>>()), id);
        assert_eq!(event.tenant(), Some(&tenant("north")));
        assert_eq!(event.metadata().actor.as_deref(), Some("ann 😀"));
        assert_eq!(event.metadata().correlation_id, correlation);
        assert_eq!(event.metadata().causation_id, Some(causation));
        assert_eq!(event.metadata().trace.as_ref(), Some(&trace));
        assert_eq!(event.occurred_at(), time(10));
        assert_eq!(event.schema_id(), None);
        assert_eq!(event.event_id(), receipt.events()[index]);
        assert_eq!(event.event_id().get_version_num(), 7);
        assert!(!event.is_change_marker());
    }
    assert_eq!(log[0].event_type(), "parcel.registered");
    assert_eq!(
        (log[0].schema_version(), log[0].aggregate_version()),
        (1, 1)
    );
    assert_eq!(log[1].event_type(), "parcel.weighed_again");
    assert_eq!(
        (log[1].schema_version(), log[1].aggregate_version()),
        (2, 2)
    );

    bench.clock.set(time(11));
    bench
        .parcel(&crate::RequestContext::tenant(tenant("north")), "bare")
        .await;
    let log = bench.log().await;
    let bare = &log[2];
    assert_eq!(bare.metadata().actor, None);
    assert_eq!(bare.metadata().causation_id, None);
    assert_eq!(bare.metadata().trace, None);
    assert_eq!(bare.occurred_at(), time(11));
}

/// The payload in the log is the canonical JSON of the variant's content, its hash is that of the
/// text, and it decodes to the event that was raised.
pub async fn payloads_are_canonical_json<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let details = serde_json::json!({
        "z": [1, -2.5, 1e21, 12345678901234567890_u64],
        "a": {"é": "😀 \"q\" \n", "B": null},
    });
    let events = [
        (
            ParcelEvent::Registered {
                label: "ä".to_owned(),
                weight: 7,
            },
            r#"{"label":"ä","weight":7}"#,
        ),
        (ParcelEvent::Relabelled("x\ty".to_owned()), r#""x\ty""#),
        (ParcelEvent::Moved(1.0, -0.5), "[1.0,-0.5]"),
        (
            ParcelEvent::Weighed { grams: u32::MAX },
            r#"{"grams":4294967295}"#,
        ),
        (
            ParcelEvent::Annotated {
                note: None,
                details,
            },
            r#"{"details":{"a":{"B":null,"é":"😀 \"q\" \n"},"z":[1,-2.5,1e+21,12345678901234567890]},"note":null}"#,
        ),
        (ParcelEvent::Opened, "{}"),
    ];
    let mut parcel = Parcel::silent("payloads");
    for (event, _) in &events {
        parcel.root.raise(event.clone());
    }
    bench.save(&north(), parcel).await;

    let log = bench.log().await;
    assert_eq!(log.len(), events.len());
    for (stored, (event, json)) in log.iter().zip(&events) {
        assert_eq!(stored.payload().as_str(), *json);
        assert_eq!(stored.content_hash(), ContentHash::of(json));
        assert_eq!(ok(ParcelEvent::decode(stored)).as_ref(), Some(event));
    }
}

/// The events of one commit stand in the log in the order in which their aggregates were staged,
/// each with an id and a position of its own.
pub async fn events_of_one_commit_are_in_the_order_of_staging<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&north());
    let mut expected = Vec::new();
    for index in 0..5_i64 {
        let mut counter = Counter::new(100 - index);
        counter.add(index);
        counter.add(-index);
        let parcel = Parcel::register("one of many");
        let mut locker = Locker::new(&format!("locker {index}"));
        locker.assign("ann");
        let ids = [
            counter.id.to_string(),
            counter.id.to_string(),
            parcel.id.to_string(),
            locker.id.clone(),
        ];
        ok(uow.save(counter));
        ok(uow.save(parcel));
        ok(uow.save(locker));
        expected.extend(ids);
    }
    let receipt = ok(uow.commit().await);

    let log = bench.log().await;
    let ids: Vec<&str> = log.iter().map(Envelope::aggregate_id_str).collect();
    assert_eq!(ids, expected);
    let events: Vec<Uuid> = log.iter().map(Envelope::event_id).collect();
    assert_eq!(receipt.events(), events);
    assert_eq!(events.iter().collect::<HashSet<_>>().len(), 20);
    assert!(
        log.windows(2)
            .all(|two| two[0].position() < two[1].position())
    );
    assert_eq!(receipt.position(), log.last().map(Envelope::position));
}

/// A change that raised no event is one version with one marker in the log.
pub async fn a_change_without_an_event_leaves_a_marker<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut parcel = bench.parcel(&north(), "quiet").await;
    parcel.note = Some("changed".to_owned());
    let id = parcel.id;
    let receipt = bench.saved(&north(), parcel).await;
    assert_eq!(receipt.events().len(), 1);
    assert!(receipt.position().is_some());

    let parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!(parcel.root.version(), 2);
    assert_eq!(parcel.note.as_deref(), Some("changed"));
    let log = bench.log().await;
    let marker = &log[1];
    assert_eq!(log.len(), 2);
    assert_eq!(marker.event_type(), "cqrs.changed");
    assert!(marker.is_change_marker());
    assert_eq!(
        (marker.schema_version(), marker.aggregate_version()),
        (1, 2)
    );
    assert_eq!(marker.payload().as_str(), "{}");
    assert_eq!(marker.content_hash(), ContentHash::of("{}"));
    assert_eq!(marker.tenant(), Some(&tenant("north")));
    assert_eq!(marker.event_id(), receipt.events()[0]);
    assert_eq!(ok(ParcelEvent::decode(marker)), None);
}

/// A creation that raised no event is version 1 with one marker in the log.
pub async fn a_creation_without_an_event_leaves_a_marker<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = Parcel::silent("quiet");
    let id = parcel.id;
    bench.save(&north(), parcel).await;
    assert_eq!(bench.load::<Parcel>(&north(), id).await.root.version(), 1);
    let stream = bench.stream::<Parcel>(&id).await;
    assert_eq!(stream, [(1, "cqrs.created".to_owned())]);
}

/// A removal writes the events raised before it, and its marker; the events of the aggregate stay.
pub async fn a_removal_leaves_its_events_and_a_marker<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let quiet = bench.counter(1).await;
    bench.remove(&system(), quiet).await;
    let mut loud = bench.counter(2).await;
    loud.add(5);
    loud.clear("up");
    bench.remove(&system(), loud).await;

    let names = |stream: Vec<(u64, String)>| {
        let mut versions = 1..;
        stream
            .into_iter()
            .map(|(version, name)| {
                assert_eq!(Some(version), versions.next());
                name
            })
            .collect::<Vec<_>>()
    };
    let quiet = names(bench.stream::<Counter>(&1).await);
    assert_eq!(quiet, ["counter.added", "cqrs.removed"]);
    let loud = names(bench.stream::<Counter>(&2).await);
    assert_eq!(
        loud,
        [
            "counter.added",
            "counter.added",
            "counter.cleared",
            "cqrs.removed"
        ]
    );
}

/// Saving what did not change and raised nothing writes nothing: no event, no version, an empty
/// receipt. JSON is the same in whatever order its keys are written.
pub async fn an_unchanged_save_writes_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut rich = Parcel::register("unchanged");
    rich.note = Some(String::new());
    rich.seen = Some(time(3));
    rich.sender = Some(rich.depot);
    rich.marks = (0..20).map(|mark| (mark.to_string(), mark)).collect();
    rich.details = serde_json::json!({"b": [1.5, {"y": 1, "x": 2}], "a": null});
    let id = rich.id;
    bench.save(&north(), rich).await;
    bench.clock.set(time(60));
    for _ in 0..2 {
        let parcel: Parcel = bench.load(&north(), id).await;
        let receipt = bench.saved(&north_by_another(), parcel).await;
        assert!(receipt.events().is_empty());
        assert_eq!(receipt.position(), None);
    }
    let counter = bench.counter(1).await;
    bench.save(&system(), counter).await;

    let parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!(parcel.root.version(), 1);
    assert_eq!(bench.log().await.len(), 2);
}

/// The same tenant, another actor.
fn north_by_another() -> crate::RequestContext {
    north().with_actor("someone else")
}

/// Saving what did not change but raised an event writes the event.
pub async fn an_unchanged_save_with_an_event_is_written<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut counter = bench.counter(1).await;
    counter.add(0);
    let stale = counter.clone();
    let receipt = bench.saved(&system(), counter).await;
    assert_eq!(receipt.events().len(), 1);
    assert_eq!(bench.load::<Counter>(&system(), 1).await.root.version(), 2);
    assert!(err(bench.try_save(&system(), stale).await).is_conflict());
}

/// The events of an aggregate without tenant have none, under whatever scope it is saved.
pub async fn an_event_without_a_tenant_has_none<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.save(&north(), Counter::new(1)).await;
    bench.save(&system(), Counter::new(2)).await;
    let log = bench.log().await;
    assert_eq!(log.len(), 2);
    assert!(log.iter().all(|event| event.tenant().is_none()));
}
