//! Commits that the database refuses.

use cqrs_core::conformance::fixtures::Counter;
use cqrs_core::{Entity, Error, RequestContext, Result, Store, StoreErrorKind, UnitOfWork};
use cqrs_integration::domain::{Parcel, Parcels};
use cqrs_integration::stores;
use cqrs_sqlx::{PgUnitOfWork, Postgres, StoreOptions};

use super::{logged, receipted};
use cqrs_integration::each::{Fresh, Kind, kind, on_each};

on_each!(the_id_that_is_taken_is_named_among_several);

/// The ways to commit.
#[derive(Debug, Clone, Copy)]
enum Command {
    /// One statement.
    One,
    /// A transaction that the commit opens itself.
    Several,
    /// A transaction that a read after a write opened.
    ReadAfterWrite,
    /// A transaction that was opened for SQL of the application.
    OwnSql,
}

const COMMANDS: [Command; 4] = [
    Command::One,
    Command::Several,
    Command::ReadAfterWrite,
    Command::OwnSql,
];

/// Stages a parcel with this label, and what else belongs to the command.
async fn run(command: Command, label: &str, uow: &mut PgUnitOfWork) -> Result<()> {
    uow.save(Parcel::register(label))?;
    match command {
        Command::One => Ok(()),
        Command::Several => uow.save(Parcel::register("beside")),
        Command::ReadAfterWrite => {
            let open = uow.repository::<Parcel>().find_open(99).await?;
            assert!(open.iter().any(|parcel| parcel.label() == label));
            uow.save(Parcel::register("beside"))
        }
        Command::OwnSql => {
            let update = sqlx::query("UPDATE parcel SET grams = grams + 1 WHERE label = 'taken'");
            let updated = update.execute(uow.connection().await?).await;
            updated.map(drop).map_err(Postgres::error)
        }
    }
}

/// A deferred constraint is checked when everything was sent and answered.
#[tokio::test]
async fn what_is_refused_at_the_commit_leaves_its_only_connection_usable() {
    let options = StoreOptions::default().max_connections(1);
    let (fresh, store) = Fresh::<Postgres>::with(options).await;
    fresh
        .run(
            "ALTER TABLE parcel ADD CONSTRAINT one_of_each UNIQUE (label, delivered)
             DEFERRABLE INITIALLY DEFERRED",
        )
        .await;
    let context = stores::tenant("north");
    let mut uow = store.unit_of_work(&context);
    uow.save(Parcel::register("taken")).unwrap();
    let _ = uow.commit().await.unwrap();

    for refused in COMMANDS {
        let before = fresh.state().await;
        let mut uow = store.unit_of_work(&context);
        run(refused, "taken", &mut uow).await.unwrap();
        let error = uow.commit().await.unwrap_err();
        let name = Some("one_of_each".to_owned());
        assert_eq!(*kind(&error), StoreErrorKind::Constraint { name });
        assert!(!error.is_conflict() && !error.is_retryable());
        assert_eq!(fresh.state().await, before, "{refused:?}");

        for next in COMMANDS {
            let name = format!("{next:?} after {refused:?}");
            let log = logged(&fresh).await;
            let mut uow = store.unit_of_work(&context);
            run(next, &name, &mut uow).await.unwrap();
            let receipt = uow.commit().await.unwrap();
            let expected = match next {
                Command::One | Command::OwnSql => 1,
                Command::Several | Command::ReadAfterWrite => 2,
            };
            assert_eq!(receipt.events().len(), expected, "{name}");
            assert_eq!(logged(&fresh).await[log.len()..], receipted(&receipt));
            // The label of what is beside is free again.
            fresh
                .run("UPDATE parcel SET label = id::text WHERE label = 'beside'")
                .await;
        }
    }
    let labels = "SELECT label FROM parcel WHERE label LIKE '% after %'".to_owned();
    assert_eq!(Postgres::texts(&fresh.url, labels).await.len(), 16);
    let grams = "SELECT grams FROM parcel WHERE label = 'taken'";
    assert_eq!(
        fresh.number(grams).await,
        4,
        "of the four that were committed"
    );
    let rows = fresh.number("SELECT count(*) FROM parcel").await;
    assert_eq!(rows, fresh.number("SELECT count(*) FROM cqrs_event").await);
}

async fn the_id_that_is_taken_is_named_among_several<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    store.create_tables(&[Counter::table()]).await.unwrap();
    let context = RequestContext::system();
    let save = async |ids: &[i64]| {
        let mut uow = store.unit_of_work(&context);
        for &id in ids {
            uow.save(Counter::new(id))?;
        }
        uow.commit().await
    };
    let _ = save(&[10, 20]).await.unwrap();
    // Of this one only the events are left.
    let mut uow = store.unit_of_work(&context);
    let gone: Counter = uow.get(20).await.unwrap();
    uow.remove(gone).unwrap();
    let _ = uow.commit().await.unwrap();

    let before = (
        fresh.dump("conformance_counter").await,
        logged(&fresh).await,
    );
    for (ids, taken) in [
        (vec![1, 10], "10"),
        (vec![10, 1], "10"),
        (vec![0, 1, 10, 100, 101, 110], "10"),
        (vec![-10, 10], "10"),
        (vec![2, 20], "20"),
        (vec![200, 20, 2, 0], "20"),
    ] {
        let error = save(&ids).await.unwrap_err();
        let Error::AlreadyExists { aggregate, id } = &error else {
            panic!("{ids:?}: {error:?}");
        };
        assert_eq!((*aggregate, id.as_str()), ("counter", taken), "{ids:?}");
        let after = (
            fresh.dump("conformance_counter").await,
            logged(&fresh).await,
        );
        assert_eq!(after, before, "{ids:?}");
    }
    assert_eq!(save(&[1, 11]).await.unwrap().events().len(), 2);
}
