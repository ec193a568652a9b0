//! Consistency checks against rows that were changed by SQL, and while others write.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cqrs_core::consistency::{ConsistencyCheck, ConsistencyReport, RowDifferenceKind};
use cqrs_core::{
    Envelope, Error, ReadModel, ReadModels, RequestContext, RowProjection, Store, StoreErrorKind,
    Subscription, TenantId, UnitOfWork,
};
use cqrs_integration::domain::{self, Parcel, ParcelEvent, ParcelId, ParcelViews};
use cqrs_integration::random::{Random, seed};
use cqrs_integration::stores;
use cqrs_sqlx::{Postgres, SqlStore, SwitchOver};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use cqrs_integration::each::{Fresh, Kind, kind, on_each};

on_each!(
    random_tampering_is_found,
    nothing_is_found_while_others_write,
    a_row_that_cannot_be_read_is_named,
    a_rebuild_is_not_checked_by_its_name,
    columns_that_others_fill_are_left_to_them,
);

async fn check<K: Kind>(store: &SqlStore<K>, rows_at_once: usize) -> ConsistencyReport {
    let check = ConsistencyCheck::of(&ParcelViews)
        .rows_at_once(NonZeroUsize::new(rows_at_once).unwrap())
        .report_at_most(1_000);
    let context = RequestContext::system();
    check.run(store, &context).await.unwrap()
}

/// A parcel of each of many, of two tenants; their ids.
async fn fill<K: Kind>(store: &SqlStore<K>, parcels: usize) -> Vec<ParcelId> {
    let mut ids = Vec::new();
    for tenant in ["north", "south"] {
        let mut uow = store.unit_of_work(&stores::tenant(tenant));
        for number in 0..parcels / 2 {
            let mut parcel = Parcel::register("parcel");
            parcel.weigh(i64::try_from(number).unwrap());
            ids.push(domain::id(&parcel));
            uow.save(parcel).unwrap();
        }
        let _ = uow.commit().await.unwrap();
    }
    ids
}

fn sql_id<K: Kind>(id: ParcelId) -> String {
    let uuid = id.uuid();
    K::either(format!("'{uuid}'"), format!("x'{}'", uuid.simple()))
}

async fn random_tampering_is_found<K: Kind>() {
    let mut random = Random::new(seed());
    let (fresh, store) = Fresh::<K>::with_store().await;
    let mut ids = fill(&store, 60).await;
    let projector = store.projector().rows(ParcelViews);
    projector.run_until_idle().await.unwrap();
    assert!(check(&store, 7).await.is_consistent());

    let mut expected = BTreeMap::new();
    let mut kinds = BTreeMap::new();
    for _ in 0..random.below(20) + 3 {
        let id = ids.swap_remove(random.below(ids.len() as u64) as usize);
        let of = format!("WHERE id = {}", sql_id::<K>(id));
        let (kind, sql) = match random.below(3) {
            0 => ("missing", format!("DELETE FROM parcel_view {of}")),
            1 => {
                let sql = "UPDATE parcel_view SET grams = grams + 1, digest = digest - 1";
                ("different", format!("{sql} {of}"))
            }
            // The row of this parcel belongs to a tenant that does not have it.
            _ => (
                "moved",
                format!("UPDATE parcel_view SET tenant_id = 'west' {of}"),
            ),
        };
        fresh.run(sql).await;
        expected.insert(id.to_string(), kind);
        *kinds.entry(kind).or_insert(0_u64) += 1;
    }
    let count = |kind: &str| kinds.get(kind).copied().unwrap_or(0);
    for rows_at_once in [1, 10, 1_000] {
        let report = check(&store, rows_at_once).await;
        assert_eq!(report.missing, count("missing") + count("moved"));
        assert_eq!(report.extra, count("moved"));
        assert_eq!(report.different, count("different"));
        assert_eq!(report.rows, 60 - count("missing"));
        for row in &report.differences {
            let [key] = row.key.as_slice() else {
                panic!("{row}");
            };
            let found = expected
                .iter()
                .find(|(id, _)| format!("{key:?}").contains(id.as_str()));
            let (_, kind) = found.unwrap_or_else(|| panic!("{row} was not touched"));
            let tenant = row.tenant.as_ref().map(TenantId::as_str);
            match row.kind {
                RowDifferenceKind::Missing => assert!(["missing", "moved"].contains(kind)),
                RowDifferenceKind::Extra => assert_eq!((*kind, tenant), ("moved", Some("west"))),
                _ => {
                    assert_eq!(*kind, "different");
                    let columns: Vec<_> = row.columns.iter().map(|c| &*c.column).collect();
                    assert_eq!(columns, ["grams", "digest"]);
                }
            }
        }
    }
}

async fn nothing_is_found_while_others_write<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let ids = fill(&store, 40).await;
    let projector = || {
        let subscription = Subscription::new(cqrs_core::Rows(ParcelViews)).segments(3);
        store.projector().subscribe(subscription).page_size(3)
    };
    let handle = projector().start().await.unwrap();
    let mut writers = JoinSet::new();
    for (writer, tenant) in ["north", "south"].into_iter().enumerate() {
        let (store, ids) = (store.clone(), ids.clone());
        writers.spawn(async move {
            let context = stores::tenant(tenant);
            for round in 0..60 {
                let id = ids[writer * 20 + round % 20];
                let done = store.execute(&context, async |uow| {
                    let mut parcel: Parcel = uow.get(id).await?;
                    parcel.weigh(i64::try_from(round).unwrap_or(0));
                    uow.save(parcel)?;
                    uow.save(Parcel::register("new"))
                });
                let _ = done.await.unwrap();
            }
        });
    }
    let mut positions = Vec::new();
    while !writers.is_empty() || positions.len() < 3 {
        let report = check(&store, 16).await;
        assert!(report.is_consistent(), "{report}");
        positions.push(report.position);
        while let Some(done) = writers.try_join_next() {
            done.unwrap();
        }
    }
    handle.stop(Duration::from_secs(60)).await;
    assert!(positions.is_sorted());
    projector().run_until_idle().await.unwrap();
    let report = check(&store, 16).await;
    assert!(report.is_consistent(), "{report}");
    assert_eq!((report.rows, report.events), (160, 80 + 240));
}

async fn a_row_that_cannot_be_read_is_named<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    fill(&store, 2).await;
    let projector = store.projector().rows(ParcelViews);
    projector.run_until_idle().await.unwrap();
    fresh.run("UPDATE parcel_view SET tenant_id = ''").await;
    let context = RequestContext::system();
    let check = ConsistencyCheck::of(&ParcelViews);
    let error = check.run(&store, &context).await.unwrap_err();
    assert!(matches!(&error, Error::Mapping(_)), "{error:?}");
    assert!(error.to_string().contains("parcel_view"), "{error}");
}

/// Its rows are not in the table that is read.
async fn a_rebuild_is_not_checked_by_its_name<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    fill(&store, 2).await;
    let projector = store.projector().rows(ParcelViews);
    projector.run_until_idle().await.unwrap();
    let context = RequestContext::system();
    let operations = store.operations(&context).unwrap();
    let views = Subscription::new(cqrs_core::Rows(ParcelViews));
    let building = operations.rebuild(&views, SwitchOver::WhenTold).await;
    let building = building.unwrap();
    let of_rebuild = ConsistencyCheck::of(&ParcelViews).subscription(&building);
    let error = of_rebuild.run(&store, &context).await.unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::Usage);
    assert!(
        error.to_string().contains("is the name of a rebuild"),
        "{error}"
    );
    assert!(check(&store, 10).await.is_consistent());
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "measured", tenant)]
struct Measured {
    #[read_model(key)]
    id: ParcelId,
    grams: i64,
    #[mapper(generated)]
    twice: i64,
    #[mapper(read_only)]
    note: i64,
}

struct Measure;

impl RowProjection for Measure {
    type Event = ParcelEvent;
    type Row = Measured;

    const NAME: &'static str = "measured";

    fn key(&self, event: &Envelope<ParcelEvent>) -> cqrs_core::Result<Option<ParcelId>> {
        ParcelViews.key(event)
    }

    fn apply(
        &self,
        row: &mut Option<Measured>,
        event: &Envelope<ParcelEvent>,
    ) -> cqrs_core::Result<()> {
        let id = event.aggregate_id()?;
        let row = row.get_or_insert(Measured {
            id,
            grams: 0,
            twice: 0,
            note: 0,
        });
        if let ParcelEvent::Weighed { grams } = event.payload() {
            row.grams += grams;
        }
        Ok(())
    }
}

/// By projections as by units of work, and a check does not look at them.
async fn columns_that_others_fill_are_left_to_them<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    fresh
        .run(K::either(
            "CREATE TABLE measured (tenant_id text NOT NULL, id uuid NOT NULL,
                grams bigint NOT NULL,
                twice bigint NOT NULL GENERATED ALWAYS AS (grams * 2) STORED,
                note bigint NOT NULL DEFAULT 7, PRIMARY KEY (tenant_id, id))",
            "CREATE TABLE measured (tenant_id TEXT NOT NULL, id BLOB NOT NULL,
                grams INTEGER NOT NULL,
                twice INTEGER NOT NULL GENERATED ALWAYS AS (grams * 2),
                note INTEGER NOT NULL DEFAULT 7, PRIMARY KEY (tenant_id, id)) STRICT",
        ))
        .await;
    let north = stores::tenant("north");
    let mut parcel = Parcel::register("parcel");
    parcel.weigh(3);
    let id = domain::id(&parcel);
    let saved = store.execute(&north, async |uow| uow.save(parcel.clone()));
    let _ = saved.await.unwrap();
    let run = async || {
        let projector = store.projector().rows(Measure).retry_delays([]);
        projector.run_until_idle().await.unwrap();
        let models = store.read_models(&north);
        let row: Measured = models.find(id).await.unwrap().unwrap();
        (row.grams, row.twice, row.note)
    };
    assert_eq!(run().await, (3, 6, 7));
    fresh.run("UPDATE measured SET note = 9").await;
    let weighed = store.execute(&north, async |uow| {
        let mut parcel: Parcel = uow.get(id).await?;
        parcel.weigh(2);
        uow.save(parcel)
    });
    let _ = weighed.await.unwrap();
    assert_eq!(run().await, (5, 10, 9));
    let system = RequestContext::system();
    let report = ConsistencyCheck::of(&Measure).run(&store, &system).await;
    let report = report.unwrap();
    assert!(report.is_consistent(), "{report}");

    let operations = store.operations(&system).unwrap();
    let measured = Subscription::new(cqrs_core::Rows(Measure));
    let refused = operations.rebuild(&measured, SwitchOver::WhenReady).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("others fill its column twice"),
        "{refused}"
    );
}

/// Rows, checkpoint and log are of one moment, also where somebody wants to exchange the table when
/// the log is folded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_is_not_exchanged_under_a_check() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    fill(&store, 4).await;
    let projector = store.projector().rows(ParcelViews);
    projector.run_until_idle().await.unwrap();
    let refused = Arc::new(AtomicBool::new(false));
    let (url, told) = (fresh.url.clone(), Arc::clone(&refused));
    let exchange = async move || {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let sql = "SET lock_timeout = '50ms'; BEGIN;
                   CREATE TABLE built AS SELECT * FROM parcel_view; DROP TABLE parcel_view;
                   ALTER TABLE built RENAME TO parcel_view; COMMIT";
        let done = sqlx::raw_sql(sql).execute(&mut connection).await;
        told.store(done.is_err(), Ordering::SeqCst);
    };
    let runtime = tokio::runtime::Handle::current();
    let check = ConsistencyCheck::of(&ParcelViews).on_progress(move |_| {
        tokio::task::block_in_place(|| runtime.block_on(exchange()));
    });
    let report = check.run(&store, &RequestContext::system()).await.unwrap();
    assert!(report.is_consistent(), "{report}");
    assert!(refused.load(Ordering::SeqCst));
}
