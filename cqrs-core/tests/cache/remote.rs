//! A cache that processes share, faked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_core::cache::{CacheOptions, Cached, RemoteCache, RemoteRead};
use cqrs_core::conformance::fixtures::{Parcel, ParcelEntry, ParcelList, Tally};
use cqrs_core::{
    BoxFuture, Error, PageRequest, Query, ReadModels, RequestContext, Result, Specification, Store,
    UnitOfWork,
};

use super::{Gated, register, store, tenant};

#[derive(Default)]
struct Inner {
    generations: Mutex<HashMap<String, u64>>,
    values: Mutex<HashMap<(String, u64, String), Vec<u8>>>,
    away: AtomicBool,
}

#[derive(Clone, Default)]
struct Fake(Arc<Inner>);

impl Fake {
    fn generation(&self, table: &str) -> u64 {
        *self
            .0
            .generations
            .lock()
            .unwrap()
            .entry(table.to_owned())
            .or_default()
    }

    fn check(&self) -> Result<()> {
        if self.0.away.load(Ordering::SeqCst) {
            return Err(Error::other("the cache is away"));
        }
        Ok(())
    }
}

impl RemoteCache for Fake {
    fn get<'a>(&'a self, table: &'a str, key: &'a str) -> BoxFuture<'a, Result<RemoteRead>> {
        Box::pin(async move {
            self.check()?;
            let generation = self.generation(table);
            let place = (table.to_owned(), generation, key.to_owned());
            let value = self.0.values.lock().unwrap().get(&place).cloned();
            Ok(RemoteRead { generation, value })
        })
    }

    fn put<'a>(
        &'a self,
        table: &'a str,
        generation: u64,
        key: &'a str,
        value: Vec<u8>,
        _: Duration,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.check()?;
            let place = (table.to_owned(), generation, key.to_owned());
            self.0.values.lock().unwrap().insert(place, value);
            Ok(())
        })
    }

    fn invalidate<'a>(&'a self, table: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.check()?;
            *self
                .0
                .generations
                .lock()
                .unwrap()
                .entry(table.to_owned())
                .or_default() += 1;
            Ok(())
        })
    }
}

/// A process: a store, and a cache that keeps nothing of its own.
fn process(store: Gated, remote: &Fake) -> Cached<Gated> {
    let options = CacheOptions::default()
        .time_to_live(Duration::ZERO)
        .remote(remote.clone());
    Cached::new(store, options)
}

async fn uses(cached: &Cached<Gated>, context: &RequestContext) -> Option<i64> {
    let read_models = cached.read_models(context);
    let found = read_models.find::<Tally>("a".to_owned()).await;
    found.unwrap().map(|tally| tally.uses)
}

#[tokio::test]
async fn processes_share_what_one_has_loaded() {
    let remote = Fake::default();
    let here = store();
    let there = here.elsewhere();
    let (one, other) = (
        process(here.clone(), &remote),
        process(there.clone(), &remote),
    );
    let (north, south) = (tenant("north"), tenant("south"));
    register(&here, &north, "a").await;
    assert_eq!(uses(&one, &north).await, Some(1));
    assert_eq!(uses(&other, &north).await, Some(1));
    assert_eq!((here.loads(), there.loads()), (1, 0));
    assert_eq!(uses(&other, &south).await, None);
    assert_eq!(uses(&other, &RequestContext::system()).await, Some(1));
    assert_eq!(there.loads(), 2, "neither is the answer of another tenant");

    // Its own change is never hidden from a process, nor from the others once they can know.
    register(&here, &north, "a").await;
    assert_eq!(uses(&one, &north).await, Some(2));
    assert_eq!(uses(&other, &north).await, Some(2));
    assert_eq!((here.loads(), there.loads()), (2, 2));
}

#[tokio::test]
async fn changes_are_forwarded_by_who_only_writes() {
    let remote = Fake::default();
    let writer = store();
    let reader = writer.elsewhere();
    let north = tenant("north");
    let (writing, reading) = (process(writer.clone(), &remote), process(reader, &remote));
    register(&writer, &north, "a").await;
    assert_eq!(uses(&reading, &north).await, Some(1));
    let before = remote.generation("conformance_tally");
    let forwarding = tokio::spawn(async move { writing.forward_changes().await });
    register(&writer, &north, "a").await;
    while remote.generation("conformance_tally") == before {
        tokio::task::yield_now().await;
    }
    assert_eq!(uses(&reading, &north).await, Some(2));
    forwarding.abort();
}

/// A load that began before a change must not be found after it, whoever puts it there.
#[tokio::test]
async fn what_was_loaded_before_a_change_is_not_found_after_it() {
    let remote = Fake::default();
    let writer = store();
    let reader = writer.elsewhere();
    let north = tenant("north");
    let (one, other) = (
        process(writer.clone(), &remote),
        process(reader.clone(), &remote),
    );
    register(&writer, &north, "a").await;
    reader.close().await;
    let early = {
        let (other, north) = (other.clone(), north.clone());
        tokio::spawn(async move { uses(&other, &north).await })
    };
    reader.gate.reached.notified().await;
    register(&writer, &north, "a").await;
    assert_eq!(uses(&one, &north).await, Some(2));
    reader.open();
    assert_eq!(early.await.unwrap(), Some(1));
    for _ in 0..2 {
        assert_eq!(uses(&one, &north).await, Some(2));
        assert_eq!(uses(&other, &north).await, Some(2));
    }
}

#[tokio::test]
async fn without_the_remote_cache_the_store_answers() {
    let remote = Fake::default();
    let store = store();
    let cached = process(store.clone(), &remote);
    let north = tenant("north");
    register(&store, &north, "a").await;
    assert_eq!(uses(&cached, &north).await, Some(1));
    remote.0.away.store(true, Ordering::SeqCst);
    assert_eq!(uses(&cached, &north).await, Some(1));
    register(&store, &north, "a").await;
    assert_eq!(uses(&cached, &north).await, Some(2));
    assert_eq!(store.loads(), 3);
    // Back again, it holds what it could not be told to forget.
    remote.0.away.store(false, Ordering::SeqCst);
    assert_eq!(uses(&cached, &north).await, Some(2));
    assert_eq!(store.loads(), 4);
    assert_eq!(uses(&cached, &north).await, Some(2));
    assert_eq!(store.loads(), 4);
}

#[tokio::test]
async fn rows_come_back_as_they_were_and_rubbish_is_loaded_anew() {
    let remote = Fake::default();
    let store = store();
    store.below.subscribe_rows(ParcelList).unwrap();
    let north = tenant("north");
    for label in ["é", "", "b"] {
        let mut parcel = Parcel::register(label);
        parcel
            .root
            .raise(cqrs_core::conformance::fixtures::ParcelEvent::Annotated {
                note: None,
                details: serde_json::Value::Null,
            });
        let saved = store.execute(&north, async |uow| uow.save(parcel.clone()));
        saved.await.unwrap();
    }
    store.below.project().await.unwrap();
    let cached = process(store.clone(), &remote);
    let answers = async || {
        let rows = cached.read_models(&north);
        let query = || Query::all().order_by(ParcelEntry::fields().label.asc());
        let all = rows.query(query()).await.unwrap();
        let first = rows
            .page(query(), PageRequest::first(2).with_total())
            .await
            .unwrap();
        let next = PageRequest::after(first.next.clone().unwrap(), 2);
        let last = rows.page(query(), next).await.unwrap();
        let found = rows.find::<ParcelEntry>(all[0].id).await.unwrap();
        let count = rows
            .count(Specification::<ParcelEntry>::all())
            .await
            .unwrap();
        let exists = rows
            .exists(ParcelEntry::fields().label.eq("nowhere"))
            .await
            .unwrap();
        (all, first, last, found, (count, exists))
    };
    let loaded = answers().await;
    assert_eq!(
        (loaded.0.len(), loaded.1.total, store.loads()),
        (3, Some(3), 6)
    );
    assert_eq!(answers().await, loaded);
    assert_eq!(store.loads(), 6);
    for value in remote.0.values.lock().unwrap().values_mut() {
        value.push(0);
    }
    assert_eq!(answers().await, loaded);
    assert_eq!(store.loads(), 12);
}
