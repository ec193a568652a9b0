//! One seed: what happens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cqrs_core::{CommitReceipt, Position, RequestContext, Result, StartAt, Store};
use cqrs_integration::domain::ParcelEvent;
use cqrs_integration::random::Random;
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{
    Operations, Retention, SqlStore, SubscriptionState, SubscriptionStatus, SwitchOver,
};
use tokio::task::JoinSet;

use super::consumers::{COPIES, Consumers, PUBLISHED, VIEWS};
use super::outcome::{self, Archive};
use super::place::{Place, Server};
use super::plan::Plan;
use super::replica::{Release, Replica, writer};

const WRITERS: u64 = 3;
/// How often to ask, once nothing is in the way any more, whether all is applied. A pause is the
/// poll interval of the replicas.
const POLLS: u32 = 4_000;
const POLL: Duration = Duration::from_millis(5);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What happened, in order, for whoever has to find out why a seed fails.
#[derive(Debug, Clone, Default)]
pub(super) struct Story(Arc<Mutex<Vec<String>>>);

impl Story {
    fn tell(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    pub(super) fn print(&self) {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        println!("{}", told.join("\n"));
    }
}

/// What an operator does.
#[derive(Debug, Clone, Copy)]
enum Operation {
    ReplayAll,
    SetSegments(u32),
    Pause,
    Resume,
    Reset,
    Rebuild,
    CancelRebuild,
    Snapshot,
    Restore,
}

impl Operation {
    /// Those from 8 to 23; from 8 to 10 it may be something else that happens.
    fn of(action: u64, random: &mut Random) -> Self {
        match action {
            8 | 11 => Self::ReplayAll,
            12 | 13 => Self::SetSegments(1 + random.below(4) as u32),
            14 => Self::Pause,
            9 | 10 | 15 => Self::Resume,
            16 | 17 => Self::Reset,
            18 | 19 => Self::Rebuild,
            20 => Self::CancelRebuild,
            21 | 22 => Self::Snapshot,
            _ => Self::Restore,
        }
    }
}

pub(super) struct Scene<K: Place> {
    url: String,
    server: Server,
    random: Random,
    consumers: Consumers,
    archive: Archive,
    replicas: Vec<(Release, Replica<K>)>,
    story: Story,
}

impl<K: Place> Scene<K> {
    pub(super) fn new(seed: u64, url: String, server: Server, story: Story) -> Self {
        let plan = Plan::of(seed);
        story.tell(format!("{plan:?}"));
        Self {
            url,
            server,
            random: Random::new(seed),
            consumers: Consumers::new(plan),
            archive: Archive::default(),
            replicas: Vec::new(),
            story,
        }
    }

    pub(super) async fn play(mut self) {
        K::clean(&self.url).await;
        // SQLite has one writer: while one holds, none can commit.
        let workload = Workload::undeterred(20 + self.random.below(30), K::either(4, 0));
        self.start_for_sure().await;
        let stores = [writer::<K>(&self.url).await, writer(&self.url).await];
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let store = stores[number as usize % stores.len()].clone();
            let seed = self.consumers.plan.seed ^ (number << 32);
            writers.spawn(workload.clone().write(store, seed));
        }
        let mut made = workload.made();
        for _ in 0..4 + self.random.below(6) {
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
        outcome::check(&stores[0], &workload, &self.consumers, &self.archive).await;
        for (_, replica) in self.replicas {
            replica.stop().await;
        }
        stores.iter().for_each(SqlStore::close);
    }

    /// Something happens.
    async fn act(&mut self, store: &SqlStore<K>) {
        let action = self.random.below(24);
        match (action, &self.server) {
            (0 | 1 | 4, Server::Crashes(cluster)) => {
                self.story.tell("the server crashes".to_owned());
                let cluster = Arc::clone(cluster);
                tokio::task::spawn_blocking(move || cluster.crash())
                    .await
                    .unwrap();
            }
            (0 | 1, Server::Stays) => self.start().await,
            (2, _) => {
                if let Some(replica) = self.any_replica() {
                    self.story.tell("a replica is stopped".to_owned());
                    replica.stop().await;
                }
            }
            (3, _) => self.kill().await,
            (4, _) => self.terminate("query LIKE 'LISTEN%'").await,
            (5, _) => self.terminate("true").await,
            (6, _) => self.terminate("random() < 0.3").await,
            (7, _) => {
                self.story.tell("a process starts".to_owned());
                let process = Replica::process(&self.url);
                self.replicas.push((Release::Second, process));
            }
            (8..=10, _) if self.consumers.plan.retention => {
                // It fails where its session is killed.
                let removed = self.remove_old_events(store).await;
                self.story.tell(format!("retention: {removed:?}"));
            }
            (action, _) => {
                // So does this, and while nobody is subscribed.
                let done = self.operate(store, action).await;
                self.story.tell(format!("that is: {done:?}"));
            }
        }
    }

    async fn kill(&mut self) {
        if let Some(replica) = self.any_replica() {
            self.story.tell("a replica is killed".to_owned());
            replica.kill().await;
        }
    }

    /// Ends sessions; where there are none, a replica.
    async fn terminate(&mut self, condition: &'static str) {
        self.story.tell(format!("sessions end: {condition}"));
        if !K::terminate(&self.url, condition).await {
            self.kill().await;
        }
    }

    /// An operator does something.
    async fn operate(&mut self, store: &SqlStore<K>, action: u64) -> Result<()> {
        let operations = store.operations(&RequestContext::system())?;
        let views = self.consumers.views::<K, ParcelEvent>();
        let (name, subscription) = match self.random.below(4) {
            0 => (COPIES, Consumers::copies()),
            1 => (PUBLISHED, self.consumers.relay()),
            _ => (VIEWS, views),
        };
        let operation = Operation::of(action, &mut self.random);
        self.story.tell(format!("{operation:?}, {name}"));
        match operation {
            Operation::ReplayAll => operations.replay_all(name).await.map(drop),
            Operation::SetSegments(segments) => operations.set_segments(name, segments).await,
            Operation::Pause => {
                operations.pause(name).await?;
                stands_still(store, name).await
            }
            Operation::Resume => operations.resume(name).await,
            Operation::Reset => operations.reset(&subscription, StartAt::Beginning).await,
            Operation::Rebuild => {
                let switch = SwitchOver::WhenReady;
                operations.rebuild(&subscription, switch).await.map(drop)
            }
            Operation::CancelRebuild => operations.cancel_rebuild(name).await.map(drop),
            Operation::Snapshot => operations.snapshot(&subscription).await.map(drop),
            Operation::Restore => operations.restore(&subscription).await.map(drop),
        }
    }

    /// What there is becomes old, and leaves the log for the archive.
    async fn remove_old_events(&self, store: &SqlStore<K>) -> Result<()> {
        let age = K::either(
            "UPDATE cqrs_event SET recorded_at = recorded_at - interval '2 hours'",
            "UPDATE cqrs_event SET recorded_at = \
             strftime('%Y-%m-%dT%H:%M:%f', recorded_at, '-2 hours') || '000Z'",
        );
        let _ = K::run(&self.url, age.to_owned()).await;
        let retention = Retention::older_than(HOUR).batch_size(10);
        let system = RequestContext::system();
        let archived = store.archive_events(&system, &retention, &self.archive);
        let archived = archived.await;
        self.archive.check(store).await?;
        Ok(archived.map(drop)?)
    }

    async fn start(&mut self) {
        let release = match self.random.below(2) {
            0 if self.consumers.plan.first_release => Release::First,
            _ => Release::Second,
        };
        self.start_of(release).await;
    }

    async fn start_of(&mut self, release: Release) {
        let random = &mut self.random;
        self.story.tell(format!("a replica starts: {release:?}"));
        let replica = Replica::start(&self.url, release, &self.consumers, random).await;
        self.replicas
            .extend(replica.map(|replica| (release, replica)));
    }

    /// Starts a replica that keeps everything.
    async fn start_for_sure(&mut self) {
        let before = self.replicas.len();
        while self.replicas.len() == before {
            self.start_of(Release::Second).await;
        }
    }

    fn any_replica(&mut self) -> Option<Replica<K>> {
        let count = self.replicas.len() as u64;
        if count == 0 {
            return None;
        }
        let index = self.random.below(count) as usize;
        Some(self.replicas.swap_remove(index).1)
    }

    /// The dust settles: the first release is gone, nothing fails any more, and within a bounded
    /// number of polls nothing is parked and nothing is left to do.
    async fn settle(&mut self, store: &SqlStore<K>) {
        self.story.tell("the dust settles".to_owned());
        self.consumers.poison.heal();
        for (release, replica) in std::mem::take(&mut self.replicas) {
            match release {
                Release::First => replica.stop().await,
                Release::Second => self.replicas.push((release, replica)),
            }
        }
        // Those that went through it all go on by themselves. A process keeps the views alone.
        let is_whole = |(_, replica): &(Release, Replica<K>)| matches!(replica, Replica::Task(..));
        if !self.replicas.iter().any(is_whole) {
            self.start_for_sure().await;
        }
        let operations = store.operations(&RequestContext::system()).unwrap();
        for name in [VIEWS, COPIES, PUBLISHED] {
            operations.resume(name).await.unwrap();
        }
        let mut last = Vec::new();
        for _ in 0..POLLS {
            last = store.subscriptions().await.unwrap();
            let is_done = |one: &SubscriptionStatus| one.lag == 0 && one.parked == 0;
            // Rebuilds come to their end too.
            if last.len() == 3 && last.iter().all(is_done) {
                for status in last {
                    let receipt = CommitReceipt::new(Vec::new(), Some(status.position));
                    store.wait_for(&receipt, &status.name).await.unwrap();
                }
                return;
            }
            for status in &last {
                if let Err(error) = help(&operations, status).await {
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

/// Checks that a subscription is paused, whatever it was, and that nobody moves it.
async fn stands_still<K: Place>(store: &SqlStore<K>, name: &str) -> Result<()> {
    let look = async || -> Result<Vec<Position>> {
        let all = store.subscriptions().await?;
        let status = all.into_iter().find(|status| status.name == name);
        let status = status.expect("it was paused");
        let is_paused = status.segments.iter().all(|segment| segment.paused);
        assert!(is_paused, "{status:#?}");
        let segments = status.segments.into_iter();
        Ok(segments.map(|one| one.position).collect())
    };
    let before = look().await?;
    for _ in 0..3 {
        tokio::time::sleep(POLL).await;
        assert_eq!(look().await?, before, "{name} is paused");
    }
    Ok(())
}

/// An operator has seen that a subscription stands still, or that events are parked.
async fn help<K: Place>(operations: &Operations<K>, status: &SubscriptionStatus) -> Result<()> {
    if matches!(status.state, SubscriptionState::Halted(_)) {
        operations.resume(&status.name).await?;
    }
    if status.parked > 0 {
        operations.replay_all(&status.name).await?;
    }
    Ok(())
}
