//! Subscriptions that are paused, and that are reset.

use std::sync::{Arc, Mutex, PoisonError};

use super::Harness;
use super::fixtures::{Counter, Parcel, ParcelEvent, Recorder, Tallies, Tally};
use super::projections::{all, fold_without, sorted};
use super::support::{Bench, assert_usage, begin, err, north, ok, system};
use crate::bus::EventBus;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::{Error, Result};
use crate::projection::{Projection, Rows};
use crate::subscription::{EventHandler, FailurePolicy, Parking, StartAt, Subscription};

const NAME: &str = "conformance_life_cycle";

/// What was published, and which positions cannot be.
#[derive(Debug, Clone, Default)]
struct Published(Arc<Mutex<(Vec<Position>, Vec<Position>)>>);

impl Published {
    fn positions(&self) -> Vec<Position> {
        self.with(|(published, _)| published.clone())
    }

    fn refuse(&self, positions: &[Position]) {
        self.with(|(_, refused)| *refused = positions.to_vec());
    }

    fn with<O>(&self, act: impl FnOnce(&mut (Vec<Position>, Vec<Position>)) -> O) -> O {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl EventBus for Published {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        self.with(|(published, refused)| {
            let positions: Vec<_> = page.iter().map(Envelope::position).collect();
            if let Some(poison) = positions.iter().find(|one| refused.contains(one)) {
                return Err(Error::other(format!("refused at {poison}")));
            }
            published.extend(positions);
            Ok(())
        })
    }
}

/// A subscription that keeps [`Tally`] and publishes.
struct Fixture<'h, H: Harness> {
    bench: Bench<'h, H>,
    published: Published,
}

impl<'h, H: Harness> Fixture<'h, H> {
    /// One that has applied the events of three parcels.
    async fn new(h: &'h H) -> Self {
        let fixture = Self {
            bench: begin(h).await,
            published: Published::default(),
        };
        for label in ["red", "green", "blue"] {
            fixture.change(label).await;
        }
        fixture.run().await;
        fixture
    }

    async fn change(&self, label: &str) {
        let mut parcel = Parcel::register(label);
        parcel.weigh(3);
        self.bench.save(&north(), parcel).await;
    }

    fn make(&self) -> Subscription<H::Transaction> {
        let parking = FailurePolicy::Park(Parking::at_most(10));
        Subscription::named(NAME)
            .rows(Tallies)
            .relay(self.published.clone())
            .on_failure(parking)
    }

    async fn run(&self) {
        let harness = self.bench.harness;
        let make = || self.make();
        harness.run_subscription(&self.bench.store, &make).await;
    }

    async fn reset(&self, to: StartAt) -> Result<()> {
        let harness = self.bench.harness;
        let make = || self.make();
        harness
            .reset_subscription(&self.bench.store, &make, to)
            .await
    }

    async fn rows(&self) -> Vec<String> {
        sorted(all::<H, Tally>(&self.bench, &system()).await)
    }

    async fn assert_up_to_date(&self) {
        let expected = fold_without(&self.bench, Tallies, &[]).await;
        assert_eq!(self.rows().await, sorted(expected), "the fold of the log");
    }

    async fn log(&self) -> Vec<Position> {
        let log = self.bench.log().await;
        log.iter().map(Envelope::position).collect()
    }
}

/// Nothing is applied while a subscription is paused, and everything after it is resumed.
pub async fn a_paused_subscription_stands_still<H: Harness>(h: &H) {
    let fixture = Fixture::new(h).await;
    let store = &fixture.bench.store;
    let before = fixture.rows().await;
    h.pause(store, NAME).await;
    h.pause(store, NAME).await;
    fixture.change("grey").await;
    fixture.run().await;
    assert_eq!(fixture.rows().await, before);

    h.resume(store, NAME).await;
    fixture.run().await;
    fixture.assert_up_to_date().await;
    assert_eq!(fixture.published.positions(), fixture.log().await);
}

/// One that is halted is paused too: nothing is applied after a reset before it is resumed. Why it
/// was halted is known meanwhile, until then.
pub async fn a_pause_outlasts_a_halt<H: Harness>(h: &H) {
    let fixture = Fixture {
        bench: begin(h).await,
        published: Published::default(),
    };
    let store = &fixture.bench.store;
    let make = || fixture.make().on_failure(FailurePolicy::Halt);
    for label in ["red", "green"] {
        fixture.change(label).await;
    }
    let log = fixture.log().await;
    fixture.published.refuse(&log[1..2]);
    h.run_subscription(store, &make).await;
    assert_eq!(h.halted_at(store, NAME).await, Some(log[1]));
    h.pause(store, NAME).await;
    assert_eq!(h.halted_at(store, NAME).await, Some(log[1]), "and why");
    fixture.published.refuse(&[]);
    h.run_subscription(store, &make).await;
    assert_eq!(fixture.published.positions(), log[..1]);

    ok(h.reset_subscription(store, &make, StartAt::Beginning).await);
    h.run_subscription(store, &make).await;
    assert!(fixture.rows().await.is_empty(), "it is still paused");
    assert_eq!(h.halted_at(store, NAME).await, None, "it was set back");

    // One call ends both.
    h.resume(store, NAME).await;
    h.run_subscription(store, &make).await;
    fixture.assert_up_to_date().await;
    assert_eq!(fixture.published.positions(), log);
}

/// A reset empties the rows, and leads to the same rows again; nothing is published twice.
pub async fn a_reset_starts_over_in_silence<H: Harness>(h: &H) {
    let fixture = Fixture::new(h).await;
    fixture.assert_up_to_date().await;
    for round in ["one", "two"] {
        ok(fixture.reset(StartAt::Beginning).await);
        assert!(fixture.rows().await.is_empty(), "nothing is left");
        fixture.change(round).await;
        fixture.run().await;
        fixture.assert_up_to_date().await;
        assert_eq!(fixture.published.positions(), fixture.log().await);
    }
}

/// A subscription that is reset before it had caught up publishes all the same what it had not.
pub async fn a_second_reset_keeps_the_mark<H: Harness>(h: &H) {
    let fixture = Fixture::new(h).await;
    let store = &fixture.bench.store;
    h.pause(store, NAME).await;
    fixture.change("late").await;
    ok(fixture.reset(StartAt::Beginning).await);
    ok(fixture.reset(StartAt::Beginning).await);
    fixture.run().await;
    assert!(fixture.rows().await.is_empty(), "it is still paused");
    h.resume(store, NAME).await;
    fixture.run().await;
    fixture.assert_up_to_date().await;
    assert_eq!(fixture.published.positions(), fixture.log().await);
}

/// A reset never goes forward: no event is left out.
pub async fn a_reset_leaves_nothing_out<H: Harness>(h: &H) {
    let fixture = Fixture::new(h).await;
    fixture.change("behind").await;
    ok(fixture.reset(StartAt::Now).await);
    assert!(fixture.rows().await.is_empty());
    fixture.run().await;
    assert_eq!(fixture.rows().await.len(), 1, "the one that was to come");
    assert_eq!(fixture.published.positions(), fixture.log().await);
}

/// Parked events that nobody would publish after a reset forbid it; those of rows alone are
/// dropped, and applied with the others.
pub async fn a_reset_loses_no_parked_event<H: Harness>(h: &H) {
    let fixture = Fixture::new(h).await;
    let store = &fixture.bench.store;
    fixture.change("poison").await;
    let log = fixture.log().await;
    let poison = log[log.len() - 2];
    fixture.published.refuse(&[poison]);
    fixture.run().await;
    let parked = h.dead_letters(store, NAME).await;
    assert_eq!(parked, log[log.len() - 2..]);
    assert_usage(&err(fixture.reset(StartAt::Beginning).await));
    assert_eq!(
        h.dead_letters(store, NAME).await,
        parked,
        "it changed nothing"
    );

    fixture.published.refuse(&[]);
    h.replay_all(store, NAME).await;
    fixture.run().await;
    ok(fixture.reset(StartAt::Beginning).await);
    fixture.run().await;
    fixture.assert_up_to_date().await;
    assert_eq!(fixture.published.positions(), log);

    // Without side effects.
    let failing = Failing(Arc::new(Mutex::new(true)));
    let make = || {
        let parking = FailurePolicy::Park(Parking::at_most(100));
        Subscription::named("conformance_failing")
            .projection(Rows(Tallies))
            .each(failing.clone())
            .on_failure(parking)
    };
    h.run_subscription(store, &make).await;
    assert!(
        !h.dead_letters(store, "conformance_failing")
            .await
            .is_empty()
    );
    *failing.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
    let reset = h.reset_subscription(store, &make, StartAt::Beginning);
    ok(reset.await);
    assert_eq!(h.dead_letters(store, "conformance_failing").await, []);
    h.run_subscription(store, &make).await;
    fixture.assert_up_to_date().await;
}

/// What was skipped is not published after a reset either, and the record that says so stays.
pub async fn a_reset_keeps_the_record_of_what_was_not_published<H: Harness>(h: &H) {
    let fixture = Fixture::new(h).await;
    let store = &fixture.bench.store;
    let (name, published) = ("conformance_skipping", Published::default());
    let log = fixture.log().await;
    published.refuse(&log[..1]);
    let make = || {
        Subscription::named(name)
            .relay(published.clone())
            .on_failure(FailurePolicy::Skip)
    };
    h.run_subscription(store, &make).await;
    assert_eq!(h.dead_letters(store, name).await, log[..1]);

    published.refuse(&[]);
    ok(h.reset_subscription(store, &make, StartAt::Beginning).await);
    h.run_subscription(store, &make).await;
    assert_eq!(published.positions(), log[1..]);
    assert_eq!(h.dead_letters(store, name).await, log[..1]);

    // Where another handler is given these events again, they may fail again.
    let failing = Failing(Arc::new(Mutex::new(true)));
    let make = || {
        Subscription::named("conformance_failing")
            .each(failing.clone())
            .relay(published.clone())
            .on_failure(FailurePolicy::Skip)
    };
    h.run_subscription(store, &make).await;
    let skipped = h.dead_letters(store, "conformance_failing").await;
    assert!(!skipped.is_empty());
    ok(h.reset_subscription(store, &make, StartAt::Beginning).await);
    h.run_subscription(store, &make).await;
    assert_eq!(h.dead_letters(store, "conformance_failing").await, skipped);
}

/// Fails as long as it is told to.
#[derive(Debug, Clone)]
struct Failing(Arc<Mutex<bool>>);

impl<T: Send> EventHandler<T> for Failing {
    type Event = ParcelEvent;

    fn name(&self) -> &str {
        "conformance_failing"
    }

    async fn clear(&self, _: &mut T) -> Result<()> {
        Ok(())
    }

    async fn handle(&self, _: &Envelope<ParcelEvent>, _: &mut T) -> Result<()> {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            true => Err(Error::other("not yet")),
            false => Ok(()),
        }
    }
}

/// Who does not say how it is cleared is not reset.
pub async fn what_cannot_be_cleared_is_not_reset<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let recorder = Recorder::default();
    let make = || {
        Subscription::named(NAME)
            .rows(Tallies)
            .projection(recorder.clone())
    };
    bench.save(&system(), Counter::new(1)).await;
    bench.parcel(&north(), "red").await;
    h.run_subscription(&bench.store, &make).await;
    let rows: Vec<Tally> = all(&bench, &system()).await;
    assert_eq!(rows.len(), 1);
    let reset = h.reset_subscription(&bench.store, &make, StartAt::Beginning);
    let error = err(reset.await);
    assert_usage(&error);
    let name = Projection::<H::Transaction>::name(&recorder).to_owned();
    assert!(error.to_string().contains(&name), "{error}");
    assert_eq!(
        all::<H, Tally>(&bench, &system()).await,
        rows,
        "it changed nothing"
    );
}

/// There has to be one of this name.
pub async fn only_what_is_registered_is_reset<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let make = || Subscription::named("conformance_nowhere").rows(Tallies);
    let reset = h.reset_subscription(&bench.store, &make, StartAt::Beginning);
    assert_usage(&err(reset.await));
}
