//! Events that cannot be read: their subscription halts, and goes on after the repair.

use std::time::Duration;

use cqrs_core::{
    Envelope, Error, Position, Projection, ProjectionTransaction, RawPayload, Result, Store,
};
use cqrs_integration::domain::{Parcel, ParcelViews};
use cqrs_sqlx::{SqlStore, SubscriptionFailure, SubscriptionState};

use super::commit;
use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(
    an_unknown_event_type_halts_one_subscription,
    a_broken_payload_halts_one_subscription,
    an_envelope_that_cannot_be_read_halts,
);

/// Reads every event, whatever it is.
struct Everything;

impl<T: ProjectionTransaction> Projection<T> for Everything {
    type Event = RawPayload;

    fn name(&self) -> &str {
        "everything"
    }

    async fn apply(&self, _: &[Envelope<RawPayload>], _: &mut T) -> Result<()> {
        Ok(())
    }
}

/// An event at the end of the log, as something else than the framework wrote it.
fn foreign_event<K: Kind>(event_type: &str, version: i64, payload: &str, hash: usize) -> String {
    let (event, aggregate) = (uuid_of(1), uuid_of(2));
    let (aggregate, id) = (aggregate.to_string(), K::uuid(event));
    let hash = K::either(
        format!("'\\x{}'", "00".repeat(hash)),
        format!("x'{}'", "00".repeat(hash)),
    );
    let payload = payload.replace('\'', "''");
    format!(
        "INSERT INTO cqrs_event (event_id, tenant_id, aggregate_type, aggregate_id,
             aggregate_version, event_type, schema_version, payload, content_hash,
             correlation_id, occurred_at)
         VALUES ({id}, 'north', 'parcel', '{aggregate}', {version}, '{event_type}', 1,
                 '{payload}', {hash}, {id}, '2024-02-03T04:05:06.789000Z')"
    )
}

fn uuid_of(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

/// The failure that halted a subscription, by the store and by who waits for it.
async fn halted<K: Kind>(
    store: &SqlStore<K>,
    receipt: &cqrs_core::CommitReceipt,
    name: &str,
) -> SubscriptionFailure {
    let error = store.wait_for(receipt, name).await.unwrap_err();
    let Error::Other(error) = error else {
        panic!("not a subscription's failure: {error:?}");
    };
    let failure: SubscriptionFailure = *error.downcast().expect("a subscription's failure");
    let statuses = store.subscriptions().await.unwrap();
    let status = statuses.iter().find(|status| status.name == name);
    assert_eq!(
        status.map(|status| &status.state),
        Some(&SubscriptionState::Halted(failure.clone()))
    );
    failure
}

/// What of an event is bad.
#[derive(PartialEq)]
enum Bad {
    /// What one subscription reads.
    Content,
    /// What all need.
    Envelope,
}

/// One event before, the bad one at position 2, one after: the subscription halts at 2 with this
/// error, another goes on, and after the repair each is applied once.
async fn halts_until_repaired<K: Kind>(bad: String, says: &str, repair: &str, what: Bad) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, Parcel::register("first"))
        .await
        .map(drop)
        .unwrap();
    fresh.run(bad).await;
    let last = commit(&store, Parcel::register("last")).await.unwrap();
    assert_eq!(last.position(), Some(Position(3)));
    let delays = [Duration::from_millis(1)];
    let projector = store
        .projector()
        .retry_delays(delays)
        .rows(ParcelViews)
        .projection(Everything);
    let handle = projector.start().await.unwrap();

    let failure = halted(&store, &last, "parcel_view").await;
    assert_eq!(failure.position, Some(Position(2)));
    assert_eq!(failure.attempts, 2);
    assert!(failure.error.contains(says), "{}", failure.error);
    if what == Bad::Content {
        store.wait_for(&last, "everything").await.unwrap();
    } else {
        halted(&store, &last, "everything").await;
    }
    let views = "SELECT count(*) FROM parcel_view";
    assert_eq!(fresh.number(views).await, 1, "what comes before is applied");

    // Resumed too early, it halts again.
    store
        .operations(&cqrs_core::RequestContext::system())
        .unwrap()
        .resume("parcel_view")
        .await
        .unwrap();
    assert_eq!(
        halted(&store, &last, "parcel_view").await.position,
        failure.position
    );

    fresh.run(repair).await;
    store
        .operations(&cqrs_core::RequestContext::system())
        .unwrap()
        .resume("parcel_view")
        .await
        .unwrap();
    store.wait_for(&last, "parcel_view").await.unwrap();
    if what == Bad::Envelope {
        store
            .operations(&cqrs_core::RequestContext::system())
            .unwrap()
            .resume("everything")
            .await
            .unwrap();
        store.wait_for(&last, "everything").await.unwrap();
    }
    assert_eq!(fresh.number(views).await, 3);
    let once = "SELECT count(*) FROM parcel_view WHERE events = 1 AND version = 1";
    assert_eq!(fresh.number(once).await, 3);
    for status in store.subscriptions().await.unwrap() {
        assert_eq!(status.state, SubscriptionState::Active);
        assert_eq!((status.position.0, status.lag), (3, 0));
    }
    handle.stop(Duration::from_secs(60)).await;
}

const REPAIR: &str = "UPDATE cqrs_event SET event_type = 'parcel.delivered', payload = '{}',
                             schema_version = 1, aggregate_version = 1 WHERE position = 2";

async fn an_unknown_event_type_halts_one_subscription<K: Kind>() {
    let bad = foreign_event::<K>("parcel.lost", 1, "{}", 32);
    let says = "event at position 2: unknown event type \"parcel.lost\" of aggregate \"parcel\"";
    halts_until_repaired::<K>(bad, says, REPAIR, Bad::Content).await;
}

async fn a_broken_payload_halts_one_subscription<K: Kind>() {
    let says = "event at position 2: payload of event type \"parcel.weighed\": ";
    for payload in ["{\"grams\": \"much\"}", "[]", "null"] {
        let bad = foreign_event::<K>("parcel.weighed", 1, payload, 32);
        halts_until_repaired::<K>(bad, says, REPAIR, Bad::Content).await;
    }
    if K::either(false, true) {
        // Postgres stores no such thing.
        let bad = foreign_event::<K>("parcel.weighed", 1, "{\"grams\": ", 32);
        halts_until_repaired::<K>(bad, says, REPAIR, Bad::Content).await;
    }
    let older = foreign_event::<K>("parcel.weighed", 1, "{\"grams\": 1}", 32)
        .replace("'parcel.weighed', 1,", "'parcel.weighed', 7,");
    let says = "event type \"parcel.weighed\" has schema version 7, the code has 1";
    halts_until_repaired::<K>(older, says, REPAIR, Bad::Content).await;
}

async fn an_envelope_that_cannot_be_read_halts<K: Kind>() {
    let bad = foreign_event::<K>("parcel.delivered", -1, "{}", 32);
    halts_until_repaired::<K>(bad, "table cqrs_event: ", REPAIR, Bad::Envelope).await;
    let bad = foreign_event::<K>("parcel.delivered", 1, "{}", 31);
    let repair = K::either(
        "UPDATE cqrs_event SET content_hash = content_hash || '\\x00'::bytea WHERE position = 2",
        "UPDATE cqrs_event SET content_hash = zeroblob(32) WHERE position = 2",
    );
    halts_until_repaired::<K>(
        bad,
        "table cqrs_event: 31 bytes are no hash of an event",
        repair,
        Bad::Envelope,
    )
    .await;
}
