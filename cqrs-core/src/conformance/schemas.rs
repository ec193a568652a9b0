//! The ids of schemas: an event has that of its type and version, whichever way it came to be written.

use std::sync::{Arc, Mutex, PoisonError};

use super::Harness;
use super::fixtures::{
    AccountForm, ChainedForm, Counter, CounterEvent, Ledger, LetterEvent, OldLetter,
    OldLetterEvent, Parcel, Purse, Safe, SafeEvent,
};
use super::support::{Bench, begin_identified, north, ok, system};
use crate::bus::{EventBus, Relay};
use crate::envelope::{Envelope, RawPayload};
use crate::error::Result;
use crate::event::DomainEvent;
use crate::integrity::LogCheck;
use crate::maintenance::Maintain;
use crate::schema::SchemaIds;
use crate::sourced::{Sourced, SourcedState};
use crate::subscription::Subscription;
use crate::unit_of_work::UnitOfWork;

/// An id for each event type of these events, by its name.
fn add<E: DomainEvent>(ids: &mut SchemaIds) {
    for event_type in E::EVENT_TYPES {
        let id = format!("{} {}", event_type.name, event_type.schema_version);
        ok(ids.add(E::AGGREGATE_TYPE, *event_type, id));
    }
}

/// Those of all but parcels.
fn ids() -> SchemaIds {
    let mut ids = SchemaIds::default();
    add::<CounterEvent>(&mut ids);
    add::<<Ledger as crate::AggregateRoot>::Event>(&mut ids);
    add::<SafeEvent>(&mut ids);
    add::<<Purse as crate::AggregateRoot>::Event>(&mut ids);
    add::<OldLetterEvent>(&mut ids);
    ids
}

/// Each event in the log has the id of its type, and no other has one; how many have.
async fn identified<H: Harness>(bench: &Bench<'_, H>) -> usize {
    let log = bench.log().await;
    let mut count = 0;
    for event in &log {
        let has_none = event.aggregate_type() == "parcel" || event.is_change_marker();
        let id = format!("{} {}", event.event_type(), event.schema_version());
        let expected = (!has_none).then_some(id);
        assert_eq!(event.schema_id().map(str::to_owned), expected);
        count += usize::from(expected.is_some());
    }
    count
}

/// One event or several, of rows and of streams, alone or together, chained or not. Types without an
/// id, and markers of the framework, have none.
pub async fn events_have_the_ids_of_their_schemas<H: Harness>(h: &H) {
    let bench = begin_identified(h, ids()).await;
    bench.counter(1).await;
    let _ = bench.parcel(&north(), "of no schema").await;
    let mut counter: Counter = bench.load(&system(), 1).await;
    counter.add(1);
    counter.add(2);
    bench.save(&system(), counter).await;
    assert_eq!(identified(&bench).await, 3);

    let mut ledger = Ledger::unopened("L1");
    ledger.open("ann");
    bench.save(&north(), ledger).await;
    let mut ledger: Ledger = bench.load(&north(), "L1".to_owned()).await;
    ledger.transfer(1);
    ledger.transfer(2);
    bench.save(&north(), ledger).await;
    assert_eq!(identified(&bench).await, 6);

    let mut uow = bench.unit_of_work(&north());
    let (mut safe, mut purse) = (Safe::empty("C1"), Purse::empty("C1"));
    safe.fill(1);
    purse.fill(1);
    purse.fill(2);
    ok(uow.save(safe));
    ok(uow.save(purse));
    ok(uow.save(Counter::new(2)));
    ok(uow.save(Parcel::register("beside them")));
    let mut ledger: Ledger = ok(uow.get("L1".to_owned()).await);
    ledger.close();
    ok(uow.save(ledger));
    let _ = ok(uow.commit().await);
    assert_eq!(identified(&bench).await, 10);

    let purse: Purse = bench.load(&north(), "C1".to_owned()).await;
    assert_eq!(purse.coins(), 3);
    bench.remove(&north(), purse).await;
    let check = LogCheck::new().chained::<Safe>().chained::<Purse>();
    let report = bench.harness.check_log(&bench.store, &check).await;
    assert!(report.is_intact(), "{:?}", report.breaks());
}

/// So have the events of bulk inserts and bulk changes.
pub async fn bulk_work_has_the_ids_of_schemas<H: Harness>(h: &H) {
    let bench = begin_identified(h, ids()).await;
    let context = north();
    let new = (0..4).map(|number| {
        let mut safe = Safe::empty(&format!("C{number}"));
        safe.fill(number);
        safe
    });
    let done = bench.store.maintenance::<Safe>(&context).insert(new).await;
    assert_eq!(ok(done).items(), 4);
    let coins = Safe::fields().coins;
    let raising = bench
        .store
        .maintenance::<Safe>(&context)
        .raising(SafeEvent::Filled { coins: 0 });
    let changed = raising.update(coins.ge(2), [coins.set(9)]).await;
    assert_eq!(ok(changed).items(), 2);
    let everyone = system();
    let counters = || bench.store.maintenance::<Counter>(&everyone);
    let new = (1..=3).map(|id| {
        let mut counter = Counter::new(id);
        counter.add(1);
        counter
    });
    assert_eq!(ok(counters().insert(new).await).items(), 3);
    let value = Counter::fields().value;
    let raising = counters().raising(CounterEvent::Added { by: 5 });
    assert_eq!(
        ok(raising.update(value.ge(0), [value.set(6)]).await).items(),
        3
    );
    let markers = counters().update(value.eq(6), [value.set(7)]).await;
    assert_eq!(ok(markers).items(), 3);
    assert_eq!(identified(&bench).await, 4 + 2 + 3 + 3);
    assert_eq!(bench.log().await.len(), 4 + 2 + 3 + 3 + 3);
    let report = bench
        .harness
        .check_log(&bench.store, &LogCheck::new().chained::<Safe>())
        .await;
    assert!(report.is_intact(), "{:?}", report.breaks());
}

#[derive(Clone, Default)]
struct Bus(Arc<Mutex<Vec<Option<String>>>>);

impl Bus {
    fn take(&self) -> Vec<Option<String>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl EventBus for Bus {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        let mut published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.extend(
            page.iter()
                .map(|event| event.schema_id().map(str::to_owned)),
        );
        Ok(())
    }
}

/// A relay publishes the id in the log, also under a new name. An event whose payload it lifts has the
/// one that the relay knows for its new version, and none where it knows none.
pub async fn relays_publish_the_ids_of_schemas<H: Harness>(h: &H) {
    let bench = begin_identified(h, ids()).await;
    let mut letter = OldLetter::blank(1);
    letter.raise(OldLetterEvent::Written {
        to: "ann".to_owned(),
    });
    letter.raise(OldLetterEvent::Stamped { euros: 2 });
    letter.raise(OldLetterEvent::Sent);
    bench.save(&north(), letter).await;
    let mut of_now = SchemaIds::default();
    add::<LetterEvent>(&mut of_now);
    let bus = Bus::default();
    let some = |id: &str| Some(id.to_owned());
    let sent = some("letter.sent 1");

    let make = || Subscription::new(Relay::new("conformance_stored_ids", bus.clone()));
    h.run_subscription(&bench.store, &make).await;
    let (written, stamped) = (some("letter.written 1"), some("letter.stamped 1"));
    assert_eq!(bus.take(), [written.clone(), stamped, sent.clone()]);

    let make = || {
        let relay = Relay::new("conformance_unknown_ids", bus.clone());
        Subscription::new(relay.upcasting::<LetterEvent>())
    };
    h.run_subscription(&bench.store, &make).await;
    // A name is no part of a schema.
    assert_eq!(bus.take(), [written.clone(), None, sent.clone()]);

    let make = || {
        let relay = Relay::new("conformance_lifted_ids", bus.clone());
        let relay = relay.upcasting::<LetterEvent>();
        Subscription::new(relay.schema_ids(of_now.clone()))
    };
    h.run_subscription(&bench.store, &make).await;
    assert_eq!(bus.take(), [written, some("letter.franked 3"), sent]);
}
