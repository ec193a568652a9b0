//! Pages: by cursor and by offset.

use super::Harness;
use super::fixtures::{Parcel, ParcelEntry};
use super::support::{
    Bench, assert_refused, assert_usage, begin, err, north, ok, south, system, time,
};
use crate::context::RequestContext;
use crate::read_model::ReadModels;
use crate::repository::Repository;
use crate::specification::{Cursor, Order, Page, PageRequest, Query, Specification};
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

/// Parcels whose values are often the same, and NULL now and then.
async fn parcels<H: Harness>(bench: &Bench<'_, H>, context: &RequestContext) {
    let mut uow = bench.unit_of_work(context);
    for n in 0..12_u32 {
        let mut parcel = Parcel::register(["b", "B", "é", ""][n as usize % 4]);
        parcel.rank = (n % 3 > 0).then_some(i32::try_from(n % 5).unwrap_or(0));
        parcel.seen = (n % 2 > 0).then(|| time(i64::from(n / 4)));
        parcel.weigh(n / 3);
        parcel.ratio = f64::from(n % 4) - 1.5;
        ok(uow.save(parcel));
    }
    ok(uow.commit().await);
}

/// Orders of every kind: of one direction and of both, of columns that may be NULL or not.
fn orders() -> Vec<Vec<Order<Parcel>>> {
    let f = Parcel::fields();
    vec![
        vec![],
        vec![f.label.asc()],
        vec![f.label.desc(), f.id.desc()],
        vec![f.ratio.desc(), f.weight.asc()],
        vec![f.rank.asc()],
        vec![f.rank.desc()],
        vec![f.rank.asc(), f.seen.desc(), f.label.desc()],
        vec![f.weight.desc(), f.seen.asc(), f.rank.desc()],
        vec![f.created_at.asc(), f.rank.asc(), f.rank.desc()],
        vec![f.label.asc(), f.label.desc(), f.weight.asc()],
    ]
}

fn query(orders: &[Order<Parcel>]) -> Query<Parcel> {
    let specification = Parcel::fields()
        .weight
        .gt(crate::conformance::fixtures::Grams(0));
    let query = Query::filter(specification);
    orders
        .iter()
        .fold(query, |query, order| query.order_by(*order))
}

fn ids(parcels: &[Parcel]) -> Vec<String> {
    parcels.iter().map(|parcel| parcel.id.to_string()).collect()
}

/// A cursor as a client sends it back.
fn sent(cursor: &Cursor) -> Cursor {
    ok(cursor.to_string().parse())
}

async fn page<U: UnitOfWork>(
    uow: &mut U,
    query: &Query<Parcel>,
    request: PageRequest,
) -> Page<Parcel> {
    ok(uow
        .repository::<Parcel>()
        .page(query.clone(), request)
        .await)
}

/// All pages one after the other are what the query finds without pages, in its order.
pub async fn pages_by_cursor_are_the_whole<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &north()).await;
    parcels(&bench, &south()).await;
    for context in [north(), system()] {
        for (orders, size) in orders().iter().zip([1, 2, 3, 5].into_iter().cycle()) {
            let query = query(orders);
            let mut uow = bench.unit_of_work(&context);
            let whole = ids(&ok(uow.query(query.clone()).await));
            let mut seen = Vec::new();
            let mut request = PageRequest::first(size);
            loop {
                let page = page(&mut uow, &query, request).await;
                assert_eq!(page.total, None);
                seen.extend(ids(&page.items));
                let Some(next) = page.next else { break };
                assert_eq!(page.items.len(), size as usize);
                request = PageRequest::after(sent(&next), size);
            }
            assert_eq!(seen, whole, "{orders:?} in pages of {size}");
        }
    }
}

/// Rows that are inserted, removed or moved between two pages neither repeat other rows nor hide
/// them, even where the last row of a page is gone.
pub async fn a_cursor_survives_changes<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for label in ["a", "c", "e", "g", "i"] {
        bench.parcel(&north(), label).await;
    }
    let query = Query::all().order_by(Parcel::fields().label.asc());
    let labels = |page: &Page<Parcel>| -> Vec<String> {
        page.items
            .iter()
            .map(|parcel| parcel.label.clone())
            .collect()
    };
    let mut uow = bench.unit_of_work(&north());
    let mut first = page(&mut uow, &query, PageRequest::first(2)).await;
    assert_eq!(labels(&first), ["a", "c"]);
    drop(uow);
    bench.parcel(&north(), "b").await;
    bench.parcel(&north(), "d").await;
    let mut moved = first.items.remove(0);
    moved.relabel("h");
    bench.save(&north(), moved).await;
    bench.remove(&north(), first.items.remove(0)).await;
    let mut uow = bench.unit_of_work(&north());
    let next = first.next.unwrap_or_else(|| panic!("there is a next page"));
    let second = page(&mut uow, &query, PageRequest::after(sent(&next), 10)).await;
    assert_eq!(labels(&second), ["d", "e", "g", "h", "i"]);
    assert!(second.next.is_none());
}

/// A page by offset skips; the total counts all rows of the query, on every page, also on one
/// behind the last.
pub async fn pages_by_offset_have_a_total<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &north()).await;
    parcels(&bench, &south()).await;
    let orders = orders();
    let query = query(&orders[6]);
    let mut uow = bench.unit_of_work(&north());
    let whole = ids(&ok(uow.query(query.clone()).await));
    assert_eq!(whole.len(), 9);
    for skip in [0, 4, 8, 9, 100] {
        let request = PageRequest::skip(skip, 4).with_total();
        let page = page(&mut uow, &query, request).await;
        let from = usize::try_from(skip).unwrap_or(usize::MAX).min(9);
        assert_eq!(ids(&page.items), whole[from..(from + 4).min(9)]);
        assert_eq!(page.total, Some(9), "after {skip}");
        assert_eq!(page.next.is_some(), skip + 4 < 9);
    }
    let first = page(&mut uow, &query, PageRequest::first(8)).await;
    let next = first.next.unwrap_or_else(|| panic!("there is a next page"));
    let last = PageRequest::after(next, 8).with_total();
    let last = page(&mut uow, &query, last).await;
    assert_eq!(
        (ids(&last.items), last.total),
        (whole[8..].to_vec(), Some(9))
    );
    let none = Query::filter(Specification::all() & Parcel::fields().label.eq("none"));
    let none = page(&mut uow, &none, PageRequest::first(1).with_total()).await;
    assert_eq!((none.items.len(), none.total), (0, Some(0)));
}

/// Pages see what the unit of work has staged.
pub async fn pages_see_what_is_staged<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&north());
    ok(uow.save(Parcel::register("staged")));
    let page = page(&mut uow, &Query::all(), PageRequest::first(5).with_total()).await;
    assert_eq!((page.items.len(), page.total), (1, Some(1)));
}

/// Read models have pages too, also across tenants, where one key may be that of several rows.
pub async fn read_models_have_pages<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &north()).await;
    parcels(&bench, &south()).await;
    bench.project().await;
    for (context, count) in [(north(), 12), (RequestContext::system(), 24)] {
        let models = bench.store.read_models(&context);
        let query = || Query::<ParcelEntry>::all().order_by(ParcelEntry::fields().label.desc());
        let whole = ok(models.query(query()).await);
        assert_eq!(whole.len(), count);
        let mut seen = Vec::new();
        let mut request = PageRequest::first(5).with_total();
        loop {
            let page = ok(models.page(query(), request).await);
            assert_eq!(page.total, Some(count as u64));
            seen.extend(page.items);
            let Some(next) = page.next else { break };
            request = PageRequest::after(sent(&next), 5).with_total();
        }
        assert_eq!(seen, whole);
    }
}

/// A page without rows, a query with a limit, an order by JSON and the cursor of another order are
/// refused.
pub async fn a_page_that_makes_no_sense_is_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &north()).await;
    let mut uow = bench.unit_of_work(&north());
    let f = Parcel::fields();
    let by_rank = Query::all().order_by(f.rank.asc());
    let next = page(&mut uow, &by_rank, PageRequest::first(1)).await.next;
    let next = next.unwrap_or_else(|| panic!("there is a next page"));
    for (query, request) in [
        (by_rank.clone(), PageRequest::first(0)),
        (by_rank.clone().limit(3), PageRequest::first(1)),
        (Query::all(), PageRequest::after(next.clone(), 1)),
        (
            Query::all().order_by(f.rank.desc()),
            PageRequest::after(next.clone(), 1),
        ),
    ] {
        assert_usage(&err(uow.repository::<Parcel>().page(query, request).await));
    }
    let by_json = Query::all().order_by(f.details.asc());
    let refused = uow
        .repository::<Parcel>()
        .page(by_json, PageRequest::first(1))
        .await;
    assert_refused(&err(refused), "conformance_parcel", "details");
    // Across tenants the order has the tenant as its last key.
    let mut across = bench.unit_of_work(&system());
    let request = PageRequest::after(next.clone(), 1);
    let refused = across
        .repository::<Parcel>()
        .page(by_rank.clone(), request)
        .await;
    assert_usage(&err(refused));
    // The unit of work goes on.
    let second = page(&mut uow, &by_rank, PageRequest::after(next, 1)).await;
    assert_eq!(second.items.len(), 1);
}
