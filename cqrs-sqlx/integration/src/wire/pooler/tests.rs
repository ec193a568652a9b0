//! That the model behaves as a pooler does.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use super::{Pooler, Prepared};
use crate::database::TestDatabase;

async fn pooler(connections: usize) -> (TestDatabase, Pooler) {
    let database = TestDatabase::create().await;
    let pooler = Pooler::start(database.url(), connections).await;
    (database, pooler)
}

async fn process(client: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(client)
        .await
        .unwrap()
}

#[tokio::test]
async fn each_transaction_has_another_process() {
    let (_database, pooler) = pooler(3).await;
    let mut client = PgConnection::connect(pooler.url()).await.unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..6 {
        seen.insert(process(&mut client).await);
    }
    assert_eq!(seen.len(), 3);
    let mut transaction = client.begin().await.unwrap();
    let first = process(&mut transaction).await;
    assert_eq!(process(&mut transaction).await, first);
    transaction.commit().await.unwrap();
    assert_ne!(process(&mut client).await, first);
}

#[tokio::test]
async fn a_session_is_left_behind_but_for_its_name() {
    let (_database, pooler) = pooler(2).await;
    let options: PgConnectOptions = pooler.url().parse().unwrap();
    let options = options.application_name("it's me");
    let mut client = options.connect().await.unwrap();
    sqlx::raw_sql("SET lock_timeout = '7s'")
        .execute(&mut client)
        .await
        .unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        let (name, timeout): (String, String) = sqlx::query_as(
            "SELECT current_setting('application_name'), current_setting('lock_timeout')",
        )
        .fetch_one(&mut client)
        .await
        .unwrap();
        assert_eq!(name, "it's me");
        seen.insert(timeout);
    }
    assert_eq!(Vec::from_iter(seen), ["0", "7s"]);
}

#[tokio::test]
async fn clients_have_prepared_statements_of_their_own() {
    let (_database, pooler) = pooler(2).await;
    let mut one = PgConnection::connect(pooler.url()).await.unwrap();
    let mut other = PgConnection::connect(pooler.url()).await.unwrap();
    for round in 0..4 {
        for (client, offset) in [(&mut one, 10), (&mut other, 20)] {
            let sql = format!("SELECT $1 + {offset}");
            let sum: i32 = sqlx::query_scalar(AssertSqlSafe(sql))
                .bind(round)
                .fetch_one(&mut *client)
                .await
                .unwrap();
            assert_eq!(sum, round + offset);
            // What fails leaves nothing behind.
            let wrong = sqlx::query("SELECT 1 / $1").bind(0).execute(client).await;
            assert!(wrong.is_err());
        }
    }
}

#[tokio::test]
async fn names_that_are_not_its_own_get_mixed_up() {
    let database = TestDatabase::create().await;
    let pooler = Pooler::start_with(database.url(), 1, Prepared::AsTheyCome).await;
    let mut one = PgConnection::connect(pooler.url()).await.unwrap();
    let mut other = PgConnection::connect(pooler.url()).await.unwrap();
    process(&mut one).await;
    let failed = sqlx::query("SELECT 1").execute(&mut other).await;
    let code = failed.unwrap_err().into_database_error().unwrap();
    assert_eq!(code.code().as_deref(), Some("42P05"), "it exists already");
}

#[tokio::test]
async fn a_client_that_goes_takes_its_transaction_along() {
    let (database, pooler) = pooler(1).await;
    let mut client = PgConnection::connect(pooler.url()).await.unwrap();
    sqlx::raw_sql("CREATE TABLE note (id int)")
        .execute(&mut client)
        .await
        .unwrap();
    let mut transaction = client.begin().await.unwrap();
    sqlx::raw_sql("INSERT INTO note VALUES (1)")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let process = process(&mut transaction).await;
    drop(transaction);
    drop(client);
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    while sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)")
        .bind(process)
        .fetch_one(&mut observer)
        .await
        .unwrap()
    {
        tokio::task::yield_now().await;
    }
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM note")
        .fetch_one(&mut observer)
        .await
        .unwrap();
    assert_eq!(count, 0);
}

/// The reason why a statement alone cannot be found out about.
#[tokio::test]
async fn what_waits_for_a_connection_arrives_after_its_client_has_gone() {
    let (database, pooler) = pooler(1).await;
    let mut observer = PgConnection::connect(database.url()).await.unwrap();
    sqlx::raw_sql("CREATE TABLE note (id int)")
        .execute(&mut observer)
        .await
        .unwrap();
    let mut hasty = PgConnection::connect(pooler.url()).await.unwrap();
    let mut busy = PgConnection::connect(pooler.url()).await.unwrap();
    let transaction = busy.begin().await.unwrap();
    let insert = sqlx::raw_sql("INSERT INTO note VALUES (1)").execute(&mut hasty);
    // Polled once, it is sent.
    tokio::select! {
        biased;
        _ = insert => panic!("there is no connection"),
        () = tokio::task::yield_now() => {}
    }
    drop(hasty);
    transaction.commit().await.unwrap();
    while sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM note)")
        .fetch_one(&mut observer)
        .await
        .unwrap()
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_session_begins_with_is_refused() {
    let (_database, pooler) = pooler(1).await;
    let options: PgConnectOptions = pooler.url().parse().unwrap();
    let options = options.options([("lock_timeout", "50ms")]);
    let refused = options.connect().await.unwrap_err();
    let refused = refused.into_database_error().unwrap();
    assert_eq!(refused.code().as_deref(), Some("08P01"));
}
