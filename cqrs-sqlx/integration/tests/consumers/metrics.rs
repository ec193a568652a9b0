//! What is counted and measured has the values that it says.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_core::{
    CommitReceipt, Error, FailurePolicy, Parking, RequestContext, Store, StoreErrorKind,
    Subscription, UnitOfWork,
};
use cqrs_integration::domain::{self, Parcel, ParcelId};
use cqrs_integration::stores;
use cqrs_sqlx::{HealthLimits, Postgres, SqlStore, Sqlite, Stopped, StoreOptions};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};

use tokio::task::JoinSet;

use crate::projector::support;
use cqrs_integration::each::{Fresh, Kind, kind};

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
struct Recorded {
    values: Values,
    /// The names for which it panics, each once.
    broken: Mutex<Vec<&'static str>>,
}

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
        let mut broken = self.broken.lock().unwrap();
        let place = broken.iter().position(|name| *name == key.name());
        let name = place.map(|place| broken.remove(place));
        drop(broken);
        assert_eq!(name, None, "it is broken");
        let labels: String = key
            .labels()
            .map(|label| format!(" {}={}", label.key(), label.value()))
            .collect();
        Arc::new(Cell {
            values: Arc::clone(&self.values),
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
    recorded_by(Recorded::default(), async |_| work.await)
}

/// The same, of work that looks at the values meanwhile.
fn recorded_by(recorder: Recorded, work: impl AsyncFnOnce(&Values)) -> BTreeMap<String, f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let work = work(&recorder.values);
    metrics::with_local_recorder(&recorder, || runtime.block_on(work));
    let values = recorder.values.lock().unwrap();
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

#[test]
fn a_recorder_that_panics_ends_no_task() {
    let recorder = Recorded {
        broken: Mutex::new(vec!["cqrs_horizon_position", "cqrs_applied_events_total"]),
        ..Recorded::default()
    };
    let values = recorded_by(recorder, async |_| {
        let (_fresh, store) = Fresh::<Sqlite>::with_store().await;
        let store = support::with_tables(store).await;
        let projector = store
            .projector()
            .projection(support::Recorder::new("recorder"));
        let handle = projector.start().await.unwrap();
        for _ in 0..3 {
            let receipt = register(&store).await;
            store.wait_for(&receipt, "recorder").await.unwrap();
        }
        let stopped = handle.stop(Duration::from_secs(60)).await;
        assert_eq!(stopped, Stopped::Drained);
    });
    let horizon = values.get("cqrs_horizon_position").copied();
    assert_eq!(horizon, Some(3.0), "{values:?}");
}

#[test]
fn gauges_are_those_of_subscriptions_that_are_there_on_postgres() {
    gauges_are_those_of_subscriptions_that_are_there::<Postgres>();
}

#[test]
fn gauges_are_those_of_subscriptions_that_are_there_on_sqlite() {
    gauges_are_those_of_subscriptions_that_are_there::<Sqlite>();
}

fn gauges_are_those_of_subscriptions_that_are_there<K: Kind>() {
    let gauges = |values: &BTreeMap<String, f64>, name: &str| -> Vec<String> {
        let of_name = format!("subscription={name}");
        let set = values.iter().filter(|(gauge, value)| {
            gauge.contains(&of_name) && !gauge.contains("seconds") && **value != 0.0
        });
        set.map(|(gauge, value)| format!("{gauge} {value}"))
            .collect()
    };
    let values = recorded_by(Recorded::default(), async |values| {
        let (_fresh, store) = Fresh::<K>::with_store().await;
        let store = support::with_tables(store).await;
        let subscribed = |name| store.projector().projection(support::Recorder::new(name));
        for name in ["gone", "halted"] {
            subscribed(name).run_until_idle().await.unwrap();
        }
        let _ = register(&store).await;
        let failing = support::Recorder::new("halted").with_fault(|_| Err(Error::other("no")));
        let failing = store.projector().projection(failing).retry_delays([]);
        failing.run_until_idle().await.unwrap_err();
        let limits = HealthLimits::default();
        store.health(&limits).await.unwrap();
        let seen = values.lock().unwrap().clone();
        let active = [
            "cqrs_lag_events subscription=gone 1",
            "cqrs_subscription_state subscription=gone state=active 1",
        ];
        assert_eq!(gauges(&seen, "gone"), active);
        let operations = store.operations(&RequestContext::system()).unwrap();
        operations.remove("gone").await.unwrap();
        store.health(&limits).await.unwrap();
    });
    assert_eq!(gauges(&values, "gone"), [""; 0]);
    let halted = [
        "cqrs_failures_total subscription=halted 1",
        "cqrs_lag_events subscription=halted 1",
        "cqrs_subscription_state subscription=halted state=halted 1",
    ];
    assert_eq!(gauges(&values, "halted"), halted);
}

fn values_are_those_of_the_projector<K: Kind>() {
    let values = recorded_by(Recorded::default(), async |values| {
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
        // A look that is under way by then may see the next commit.
        let horizon = values.lock().unwrap()["cqrs_horizon_position"];
        assert!((horizon - 3.0).abs() < 1e-9, "{horizon}");
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
        ("cqrs_horizon_holder_pid", 0.0),
    ];
    for (name, expected) in exact {
        let found = value(name);
        assert!((found - expected).abs() < 1e-9, "{name}: {found}");
    }
    assert!(value("cqrs_lag_seconds subscription=recorder") >= 0.0);
    let looks = ["signal", "poll"].map(|by| format!("cqrs_wake_ups_total by={by}"));
    let looks: f64 = looks.iter().filter_map(|name| values.get(name)).sum();
    assert!(looks >= 1.0, "{values:?}");
}

#[test]
fn the_session_that_holds_the_horizon_is_a_value() {
    let mut pid = 0;
    let values = recorded(async {
        let (_fresh, store) = Fresh::<Postgres>::with_store().await;
        let mut holding = store.unit_of_work(&RequestContext::system());
        let connection = holding.connection().await.unwrap();
        sqlx::query("LOCK TABLE cqrs_event IN ROW EXCLUSIVE MODE")
            .execute(&mut *connection)
            .await
            .unwrap();
        pid = sqlx::query_scalar("SELECT pg_backend_pid()")
            .fetch_one(connection)
            .await
            .unwrap();
        store.health(&HealthLimits::default()).await.unwrap();
    });
    let found = values["cqrs_horizon_holder_pid"];
    assert!((found - f64::from(pid)).abs() < 1e-9, "{pid}: {found}");
    assert!(values["cqrs_horizon_held_seconds"] > 0.0, "{values:?}");
}

#[test]
fn tries_and_full_pools_are_counted_on_postgres() {
    tries_and_full_pools_are_counted::<Postgres>();
}

#[test]
fn tries_and_full_pools_are_counted_on_sqlite() {
    tries_and_full_pools_are_counted::<Sqlite>();
}

fn tries_and_full_pools_are_counted<K: Kind>() {
    let values = recorded(async {
        let options = StoreOptions::default()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(3));
        let (_fresh, store) = Fresh::<K>::with(options).await;
        let id = registering(store.clone()).await;
        let context = stores::tenant("north");

        // Each try fails in another way, and the last one succeeds. The third spends its unit of
        // work, so that its commit fails of that.
        let tries = AtomicU32::new(0);
        let other = store.clone();
        let done = store.execute(&context, async |uow| {
            let fails = |kind| Err(Error::store(kind, "as told"));
            match tries.fetch_add(1, Ordering::Relaxed) + 1 {
                1 | 2 => return fails(StoreErrorKind::Contention),
                3 => {
                    let mut stale: Parcel = uow.get(id).await?;
                    weigh(&other, id).await;
                    stale.weigh(2);
                    uow.save(stale)?;
                    // Sends what is staged, and swallows why that failed.
                    uow.get::<Parcel>(id).await.unwrap_err();
                }
                4 => return fails(StoreErrorKind::Unavailable),
                _ => {}
            }
            Ok(())
        });
        done.await.unwrap();
        assert_eq!(tries.into_inner(), 5);
        // What is not tried again is not counted.
        let refused = store.execute(&context, async |_| Err::<(), _>(Error::other("no")));
        refused.await.unwrap_err();

        let mut holding = store.unit_of_work(&context);
        holding.save(Parcel::register("held")).unwrap();
        holding.get::<Parcel>(id).await.unwrap();
        let mut waiting = store.unit_of_work(&context);
        waiting.save(Parcel::register("waits")).unwrap();
        let error = waiting.commit().await.unwrap_err();
        assert_eq!(*kind(&error), StoreErrorKind::PoolTimedOut, "{error}");
        holding.rollback().await;
    });
    let counted: Vec<String> = values
        .iter()
        .filter(|(name, _)| name.contains("retries") || name.contains("pool"))
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    assert_eq!(
        counted,
        [
            "cqrs_pool_timeouts_total 1",
            "cqrs_retries_total reason=conflict 1",
            "cqrs_retries_total reason=contention 2",
            "cqrs_retries_total reason=unavailable 1",
        ]
    );
}

async fn weigh<K: Kind>(store: &SqlStore<K>, id: ParcelId) {
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    let mut parcel: Parcel = uow.get(id).await.unwrap();
    parcel.weigh(1);
    uow.save(parcel).unwrap();
    let _ = uow.commit().await.unwrap();
}

#[test]
fn what_goes_out_together_is_counted() {
    const ALL: usize = 40;
    let mut shared = 0;
    let values = recorded_by(Recorded::default(), async |values| {
        let options = StoreOptions::default().coalesce(128);
        let (fresh, store) = Fresh::<Postgres>::with(options).await;
        let is_sent = |name: &str| values.lock().unwrap().contains_key(name);
        // Not before there is a connection for it.
        let mut ids = Vec::new();
        while !is_sent("cqrs_flushes_total") {
            let commits: JoinSet<_> = (0..ALL).map(|_| registering(store.clone())).collect();
            ids = commits.join_all().await;
        }
        while !is_sent("cqrs_load_flushes_total") {
            let loads = (0..ALL).map(|_| loading(store.clone(), ids[0]));
            let _ = loads.collect::<JoinSet<_>>().join_all().await;
        }
        // A flush is one transaction.
        let saved = "SELECT count(*) - count(DISTINCT xmin::text) FROM cqrs_event";
        shared = fresh.number(saved).await;
    });
    let value = |name: &str| values.get(name).copied().unwrap_or(0.0);
    let written = value("cqrs_flushed_commits_total outcome=written");
    let saved = written - value("cqrs_flushes_total");
    assert!((saved - shared as f64).abs() < 1e-9, "{shared}: {values:?}");
    assert!(written >= 1.0, "{values:?}");
    let answered = value("cqrs_flushed_loads_total outcome=answered");
    let flushes = value("cqrs_load_flushes_total");
    assert!(
        1.0 <= flushes && flushes <= answered && answered < ALL as f64,
        "{values:?}"
    );
    let left = ["cqrs_flushed_commits_total", "cqrs_flushed_loads_total"];
    for name in left.map(|name| format!("{name} outcome=left")) {
        assert!(value(&name) < 1e-9, "{values:?}");
    }
}

async fn registering<K: Kind>(store: SqlStore<K>) -> ParcelId {
    let parcel = Parcel::register("parcel");
    let id = domain::id(&parcel);
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(parcel).unwrap();
    let _ = uow.commit().await.unwrap();
    id
}

async fn loading<K: Kind>(store: SqlStore<K>, id: ParcelId) {
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.get::<Parcel>(id).await.unwrap();
}
