//! Values that do not fit, in the database and in the code.

use cqrs_core::mapping::{ColumnError, MappingError};
use cqrs_core::{
    Entity, Error, Position, Query, Repository, RequestContext, Store, StoreErrorKind, TenantId,
    UnitOfWork,
};
use cqrs_integration::domain::{self, Parcel};
use cqrs_sqlx::SqlStore;

use super::{Chest, Size, Status, assert_schema, chests, commit};
use cqrs_integration::each::{Fresh, Kind, kind, messages, on_each};

on_each!(
    a_column_of_another_type_is_named_by_a_read,
    a_column_that_the_code_does_not_know_is_named,
    values_that_do_not_fit_are_named,
    texts_at_the_limits,
);

/// The place and the reason of an error of the mapping.
#[track_caller]
fn mapping(error: &Error) -> (&str, &str, &ColumnError) {
    match error {
        Error::Mapping(MappingError {
            table,
            column,
            reason,
        }) => (table, column, reason),
        other => panic!("not an error of the mapping: {other:?}"),
    }
}

async fn a_column_of_another_type_is_named_by_a_read<K: Kind>() {
    let (fresh, store) = chests::<K>().await;
    commit(&store, Chest::new()).await.map(drop).unwrap();
    fresh
        .run(K::either(
            "ALTER TABLE chest ALTER COLUMN pieces TYPE text USING 'many'",
            "ALTER TABLE chest RENAME TO old;
             CREATE TABLE chest AS SELECT * FROM old;
             UPDATE chest SET pieces = 'many'",
        ))
        .await;
    let mut uow = store.unit_of_work(&RequestContext::system());
    let error = uow
        .repository::<Chest>()
        .query(Query::all())
        .await
        .unwrap_err();
    let (table, column, reason) = mapping(&error);
    assert_eq!((table, column), ("chest", "pieces"));
    assert!(
        matches!(reason, ColumnError::WrongType { found, .. } if found == "text"),
        "{reason:?}"
    );
    assert!(
        error
            .to_string()
            .starts_with("table chest, column pieces: expected ")
    );
    assert!(error.to_string().ends_with(", found text"), "{error}");

    if K::either(true, false) {
        // A number would be stored as text. SQLite would store it as anything.
        let other = "ALTER TABLE chest ALTER COLUMN pieces TYPE date USING '2024-02-03'";
        fresh.run(other).await;
        let before = fresh.dump("chest").await;
        let error = commit(&store, Chest::new()).await.unwrap_err();
        assert_schema(&error, &["pieces", "store.verify("]);
        assert_eq!(fresh.dump("chest").await, before);
        assert_eq!(fresh.number("SELECT count(*) FROM cqrs_event").await, 1);
    }
}

async fn a_column_that_the_code_does_not_know_is_named<K: Kind>() {
    let (fresh, store) = chests::<K>().await;
    let column = "ALTER TABLE chest ADD COLUMN extra text NOT NULL DEFAULT 'x'";
    fresh.run(column).await;
    commit(&store, Chest::new()).await.map(drop).unwrap();
    store.verify(&[Chest::table()]).await.unwrap();
    fresh
        .run(K::either(
            "ALTER TABLE chest ALTER COLUMN extra DROP DEFAULT",
            "DROP TABLE chest",
        ))
        .await;
    if K::either(false, true) {
        let created = SqlStore::<K>::create_table_sql(Chest::table());
        fresh
            .run(created.replacen("(\n", "(\n extra text NOT NULL,\n", 1))
            .await;
    }
    let before = (fresh.dump("chest").await, fresh.dump("cqrs_event").await);
    let error = commit(&store, Chest::new()).await.unwrap_err();
    assert!(matches!(kind(&error), StoreErrorKind::Constraint { .. }));
    assert!(!error.is_conflict() && !error.is_retryable());
    assert!(messages(&error).contains("extra"), "{}", messages(&error));
    let after = (fresh.dump("chest").await, fresh.dump("cqrs_event").await);
    assert_eq!(after, before);
}

async fn values_that_do_not_fit_are_named<K: Kind>() {
    let invalid = |reason: &str| ColumnError::Invalid(reason.to_owned());
    let cases = [
        ("label", "NULL", Some(ColumnError::UnexpectedNull)),
        ("pieces", "NULL", Some(ColumnError::UnexpectedNull)),
        ("stops", "NULL", Some(ColumnError::UnexpectedNull)),
        ("version", "NULL", Some(ColumnError::UnexpectedNull)),
        ("status", "'lost'", Some(invalid("\"lost\": not a status"))),
        ("status", "''", Some(invalid("\"\": not a status"))),
        ("size", "'Huge'", None),
        ("stops", "'{\"name\": \"depot\"}'", None),
        ("stops", "'[{\"nam\": \"depot\"}]'", None),
        ("stops", "'[{\"name\": 7}]'", None),
        ("stops", "'null'", None),
        ("version", "-1", None),
    ];
    let in_sqlite = [
        ("stops", "'[{\"name\": '", None),
        ("stops", "''", None),
        ("pieces", "2147483648", None),
    ];
    let (fresh, store) = chests::<K>().await;
    let chest = Chest::new();
    let id = chest.id;
    commit(&store, chest).await.map(drop).unwrap();
    // A user's own table, laxer than it should be.
    fresh
        .run(K::either(
            "ALTER TABLE chest ALTER label DROP NOT NULL, ALTER pieces DROP NOT NULL,
                               ALTER stops DROP NOT NULL, ALTER version DROP NOT NULL",
            "ALTER TABLE chest RENAME TO old; CREATE TABLE chest AS SELECT * FROM old",
        ))
        .await;
    fresh.run("CREATE TABLE good AS SELECT * FROM chest").await;
    let cases = cases
        .into_iter()
        .chain(K::either(vec![], in_sqlite.to_vec()));
    for (column, value, expected) in cases {
        fresh
            .run(format!("UPDATE chest SET {column} = {value}"))
            .await;
        let mut uow = store.unit_of_work(&RequestContext::system());
        let error = uow.get::<Chest>(id).await.unwrap_err();
        let (table, named, reason) = mapping(&error);
        assert_eq!((table, named), ("chest", column), "{value}: {error}");
        match expected {
            Some(expected) => assert_eq!(*reason, expected),
            None => assert!(matches!(reason, ColumnError::Invalid(_)), "{reason:?}"),
        }
        let all = uow.repository::<Chest>().query(Query::all()).await;
        assert_eq!(mapping(&all.unwrap_err()).1, column);
        // The connection is as good as before.
        uow.connection().await.unwrap();
        let error = uow.get::<Chest>(id).await.unwrap_err();
        assert_eq!(mapping(&error).1, column);
        let _ = uow.commit().await.unwrap();
        fresh
            .run("DELETE FROM chest; INSERT INTO chest SELECT * FROM good")
            .await;
        let mut uow = store.unit_of_work(&RequestContext::system());
        let chest = uow.get::<Chest>(id).await.unwrap();
        assert_eq!((chest.status, chest.size), (Status::Open, Size::Small));
        assert_eq!((&*chest.label, chest.note, chest.pieces), ("a", None, 1));
        assert_eq!(chest.stops.len(), 1);
    }
}

async fn texts_at_the_limits<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let longest = "t".repeat(255);
    for bad in ["", "a\0b", &"t".repeat(256)] {
        TenantId::new(bad).unwrap_err();
    }
    let tenant = TenantId::new(&longest).unwrap();
    let actor = "\u{1F4E6}".repeat(10_000);
    let label = "'\"\\;--\u{1F4E6}\u{202e}\r\n".repeat(1_000);
    let context = RequestContext::tenant(tenant).with_actor(&actor);
    let parcel = Parcel::register(&label);
    let id = domain::id(&parcel);
    let mut uow = store.unit_of_work(&context);
    uow.save(parcel).unwrap();
    let _ = uow.commit().await.unwrap();
    let mut uow = store.unit_of_work(&context);
    let parcel = uow.get::<Parcel>(id).await.unwrap();
    assert_eq!(parcel.label(), label);
    let events = store.events(&context, Position::START, 9).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].metadata().actor.as_deref(), Some(&*actor));

    // A NUL is no text of a database: it is refused before anything is sent.
    let before = fresh.state().await;
    let mut uow = store.unit_of_work(&context);
    let error = uow.save(Parcel::register("a\0b")).unwrap_err();
    assert_eq!(mapping(&error).1, "label");
    assert!(uow.commit().await.unwrap().events().is_empty());
    let nul = context.with_actor("a\0b");
    let mut uow = store.unit_of_work(&nul);
    let saved = uow.save(Parcel::register("a"));
    let error = match saved {
        Ok(()) => uow.commit().await.map(drop).unwrap_err(),
        Err(error) => error,
    };
    assert!(!error.is_retryable() && !error.is_conflict(), "{error:?}");
    assert_eq!(fresh.state().await, before);
}
