//! Seeded chaos: writers that abort and hold, replicas that come and go, sessions that are killed,
//! events that fail, segments that change, operators who pause, reset, rebuild and restore, a server
//! that crashes; and then the read model is the fold of the log.
//!
//! A failure names its seed. `CQRS_CHAOS_SEED=7 CQRS_CHAOS_RUNS=1` runs that seed alone,
//! `CQRS_CHAOS_RUNS=5000` as many as you have time for.

mod poison;
mod replica;
mod scene;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cqrs_integration::cluster::Cluster;
use cqrs_integration::database::TestDatabase;
use cqrs_integration::stores;

use self::scene::{Scene, Server};

/// How many seeds run at the same time, each on a database of its own.
const LANES: u64 = 3;
/// A scene takes a second.
const LONGEST: Duration = Duration::from_secs(120);

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {value}")),
    )
}

/// The first seed, another for each run, and how many follow it.
fn seeds(runs: u64) -> (u64, u64) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    let first = variable("CQRS_CHAOS_SEED").unwrap_or(now % 1_000_000_000);
    let runs = variable("CQRS_CHAOS_RUNS").unwrap_or(runs);
    println!("{runs} seeds from {first} on");
    (first, runs)
}

/// Plays one scene after the other, and names the seed of one that fails.
async fn play(url: &str, server: Server, seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let scene = Scene::new(seed, url.to_owned(), server.clone());
        match tokio::time::timeout(LONGEST, tokio::spawn(scene.play())).await {
            Ok(Ok(())) => {}
            Ok(Err(failed)) => {
                println!("CQRS_CHAOS_SEED={seed}");
                std::panic::resume_unwind(failed.into_panic());
            }
            Err(_) => panic!("CQRS_CHAOS_SEED={seed} hangs"),
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
                stores::postgres(database.url()).await.close();
                let seeds = (first + lane..first + runs).step_by(LANES as usize);
                play(database.url(), Server::Stays, seeds).await;
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
    stores::postgres(&cluster.url()).await.close();
    let seeds = (first..first + runs).step_by(25);
    play(&cluster.url(), Server::Crashes(cluster.clone()), seeds).await;
}
