//! Looking for an event that fails, beside events that are held back.

use cqrs_core::{
    Envelope, Error, FailurePolicy, Parking, PayloadError, Position, RawPayload, Subscription,
};
use cqrs_integration::each::{Fresh, Kind, on_each};
use cqrs_sqlx::SqlStore;

use super::support::{Recorder, applied, commit, operations, with_tables};

on_each!(
    what_is_held_back_counts_where_an_event_cannot_be_decoded,
    what_is_held_back_counts_where_a_row_cannot_be_read,
);

/// How many events stand behind the one that is parked.
const HELD: i64 = 60;
/// Then come one that is applied, one that is not, and one that is.
const GOOD: i64 = HELD + 2;
const BAD: i64 = GOOD + 1;
const LAST: i64 = BAD + 1;

/// A log of these events; each move of the checkpoint is written down.
async fn store<K: Kind>() -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let store = with_tables(store).await;
    assert_eq!(commit(&store, HELD).await.0, HELD + 1);
    for position in [GOOD, BAD, LAST] {
        assert_eq!(commit(&store, 0).await.0, position);
    }
    let insert = "INSERT INTO moved SELECT NEW.position WHERE NEW.position <> OLD.position;";
    let trigger = "CREATE TABLE moved (position BIGINT); \
                   CREATE TRIGGER moves AFTER UPDATE ON cqrs_segment FOR EACH ROW";
    let trigger = K::either(
        format!(
            "CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql \
             AS $$ BEGIN {insert} RETURN NULL; END $$; {trigger} EXECUTE FUNCTION move()"
        ),
        format!("{trigger} BEGIN {insert} END"),
    );
    fresh.run(trigger).await;
    (fresh, store)
}

fn undecodable(event: &Envelope<RawPayload>) -> Error {
    Error::Undecodable {
        position: event.position(),
        reason: PayloadError::UnknownEventType {
            aggregate_type: "parcel",
            event_type: "parcel.lost".to_owned(),
        },
    }
}

/// The first event fails, and so do these.
fn recorder(bad: &'static [i64]) -> Recorder {
    Recorder::new("recorder").with_fault(move |page| {
        let fails = |event: &&Envelope<RawPayload>| {
            let position = event.position().0;
            position == 1 || bad.contains(&position)
        };
        match page.iter().find(fails) {
            Some(event) => Err(undecodable(event)),
            None => Ok(()),
        }
    })
}

/// Each event is looked for once, in as few pages as there can be.
async fn is_drained<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>, recorder: &Recorder) {
    let parking = FailurePolicy::Park(Parking::default());
    let parks = Subscription::new(recorder.clone()).on_failure(parking);
    let projector = store.projector().subscribe(parks).retry_delays([]);
    projector.run_until_idle().await.unwrap();
    assert_eq!(applied(store).await, [GOOD, LAST]);
    let operations = operations(store);
    let letters = operations.dead_letters("recorder", Position::START, 1000);
    assert_eq!(letters.await.unwrap().len() as i64, HELD + 2);
    // Behind the first, behind what is good, behind what is bad, and at the end.
    let moves = fresh.dump("moved").await;
    assert_eq!(moves.len(), 4, "{moves:?}");
}

async fn what_is_held_back_counts_where_an_event_cannot_be_decoded<K: Kind>() {
    let (fresh, store) = store::<K>().await;
    let recorder = recorder(&[BAD]);
    is_drained(&fresh, &store, &recorder).await;
    assert_eq!(
        recorder.pages(),
        [
            (1..=LAST).collect(),
            vec![1],
            vec![GOOD, BAD, LAST],
            vec![GOOD],
            vec![BAD],
            vec![LAST],
        ]
    );
}

async fn what_is_held_back_counts_where_a_row_cannot_be_read<K: Kind>() {
    let (fresh, store) = store::<K>().await;
    let spoilt = K::either("'\\x00'::bytea", "x'00'");
    let spoil = format!("UPDATE cqrs_event SET content_hash = {spoilt} WHERE position = {BAD}");
    fresh.run(spoil).await;
    let recorder = recorder(&[]);
    is_drained(&fresh, &store, &recorder).await;
    assert_eq!(
        recorder.pages(),
        [(1..=GOOD).collect(), vec![1], vec![GOOD], vec![LAST]]
    );
}
