//! A projection that fails on some events.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cqrs_core::{
    Envelope, Error, Projection, ProjectionTransaction, Rebuilds, Result, RowProjection, Rows,
};
use cqrs_integration::domain::{ParcelEvent, ParcelViews};
use cqrs_integration::random::Random;
use uuid::Uuid;

/// Which events fail, by the seed, and for how long.
#[derive(Clone)]
pub(super) struct Poison {
    seed: u64,
    healed: Arc<AtomicBool>,
    tried: Arc<Mutex<HashSet<Uuid>>>,
}

impl Poison {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            healed: Arc::default(),
            tried: Arc::default(),
        }
    }

    /// From now on nothing fails.
    pub(super) fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
    }

    fn check(&self, event: &Envelope<ParcelEvent>) -> Result<()> {
        if self.healed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let id = event.event_id();
        let fold = (id.as_u128() >> 64) as u64 ^ id.as_u128() as u64;
        match Random::new(self.seed ^ fold).below(40) {
            0 => Err(Error::other("poison")),
            1 if self.is_new(id) => Err(Error::other("poison, the first time")),
            2 if self.is_new(id) => panic!("poison, the first time"),
            _ => Ok(()),
        }
    }

    fn is_new(&self, id: Uuid) -> bool {
        let mut tried = self
            .tried
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        tried.insert(id)
    }
}

/// Keeps the parcel views, as far as the poison lets it.
pub(super) struct Poisoned(pub(super) Poison);

impl<T: ProjectionTransaction> Projection<T> for Poisoned {
    type Event = ParcelEvent;

    fn name(&self) -> &str {
        ParcelViews::NAME
    }

    /// So half of the scenes try pages without a lock.
    fn writes_rows_alone(&self) -> bool {
        self.0.seed.is_multiple_of(2)
    }

    fn is_splittable(&self) -> bool {
        true
    }

    fn rebuilds(&self) -> Option<Rebuilds> {
        Projection::<T>::rebuilds(&Rows(ParcelViews))
    }

    async fn clear(&self, transaction: &mut T) -> Result<()> {
        Rows(ParcelViews).clear(transaction).await
    }

    async fn apply(&self, page: &[Envelope<ParcelEvent>], transaction: &mut T) -> Result<()> {
        // What comes before the event that fails is written, and has to be undone.
        let good = page.iter().position(|event| self.0.check(event).is_err());
        let before = &page[..good.unwrap_or(page.len())];
        if !before.is_empty() {
            Rows(ParcelViews).apply(before, transaction).await?;
        }
        match good {
            Some(_) => Err(Error::other("poison")),
            None => Ok(()),
        }
    }
}
