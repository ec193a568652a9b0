//! Tenants: what belongs to one does not exist for another, in every operation.

mod mutations;

use cqrs_core::{
    Error, Maintain, PageRequest, Position, Query, ReadModels, Repository, RequestContext,
    Specification, Store, TenantId, UnitOfWork,
};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::domain::{self, Parcel, ParcelId, ParcelView, ParcelViews, Parcels};
use cqrs_integration::stores;
use cqrs_integration::wire::WireProxy;
use cqrs_sqlx::{SqlStore, StoreOptions};

use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(
    reads_see_their_tenant_alone,
    writes_reach_their_tenant_alone,
    maintenance_reaches_its_tenant_alone,
    an_aggregate_cannot_change_its_tenant,
    read_models_are_the_tenants_own,
    the_log_is_read_by_tenant,
    names_that_look_alike_are_other_tenants,
);

/// Commits a parcel of a tenant.
async fn parcel_of<K: Kind>(store: &SqlStore<K>, tenant: &str, label: &str) -> ParcelId {
    let mut parcel = Parcel::register(label);
    parcel.weigh(7);
    let id = domain::id(&parcel);
    let mut uow = store.unit_of_work(&stores::tenant(tenant));
    uow.save(parcel).unwrap();
    let _ = uow.commit().await.unwrap();
    id
}

fn labels(parcels: &[Parcel]) -> Vec<&str> {
    let mut labels: Vec<&str> = parcels.iter().map(Parcel::label).collect();
    labels.sort_unstable();
    labels
}

fn assert_not_found<T: std::fmt::Debug>(result: Result<T, Error>, id: ParcelId) {
    match result {
        Err(Error::NotFound {
            aggregate: "parcel",
            id: missing,
        }) => assert_eq!(missing, id.to_string()),
        other => panic!("{other:?}"),
    }
}

async fn reads_see_their_tenant_alone<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let north = parcel_of(&store, "north", "n").await;
    let south = parcel_of(&store, "south", "s").await;
    // Each read outside of a transaction, and in one.
    for flushed in [false, true] {
        for (tenant, own, other, label) in
            [("north", north, south, "n"), ("south", south, north, "s")]
        {
            let mut uow = store.unit_of_work(&stores::tenant(tenant));
            if flushed {
                uow.connection().await.unwrap();
            }
            assert_eq!(uow.get::<Parcel>(own).await.unwrap().label(), label);
            assert_not_found(uow.get::<Parcel>(other).await, other);
            let mut parcels = uow.repository::<Parcel>();
            assert!(parcels.find(other).await.unwrap().is_none());
            assert_eq!(labels(&parcels.find_open(10).await.unwrap()), [label]);
            assert_eq!(labels(&parcels.query(Query::all()).await.unwrap()), [label]);
            let fields = Parcel::fields;
            let any = || fields().grams.eq(7);
            assert_eq!(parcels.count(any()).await.unwrap(), 1);
            assert_eq!(parcels.count(any() | any()).await.unwrap(), 1);
            assert_eq!(parcels.count(!fields().grams.eq(8)).await.unwrap(), 1);
            assert_eq!(parcels.count(fields().id.eq(other)).await.unwrap(), 0);
            assert!(!parcels.exists(fields().id.eq(other)).await.unwrap());
            assert!(parcels.exists(fields().id.eq(own)).await.unwrap());
            let foreign = if label == "n" { "s" } else { "n" };
            let or = any() | fields().label.eq(foreign);
            assert_eq!(
                labels(&parcels.query(Query::filter(or)).await.unwrap()),
                [label]
            );
            uow.rollback().await;
        }
    }
    let mut system = store.unit_of_work(&RequestContext::system());
    assert_eq!(system.get::<Parcel>(north).await.unwrap().label(), "n");
    assert_eq!(system.get::<Parcel>(south).await.unwrap().label(), "s");
    let mut parcels = system.repository::<Parcel>();
    assert_eq!(labels(&parcels.find_open(10).await.unwrap()), ["n", "s"]);
    assert_eq!(
        parcels.count(Parcel::fields().grams.eq(7)).await.unwrap(),
        2
    );
}

/// Every operation of maintenance, with conditions that are true for the rows of the others.
async fn maintenance_reaches_its_tenant_alone<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let foreign = parcel_of(&store, "south", "s").await;
    let removed = parcel_of(&store, "south", "removed").await;
    let fields = Parcel::fields();
    let of = |tenant: &str| {
        let context = stores::tenant(tenant);
        store.maintenance::<Parcel>(&context).include_deleted()
    };
    of("south")
        .remove(fields.label.eq("removed"))
        .await
        .unwrap();
    let before = fresh.state().await;
    let north = of("north");
    for condition in [
        Specification::all(),
        fields.id.eq(foreign) | fields.id.eq(removed),
        !fields.grams.eq(0) | fields.label.eq("s"),
        fields.deleted_at.is_null() | fields.deleted_at.is_not_null(),
    ] {
        let query = || Query::filter(condition.clone());
        assert!(north.query(query()).await.unwrap().is_empty());
        assert_eq!(north.count(condition.clone()).await.unwrap(), 0);
        let page = PageRequest::first(5).with_total();
        assert_eq!(north.page(query(), page).await.unwrap().total, Some(0));
        assert!(north.export(query()).next().await.unwrap().is_none());
        let set = [fields.label.set("taken")];
        for done in [
            north.update(condition.clone(), set).await,
            north.remove(condition.clone()).await,
            north.restore(condition.clone()).await,
            north.purge(condition.clone()).await,
        ] {
            assert_eq!(done.unwrap().items(), 0);
        }
    }
    let mut loaded = of("south").query(Query::all()).await.unwrap();
    let error = north.insert([loaded.remove(0)]).await.unwrap_err();
    assert!(matches!(error, Error::Store(_)), "{error:?}");
    let error = north.import(loaded.into_iter(), |_| {}).await.unwrap_err();
    assert!(error.cause().is_not_found(), "{error:?}");
    assert_eq!(fresh.state().await, before);

    let own = parcel_of(&store, "north", "n").await;
    let wide = || fields.id.eq(own) | fields.id.ne(own);
    assert_eq!(labels(&north.query(wide().into()).await.unwrap()), ["n"]);
    let set = [fields.label.set("m")];
    assert_eq!(north.update(wide(), set).await.unwrap().items(), 1);
    assert_eq!(north.remove(wide()).await.unwrap().items(), 1);
    assert_eq!(north.restore(wide()).await.unwrap().items(), 1);
    assert_eq!(north.purge(wide()).await.unwrap().items(), 1);
    let left = of("south").query(Query::all()).await.unwrap();
    assert_eq!(labels(&left), ["removed", "s"]);
}

async fn loaded<K: Kind>(store: &SqlStore<K>, tenant: &str, id: ParcelId) -> Parcel {
    let mut uow = store.unit_of_work(&stores::tenant(tenant));
    uow.get::<Parcel>(id).await.unwrap()
}

async fn writes_reach_their_tenant_alone<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let north = parcel_of(&store, "north", "n").await;
    let before = fresh.state().await;

    // One that was loaded for its tenant is not even staged for another.
    let mut foreign = loaded(&store, "north", north).await;
    foreign.weigh(1);
    let mut uow = store.unit_of_work(&stores::tenant("south"));
    assert_not_found(uow.save(foreign.clone()), north);
    assert_not_found(uow.remove(foreign.clone()), north);
    let receipt = uow.commit().await.unwrap();
    assert!(receipt.events().is_empty());
    assert_eq!(fresh.state().await, before);

    // The row went to another tenant meanwhile: past the framework, the one way there is.
    let mut changed = foreign;
    for staged in 0..6 {
        fresh.run("UPDATE parcel SET tenant_id = 'south'").await;
        let moved = fresh.state().await;
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        if staged % 2 == 1 {
            uow.save(Parcel::register("beside")).unwrap();
        }
        match staged / 2 {
            0 => uow.save(changed.clone()).unwrap(),
            1 => uow.remove(changed.clone()).unwrap(),
            _ => {
                fresh.run("UPDATE parcel SET tenant_id = 'north'").await;
                let mut silent = loaded(&store, "north", north).await;
                fresh.run("UPDATE parcel SET tenant_id = 'south'").await;
                silent.relabel("other");
                uow.save(silent).unwrap();
            }
        }
        assert_not_found(uow.commit().await, north);
        assert_eq!(fresh.state().await, moved);
        fresh.run("UPDATE parcel SET tenant_id = 'north'").await;
        assert_eq!(fresh.state().await, before);
    }

    // The system's scope may.
    changed.weigh(1);
    let mut uow = store.unit_of_work(&RequestContext::system());
    uow.save(changed).unwrap();
    let receipt = uow.commit().await.unwrap();
    assert_eq!(receipt.events().len(), 2);
    let tenants = fresh.number("SELECT count(*) FROM parcel WHERE tenant_id = 'north'");
    assert_eq!(tenants.await, 1);
    let events = "SELECT count(*) FROM cqrs_event WHERE tenant_id = 'north'";
    assert_eq!(fresh.number(events).await, 4);
}

async fn an_aggregate_cannot_change_its_tenant<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let parcel = Parcel::register("n");
    let north = domain::id(&parcel);
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(parcel.clone()).unwrap();
    let _ = uow.commit().await.unwrap();
    let before = fresh.state().await;

    // The same id for another tenant.
    for flushed in [false, true] {
        let mut uow = store.unit_of_work(&stores::tenant("south"));
        uow.save(parcel.clone()).unwrap();
        let result = if flushed {
            uow.connection().await.map(drop)
        } else {
            uow.commit().await.map(drop)
        };
        match result {
            Err(Error::AlreadyExists { aggregate, id }) => {
                assert_eq!((aggregate, id), ("parcel", north.to_string()));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fresh.state().await, before);
    }

    // A new one under the system's scope needs a tenant.
    let mut uow = store.unit_of_work(&RequestContext::system());
    let error = uow.save(Parcel::register("whose")).unwrap_err();
    assert!(matches!(error, Error::TenantRequired { .. }), "{error:?}");
    assert!(uow.commit().await.unwrap().events().is_empty());
    assert_eq!(fresh.state().await, before);
}

async fn read_models_are_the_tenants_own<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let north = parcel_of(&store, "north", "n").await;
    let south = parcel_of(&store, "south", "s").await;
    let projector = store.projector().rows(ParcelViews);
    assert_eq!(projector.run_until_idle().await.unwrap(), 4);
    for (tenant, own, other) in [("north", north, south), ("south", south, north)] {
        let views = store.read_models(&stores::tenant(tenant));
        let found = views.find::<ParcelView>(own).await.unwrap().unwrap();
        assert_eq!((found.version, found.events, found.grams), (2, 2, 7));
        assert_eq!(views.find::<ParcelView>(other).await.unwrap(), None);
        let all = views.query(Query::<ParcelView>::all()).await.unwrap();
        assert_eq!(all, [found]);
        let all = ParcelView::fields().grams.eq(7);
        assert_eq!(views.count(all).await.unwrap(), 1);
        let stored = format!("SELECT count(*) FROM parcel_view WHERE tenant_id = '{tenant}'");
        assert_eq!(fresh.number(stored).await, 1);
    }
    let all = store.read_models(&RequestContext::system());
    assert_eq!(
        all.query(Query::<ParcelView>::all()).await.unwrap().len(),
        2
    );
    let nobody = store.read_models(&stores::tenant("west"));
    assert_eq!(nobody.query(Query::<ParcelView>::all()).await.unwrap(), []);
}

async fn the_log_is_read_by_tenant<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let north = parcel_of(&store, "north", "n").await;
    parcel_of(&store, "south", "s").await;
    let of = async |context: RequestContext| {
        let events = store.events(&context, Position::START, u32::MAX);
        events.await.unwrap()
    };
    let own = of(stores::tenant("north")).await;
    assert_eq!(own.len(), 2);
    for event in &own {
        assert_eq!(event.tenant().map(TenantId::as_str), Some("north"));
        assert_eq!(event.aggregate_id_str(), north.to_string());
    }
    assert_eq!(of(stores::tenant("west")).await, []);
    assert_eq!(of(RequestContext::system()).await.len(), 4);
}

/// By bytes: no case, no space, no normal form, and no pattern makes two tenants one.
async fn names_that_look_alike_are_other_tenants<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let own = parcel_of(&store, "caf\u{e9}", "own").await;
    for tenant in [
        "Caf\u{e9}",
        "caf\u{e9} ",
        " caf\u{e9}",
        "cafe\u{301}",
        "cafe",
        "caf_",
        "caf%",
        "%",
        "<system>",
        "' OR '1' = '1",
        "\u{fffd}",
    ] {
        let mut uow = store.unit_of_work(&stores::tenant(tenant));
        assert_not_found(uow.get::<Parcel>(own).await, own);
        let all = uow.repository::<Parcel>().query(Query::all()).await;
        assert_eq!(all.unwrap().len(), 0, "{tenant:?}");
    }
}

/// Every statement on the aggregate's table that the framework sends for a tenant says which.
#[tokio::test]
async fn every_statement_names_the_tenant() {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let proxy = WireProxy::start(database.url()).await;
    let store = stores::postgres_with(proxy.url(), StoreOptions::default()).await;
    let start = proxy.counts();
    let id = parcel_of(&store, "north", "n").await;
    let other = parcel_of(&store, "north", "o").await;
    for scenario in 0..10 {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        let mut parcel = uow.get::<Parcel>(id).await.unwrap();
        let mut beside = uow.get::<Parcel>(other).await.unwrap();
        let stale = parcel.clone();
        match scenario {
            0 => parcel.weigh(1),
            1 => {
                parcel.weigh(1);
                parcel.weigh(1);
            }
            2 => parcel.relabel("silent"),
            3 => {}
            _ => {
                parcel.weigh(1);
                beside.relabel(&scenario.to_string());
                uow.save(beside).unwrap();
            }
        }
        uow.save(parcel).unwrap();
        if scenario >= 5 {
            let mut parcels = uow.repository::<Parcel>();
            parcels.find_open(3).await.unwrap();
            let any = Parcel::fields().grams.eq(7);
            parcels.count(any.clone()).await.unwrap();
            parcels.exists(any.clone()).await.unwrap();
            parcels.query(Query::filter(any)).await.unwrap();
        }
        let _ = uow.commit().await.unwrap();
        if scenario != 3 {
            // What looks for the reason of a conflict, alone and among several.
            let mut uow = store.unit_of_work(&stores::tenant("north"));
            let mut stale = stale;
            stale.weigh(1);
            uow.save(stale).unwrap();
            if scenario >= 5 {
                uow.save(Parcel::register("beside")).unwrap();
            }
            assert!(uow.commit().await.unwrap_err().is_conflict());
        }
    }
    for id in [id, other] {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        let parcel = uow.get::<Parcel>(id).await.unwrap();
        uow.remove(parcel).unwrap();
        if id == other {
            uow.connection().await.unwrap();
        }
        let _ = uow.commit().await.unwrap();
    }

    let sent = proxy.statements_since(&start);
    let on_table: Vec<&String> = sent
        .iter()
        .filter(|sql| sql.contains("\"parcel\""))
        .collect();
    let mut shapes = [0; 3];
    for sql in on_table {
        let Some((change, inserts)) = guarded_part(sql) else {
            panic!("a statement of an unknown shape: {sql}");
        };
        shapes[usize::from(inserts)] += 1;
        if inserts {
            assert!(change.contains("\"tenant_id\""), "no tenant: {sql}");
            continue;
        }
        shapes[2] += usize::from(change.contains("UPDATE"));
        let (_, guard) = change
            .split_once(" WHERE ")
            .or_else(|| change.split_once(" ON "))
            .unwrap_or_else(|| panic!("no condition: {sql}"));
        let guard = guard.split(" RETURNING ").next().unwrap_or(guard);
        // It is a condition of its own, which no other can widen.
        let said = guard.starts_with("\"parcel\".\"tenant_id\" = $")
            || guard.contains(" AND t.\"tenant_id\" = ");
        assert!(said, "no tenant in the guard: {sql}");
    }
    assert!(shapes.iter().all(|&count| count >= 2), "{shapes:?}");
}

/// The part of a statement that reads or changes the table, and whether it inserts.
fn guarded_part(sql: &str) -> Option<(&str, bool)> {
    if let Some(rest) = sql.strip_prefix("WITH changed AS (") {
        let end = rest.find(" RETURNING ")?;
        let change = &rest[..end];
        return Some((change, change.starts_with("INSERT")));
    }
    if sql.starts_with("INSERT INTO \"parcel\"") {
        return Some((sql, true));
    }
    let known = ["SELECT ", "UPDATE ", "DELETE "];
    known
        .iter()
        .any(|word| sql.starts_with(word))
        .then_some((sql, false))
}
