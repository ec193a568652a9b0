//! Statements that fail in a unit of work that goes on.

use cqrs_core::{
    Aggregate, DomainEvent, Id, RequestContext, Result, Root, Store, StoreErrorKind, UnitOfWork,
};
use cqrs_integration::domain::{Parcel, Parcels};
use cqrs_integration::stores;
use cqrs_sqlx::{SqlStore, SqlUnitOfWork, StoreOptions};
use serde::{Deserialize, Serialize};

use super::{logged, receipted};
use cqrs_integration::each::{Fresh, Kind, kind, on_each};

on_each!(
    a_commit_after_sql_that_failed_tells_the_truth,
    a_commit_after_a_read_that_failed_writes_nothing,
);

/// What a unit of work does after SQL that failed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    Commit,
    Save,
    Read,
    SaveAndRead,
    OwnSql,
}

pub(super) const THEN: [Then; 5] = [
    Then::Save,
    Then::Commit,
    Then::Read,
    Then::SaveAndRead,
    Then::OwnSql,
];

/// The first error, if any; there may be no other but of a unit of work that failed before.
pub(super) async fn go_on<K: Kind>(uow: &mut SqlUnitOfWork<K>, then: Then) -> Result<()> {
    if matches!(then, Then::Save | Then::SaveAndRead) {
        uow.save(Parcel::register("after"))?;
    }
    match then {
        Then::Commit | Then::Save => Ok(()),
        Then::Read | Then::SaveAndRead => uow.repository::<Parcel>().find_open(9).await.map(drop),
        Then::OwnSql => uow.connection().await.map(drop),
    }
}

pub(super) async fn with_notes<K: Kind>() -> (Fresh<K>, SqlStore<K>) {
    // Whoever spoils the connection, spoils it for all.
    let options = StoreOptions::default().max_connections(1);
    let (fresh, store) = Fresh::<K>::with(options).await;
    fresh
        .run(
            "CREATE TABLE note (text text NOT NULL UNIQUE); INSERT INTO note VALUES ('taken');
             CREATE TABLE other (text text)",
        )
        .await;
    (fresh, store)
}

pub(super) async fn commit<K: Kind>(store: &SqlStore<K>, parcels: &[&str]) -> Vec<String> {
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    for label in parcels {
        uow.save(Parcel::register(label)).unwrap();
    }
    receipted(&uow.commit().await.unwrap())
}

async fn a_commit_after_sql_that_failed_tells_the_truth<K: Kind>() {
    let (fresh, store) = with_notes::<K>().await;
    commit(&store, &["first"]).await;
    for then in THEN {
        for staged in [0, 2] {
            let name = format!("{staged} staged, then {then:?}");
            let before = (fresh.state().await, fresh.dump("note").await);
            let log = logged(&fresh).await;
            let mut uow = store.unit_of_work(&stores::tenant("north"));
            for _ in 0..staged {
                uow.save(Parcel::register("before")).unwrap();
            }
            let connection = uow.connection().await.unwrap();
            let note = format!("INSERT INTO note VALUES ('{name}')");
            K::run_on(connection, note).await.unwrap();
            let taken = "INSERT INTO note VALUES ('taken')".to_owned();
            K::run_on(connection, taken).await.unwrap_err();
            let went_on = go_on(&mut uow, then).await;
            let committed = uow.commit().await;

            if K::either(true, false) {
                // The database has given up on the transaction, and nothing of it may be said to
                // be there.
                let (error, failed_before) = match went_on {
                    Ok(()) => (committed.unwrap_err(), None),
                    Err(error) => (error, Some(committed.unwrap_err())),
                };
                assert_eq!(*kind(&error), StoreErrorKind::Database, "{name}");
                assert!(error.to_string().contains("aborted"), "{name}: {error}");
                if let Some(error) = failed_before {
                    assert_eq!(*kind(&error), StoreErrorKind::Usage, "{name}");
                }
                let after = (fresh.state().await, fresh.dump("note").await);
                assert_eq!(after, before, "{name}");
            } else {
                // Only the statement was undone.
                went_on.unwrap();
                let receipt = committed.unwrap();
                assert_eq!(logged(&fresh).await[log.len()..], receipted(&receipt));
                let saved = matches!(then, Then::Save | Then::SaveAndRead);
                assert_eq!(receipt.events().len(), staged + usize::from(saved));
                assert_eq!(fresh.dump("note").await.len(), before.1.len() + 1);
            }
        }
    }
    let log = logged(&fresh).await;
    let next = commit(&store, &["next", "and another"]).await;
    assert_eq!(logged(&fresh).await[log.len()..], next);
}

/// An aggregate whose table nobody made.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "ghost", event = GhostEvent)]
struct Ghost {
    #[aggregate(id)]
    id: Id<Ghost>,
    #[aggregate(root)]
    root: Root<GhostEvent>,
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "ghost")]
enum GhostEvent {
    Seen,
}

async fn a_commit_after_a_read_that_failed_writes_nothing<K: Kind>() {
    let (fresh, store) = with_notes::<K>().await;
    commit(&store, &["first"]).await;
    let before = fresh.state().await;
    let mut uow = store.unit_of_work(&RequestContext::system());
    // While nothing is staged, a read is a statement of its own, and its failure too.
    let error = uow.get::<Ghost>(Id::new()).await.unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::Schema);
    assert!(uow.commit().await.unwrap().events().is_empty());

    for saved_after in [false, true] {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        uow.save(Parcel::register("before")).unwrap();
        let error = uow.get::<Ghost>(Id::new()).await.unwrap_err();
        assert_eq!(*kind(&error), StoreErrorKind::Schema, "{error}");
        if saved_after {
            uow.save(Parcel::register("after")).unwrap();
        }
        let error = uow.commit().await.unwrap_err();
        assert_eq!(*kind(&error), StoreErrorKind::Usage, "{error}");
        assert_eq!(fresh.state().await, before);
    }
    let next = commit(&store, &["next", "and another"]).await;
    assert_eq!(logged(&fresh).await[1..], next);
}
