//! Seeded chaos: writers that abort and hold, replicas that come and go, sessions that are killed,
//! handlers that fail, panic and hang, also in a statement, events that a first release cannot decode,
//! a relay, old events that leave the log, segments that change, operators who pause, resume, reset,
//! rebuild and restore, a server that crashes; and then everything is what the log says.
//!
//! A failure says how to repeat its seed. What happens is drawn from the seed; how it interleaves is not.
//! `CQRS_CHAOS_RUNS=5000` runs as many seeds as you have time for.

mod consumers;
mod outcome;
mod place;
mod plan;
mod poison;
mod replica;
mod scene;

use std::env;
use std::time::Duration;

use cqrs_integration::cluster::Cluster;
use cqrs_integration::database::{TestDatabase, TestFile};
use cqrs_integration::random::seed;
use cqrs_integration::stores;
use cqrs_sqlx::{Postgres, Sqlite};

use self::place::{Place, Server};
use self::scene::{Scene, Story};

/// How many seeds run at the same time, each on a database of its own.
const LANES: u64 = 3;
/// A scene takes a second.
const LONGEST: Duration = Duration::from_secs(120);

/// The first seed, another for each run, and how many follow it.
fn seeds(runs: u64) -> (u64, u64) {
    let first = seed();
    let runs = env::var("CQRS_CHAOS_RUNS").map_or(runs, |runs| runs.parse().expect("a number"));
    println!("{runs} seeds from {first} on");
    (first, runs)
}

/// Plays a scene, and says how to repeat one that fails.
async fn play<K: Place>(test: &str, seed: u64, url: String, server: Server) {
    let story = Story::default();
    let scene = Scene::<K>::new(seed, url, server, story.clone());
    let again = format!(
        "CQRS_SEED={seed} CQRS_CHAOS_RUNS=1 \
         cargo xtask test -p cqrs-integration --test consumers chaos::{test}"
    );
    match tokio::time::timeout(LONGEST, tokio::spawn(scene.play())).await {
        Ok(Ok(())) => {}
        Ok(Err(failed)) => {
            story.print();
            println!("to repeat it: {again}");
            std::panic::resume_unwind(failed.into_panic());
        }
        Err(_) => {
            story.print();
            panic!("it hangs; to repeat it: {again}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_replicas_and_events_fail() {
    let (first, runs) = seeds(200);
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            tokio::spawn(async move {
                let database = TestDatabase::create().await;
                let (url, test) = (database.url(), "sessions_replicas_and_events_fail");
                consumers::with_tables(stores::postgres(url).await)
                    .await
                    .close();
                for seed in (first + lane..first + runs).step_by(LANES as usize) {
                    play::<Postgres>(test, seed, url.to_owned(), Server::Stays).await;
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_crashes() {
    let (first, runs) = seeds(200);
    let cluster = std::sync::Arc::new(Cluster::start().await);
    let url = cluster.url();
    consumers::with_tables(stores::postgres(&url).await)
        .await
        .close();
    for seed in (first..first + runs).step_by(10) {
        let server = Server::Crashes(cluster.clone());
        play::<Postgres>("the_server_crashes", seed, url.clone(), server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_and_events_fail_on_sqlite() {
    let (first, runs) = seeds(200);
    for seed in (first..first + runs).step_by(5) {
        let file = TestFile::create();
        let (url, test) = (file.url(), "replicas_and_events_fail_on_sqlite");
        consumers::with_tables(stores::sqlite(&url).await)
            .await
            .close();
        play::<Sqlite>(test, seed, url, Server::Stays).await;
    }
}
