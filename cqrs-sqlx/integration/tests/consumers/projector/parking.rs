//! Parking, skipping and replaying: what is applied and what is parked is a fold of the log.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_core::{
    Envelope, Error, EventHandler, FailurePolicy, Parking, Position, ProjectionTransaction,
    RawPayload, RequestContext, Result, Store, StoreErrorKind, Subscription, UnitOfWork,
};
use cqrs_integration::domain::{self, Parcel, ParcelId};
use cqrs_integration::stores;
use cqrs_sqlx::{
    Backend, DeadLetter, DeadLetterStatus, ProjectorBuilder, SqlStore, SqlTransaction,
    SubscriptionState,
};

use super::support::{Recorder, applied, failure, on_each_database, operations, state};
use cqrs_integration::each::Kind;

on_each_database!(
    the_others_of_a_page_are_applied_once,
    later_events_of_a_parked_aggregate_stand_behind_it,
    a_replay_that_fails_keeps_the_order,
    a_timed_replay_needs_nobody,
    what_is_skipped_leaves_a_record,
    a_full_set_halts_and_says_so,
    the_next_is_replayed_where_the_first_is_discarded,
    an_aggregate_that_is_discarded_goes_on,
    an_undecodable_event_is_parked,
    an_event_that_is_gone_cannot_be_replayed,
    a_hanging_handler_is_a_failure,
    operations_are_recorded,
    operations_take_the_system,
);

/// Positions that fail.
#[derive(Clone, Default)]
pub(super) struct Poison(Arc<Mutex<BTreeSet<i64>>>);

impl Poison {
    pub(super) fn set(&self, positions: impl IntoIterator<Item = i64>) {
        *self.0.lock().unwrap() = positions.into_iter().collect();
    }

    pub(super) fn recorder(&self) -> Recorder {
        let poison = self.clone();
        Recorder::new("recorder").with_fault(move |page| {
            let poison = poison.0.lock().unwrap();
            let is_poison = |event: &&Envelope<RawPayload>| poison.contains(&event.position().0);
            match page.iter().find(is_poison) {
                Some(event) => Err(Error::other(format!("poison at {}", event.position()))),
                None => Ok(()),
            }
        })
    }
}

const NO_DELAYS: [Duration; 0] = [];

pub(super) fn projector<B: Backend>(
    store: &SqlStore<B>,
    recorder: &Recorder,
    policy: FailurePolicy,
) -> ProjectorBuilder<B> {
    let subscription = Subscription::new(recorder.clone()).on_failure(policy);
    let projector = store.projector().subscribe(subscription);
    projector.retry_delays(NO_DELAYS)
}

pub(super) fn parking(at_most: u32) -> FailurePolicy {
    FailurePolicy::Park(Parking::at_most(at_most))
}

pub(super) async fn letters<B: Backend>(store: &SqlStore<B>) -> Vec<DeadLetter> {
    let operations = operations(store);
    let all = operations.dead_letters("recorder", Position::START, 1000);
    all.await.unwrap()
}

pub(super) async fn parked<B: Backend>(store: &SqlStore<B>) -> Vec<i64> {
    let letters = letters(store).await;
    letters.iter().map(|letter| letter.position.0).collect()
}

/// Commits a new parcel: one event.
pub(super) async fn create<B: Backend>(store: &SqlStore<B>) -> ParcelId {
    let parcel = Parcel::register("parcel");
    let id = domain::id(&parcel);
    let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
    unit_of_work.save(parcel).unwrap();
    let _ = unit_of_work.commit().await.unwrap();
    id
}

/// Commits one more event of a parcel.
async fn change<B: Backend>(store: &SqlStore<B>, id: ParcelId) {
    let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
    let mut parcel: Parcel = unit_of_work.get(id).await.unwrap();
    parcel.weigh(1);
    unit_of_work.save(parcel).unwrap();
    let _ = unit_of_work.commit().await.unwrap();
}

/// Three parcels, whose events take turns: 1, 4, 7 and so on are those of the first.
pub(super) async fn three<B: Backend>(store: &SqlStore<B>, rounds: u32) -> [ParcelId; 3] {
    let ids = [
        create(store).await,
        create(store).await,
        create(store).await,
    ];
    for _ in 1..rounds {
        for id in ids {
            change(store, id).await;
        }
    }
    ids
}

async fn the_others_of_a_page_are_applied_once<B: Backend>(store: SqlStore<B>) {
    for _ in 0..40 {
        create(&store).await;
    }
    let poison = Poison::default();
    poison.set([7, 8, 31, 40]);
    let recorder = poison.recorder();
    let projector = projector(&store, &recorder, parking(10));
    assert_eq!(projector.run_until_idle().await.unwrap(), 36);
    let others: Vec<i64> = (1..=40).filter(|n| ![7, 8, 31, 40].contains(n)).collect();
    assert_eq!(applied(&store).await, others);
    assert_eq!(parked(&store).await, [7, 8, 31, 40]);
    let tries = recorder.pages().len();
    assert!(tries < 40, "by halves, not one by one: {tries}");
    assert_eq!(state(&store).await, SubscriptionState::Active);

    poison.set([]);
    assert_eq!(operations(&store).replay_all("recorder").await.unwrap(), 4);
    assert_eq!(projector.run_until_idle().await.unwrap(), 4);
    assert_eq!(applied(&store).await, (1..=40).collect::<Vec<_>>());
    assert_eq!(parked(&store).await, Vec::<i64>::new());
    assert_eq!(projector.run_until_idle().await.unwrap(), 0);
}

async fn later_events_of_a_parked_aggregate_stand_behind_it<B: Backend>(store: SqlStore<B>) {
    let [first, ..] = three(&store, 4).await;
    let poison = Poison::default();
    poison.set([4]);
    let recorder = poison.recorder();
    let projector = projector(&store, &recorder, parking(10));
    assert_eq!(projector.run_until_idle().await.unwrap(), 9);
    assert_eq!(parked(&store).await, [4, 7, 10]);
    let letters = letters(&store).await;
    assert_eq!(letters[0].attempts, 1);
    assert_eq!(letters[0].error.as_deref(), Some("poison at 4"));
    assert_eq!(letters[0].history.len(), 1);
    assert_eq!(letters[0].aggregate_id, first.to_string());
    assert_eq!(letters[0].aggregate_version, 2);
    assert_eq!((letters[1].attempts, &letters[1].error), (0, &None));
    let status = &store.subscriptions().await.unwrap()[0];
    assert_eq!((status.parked, status.position.0, status.lag), (3, 12, 0));
    assert_eq!(status.oldest_parked, Some(letters[0].parked_at));

    // It comes in a later page, and still stands behind the others.
    change(&store, first).await;
    projector.run_until_idle().await.unwrap();
    assert_eq!(parked(&store).await, [4, 7, 10, 13]);
    poison.set([]);
    let id = first.to_string();
    let replayed = operations(&store).replay("recorder", "parcel", &id).await;
    assert!(replayed.unwrap());
    change(&store, first).await;
    assert_eq!(projector.run_until_idle().await.unwrap(), 5);
    let of_the_first: Vec<i64> = recorder
        .pages()
        .concat()
        .into_iter()
        .filter(|position| [4, 7, 10, 13, 14].contains(position))
        .collect();
    assert_eq!(of_the_first[of_the_first.len() - 5..], [4, 7, 10, 13, 14]);
    assert_eq!(applied(&store).await, (1..=14).collect::<Vec<_>>());
}

async fn a_replay_that_fails_keeps_the_order<B: Backend>(store: SqlStore<B>) {
    let [first, ..] = three(&store, 4).await;
    let poison = Poison::default();
    poison.set([1]);
    let projector = projector(&store, &poison.recorder(), parking(10));
    projector.run_until_idle().await.unwrap();
    assert_eq!(parked(&store).await, [1, 4, 7, 10]);
    // Two of four can be applied.
    poison.set([7]);
    operations(&store).replay_all("recorder").await.unwrap();
    assert_eq!(projector.run_until_idle().await.unwrap(), 2);
    assert_eq!(parked(&store).await, [7, 10]);
    let letters = letters(&store).await;
    assert_eq!((letters[0].attempts, letters[1].attempts), (1, 0));
    assert!(!applied(&store).await.contains(&10));
    for attempts in 2..5 {
        operations(&store).replay_all("recorder").await.unwrap();
        assert_eq!(projector.run_until_idle().await.unwrap(), 0);
        let first = &self::letters(&store).await[0];
        assert_eq!(
            (first.attempts, first.history.len()),
            (attempts, attempts as usize)
        );
        assert_eq!(first.replay_at, None);
    }
    change(&store, first).await;
    projector.run_until_idle().await.unwrap();
    poison.set([]);
    operations(&store).replay_all("recorder").await.unwrap();
    assert_eq!(projector.run_until_idle().await.unwrap(), 3);
    assert_eq!(applied(&store).await, (1..=13).collect::<Vec<_>>());
}

async fn a_timed_replay_needs_nobody<B: Backend>(store: SqlStore<B>) {
    let poison = Poison::default();
    poison.set([1]);
    let recorder = poison.recorder();
    let policy = Parking::at_most(10).replayed_every(Duration::from_millis(20));
    let projector = projector(&store, &recorder, FailurePolicy::Park(policy));
    let handle = projector.start().await.unwrap();
    let mut parcel = Parcel::register("parcel");
    parcel.weigh(1);
    let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
    unit_of_work.save(parcel).unwrap();
    let receipt = unit_of_work.commit().await.unwrap();
    store.wait_for(&receipt, "recorder").await.unwrap();
    assert_eq!(applied(&store).await, Vec::<i64>::new());
    let attempts = letters(&store).await[0].attempts;
    while letters(&store).await[0].attempts < attempts + 2 {
        tokio::task::yield_now().await;
    }
    poison.set([]);
    while !letters(&store).await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(applied(&store).await, [1, 2]);
    handle.stop(Duration::from_secs(60)).await;
}

async fn what_is_skipped_leaves_a_record<B: Backend>(store: SqlStore<B>) {
    three(&store, 3).await;
    let poison = Poison::default();
    poison.set([4, 5]);
    let projector = projector(&store, &poison.recorder(), FailurePolicy::Skip);
    assert_eq!(projector.run_until_idle().await.unwrap(), 7);
    assert_eq!(applied(&store).await, [1, 2, 3, 6, 7, 8, 9]);
    let letters = letters(&store).await;
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].status, DeadLetterStatus::Skipped);
    assert_eq!(letters[1].error.as_deref(), Some("poison at 5"));
    let status = &store.subscriptions().await.unwrap()[0];
    assert_eq!((status.skipped, status.parked), (2, 0));
    // What was in it can be read; what is no dead letter cannot.
    let operations = operations(&store);
    let system = RequestContext::system();
    let log = store.events(&system, Position(3), 1);
    let event = operations.dead_letter_event("recorder", Position(4)).await;
    assert_eq!(event.unwrap().as_ref(), log.await.unwrap().first());
    for (subscription, position) in [("recorder", 3), ("recorder", 6), ("other", 4)] {
        let position = Position(position);
        let event = operations.dead_letter_event(subscription, position).await;
        assert_eq!(event.unwrap(), None, "{subscription} at {position}");
    }
    // It is too late to apply them.
    poison.set([]);
    assert_eq!(operations.replay_all("recorder").await.unwrap(), 0);
    assert_eq!(projector.run_until_idle().await.unwrap(), 0);
    let discarded = operations.discard_event("recorder", Position(4)).await;
    assert!(discarded.unwrap());
    assert_eq!(parked(&store).await, [5]);
}

async fn a_full_set_halts_and_says_so<B: Backend>(store: SqlStore<B>) {
    three(&store, 4).await;
    let poison = Poison::default();
    poison.set([2]);
    let projector = projector(&store, &poison.recorder(), parking(2));
    let error = projector.run_until_idle().await.unwrap_err();
    let halted = failure(&error);
    assert_eq!(halted.position, Some(Position(8)));
    assert!(
        halted
            .error
            .contains("as many events are parked as may be (2)"),
        "{halted}"
    );
    assert_eq!(parked(&store).await, [2, 5]);
    assert_eq!(applied(&store).await, [1, 3, 4, 6, 7]);
    assert!(matches!(state(&store).await, SubscriptionState::Halted(_)));

    // Another aggregate fails, and there is no room either.
    poison.set([]);
    operations(&store).resume("recorder").await.unwrap();
    operations(&store).replay_all("recorder").await.unwrap();
    projector.run_until_idle().await.unwrap();
    assert_eq!(applied(&store).await, (1..=12).collect::<Vec<_>>());

    for _ in 0..3 {
        create(&store).await;
    }
    poison.set([13, 14, 15]);
    let error = projector.run_until_idle().await.unwrap_err();
    assert_eq!(failure(&error).position, Some(Position(15)));
    assert!(failure(&error).error.ends_with("poison at 15"), "{error}");
    assert_eq!(parked(&store).await, [13, 14]);
}

async fn the_next_is_replayed_where_the_first_is_discarded<B: Backend>(store: SqlStore<B>) {
    three(&store, 4).await;
    let poison = Poison::default();
    poison.set([4]);
    let projector = projector(&store, &poison.recorder(), parking(10));
    projector.run_until_idle().await.unwrap();
    let operations = operations(&store);
    let later = operations.discard_event("recorder", Position(7));
    assert!(later.await.unwrap());
    assert_eq!(
        projector.run_until_idle().await.unwrap(),
        0,
        "the first is still in the way"
    );
    assert_eq!(parked(&store).await, [4, 10]);
    let first = operations.discard_event("recorder", Position(4));
    assert!(first.await.unwrap());
    let none = operations.discard_event("recorder", Position(4));
    assert!(!none.await.unwrap());
    assert_eq!(projector.run_until_idle().await.unwrap(), 1);
    let rest: Vec<i64> = (1..=12).filter(|n| ![4, 7].contains(n)).collect();
    assert_eq!(applied(&store).await, rest);
    assert_eq!(parked(&store).await, Vec::<i64>::new());
}

async fn an_aggregate_that_is_discarded_goes_on<B: Backend>(store: SqlStore<B>) {
    let [first, ..] = three(&store, 4).await;
    let poison = Poison::default();
    poison.set([4]);
    let projector = projector(&store, &poison.recorder(), parking(10));
    projector.run_until_idle().await.unwrap();
    let id = first.to_string();
    let discarded = operations(&store).discard("recorder", "parcel", &id).await;
    assert_eq!(discarded.unwrap(), 3);
    change(&store, first).await;
    assert_eq!(projector.run_until_idle().await.unwrap(), 1);
    let rest: Vec<i64> = (1..=13).filter(|n| ![4, 7, 10].contains(n)).collect();
    assert_eq!(applied(&store).await, rest);
}

/// Handles parcels as code that knows one event alone.
struct Old(Arc<Mutex<Vec<i64>>>);

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, cqrs_core::DomainEvent)]
#[event(aggregate = "parcel")]
enum OldEvent {
    Registered { label: String },
}

impl<T: ProjectionTransaction> EventHandler<T> for Old {
    type Event = OldEvent;

    fn name(&self) -> &str {
        "recorder"
    }

    async fn handle(&self, event: &Envelope<OldEvent>, _: &mut T) -> Result<()> {
        self.0.lock().unwrap().push(event.position().0);
        Ok(())
    }
}

async fn an_undecodable_event_is_parked<B: Backend>(store: SqlStore<B>) {
    three(&store, 2).await;
    create(&store).await;
    let handled = Arc::default();
    let subscription = Subscription::named("recorder")
        .each(Old(Arc::clone(&handled)))
        .on_failure(parking(10));
    let projector = store.projector().subscribe(subscription);
    let events = projector.retry_delays(NO_DELAYS).run_until_idle().await;
    assert_eq!(events.unwrap(), 4);
    assert_eq!(parked(&store).await, [4, 5, 6]);
    assert_eq!(*handled.lock().unwrap(), [1, 2, 3, 7]);
    let error = letters(&store).await[0].error.clone().unwrap();
    assert!(
        error.contains("unknown event type \"parcel.weighed\""),
        "{error}"
    );
}

async fn an_event_that_is_gone_cannot_be_replayed<B: Kind>(store: SqlStore<B>) {
    let poison = Poison::default();
    three(&store, 2).await;
    poison.set([1]);
    let recorder = poison.recorder();
    let projector = projector(&store, &recorder, parking(10));
    projector.run_until_idle().await.unwrap();
    remove_from_log(&store).await;
    let event = operations(&store)
        .dead_letter_event("recorder", Position(1))
        .await;
    assert_eq!(event.unwrap(), None);
    poison.set([]);
    operations(&store).replay_all("recorder").await.unwrap();
    assert_eq!(projector.run_until_idle().await.unwrap(), 0);
    let letters = letters(&store).await;
    assert_eq!(parked(&store).await, [1, 4]);
    assert_eq!(
        letters[0].error.as_deref(),
        Some("the event at 1 is not in the log any more")
    );
    operations(&store)
        .discard_event("recorder", Position(1))
        .await
        .unwrap();
    assert_eq!(projector.run_until_idle().await.unwrap(), 1);
}

/// Removes the first event of the log.
async fn remove_from_log<B: Kind>(store: &SqlStore<B>) {
    let mut unit_of_work = store.unit_of_work(&RequestContext::system());
    let connection = unit_of_work.connection().await.unwrap();
    let delete = "DELETE FROM cqrs_event WHERE position = 1".to_owned();
    B::run_on(connection, delete).await.unwrap();
    let _ = unit_of_work.commit().await.unwrap();
}

/// Hangs at one event until it is told that it need not any more.
struct Hanging<B>(
    tokio::sync::watch::Receiver<bool>,
    std::marker::PhantomData<fn() -> B>,
);

impl<B: Backend> EventHandler<SqlTransaction<B>> for Hanging<B> {
    type Event = RawPayload;

    fn name(&self) -> &str {
        "recorder"
    }

    async fn handle(&self, event: &Envelope<RawPayload>, _: &mut SqlTransaction<B>) -> Result<()> {
        let mut free = self.0.clone();
        if event.position().0 == 3 {
            free.wait_for(|free| *free).await.map_err(Error::other)?;
        }
        Ok(())
    }
}

async fn a_hanging_handler_is_a_failure<B: Backend>(store: SqlStore<B>) {
    three(&store, 2).await;
    let (free, hangs) = tokio::sync::watch::channel(false);
    let subscription = Subscription::new(cqrs_core::Each(Hanging(hangs, std::marker::PhantomData)))
        .on_failure(parking(10));
    let projector = store.projector().subscribe(subscription);
    let projector = projector
        .retry_delays(NO_DELAYS)
        .deadline(Duration::from_millis(50));
    assert_eq!(projector.run_until_idle().await.unwrap(), 4);
    assert_eq!(parked(&store).await, [3, 6]);
    let error = letters(&store).await[0].error.clone().unwrap();
    assert_eq!(error, "the page was not applied within 50ms");
    free.send_replace(true);
    operations(&store).replay_all("recorder").await.unwrap();
    assert_eq!(projector.run_until_idle().await.unwrap(), 2);
}

async fn operations_are_recorded<B: Backend>(store: SqlStore<B>) {
    let [first, ..] = three(&store, 1).await;
    let poison = Poison::default();
    poison.set([1]);
    let projector = projector(&store, &poison.recorder(), parking(10));
    projector.run_until_idle().await.unwrap();
    let context = RequestContext::system().with_actor("kim");
    let operations = store.operations(&context).unwrap();
    operations.resume("recorder").await.unwrap();
    operations.replay_all("recorder").await.unwrap();
    let id = first.to_string();
    operations.replay("recorder", "parcel", &id).await.unwrap();
    operations
        .discard_event("recorder", Position(9))
        .await
        .unwrap();
    operations.discard("recorder", "parcel", &id).await.unwrap();
    let error = operations.resume("no such").await.unwrap_err();
    assert!(matches!(error, Error::Store(error) if *error.kind() == StoreErrorKind::Usage));
    let records = operations.records(100).await.unwrap();
    let done: Vec<_> = records
        .iter()
        .rev()
        .map(|record| (record.operation.as_str(), record.detail.as_str()))
        .collect();
    let aggregate = format!("parcel {id}");
    assert_eq!(
        done,
        [
            ("resume", ""),
            ("replay_all", ""),
            ("replay", &*aggregate),
            ("discard_event", "9"),
            ("discard", &*aggregate)
        ]
    );
    for record in records {
        assert_eq!(record.actor.as_deref(), Some("kim"));
        assert_eq!(record.correlation_id, context.metadata().correlation_id);
        assert_eq!(record.subscription, "recorder");
    }
}

async fn operations_take_the_system<B: Backend>(store: SqlStore<B>) {
    let error = store.operations(&stores::tenant("north")).unwrap_err();
    assert!(error.to_string().contains("scope of the system"), "{error}");
}
