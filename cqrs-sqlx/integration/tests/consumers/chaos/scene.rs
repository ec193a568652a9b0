//! One seed: what happens, and what must have come of it.

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::{CommitReceipt, RequestContext, Result, RowProjection, StartAt, Store};
use cqrs_integration::cluster::Cluster;
use cqrs_integration::domain::ParcelViews;
use cqrs_integration::random::Random;
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{PgStore, SubscriptionStatus, SwitchOver};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use super::poison::Poison;
use super::replica::{Replica, subscription, writer};

const WRITERS: u64 = 3;
/// How often to ask, once nothing is in the way any more, whether all is applied. A pause is the
/// poll interval of the replicas.
const POLLS: u32 = 4_000;
const POLL: Duration = Duration::from_millis(5);

/// What may happen to the server.
#[derive(Clone)]
pub(super) enum Server {
    Stays,
    Crashes(Arc<Cluster>),
}

pub(super) struct Scene {
    seed: u64,
    url: String,
    server: Server,
    random: Random,
    poison: Poison,
    replicas: Vec<Replica>,
}

impl Scene {
    pub(super) fn new(seed: u64, url: String, server: Server) -> Self {
        Self {
            seed,
            url,
            server,
            random: Random::new(seed),
            poison: Poison::new(seed),
            replicas: Vec::new(),
        }
    }

    pub(super) async fn play(mut self) {
        clean(&self.url).await;
        let workload = Workload::undeterred(20 + self.random.below(30), 4);
        self.start_replica().await;
        let stores = [writer(&self.url).await, writer(&self.url).await];
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let store = stores[number as usize % stores.len()].clone();
            writers.spawn(workload.clone().write(store, self.seed ^ (number << 32)));
        }
        let mut made = workload.made();
        for _ in 0..3 + self.random.below(5) {
            if writers.is_empty() {
                break;
            }
            let until = *made.borrow() + 1 + self.random.below(6);
            tokio::select! {
                reached = made.wait_for(|made| *made >= until) => {
                    reached.expect("the workload is here");
                }
                // A writer that has ended shows that few commits are left.
                Some(ended) = writers.join_next() => ended.unwrap().unwrap(),
            }
            self.act(&stores[0]).await;
        }
        while let Some(ended) = writers.join_next().await {
            ended.unwrap().unwrap();
        }
        self.settle(&stores[0]).await;
        workload.check(&stores[0]).await;
        for replica in self.replicas {
            replica.stop().await;
        }
        stores.iter().for_each(PgStore::close);
    }

    /// Something happens.
    async fn act(&mut self, store: &PgStore) {
        let action = self.random.below(16);
        match (action, &self.server) {
            (0 | 1, Server::Crashes(cluster)) => {
                let cluster = Arc::clone(cluster);
                tokio::task::spawn_blocking(move || cluster.crash())
                    .await
                    .unwrap();
            }
            (0 | 1, Server::Stays) => self.start_replica().await,
            (2, _) => {
                if let Some(replica) = self.any_replica() {
                    replica.stop().await;
                }
            }
            (3, _) => {
                if let Some(replica) = self.any_replica() {
                    replica.kill();
                }
            }
            (4, _) => terminate(&self.url, "query LIKE 'LISTEN%'").await,
            (5, _) => terminate(&self.url, "true").await,
            (6, _) => terminate(&self.url, "random() < 0.3").await,
            (action, _) => {
                // It fails where its session is killed, and while nobody is subscribed.
                let _ = self.operate(store, action).await;
            }
        }
    }

    /// An operator does something.
    async fn operate(&mut self, store: &PgStore, action: u64) -> Result<()> {
        let operations = store.operations(&RequestContext::system())?;
        let (name, views) = (ParcelViews::NAME, subscription(&self.poison));
        match action {
            7 => {
                let segments = 1 + self.random.below(4) as u32;
                operations.set_segments(name, segments).await
            }
            8 => operations.replay_all(name).await.map(drop),
            9 => operations.pause(name).await,
            10 => operations.resume(name).await,
            11 => operations.reset(&views, StartAt::Beginning).await,
            12 => {
                let switch = SwitchOver::WhenReady;
                operations.rebuild(&views, switch).await.map(drop)
            }
            13 => operations.cancel_rebuild(name).await.map(drop),
            14 => operations.snapshot(&views).await.map(drop),
            _ => operations.restore(&views).await.map(drop),
        }
    }

    async fn start_replica(&mut self) {
        let replica = Replica::start(&self.url, &self.poison, &mut self.random).await;
        self.replicas.extend(replica);
    }

    fn any_replica(&mut self) -> Option<Replica> {
        let count = self.replicas.len() as u64;
        if count == 0 {
            return None;
        }
        let index = self.random.below(count) as usize;
        Some(self.replicas.swap_remove(index))
    }

    /// The dust settles: nothing fails any more, and within a bounded number of polls nothing is
    /// parked and nothing is left to do.
    async fn settle(&mut self, store: &PgStore) {
        self.poison.heal();
        let mut started = 0;
        while started == 0 {
            let before = self.replicas.len();
            self.start_replica().await;
            started = self.replicas.len() - before;
        }
        let system = RequestContext::system();
        let operations = store.operations(&system).unwrap();
        operations.resume(ParcelViews::NAME).await.unwrap();
        let mut last = Vec::new();
        for _ in 0..POLLS {
            last = store.subscriptions().await.unwrap();
            let is_done = |one: &SubscriptionStatus| one.lag == 0 && one.parked == 0;
            // A rebuild comes to its end too.
            if let [status] = &last[..]
                && is_done(status)
            {
                let receipt = CommitReceipt::new(Vec::new(), Some(status.position));
                store.wait_for(&receipt, ParcelViews::NAME).await.unwrap();
                return;
            }
            for status in last.iter().filter(|status| status.parked > 0) {
                if let Err(error) = operations.replay_all(&status.name).await {
                    // A rebuild may have come to its end since.
                    let all = store.subscriptions().await.unwrap();
                    let is_there = all.iter().any(|one| one.name == status.name);
                    assert!(!is_there, "{}: {error}", status.name);
                }
            }
            tokio::time::sleep(POLL).await;
        }
        let holders = store.horizon_holders().await;
        panic!("after {POLLS} polls: {last:#?}, held by {holders:#?}");
    }
}

/// Empties the tables of what an earlier scene left. Its sessions may still be ending.
async fn clean(url: &str) {
    terminate(url, "true").await;
    let mut connection = loop {
        match PgConnection::connect(url).await {
            Ok(connection) => break connection,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    sqlx::raw_sql(
        "TRUNCATE cqrs_event, cqrs_subscription, cqrs_segment, cqrs_dead_letter, cqrs_operation,
                  cqrs_rebuild, cqrs_projection_snapshot, parcel, parcel_view;
         DROP TABLE IF EXISTS parcel_view__new;
         DO $$ DECLARE copy regclass; BEGIN
             FOR copy IN SELECT oid FROM pg_class WHERE relname LIKE 'cqrs\\_copy\\_%' LOOP
                 EXECUTE 'DROP TABLE ' || copy;
             END LOOP;
         END $$;
         ALTER SEQUENCE cqrs_event_position RESTART",
    )
    .execute(&mut connection)
    .await
    .unwrap();
}

/// Ends the other sessions of the database for which a condition holds.
async fn terminate(url: &str, condition: &'static str) {
    let Ok(mut connection) = PgConnection::connect(url).await else {
        return;
    };
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()
           AND backend_type = 'client backend' AND {condition}"
    );
    let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut connection)
        .await;
}
