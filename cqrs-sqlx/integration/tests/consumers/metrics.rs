//! What is counted and measured has the values that it says.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_core::{CommitReceipt, Error, FailurePolicy, Parking, Store, Subscription, UnitOfWork};
use cqrs_integration::domain::Parcel;
use cqrs_integration::stores;
use cqrs_sqlx::{HealthLimits, Postgres, SqlStore, Sqlite};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};

use crate::projector::support;
use cqrs_integration::each::{Fresh, Kind};

#[test]
fn values_are_those_of_the_projector_on_postgres() {
    values_are_those_of_the_projector::<Postgres>();
}

#[test]
fn values_are_those_of_the_projector_on_sqlite() {
    values_are_those_of_the_projector::<Sqlite>();
}

/// The values by name and labels.
type Values = Arc<Mutex<BTreeMap<String, f64>>>;

#[derive(Default)]
struct Recorded(Values);

struct Cell {
    values: Values,
    name: String,
}

impl Cell {
    fn change(&self, change: impl FnOnce(f64) -> f64) {
        let mut values = self.values.lock().unwrap();
        let value = values.entry(self.name.clone()).or_insert(0.0);
        *value = change(*value);
    }
}

impl CounterFn for Cell {
    fn increment(&self, by: u64) {
        self.change(|value| value + by as f64);
    }

    fn absolute(&self, to: u64) {
        self.change(|_| to as f64);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, by: f64) {
        self.change(|value| value + by);
    }

    fn decrement(&self, by: f64) {
        self.change(|value| value - by);
    }

    fn set(&self, to: f64) {
        self.change(|_| to);
    }
}

impl Recorded {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let labels: String = key
            .labels()
            .map(|label| format!(" {}={}", label.key(), label.value()))
            .collect();
        Arc::new(Cell {
            values: Arc::clone(&self.0),
            name: format!("{}{labels}", key.name()),
        })
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// What is recorded during some work, all of it on this thread.
fn recorded(work: impl Future<Output = ()>) -> BTreeMap<String, f64> {
    let recorder = Recorded::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(work));
    let values = recorder.0.lock().unwrap();
    values.clone()
}

async fn register<K: Kind>(store: &SqlStore<K>) -> CommitReceipt {
    let context = stores::tenant("north");
    let saved = store.execute(&context, async |uow| uow.save(Parcel::register("parcel")));
    saved.await.unwrap()
}

#[test]
fn a_commit_of_the_process_is_a_signal() {
    let values = recorded(async {
        let (_fresh, store) = Fresh::<Sqlite>::with_store().await;
        let store = support::with_tables(store).await;
        let projector = store
            .projector()
            .projection(support::Recorder::new("recorder"));
        let never = Duration::from_secs(3600);
        let handle = projector.poll_interval(never).start().await.unwrap();
        for _ in 0..3 {
            let receipt = register(&store).await;
            store.wait_for(&receipt, "recorder").await.unwrap();
        }
        handle.stop(Duration::from_secs(60)).await;
    });
    let looks = |by: &str| values.get(&format!("cqrs_wake_ups_total by={by}")).copied();
    assert_eq!(looks("poll"), Some(1.0), "the first: {values:?}");
    assert!(looks("signal") >= Some(2.0), "{values:?}");
}

fn values_are_those_of_the_projector<K: Kind>() {
    let values = recorded(async {
        let (_fresh, store) = Fresh::<K>::with_store().await;
        let store = support::with_tables(store).await;
        let _ = register(&store).await;
        let _ = register(&store).await;
        let last = register(&store).await;
        let recorder = support::Recorder::new("recorder").with_fault(|page| {
            match page.iter().any(|event| event.position().0 == 2) {
                true => Err(Error::other("the second fails")),
                false => Ok(()),
            }
        });
        let parking = FailurePolicy::Park(Parking::at_most(10));
        let subscription = Subscription::new(recorder).on_failure(parking);
        let projector = store.projector().subscribe(subscription);
        let projector = projector.retry_delays([Duration::ZERO, Duration::ZERO]);
        let handle = projector.start().await.unwrap();
        store.wait_for(&last, "recorder").await.unwrap();
        handle.stop(Duration::from_secs(60)).await;
        let _ = register(&store).await;
        store.health(&HealthLimits::default()).await.unwrap();
    });
    let value = |name: &str| {
        let value = values.get(name).copied();
        value.unwrap_or_else(|| panic!("no {name} in {values:?}"))
    };
    let exact = [
        ("cqrs_applied_events_total subscription=recorder", 2.0),
        ("cqrs_failures_total subscription=recorder", 3.0),
        ("cqrs_lag_events subscription=recorder", 1.0),
        ("cqrs_parked_events subscription=recorder", 1.0),
        ("cqrs_parked_commands subscription=recorder", 0.0),
        ("cqrs_horizon_held_seconds", 0.0),
    ];
    for (name, expected) in exact {
        let found = value(name);
        assert!((found - expected).abs() < 1e-9, "{name}: {found}");
    }
    assert!(value("cqrs_lag_seconds subscription=recorder") >= 0.0);
    assert!((value("cqrs_horizon_position") - 3.0).abs() < 1e-9);
    let looks = ["signal", "poll"].map(|by| format!("cqrs_wake_ups_total by={by}"));
    let looks: f64 = looks.iter().filter_map(|name| values.get(name)).sum();
    assert!(looks >= 1.0, "{values:?}");
}
