//! Tenants: what is not yours does not exist.

use super::Harness;
use super::fixtures::{Counter, Locker, Parcel, ParcelList};
use super::support::{Bench, assert_not_found, begin, err, north, ok, south, system, tenant};
use super::trace::Recorded;
use crate::aggregate::Root;
use crate::context::RequestContext;
use crate::error::Error;
use crate::maintenance::Maintain;
use crate::repository::Repository;
use crate::specification::{PageRequest, Query, Specification};
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

async fn labels<H: Harness>(bench: &Bench<'_, H>, context: &RequestContext) -> Vec<String> {
    let mut uow = bench.unit_of_work(context);
    let query = Query::all().order_by(Parcel::fields().label.asc());
    let found = ok(uow.repository::<Parcel>().query(query).await);
    found.into_iter().map(|parcel| parcel.label).collect()
}

/// No read of one tenant sees a row of another.
pub async fn other_tenants_see_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mine = bench.parcel(&north(), "mine").await;
    bench.parcel(&south(), "theirs").await;
    assert_eq!(mine.root.tenant(), Some(&tenant("north")));

    assert_eq!(labels(&bench, &north()).await, ["mine"]);
    assert_eq!(labels(&bench, &south()).await, ["theirs"]);
    let nobody = RequestContext::tenant(tenant("nobody"));
    assert!(labels(&bench, &nobody).await.is_empty());

    let mut uow = bench.unit_of_work(&south());
    let mut parcels = uow.repository::<Parcel>();
    assert!(ok(parcels.find(mine.id).await).is_none());
    assert_eq!(ok(parcels.count(Specification::all()).await), 1);
    let label = Parcel::fields().label;
    assert_eq!(ok(parcels.count(label.eq("mine")).await), 0);
    assert!(!ok(parcels.exists(label.eq("mine")).await));
    assert_eq!(ok(parcels.count(!label.eq("theirs")).await), 0);
    let either = label.eq("mine") | label.eq("theirs");
    assert_eq!(ok(parcels.query(either.into()).await).len(), 1);
    assert_not_found::<Parcel>(&err(parcels.get(mine.id).await), &mine.id);
}

/// What was loaded by one tenant can be neither saved nor removed by another.
pub async fn other_tenants_change_nothing<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mine = bench.parcel(&north(), "mine").await;
    let mut changed = mine.clone();
    changed.relabel("stolen");
    let error = err(bench.try_save(&south(), changed).await);
    assert_not_found::<Parcel>(&error, &mine.id);
    let error = err(bench.try_save(&south(), mine.clone()).await);
    assert_not_found::<Parcel>(&error, &mine.id);
    let error = err(bench.try_remove(&south(), mine.clone()).await);
    assert_not_found::<Parcel>(&error, &mine.id);

    let locker = bench.locker(&north(), "mine").await;
    let error = err(bench.try_remove(&south(), locker).await);
    assert_not_found::<Locker>(&error, &"mine".to_owned());

    let loaded: Parcel = bench.load(&north(), mine.id).await;
    assert_eq!((loaded.label.as_str(), loaded.root.version()), ("mine", 1));
    assert_eq!(bench.log().await.len(), 2);
}

/// The system sees the rows of every tenant, and counts them.
pub async fn the_system_sees_every_tenant<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let one = bench.parcel(&north(), "a").await;
    bench.parcel(&south(), "b").await;
    let gone = bench.parcel(&south(), "c").await;
    bench.remove(&south(), gone.clone()).await;
    assert_eq!(labels(&bench, &system()).await, ["a", "b"]);
    let mut uow = bench.unit_of_work(&system());
    let mut parcels = uow.repository::<Parcel>();
    assert_eq!(ok(parcels.count(Specification::all()).await), 2);
    assert_eq!(
        ok(parcels.get(one.id).await).root.tenant(),
        Some(&tenant("north"))
    );
    assert!(ok(parcels.find(gone.id).await).is_none());
}

/// What the system changes or removes stays with its tenant, in the row and in the log.
pub async fn the_system_keeps_the_tenant<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let id = bench.parcel(&north(), "mine").await.id;
    let mut parcel: Parcel = bench.load(&system(), id).await;
    parcel.relabel("checked");
    bench.save(&system(), parcel).await;
    let parcel: Parcel = bench.load(&north(), id).await;
    assert_eq!(parcel.label, "checked");
    assert_eq!(parcel.root.tenant(), Some(&tenant("north")));
    assert!(bench.find::<Parcel>(&south(), id).await.is_none());

    let parcel: Parcel = bench.load(&system(), id).await;
    bench.remove(&system(), parcel).await;
    assert!(bench.find::<Parcel>(&north(), id).await.is_none());
    let log = bench.log().await;
    assert_eq!(log.len(), 3);
    let north = tenant("north");
    assert!(log.iter().all(|event| event.tenant() == Some(&north)));
}

/// Under the system a new aggregate needs a tenant: without one it is refused, with
/// [`Root::for_tenant`](crate::Root::for_tenant) it belongs to that one.
pub async fn the_system_needs_a_tenant_to_create<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = Parcel::register("nobody's");
    let id = parcel.id;
    match err(bench.try_save(&system(), parcel).await) {
        Error::TenantRequired {
            aggregate,
            id: text,
        } => {
            assert_eq!((aggregate, text), ("parcel", id.to_string()));
        }
        other => panic!("expected that a tenant is required, got {other:?}"),
    }
    assert!(bench.log().await.is_empty());

    let parcel = Parcel::register_for(tenant("north"), "north's");
    let id = parcel.id;
    bench.save(&system(), parcel).await;
    assert_eq!(bench.load::<Parcel>(&north(), id).await.label, "north's");
    assert!(bench.find::<Parcel>(&south(), id).await.is_none());
    let log = bench.log().await;
    assert_eq!(log[0].tenant(), Some(&tenant("north")));
}

/// A tenant cannot create for another one, but for itself by name.
pub async fn a_root_made_for_another_tenant_is_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = Parcel::register_for(tenant("north"), "planted");
    let id = parcel.id;
    let error = err(bench.try_save(&south(), parcel).await);
    assert_not_found::<Parcel>(&error, &id);
    assert!(bench.find::<Parcel>(&north(), id).await.is_none());
    assert!(bench.log().await.is_empty());

    let parcel = Parcel::register_for(tenant("south"), "own");
    let id = parcel.id;
    bench.save(&south(), parcel).await;
    assert_eq!(bench.load::<Parcel>(&south(), id).await.label, "own");
}

/// An aggregate without tenant is seen and changed under any scope.
pub async fn aggregates_without_tenant_are_everyones<H: Harness>(h: &H) {
    let bench = begin(h).await;
    bench.save(&north(), Counter::new(1)).await;
    for (context, by) in [(north(), 1), (south(), 10), (system(), 100)] {
        let mut counter: Counter = bench.load(&context, 1).await;
        assert_eq!(counter.root.tenant(), None);
        counter.add(by);
        bench.save(&context, counter).await;
        let mut uow = bench.unit_of_work(&context);
        let all = ok(uow.repository::<Counter>().query(Query::all()).await);
        assert_eq!(all.len(), 1);
    }
    let counter: Counter = bench.load(&south(), 1).await;
    assert_eq!((counter.value, counter.root.version()), (111, 4));
    bench.remove(&south(), counter).await;
    assert!(bench.find::<Counter>(&north(), 1).await.is_none());
}

/// A tenant's name is data: whatever it contains, it sees its own rows and no others.
pub async fn a_tenant_may_have_any_name<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let long = "t".repeat(255);
    let names = [
        "a",
        "A",
        "%",
        "_",
        "ä",
        "😀",
        "a' OR '1'='1",
        "null",
        " a",
        long.as_str(),
    ];
    for name in names {
        bench
            .parcel(&RequestContext::tenant(tenant(name)), name)
            .await;
    }
    for name in names {
        let own = labels(&bench, &RequestContext::tenant(tenant(name))).await;
        assert_eq!(own, [name]);
    }
    assert_eq!(labels(&bench, &system()).await.len(), names.len());
}

/// Work across all tenants says so in its span, and who does it; other work says for which tenant.
pub async fn work_across_tenants_is_visible_in_the_trace<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let recorded = Recorded::start();
    drop(bench.unit_of_work(&system()));
    drop(bench.store.read_only(&system()));
    drop(bench.store.read_models(&system()));
    assert_eq!(
        recorded.take(),
        [
            "INFO work=\"unit of work\" system=true actor=\"root\"",
            "INFO work=\"unit of work\" system=true actor=\"root\"",
            "INFO work=\"read models\" system=true actor=\"root\"",
        ]
    );
    let across = system();
    let live = bench.store.live(&across);
    assert_eq!(ok(live.rows(&ParcelList).await), []);
    assert_eq!(
        recorded.take(),
        ["INFO work=\"live projection\" system=true actor=\"root\""]
    );
    drop(bench.unit_of_work(&north()));
    drop(
        bench
            .store
            .read_models(&RequestContext::tenant(tenant("south"))),
    );
    assert_eq!(
        recorded.take(),
        [
            "DEBUG work=\"unit of work\" tenant=\"north\" actor=\"ann\"",
            "DEBUG work=\"read models\" tenant=\"south\"",
        ]
    );
}

/// Bulk work runs in the span of its context, one for each transaction or read.
pub async fn maintenance_is_visible_in_the_trace<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for (context, expected) in [
        (
            system(),
            "INFO work=\"maintenance\" system=true actor=\"root\"",
        ),
        (
            north(),
            "DEBUG work=\"maintenance\" tenant=\"north\" actor=\"ann\"",
        ),
        (
            RequestContext::tenant(tenant("north")),
            "DEBUG work=\"maintenance\" tenant=\"north\"",
        ),
    ] {
        let parcel = |label: &str| {
            let mut parcel = Parcel::register(label);
            parcel.root = Root::for_tenant(tenant("north"));
            parcel
        };
        let all = Specification::all;
        let priority = Parcel::fields().priority;
        let recorded = Recorded::start();
        let taken = |what: &str, times: usize| {
            assert_eq!(recorded.take(), vec![expected; times], "{what}");
        };
        let parcels = bench.store.maintenance::<Parcel>(&context).batch_size(2);
        taken("no work", 0);
        ok(parcels.insert([parcel("a")]).await);
        taken("insert", 1);
        let imported = ["b", "c", "d"].map(parcel).into_iter();
        assert_eq!(ok(parcels.import(imported, |_| {}).await).items(), 3);
        taken("import", 2);
        assert_eq!(ok(parcels.query(Query::all()).await).len(), 4);
        taken("query", 1);
        ok(parcels.page(Query::all(), PageRequest::first(2)).await);
        taken("page", 1);
        assert_eq!(ok(parcels.count(all()).await), 4);
        taken("count", 1);
        let mut export = parcels.export(Query::all());
        while ok(export.next().await).is_some() {}
        taken("export", 1);
        let some = || Parcel::fields().label.eq("a");
        ok(parcels.update(some(), [priority.set(-1)]).await);
        taken("update", 1);
        ok(parcels.remove(some()).await);
        taken("remove", 1);
        ok(parcels.restore(some()).await);
        taken("restore", 1);
        // Two full batches, and a look whether there is more.
        assert_eq!(ok(parcels.purge(all()).await).items(), 4);
        taken("purge", 3);
    }
}
