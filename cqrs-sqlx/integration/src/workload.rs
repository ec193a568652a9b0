//! Concurrent writers with aborts and held transactions, and the oracle that checks what came of
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cqrs_core::{
    CommitReceipt, DomainEvent, Envelope, Error, EventSet, Position, RawPayload, ReadModels,
    Repository, RequestContext, Result, RowProjection, Specification, Store, StoreErrorKind,
    UnitOfWork,
};
use cqrs_sqlx::{Backend, SqlStore};
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use crate::domain::{self, Parcel, ParcelEvent, ParcelId, ParcelView, ParcelViews};
use crate::random::Random;
use crate::stores;

/// What all writers share.
#[derive(Debug)]
pub struct Workload {
    /// Commits still to be made.
    left: AtomicU64,
    /// For how many commits of others a transaction is held at most.
    longest_hold: u64,
    /// Fewer than there are writers may hold at the same time, or they would wait for each other: each
    /// writer but the first adds a permit, up to a limit.
    holders: Semaphore,
    /// How many writers have begun.
    writers: AtomicUsize,
    /// How many were made, for those that wait for others to commit.
    made: watch::Sender<u64>,
    /// The parcels so far, by tenant.
    parcels: Mutex<Vec<(RequestContext, ParcelId)>>,
    /// The events that receipts named.
    reported: Mutex<BTreeSet<Uuid>>,
    /// What writers do about errors that pass.
    errors: Errors,
    /// How many commits ended without anyone knowing how.
    unknown: AtomicU64,
}

/// What writers do about errors that pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errors {
    /// They are failures.
    Fail,
    /// Nothing was committed, and the writer goes on.
    GoOn,
}

impl Workload {
    /// So many commits. Some transactions are held while others commit, for up to `longest_hold`
    /// commits; 0 where a database has one writer, so that none can commit meanwhile.
    #[must_use]
    pub fn new(commits: u64, longest_hold: u64) -> Arc<Self> {
        Arc::new(Self::with(commits, longest_hold, Errors::Fail))
    }

    /// As [`new`](Self::new), for databases that come and go: an error that may pass means that
    /// nothing was committed, and the writer goes on.
    #[must_use]
    pub fn undeterred(commits: u64, longest_hold: u64) -> Arc<Self> {
        Arc::new(Self::with(commits, longest_hold, Errors::GoOn))
    }

    fn with(commits: u64, longest_hold: u64, errors: Errors) -> Self {
        Self {
            left: AtomicU64::new(commits),
            longest_hold,
            holders: Semaphore::new(0),
            writers: AtomicUsize::new(0),
            made: watch::Sender::new(0),
            parcels: Mutex::default(),
            reported: Mutex::default(),
            errors,
            unknown: AtomicU64::new(0),
        }
    }

    /// How many commits were made so far.
    #[must_use]
    pub fn made(&self) -> watch::Receiver<u64> {
        self.made.subscribe()
    }

    /// Commits, with aborts and held transactions in between, until all commits are made.
    ///
    /// # Errors
    ///
    /// The first error that is neither an abort of its own nor to be expected.
    pub async fn write<B: Backend>(self: Arc<Self>, store: SqlStore<B>, seed: u64) -> Result<()> {
        let most_holders = match self.errors {
            Errors::Fail => 5,
            Errors::GoOn => 2,
        };
        if (1..=most_holders).contains(&self.writers.fetch_add(1, Ordering::SeqCst)) {
            self.holders.add_permits(1);
        }
        let mut random = Random::new(seed);
        let context = stores::tenant(&format!("tenant-{}", seed % 4));
        while self.take() {
            let done = match random.below(20) {
                0 => self.abort(&store, &context).await.map(|()| None),
                1 => self.hold(&store, &context, &mut random).await.map(Some),
                2..8 => self.create(&store, &context, &mut random).await.map(Some),
                _ => self.change(&store, &context, &mut random).await.map(Some),
            };
            match done {
                Ok(Some(receipt)) => self.report(receipt),
                Ok(None) => self.give_back(),
                Err(error) => self.excuse(error)?,
            }
        }
        Ok(())
    }

    fn excuse(&self, error: Error) -> Result<()> {
        if self.errors == Errors::Fail {
            return Err(error);
        }
        match &error {
            Error::Store(cause) if *cause.kind() == StoreErrorKind::OutcomeUnknown => {
                self.unknown.fetch_add(1, Ordering::SeqCst);
                // Those who wait for others to commit do not wait for this one.
                self.made.send_modify(|made| *made += 1);
                Ok(())
            }
            error if error.is_retryable() => {
                self.give_back();
                Ok(())
            }
            Error::Store(cause) if *cause.kind() == StoreErrorKind::PoolTimedOut => {
                self.give_back();
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn take(&self) -> bool {
        self.left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }

    fn give_back(&self) {
        self.left.fetch_add(1, Ordering::SeqCst);
    }

    fn report(&self, receipt: CommitReceipt) {
        self.reported
            .lock()
            .expect("no writer panicked")
            .extend(receipt.events());
        self.made.send_modify(|made| *made += 1);
    }

    fn remember(&self, context: &RequestContext, id: ParcelId) {
        let mut parcels = self.parcels.lock().expect("no writer panicked");
        parcels.push((context.clone(), id));
    }

    async fn create<B: Backend>(
        &self,
        store: &SqlStore<B>,
        context: &RequestContext,
        random: &mut Random,
    ) -> Result<CommitReceipt> {
        let mut parcel = Parcel::register("new");
        for _ in 0..random.below(3) {
            parcel.weigh(1);
        }
        let id = domain::id(&parcel);
        let receipt = store
            .execute(context, async |uow| uow.save(parcel.clone()))
            .await?;
        self.remember(context, id);
        Ok(receipt)
    }

    /// Changes a parcel that others change too.
    async fn change<B: Backend>(
        &self,
        store: &SqlStore<B>,
        context: &RequestContext,
        random: &mut Random,
    ) -> Result<CommitReceipt> {
        let known = {
            let parcels = self.parcels.lock().expect("no writer panicked");
            let recent = parcels.len().saturating_sub(64) as u64;
            let pick = recent + random.below(parcels.len() as u64 - recent);
            parcels.get(usize::try_from(pick).unwrap_or(0)).cloned()
        };
        let Some((context, id)) = known else {
            return self.create(store, context, random).await;
        };
        let delivers = random.below(8) == 0;
        store
            .execute(&context, async |uow| {
                let mut parcel = uow.get::<Parcel>(id).await?;
                if delivers {
                    parcel.deliver();
                } else {
                    parcel.weigh(3);
                }
                uow.save(parcel)
            })
            .await
    }

    /// Writes, draws positions, and gives it all up.
    async fn abort<B: Backend>(&self, store: &SqlStore<B>, context: &RequestContext) -> Result<()> {
        let given_up = store
            .execute(context, async |uow| {
                uow.save(Parcel::register("never"))?;
                uow.repository::<Parcel>()
                    .count(Specification::all())
                    .await?;
                Err::<(), _>(Error::other("given up"))
            })
            .await;
        match given_up {
            Err(Error::Other(_)) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Error::other("an abort was committed")),
        }
    }

    /// Draws positions and holds them while others commit behind them.
    async fn hold<B: Backend>(
        &self,
        store: &SqlStore<B>,
        context: &RequestContext,
        random: &mut Random,
    ) -> Result<CommitReceipt> {
        let parcel = Parcel::register("held");
        let id = domain::id(&parcel);
        let mut uow = store.unit_of_work(context);
        uow.save(parcel)?;
        uow.connection().await?;
        let mut made = self.made.subscribe();
        let until = *made.borrow() + random.below(self.longest_hold + 1);
        // The last writer has nobody to wait for.
        let may_hold = self.holders.try_acquire();
        while may_hold.is_ok()
            && *made.borrow_and_update() < until
            && self.left.load(Ordering::SeqCst) > 0
        {
            if made.changed().await.is_err() {
                break;
            }
        }
        let receipt = uow.commit().await?;
        self.remember(context, id);
        Ok(receipt)
    }

    /// Checks the log against the receipts, and the read model against a fold of the log.
    ///
    /// # Panics
    ///
    /// Where an event was lost, skipped, applied twice or out of order.
    pub async fn check<B: Backend>(&self, store: &SqlStore<B>) {
        self.check_with(store, Vec::new()).await;
    }

    /// As [`check`](Self::check), where some events have left the log.
    ///
    /// # Panics
    ///
    /// As [`check`](Self::check).
    pub async fn check_with<B: Backend>(
        &self,
        store: &SqlStore<B>,
        archived: Vec<Envelope<RawPayload>>,
    ) {
        let log = self.whole_log(store, archived).await;
        check_views(store, &log).await;
    }

    /// Everything that was ever committed, in the order of the log: what was archived and what is
    /// left.
    ///
    /// # Panics
    ///
    /// Where that is not what receipts named.
    pub async fn whole_log<B: Backend>(
        &self,
        store: &SqlStore<B>,
        mut log: Vec<Envelope<RawPayload>>,
    ) -> Vec<Envelope<RawPayload>> {
        let system = RequestContext::system();
        let left = store.events(&system, Position::START, u32::MAX).await;
        log.extend(left.expect("the log is read"));
        log.sort_by_key(Envelope::position);
        let logged: BTreeSet<Uuid> = log.iter().map(Envelope::event_id).collect();
        assert_eq!(logged.len(), log.len(), "every event is in the log once");
        let reported = self.reported.lock().expect("no writer panicked").clone();
        if self.unknown.load(Ordering::SeqCst) == 0 {
            assert_eq!(
                logged, reported,
                "the log holds what receipts named, and nothing else"
            );
        } else {
            assert!(
                logged.is_superset(&reported),
                "the log holds what receipts named"
            );
        }
        log
    }

    /// Checks the read model alone.
    ///
    /// # Panics
    ///
    /// Where it is not a fold of the log.
    pub async fn check_views<B: Backend>(store: &SqlStore<B>) {
        let system = RequestContext::system();
        let log = store.events(&system, Position::START, u32::MAX).await;
        check_views(store, &log.expect("the log is read")).await;
    }
}

async fn check_views<B: Backend>(store: &SqlStore<B>, log: &[Envelope<RawPayload>]) {
    let system = RequestContext::system();
    let expected = fold(log, &BTreeSet::new());
    let views: Vec<ParcelView> = store
        .read_models(&system)
        .query(cqrs_core::Query::all())
        .await
        .expect("the views are read");
    let found: BTreeMap<String, ParcelView> = views
        .into_iter()
        .map(|view| (view.id.to_string(), view))
        .collect();
    assert_eq!(found.len(), expected.len());
    for (id, view) in &expected {
        assert_eq!(found.get(id), Some(view), "parcel {id}");
    }
}

/// The read model as it must be, by parcel, without the events at some positions.
///
/// # Panics
///
/// Where the versions of a parcel are not dense, or not in order.
#[must_use]
pub fn fold(
    log: &[Envelope<RawPayload>],
    skipped: &BTreeSet<Position>,
) -> BTreeMap<String, ParcelView> {
    let mut rows: BTreeMap<String, Option<ParcelView>> = BTreeMap::new();
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    let of_parcels =
        |raw: &&Envelope<RawPayload>| raw.aggregate_type() == ParcelEvent::AGGREGATE_TYPE;
    for raw in log.iter().filter(of_parcels) {
        let version = versions.entry(raw.aggregate_id_str()).or_default();
        *version += 1;
        assert_eq!(
            raw.aggregate_version(),
            *version,
            "versions are dense, in order"
        );
        if skipped.contains(&raw.position()) {
            continue;
        }
        let event = ParcelEvent::decode(raw)
            .expect("the payload fits")
            .expect("no other events are written");
        let row = rows.entry(raw.aggregate_id_str().to_owned()).or_default();
        ParcelViews
            .apply(row, &raw.with_payload(event))
            .expect("the fold takes every event");
    }
    rows.into_iter()
        .filter_map(|(id, row)| Some((id, row?)))
        .collect()
}
