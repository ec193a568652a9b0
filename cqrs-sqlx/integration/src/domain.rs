//! The aggregate of these tests: a parcel that is registered, weighed and delivered.

use cqrs_core::mapping::Table;
use cqrs_core::{
    Aggregate, AggregateRoot, DomainEvent, Entity, Envelope, Id, ReadModel, Repository, Result,
    Root, RowProjection, repository,
};
use serde::{Deserialize, Serialize};

/// What happens to a parcel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "parcel")]
pub enum ParcelEvent {
    /// It was registered.
    Registered {
        /// Its label.
        label: String,
    },
    /// It was weighed.
    Weighed {
        /// In grams.
        grams: i64,
    },
    /// It was delivered.
    Delivered,
}

/// The id of a parcel.
pub type ParcelId = Id<Parcel>;

/// A parcel.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "parcel", event = ParcelEvent, tenant, soft_delete, audit)]
pub struct Parcel {
    #[aggregate(id)]
    id: ParcelId,
    #[aggregate(root)]
    root: Root<ParcelEvent>,
    label: String,
    grams: i64,
    delivered: bool,
}

impl Parcel {
    /// Registers a parcel.
    #[must_use]
    pub fn register(label: &str) -> Self {
        let mut root = Root::new();
        root.raise(ParcelEvent::Registered {
            label: label.to_owned(),
        });
        Self {
            id: Id::new(),
            root,
            label: label.to_owned(),
            grams: 0,
            delivered: false,
        }
    }

    /// Adds to its weight.
    pub fn weigh(&mut self, grams: i64) {
        self.grams += grams;
        self.root.raise(ParcelEvent::Weighed { grams });
    }

    /// Delivers it.
    pub fn deliver(&mut self) {
        self.delivered = true;
        self.root.raise(ParcelEvent::Delivered);
    }

    /// Changes the label without saying so.
    pub fn relabel(&mut self, label: &str) {
        label.clone_into(&mut self.label);
    }

    /// What it weighs.
    #[must_use]
    pub fn grams(&self) -> i64 {
        self.grams
    }

    /// Its label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }
}

/// Parcels.
#[repository]
pub trait Parcels: Repository<Parcel> {
    /// The heaviest first.
    #[find(delivered == false, order_by(grams.desc()))]
    async fn find_open(&mut self, limit: u32) -> Result<Vec<Parcel>>;

    /// The next to deliver that nobody works on, locked.
    #[find(!delivered, order_by(label.asc()), lock, skip_locked)]
    async fn take_open(&mut self) -> Result<Option<Parcel>>;

    /// The next to deliver, locked.
    #[find(!delivered, order_by(label.asc()), lock)]
    async fn lock_open(&mut self) -> Result<Option<Parcel>>;

    /// How many there are to deliver.
    #[find(!delivered)]
    async fn count_open(&mut self) -> Result<u64>;

    /// Whether there is any to deliver.
    #[find(!delivered)]
    async fn exists_open(&mut self) -> Result<bool>;

    /// The one with a label.
    #[find(label == label, one)]
    async fn get_labelled(&mut self, label: &str) -> Result<Parcel>;
}

/// What a reader sees of a parcel. Counts and a running hash tell whether each event was applied,
/// once, and in its order.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "parcel_view", tenant)]
pub struct ParcelView {
    /// The parcel.
    #[read_model(key)]
    pub id: ParcelId,
    /// The version of the last event applied.
    pub version: u64,
    /// How many events were applied.
    pub events: u64,
    /// The sum of all weights.
    pub grams: i64,
    /// Depends on every event and on their order.
    pub digest: i64,
}

/// Keeps [`ParcelView`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ParcelViews;

impl RowProjection for ParcelViews {
    type Event = ParcelEvent;
    type Row = ParcelView;

    const NAME: &'static str = "parcel_view";
    const ROW_PER_AGGREGATE: bool = true;

    fn key(&self, event: &Envelope<ParcelEvent>) -> Result<Option<ParcelId>> {
        Ok(Some(event.aggregate_id()?))
    }

    fn apply(&self, row: &mut Option<ParcelView>, event: &Envelope<ParcelEvent>) -> Result<()> {
        let view = row.get_or_insert(ParcelView {
            id: event.aggregate_id()?,
            version: 0,
            events: 0,
            grams: 0,
            digest: 0,
        });
        view.version = event.aggregate_version();
        view.events += 1;
        if let ParcelEvent::Weighed { grams } = event.payload() {
            view.grams += grams;
        }
        view.digest = digest(view.digest, event.event_id().as_u128());
        Ok(())
    }
}

/// A step of the running hash; it does not commute.
fn digest(digest: i64, event: u128) -> i64 {
    let folded = (event >> 64) as u64 ^ event as u64;
    digest
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(folded as i64)
}

/// The tables of these tests.
#[must_use]
pub fn tables() -> [&'static Table; 2] {
    [Parcel::table(), ParcelView::table()]
}

/// The id of a parcel, to find it by.
#[must_use]
pub fn id(parcel: &Parcel) -> ParcelId {
    *parcel.id()
}

/// The version at which a parcel was loaded.
#[must_use]
pub fn version(parcel: &Parcel) -> u64 {
    parcel.root.version()
}
