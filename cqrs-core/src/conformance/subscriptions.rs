//! Subscriptions: several handlers, filters, where they begin, and what becomes of events that
//! fail.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Harness;
use super::fixtures::{Counter, CounterEvent, Parcel, ParcelEvent, Recorder, Tallies, Tally};
use super::projections::{all, fold_without, sorted};
use super::support::{Bench, assert_usage, begin, err, north, system};
use crate::envelope::{Envelope, Position};
use crate::error::{Error, Result};
use crate::projection::{Projection, ProjectionTransaction, Rows};
use crate::subscription::{EventHandler, FailurePolicy, Parking, StartAt, Subscription};

const NAME: &str = "conformance_guarded";

/// Keeps [`Tally`], and fails after it has written where a page holds one of these positions.
#[derive(Debug, Clone, Default)]
struct Guarded(Arc<Mutex<BTreeSet<Position>>>);

impl Guarded {
    fn set(&self, positions: &[Position]) {
        *self.poison() = positions.iter().copied().collect();
    }

    fn poison(&self) -> MutexGuard<'_, BTreeSet<Position>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ProjectionTransaction> Projection<T> for Guarded {
    type Event = ParcelEvent;

    fn name(&self) -> &str {
        NAME
    }

    async fn apply(&self, page: &[Envelope<ParcelEvent>], transaction: &mut T) -> Result<()> {
        Projection::<T>::apply(&Rows(Tallies), page, transaction).await?;
        let poison = self.poison();
        match page.iter().find(|event| poison.contains(&event.position())) {
            Some(event) => Err(Error::other(format!("poison at {}", event.position()))),
            None => Ok(()),
        }
    }
}

/// A store, a subscription that can be poisoned, and three parcels whose events take turns.
struct Fixture<'h, H: Harness> {
    bench: Bench<'h, H>,
    guarded: Guarded,
    policy: FailurePolicy,
    parcels: Vec<Parcel>,
    /// The positions of the events of each.
    positions: Vec<Vec<Position>>,
}

impl<'h, H: Harness> Fixture<'h, H> {
    async fn new(h: &'h H, policy: FailurePolicy) -> Self {
        let mut fixture = Self {
            bench: begin(h).await,
            guarded: Guarded::default(),
            policy,
            parcels: Vec::new(),
            positions: vec![Vec::new(); 3],
        };
        for label in ["red", "green", "blue"] {
            let parcel = fixture.bench.parcel(&north(), label).await;
            fixture.parcels.push(parcel);
        }
        let log = fixture.bench.log().await;
        for (positions, event) in fixture.positions.iter_mut().zip(&log) {
            positions.push(event.position());
        }
        for _ in 0..3 {
            for parcel in 0..3 {
                fixture.change(parcel).await;
            }
        }
        fixture
    }

    /// Gives a parcel the label that it has.
    async fn change(&mut self, parcel: usize) {
        let id = self.parcels[parcel].id;
        let mut changed: Parcel = self.bench.load(&north(), id).await;
        let label = changed.label.clone();
        changed.relabel(&label);
        let receipt = self.bench.saved(&north(), changed).await;
        self.positions[parcel].extend(receipt.position());
    }

    async fn run(&self) {
        let make = || Subscription::new(self.guarded.clone()).on_failure(self.policy.clone());
        let harness = self.bench.harness;
        harness.run_subscription(&self.bench.store, &make).await;
    }

    async fn replay(&self) {
        let harness = self.bench.harness;
        harness.replay_all(&self.bench.store, NAME).await;
        self.run().await;
    }

    async fn halted(&self) -> Option<Position> {
        let harness = self.bench.harness;
        harness.halted_at(&self.bench.store, NAME).await
    }

    /// The dead letters are these, and the rows the fold of everything else.
    async fn assert_left_out(&self, positions: &[Position]) {
        let letters = self
            .bench
            .harness
            .dead_letters(&self.bench.store, NAME)
            .await;
        assert_eq!(letters, positions, "the dead letters");
        self.assert_folded_without(positions).await;
    }

    async fn assert_folded_without(&self, positions: &[Position]) {
        let rows: Vec<Tally> = all(&self.bench, &system()).await;
        let expected = fold_without(&self.bench, Tallies, positions).await;
        assert_eq!(sorted(rows), sorted(expected), "without {positions:?}");
    }
}

fn parking(events: u32) -> FailurePolicy {
    FailurePolicy::Park(Parking::at_most(events))
}

/// An event that fails is parked, and every later one of its aggregate behind it; the others are
/// applied, once. Replayed, they are applied in their order.
pub async fn parked_events_wait_while_others_proceed<H: Harness>(h: &H) {
    let mut fixture = Fixture::new(h, parking(100)).await;
    let red = fixture.positions[0].clone();
    fixture.guarded.set(&red[1..2]);
    fixture.run().await;
    assert_eq!(fixture.halted().await, None);
    fixture.assert_left_out(&red[1..]).await;

    // Behind it in a later page too.
    fixture.change(0).await;
    fixture.change(1).await;
    fixture.run().await;
    let red = fixture.positions[0].clone();
    fixture.assert_left_out(&red[1..]).await;

    fixture.guarded.set(&[]);
    fixture.change(0).await;
    fixture.replay().await;
    fixture.assert_left_out(&[]).await;
    fixture.change(0).await;
    fixture.run().await;
    fixture.assert_left_out(&[]).await;
}

/// A replay applies what comes before the event that fails again, and keeps the rest.
pub async fn a_replay_that_fails_keeps_the_order<H: Harness>(h: &H) {
    let fixture = Fixture::new(h, parking(100)).await;
    let [red, green, _] = &fixture.positions[..] else {
        panic!("there are three parcels");
    };
    fixture.guarded.set(&[red[0], green[3]]);
    fixture.run().await;
    let mut parked = [&red[..], &green[3..]].concat();
    parked.sort();
    fixture.assert_left_out(&parked).await;
    fixture.guarded.set(&[red[2]]);
    fixture.replay().await;
    fixture.assert_left_out(&red[2..]).await;
    fixture.guarded.set(&[]);
    fixture.replay().await;
    fixture.assert_left_out(&[]).await;
}

/// Panics where [`Guarded`] fails.
struct Panicking(Guarded);

impl<T: ProjectionTransaction> Projection<T> for Panicking {
    type Event = ParcelEvent;

    fn name(&self) -> &str {
        NAME
    }

    async fn apply(&self, page: &[Envelope<ParcelEvent>], transaction: &mut T) -> Result<()> {
        let applied = Projection::<T>::apply(&self.0, page, transaction).await;
        assert!(applied.is_ok(), "a handler's own panic, which is meant");
        Ok(())
    }
}

/// A handler that panics has failed: the policy decides.
pub async fn a_handler_that_panics_fails<H: Harness>(h: &H) {
    let fixture = Fixture::new(h, parking(100)).await;
    let red = &fixture.positions[0];
    fixture.guarded.set(&red[1..2]);
    let make =
        || Subscription::new(Panicking(fixture.guarded.clone())).on_failure(fixture.policy.clone());
    h.run_subscription(&fixture.bench.store, &make).await;
    fixture.assert_left_out(&red[1..]).await;
    fixture.guarded.set(&[]);
    fixture.replay().await;
    fixture.assert_left_out(&[]).await;
}

/// A skipped event is left out, and the later ones of its aggregate are applied.
pub async fn a_skipped_event_is_left_out<H: Harness>(h: &H) {
    let fixture = Fixture::new(h, FailurePolicy::Skip).await;
    let skipped = [fixture.positions[0][1], fixture.positions[1][1]];
    fixture.guarded.set(&skipped);
    fixture.run().await;
    assert_eq!(fixture.halted().await, None);
    fixture.assert_left_out(&skipped).await;
    // It is too late.
    fixture.guarded.set(&[]);
    fixture.replay().await;
    fixture.assert_left_out(&skipped).await;
}

/// As many events are parked as may be; the next one halts the subscription.
pub async fn a_full_set_of_parked_events_halts<H: Harness>(h: &H) {
    let fixture = Fixture::new(h, parking(2)).await;
    let red = &fixture.positions[0];
    fixture.guarded.set(&red[1..2]);
    fixture.run().await;
    assert_eq!(fixture.halted().await, Some(red[3]));
    let harness = h.dead_letters(&fixture.bench.store, NAME).await;
    assert_eq!(harness, red[1..3]);
    fixture.guarded.set(&[]);
    h.resume(&fixture.bench.store, NAME).await;
    fixture.replay().await;
    fixture.assert_left_out(&[]).await;
}

/// Where the first parked event is given up, those behind it are applied.
pub async fn what_stands_behind_a_discarded_event_is_replayed<H: Harness>(h: &H) {
    let fixture = Fixture::new(h, parking(100)).await;
    let red = &fixture.positions[0];
    fixture.guarded.set(&red[1..2]);
    fixture.run().await;
    let store = &fixture.bench.store;
    assert!(h.discard_event(store, NAME, red[2]).await);
    fixture.run().await;
    assert_eq!(h.dead_letters(store, NAME).await, [red[1], red[3]]);
    assert!(h.discard_event(store, NAME, red[1]).await);
    assert!(!h.discard_event(store, NAME, red[1]).await);
    fixture.run().await;
    assert_eq!(h.dead_letters(store, NAME).await, []);
    fixture.assert_folded_without(&red[1..3]).await;
}

/// Handlers of one subscription are at the same point: what one cannot apply, none has applied.
pub async fn handlers_share_a_checkpoint<H: Harness>(h: &H) {
    let fixture = Fixture::new(h, FailurePolicy::Halt).await;
    let red = &fixture.positions[0];
    fixture.guarded.set(&red[2..3]);
    let recorder = Recorder::default();
    let make = || {
        Subscription::named(NAME)
            .projection(recorder.clone())
            .rows(Tallies)
            .projection(Refusing(fixture.guarded.clone()))
    };
    h.run_subscription(&fixture.bench.store, &make).await;
    assert_eq!(fixture.halted().await, Some(red[2]));
    let log = fixture.bench.log().await;
    let behind: Vec<Position> = log
        .iter()
        .map(Envelope::position)
        .filter(|position| *position >= red[2])
        .collect();
    fixture.assert_folded_without(&behind).await;
    fixture.guarded.set(&[]);
    h.resume(&fixture.bench.store, NAME).await;
    h.run_subscription(&fixture.bench.store, &make).await;
    fixture.assert_folded_without(&[]).await;
    assert!(recorder.events().len() > log.len(), "some were tried twice");
}

/// Writes nothing, and fails where [`Guarded`] does.
struct Refusing(Guarded);

impl<T: ProjectionTransaction> Projection<T> for Refusing {
    type Event = ParcelEvent;

    fn name(&self) -> &str {
        NAME
    }

    async fn apply(&self, page: &[Envelope<ParcelEvent>], _: &mut T) -> Result<()> {
        let poison = self.0.poison();
        match page.iter().find(|event| poison.contains(&event.position())) {
            Some(_) => Err(Error::other("refused")),
            None => Ok(()),
        }
    }
}

/// Remembers the events of one type.
#[derive(Clone, Default)]
struct Cleared(Arc<Mutex<Vec<Position>>>, Option<&'static [&'static str]>);

impl<T: ProjectionTransaction> EventHandler<T> for Cleared {
    type Event = CounterEvent;

    fn name(&self) -> &str {
        "conformance_cleared"
    }

    fn event_types(&self) -> Option<&'static [&'static str]> {
        self.1
    }

    async fn handle(&self, event: &Envelope<CounterEvent>, _: &mut T) -> Result<()> {
        let mut positions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        positions.push(event.position());
        Ok(())
    }
}

impl Cleared {
    fn positions(&self) -> Vec<Position> {
        let positions = self.0.lock();
        positions.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A handler is given the event types that it names, in their order, and one that names a type
/// that its events do not have is refused.
pub async fn handlers_are_given_the_types_they_name<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for id in 0..5 {
        let mut counter = bench.counter(id).await;
        counter.add(1);
        counter.clear("up");
        bench.save(&system(), counter).await;
        bench.parcel(&north(), "other").await;
    }
    let log = bench.log().await;
    let positions = |wanted: &dyn Fn(&str) -> bool| -> Vec<Position> {
        let events = log.iter().filter(|event| wanted(event.event_type()));
        events.map(Envelope::position).collect()
    };
    let cleared = Cleared(Arc::default(), Some(&["counter.cleared"]));
    let make = || Subscription::named("conformance_cleared").each(cleared.clone());
    h.run_subscription(&bench.store, &make).await;
    let expected = positions(&|event_type| event_type == "counter.cleared");
    assert_eq!(expected.len(), 5);
    assert_eq!(cleared.positions(), expected);

    // Another handler of the same subscription reads more.
    let (some, all) = (
        Cleared(Arc::default(), Some(&["counter.cleared"])),
        Cleared::default(),
    );
    let make = || {
        Subscription::named("conformance_both")
            .each(some.clone())
            .each(all.clone())
    };
    h.run_subscription(&bench.store, &make).await;
    assert_eq!(some.positions(), expected);
    let counters = positions(&|event_type| event_type.starts_with("counter."));
    assert_eq!(all.positions(), counters);

    let wrong = Cleared(Arc::default(), Some(&["counter.forgotten"]));
    let wrong = Subscription::<H::Transaction>::named("wrong").each(wrong);
    assert_usage(&err(wrong.check()));
    let nobody = Subscription::<H::Transaction>::named("nobody");
    assert_usage(&err(nobody.check()));
}

/// A subscription begins at the first event, behind those that are there, or at a time.
pub async fn a_subscription_begins_where_it_says<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for id in 0..6 {
        bench.save(&system(), Counter::new(id)).await;
    }
    let log = bench.log().await;
    let time = log[3].recorded_at();
    let since = log.iter().position(|event| event.recorded_at() >= time);
    let starts = [
        ("beginning", StartAt::Beginning, 0),
        ("now", StartAt::Now, log.len()),
        ("time", StartAt::Time(time), since.unwrap_or(log.len())),
        (
            "later",
            StartAt::Time(time + chrono::TimeDelta::days(1)),
            log.len(),
        ),
    ];
    let mut recorders = Vec::new();
    for (name, start, _) in &starts {
        let recorder = Recorder::default();
        recorders.push(recorder.clone());
        let make = || {
            Subscription::named(*name)
                .projection(recorder.clone())
                .start_at(*start)
        };
        h.run_subscription(&bench.store, &make).await;
    }
    // It begins once: what comes later is read by all.
    bench.save(&system(), Counter::new(6)).await;
    let log = bench.log().await;
    for ((name, start, first), recorder) in starts.iter().zip(recorders) {
        let make = || {
            Subscription::named(*name)
                .projection(recorder.clone())
                .start_at(*start)
        };
        h.run_subscription(&bench.store, &make).await;
        let ids: Vec<_> = recorder.events().iter().map(Envelope::event_id).collect();
        let expected: Vec<_> = log[*first..].iter().map(Envelope::event_id).collect();
        assert_eq!(ids, expected, "{name}");
    }
}
