//! Random commits at the same moment, sent together, against a model of commits one after the other.
//!
//! Each case makes some aggregates, loads them at several versions, and commits random work on them
//! at once: creations, changes, saves that change nothing, removals; fresh and stale, with ids and
//! keys that are taken, values that a constraint refuses, of two tenants and two types. There must be
//! an order in which the model gives every caller what it got, and leaves the rows that there are.

mod case;
mod model;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;

use cqrs_integration::random::{Random, seed};
use tokio::task::JoinSet;

use self::case::Case;
use self::world::World;

/// How many cases there are, by the environment or else this.
fn cases() -> u64 {
    let asked = std::env::var("COALESCED_CASES").ok();
    asked.map_or(1_000, |cases| cases.parse().expect("a number of cases"))
}

/// How many cases run at a time.
const TOGETHER: u64 = 16;

/// How many commits the two stores send together.
const MOST: [Option<usize>; 2] = [Some(64), Some(3)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_caller_gets_what_separate_commits_would_give() {
    let world = as_the_model_says(MOST, cases()).await;
    assert!(world.flushes() > 0, "nothing was sent together");
}

/// So the model is that of separate commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn separate_commits_give_what_the_model_says() {
    let world = as_the_model_says([None, None], cases() / 4).await;
    assert_eq!(world.flushes(), 0);
}

async fn as_the_model_says(most: [Option<usize>; 2], cases: u64) -> Arc<World> {
    let seed = seed();
    let world = Arc::new(World::create(most).await);
    let mut met = BTreeSet::new();
    let mut running = JoinSet::new();
    for first in 0..TOGETHER {
        let world = Arc::clone(&world);
        running.spawn(async move {
            let mut met = BTreeSet::new();
            for number in (first..cases).step_by(TOGETHER as usize) {
                let mut random = Random::new(seed.wrapping_add(number));
                let case = Case::random(&world, number, &mut random).await;
                met.extend(case.run(&world, &mut random).await);
            }
            met
        });
    }
    while let Some(some) = running.join_next().await {
        met.extend(some.unwrap());
    }
    assert_eq!(met.len(), 6, "not every outcome was met: {met:?}");
    world
}

/// The same while callers give up: their work may have happened, wholly, or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_give_up_harm_nobody() {
    let seed = seed();
    for round in 0..5 {
        let mut world = World::create(MOST).await;
        let mut cases = Vec::new();
        for number in 0..40 {
            let mut random = Random::new(seed.wrapping_add(round * 1000 + number));
            let case = Case::random(&world, number, &mut random).await;
            cases.push(case.start(&world, &mut random, 3).await);
        }
        world.end().await;
        for case in cases {
            case.check(&world).await;
        }
    }
}
