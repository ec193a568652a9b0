//! Many writers and several projector replicas: the read model equals a fold of the log.

use std::process::Stdio;
use std::time::Duration;

use cqrs_integration::database::{TestDatabase, TestFile};
use cqrs_integration::domain::ParcelViews;
use cqrs_integration::random::seed;
use cqrs_integration::stores;
use cqrs_integration::workload::Workload;
use cqrs_sqlx::{Backend, ProjectorBuilder, SqlStore, SqliteStore, StoreOptions};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

pub(crate) fn views<B: Backend>(store: &SqlStore<B>) -> ProjectorBuilder<B> {
    store.projector().rows(ParcelViews)
}

/// Starts writers; each takes the next store.
pub(crate) fn writers<B: Backend>(
    workload: &std::sync::Arc<Workload>,
    stores: &[SqlStore<B>],
    count: u64,
    seed: u64,
) -> JoinSet<cqrs_core::Result<()>> {
    let mut writers = JoinSet::new();
    for (number, store) in (0..count).zip(stores.iter().cycle()) {
        writers.spawn(
            workload
                .clone()
                .write(store.clone(), seed.wrapping_add(number)),
        );
    }
    writers
}

pub(crate) async fn finish(mut writers: JoinSet<cqrs_core::Result<()>>) {
    while let Some(writer) = writers.join_next().await {
        writer.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_writers_and_four_replicas_on_postgres() {
    let seed = seed();
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let mut replicas = Vec::new();
    let mut running = Vec::new();
    for page_size in [1, 7, 100, 1_000] {
        let options = StoreOptions::default().max_connections(6);
        let store = stores::postgres_with(database.url(), options).await;
        let projector = views(&store).page_size(page_size);
        running.push(projector.start().await.unwrap());
        replicas.push(store);
    }
    let workload = Workload::new(20_000, 20);
    finish(writers(&workload, &replicas, 16, seed)).await;

    views(&replicas[0]).run_until_idle().await.unwrap();
    for handle in running {
        handle.stop(Duration::from_secs(30)).await;
    }
    workload.check(&replicas[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_and_replicas_on_sqlite() {
    let seed = seed();
    let file = TestFile::create();
    let first = stores::sqlite(&file.url()).await;
    let second = SqliteStore::connect(&file.url()).await.unwrap();
    let replicas = [first, second];
    let mut running = Vec::new();
    for (store, page_size) in replicas.iter().zip([3, 100]) {
        running.push(views(store).page_size(page_size).start().await.unwrap());
    }
    let workload = Workload::new(2_000, 0);
    finish(writers(&workload, &replicas, 8, seed)).await;

    views(&replicas[1]).run_until_idle().await.unwrap();
    for handle in running {
        handle.stop(Duration::from_secs(30)).await;
    }
    workload.check(&replicas[0]).await;
}

/// A projector process, and what it prints.
pub(crate) struct Worker {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start(url: &str) -> Self {
        Self::of_version(url, 1)
    }

    /// One that keeps, or builds, the rows of this version of the projection.
    pub(crate) fn of_version(url: &str, version: u32) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_projector_worker"))
            .arg(url)
            .arg(version.to_string())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Waits for so many pages, and kills the process while it applies the last of them.
    pub(crate) async fn kill_in_page(mut self, pages: u64) {
        for _ in 0..pages {
            let line = self.lines.next_line().await.unwrap();
            assert!(line.is_some(), "the worker ended by itself");
        }
        self.kill().await;
    }

    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_process_killed_ten_times() {
    let seed = seed();
    let database = TestDatabase::create().await;
    let store = stores::postgres(database.url()).await;
    let workload = Workload::new(20_000, 20);
    let writers = writers(&workload, std::slice::from_ref(&store), 16, seed);
    for kill in 0..10 {
        // Two replicas; whichever comes so far first is killed in its page, and the other
        // wherever it is then.
        let one = Worker::start(database.url());
        let other = Worker::start(database.url());
        let pages = 1 + seed.wrapping_add(kill) % 5;
        tokio::select! {
            () = one.kill_in_page(pages) => {}
            () = other.kill_in_page(pages) => {}
        }
    }
    finish(writers).await;
    views(&store).run_until_idle().await.unwrap();
    workload.check(&store).await;
}
