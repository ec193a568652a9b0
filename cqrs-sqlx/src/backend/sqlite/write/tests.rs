//! Tests of every operation and of every way in which it can be refused.

use std::sync::Arc;

use cqrs_core::mapping::{RowSource, Value, ValueRow};
use cqrs_core::{Error, RawPayload, StoreErrorKind};
use sqlx::Connection;

use super::super::Sqlite;
use super::super::fixture::{
    EVERY_TYPE, PLAN, TempDatabase, event, insert_plan, memory, metadata, write, write_plan,
};
use super::super::session::Session;
use super::*;
use crate::backend::{Backed, Parameter};
use crate::log::{EVENT_COLUMNS, read_event};

async fn commit_all(connection: &mut SqliteConnection, writes: &[StagedWrite]) -> Committed {
    commit(connection, &Statements::default(), writes, &metadata()).await
}

/// The highest position of a commit that succeeds.
async fn done(connection: &mut SqliteConnection, write: StagedWrite) -> Option<i64> {
    match commit_all(connection, &[write]).await {
        Committed::Done(written) => written.position.map(|position| position.0),
        other => panic!("{other:?}"),
    }
}

/// The error of a commit that is refused.
async fn refused(connection: &mut SqliteConnection, write: StagedWrite) -> Error {
    match commit_all(connection, &[write]).await {
        Committed::Refused(error) => error,
        other => panic!("{other:?}"),
    }
}

/// The texts of the columns `name`, `created_by`, `updated_by`, `deleted_by` and `version` of the
/// only row.
async fn plan(connection: &mut SqliteConnection) -> (String, String, String, Option<String>, i64) {
    sqlx::query_as("SELECT name, created_by, updated_by, deleted_by, version FROM plan")
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn count(connection: &mut SqliteConnection, table: &'static str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_insert_writes_the_row_and_its_events() {
    let mut connection = memory().await;
    let mut insert = insert_plan("north", "a");
    insert.events.push(event(2));
    assert_eq!(done(&mut connection, insert.clone()).await, Some(2));

    let (name, creator, ..) = plan(&mut connection).await;
    assert_eq!((name.as_str(), creator.as_str()), ("first", "creator 0"));
    let mut events: Vec<cqrs_core::Envelope<RawPayload>> = Vec::new();
    let sql: Arc<str> =
        format!("SELECT {EVENT_COLUMNS} FROM cqrs_event WHERE position > $1 ORDER BY position")
            .into();
    Sqlite::fetch(&mut connection, &sql, &[Parameter::int(0)], None, |row| {
        events.push(read_event(row)?);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(events.len(), 2);
    for (event, new) in events.iter().zip(&insert.events) {
        assert_eq!(event.event_id(), new.event_id);
        assert_eq!(event.aggregate_version(), new.aggregate_version);
        assert_eq!(event.event_type(), new.event_type);
        assert_eq!(event.payload().as_str(), new.payload);
        assert_eq!(event.content_hash(), new.content_hash);
        assert_eq!(event.occurred_at(), new.occurred_at);
        assert_eq!(event.metadata(), &metadata());
        assert_eq!(event.aggregate_type(), "plan");
        assert_eq!(event.aggregate_id_str(), "a");
        assert_eq!(event.tenant(), insert.tenant.as_ref());
    }
}

#[tokio::test]
async fn an_id_cannot_be_used_again() {
    let mut connection = memory().await;
    done(&mut connection, insert_plan("north", "a")).await;
    let error = refused(&mut connection, insert_plan("north", "a")).await;
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
    let error = refused(&mut connection, insert_plan("south", "a")).await;
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");

    // Where the row is gone the log still knows it.
    sqlx::query("DELETE FROM plan")
        .execute(&mut *connection)
        .await
        .unwrap();
    let error = refused(&mut connection, insert_plan("north", "a")).await;
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
    assert_eq!(count(&mut connection, "plan").await, 0);
    assert_eq!(count(&mut connection, "cqrs_event").await, 1);
}

#[tokio::test]
async fn an_update_keeps_who_created_it() {
    let mut connection = memory().await;
    done(&mut connection, insert_plan("north", "a")).await;
    let update = write_plan(Operation::Update, "north", "a", 1, "second");
    assert_eq!(done(&mut connection, update).await, Some(2));
    let expected = (
        "second".into(),
        "creator 0".into(),
        "updater 1".into(),
        None,
        2,
    );
    assert_eq!(plan(&mut connection).await, expected);
}

#[tokio::test]
async fn a_stale_version_is_a_conflict_and_writes_nothing() {
    let mut connection = memory().await;
    done(&mut connection, insert_plan("north", "a")).await;
    done(
        &mut connection,
        write_plan(Operation::Update, "north", "a", 1, "second"),
    )
    .await;
    for operation in [
        Operation::Update,
        Operation::UpdateIfChanged,
        Operation::Remove,
    ] {
        let error = refused(
            &mut connection,
            write_plan(operation, "north", "a", 1, "lost"),
        )
        .await;
        assert!(
            matches!(
                error,
                Error::Conflict {
                    expected: 1,
                    found: 2,
                    ..
                }
            ),
            "{operation:?}: {error:?}"
        );
    }
    assert_eq!(plan(&mut connection).await.0, "second");
    assert_eq!(count(&mut connection, "cqrs_event").await, 2);
}

#[tokio::test]
async fn a_row_of_another_tenant_does_not_exist() {
    let mut connection = memory().await;
    done(&mut connection, insert_plan("north", "a")).await;
    for operation in [
        Operation::Update,
        Operation::UpdateIfChanged,
        Operation::Remove,
    ] {
        for (tenant, id) in [("south", "a"), ("North", "a"), ("north", "b")] {
            let error = refused(&mut connection, write_plan(operation, tenant, id, 1, "x")).await;
            assert!(
                error.is_not_found(),
                "{operation:?} {tenant} {id}: {error:?}"
            );
        }
    }
    assert_eq!(plan(&mut connection).await.0, "first");
}

#[tokio::test]
async fn text_is_compared_by_its_bytes_also_where_a_table_says_otherwise() {
    let mut connection = memory().await;
    let no_case = Sqlite::create_table_sql(&PLAN).replace(" text", " text COLLATE NOCASE");
    Sqlite::execute_script(&mut connection, format!("DROP TABLE plan; {no_case}"))
        .await
        .unwrap();
    done(&mut connection, insert_plan("north", "a")).await;
    let foreign = write_plan(Operation::Update, "NORTH", "a", 1, "stolen");
    assert!(refused(&mut connection, foreign).await.is_not_found());
    let other_case = write_plan(Operation::UpdateIfChanged, "north", "a", 1, "FIRST");
    assert_eq!(done(&mut connection, other_case).await, Some(2));
}

#[tokio::test]
async fn a_save_without_a_change_writes_nothing() {
    let mut connection = memory().await;
    done(&mut connection, insert_plan("north", "a")).await;
    let same = write_plan(Operation::UpdateIfChanged, "north", "a", 1, "first");
    assert_eq!(done(&mut connection, same).await, None);
    assert_eq!(plan(&mut connection).await.4, 1);
    assert_eq!(count(&mut connection, "cqrs_event").await, 1);

    let other_case = write_plan(Operation::UpdateIfChanged, "north", "a", 1, "First");
    assert_eq!(done(&mut connection, other_case).await, Some(2));
    let mut to_a_value = write_plan(Operation::UpdateIfChanged, "north", "a", 2, "First");
    *to_a_value.row.last_mut().unwrap() = Value::Int(3);
    assert_eq!(done(&mut connection, to_a_value.clone()).await, Some(3));
    let to_null = write_plan(Operation::UpdateIfChanged, "north", "a", 3, "First");
    assert_eq!(done(&mut connection, to_null).await, Some(4));
}

#[tokio::test]
async fn a_soft_delete_leaves_the_data_and_hides_the_row() {
    let mut connection = memory().await;
    done(&mut connection, insert_plan("north", "a")).await;
    let remove = write_plan(Operation::Remove, "north", "a", 1, "ignored");
    assert_eq!(done(&mut connection, remove).await, Some(2));
    let expected = (
        "first".into(),
        "creator 0".into(),
        "updater 1".into(),
        Some("ann".into()),
        2,
    );
    assert_eq!(plan(&mut connection).await, expected);

    for operation in [
        Operation::Update,
        Operation::UpdateIfChanged,
        Operation::Remove,
    ] {
        let error = refused(&mut connection, write_plan(operation, "north", "a", 2, "x")).await;
        assert!(error.is_not_found(), "{operation:?}: {error:?}");
    }
    let error = refused(&mut connection, insert_plan("north", "a")).await;
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
}

fn every_value() -> Vec<Value> {
    let id = uuid::Uuid::from_u128(1);
    vec![
        Value::Int(1),
        Value::Uuid(id),
        Value::Bool(true),
        Value::Int(-3),
        Value::Int(70_000),
        Value::Int(i64::MIN),
        Value::Float(f64::from(0.1_f32)),
        Value::Float(0.1),
        Value::Text("12".into()),
        Value::Bytes(vec![]),
        Value::Null,
        Value::Timestamp(super::super::fixture::day(3)),
        Value::Date(super::super::fixture::day(3).date_naive()),
        Value::Json("1.0".into()),
    ]
}

fn read_back(row: &impl RowSource) -> Vec<Value> {
    EVERY_TYPE
        .columns()
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let value = match column.column_type() {
                ColumnType::Bool => row.read_bool(index).unwrap().map(Value::Bool),
                ColumnType::Int16 => row.read_i16(index).unwrap().map(|v| Value::Int(v.into())),
                ColumnType::Int32 => row.read_i32(index).unwrap().map(|v| Value::Int(v.into())),
                ColumnType::Int64 => row.read_i64(index).unwrap().map(Value::Int),
                ColumnType::Float32 => row.read_f32(index).unwrap().map(|v| Value::Float(v.into())),
                ColumnType::Float64 => row.read_f64(index).unwrap().map(Value::Float),
                ColumnType::Text => row.read_text(index).unwrap().map(|v| Value::Text(v.into())),
                ColumnType::Bytes => row
                    .read_bytes(index)
                    .unwrap()
                    .map(|v| Value::Bytes(v.into())),
                ColumnType::Uuid => row.read_uuid(index).unwrap().map(Value::Uuid),
                ColumnType::Timestamp => row.read_timestamp(index).unwrap().map(Value::Timestamp),
                ColumnType::Date => row.read_date(index).unwrap().map(Value::Date),
                ColumnType::Json => row.read_json(index).unwrap().map(|v| Value::Json(v.into())),
                other => panic!("{other}"),
            };
            value.unwrap_or(Value::Null)
        })
        .collect()
}

#[tokio::test]
async fn every_type_comes_back_as_it_was_written() {
    let mut connection = memory().await;
    let values = every_value();
    let key = values[1].clone();
    let insert = write(
        &EVERY_TYPE,
        Operation::Insert,
        "1",
        key.clone(),
        0,
        values.clone(),
    );
    done(&mut connection, insert).await;
    let mut found = Vec::new();
    let names = list(
        EVERY_TYPE
            .columns()
            .iter()
            .map(|column| quoted(column.name())),
    );
    let sql: Arc<str> = format!("SELECT {names} FROM every_type WHERE id = $1").into();
    let id = Parameter::new(ColumnType::Uuid, key.clone());
    Sqlite::fetch(&mut connection, &sql, &[id], Some(&EVERY_TYPE), |row| {
        found = read_back(row);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(found, values);
    assert_eq!(found, read_back(&ValueRow::new(values.clone())));

    // None of them differs from itself.
    let mut same = values;
    same[0] = Value::Int(2);
    let save = write(
        &EVERY_TYPE,
        Operation::UpdateIfChanged,
        "1",
        key.clone(),
        1,
        same.clone(),
    );
    assert_eq!(done(&mut connection, save).await, None);

    let remove = write(&EVERY_TYPE, Operation::Remove, "1", key, 1, same);
    assert_eq!(done(&mut connection, remove).await, Some(2));
    assert_eq!(count(&mut connection, "every_type").await, 0);
}

#[tokio::test]
async fn several_writes_are_all_or_nothing() {
    let mut connection = memory().await;
    done(&mut connection, insert_plan("north", "a")).await;
    let writes = [
        insert_plan("north", "b"),
        write_plan(Operation::Update, "north", "a", 1, "second"),
        write_plan(Operation::Update, "north", "b", 7, "stale"),
    ];
    let refused = commit_all(&mut connection, &writes).await;
    assert!(
        matches!(refused, Committed::Refused(Error::Conflict { .. })),
        "{refused:?}"
    );
    assert_eq!(count(&mut connection, "plan").await, 1);
    assert_eq!(plan(&mut connection).await.0, "first");
    assert_eq!(count(&mut connection, "cqrs_event").await, 1);

    let done = commit_all(&mut connection, &writes[..2]).await;
    let Committed::Done(written) = done else {
        panic!("{done:?}")
    };
    assert_eq!(written.position, Some(Position(3)));
    let staged = writes[..2].iter().flat_map(|write| &write.events);
    assert!(staged.map(|event| event.event_id).eq(written.events));
}

#[tokio::test]
async fn writes_join_the_users_transaction() {
    let mut connection = memory().await;
    let statements = Statements::default();
    Sqlite::begin(&mut connection).await.unwrap();
    let mut savepoint = connection.begin().await.unwrap();
    let writes = [insert_plan("north", "a")];
    apply(
        &mut savepoint,
        &statements,
        &writes,
        &metadata(),
        Returned::Positions,
    )
    .await
    .unwrap();
    savepoint.rollback().await.unwrap();
    let writes = [insert_plan("north", "b")];
    apply(
        &mut connection,
        &statements,
        &writes,
        &metadata(),
        Returned::Positions,
    )
    .await
    .unwrap();
    Sqlite::commit(&mut connection).await.unwrap();
    assert_eq!(count(&mut connection, "plan").await, 1);
    assert_eq!(count(&mut connection, "cqrs_event").await, 1);
}

#[tokio::test]
async fn another_constraint_is_not_a_conflict() {
    let mut connection = memory().await;
    sqlx::query("CREATE UNIQUE INDEX plan_name ON plan (name)")
        .execute(&mut *connection)
        .await
        .unwrap();
    done(&mut connection, insert_plan("north", "a")).await;
    let error = refused(&mut connection, insert_plan("north", "b")).await;
    let Error::Store(error) = error else {
        panic!("{error:?}")
    };
    let name = Some("plan.name".to_owned());
    assert_eq!(error.kind(), &StoreErrorKind::Constraint { name });
    assert_eq!(
        error.to_string(),
        "writing plan b: a constraint was violated"
    );
}

#[tokio::test]
async fn a_busy_database_is_contention() {
    let database = TempDatabase::new();
    let mut holder = database.connect().await;
    let mut connection = database.connect().await;
    sqlx::query("PRAGMA busy_timeout = 0")
        .execute(&mut *connection)
        .await
        .unwrap();
    Sqlite::begin(&mut holder).await.unwrap();
    let error = refused(&mut connection, insert_plan("north", "a")).await;
    assert!(
        matches!(&error, Error::Store(error) if *error.kind() == StoreErrorKind::Contention),
        "{error:?}"
    );
    assert!(error.is_retryable());
    Sqlite::rollback(&mut holder).await.unwrap();
    assert_eq!(
        done(&mut connection, insert_plan("north", "a")).await,
        Some(1)
    );
}

#[tokio::test]
async fn a_full_disk_is_an_error_after_which_the_connection_works() {
    let mut connection = memory().await;
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {}", pages + 1));
    sqlx::query(limit).execute(&mut *connection).await.unwrap();
    let large = write_plan(Operation::Insert, "north", "a", 0, &"x".repeat(100_000));
    let error = refused(&mut connection, large).await;
    assert!(
        matches!(&error, Error::Store(error) if *error.kind() == StoreErrorKind::Database),
        "{error:?}"
    );
    assert_eq!(
        done(&mut connection, insert_plan("north", "b")).await,
        Some(1)
    );
    assert_eq!(count(&mut connection, "plan").await, 1);
}

#[tokio::test]
async fn without_migrations_the_error_says_what_to_call() {
    let mut connection = Session::open(&"sqlite::memory:".parse().unwrap())
        .await
        .unwrap();
    let sql = Sqlite::create_table_sql(&PLAN);
    Sqlite::execute_script(&mut connection, sql).await.unwrap();
    let error = refused(&mut connection, insert_plan("north", "a")).await;
    assert!(error.to_string().contains("store.migrate()"), "{error}");
    assert_eq!(count(&mut connection, "plan").await, 0);
}

#[tokio::test]
async fn a_guard_that_compares_bytes_still_finds_its_row_by_the_key() {
    let mut connection = memory().await;
    for operation in [
        Operation::Update,
        Operation::UpdateIfChanged,
        Operation::Remove,
    ] {
        let explain = format!("EXPLAIN QUERY PLAN {}", row_sql(&PLAN, operation));
        let plan: (i64, i64, i64, String) = sqlx::query_as(sqlx::AssertSqlSafe(explain))
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        assert!(plan.3.starts_with("SEARCH plan USING INDEX"), "{plan:?}");
        assert!(plan.3.contains("id=?"), "{plan:?}");
    }
}
