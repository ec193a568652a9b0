//! Chained aggregates: one with a row, one without.

use cqrs_core::{
    Aggregate, DomainEvent, Repository, RequestContext, Root, Sourced, SourcedState, Store,
    UnitOfWork,
};
use cqrs_integration::random::Random;
use cqrs_integration::stores;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "vault")]
pub(super) enum VaultEvent {
    Filled { coins: i64 },
}

/// A row with its head.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "vault", event = VaultEvent, tenant, chained)]
pub(super) struct Vault {
    #[aggregate(id)]
    pub(super) id: i64,
    #[aggregate(root)]
    pub(super) root: Root<VaultEvent>,
    pub(super) coins: i64,
}

impl Vault {
    pub(super) fn new(id: i64) -> Self {
        let root = Root::new();
        let mut vault = Self { id, root, coins: 0 };
        vault.fill(1);
        vault
    }

    pub(super) fn fill(&mut self, coins: i64) {
        self.coins += coins;
        self.root.raise(VaultEvent::Filled { coins });
    }
}

/// Makes events of vaults under ids that a vault never writes.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "forgery", event = VaultEvent, tenant, chained)]
pub(super) struct Forgery {
    #[aggregate(id)]
    pub(super) id: String,
    #[aggregate(root)]
    pub(super) root: Root<VaultEvent>,
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "till")]
pub(super) enum TillEvent {
    Paid { coins: i64 },
}

/// Events alone.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = TillEvent, chained, snapshot(every = 3))]
pub(super) struct Till {
    #[aggregate(id)]
    pub(super) id: String,
    #[aggregate(root)]
    pub(super) root: Root<TillEvent>,
    pub(super) coins: i64,
}

impl Sourced for Till {
    fn apply(&mut self, event: &TillEvent) {
        let TillEvent::Paid { coins } = event;
        self.coins += coins;
    }
}

impl Till {
    pub(super) fn pay(&mut self, coins: i64) {
        self.raise(TillEvent::Paid { coins });
    }
}

pub(super) fn north() -> RequestContext {
    stores::tenant("north").with_actor("ann")
}

/// Fills vaults and tills, alone and together, some of them in the same unit of work twice.
pub(super) async fn work<S: Store>(store: &S, random: &mut Random, commits: u64) {
    for commit in 0..commits {
        let mut uow = store.unit_of_work(&north());
        for _ in 0..=random.below(2) {
            touch(&mut uow, random, commit).await;
        }
        let _ = uow.commit().await.unwrap();
    }
}

async fn touch<U: UnitOfWork>(uow: &mut U, random: &mut Random, commit: u64) {
    let (number, events) = (random.below(4), 1 + random.below(3));
    let coins = i64::try_from(commit).unwrap();
    if random.below(2) == 0 {
        let id = i64::try_from(number).unwrap();
        let found = uow.repository::<Vault>().find(id).await.unwrap();
        let mut vault = found.unwrap_or_else(|| Vault::new(id));
        (0..events).for_each(|_| vault.fill(coins));
        uow.save(vault).unwrap();
    } else {
        let id = format!("T{number}");
        let found = uow.repository::<Till>().find(id.clone()).await.unwrap();
        let mut till = found.unwrap_or_else(|| Till::blank(id));
        (0..events).for_each(|_| till.pay(coins));
        uow.save(till).unwrap();
    }
}
