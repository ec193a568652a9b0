//! What is wrong from outside gets an error that says what and where, and nothing is half done.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cqrs_core::mapping::{ColumnError, MappingError};
use cqrs_core::{
    Aggregate, DomainEvent, Entity, Envelope, Error, Id, Position, Projection,
    ProjectionTransaction, Query, RawPayload, Repository, RequestContext, Result, Root, Store,
    StoreErrorKind, TenantId, UnitOfWork, ValueObject,
};
use cqrs_integration::domain::{self, Parcel, ParcelViews, Parcels};
use cqrs_integration::stores;
use cqrs_sqlx::{
    PgStore, SchemaMismatch, SqlStore, SqliteStore, StoreOptions, SubscriptionFailure,
    SubscriptionState,
};
use serde::{Deserialize, Serialize};

use crate::each::{Fresh, Kind, kind, messages, on_each};

on_each!(
    a_table_that_is_missing_is_named,
    a_column_that_is_missing_is_named,
    a_text_column_that_is_missing_is_named,
    all_differences_come_at_once,
    a_column_of_another_type_is_named_by_a_read,
    a_column_that_the_code_does_not_know_is_named,
    values_that_do_not_fit_are_named,
    an_unknown_event_type_halts_one_subscription,
    a_broken_payload_halts_one_subscription,
    an_envelope_that_cannot_be_read_halts,
    a_full_pool_is_said_in_time,
    a_store_that_was_not_migrated_says_so,
    a_users_constraint_is_no_conflict,
    a_constraint_is_found_in_the_midst_of_a_batch,
    a_failed_unit_of_work_is_not_used_again,
    a_closed_store_says_so,
    texts_at_the_limits,
);

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

async fn a_table_that_is_missing_is_named<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(StoreOptions::default()).await;
    store.migrate().await.unwrap();
    let named = ["parcel", "store.verify("];
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    let id = Id::new();
    assert_schema(&uow.get::<Parcel>(id).await.unwrap_err(), &named);
    let mut parcels = uow.repository::<Parcel>();
    assert_schema(&parcels.find_open(1).await.unwrap_err(), &named);
    assert_schema(&parcels.query(Query::all()).await.unwrap_err(), &named);
    let all = cqrs_core::Specification::all();
    assert_schema(&parcels.count(all).await.unwrap_err(), &named);
    let error = commit(&store, Parcel::register("a")).await.unwrap_err();
    assert_schema(&error, &named);
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(Parcel::register("a")).unwrap();
    uow.save(Parcel::register("b")).unwrap();
    assert_schema(&uow.commit().await.unwrap_err(), &named);
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_event").await, 0);

    let error = store.verify(&domain::tables()).await.unwrap_err();
    assert_eq!(
        differences(&error),
        [
            "table parcel: expected, found no such table",
            "table parcel_view: expected, found no such table",
        ]
    );
}

fn differences(error: &Error) -> Vec<String> {
    assert_eq!(*kind(error), StoreErrorKind::Schema);
    let source = std::error::Error::source(error).expect("a mismatch is the source");
    let mismatch: &SchemaMismatch = source.downcast_ref().expect("a mismatch is the source");
    for difference in mismatch.differences() {
        assert!(error.to_string().contains(difference), "{error}");
    }
    mismatch.differences().to_vec()
}

async fn a_column_that_is_missing_is_named<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, Parcel::register("a"))
        .await
        .map(drop)
        .unwrap();
    fresh.run("ALTER TABLE parcel DROP COLUMN grams").await;
    let before = fresh.state().await;
    let named = ["grams", "store.verify("];
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    let mut parcels = uow.repository::<Parcel>();
    let error = parcels.query(Query::all()).await.unwrap_err();
    assert_schema(&error, &named);
    let error = commit(&store, Parcel::register("a")).await.unwrap_err();
    assert_schema(&error, &named);
    assert_eq!(fresh.state().await, before);
    let error = store.verify(&domain::tables()).await.unwrap_err();
    let found = differences(&error);
    assert_eq!(found.len(), 1, "{found:?}");
    let (start, end) = (
        "table parcel, column grams: expected ",
        ", found no such column",
    );
    assert!(
        found[0].starts_with(start) && found[0].ends_with(end),
        "{found:?}"
    );
}

/// SQLite takes a name in double quotes that is no column for a text.
async fn a_text_column_that_is_missing_is_named<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let parcel = Parcel::register("a");
    let id = domain::id(&parcel);
    commit(&store, parcel).await.map(drop).unwrap();
    fresh.run("ALTER TABLE parcel DROP COLUMN label").await;
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    let named = ["label", "store.verify("];
    assert_schema(&uow.get::<Parcel>(id).await.unwrap_err(), &named);
    let mut parcels = uow.repository::<Parcel>();
    let is_label = Parcel::fields().label.eq("label");
    assert_schema(&parcels.count(is_label).await.unwrap_err(), &named);
}

async fn all_differences_come_at_once<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    store.verify(&[Chest::table()]).await.unwrap_err();
    fresh
        .run(K::either(
            "CREATE TABLE chest (
                 id uuid PRIMARY KEY, version integer NOT NULL, status integer NOT NULL,
                 size varchar(10), stops json NOT NULL, label text,
                 note text NOT NULL, pieces numeric NOT NULL, extra text NOT NULL,
                 spare text, filled text NOT NULL DEFAULT 'x', counted serial)",
            "CREATE TABLE chest (
                 id blob PRIMARY KEY, version text NOT NULL, status integer NOT NULL,
                 size varchar(10), stops json NOT NULL, label text,
                 note text NOT NULL, pieces real NOT NULL, extra text NOT NULL,
                 spare text, filled text NOT NULL DEFAULT 'x')",
        ))
        .await;
    let error = store
        .verify(&[Chest::table(), Parcel::table()])
        .await
        .unwrap_err();
    let postgres = [
        "table chest, column version: expected bigint, found integer",
        "table chest, column status: expected text, found integer",
        "table chest, column size: expected not null, found nullable",
        "table chest, column stops: expected jsonb, found json",
        "table chest, column label: expected not null, found nullable",
        "table chest, column note: expected nullable, found not null",
        "table chest, column pieces: expected integer, found numeric",
        "table chest, column extra: the code does not write it, and it is not null without a default",
    ];
    let sqlite = [
        "table chest, column version: expected integer, found text",
        "table chest, column status: expected text, found integer",
        "table chest, column size: expected not null, found nullable",
        "table chest, column stops: expected text, found json",
        "table chest, column label: expected not null, found nullable",
        "table chest, column note: expected nullable, found not null",
        "table chest, column pieces: expected integer, found real",
        "table chest, column extra: the code does not write it, and it is not null without a default",
    ];
    let mut found = differences(&error);
    let mut expected = K::either(postgres, sqlite).map(str::to_owned).to_vec();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

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

/// Reads every event, whatever it is.
struct Everything;

impl<T: ProjectionTransaction> Projection<T> for Everything {
    type Event = RawPayload;

    fn name(&self) -> &str {
        "everything"
    }

    async fn apply(&self, _: &[Envelope<RawPayload>], _: &mut T) -> Result<()> {
        Ok(())
    }
}

/// An event at the end of the log, as something else than the framework wrote it.
fn foreign_event<K: Kind>(event_type: &str, version: i64, payload: &str, hash: usize) -> String {
    let (event, aggregate) = (uuid_of(1), uuid_of(2));
    let (aggregate, id) = (aggregate.to_string(), K::uuid(event));
    let hash = K::either(
        format!("'\\x{}'", "00".repeat(hash)),
        format!("x'{}'", "00".repeat(hash)),
    );
    let payload = payload.replace('\'', "''");
    format!(
        "INSERT INTO cqrs_event (event_id, tenant_id, aggregate_type, aggregate_id,
             aggregate_version, event_type, schema_version, payload, content_hash,
             correlation_id, occurred_at)
         VALUES ({id}, 'north', 'parcel', '{aggregate}', {version}, '{event_type}', 1,
                 '{payload}', {hash}, {id}, '2024-02-03T04:05:06.789000Z')"
    )
}

fn uuid_of(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

/// The failure that halted a subscription, by the store and by who waits for it.
async fn halted<K: Kind>(
    store: &SqlStore<K>,
    receipt: &cqrs_core::CommitReceipt,
    name: &str,
) -> SubscriptionFailure {
    let error = store.wait_for(receipt, name).await.unwrap_err();
    let Error::Other(error) = error else {
        panic!("not a subscription's failure: {error:?}");
    };
    let failure: SubscriptionFailure = *error.downcast().expect("a subscription's failure");
    let statuses = store.subscriptions().await.unwrap();
    let status = statuses.iter().find(|status| status.name == name);
    assert_eq!(
        status.map(|status| &status.state),
        Some(&SubscriptionState::Halted(failure.clone()))
    );
    failure
}

/// One event before, the bad one at position 2, one after: the subscription halts at 2 with this
/// error, another goes on, and after the repair each is applied once.
async fn halts_until_repaired<K: Kind>(bad: String, says: &str, repair: &str, at: Option<i64>) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    commit(&store, Parcel::register("first"))
        .await
        .map(drop)
        .unwrap();
    fresh.run(bad).await;
    let last = commit(&store, Parcel::register("last")).await.unwrap();
    assert_eq!(last.position(), Some(Position(3)));
    let delays = [Duration::from_millis(1)];
    let projector = store
        .projector()
        .retry_delays(delays)
        .rows(ParcelViews)
        .projection(Everything);
    let handle = projector.start().await.unwrap();

    let failure = halted(&store, &last, "parcel_view").await;
    assert_eq!(failure.position.map(|position| position.0), at);
    assert_eq!(failure.attempts, 2);
    assert!(failure.error.contains(says), "{}", failure.error);
    let views = "SELECT count(*) FROM parcel_view";
    if at.is_some() {
        store.wait_for(&last, "everything").await.unwrap();
        assert_eq!(fresh.number(views).await, 1, "what comes before is applied");
    } else {
        // Nobody can read it.
        halted(&store, &last, "everything").await;
        assert_eq!(fresh.number(views).await, 0);
    }

    // Resumed too early, it halts again.
    store.resume("parcel_view").await.unwrap();
    assert_eq!(
        halted(&store, &last, "parcel_view").await.position,
        failure.position
    );

    fresh.run(repair).await;
    store.resume("parcel_view").await.unwrap();
    store.wait_for(&last, "parcel_view").await.unwrap();
    if at.is_none() {
        store.resume("everything").await.unwrap();
        store.wait_for(&last, "everything").await.unwrap();
    }
    assert_eq!(fresh.number(views).await, 3);
    let once = "SELECT count(*) FROM parcel_view WHERE events = 1 AND version = 1";
    assert_eq!(fresh.number(once).await, 3);
    for status in store.subscriptions().await.unwrap() {
        assert_eq!(status.state, SubscriptionState::Active);
        assert_eq!((status.position.0, status.lag), (3, 0));
    }
    handle.stop(Duration::from_secs(60)).await;
}

const REPAIR: &str = "UPDATE cqrs_event SET event_type = 'parcel.delivered', payload = '{}',
                             schema_version = 1, aggregate_version = 1 WHERE position = 2";

async fn an_unknown_event_type_halts_one_subscription<K: Kind>() {
    let bad = foreign_event::<K>("parcel.lost", 1, "{}", 32);
    let says = "event at position 2: unknown event type \"parcel.lost\" of aggregate \"parcel\"";
    halts_until_repaired::<K>(bad, says, REPAIR, Some(2)).await;
}

async fn a_broken_payload_halts_one_subscription<K: Kind>() {
    let says = "event at position 2: payload of event type \"parcel.weighed\": ";
    for payload in ["{\"grams\": \"much\"}", "[]", "null"] {
        let bad = foreign_event::<K>("parcel.weighed", 1, payload, 32);
        halts_until_repaired::<K>(bad, says, REPAIR, Some(2)).await;
    }
    if K::either(false, true) {
        // Postgres stores no such thing.
        let bad = foreign_event::<K>("parcel.weighed", 1, "{\"grams\": ", 32);
        halts_until_repaired::<K>(bad, says, REPAIR, Some(2)).await;
    }
    let older = foreign_event::<K>("parcel.weighed", 1, "{\"grams\": 1}", 32)
        .replace("'parcel.weighed', 1,", "'parcel.weighed', 7,");
    let says = "event type \"parcel.weighed\" has schema version 7, the code has 1";
    halts_until_repaired::<K>(older, says, REPAIR, Some(2)).await;
}

async fn an_envelope_that_cannot_be_read_halts<K: Kind>() {
    let bad = foreign_event::<K>("parcel.delivered", -1, "{}", 32);
    halts_until_repaired::<K>(bad, "table cqrs_event: ", REPAIR, None).await;
    let bad = foreign_event::<K>("parcel.delivered", 1, "{}", 31);
    let repair = K::either(
        "UPDATE cqrs_event SET content_hash = content_hash || '\\x00'::bytea WHERE position = 2",
        "UPDATE cqrs_event SET content_hash = zeroblob(32) WHERE position = 2",
    );
    halts_until_repaired::<K>(bad, "table cqrs_event: not a SHA-256", repair, None).await;
}

async fn a_full_pool_is_said_in_time<K: Kind>() {
    let timeout = Duration::from_millis(100);
    let options = StoreOptions::default()
        .max_connections(1)
        .acquire_timeout(timeout);
    let (fresh, other) = Fresh::<K>::with_store().await;
    other.close();
    // A busy machine may need longer to connect; from then on there is a connection.
    let store = loop {
        match K::open(&fresh.url, options.clone()).await {
            Ok(store) => break store,
            Err(error) => assert_eq!(*kind(&error), StoreErrorKind::Unavailable),
        }
    };
    let before = fresh.state().await;
    let mut holder = store.unit_of_work(&stores::tenant("north"));
    holder.connection().await.unwrap();

    for several in [false, true] {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        uow.save(Parcel::register("a")).unwrap();
        if several {
            uow.save(Parcel::register("b")).unwrap();
        }
        let begun = std::time::Instant::now();
        let error = uow.commit().await.unwrap_err();
        assert!(begun.elapsed() >= timeout);
        assert_eq!(*kind(&error), StoreErrorKind::PoolTimedOut);
        assert!(!error.is_retryable() && !error.is_conflict());
        let text = error.to_string();
        let says = "all 1 connections of the store were in use for 100ms";
        assert!(text.starts_with(says), "{text}");
    }
    let context = stores::tenant("north");
    let runs = AtomicU32::new(0);
    let work = store.execute(&context, async |uow| {
        runs.fetch_add(1, Ordering::Relaxed);
        uow.save(Parcel::register("a"))
    });
    assert_eq!(
        *kind(&work.await.unwrap_err()),
        StoreErrorKind::PoolTimedOut
    );
    assert_eq!(runs.into_inner(), 1, "it has waited long enough");
    let mut uow = store.unit_of_work(&context);
    let error = uow.connection().await.map(drop).unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::PoolTimedOut);
    let read = uow.repository::<Parcel>().find_open(1).await;
    assert_eq!(*kind(&read.unwrap_err()), StoreErrorKind::Usage);
    assert_eq!(fresh.state().await, before);

    let _ = holder.commit().await.unwrap();
    commit(&store, Parcel::register("a"))
        .await
        .map(drop)
        .unwrap();
    assert_eq!(fresh.number("SELECT count(*) FROM parcel").await, 1);
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_event").await, 1);
}

#[tokio::test]
async fn a_malformed_url_is_an_error() {
    for url in [
        "",
        "postgres",
        "postgres://:::",
        "postgres://localhost:port/x",
        "sqlite::memory:",
    ] {
        let error = PgStore::connect(url).await.unwrap_err();
        assert_eq!(*kind(&error), StoreErrorKind::Usage, "{url}: {error:?}");
        assert!(error.to_string().contains("URL"), "{url}: {error}");
    }
    for url in [
        "plans.db",
        "postgres://localhost/x",
        "sqlite://plans?mode=what",
    ] {
        let error = SqliteStore::connect(url).await.unwrap_err();
        assert_eq!(*kind(&error), StoreErrorKind::Usage, "{url}: {error:?}");
        assert!(error.to_string().contains("URL"), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_unavailable() {
    // A port that was free a moment ago.
    let port = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.local_addr().unwrap().port()
    };
    let error = PgStore::connect(&format!("postgres://nobody@127.0.0.1:{port}/plans"))
        .await
        .unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::Unavailable);
    assert!(error.is_retryable());
    let error = SqliteStore::connect("sqlite:///no/such/directory/plans.db")
        .await
        .unwrap_err();
    assert_eq!(*kind(&error), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_an_error() {
    let mut options: sqlx::postgres::PgConnectOptions =
        cqrs_integration::database::postgres_url().parse().unwrap();
    options = options.database("cqrs_no_such_database");
    let error = PgStore::connect_with(options, StoreOptions::default())
        .await
        .unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
    assert!(
        error.to_string().contains("cqrs_no_such_database"),
        "{error}"
    );
}

async fn a_store_that_was_not_migrated_says_so<K: Kind>() {
    let fresh = Fresh::<K>::empty().await;
    let store = fresh.open(StoreOptions::default()).await;
    store.create_tables(&domain::tables()).await.unwrap();
    let named = ["store.migrate()"];
    let error = commit(&store, Parcel::register("a")).await.unwrap_err();
    assert_schema(&error, &named);
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(Parcel::register("a")).unwrap();
    uow.save(Parcel::register("b")).unwrap();
    assert_schema(&uow.commit().await.unwrap_err(), &named);
    assert_eq!(fresh.number("SELECT count(*) FROM parcel").await, 0);

    let system = RequestContext::system();
    let log = store.events(&system, Position::START, 1).await;
    assert_schema(&log.unwrap_err(), &named);
    assert_schema(&store.subscriptions().await.unwrap_err(), &named);
    assert_schema(&store.resume("any").await.unwrap_err(), &named);
    let error = store.projector().rows(ParcelViews).start().await;
    assert_schema(&error.unwrap_err(), &named);
    let error = store.projector().rows(ParcelViews).run_until_idle().await;
    assert_schema(&error.unwrap_err(), &named);
    let error = store.verify(&domain::tables()).await.unwrap_err();
    let hint = "expected, found no such table (call `store.migrate()` once before use)";
    assert_eq!(
        differences(&error),
        ["cqrs_event", "cqrs_subscription", "cqrs_receipt"]
            .map(|table| format!("table {table}: {hint}"))
    );

    store.migrate().await.unwrap();
    store.verify(&domain::tables()).await.unwrap();
    commit(&store, Parcel::register("a"))
        .await
        .map(drop)
        .unwrap();
}

/// Adds a CHECK and a UNIQUE of the user's own; the names under which they are violated.
async fn constrain<K: Kind>(fresh: &Fresh<K>) -> (&'static str, &'static str) {
    fresh
        .run(K::either(
            "ALTER TABLE parcel ADD CONSTRAINT not_heavy CHECK (grams < 100)",
            "DROP TABLE parcel",
        ))
        .await;
    if K::either(false, true) {
        let created = SqlStore::<K>::create_table_sql(Parcel::table());
        let check = ",\n CONSTRAINT not_heavy CHECK (grams < 100)\n) STRICT";
        fresh.run(created.replacen("\n) STRICT", check, 1)).await;
    }
    fresh
        .run("CREATE UNIQUE INDEX one_label ON parcel (label)")
        .await;
    ("not_heavy", K::either("one_label", "parcel.label"))
}

#[track_caller]
fn assert_constraint(error: &Error, name: &str) {
    let name = Some(name.to_owned());
    assert_eq!(*kind(error), StoreErrorKind::Constraint { name });
    assert!(!error.is_conflict() && !error.is_retryable());
}

async fn a_users_constraint_is_no_conflict<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let (check, unique) = constrain(&fresh).await;
    commit(&store, Parcel::register("taken"))
        .await
        .map(drop)
        .unwrap();
    let free = Parcel::register("free");
    let id = domain::id(&free);
    commit(&store, free).await.map(drop).unwrap();
    let before = fresh.state().await;

    let mut heavy = Parcel::register("heavy");
    heavy.weigh(100);
    for (parcel, name) in [(heavy, check), (Parcel::register("taken"), unique)] {
        let error = commit(&store, parcel.clone()).await.unwrap_err();
        assert_constraint(&error, name);
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        uow.save(parcel).unwrap();
        assert_constraint(&uow.connection().await.map(drop).unwrap_err(), name);
        assert_eq!(fresh.state().await, before);
    }
    for (change, name) in [
        (
            (|parcel: &mut Parcel| parcel.weigh(100)) as fn(&mut Parcel),
            check,
        ),
        (|parcel| parcel.relabel("taken"), unique),
    ] {
        let context = stores::tenant("north");
        let runs = AtomicU32::new(0);
        let error = store
            .execute(&context, async |uow| {
                runs.fetch_add(1, Ordering::Relaxed);
                let mut parcel = uow.get::<Parcel>(id).await?;
                change(&mut parcel);
                uow.save(parcel)
            })
            .await
            .unwrap_err();
        assert_constraint(&error, name);
        assert_eq!(runs.into_inner(), 1, "it is not tried again");
        assert_eq!(fresh.state().await, before);
    }
}

async fn a_constraint_is_found_in_the_midst_of_a_batch<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let (check, unique) = constrain(&fresh).await;
    commit(&store, Parcel::register("taken"))
        .await
        .map(drop)
        .unwrap();
    let before = fresh.state().await;
    for (at, name) in [(0, check), (5, check), (9, check), (5, unique)] {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        for number in 0..10 {
            let mut parcel = Parcel::register(&number.to_string());
            if number == at && name == check {
                parcel.weigh(100);
            } else if number == at {
                parcel.relabel("taken");
            }
            uow.save(parcel).unwrap();
        }
        assert_constraint(&uow.commit().await.unwrap_err(), name);
        assert_eq!(fresh.state().await, before);
    }
    commit(&store, Parcel::register("next"))
        .await
        .map(drop)
        .unwrap();
}

async fn a_failed_unit_of_work_is_not_used_again<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let (check, _) = constrain(&fresh).await;
    let before = fresh.state().await;
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    uow.save(Parcel::register("first")).unwrap();
    let open = uow.repository::<Parcel>().find_open(5).await.unwrap();
    assert_eq!(open.len(), 1);
    let id = domain::id(&open[0]);
    let mut heavy = Parcel::register("heavy");
    heavy.weigh(100);
    uow.save(heavy).unwrap();
    let error = uow.repository::<Parcel>().find_open(5).await.unwrap_err();
    assert_constraint(&error, check);

    let usage = |error: Error| {
        assert_eq!(*kind(&error), StoreErrorKind::Usage, "{error:?}");
        assert!(!error.is_retryable());
        assert!(error.to_string().contains("begin a new one"), "{error}");
    };
    usage(uow.get::<Parcel>(id).await.unwrap_err());
    usage(uow.repository::<Parcel>().find_open(5).await.unwrap_err());
    usage(uow.connection().await.map(drop).unwrap_err());
    uow.save(Parcel::register("late")).unwrap();
    usage(uow.repository::<Parcel>().find_open(5).await.unwrap_err());
    usage(uow.commit().await.unwrap_err());
    assert_eq!(fresh.state().await, before);
    commit(&store, Parcel::register("next"))
        .await
        .map(drop)
        .unwrap();
}

async fn a_closed_store_says_so<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let before = fresh.state().await;
    let mut open = store.unit_of_work(&stores::tenant("north"));
    open.connection().await.unwrap();
    store.close();
    store.close();
    let usage = |error: Error| {
        assert_eq!(*kind(&error), StoreErrorKind::Usage, "{error:?}");
        assert!(error.to_string().contains("closed"), "{error}");
    };
    usage(commit(&store, Parcel::register("a")).await.unwrap_err());
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    usage(uow.get::<Parcel>(Id::new()).await.unwrap_err());
    usage(store.migrate().await.unwrap_err());
    usage(store.verify(&domain::tables()).await.unwrap_err());
    usage(store.subscriptions().await.unwrap_err());
    assert_eq!(fresh.state().await, before);

    // What is under way is finished.
    open.save(Parcel::register("a")).unwrap();
    assert_eq!(open.commit().await.unwrap().events().len(), 1);
    assert_eq!(fresh.number("SELECT count(*) FROM parcel").await, 1);
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
