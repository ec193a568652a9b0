//! Reads of maintenance: what is deleted, and exports.

use super::Harness;
use super::fixtures::{Counter, Parcel};
use super::support::{Bench, begin, err, north, ok, south, system};
use crate::context::RequestContext;
use crate::error::Error;
use crate::maintenance::{Export, Maintain};
use crate::specification::{PageRequest, Query, Specification};

async fn labels(mut export: Export<Parcel>) -> Vec<String> {
    let mut labels = Vec::new();
    while let Some(parcel) = ok(export.next().await) {
        labels.push(parcel.label);
    }
    labels
}

/// `a`, `b` and `c`, of which `b` is deleted.
async fn three<H: Harness>(bench: &Bench<'_, H>, context: &RequestContext) {
    for label in ["a", "b", "c"] {
        let parcel = bench.parcel(context, label).await;
        if label == "b" {
            bench.remove(context, parcel).await;
        }
    }
}

/// Queries, pages and counts see what is soft-deleted where they are told to, and not else.
pub async fn deleted_rows_are_read_where_asked_for<H: Harness>(h: &H) {
    let bench = begin(h).await;
    three(&bench, &north()).await;
    let fields = Parcel::fields();
    for (include, expected) in [(false, ["a", "c"].as_slice()), (true, &["a", "b", "c"])] {
        let mut parcels = bench.store.maintenance::<Parcel>(&north());
        if include {
            parcels = parcels.include_deleted();
        }
        let query = || Query::filter(fields.label.le("c")).order_by(fields.label.asc());
        let found = ok(parcels.query(query()).await);
        let found: Vec<&str> = found.iter().map(|parcel| parcel.label.as_str()).collect();
        assert_eq!(found, expected);
        let total = expected.len() as u64;
        assert_eq!(ok(parcels.count(Specification::all()).await), total);
        let deleted = ok(parcels.count(fields.deleted_at.is_not_null()).await);
        assert_eq!(deleted, total - 2);
        let first = ok(parcels
            .page(query(), PageRequest::first(2).with_total())
            .await);
        assert_eq!((first.items.len(), first.total), (2, Some(total)));
        assert_eq!(first.next.is_some(), include);
        if let Some(next) = first.next {
            let second = ok(parcels.page(query(), PageRequest::after(next, 2)).await);
            assert_eq!(second.items[0].label, "c");
        }
        assert_eq!(labels(parcels.export(query())).await, expected);
    }
}

/// An export keeps the order and the limit of its query.
pub async fn an_export_is_in_order<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let counters = bench.store.maintenance::<Counter>(&system());
    ok(counters.insert((0..300).map(Counter::new)).await);
    let id = Counter::fields().id;
    let mut export = counters.export(Query::filter(id.ge(10)).order_by(id.desc()).limit(250));
    let mut found = Vec::new();
    while let Some(counter) = ok(export.next().await) {
        assert_eq!(counter.root.version(), 1);
        found.push(counter.id);
    }
    assert_eq!(found, (50..300).rev().collect::<Vec<_>>());
    assert!(ok(export.next().await).is_none());
}

/// What is committed after an export has begun is not part of it.
pub async fn an_export_is_of_one_moment<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let counters = bench.store.maintenance::<Counter>(&system());
    ok(counters.insert((0..500).map(Counter::new)).await);
    let fields = Counter::fields();
    let mut export = counters.export(Query::all().order_by(fields.id.asc()));
    let mut read = 0;
    while let Some(counter) = ok(export.next().await) {
        if read == 0 {
            let changed = counters
                .update(Specification::all(), [fields.value.set(7)])
                .await;
            assert_eq!(ok(changed).items(), 500);
            ok(counters.insert([Counter::new(1_000)]).await);
            assert_eq!(ok(counters.purge(fields.id.eq(400)).await).items(), 1);
        }
        assert_eq!((counter.id, counter.value), (read, 0));
        read += 1;
    }
    assert_eq!(read, 500);
}

/// Whoever stops in the middle leaves nothing behind.
pub async fn an_export_can_be_dropped<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let counters = bench.store.maintenance::<Counter>(&system());
    ok(counters.insert((0..300).map(Counter::new)).await);
    // More than a store has connections.
    for _ in 0..30 {
        let mut export = counters.export(Query::all());
        assert!(ok(export.next().await).is_some());
        drop(export);
        drop(counters.export(Query::all()));
    }
    assert_eq!(ok(counters.count(Specification::all()).await), 300);
    ok(counters.insert([Counter::new(-1)]).await);
}

/// A condition that no column can hold is the first answer, and the last.
pub async fn an_export_that_cannot_be_asked_is_an_error<H: Harness>(h: &H) {
    let bench = begin(h).await;
    three(&bench, &north()).await;
    let parcels = bench.store.maintenance::<Parcel>(&north());
    let mut export = parcels.export(Query::filter(Parcel::fields().label.eq("a\0")));
    assert!(matches!(err(export.next().await), Error::Mapping(_)));
    assert!(ok(export.next().await).is_none());
}

/// The rows of other tenants are not read, dead or alive; the system reads all.
pub async fn exports_are_within_their_tenant<H: Harness>(h: &H) {
    let bench = begin(h).await;
    three(&bench, &north()).await;
    three(&bench, &south()).await;
    let fields = Parcel::fields();
    let query = || {
        let wide = fields.label.eq("a") | fields.label.ne("a");
        Query::filter(wide).order_by(fields.label.asc())
    };
    let read = async |context: &RequestContext| {
        let parcels = bench.store.maintenance::<Parcel>(context).include_deleted();
        let rows = ok(parcels.query(query()).await).len() as u64;
        assert_eq!(
            ok(parcels.count(query().specification().clone()).await),
            rows
        );
        let page = ok(parcels.page(query(), PageRequest::first(9)).await);
        assert_eq!(page.items.len() as u64, rows);
        labels(parcels.export(query())).await
    };
    assert_eq!(read(&north()).await, ["a", "b", "c"]);
    assert_eq!(read(&south()).await, ["a", "b", "c"]);
    assert_eq!(read(&system()).await, ["a", "a", "b", "b", "c", "c"]);
}
