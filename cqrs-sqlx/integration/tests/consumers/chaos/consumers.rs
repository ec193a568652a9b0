//! The subscriptions of a scene: views that fail, copies of them that do not, and a relay.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use cqrs_core::{
    DomainEvent, Entity, Envelope, Error, EventBus, EventSet, Projection, RawPayload, ReadModel,
    Rebuilds, Result, RowProjection, Rows, Subscription,
};
use cqrs_integration::domain::{ParcelEvent, ParcelId, ParcelView, ParcelViews};
use cqrs_integration::each::Kind;
use cqrs_sqlx::{SqlStore, SqlTransaction};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::plan::Plan;
use super::poison::Poison;

pub(super) const VIEWS: &str = ParcelViews::NAME;
pub(super) const COPIES: &str = "parcel_copy";
pub(super) const PUBLISHED: &str = "published";

/// Much longer than a deadline. A replica that is killed meanwhile leaves it to the server, which goes
/// on: so it is shorter than the dust takes to settle.
const SLEEP: &str = "SELECT pg_sleep(5)";
/// For ever.
const COUNT: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                     SELECT count(*) FROM n";

/// What every replica of a scene shares.
#[derive(Clone)]
pub(super) struct Consumers {
    pub(super) plan: Plan,
    pub(super) poison: Poison,
    pub(super) bus: Bus,
}

impl Consumers {
    pub(super) fn new(plan: Plan) -> Self {
        let poison = Poison::new(plan.seed, plan.deadline.is_some());
        Self {
            plan,
            bus: Bus {
                poison: poison.clone(),
                published: Arc::default(),
            },
            poison,
        }
    }

    /// The views, as a release keeps them that reads these events.
    pub(super) fn views<K: Kind, E>(&self) -> Subscription<SqlTransaction<K>>
    where
        E: EventSet + Clone + Into<ParcelEvent>,
    {
        let views = Views::<E> {
            poison: self.poison.clone(),
            unlocked: self.plan.unlocked,
            events: PhantomData,
        };
        Subscription::new(views).on_failure(self.plan.views.clone())
    }

    pub(super) fn copies<K: Kind>() -> Subscription<SqlTransaction<K>> {
        Subscription::named(COPIES).rows(ParcelCopies)
    }

    pub(super) fn relay<K: Kind>(&self) -> Subscription<SqlTransaction<K>> {
        Subscription::named(PUBLISHED)
            .relay(self.bus.clone())
            .on_failure(self.plan.relay.clone())
    }
}

/// Adds the table of the copies.
pub(super) async fn with_tables<K: Kind>(store: SqlStore<K>) -> SqlStore<K> {
    store.create_tables(&[ParcelCopy::table()]).await.unwrap();
    store
}

/// The events of a parcel as the first release knows them: it does not know deliveries.
#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "parcel")]
pub(super) enum FirstRelease {
    Registered { label: String },
    Weighed { grams: i64 },
}

impl From<FirstRelease> for ParcelEvent {
    fn from(event: FirstRelease) -> Self {
        match event {
            FirstRelease::Registered { label } => Self::Registered { label },
            FirstRelease::Weighed { grams } => Self::Weighed { grams },
        }
    }
}

/// Keeps the parcel views, as far as the poison lets it.
struct Views<E> {
    poison: Poison,
    unlocked: bool,
    events: PhantomData<fn() -> E>,
}

impl<K, E> Projection<SqlTransaction<K>> for Views<E>
where
    K: Kind,
    E: EventSet + Clone + Into<ParcelEvent>,
{
    type Event = E;

    fn name(&self) -> &str {
        VIEWS
    }

    fn writes_rows_alone(&self) -> bool {
        self.unlocked
    }

    fn is_splittable(&self) -> bool {
        true
    }

    fn rebuilds(&self) -> Option<Rebuilds> {
        Projection::<SqlTransaction<K>>::rebuilds(&Rows(ParcelViews))
    }

    async fn clear(&self, transaction: &mut SqlTransaction<K>) -> Result<()> {
        Rows(ParcelViews).clear(transaction).await
    }

    async fn apply(&self, page: &[Envelope<E>], transaction: &mut SqlTransaction<K>) -> Result<()> {
        let events: Vec<Envelope<ParcelEvent>> = page
            .iter()
            .map(|event| event.with_payload(event.payload().clone().into()))
            .collect();
        // What comes before the event that fails is written, and has to be undone.
        for (good, event) in events.iter().enumerate() {
            if !self.unlocked && self.poison.hangs_in_statement(event.event_id()) {
                let hangs = K::run_on(transaction.connection(), K::either(SLEEP, COUNT).to_owned());
                hangs.await.map_err(Error::other)?;
            }
            if let Err(error) = self.poison.taste(event.event_id()).await {
                if good > 0 {
                    Rows(ParcelViews)
                        .apply(&events[..good], transaction)
                        .await?;
                }
                return Err(error);
            }
        }
        Rows(ParcelViews).apply(&events, transaction).await
    }
}

/// What [`ParcelView`] is, in another table.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "parcel_copy", tenant)]
pub(super) struct ParcelCopy {
    #[read_model(key)]
    pub(super) id: ParcelId,
    version: u64,
    events: u64,
    grams: i64,
    digest: i64,
}

impl From<ParcelView> for ParcelCopy {
    fn from(view: ParcelView) -> Self {
        Self {
            id: view.id,
            version: view.version,
            events: view.events,
            grams: view.grams,
            digest: view.digest,
        }
    }
}

impl From<ParcelCopy> for ParcelView {
    fn from(copy: ParcelCopy) -> Self {
        Self {
            id: copy.id,
            version: copy.version,
            events: copy.events,
            grams: copy.grams,
            digest: copy.digest,
        }
    }
}

/// Keeps [`ParcelCopy`]. It never fails, and its pages are not locked.
#[derive(Debug, Clone, Copy)]
struct ParcelCopies;

impl RowProjection for ParcelCopies {
    type Event = ParcelEvent;
    type Row = ParcelCopy;

    const NAME: &'static str = COPIES;
    const ROW_PER_AGGREGATE: bool = true;

    fn key(&self, event: &Envelope<ParcelEvent>) -> Result<Option<ParcelId>> {
        Ok(Some(event.aggregate_id()?))
    }

    fn apply(&self, row: &mut Option<ParcelCopy>, event: &Envelope<ParcelEvent>) -> Result<()> {
        let mut view = row.take().map(ParcelView::from);
        ParcelViews.apply(&mut view, event)?;
        *row = view.map(ParcelCopy::from);
        Ok(())
    }
}

/// What was published of an event: its id, its aggregate and the version of that.
pub(super) type Published = (Uuid, String, u64);

/// Remembers what it is given, in order. Where it fails, what came before was published.
#[derive(Clone)]
pub(super) struct Bus {
    poison: Poison,
    published: Arc<Mutex<Vec<Published>>>,
}

impl Bus {
    pub(super) fn published(&self) -> Vec<Published> {
        self.published.lock().unwrap().clone()
    }
}

impl EventBus for Bus {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        for event in page {
            // Another event than the one that the views cannot apply.
            let id = event.event_id();
            let tasted = Uuid::from_u128(!id.as_u128().rotate_left(64) ^ 1);
            self.poison
                .taste(tasted)
                .await
                .map_err(|error| Error::other(format!("not published: {error}")))?;
            let aggregate = event.aggregate_id_str().to_owned();
            let mut published = self.published.lock().unwrap();
            published.push((id, aggregate, event.aggregate_version()));
        }
        Ok(())
    }
}
