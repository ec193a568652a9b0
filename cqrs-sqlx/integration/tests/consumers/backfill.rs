//! Rows that were there before the framework get their first event.

use std::sync::Arc;

use cqrs_core::{Maintain, Query, ReadModels, RequestContext, Store, StoreErrorKind, UnitOfWork};
use cqrs_integration::domain::{self, Parcel, ParcelEvent, ParcelId, ParcelView, ParcelViews};
use cqrs_integration::stores;
use cqrs_sqlx::SqlStore;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use cqrs_integration::each::{Fresh, Kind, kind, on_each};

on_each!(
    adopted_rows_have_an_event_each,
    running_it_again_adds_nothing,
    a_batch_is_all_or_nothing,
    a_tenant_backfills_its_own_rows,
    those_that_run_at_once_share_the_work,
);

/// Rows as another system has left them: at version 0, without events.
async fn adopt<K: Kind>(fresh: &Fresh<K>, store: &SqlStore<K>, parcels: i64) -> Vec<ParcelId> {
    let mut ids = Vec::new();
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    for grams in 0..parcels {
        let mut parcel = Parcel::register("adopted");
        parcel.weigh(grams);
        ids.push(domain::id(&parcel));
        uow.save(parcel).unwrap();
    }
    let _ = uow.commit().await.unwrap();
    fresh.run("DELETE FROM cqrs_event").await;
    fresh.run("UPDATE parcel SET version = 0").await;
    ids
}

fn weighed(parcel: &Parcel) -> ParcelEvent {
    ParcelEvent::Weighed {
        grams: parcel.grams(),
    }
}

async fn adopted_rows_have_an_event_each<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let ids = adopt(&fresh, &store, 25).await;
    let context = stores::tenant("north");
    // Nothing can be saved, removed or relied upon before it has its event, and the error says how
    // it gets one.
    let refused = [
        store
            .execute(&context, async |uow| {
                let mut parcel: Parcel = uow.get(ids[0]).await?;
                parcel.weigh(1);
                uow.save(parcel)
            })
            .await,
        store
            .execute(&context, async |uow| {
                let parcel: Parcel = uow.get(ids[0]).await?;
                uow.remove(parcel)
            })
            .await,
        store
            .execute(&context, async |uow| {
                let parcel: Parcel = uow.get(ids[0]).await?;
                uow.guard(&parcel)
            })
            .await,
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert_eq!(*kind(&error), StoreErrorKind::Usage, "{error}");
        let message = error.to_string();
        assert!(message.contains("backfill"), "{message}");
        assert!(message.contains(&ids[0].to_string()), "{message}");
    }
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_event").await, 0);

    let system = RequestContext::system();
    let mut told = Vec::new();
    let parcels = store.maintenance::<Parcel>(&system).batch_size(10);
    let done = parcels
        .backfill(weighed, |progress| told.push(progress.rows()))
        .await
        .unwrap();
    assert_eq!((done.items(), done.commits()), (25, 3));
    assert_eq!(told, [10, 20, 25]);
    let sql = "SELECT count(*) FROM cqrs_event WHERE aggregate_version = 1";
    assert_eq!(fresh.number(sql).await, 25);
    assert_eq!(fresh.number("SELECT sum(version) FROM parcel").await, 25);

    let projector = store.projector().rows(ParcelViews);
    assert_eq!(projector.run_until_idle().await.unwrap(), 25);
    let models = store.read_models(&system);
    let views: Vec<ParcelView> = models.query(Query::all()).await.unwrap();
    assert_eq!(views.len(), 25);
    assert_eq!(views.iter().map(|view| view.grams).sum::<i64>(), 300);

    let saved = store.execute(&context, async |uow| {
        let mut parcel: Parcel = uow.get(ids[3]).await?;
        assert_eq!(parcel.grams(), 3);
        parcel.weigh(100);
        uow.save(parcel)
    });
    assert_eq!(saved.await.unwrap().events().len(), 1);
    assert_eq!(projector.run_until_idle().await.unwrap(), 1);
    let view: ParcelView = models.find(ids[3]).await.unwrap().unwrap();
    assert_eq!((view.version, view.events, view.grams), (2, 2, 103));
}

async fn running_it_again_adds_nothing<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    adopt(&fresh, &store, 5).await;
    let system = RequestContext::system();
    let parcels = store.maintenance::<Parcel>(&system);
    assert_eq!(parcels.backfill(weighed, |_| {}).await.unwrap().items(), 5);
    let before = fresh.state().await;
    for _ in 0..2 {
        let again = parcels.backfill(weighed, |_| {}).await.unwrap();
        assert_eq!((again.items(), again.commits()), (0, 0));
    }
    assert_eq!(fresh.state().await, before);
}

async fn a_batch_is_all_or_nothing<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let mut ids = adopt(&fresh, &store, 20).await;
    ids.sort();
    // The log has events of an aggregate in the second batch: its id was used before.
    fresh
        .run(format!(
            "INSERT INTO cqrs_event (event_id, tenant_id, aggregate_type, aggregate_id,
                aggregate_version, event_type, schema_version, payload, correlation_id,
                content_hash, occurred_at)
             SELECT {}, 'north', 'parcel', '{}', 1, 'parcel.registered', 1, '{{}}', {}, {}, {}",
            K::either("gen_random_uuid()".to_owned(), "randomblob(16)".to_owned()),
            ids[12],
            K::either("gen_random_uuid()".to_owned(), "randomblob(16)".to_owned()),
            K::either("sha256('')".to_owned(), "zeroblob(32)".to_owned()),
            K::either(
                "now()".to_owned(),
                "'2026-01-01T00:00:00.000000Z'".to_owned()
            ),
        ))
        .await;
    let system = RequestContext::system();
    let parcels = store.maintenance::<Parcel>(&system).batch_size(8);
    let failed = parcels.backfill(weighed, |_| {}).await.unwrap_err();
    assert_eq!(failed.committed().items(), 8);
    assert_eq!(fresh.number("SELECT sum(version) FROM parcel").await, 8);
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_event").await, 9);

    fresh
        .run("DELETE FROM cqrs_event WHERE event_type = 'parcel.registered'")
        .await;
    let done = parcels.backfill(weighed, |_| {}).await.unwrap();
    assert_eq!(done.items(), 12);
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_event").await, 20);
}

async fn a_tenant_backfills_its_own_rows<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let ids = adopt(&fresh, &store, 6).await;
    let south = stores::tenant("south");
    let theirs = store.maintenance::<Parcel>(&south);
    assert_eq!(theirs.backfill(weighed, |_| {}).await.unwrap().items(), 0);
    let north = stores::tenant("north");
    let parcels = store.maintenance::<Parcel>(&north);
    let done = parcels.backfill(weighed, |_| {}).await.unwrap();
    assert_eq!(done.items(), ids.len());
    // Not within the work of the same store, which would wait for itself.
    let nested = store.execute(&north, async |_| {
        parcels.backfill(weighed, |_| {}).await?;
        Ok(())
    });
    assert_eq!(*kind(&nested.await.unwrap_err()), StoreErrorKind::Usage);
}

async fn those_that_run_at_once_share_the_work<K: Kind>() {
    const ROWS: i64 = 60;
    let (fresh, store) = Fresh::<K>::with_store().await;
    let ids = adopt(&fresh, &store, ROWS).await;
    let barrier = Arc::new(Barrier::new(4));
    let mut running = JoinSet::new();
    for _ in 0..3 {
        let (store, barrier) = (store.clone(), Arc::clone(&barrier));
        running.spawn(async move {
            let system = RequestContext::system();
            let parcels = store.maintenance::<Parcel>(&system).batch_size(7);
            barrier.wait().await;
            parcels.backfill(weighed, |_| {}).await.unwrap().items()
        });
    }
    // One that saves each parcel as soon as it can be saved.
    barrier.wait().await;
    let context = stores::tenant("north");
    for id in &ids {
        loop {
            let saved = store.execute(&context, async |uow| {
                let mut parcel: Parcel = uow.get(*id).await?;
                parcel.weigh(1);
                uow.save(parcel)
            });
            if saved.await.is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let mut items = 0;
    while let Some(done) = running.join_next().await {
        items += done.unwrap();
    }
    assert_eq!(items, ids.len());
    assert_eq!(
        fresh.number("SELECT count(*) FROM cqrs_event").await,
        2 * ROWS
    );
    assert_eq!(
        fresh.number("SELECT sum(version) FROM parcel").await,
        2 * ROWS
    );
    let projector = store.projector().rows(ParcelViews);
    projector.run_until_idle().await.unwrap();
    let sql = "SELECT count(*) FROM parcel_view WHERE events = 2 AND version = 2";
    assert_eq!(fresh.number(sql).await, ROWS);
}
