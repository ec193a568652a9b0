//! Units of work that meet on the same rows, in whatever order they stage them, do not deadlock.

use std::sync::Arc;

use cqrs_core::{
    Aggregate, DomainEvent, Entity, Error, Repository, RequestContext, Root, Store, UnitOfWork,
};
use cqrs_integration::random::{Random, seed};
use cqrs_sqlx::{PgStore, PgUnitOfWork, Postgres};
use serde::{Deserialize, Serialize};
use tokio::sync::Barrier;

use cqrs_integration::each::{Fresh, Kind};

const TASKS: usize = 6;
const COMMITS: usize = 50;
/// The rows that all tasks work on at a time.
const ROWS: u64 = 5;
const ALL_ROWS: u64 = 200;

macro_rules! aggregate {
    ($name:ident, $event:ident, $table:literal $(, $flag:ident)*) => {
        #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
        #[event(aggregate = $table)]
        enum $event {
            Said,
        }

        #[derive(Debug, Clone, Aggregate)]
        #[aggregate(table = $table, event = $event $(, $flag)*)]
        struct $name {
            #[aggregate(id)]
            id: i64,
            #[aggregate(root)]
            root: Root<$event>,
            count: i64,
        }

        impl $name {
            /// Stages a guard, or a change of one of the four kinds.
            fn change(mut self, uow: &mut PgUnitOfWork, how: u64) -> cqrs_core::Result<()> {
                match how % 8 {
                    // It is gone for good.
                    0 => return uow.remove(self),
                    1 => {}
                    2 => return uow.guard(&self),
                    3..5 => self.count += 1,
                    _ => {
                        self.count += 1;
                        self.root.raise($event::Said);
                    }
                }
                uow.save(self)
            }
        }
    };
}

aggregate!(Ant, AntEvent, "ant");
aggregate!(Bee, BeeEvent, "bee", soft_delete);

async fn with_rows() -> (Fresh<Postgres>, PgStore) {
    let fresh = Fresh::<Postgres>::empty().await;
    let store = fresh.open(Default::default()).await;
    store.migrate().await.unwrap();
    let tables = [Ant::table(), Bee::table()];
    store.create_tables(&tables).await.unwrap();
    let mut uow = store.unit_of_work(&RequestContext::system());
    for id in 0..i64::try_from(ALL_ROWS).unwrap() {
        let (root, count) = (Root::new(), 0);
        uow.save(Ant { id, root, count }).unwrap();
        let root = Root::new();
        uow.save(Bee { id, root, count }).unwrap();
    }
    let _ = uow.commit().await.unwrap();
    (fresh, store)
}

/// Changes some rows of both tables, staged in a random order. They were loaded before, so that
/// the commit is what locks.
async fn change_some(store: &PgStore, random: &mut Random, first: u64) -> Result<usize, Error> {
    let mut loading = store.unit_of_work(&RequestContext::system());
    let mut uow = store.unit_of_work(&RequestContext::system());
    let mut seen = Vec::new();
    for _ in 0..5 {
        let (row, how) = (random.below(2 * ROWS), random.below(1000));
        if seen.contains(&row) {
            continue;
        }
        seen.push(row);
        let id = i64::try_from((first + row / 2) % ALL_ROWS).unwrap();
        if row % 2 == 0 {
            if let Some(ant) = loading.repository::<Ant>().find(id).await? {
                ant.change(&mut uow, how)?;
            }
        } else if let Some(bee) = loading.repository::<Bee>().find(id).await? {
            bee.change(&mut uow, how)?;
        }
    }
    Ok(uow.commit().await?.events().len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_order_of_staging_is_one_order_of_locks() {
    let (fresh, store) = with_rows().await;
    let seed = seed();
    let barrier = Arc::new(Barrier::new(TASKS));
    let mut tasks = Vec::new();
    for task in 0..TASKS as u64 {
        let (store, barrier) = (store.clone(), Arc::clone(&barrier));
        tasks.push(tokio::spawn(async move {
            let mut random = Random::new(seed ^ task);
            let (mut events, mut conflicts, mut others) = (0, 0, Vec::new());
            for round in 0..COMMITS as u64 {
                barrier.wait().await;
                match change_some(&store, &mut random, round * 2).await {
                    Ok(written) => events += written,
                    Err(Error::Conflict { .. } | Error::NotFound { .. }) => conflicts += 1,
                    // The other tasks wait for this one.
                    Err(error) => others.push(error),
                }
            }
            (events, conflicts, others)
        }));
    }
    let (mut events, mut conflicts) = (0, 0);
    for task in tasks {
        let (written, refused, others) = task.await.unwrap();
        assert!(others.is_empty(), "{others:?}");
        events += written;
        conflicts += refused;
    }
    assert!(conflicts > 0, "the tasks did not meet");
    let logged = fresh.number("SELECT count(*) FROM cqrs_event").await;
    let before = 2 * i64::try_from(ALL_ROWS).unwrap();
    assert_eq!(logged, before + i64::try_from(events).unwrap());

    // The server counts them when a connection ends.
    store.close();
    drop(store);
    Postgres::deserted(&fresh.url).await;
    let counted = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(fresh.number(counted).await, 0);
}
