//! What conditions hold is never an error of the database, whatever it is.

use cqrs_core::mapping::Table;
use cqrs_core::{
    Entity, Error, Query, ReadModel, ReadModels, RequestContext, Specification, Store,
    StoreErrorKind,
};
use cqrs_sqlx::{Backend, SqlStore, StoreOptions};
use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::Value as Json;

use cqrs_integration::each::{Fresh, Kind, kind, on_each};

on_each!(anything_is_a_value, too_many_values_are_a_usage_error);

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "note")]
struct Note {
    #[read_model(key)]
    id: i64,
    title: String,
    size: f64,
    details: Json,
}

fn tables() -> [&'static Table; 1] {
    [Note::table()]
}

async fn store<K: Kind>() -> (Fresh<K>, SqlStore<K>) {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(StoreOptions::default()).await;
    store.create_tables(&tables()).await.unwrap();
    let rows = "INSERT INTO note VALUES (1, 'a', 0.5, '{\"a\": [1, \"x\"]}'), (2, '', 0, 'null')";
    fresh.run(rows).await;
    (fresh, store)
}

async fn count<B: Backend>(
    store: &SqlStore<B>,
    condition: Specification<Note>,
) -> cqrs_core::Result<u64> {
    let read_models = store.read_models(&RequestContext::system());
    read_models.count(condition).await
}

/// Any text, also with NUL characters, and any number are keys and values, or refused by name.
async fn anything_is_a_value<K: Kind>() {
    let (_fresh, store) = store::<K>().await;
    let handle = tokio::runtime::Handle::current();
    let input = (any::<String>(), any::<usize>(), any::<f64>(), 0..9_u8);
    let config = Config {
        cases: 500,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = crate::runner(config);
    let fuzz = move || {
        runner.run(&input, |(text, index, number, which)| {
            let f = Note::fields();
            let condition = match which {
                0 => f.title.like(text),
                1 => f.title.contains(text),
                2 => f.title.starts_with(text.clone()) | f.title.ends_with(text),
                3 => f.title.in_([text.clone(), String::new()]) | f.title.lt(text),
                4 => f.details.key(text.clone()).as_text().eq(text),
                5 => f.details.key(text).index(index % 3).exists(),
                6 => f.details.index(index).as_f64().ge(number),
                7 => f
                    .details
                    .document()
                    .as_i64()
                    .eq(i64::from_ne_bytes(number.to_ne_bytes())),
                _ => f.size.in_([number]) | f.size.between(number, -number),
            };
            let is_valid = Query::filter(condition.clone()).check().is_ok();
            match handle.block_on(count(&store, condition.clone())) {
                Ok(_) if is_valid => Ok(()),
                Err(Error::Mapping(_)) if !is_valid => Ok(()),
                other => Err(TestCaseError::fail(format!("{condition}: {other:?}"))),
            }
        })
    };
    let result = tokio::task::spawn_blocking(fuzz).await.unwrap();
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// More values than a statement takes are refused before anything is sent; in a list they are one.
async fn too_many_values_are_a_usage_error<K: Kind>() {
    let (_fresh, store) = store::<K>().await;
    let id = Note::fields().id;
    let many = Specification::any_of((0..70_000).map(|n| id.eq(n)));
    let error = count(&store, many).await.unwrap_err();
    assert_eq!(kind(&error), &StoreErrorKind::Usage, "{error}");
    assert_eq!(count(&store, id.in_(0..70_000)).await.unwrap(), 2);
}
