//! The proxy before a server.

use sqlx::{Connection, PgConnection, PgPool};
use tokio::task::JoinSet;

use super::{Counts, Cut, Direction, WireProxy};
use crate::database::TestDatabase;

const INSERT: &str = "INSERT INTO note (id) VALUES ($1)";

/// A database with a table, a proxy before it, and a connection past the proxy.
struct Fixture {
    database: TestDatabase,
    proxy: WireProxy,
    observer: PgConnection,
}

impl Fixture {
    async fn new() -> Self {
        let database = TestDatabase::create().await;
        let proxy = WireProxy::start(database.url()).await;
        let mut observer = PgConnection::connect(database.url()).await.unwrap();
        sqlx::raw_sql("CREATE TABLE note (id int PRIMARY KEY)")
            .execute(&mut observer)
            .await
            .unwrap();
        Self {
            database,
            proxy,
            observer,
        }
    }

    /// Connects through the proxy, and has the INSERT prepared.
    async fn client(&self) -> PgConnection {
        let mut client = PgConnection::connect(self.proxy.url()).await.unwrap();
        sqlx::query("SELECT 1").execute(&mut client).await.unwrap();
        let mut prepare = client.begin().await.unwrap();
        sqlx::query(INSERT)
            .bind(-1)
            .execute(&mut *prepare)
            .await
            .unwrap();
        prepare.rollback().await.unwrap();
        client.ping().await.unwrap();
        client
    }

    /// The SQL of each statement since the start.
    fn log(&self) -> Vec<String> {
        self.proxy.statements_since(&Counts::default())
    }

    /// Returns whether the row is there, as seen now.
    async fn has(&mut self, id: i32) -> bool {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM note WHERE id = $1)")
            .bind(id)
            .fetch_one(&mut self.observer)
            .await
            .unwrap()
    }

    /// Returns whether the row is there when all who have touched the table have ended.
    async fn has_at_last(&mut self, id: i32) -> bool {
        let mut transaction = self.observer.begin().await.unwrap();
        sqlx::raw_sql("LOCK TABLE note IN ACCESS EXCLUSIVE MODE")
            .execute(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        self.has(id).await
    }
}

async fn insert(client: &mut PgConnection, id: i32) -> sqlx::Result<()> {
    sqlx::query(INSERT)
        .bind(id)
        .execute(client)
        .await
        .map(|_| ())
}

#[tokio::test]
async fn statements_and_answers_are_counted() {
    let fixture = Fixture::new().await;
    let proxy = &fixture.proxy;
    let mut client = PgConnection::connect(proxy.url()).await.unwrap();
    assert_eq!(proxy.counts(), Counts::default(), "opening does not count");

    let counts = |statements, round_trips| Counts {
        statements,
        round_trips,
    };
    insert(&mut client, 1).await.unwrap();
    let first = proxy.counts();
    assert_eq!(first, counts(1, 2), "prepared, then executed");

    insert(&mut client, 2).await.unwrap();
    let second = proxy.counts();
    assert_eq!(second.since(&first), counts(1, 1), "prepared already");

    sqlx::raw_sql("SELECT 1; SELECT 2")
        .execute(&mut client)
        .await
        .unwrap();
    let third = proxy.counts();
    assert_eq!(third.since(&second), counts(1, 1), "one text");

    client.ping().await.unwrap();
    assert_eq!(proxy.counts().since(&third), counts(0, 1));

    let log = [INSERT, INSERT, "SELECT 1; SELECT 2"];
    assert_eq!(fixture.log(), log);
    assert_eq!(proxy.statements_since(&first), log[1..]);
}

#[tokio::test]
async fn names_the_statements_of_several_connections() {
    let fixture = Fixture::new().await;
    let proxy = &fixture.proxy;
    let mut one = PgConnection::connect(proxy.url()).await.unwrap();
    let mut two = PgConnection::connect(proxy.url()).await.unwrap();
    // Both call their first statement by the same name.
    for _ in 0..2 {
        sqlx::query("SELECT 1").execute(&mut one).await.unwrap();
        sqlx::query("SELECT 2").execute(&mut two).await.unwrap();
        sqlx::query("SELECT 3")
            .persistent(false)
            .execute(&mut one)
            .await
            .unwrap();
    }
    let log = ["SELECT 1", "SELECT 2", "SELECT 3"];
    assert_eq!(
        proxy.statements_since(&Counts::default()),
        [log, log].concat()
    );
}

#[tokio::test]
async fn the_log_has_one_entry_for_each_statement_of_a_pool() {
    let fixture = Fixture::new().await;
    let pool = PgPool::connect(fixture.proxy.url()).await.unwrap();
    let mut tasks = JoinSet::new();
    for id in 0..50 {
        let pool = pool.clone();
        tasks.spawn(async move {
            sqlx::query(INSERT).bind(id).execute(&pool).await.unwrap();
        });
    }
    tasks.join_all().await;
    assert_eq!(fixture.proxy.counts().statements, 50);
    assert_eq!(fixture.log(), [INSERT; 50]);
}

#[tokio::test]
async fn a_cut_at_each_message_of_a_client_decides_what_the_server_has_done() {
    let mut fixture = Fixture::new().await;
    let mut id = 0;
    type Make = fn(Direction, usize) -> Cut;
    // A statement outside of a transaction commits on its Sync.
    for (when, cut, commits) in [
        ("before", Cut::before as Make, ""),
        ("after", Cut::after as Make, "S"),
    ] {
        let mut struck = String::new();
        for message in 0.. {
            id += 1;
            let mut client = fixture.client().await;
            fixture.proxy.arm(cut(Direction::FromClient, message));
            let outcome = insert(&mut client, id).await;
            let Some(tag) = fixture.proxy.cut_message() else {
                outcome.expect("nothing was cut");
                assert!(!fixture.proxy.was_cut());
                fixture.proxy.disarm();
                break;
            };
            struck.push(tag);
            assert!(fixture.proxy.was_cut());
            let error = outcome.expect_err("no answer arrives");
            assert!(matches!(error, sqlx::Error::Io(_)), "{error:?}");

            let committed = commits.contains(tag);
            if committed {
                assert!(fixture.has(id).await, "{when} {tag}: there at once");
            }
            assert_eq!(fixture.has_at_last(id).await, committed, "{when} {tag}");
        }
        assert_eq!(struck, "BECS", "{when}");
    }
}

#[tokio::test]
async fn a_cut_at_each_message_of_the_server_finds_the_work_done() {
    let mut fixture = Fixture::new().await;
    let mut id = 0;
    type Make = fn(Direction, usize) -> Cut;
    for (cut, arrives) in [(Cut::before as Make, ""), (Cut::after as Make, "Z")] {
        let mut struck = String::new();
        for message in 0.. {
            id += 1;
            let mut client = fixture.client().await;
            fixture.proxy.arm(cut(Direction::FromServer, message));
            let outcome = insert(&mut client, id).await;
            let Some(tag) = fixture.proxy.cut_message() else {
                outcome.expect("nothing was cut");
                fixture.proxy.disarm();
                break;
            };
            struck.push(tag);
            assert!(fixture.proxy.was_cut());
            assert_eq!(outcome.is_ok(), arrives.contains(tag), "{tag}");
            assert!(fixture.has(id).await, "{tag}: there at once");

            client.ping().await.expect_err("the connection is closed");
        }
        assert_eq!(struck, "2C3Z");
    }
}

#[tokio::test]
async fn a_simple_query_is_cut_as_a_whole() {
    let mut fixture = Fixture::new().await;
    for (id, cut, committed) in [
        (1, Cut::before as fn(_, _) -> _, false),
        (2, Cut::after, true),
    ] {
        let mut client = fixture.client().await;
        fixture.proxy.arm(cut(Direction::FromClient, 0));
        let sql = sqlx::AssertSqlSafe(format!("INSERT INTO note VALUES ({id})"));
        sqlx::raw_sql(sql)
            .execute(&mut client)
            .await
            .expect_err("no answer arrives");
        assert_eq!(fixture.proxy.cut_message(), Some('Q'));
        assert_eq!(fixture.has_at_last(id).await, committed);
    }
}

#[tokio::test]
async fn a_delayed_statement_arrives_on_release() {
    let mut fixture = Fixture::new().await;
    for message in 0..4 {
        let id = 10 + i32::try_from(message).unwrap();
        let mut client = fixture.client().await;
        fixture.proxy.arm(Cut::delayed(message));
        insert(&mut client, id)
            .await
            .expect_err("the client is cut");
        assert!(fixture.proxy.was_cut());
        assert!(!fixture.has(id).await, "held back at message {message}");

        fixture.proxy.release().await;
        assert!(fixture.has(id).await, "delivered from message {message}");
    }
    // Each was counted once, though it was sent in two parts: 4 here, 4 when prepared.
    let inserts = fixture.log();
    assert_eq!(inserts.iter().filter(|sql| *sql == INSERT).count(), 8);
}

#[tokio::test]
async fn a_delayed_commit_keeps_its_transaction_open() {
    let mut fixture = Fixture::new().await;
    let mut client = fixture.client().await;
    let mut transaction = client.begin().await.unwrap();
    insert(&mut transaction, 1).await.unwrap();
    fixture.proxy.arm(Cut::delayed(0));
    transaction
        .commit()
        .await
        .expect_err("the answer is still out");
    assert!(!fixture.has(1).await);

    // Somebody tries the same again and has to wait for the first to end. That it waits is
    // seen in the catalog of the server, not guessed from the time.
    let mut second = PgConnection::connect(fixture.database.url()).await.unwrap();
    let process: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut second)
        .await
        .unwrap();
    let again = tokio::spawn(async move { insert(&mut second, 1).await });
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)";
    while !sqlx::query_scalar::<_, bool>(waits)
        .bind(process)
        .fetch_one(&mut fixture.observer)
        .await
        .unwrap()
    {
        tokio::task::yield_now().await;
    }

    fixture.proxy.release().await;
    assert!(fixture.has(1).await);
    let error = again.await.unwrap().expect_err("the first came through");
    assert!(error.as_database_error().unwrap().is_unique_violation());
}

#[tokio::test]
async fn what_is_never_released_is_never_done() {
    let mut fixture = Fixture::new().await;
    let mut client = fixture.client().await;
    fixture.proxy.release().await; // nothing is held yet, so nothing comes of it
    fixture.proxy.arm(Cut::delayed(1));
    insert(&mut client, 1).await.expect_err("the client is cut");
    fixture.proxy = WireProxy::start(fixture.database.url()).await;
    assert!(!fixture.has_at_last(1).await);
}

#[tokio::test]
async fn a_disarmed_cut_does_not_strike() {
    let fixture = Fixture::new().await;
    let mut client = fixture.client().await;
    fixture.proxy.arm(Cut::before(Direction::FromClient, 0));
    fixture.proxy.disarm();
    insert(&mut client, 1).await.unwrap();
    assert!(!fixture.proxy.was_cut());
}

#[tokio::test]
async fn a_client_that_goes_takes_its_server_connection_along() {
    let mut fixture = Fixture::new().await;
    let mut client = fixture.client().await;
    let mut transaction = client.begin().await.unwrap();
    insert(&mut transaction, 1).await.unwrap();
    drop(transaction);
    // The rollback is only queued; what ends the transaction is the end of the socket.
    drop(client);
    assert!(!fixture.has_at_last(1).await);
}

#[tokio::test]
async fn large_messages_pass_in_both_directions() {
    let fixture = Fixture::new().await;
    let mut client = fixture.client().await;
    let sent: String = (0..2_000_000)
        .map(|n| char::from(b'a' + (n % 23) as u8))
        .collect();
    let received: String = sqlx::query_scalar("SELECT $1::text")
        .bind(&sent)
        .fetch_one(&mut client)
        .await
        .unwrap();
    assert!(sent == received);
}
