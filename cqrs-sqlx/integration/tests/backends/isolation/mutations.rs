//! The checks of isolation notice when a statement forgets the tenant, whichever it is.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use cqrs_core::conformance::fixtures::{AccountForm, Ledger, Stop, Tour, Trip};
use cqrs_core::sealed::{MasterKey, MasterKeys, Sealing, Subject};
use cqrs_core::{
    Aggregate, AsOf, CommitReceipt, DomainEvent, Entity, Envelope, Error, EventHistory,
    IdempotencyKey, Maintain, Owned, PageRequest, Position, Projection, ProjectionTransaction,
    Query, ReadModel, Repository, Result, Root, RowAddress, Sourced, SourcedState, Specification,
    Store, UnitOfWork,
};
use cqrs_integration::domain::{Parcel, ParcelEvent, ParcelId, ParcelViews};
use cqrs_integration::stores;
use cqrs_sqlx::{
    __TenantSite as TenantSite, __mutation::Opened, PgStore, Postgres, Retention, SqlStore,
    SqlTransaction, Sqlite, StoreOptions,
};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use super::{loaded, parcel_of};
use cqrs_integration::each::{Fresh, Kind};

/// What a check saw that it must not see.
type Leaks = Vec<String>;

macro_rules! check {
    ($leaks:ident, $found:expr, $expected:pat) => {
        let found = $found;
        if !matches!(found, $expected) {
            $leaks.push(format!("line {}: {found:?}", line!()));
        }
    };
}

/// What a tenant's parcels are labelled: a key that several tenants have.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "label", tenant)]
struct Label {
    #[read_model(key)]
    text: String,
    writes: i64,
}

/// What a [`Probe`] does with the row of an event.
#[derive(Debug, Clone, Copy)]
enum Step {
    Upsert,
    Load,
    Delete,
}

struct Probe {
    step: Step,
    loaded: Arc<Mutex<usize>>,
}

impl<K: Kind> Projection<SqlTransaction<K>> for Probe {
    type Event = ParcelEvent;

    fn name(&self) -> &str {
        match self.step {
            Step::Upsert => "upsert",
            Step::Load => "load",
            Step::Delete => "delete",
        }
    }

    async fn apply(
        &self,
        page: &[Envelope<ParcelEvent>],
        transaction: &mut SqlTransaction<K>,
    ) -> Result<()> {
        for event in page {
            let ParcelEvent::Registered { label } = event.payload() else {
                continue;
            };
            let row = Owned {
                tenant: event.tenant().cloned(),
                row: Label {
                    text: label.clone(),
                    writes: 1,
                },
            };
            let addresses: [RowAddress; 1] = [row.address()?];
            match self.step {
                Step::Upsert => transaction.upsert(&[row]).await?,
                Step::Load => {
                    let found = transaction.load::<Label>(&addresses).await?;
                    let own = found
                        .iter()
                        .filter(|row| row.tenant.as_ref() == event.tenant());
                    let right = own.count() == 1 && found.len() == 1;
                    *self.loaded.lock().unwrap() += usize::from(right);
                }
                // Those of the north alone.
                Step::Delete if event.tenant().is_some_and(|id| id.as_str() == "north") => {
                    transaction.delete::<Label>(&addresses).await?;
                }
                Step::Delete => {}
            }
        }
        Ok(())
    }
}

async fn probe<K: Kind>(store: &SqlStore<K>, step: Step) -> Result<usize> {
    let loaded = Arc::new(Mutex::new(0));
    let probe = Probe {
        step,
        loaded: Arc::clone(&loaded),
    };
    let projector = store.projector().retry_delays([]).projection(probe);
    projector.run_until_idle().await?;
    let loaded = *loaded.lock().unwrap();
    Ok(loaded)
}

async fn check_reads<K: Kind>(store: &SqlStore<K>, foreign: ParcelId, leaks: &mut Leaks) {
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    check!(
        leaks,
        uow.get::<Parcel>(foreign).await,
        Err(Error::NotFound { .. })
    );
    let mut parcels = uow.repository::<Parcel>();
    let all = parcels.query(Query::all()).await.map(|all| all.len());
    check!(leaks, all, Ok(1));
    check!(
        leaks,
        parcels.count(Parcel::fields().grams.eq(7)).await,
        Ok(1)
    );
    let exists = parcels.exists(Parcel::fields().id.eq(foreign)).await;
    check!(leaks, exists, Ok(false));
    let page = parcels.page(Query::all(), PageRequest::first(9)).await;
    check!(leaks, page.map(|page| page.items.len()), Ok(1));
    let page = PageRequest::skip(0, 9).with_total();
    let page = parcels.page(Query::all(), page).await;
    check!(leaks, page.map(|page| page.total), Ok(Some(1)));
    let north = stores::tenant("north");
    let log = store.events(&north, Position::START, 99);
    check!(leaks, log.await.map(|log| log.len()), Ok(2));
    let folded = store.live(&north).rows(&ParcelViews).await;
    check!(leaks, folded.map(|rows| rows.len()), Ok(1));
}

/// The rows that bulk changes reach.
async fn check_maintenance<K: Kind>(store: &SqlStore<K>, leaks: &mut Leaks) {
    let parcels = store.maintenance::<Parcel>(&stores::tenant("north"));
    let set = [Parcel::fields().grams.set(9)];
    let changed = parcels.update(Specification::all(), set).await;
    check!(leaks, changed.map(|done| done.items()), Ok(1));
}

/// Writes to rows that went to another tenant after they were loaded.
async fn check_writes<K: Locking>(
    fresh: &Fresh<K>,
    store: &SqlStore<K>,
    own: ParcelId,
    leaks: &mut Leaks,
) {
    let another = parcel_of(store, "north", "another").await;
    let mut first = loaded(store, "north", own).await;
    let mut second = loaded(store, "north", another).await;
    first.weigh(1);
    second.weigh(1);
    let to = async |tenant: &str| {
        let moved = format!("UPDATE parcel SET tenant_id = '{tenant}' WHERE label <> 's'");
        fresh.run(moved).await;
    };
    to("south").await;
    let before = fresh.state().await;
    for several in [false, true] {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        uow.save(first.clone()).unwrap();
        if several {
            uow.save(second.clone()).unwrap();
        }
        let refused = uow.commit().await;
        check!(leaks, refused, Err(Error::NotFound { .. }));
        if fresh.state().await != before {
            leaks.push(format!("several: {several}: rows were written"));
        }
    }
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.guard(&first).unwrap();
    check!(leaks, uow.commit().await, Err(Error::NotFound { .. }));
    // The other tenant's rows are not even locked.
    let locked = K::lock(&fresh.url, "SELECT 1 FROM parcel FOR UPDATE").await;
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(first.clone()).unwrap();
    uow.remove(second.clone()).unwrap();
    check!(leaks, uow.commit().await, Err(Error::NotFound { .. }));
    if let Some(connection) = locked {
        connection.close().await.unwrap();
    }
    to("north").await;
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "diary")]
enum DiaryEvent {
    Begun,
}

/// An event-sourced aggregate without snapshots.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = DiaryEvent, tenant)]
struct Diary {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<DiaryEvent>,
}

impl Sourced for Diary {
    fn apply(&mut self, event: &DiaryEvent) {
        match event {
            DiaryEvent::Begun => {}
        }
    }
}

/// Streams of another tenant, with and without a snapshot; and those that went to one.
async fn check_streams<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>, leaks: &mut Leaks) {
    let (north, south) = (stores::tenant("north"), stores::tenant("south"));
    let opened = |number: &str, events: usize| {
        let mut ledger = Ledger::unopened(number);
        ledger.open("ann");
        (1..events).for_each(|_| ledger.transfer(1));
        ledger
    };
    let mut diary = Diary::blank(1);
    diary.raise(DiaryEvent::Begun);
    let mut uow = store.unit_of_work(&south);
    uow.save(diary).unwrap();
    uow.save(opened("short", 1)).unwrap();
    uow.save(opened("long", 4)).unwrap();
    check!(
        leaks,
        uow.commit().await.map(|done| done.events().len()),
        Ok(6)
    );
    store.snapshots_written().await;
    let mut uow = store.unit_of_work(&north);
    check!(
        leaks,
        uow.get::<Diary>(1).await,
        Err(Error::NotFound { .. })
    );
    let now = AsOf::Version(9);
    let found = uow.repository::<Diary>().find_as_of(1, now).await;
    check!(leaks, found.map(|diary| diary.is_some()), Ok(false));
    let events = uow.repository::<Diary>().events(1).await;
    check!(leaks, events.map(|events| events.len()), Ok(0));
    for number in ["short", "long"] {
        let found = uow.get::<Ledger>(number.to_owned()).await;
        check!(leaks, found, Err(Error::NotFound { .. }));
    }

    let mut uow = store.unit_of_work(&north);
    uow.save(opened("own", 1)).unwrap();
    let _ = uow.commit().await.unwrap();
    let mut uow = store.unit_of_work(&north);
    let mut own = uow.get::<Ledger>("own".to_owned()).await.unwrap();
    own.transfer(1);
    let to = async |tenant: &str| {
        let moved =
            format!("UPDATE cqrs_event SET tenant_id = '{tenant}' WHERE aggregate_id = 'own'");
        fresh.run(moved).await;
    };
    to("south").await;
    let before = fresh.state().await;
    for several in [false, true] {
        let mut uow = store.unit_of_work(&north);
        uow.save(own.clone()).unwrap();
        if several {
            uow.save(opened("new", 1)).unwrap();
        }
        check!(leaks, uow.commit().await, Err(Error::NotFound { .. }));
        if fresh.state().await != before {
            leaks.push(format!("several: {several}: events were written"));
        }
    }
    to("north").await;
}

/// Children of one tenant's aggregate that say they are another's, and locks of aggregates that
/// have children.
async fn check_children<K: Locking>(fresh: &Fresh<K>, store: &SqlStore<K>, leaks: &mut Leaks) {
    let north = stores::tenant("north");
    let save = async |tenant: &str, tour: Tour| {
        let mut uow = store.unit_of_work(&stores::tenant(tenant));
        uow.save(tour)?;
        uow.commit().await.map(|receipt| receipt.events().len())
    };
    let load = async |id| store.unit_of_work(&north).get::<Tour>(id).await;
    let tour = Tour::plan("n", &["own", "stray"]);
    let id = tour.id;
    check!(leaks, save("north", tour).await, Ok(1));
    check!(leaks, save("south", Tour::plan("s", &["own"])).await, Ok(1));
    let mut whole = load(id).await.unwrap();
    whole.stops[1].minutes = Some(1);
    let stray = "UPDATE conformance_stop SET tenant_id = 'south' WHERE city = 'stray'";
    fresh.run(stray).await;
    check!(leaks, load(id).await.map(|tour| tour.stops.len()), Ok(1));
    let condition = Tour::fields()
        .stops
        .any_child(Stop::fields().city.eq("stray"));
    let mut uow = store.unit_of_work(&north);
    check!(
        leaks,
        uow.repository::<Tour>().count(condition).await,
        Ok(0)
    );
    check!(leaks, save("north", whole).await, Err(Error::Store(_)));
    let south = "SELECT 1 FROM conformance_tour WHERE tenant_id = 'south' FOR UPDATE";
    let locked = K::lock(&fresh.url, south).await;
    let mut uow = store.unit_of_work(&north);
    let tours = uow.query::<Tour>(Query::all().lock()).await;
    check!(leaks, tours.map(|tours| tours.len()), Ok(1));
    uow.rollback().await;
    if let Some(connection) = locked {
        connection.close().await.unwrap();
    }
}

/// Revisions of another tenant's aggregates, and children that went to one.
async fn check_history<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>, leaks: &mut Leaks) {
    let north = stores::tenant("north");
    let save = async |tenant: &str, trip: Trip| {
        let mut uow = store.unit_of_work(&stores::tenant(tenant));
        uow.save(trip)?;
        uow.commit().await.map(|receipt| receipt.events().len())
    };
    let change = async |tenant: &str, id| {
        let mut uow = store.unit_of_work(&stores::tenant(tenant));
        let mut trip: Trip = uow.get(id).await.unwrap();
        trip.rename("changed");
        save(tenant, trip).await.unwrap();
    };
    let (mut own, foreign) = (Trip::plan("n"), Trip::plan("s"));
    own.stops = vec![Stop::at("own"), Stop::at("stray")];
    let (own_id, foreign_id) = (own.id, foreign.id);
    check!(leaks, save("north", own).await, Ok(1));
    check!(leaks, save("south", foreign).await, Ok(1));
    let stray = "UPDATE conformance_trip_stop SET tenant_id = 'south' WHERE city = 'stray'";
    fresh.run(stray).await;
    change("north", own_id).await;
    change("south", foreign_id).await;

    let mut uow = store.unit_of_work(&north);
    let mut trips = uow.repository::<Trip>();
    let last = trips.find_as_of(own_id, AsOf::Version(2)).await.unwrap();
    check!(leaks, last.map(|trip| trip.stops.len()), Some(1));
    let page = trips.revisions(foreign_id, PageRequest::first(9)).await;
    check!(leaks, page.map(|page| page.items.len()), Ok(0));
    let page = PageRequest::first(9).with_total();
    let page = trips.revisions(foreign_id, page).await;
    check!(leaks, page.map(|page| page.total), Ok(Some(0)));
    let found = trips.find_as_of(foreign_id, AsOf::Version(9)).await;
    check!(leaks, found.map(|trip| trip.is_some()), Ok(false));
    let first =
        format!("DELETE FROM cqrs_history WHERE aggregate_id = '{foreign_id}' AND version = 1");
    fresh.run(first).await;
    let found = trips.find_as_of(foreign_id, AsOf::Version(1)).await;
    check!(leaks, found.map(|trip| trip.is_some()), Ok(false));

    change("south", foreign_id).await;
    let later = Utc::now() + TimeDelta::days(1);
    let removed = store
        .maintenance::<Trip>(&north)
        .remove_history(later)
        .await;
    check!(leaks, removed.map(|done| done.items()), Ok(1));
}

async fn check_rows<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>, leaks: &mut Leaks) {
    parcel_of(store, "north", "same").await;
    parcel_of(store, "south", "same").await;
    check!(leaks, probe(store, Step::Upsert).await, Ok(0));
    let rows = fresh.number("SELECT count(*) FROM label WHERE text = 'same'");
    check!(leaks, rows.await, 2);
    let events = fresh.number("SELECT count(*) FROM label").await;
    let events = usize::try_from(events).unwrap();
    let loaded = probe(store, Step::Load).await;
    if !loaded.as_ref().is_ok_and(|loaded| *loaded == events) {
        leaks.push(format!("{loaded:?} rows for {events} addresses"));
    }
    check!(leaks, probe(store, Step::Delete).await, Ok(0));
    let left = fresh.number("SELECT count(*) FROM label WHERE text = 'same'");
    check!(leaks, left.await, 1);
}

async fn check_receipts<K: Kind>(store: &SqlStore<K>, leaks: &mut Leaks) {
    let key = IdempotencyKey::new("one for all").unwrap();
    for tenant in ["north", "south"] {
        let context = stores::tenant(tenant);
        let receipt = store.execute_once(&context, &key, async |_| Ok(tenant.to_owned()));
        let output = receipt.await.map(CommitReceipt::into_output);
        if !output.as_ref().is_ok_and(|output| output == tenant) {
            leaks.push(format!("the receipt of {tenant}: {output:?}"));
        }
    }
}

/// Two subjects of one name, of which one is forgotten, and the other gets another master key.
async fn check_subject_keys<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>, leaks: &mut Leaks) {
    let subject = Subject::new("one for all").unwrap();
    let [north, south] = ["north", "south"].map(|name| store.subject_keys(&stores::tenant(name)));
    for keys in [&north, &south] {
        check!(leaks, keys.key(&subject).await.map(drop), Ok(()));
    }
    check!(leaks, north.forget(&subject).await, Ok(true));
    check!(leaks, south.key(&subject).await.map(drop), Ok(()));
    let other = Subject::new("another").unwrap();
    check!(leaks, north.key(&other).await.map(drop), Ok(()));
    let keys = MasterKeys::new(MasterKey::new(1, [1; 32])).and_keys_in_clear();
    let store = fresh.open(StoreOptions::default().master_keys(keys)).await;
    let south = stores::tenant("south");
    let done = store.rewrap_subject_keys(&south, |_| {}).await;
    check!(leaks, done.map(|done| done.keys), Ok(1));
}

async fn check_retention<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>, leaks: &mut Leaks) {
    fresh
        .run("UPDATE cqrs_event SET recorded_at = '2001-02-03T04:05:06.000000Z'")
        .await;
    let events = "SELECT count(*) FROM cqrs_event WHERE tenant_id = 'south'";
    let before = fresh.number(events).await;
    let retention = Retention::older_than(Duration::from_secs(3600)).forget_first_events();
    let north = stores::tenant("north");
    let removed = store.remove_events(&north, &retention).await;
    check!(leaks, removed.map(|removed| removed.events > 0), Ok(true));
    if fresh.number(events).await != before {
        leaks.push("events of another tenant were removed".to_owned());
    }
}

/// What leaks with this site open, and whether any statement was built with it.
async fn leaks<K: Locking>(site: Option<TenantSite>) -> (Leaks, bool) {
    let opened = Opened::site(site);
    let mut fresh = Fresh::<K>::empty().await;
    let first = if fresh.url.contains('?') { '&' } else { '?' };
    if !K::IMPATIENT.is_empty() {
        fresh.url = format!("{}{first}{}", fresh.url, K::IMPATIENT);
    }
    let store = fresh.open(StoreOptions::default()).await;
    let store = stores::with_tables(store).await;
    store
        .create_tables(&[Label::table(), Tour::table(), Trip::table()])
        .await
        .unwrap();
    let mut leaks = Vec::new();
    let own = parcel_of(&store, "north", "n").await;
    let foreign = parcel_of(&store, "south", "s").await;
    check_reads(&store, foreign, &mut leaks).await;
    K::check_loads_together(&fresh, foreign, &mut leaks).await;
    check_maintenance(&store, &mut leaks).await;
    check_writes(&fresh, &store, own, &mut leaks).await;
    check_children(&fresh, &store, &mut leaks).await;
    check_history(&fresh, &store, &mut leaks).await;
    check_streams(&fresh, &store, &mut leaks).await;
    check_rows(&fresh, &store, &mut leaks).await;
    check_receipts(&store, &mut leaks).await;
    check_subject_keys(&fresh, &store, &mut leaks).await;
    check_retention(&fresh, &store, &mut leaks).await;
    K::check_policies(&fresh.url, &mut leaks).await;
    (leaks, opened.conditions() > 0)
}

/// How rows are locked against others, where that is by row.
trait Locking: Kind {
    /// In the URL: who waits for a lock fails soon.
    const IMPATIENT: &str;
    /// What is no statement of this database.
    const WITHOUT: &[TenantSite];

    async fn lock(url: &str, select: &str) -> Option<PgConnection>;

    /// Loads of many callers at the same moment.
    async fn check_loads_together(fresh: &Fresh<Self>, foreign: ParcelId, leaks: &mut Leaks);

    /// What a role sees that policies hold for.
    async fn check_policies(url: &str, leaks: &mut Leaks);
}

impl Locking for Postgres {
    const IMPATIENT: &str = "options=-c%20lock_timeout%3D300";
    const WITHOUT: &[TenantSite] = &[];

    async fn lock(url: &str, select: &str) -> Option<PgConnection> {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let lock = format!("BEGIN; {select}");
        Self::run_on(&mut connection, lock).await.unwrap();
        Some(connection)
    }

    async fn check_loads_together(fresh: &Fresh<Self>, foreign: ParcelId, leaks: &mut Leaks) {
        let store = fresh.open(StoreOptions::default().coalesce(128)).await;
        let mut loads = JoinSet::new();
        for _ in 0..40 {
            let store = store.clone();
            loads.spawn(async move {
                let mut uow = store.unit_of_work(&stores::tenant("north"));
                uow.repository::<Parcel>()
                    .find(foreign)
                    .await
                    .map(|found| found.is_some())
            });
        }
        for found in loads.join_all().await {
            check!(leaks, found, Ok(false));
        }
    }

    async fn check_policies(url: &str, leaks: &mut Leaks) {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let policies = PgStore::row_level_security_sql(&[Parcel::table()]);
        Self::run_on(&mut connection, policies).await.unwrap();
        // It goes with the transaction.
        let role = "BEGIN; CREATE ROLE cqrs_policies; GRANT SELECT ON parcel TO cqrs_policies;
                    SET LOCAL ROLE cqrs_policies; SET LOCAL cqrs.tenant = 'north'";
        Self::run_on(&mut connection, role.to_owned())
            .await
            .unwrap();
        let foreign: i64 =
            sqlx::query_scalar("SELECT count(*) FROM parcel WHERE tenant_id <> 'north'")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        check!(leaks, foreign, 0);
        Self::run_on(&mut connection, "ROLLBACK".to_owned())
            .await
            .unwrap();
    }
}

impl Locking for Sqlite {
    const IMPATIENT: &str = "";
    /// It has one statement for each row, and one writer.
    const WITHOUT: &[TenantSite] = &[
        TenantSite::ByKeys,
        TenantSite::GuardMany,
        TenantSite::GuardLock,
        TenantSite::LockedRows,
        TenantSite::Policy,
        TenantSite::StreamVersion,
    ];

    async fn lock(_: &str, _: &str) -> Option<PgConnection> {
        None
    }

    async fn check_loads_together(_: &Fresh<Self>, _: ParcelId, _: &mut Leaks) {}

    async fn check_policies(_: &str, _: &mut Leaks) {}
}

/// On one thread, which is the one that the sites are opened on.
async fn every_forgotten_tenant_is_noticed<K: Locking>() {
    assert_eq!(leaks::<K>(None).await, (Vec::new(), false));
    for site in TenantSite::ALL {
        let (leaks, built) = leaks::<K>(Some(*site)).await;
        if K::WITHOUT.contains(site) {
            assert!(!built, "{site:?} is a statement");
            assert_eq!(leaks, Leaks::new(), "{site:?}");
        } else {
            assert!(built, "{site:?}: the checks do not come by");
            assert!(!leaks.is_empty(), "{site:?}: nothing noticed");
        }
    }
}

#[tokio::test]
async fn every_tenant_that_postgres_forgets_is_noticed() {
    every_forgotten_tenant_is_noticed::<Postgres>().await;
}

#[tokio::test]
async fn every_tenant_that_sqlite_forgets_is_noticed() {
    every_forgotten_tenant_is_noticed::<Sqlite>().await;
}
