//! What is wrong from outside gets an error that says what and where, and nothing is half done.

mod connections;
mod constraints;
mod events;
mod tables;
mod values;

use std::fmt;
use std::str::FromStr;

use cqrs_core::{
    Aggregate, DomainEvent, Entity, Error, Id, RequestContext, Result, Root, Store, StoreErrorKind,
    UnitOfWork, ValueObject,
};
use cqrs_integration::stores;
use cqrs_sqlx::SqlStore;
use serde::{Deserialize, Serialize};

use cqrs_integration::each::{Fresh, Kind, kind};

/// Stored as text, by `Display` and `FromStr`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Status {
    Open,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("open")
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            _ => Err("not a status".to_owned()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
enum Size {
    Small,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stop {
    name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "chest")]
enum ChestEvent {
    Made,
}

/// An aggregate with a column of each kind that can hold something wrong.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "chest", event = ChestEvent)]
struct Chest {
    #[aggregate(id)]
    id: Id<Chest>,
    #[aggregate(root)]
    root: Root<ChestEvent>,
    #[mapper(text)]
    status: Status,
    size: Size,
    #[mapper(json)]
    stops: Vec<Stop>,
    label: String,
    note: Option<String>,
    pieces: i32,
}

impl Chest {
    fn new() -> Self {
        let mut root = Root::new();
        root.raise(ChestEvent::Made);
        Self {
            id: Id::new(),
            root,
            status: Status::Open,
            size: Size::Small,
            stops: vec![Stop {
                name: "depot".to_owned(),
            }],
            label: "a".to_owned(),
            note: None,
            pieces: 1,
        }
    }
}

/// Saves in a scope of its own.
async fn commit<K: Kind, A: cqrs_core::AggregateRoot>(
    store: &SqlStore<K>,
    aggregate: A,
) -> Result<cqrs_core::CommitReceipt> {
    let context = if A::table().is_tenant() {
        stores::tenant("north")
    } else {
        RequestContext::system()
    };
    let mut uow = store.unit_of_work(&context);
    uow.save(aggregate)?;
    uow.commit().await
}

async fn chests<K: Kind>() -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    store.create_tables(&[Chest::table()]).await.unwrap();
    (fresh, store)
}

#[track_caller]
fn assert_schema(error: &Error, named: &[&str]) {
    assert_eq!(*kind(error), StoreErrorKind::Schema, "{error:?}");
    assert!(!error.is_retryable() && !error.is_conflict());
    for name in named {
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
}
