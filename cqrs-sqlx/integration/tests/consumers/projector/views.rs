//! What tests of rebuilds and snapshots share: a projection with a version, and what is done with it.

use cqrs_core::{Envelope, Result, RowProjection, Store, Subscription, UnitOfWork};
use cqrs_integration::domain::{Parcel, ParcelEvent, ParcelId, ParcelView, ParcelViews};
use cqrs_integration::stores;
use cqrs_sqlx::{Backend, SqlStore, SqlTransaction};

pub(super) const NAME: &str = "parcel_view";

/// [`ParcelViews`] in another version.
#[derive(Clone, Copy)]
pub(super) struct Version<const V: u32>;

impl<const V: u32> RowProjection for Version<V> {
    type Event = ParcelEvent;
    type Row = ParcelView;

    const NAME: &'static str = NAME;
    const ROW_PER_AGGREGATE: bool = true;
    const VERSION: u32 = V;

    fn key(&self, event: &Envelope<ParcelEvent>) -> Result<Option<ParcelId>> {
        ParcelViews.key(event)
    }

    fn apply(&self, row: &mut Option<ParcelView>, event: &Envelope<ParcelEvent>) -> Result<()> {
        ParcelViews.apply(row, event)
    }
}

pub(super) fn rows<B: Backend>(projection: impl RowProjection) -> Subscription<SqlTransaction<B>> {
    Subscription::named(NAME).rows(projection)
}

/// Runs a projection in small pages until nothing is left; it fails at once.
pub(super) async fn run<B: Backend>(
    store: &SqlStore<B>,
    projection: impl RowProjection,
) -> Result<u64> {
    let projector = store.projector().rows(projection).page_size(3);
    projector.retry_delays([]).run_until_idle().await
}

/// Commits a new parcel with so many events: it weighs 1, then 2, and so on.
pub(super) async fn commit<B: Backend>(store: &SqlStore<B>, events: i64) {
    let mut parcel = Parcel::register("parcel");
    (1..events).for_each(|grams| parcel.weigh(grams));
    let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
    unit_of_work.save(parcel).unwrap();
    let _ = unit_of_work.commit().await.unwrap();
}
