//! Pages of projections that write rows alone are committed without waiting for the disk, and what a
//! crash takes of them is applied again. Others are as durable as any commit.

use std::time::Duration;

use cqrs_core::Store;
use cqrs_integration::cluster::Cluster;
use cqrs_integration::database::TestDatabase;
use cqrs_integration::stores;
use cqrs_sqlx::StoreOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::support::{Recorder, applied, commit, receipt, with_tables};
use super::unlocked::{Changeable, positions};

/// Keeps how each commit of rows was made, as of its end.
const WATCH: &str = "CREATE TABLE made (subscription text, how text);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO made VALUES (NEW.subscription, current_setting('synchronous_commit'));
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER watch AFTER INSERT OR UPDATE ON applied
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION watch()";

/// Drains the log by three subscriptions, one after the other on one connection: how the pages of
/// each were committed.
async fn how_pages_are_committed(url: &str) -> Vec<(String, String)> {
    let options = StoreOptions::default().max_connections(1);
    let store = stores::postgres_with(url, options).await;
    commit(&store, 4).await;
    let projectors = [
        store
            .projector()
            .projection(Recorder::new("alone").rows_alone()),
        store.projector().projection(Changeable),
        store.projector().projection(Recorder::new("any")),
    ];
    for projector in projectors {
        projector.page_size(2).run_until_idle().await.unwrap();
    }
    let mut connection = PgConnection::connect(url).await.unwrap();
    let made = "WITH made AS (DELETE FROM made RETURNING *) \
        SELECT DISTINCT subscription, how FROM made ORDER BY subscription";
    sqlx::query_as(made)
        .fetch_all(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn pages_of_rows_alone_do_not_wait_for_the_disk() {
    let database = TestDatabase::create().await;
    let store = with_tables(stores::postgres(database.url()).await).await;
    store.close();
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    connection.execute(WATCH).await.unwrap();
    let all = |alone: &str, any: &str| {
        ["alone", "any", "gone", "kept"].map(|name| {
            let how = if name == "any" { any } else { alone };
            (name.to_owned(), how.to_owned())
        })
    };
    for (chosen, alone) in [
        ("on", "off"),
        ("local", "off"),
        ("off", "off"),
        ("remote_apply", "remote_apply"),
    ] {
        let url = database.url();
        let joint = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{joint}options=-c%20synchronous_commit%3D{chosen}");
        assert_eq!(how_pages_are_committed(&url).await, all(alone, chosen));
    }
}

/// Whether a crash would take something, and leave the sequence where it is: else the log would seem
/// to have grown, which wakes the projector.
async fn is_the_moment(connection: &mut PgConnection) -> bool {
    let sql = "SELECT log_cnt = 0 AND pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn() \
        FROM cqrs_event_position";
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_takes_of_a_page_is_applied_again() {
    let cluster = Cluster::start().await;
    let store = with_tables(stores::postgres(&cluster.url()).await).await;
    let mut connection = PgConnection::connect(&cluster.url()).await.unwrap();
    // So that a page is not flushed by the way.
    for sql in [
        "ALTER SYSTEM SET wal_writer_delay = '10s'",
        "ALTER SYSTEM SET autovacuum = off",
        "SELECT pg_reload_conf()",
    ] {
        connection.execute(sql).await.unwrap();
    }
    let projector = store.projector();
    let projector = projector.projection(Recorder::new("recorder").rows_alone());
    let handle = projector.start().await.unwrap();
    let last = loop {
        let last = receipt(&store, 0).await;
        store.wait_for(&last, "recorder").await.unwrap();
        if is_the_moment(&mut connection).await {
            break last.position().unwrap().0;
        }
    };
    cluster.crash();
    // Nothing is committed any more that might wake it, and it does not doubt by itself so soon.
    let again = async { while applied(&store).await.last() != Some(&last) {} };
    tokio::time::timeout(Duration::from_secs(8), again)
        .await
        .expect("the projector applies again what was lost");
    assert_eq!(applied(&store).await, positions(last));
    drop(handle);
}
