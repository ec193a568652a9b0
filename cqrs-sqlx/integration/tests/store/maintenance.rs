//! Bulk work beside other writers, on large sets, and what the databases refuse.

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::staging::ChangeMarker;
use cqrs_core::{
    Error, Maintain, Query, RequestContext, RetryPolicy, Specification, Store, StoreErrorKind,
    UnitOfWork,
};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::domain::{self, Parcel, ParcelId, ParcelViews};
use cqrs_integration::stores;
use cqrs_sqlx::{Postgres, SqlStore, StoreOptions};
use sqlx::{Connection, PgConnection};
use tokio::sync::Barrier;

use crate::concurrency::{assert_dense, with_ids};
use cqrs_integration::each::{Fresh, Kind, kind, on_each, poll_up_to};

on_each!(
    bulk_updates_and_saves_lose_nothing,
    a_large_insert_is_the_same_as_saves,
    a_large_insert_is_whole_or_not_at_all,
    an_export_survives_its_consumer,
    what_is_dropped_is_all_or_nothing,
);

const PARCELS: usize = 6;
const SAVERS: usize = 4;
const SAVES: usize = 25;
const UPDATERS: usize = 2;
const UPDATES: usize = 15;

fn patient() -> StoreOptions {
    StoreOptions::default().retry_policy(RetryPolicy {
        attempts: 100_000,
        first_delay: Duration::from_micros(200),
        max_delay: Duration::from_millis(5),
    })
}

fn north() -> RequestContext {
    stores::tenant("north")
}

async fn all<K: Kind>(store: &SqlStore<K>) -> Vec<Parcel> {
    let parcels = store.maintenance::<Parcel>(&RequestContext::system());
    parcels.query(Query::all()).await.unwrap()
}

async fn save_many<K: Kind>(store: SqlStore<K>, ids: Vec<ParcelId>, saver: usize) {
    for step in 0..SAVES {
        let id = ids[(saver + step) % ids.len()];
        let context = north();
        let saved = store.execute(&context, async |uow| {
            let mut parcel = uow.get::<Parcel>(id).await?;
            parcel.weigh(1);
            uow.save(parcel)
        });
        assert_eq!(saved.await.unwrap().events().len(), 1);
    }
}

/// How many rows it changed.
async fn update_many<K: Kind>(store: SqlStore<K>, updater: usize) -> usize {
    let label = Parcel::fields().label;
    let mut changed = 0;
    for step in 0..UPDATES {
        let parcels = store.maintenance::<Parcel>(&north()).batch_size(4);
        let set = label.set(format!("{updater}/{step}"));
        let done = parcels.update(Specification::all(), [set]).await.unwrap();
        changed += done.items();
    }
    changed
}

/// Every save and every bulk change counts, once: in the rows, in the versions, in the log.
async fn bulk_updates_and_saves_lose_nothing<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with(patient()).await;
    with_ids(&fresh).await;
    let new: Vec<Parcel> = (0..PARCELS).map(|_| Parcel::register("new")).collect();
    let ids: Vec<ParcelId> = new.iter().map(domain::id).collect();
    store
        .maintenance::<Parcel>(&north())
        .insert(new)
        .await
        .unwrap();

    let barrier = Arc::new(Barrier::new(SAVERS + UPDATERS));
    let savers: Vec<_> = (0..SAVERS)
        .map(|saver| {
            let (store, ids, barrier) = (store.clone(), ids.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                save_many(store, ids, saver).await;
            })
        })
        .collect();
    let updaters: Vec<_> = (0..UPDATERS)
        .map(|updater| {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                update_many(store, updater).await
            })
        })
        .collect();
    for saver in savers {
        saver.await.unwrap();
    }
    let mut changed = 0;
    for updater in updaters {
        changed += updater.await.unwrap();
    }

    let parcels = all(&store).await;
    let weight: i64 = parcels.iter().map(Parcel::grams).sum();
    assert_eq!(weight, i64::try_from(SAVERS * SAVES).unwrap());
    assert!(changed >= PARCELS, "{changed} rows");
    let events = PARCELS + SAVERS * SAVES + changed;
    let count = |of: &str| format!("SELECT count(*) FROM cqrs_event WHERE {of}");
    assert_eq!(
        fresh.number(count("true")).await,
        i64::try_from(events).unwrap()
    );
    let marker = ChangeMarker::Changed.event_type();
    let marked = fresh
        .number(count(&format!("event_type = '{marker}'")))
        .await;
    assert_eq!(marked, i64::try_from(changed).unwrap());
    assert_dense(&fresh).await;
    let last = format!("/{}", UPDATES - 1);
    assert!(parcels.iter().all(|parcel| parcel.label().ends_with(&last)));
}

/// More than fits into one piece, with several events each; projections follow.
async fn a_large_insert_is_the_same_as_saves<K: Kind>() {
    let many = K::either(12_000, 1_200);
    let batch = many * 5 / 12;
    let (fresh, store) = Fresh::<K>::with_store().await;
    with_ids(&fresh).await;
    let projector = store.projector().rows(ParcelViews).start().await.unwrap();
    let long = "long ".repeat(200);
    let new = (0..many).map(|index| {
        let mut parcel = Parcel::register(&long);
        if index % 3 == 0 {
            parcel.weigh(5);
        }
        parcel
    });
    let parcels = store.maintenance::<Parcel>(&north());
    let done = parcels.insert(new).await.unwrap();
    assert_eq!((done.items(), done.commits()), (many, 1));
    let events = i64::try_from(many + many / 3).unwrap();
    assert_eq!(
        fresh.number("SELECT count(*) FROM cqrs_event").await,
        events
    );
    let last = fresh.number("SELECT max(position) FROM cqrs_event").await;
    assert_eq!(done.receipt().position().unwrap().0, last);
    assert_dense(&fresh).await;
    store
        .wait_for(&done.receipt(), "parcel_view")
        .await
        .unwrap();
    let seen = fresh.number("SELECT sum(events) FROM parcel_view").await;
    assert_eq!(seen, events);
    let _ = projector.stop(Duration::from_secs(5)).await;

    // Millions would be the same: no batch holds more than it says.
    let grams = Parcel::fields().grams;
    let done = parcels.update(grams.eq(5), [grams.set(6)]).await.unwrap();
    assert_eq!((done.items(), done.commits()), (many / 3, 1));
    let all = Specification::all;
    let tenants = store
        .maintenance::<Parcel>(&north())
        .batch_size(u32::try_from(batch).unwrap());
    let done = tenants.remove(all()).await.unwrap();
    assert_eq!((done.items(), done.commits()), (many, 3));
    let done = tenants.include_deleted().purge(all()).await.unwrap();
    assert_eq!((done.items(), done.commits()), (many, 3));
    let events = events + i64::try_from(many / 3 + 2 * many).unwrap();
    assert_eq!(
        fresh.number("SELECT count(*) FROM cqrs_event").await,
        events
    );
    assert_eq!(fresh.number("SELECT count(*) FROM parcel").await, 0);
}

/// Wherever in an insert of several batches there is one that cannot be inserted, it is named and
/// nothing of the others is left.
async fn a_large_insert_is_whole_or_not_at_all<K: Kind>() {
    let many = K::either(20_000, 1_200);
    let (fresh, store) = Fresh::<K>::with_store().await;
    with_ids(&fresh).await;
    let long = "long ".repeat(200);
    let parcels = store.maintenance::<Parcel>(&north());
    let stored = Parcel::register("stored");
    let id = domain::id(&stored);
    parcels.insert([stored]).await.unwrap();
    let before = fresh.state().await;
    for place in [0, 1, many / 3, many / 2, many - 1] {
        let mut new: Vec<Parcel> = (1..many).map(|_| Parcel::register(&long)).collect();
        new.insert(place, all(&store).await.remove(0));
        let error = parcels.insert(new).await.unwrap_err();
        assert_eq!(*kind(&error), StoreErrorKind::Usage, "{place}");
        assert!(error.to_string().contains(&id.to_string()), "{error}");
        assert_eq!(fresh.state().await, before, "{place}");
    }
    let new = (0..many).map(|_| Parcel::register(&long));
    let done = parcels.insert(new).await.unwrap();
    assert_eq!(done.items(), many);
    assert_dense(&fresh).await;
}

/// The consumer of an export may write what it reads, in units of work of its own.
async fn an_export_survives_its_consumer<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let new: Vec<Parcel> = (0..40).map(|_| Parcel::register("a")).collect();
    let parcels = store.maintenance::<Parcel>(&north());
    parcels.insert(new).await.unwrap();
    let mut export = parcels.export(Query::all());
    let mut read = 0;
    while let Some(mut parcel) = export.next().await.unwrap() {
        parcel.weigh(2);
        let mut uow = store.unit_of_work(&north());
        uow.save(parcel).unwrap();
        let _ = uow.commit().await.unwrap();
        read += 1;
    }
    assert_eq!(read, 40);
    assert!(all(&store).await.iter().all(|parcel| parcel.grams() == 2));
}

/// Wherever the future of a bulk insert or update is dropped, batches are whole, and the next store
/// works on.
async fn what_is_dropped_is_all_or_nothing<K: Kind>() {
    const ROWS: usize = 60;
    let (fresh, store) = Fresh::<K>::with_store().await;
    with_ids(&fresh).await;
    store.close();
    let fields = Parcel::fields();
    let mut limit = 0;
    loop {
        let name = format!("round {limit}");
        let store = fresh.open(StoreOptions::default()).await;
        let parcels = store.maintenance::<Parcel>(&north());
        let new = (0..ROWS).map(|_| Parcel::register(&name));
        let inserted = poll_up_to(limit, parcels.insert(new)).await;
        store.close();
        K::deserted(&fresh.url).await;

        let store = fresh.open(StoreOptions::default()).await;
        let parcels = store.maintenance::<Parcel>(&north());
        let of_round = || fields.label.eq(name.as_str());
        let rows = parcels.count(of_round()).await.unwrap();
        assert!(rows == 0 || rows == ROWS as u64, "{rows} rows inserted");
        let update = parcels.update(of_round(), [fields.grams.set(1)]);
        let updated = poll_up_to(limit, update).await;
        store.close();
        K::deserted(&fresh.url).await;

        let store = fresh.open(StoreOptions::default()).await;
        let parcels = store.maintenance::<Parcel>(&north());
        let changed = parcels
            .count(of_round() & fields.grams.eq(1))
            .await
            .unwrap();
        assert!(
            changed == 0 || changed == rows,
            "{changed} of {rows} rows changed"
        );
        store.close();
        if let (Some(inserted), Some(updated)) = (inserted, updated) {
            assert_eq!(inserted.unwrap().items(), ROWS);
            assert_eq!(updated.unwrap().items(), ROWS);
            assert_dense(&fresh).await;
            return;
        }
        // SQLite waits for each of its statements.
        limit += if limit < 20 { 1 } else { 17 };
    }
}

/// What a constraint of the application's own refuses is no conflict, and leaves nothing.
#[tokio::test]
async fn a_constraint_refuses_a_copy() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    fresh
        .run("ALTER TABLE parcel ADD CONSTRAINT short CHECK (length(label) < 5)")
        .await;
    let parcels = store.maintenance::<Parcel>(&north());
    let error = parcels
        .insert(["a", "too long"].map(Parcel::register))
        .await;
    let name = Some("short".to_owned());
    assert_eq!(
        *kind(&error.unwrap_err()),
        StoreErrorKind::Constraint { name }
    );
    let label = Parcel::fields().label;
    parcels.insert([Parcel::register("a")]).await.unwrap();
    let error = parcels.update(label.eq("a"), [label.set("too long")]).await;
    let error = Error::from(error.unwrap_err());
    let name = Some("short".to_owned());
    assert_eq!(*kind(&error), StoreErrorKind::Constraint { name });
    assert_eq!(fresh.number("SELECT count(*) FROM cqrs_event").await, 1);
}

/// What cannot be encoded comes after something that the server has refused already: the first error
/// of the two is no matter, but each later statement gets its own answer.
#[tokio::test]
async fn a_refused_copy_leaves_no_answer_behind() {
    let options = StoreOptions::default().max_connections(1);
    let (fresh, store) = Fresh::<Postgres>::with(options).await;
    let parcels = store.maintenance::<Parcel>(&north());
    let stored = Parcel::register("stored");
    let id = domain::id(&stored);
    parcels.insert([stored]).await.unwrap();
    let context = north();
    let weigh = async || {
        let weighed = store.execute(&context, async |uow| {
            let mut parcel = uow.get::<Parcel>(id).await?;
            parcel.weigh(1);
            uow.save(parcel)
        });
        let _ = weighed.await.unwrap();
    };
    weigh().await;
    for _ in 0..3 {
        let before = fresh.state().await;
        let twice = Parcel::register("twice");
        let mut new = vec![twice.clone(), twice];
        new.extend((0..20_000).map(|_| Parcel::register("new")));
        new.push(all(&store).await.remove(0));
        let _ = parcels.insert(new).await.unwrap_err();
        assert_eq!(fresh.state().await, before);
        weigh().await;
    }
    let weighed = all(&store).await;
    let grams: Vec<i64> = weighed.iter().map(Parcel::grams).collect();
    assert_eq!(grams, [4]);
}

/// The error of a later batch names what it was about, also where a row and where an event is taken.
#[tokio::test]
async fn a_taken_id_of_a_later_batch_is_named() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    let parcels = store.maintenance::<Parcel>(&north());
    let (kept, purged) = (Parcel::register("kept"), Parcel::register("purged"));
    parcels
        .insert([kept.clone(), purged.clone()])
        .await
        .unwrap();
    let label = Parcel::fields().label;
    parcels.purge(label.eq("purged")).await.unwrap();
    let before = fresh.state().await;
    let long = "long ".repeat(200);
    for taken in [kept, purged] {
        let mut new: Vec<Parcel> = (0..14_000).map(|_| Parcel::register(&long)).collect();
        let id = domain::id(&taken);
        new.push(taken);
        let error = parcels.insert(new).await.unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
        assert!(error.to_string().contains(&id.to_string()), "{error}");
        assert_eq!(fresh.state().await, before);
    }
}

/// A row that a trigger keeps from changing has no event.
#[tokio::test]
async fn a_trigger_that_keeps_a_row_fails_the_batch() {
    let (fresh, store) = Fresh::<Postgres>::with_store().await;
    let parcels = store.maintenance::<Parcel>(&north());
    parcels
        .insert(["a", "b"].map(Parcel::register))
        .await
        .unwrap();
    fresh
        .run(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF OLD.label = 'b' THEN RETURN NULL; END IF; RETURN NEW; END $$;
             CREATE TRIGGER keep BEFORE UPDATE ON parcel FOR EACH ROW EXECUTE FUNCTION keep()",
        )
        .await;
    let before = fresh.state().await;
    let set = [Parcel::fields().grams.set(5)];
    let error = parcels.update(Specification::all(), set).await.unwrap_err();
    assert_eq!(*kind(error.cause()), StoreErrorKind::Database);
    assert_eq!(fresh.state().await, before);
}

/// The server refuses COPY where policies apply to the role: rows go in from arrays.
#[tokio::test]
async fn a_bulk_insert_passes_row_level_security() {
    let database = TestDatabase::create().await;
    let owner = stores::postgres(database.url()).await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let name: String = sqlx::query_scalar("SELECT 'app_' || current_database()")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let prepare = format!(
        "CREATE ROLE \"{name}\" LOGIN PASSWORD 'app';
         GRANT ALL ON ALL TABLES IN SCHEMA public TO \"{name}\";
         GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO \"{name}\";
         ALTER TABLE parcel ENABLE ROW LEVEL SECURITY;
         CREATE POLICY all_of_them ON parcel USING (label <> 'hidden')"
    );
    let run = async |connection: &mut PgConnection, sql: String| {
        let sql = sqlx::AssertSqlSafe(sql);
        sqlx::raw_sql(sql).execute(connection).await.unwrap();
    };
    run(&mut connection, prepare).await;
    let options: sqlx::postgres::PgConnectOptions = database.url().parse().unwrap();
    let options = options.username(&name).password("app");
    let store = cqrs_sqlx::PgStore::connect_with(options, StoreOptions::default())
        .await
        .unwrap();
    let parcels = store.maintenance::<Parcel>(&north());
    let new: Vec<Parcel> = (0..1_500).map(|_| Parcel::register("seen")).collect();
    let done = parcels.insert(new).await.unwrap();
    assert_eq!((done.items(), done.commits()), (1_500, 1));
    let events = owner
        .events(&RequestContext::system(), cqrs_core::Position::START, 2_000)
        .await
        .unwrap();
    assert_eq!(events.len(), 1_500);
    assert_eq!(
        done.receipt().position(),
        events.last().map(cqrs_core::Envelope::position)
    );
    let refused = parcels.insert([Parcel::register("hidden")]).await;
    assert_eq!(*kind(&refused.unwrap_err()), StoreErrorKind::Database);
    store.close();
    run(
        &mut connection,
        format!("DROP OWNED BY \"{name}\"; DROP ROLE \"{name}\""),
    )
    .await;
}
