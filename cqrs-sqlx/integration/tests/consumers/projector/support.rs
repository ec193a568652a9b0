//! What the tests of the projector share.

use std::sync::{Arc, Mutex};

use cqrs_core::{
    Aggregate, CommitReceipt, DomainEvent, Entity, Envelope, Error, Id, Owned, Position,
    Projection, ProjectionTransaction, Query, RawPayload, ReadModel, ReadModels, RequestContext,
    Result, Root, RowAddress, Store, UnitOfWork,
};
use cqrs_integration::domain::Parcel;
use cqrs_integration::stores;
use cqrs_sqlx::{Backend, Operations, SqlStore, SubscriptionFailure, SubscriptionState};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

/// Runs a test on an empty store of each database.
macro_rules! on_each_database {
    ($($name:ident),* $(,)?) => {
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let database = cqrs_integration::database::TestDatabase::create().await;
                    let store = cqrs_integration::stores::postgres(database.url()).await;
                    super::$name(crate::projector::support::with_tables(store).await).await;
                }
            )*
        }
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let file = cqrs_integration::database::TestFile::create();
                    let store = cqrs_integration::stores::sqlite(&file.url()).await;
                    super::$name(crate::projector::support::with_tables(store).await).await;
                }
            )*
        }
    };
}
pub(crate) use on_each_database;

/// How often a subscription applied an event, by what was committed.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "applied")]
pub(crate) struct Applied {
    #[read_model(key)]
    pub(crate) subscription: String,
    #[read_model(key)]
    pub(crate) position: i64,
    pub(crate) times: i64,
}

/// Another aggregate, whose events most subscriptions do not read.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "truck", event = TruckEvent)]
pub(crate) struct Truck {
    #[aggregate(id)]
    id: Id<Truck>,
    #[aggregate(root)]
    root: Root<TruckEvent>,
}

/// What happens to a truck.
#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "truck")]
pub(crate) enum TruckEvent {
    Bought,
}

/// Adds the tables of [`Applied`] and [`Truck`].
pub(crate) async fn with_tables<B: Backend>(store: SqlStore<B>) -> SqlStore<B> {
    let tables = [Applied::table(), Truck::table()];
    store.create_tables(&tables).await.unwrap();
    store
}

/// What a [`Recorder`] does to a page.
pub(crate) type Fault = Box<dyn Fn(&[Envelope<RawPayload>]) -> Result<()> + Send + Sync>;

/// Counts each event in [`Applied`], and remembers the pages that it was given.
#[derive(Clone)]
pub(crate) struct Recorder {
    name: &'static str,
    fault: Arc<Fault>,
    gate: Option<Arc<Gate>>,
    pages: Arc<Mutex<Vec<Vec<i64>>>>,
    rows_alone: bool,
}

/// Holds a page after its rows were written and before it returns.
pub(crate) struct Gate {
    /// Gets a permit for each page that arrives.
    pub(crate) arrived: Semaphore,
    /// Gives a permit to each page that may go on.
    pub(crate) open: Semaphore,
}

impl Recorder {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            fault: Arc::new(Box::new(|_| Ok(()))),
            gate: None,
            pages: Arc::default(),
            rows_alone: false,
        }
    }

    /// Says that it writes rows alone, so that its pages need no lock.
    pub(crate) fn rows_alone(mut self) -> Self {
        self.rows_alone = true;
        self
    }

    /// Calls this after the rows of a page are written.
    pub(crate) fn with_fault(
        mut self,
        fault: impl Fn(&[Envelope<RawPayload>]) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.fault = Arc::new(Box::new(fault));
        self
    }

    pub(crate) fn with_gate(mut self) -> (Self, Arc<Gate>) {
        let gate = Arc::new(Gate {
            arrived: Semaphore::new(0),
            open: Semaphore::new(0),
        });
        self.gate = Some(Arc::clone(&gate));
        (self, gate)
    }

    /// The positions of the pages that it was given.
    pub(crate) fn pages(&self) -> Vec<Vec<i64>> {
        self.pages.lock().unwrap().clone()
    }
}

impl<T: ProjectionTransaction> Projection<T> for Recorder {
    type Event = RawPayload;

    fn name(&self) -> &str {
        self.name
    }

    fn writes_rows_alone(&self) -> bool {
        self.rows_alone
    }

    async fn apply(&self, page: &[Envelope<RawPayload>], transaction: &mut T) -> Result<()> {
        let positions: Vec<i64> = page.iter().map(|event| event.position().0).collect();
        self.pages.lock().unwrap().push(positions.clone());
        let addresses = positions
            .iter()
            .map(|&position| RowAddress::of::<Applied>(None, &(self.name.to_owned(), position)))
            .collect::<Result<Vec<_>>>()?;
        let known = transaction.load::<Applied>(&addresses).await?;
        let rows: Vec<_> = positions
            .iter()
            .map(|&position| Owned {
                tenant: None,
                row: Applied {
                    subscription: self.name.to_owned(),
                    position,
                    times: 1 + known
                        .iter()
                        .find(|known| known.row.position == position)
                        .map_or(0, |known| known.row.times),
                },
            })
            .collect();
        transaction.upsert(&rows).await?;
        if let Some(gate) = &self.gate {
            gate.arrived.add_permits(1);
            gate.open.acquire().await.unwrap().forget();
        }
        (self.fault)(page)
    }
}

/// The positions that were applied, each as often as it was.
pub(crate) async fn applied<B: Backend>(store: &SqlStore<B>) -> Vec<i64> {
    let mut rows = store
        .read_models(&RequestContext::system())
        .query::<Applied>(Query::all())
        .await
        .unwrap();
    rows.sort_by_key(|row| row.position);
    rows.iter()
        .flat_map(|row| std::iter::repeat_n(row.position, row.times.try_into().unwrap()))
        .collect()
}

/// Commits a new parcel with `weighings` more events; the position of the last.
pub(crate) async fn commit<B: Backend>(store: &SqlStore<B>, weighings: i64) -> Position {
    receipt(store, weighings).await.position().unwrap()
}

/// As [`commit`].
pub(crate) async fn receipt<B: Backend>(store: &SqlStore<B>, weighings: i64) -> CommitReceipt {
    let mut parcel = Parcel::register("parcel");
    (0..weighings).for_each(|grams| parcel.weigh(grams));
    let mut unit_of_work = store.unit_of_work(&stores::tenant("north"));
    unit_of_work.save(parcel).unwrap();
    unit_of_work.commit().await.unwrap()
}

/// Commits a new truck; the position of its event.
pub(crate) async fn commit_truck<B: Backend>(store: &SqlStore<B>) -> Position {
    let mut truck = Truck {
        id: Id::new(),
        root: Root::new(),
    };
    truck.root.raise(TruckEvent::Bought);
    let mut unit_of_work = store.unit_of_work(&RequestContext::system());
    unit_of_work.save(truck).unwrap();
    unit_of_work.commit().await.unwrap().position().unwrap()
}

/// Appends an event to the log as no aggregate would; its position.
pub(crate) const INSERT: &str = "INSERT INTO cqrs_event (event_id, tenant_id, aggregate_type, \
     aggregate_id, aggregate_version, event_type, schema_version, payload, content_hash, \
     correlation_id, occurred_at) \
     VALUES ($1, 'north', $2, $3, 1, $4, 1, $5, $6, $1, $7) RETURNING position";

/// The operations of somebody who may see all tenants.
pub(crate) fn operations<B: Backend>(store: &SqlStore<B>) -> Operations<B> {
    store.operations(&RequestContext::system()).unwrap()
}

/// The failure that an error tells of.
pub(crate) fn failure(error: &Error) -> &SubscriptionFailure {
    match error {
        Error::Other(error) => error.downcast_ref().expect("a subscription's failure"),
        other => panic!("not a subscription's failure: {other:?}"),
    }
}

/// The state of the only subscription.
pub(crate) async fn state<B: Backend>(store: &SqlStore<B>) -> SubscriptionState {
    let [status] = &store.subscriptions().await.unwrap()[..] else {
        panic!("there is one subscription");
    };
    status.state.clone()
}
