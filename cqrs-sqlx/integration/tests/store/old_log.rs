//! Events that were written by the first layout of the log are read by the code of now.
//!
//! `old_log/` has a database of that layout as SQL, and what is in its log as JSON.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use cqrs_core::integrity::LogCheck;
use cqrs_core::{
    Aggregate, AsOf, DomainEvent, Entity, Envelope, Error, EventBus, EventHistory, Metadata,
    Position, RawPayload, ReadModel, ReadModels, Relay, Repository, RequestContext, Result, Root,
    RowProjection, Sourced, Store, TraceContext, UnitOfWork,
};
use cqrs_integration::each::{Fresh, Kind, on_each};
use cqrs_integration::stores;
use cqrs_sqlx::{SqlStore, StoreOptions, SubscriptionState};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

on_each!(
    its_layout_is_brought_up_to_date,
    its_log_is_as_it_was_written,
    its_aggregates_are_loaded_and_go_on,
    its_events_become_the_state_of_an_aggregate,
    its_projections_go_on_and_begin_anew,
    its_hashes_are_verified,
);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "shipment")]
enum ShipmentEvent {
    Booked {
        customer: String,
        kilograms: f64,
        note: Option<String>,
    },
    Dispatched {
        driver: String,
        at: DateTime<Utc>,
    },
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "shipment", event = ShipmentEvent, tenant, audit)]
struct Shipment {
    #[aggregate(id)]
    id: String,
    #[aggregate(root)]
    root: Root<ShipmentEvent>,
    customer: String,
    kilograms: f64,
    driver: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "meter")]
enum MeterEvent {
    Installed(i32, String),
    Counted(i64),
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "meter", event = MeterEvent)]
struct Meter {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<MeterEvent>,
    count: i64,
}

/// It had a row once, euros, and another name for its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "account")]
enum AccountEvent {
    Opened {
        owner: String,
    },
    #[event(version = 2, upcast(1 = in_cents))]
    Deposited {
        cents: i64,
    },
    #[event(was("account.shut"))]
    Closed,
}

#[derive(Deserialize)]
struct DepositedV1 {
    euros: i64,
}

#[derive(Serialize)]
struct DepositedV2 {
    cents: i64,
}

fn in_cents(old: DepositedV1) -> DepositedV2 {
    DepositedV2 {
        cents: old.euros * 100,
    }
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = AccountEvent, tenant, snapshot(every = 2))]
struct Account {
    #[aggregate(id)]
    number: String,
    #[aggregate(root)]
    root: Root<AccountEvent>,
    owner: String,
    cents: i64,
    is_closed: bool,
}

impl Sourced for Account {
    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { owner } => self.owner.clone_from(owner),
            AccountEvent::Deposited { cents } => self.cents += cents,
            AccountEvent::Closed => self.is_closed = true,
        }
    }
}

/// A read model under the name that the first release had, and one that is new.
macro_rules! totals {
    ($row:ident, $projection:ident, $table:literal) => {
        #[derive(Debug, Clone, PartialEq, ReadModel)]
        #[read_model(table = $table, shared)]
        struct $row {
            #[read_model(key)]
            number: String,
            events: i64,
            cents: i64,
        }

        struct $projection;

        impl RowProjection for $projection {
            type Event = AccountEvent;
            type Row = $row;
            const NAME: &'static str = $table;

            fn key(&self, event: &Envelope<AccountEvent>) -> Result<Option<String>> {
                Ok(Some(event.aggregate_id_str().to_owned()))
            }

            fn apply(&self, row: &mut Option<$row>, event: &Envelope<AccountEvent>) -> Result<()> {
                let number = event.aggregate_id_str().to_owned();
                let row = row.get_or_insert($row {
                    number,
                    events: 0,
                    cents: 0,
                });
                row.events += 1;
                if let AccountEvent::Deposited { cents } = event.payload() {
                    row.cents += cents;
                }
                Ok(())
            }
        }
    };
}

totals!(OldTotal, OldTotals, "account_total");
totals!(NewTotal, NewTotals, "account_again");

fn north() -> RequestContext {
    stores::tenant("north")
}

fn system() -> RequestContext {
    RequestContext::system()
}

/// The database as it was.
async fn old<K: Kind>() -> Fresh<K> {
    let fresh = Fresh::<K>::empty().await;
    fresh
        .run(K::either(
            include_str!("old_log/postgres.sql"),
            include_str!("old_log/sqlite.sql"),
        ))
        .await;
    fresh
}

/// The same, with the layout of now, and a store on it.
async fn migrated<K: Kind>(options: StoreOptions) -> (Fresh<K>, SqlStore<K>) {
    let fresh = old::<K>().await;
    let store = fresh.open(options).await;
    store.migrate().await.unwrap();
    (fresh, store)
}

/// An event as `events.json` has it.
#[derive(Debug, PartialEq, Deserialize)]
struct Recorded {
    position: i64,
    event_id: Uuid,
    tenant: Option<String>,
    aggregate_type: String,
    aggregate_id: String,
    aggregate_version: u64,
    event_type: String,
    schema_version: u32,
    payload: String,
    content_hash: String,
    correlation_id: Uuid,
    causation_id: Option<Uuid>,
    actor: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    occurred_at: DateTime<Utc>,
    recorded_at: DateTime<Utc>,
}

impl Recorded {
    fn of(event: &Envelope<RawPayload>) -> Self {
        assert_eq!(event.schema_id(), None);
        let Metadata {
            correlation_id,
            causation_id,
            actor,
            trace,
        } = event.metadata().clone();
        let (traceparent, tracestate) = match trace {
            None => (None, None),
            Some(TraceContext {
                traceparent,
                tracestate,
            }) => (Some(traceparent), tracestate),
        };
        Self {
            position: event.position().0,
            event_id: event.event_id(),
            tenant: event.tenant().map(|tenant| tenant.as_str().to_owned()),
            aggregate_type: event.aggregate_type().to_owned(),
            aggregate_id: event.aggregate_id_str().to_owned(),
            aggregate_version: event.aggregate_version(),
            event_type: event.event_type().to_owned(),
            schema_version: event.schema_version(),
            payload: event.payload().as_str().to_owned(),
            content_hash: event.content_hash().to_string(),
            correlation_id,
            causation_id,
            actor,
            traceparent,
            tracestate,
            occurred_at: event.occurred_at(),
            recorded_at: event.recorded_at(),
        }
    }
}

fn recorded() -> Vec<Recorded> {
    let all: Vec<Recorded> = serde_json::from_str(include_str!("old_log/events.json")).unwrap();
    assert_eq!(all.len(), 17);
    all
}

#[derive(Clone, Default)]
struct Bus(Arc<Mutex<Vec<Recorded>>>);

impl EventBus for Bus {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        self.0.lock().unwrap().extend(page.iter().map(Recorded::of));
        Ok(())
    }
}

async fn its_layout_is_brought_up_to_date<K: Kind>() {
    let (fresh, store) = migrated::<K>(StoreOptions::default()).await;
    let tables = [
        Shipment::table(),
        Meter::table(),
        Account::table(),
        OldTotal::table(),
    ];
    store.verify(&tables).await.unwrap();
    store.verify_events::<ShipmentEvent>().await.unwrap();
    store.verify_events::<MeterEvent>().await.unwrap();
    store.verify_events::<AccountEvent>().await.unwrap();
    let empty = Fresh::<K>::empty().await;
    empty
        .open(StoreOptions::default())
        .await
        .migrate()
        .await
        .unwrap();
    let applied = "SELECT version, description, checksum FROM _cqrs_migrations";
    let texts = |url: String| async move {
        let sql = K::either(
            format!("SELECT t::text FROM ({applied}) AS t ORDER BY version"),
            format!(
                "SELECT version || description || hex(checksum) FROM ({applied}) ORDER BY version"
            ),
        );
        K::texts(&url, sql).await
    };
    assert_eq!(
        texts(fresh.url.clone()).await,
        texts(empty.url.clone()).await
    );
}

/// To whoever looks at the log, and to a relay from the beginning.
async fn its_log_is_as_it_was_written<K: Kind>() {
    let (_fresh, store) = migrated::<K>(StoreOptions::default()).await;
    let log = store
        .events(&system(), Position::START, u32::MAX)
        .await
        .unwrap();
    assert_eq!(log.iter().map(Recorded::of).collect::<Vec<_>>(), recorded());
    let of_north = store
        .events(&north(), Position::START, u32::MAX)
        .await
        .unwrap();
    let expected = recorded()
        .into_iter()
        .filter(|event| event.tenant.as_deref() == Some("north"));
    assert_eq!(
        of_north.iter().map(Recorded::of).collect::<Vec<_>>(),
        expected.collect::<Vec<_>>()
    );
    let bus = Bus::default();
    let relay = Relay::new("outgoing", bus.clone());
    store
        .projector()
        .projection(relay)
        .run_until_idle()
        .await
        .unwrap();
    assert_eq!(*bus.0.lock().unwrap(), recorded());
}

async fn its_aggregates_are_loaded_and_go_on<K: Kind>() {
    let (_fresh, store) = migrated::<K>(StoreOptions::default()).await;
    let mut uow = store.unit_of_work(&north());
    assert!(
        uow.repository::<Shipment>()
            .find("S2".to_owned())
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        uow.repository::<Shipment>()
            .find("S3".to_owned())
            .await
            .unwrap()
            .is_none()
    );
    let mut shipment = uow.get::<Shipment>("S1".to_owned()).await.unwrap();
    assert_eq!(
        (
            shipment.customer.as_str(),
            shipment.kilograms,
            shipment.driver.as_deref()
        ),
        ("Ada", 13.0, Some("Kim \"K\" Öz\n"))
    );
    assert_eq!(shipment.root.version(), 3);
    assert_eq!(shipment.root.stamps().created_by.as_deref(), Some("ann"));
    let events = uow
        .repository::<Shipment>()
        .events("S1".to_owned())
        .await
        .unwrap();
    let payloads: Vec<_> = events.iter().map(|event| event.payload().clone()).collect();
    let customer = "Ada".to_owned();
    let at = "2025-03-01T08:30:00.123456Z".parse().unwrap();
    let driver = "Kim \"K\" Öz\n".to_owned();
    assert_eq!(
        payloads,
        [
            Some(ShipmentEvent::Booked {
                customer,
                kilograms: 12.5,
                note: None
            }),
            Some(ShipmentEvent::Dispatched { driver, at }),
            None,
        ]
    );
    let customer = "Bob".to_owned();
    shipment.customer.clone_from(&customer);
    let (kilograms, note) = (shipment.kilograms, None);
    shipment.root.raise(ShipmentEvent::Booked {
        customer,
        kilograms,
        note,
    });
    let stale = shipment.clone();
    uow.save(shipment).unwrap();
    let _ = uow.commit().await.unwrap();
    let mut uow = store.unit_of_work(&north());
    uow.save(stale).unwrap();
    let error = uow.commit().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Conflict {
                expected: 3,
                found: 4,
                ..
            }
        ),
        "{error:?}"
    );

    let mut uow = store.unit_of_work(&system());
    let shipment = uow.get::<Shipment>("S2".to_owned()).await.unwrap();
    assert_eq!((shipment.kilograms, shipment.driver), (1e300, None));
    let events = uow.repository::<Meter>().events(7).await.unwrap();
    let payloads: Vec<_> = events.iter().map(|event| event.payload().clone()).collect();
    assert_eq!(
        payloads,
        [
            Some(MeterEvent::Installed(1, "cellar".to_owned())),
            Some(MeterEvent::Counted(i64::MAX)),
            Some(MeterEvent::Counted(-1)),
        ]
    );
    assert_eq!(uow.get::<Meter>(7).await.unwrap().count, i64::MAX - 1);
    let silent = uow.get::<Meter>(8).await.unwrap();
    assert_eq!((silent.count, silent.root.version()), (0, 1));

    // Ids of the old log are not used again, and its positions are not given again.
    let mut uow = store.unit_of_work(&north());
    let mut root = Root::new();
    let note = None;
    root.raise(ShipmentEvent::Booked {
        customer: "Cy".to_owned(),
        kilograms: 1.0,
        note,
    });
    let again = Shipment {
        id: "S3".to_owned(),
        root,
        customer: "Cy".to_owned(),
        kilograms: 1.0,
        driver: None,
    };
    uow.save(again).unwrap();
    let error = uow.commit().await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
    let log = store
        .events(&system(), Position(19), u32::MAX)
        .await
        .unwrap();
    let versions: Vec<_> = log.iter().map(Envelope::aggregate_version).collect();
    assert_eq!(versions, [4]);
}

/// Of one that had a row then, and has none now.
async fn its_events_become_the_state_of_an_aggregate<K: Kind>() {
    let (_fresh, store) = migrated::<K>(StoreOptions::default()).await;
    let mut uow = store.unit_of_work(&north());
    let mut account = uow.get::<Account>("A1".to_owned()).await.unwrap();
    assert_eq!(
        (
            account.owner.as_str(),
            account.cents,
            account.is_closed,
            account.root.version()
        ),
        ("Ada", 500, false, 4)
    );
    assert!(
        uow.repository::<Account>()
            .find("A2".to_owned())
            .await
            .unwrap()
            .is_none()
    );
    let at: DateTime<Utc> = "2025-03-01T09:00:08.500Z".parse().unwrap();
    let mut accounts = uow.repository::<Account>();
    let before = accounts
        .find_as_of("A1".to_owned(), AsOf::Time(at))
        .await
        .unwrap();
    assert_eq!(
        before.map(|account| (account.cents, account.root.version())),
        Some((300, 2))
    );
    let history = accounts.events("A1".to_owned()).await.unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|event| (event.payload().clone(), event.metadata().actor.clone()))
        .collect();
    let deposited = |cents| Some(AccountEvent::Deposited { cents });
    let ann = || Some("ann".to_owned());
    let owner = "Ada".to_owned();
    assert_eq!(
        told,
        [
            (Some(AccountEvent::Opened { owner }), ann()),
            (deposited(300), ann()),
            (deposited(400), None),
            (deposited(-200), ann()),
        ]
    );
    account.raise(AccountEvent::Deposited { cents: 1 });
    uow.save(account).unwrap();
    let _ = uow.commit().await.unwrap();
    store.snapshots_written().await;
    let mut uow = store.unit_of_work(&system());
    let account = uow.get::<Account>("A1".to_owned()).await.unwrap();
    assert_eq!((account.cents, account.root.version()), (501, 5));
    let account = uow.get::<Account>("A2".to_owned()).await.unwrap();
    assert_eq!(
        (
            account.owner.as_str(),
            account.cents,
            account.is_closed,
            account.root.version()
        ),
        ("Béla", 1000, true, 3)
    );
}

/// One goes on behind its checkpoint, and applies nothing twice. Another begins with the first event.
async fn its_projections_go_on_and_begin_anew<K: Kind>() {
    let (_fresh, store) = migrated::<K>(StoreOptions::default()).await;
    store.create_tables(&[NewTotal::table()]).await.unwrap();
    let before = store.subscriptions().await.unwrap();
    let told: Vec<_> = before
        .iter()
        .map(|status| {
            let state = match &status.state {
                SubscriptionState::Active => None,
                SubscriptionState::Halted(failure) => {
                    Some((failure.position, failure.error.clone()))
                }
                other => panic!("{other:?}"),
            };
            (status.name.as_str(), status.position, state)
        })
        .collect();
    let why = "no such owner".to_owned();
    assert_eq!(
        told,
        [
            ("account_total", Position(10), None),
            ("of_old", Position(5), Some((Some(Position(7)), why))),
        ]
    );
    let projector = store.projector().rows(OldTotals).rows(NewTotals);
    projector.run_until_idle().await.unwrap();
    let rows = store.read_models(&system());
    for (number, events, cents) in [("A1", 4, 500), ("A2", 3, 1000)] {
        let number = number.to_owned();
        let old = rows.find::<OldTotal>(number.clone()).await.unwrap();
        let new = rows.find::<NewTotal>(number.clone()).await.unwrap();
        let expected = OldTotal {
            number: number.clone(),
            events,
            cents,
        };
        assert_eq!(old, Some(expected));
        assert_eq!(
            new,
            Some(NewTotal {
                number,
                events,
                cents
            })
        );
    }
}

/// On each read, and by a check of the whole log, which finds the one that is altered.
async fn its_hashes_are_verified<K: Kind>() {
    let (fresh, store) = migrated::<K>(StoreOptions::default().verify_hashes()).await;
    let log = store
        .events(&system(), Position::START, u32::MAX)
        .await
        .unwrap();
    assert_eq!(log.len(), 17);
    let mut uow = store.unit_of_work(&north());
    assert_eq!(
        uow.get::<Account>("A1".to_owned()).await.unwrap().cents,
        500
    );
    let report = store.check_log(&system(), &LogCheck::new()).await.unwrap();
    assert!(report.is_intact(), "{:?}", report.breaks());
    assert_eq!((report.events(), report.streams()), (17, 0));
    fresh
        .run("UPDATE cqrs_event SET payload = '{\"euros\":5}' WHERE position = 9")
        .await;
    let report = store.check_log(&system(), &LogCheck::new()).await.unwrap();
    let found: Vec<_> = report.breaks().iter().map(|found| found.position).collect();
    assert_eq!(found, [Some(Position(9))]);
    let mut uow = store.unit_of_work(&north());
    let error = uow
        .get::<Account>("A1".to_owned())
        .await
        .map(drop)
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Undecodable {
                position: Position(9),
                ..
            }
        ),
        "{error:?}"
    );
}
