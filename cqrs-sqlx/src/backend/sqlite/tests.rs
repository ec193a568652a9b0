//! Tests of what is the same for every statement: migrations, streaming, connections.

use std::ops::ControlFlow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};

use super::fixture::{TempDatabase, memory};
use super::*;

fn sql(text: &str) -> Arc<str> {
    text.into()
}

#[tokio::test]
async fn migrations_can_be_run_again() {
    let mut connection = memory().await;
    Sqlite::migrate(&mut connection).await.unwrap();
    let insert = sql("INSERT INTO cqrs_subscription (name) VALUES ($1)");
    let name = [Parameter::text("list")];
    let rows = Sqlite::execute(&mut connection, &insert, &name).await;
    assert_eq!(rows.unwrap(), 1);
    Sqlite::migrate(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_processes_can_migrate_at_once() {
    let database = TempDatabase::new();
    let barrier = Arc::new(tokio::sync::Barrier::new(8));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let backend = Sqlite::new(database.options());
            let barrier = Arc::clone(&barrier);
            tokio::spawn(async move {
                let mut connection = backend.connect().await?;
                barrier.wait().await;
                Sqlite::migrate(&mut connection).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn migrations_live_beside_those_of_the_application() {
    let mut connection = memory().await;
    let own = Migrator::with_migrations(vec![Migration::new(
        1,
        "own".into(),
        MigrationType::Simple,
        "CREATE TABLE own (a)".into_sql_str(),
        false,
    )]);
    own.run_direct(None, &mut *connection, false).await.unwrap();
    Sqlite::migrate(&mut connection).await.unwrap();
    own.run_direct(None, &mut *connection, false).await.unwrap();
    for (table, expected) in [("_sqlx_migrations", 1), ("_cqrs_migrations", 16)] {
        let applied = connection.list_applied_migrations(table).await.unwrap();
        assert_eq!(applied.len(), expected, "{table}");
    }
}

#[tokio::test]
async fn a_changed_migration_is_an_error_of_the_schema() {
    let mut connection = memory().await;
    let change = sql("UPDATE _cqrs_migrations SET checksum = x'00'");
    Sqlite::execute(&mut connection, &change, &[])
        .await
        .unwrap();
    let error = Sqlite::migrate(&mut connection).await.unwrap_err();
    assert!(
        matches!(&error, Error::Store(error) if *error.kind() == StoreErrorKind::Schema),
        "{error:?}"
    );
    // It is in no transaction.
    Sqlite::begin(&mut connection).await.unwrap();
}

#[tokio::test]
async fn the_time_of_the_database_is_read_and_sorts_as_every_other() {
    use cqrs_core::mapping::RowSource;

    let mut connection = memory().await;
    let select = sql(&format!("SELECT {0}, length({0})", Sqlite::DIALECT.now));
    let mut read = None;
    Sqlite::fetch(&mut connection, &select, &[], None, |row| {
        read = Some((row.read_timestamp(0), row.read_i64(1)));
        Ok(())
    })
    .await
    .unwrap();
    let (time, length) = read.unwrap();
    let time = time.unwrap().unwrap();
    assert!((chrono::Utc::now() - time).num_seconds().abs() < 60);
    assert_eq!(length.unwrap(), Some(bind::timestamp(time).len() as i64));
}

#[tokio::test]
async fn a_reader_that_stops_early_leaves_the_connection_usable() {
    use cqrs_core::mapping::RowSource;

    let mut connection = memory().await;
    let numbers = sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
         SELECT i FROM n",
    );
    let mut read = 0;
    let mut take = |row: &SqliteSource| {
        read += 1;
        match row.read_i64(0) {
            Ok(Some(3)) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    };
    let many = [Parameter::int(1_000_000)];
    let error = Sqlite::fetch(&mut connection, &numbers, &many, None, |row| {
        match take(row) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::other("enough")),
        }
    })
    .await
    .unwrap_err();
    assert_eq!(error.to_string(), "enough");
    assert_eq!(read, 3);
    let few = [Parameter::int(2)];
    let mut rows = 0;
    Sqlite::fetch(&mut connection, &numbers, &few, None, |_| {
        rows += 1;
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(rows, 2);
}

#[tokio::test]
async fn a_dropped_read_is_repaired() {
    let backend = Sqlite::new("sqlite::memory:".parse().unwrap());
    assert!(backend.is_in_memory());
    let mut connection = backend.connect().await.unwrap();
    let endless =
        sql("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n");
    let (first, seen) = tokio::sync::oneshot::channel();
    let mut first = Some(first);
    let read = Sqlite::fetch(&mut connection, &endless, &[], None, |_| {
        first.take().map(|first| first.send(()));
        Ok(())
    });
    tokio::select! {
        _ = read => panic!("it has no end"),
        seen = seen => seen.unwrap(),
    }
    let mut connection = backend.repair(connection).await.unwrap();
    Sqlite::begin(&mut connection).await.unwrap();
    Sqlite::rollback(&mut connection).await.unwrap();
}

/// Where an answer is given up, or a connection was found broken, others are opened; a database in
/// memory would end with it.
#[tokio::test]
async fn a_database_in_memory_lives_as_long_as_its_store() {
    let store = crate::SqliteStore::connect("sqlite::memory:")
        .await
        .unwrap();
    store.migrate().await.unwrap();
    let connections = &store.shared().readers;
    let read = sql("SELECT name FROM cqrs_subscription");
    let is_there = async || {
        let mut connection = connections.acquire().await.unwrap();
        let rows = Sqlite::execute(connection.begin_work(), &read, &[]).await;
        connection.end_work();
        rows.is_ok()
    };
    assert!(is_there().await);
    let _error = connections.no_answer_within(Duration::ZERO);
    assert!(is_there().await, "an answer was given up");
    let mut connection = connections.acquire().await.unwrap();
    Sqlite::begin(connection.begin_work()).await.unwrap();
    connection.discard();
    assert!(is_there().await, "a connection was discarded");
    connections.acquire().await.unwrap().begin_work();
    assert!(is_there().await, "a statement was dropped");
}
