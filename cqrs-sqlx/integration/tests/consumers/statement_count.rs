//! What a command costs, counted on the wire.

use cqrs_core::conformance::fixtures::{AccountForm, Ledger, Stop, Ticket, Tour};
use cqrs_core::{
    Entity, Envelope, Error, FailurePolicy, Owned, PageRequest, Projection, ProjectionTransaction,
    Query, RawPayload, Repository, Result, Store, Subscription, UnitOfWork,
};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::domain::{self, Parcel, ParcelViews, Parcels};
use cqrs_integration::stores;
use cqrs_integration::wire::WireProxy;
use cqrs_sqlx::{PgStore, ProjectorBuilder, StoreOptions};
use sqlx::postgres::PgConnectOptions;

use crate::projector::support::Applied;

/// A store behind a counting proxy, with warm connections and statements.
async fn counted() -> (TestDatabase, WireProxy, PgStore) {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let proxy = WireProxy::start(database.url()).await;
    let store = stores::postgres_with(proxy.url(), StoreOptions::default()).await;
    (database, proxy, store)
}

#[tokio::test]
async fn a_create_is_one_statement() {
    let (_database, proxy, store) = counted().await;
    let context = stores::tenant("north");
    for warm in [false, true] {
        let before = proxy.counts();
        let receipt = store
            .execute(&context, async |uow| uow.save(Parcel::register("a")))
            .await
            .unwrap();
        assert_eq!(receipt.events().len(), 1);
        let cost = proxy.counts().since(&before);
        let sent = proxy.statements_since(&before);
        assert_eq!(cost.statements, 1, "{sent:#?}");
        if warm {
            assert_eq!(cost.round_trips, 1, "no ping, no preparing: {sent:#?}");
        }
    }
}

#[tokio::test]
async fn load_change_save_is_two_statements() {
    let (_database, proxy, store) = counted().await;
    let context = stores::tenant("north");
    let parcel = Parcel::register("a");
    let id = domain::id(&parcel);
    store
        .execute(&context, async |uow| uow.save(parcel.clone()))
        .await
        .unwrap();
    for warm in [false, true] {
        let before = proxy.counts();
        store
            .execute(&context, async |uow| {
                let mut parcel = uow.get::<Parcel>(id).await?;
                parcel.weigh(5);
                uow.save(parcel)
            })
            .await
            .unwrap();
        let cost = proxy.counts().since(&before);
        let sent = proxy.statements_since(&before);
        assert_eq!(cost.statements, 2, "{sent:#?}");
        if warm {
            assert_eq!(cost.round_trips, 2, "{sent:#?}");
        }
    }
}

#[tokio::test]
async fn a_command_on_a_stream_is_two_statements() {
    let (_database, proxy, store) = counted().await;
    let context = stores::tenant("north");
    let mut ledger = Ledger::unopened("a");
    ledger.open("ann");
    let before = proxy.counts();
    store
        .execute(&context, async |uow| uow.save(ledger.clone()))
        .await
        .unwrap();
    let mut sent = proxy.statements_since(&before);
    // Once for each type and process.
    sent.retain(|sql| !sql.contains("INTO cqrs_sourced_type"));
    assert_eq!(sent.len(), 1, "{sent:#?}");
    // Two events are one statement too; then there is a snapshot to load.
    for (round, events) in [1, 1, 2, 1].into_iter().enumerate() {
        store.snapshots_written().await;
        let before = proxy.counts();
        let change = store.execute(&context, async |uow| {
            let mut ledger = uow.get::<Ledger>("a".to_owned()).await?;
            (0..events).for_each(|_| ledger.transfer(1));
            uow.save(ledger)
        });
        let receipt = change.await.unwrap();
        assert_eq!(receipt.events().len(), events);
        store.snapshots_written().await;
        let sent = proxy.statements_since(&before);
        // A snapshot is loaded and written by its own task.
        let is_due = sent.iter().any(|sql| sql.contains("INTO cqrs_snapshot"));
        let expected = if is_due { 4 } else { 2 };
        assert_eq!(sent.len(), expected, "round {round}: {sent:#?}");
    }
}

#[tokio::test]
async fn a_decision_over_two_costs_the_transaction_and_the_guard() {
    let (_database, proxy, store) = counted().await;
    let context = stores::tenant("north");
    let row = Parcel::register("a");
    let id = domain::id(&row);
    for number in ["a", "b"] {
        let mut stream = Ledger::unopened(number);
        stream.open("ann");
        let mut uow = store.unit_of_work(&context);
        uow.save(stream).unwrap();
        let _ = uow.commit().await.unwrap();
    }
    let mut uow = store.unit_of_work(&context);
    uow.save(row).unwrap();
    let _ = uow.commit().await.unwrap();

    let mut uow = store.unit_of_work(&context);
    let row: Parcel = uow.get(id).await.unwrap();
    let read: Ledger = uow.get("a".to_owned()).await.unwrap();
    let cost = async |uow: cqrs_sqlx::PgUnitOfWork| {
        // What follows the commit before is not of this one.
        store.snapshots_written().await;
        let before = proxy.counts();
        let _ = uow.commit().await.unwrap();
        let mut sent = proxy.statements_since(&before);
        // Not those of a connection that was opened meanwhile, nor of snapshots that follow commits.
        sent.retain(|sql| {
            !["pg_stat_activity", "cqrs_snapshot"]
                .iter()
                .any(|of| sql.contains(of))
        });
        (sent.len(), sent)
    };
    let written = async || {
        let mut uow = store.unit_of_work(&context);
        let mut written: Ledger = uow.get("b".to_owned()).await.unwrap();
        written.transfer(1);
        uow.save(written).unwrap();
        uow
    };
    let (alone, sent) = cost(written().await).await;
    assert_eq!(alone, 1, "{sent:#?}");
    let mut uow = written().await;
    uow.guard(&row).unwrap();
    let (of_row, sent) = cost(uow).await;
    assert_eq!(
        of_row, 5,
        "BEGIN, guard, version, events, COMMIT: {sent:#?}"
    );
    let mut uow = written().await;
    uow.guard(&read).unwrap();
    let (of_stream, sent) = cost(uow).await;
    assert_eq!(
        of_stream, 5,
        "BEGIN, lock, versions, events, COMMIT: {sent:#?}"
    );
    // A row that is written under a guard is still one statement with its events.
    let mut uow = store.unit_of_work(&context);
    let mut parcel: Parcel = uow.get(id).await.unwrap();
    parcel.weigh(1);
    uow.save(parcel).unwrap();
    uow.guard(&read).unwrap();
    let (of_both, sent) = cost(uow).await;
    assert_eq!(of_both, 5, "BEGIN, row, lock, versions, COMMIT: {sent:#?}");
}

#[tokio::test]
async fn a_command_with_several_events_is_one_statement() {
    let (_database, proxy, store) = counted().await;
    let context = stores::tenant("north");
    let mut parcel = Parcel::register("a");
    parcel.weigh(5);
    parcel.deliver();
    let before = proxy.counts();
    let receipt = store
        .execute(&context, async |uow| uow.save(parcel.clone()))
        .await
        .unwrap();
    assert_eq!(receipt.events().len(), 3);
    let sent = proxy.statements_since(&before);
    assert_eq!(proxy.counts().since(&before).statements, 1, "{sent:#?}");
}

#[tokio::test]
async fn a_hundred_aggregates_are_at_most_five_statements() {
    let (_database, proxy, store) = counted().await;
    let context = stores::tenant("north");
    let before = proxy.counts();
    let receipt = store
        .execute(&context, async |uow| {
            for number in 0..100 {
                uow.save(Parcel::register(&number.to_string()))?;
            }
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(receipt.events().len(), 100);
    let sent = proxy.statements_since(&before);
    let cost = proxy.counts().since(&before).statements;
    assert!(cost <= 5, "{cost}: {sent:#?}");

    let before = proxy.counts();
    let receipt = store
        .execute(&context, async |uow| {
            for mut parcel in uow.repository::<Parcel>().find_open(100).await? {
                parcel.weigh(1);
                uow.save(parcel)?;
            }
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(receipt.events().len(), 100);
    let sent = proxy.statements_since(&before);
    let cost = proxy.counts().since(&before).statements;
    assert!(
        cost <= 5,
        "one to find, at most five to save: {cost}: {sent:#?}"
    );
}

#[tokio::test]
async fn a_unit_of_work_without_changes_sends_nothing() {
    let (_database, proxy, store) = counted().await;
    let before = proxy.counts();
    let receipt = store
        .execute(&stores::tenant("north"), async |_| Ok(7))
        .await
        .unwrap();
    assert_eq!(receipt.into_output(), 7);
    assert_eq!(proxy.counts().since(&before).statements, 0);
}

#[tokio::test]
async fn asking_whether_there_is_any_is_one_statement() {
    let (_database, proxy, store) = counted().await;
    let mut uow = store.unit_of_work(&stores::tenant("north"));
    let before = proxy.counts();
    assert!(!uow.repository::<Parcel>().exists_open().await.unwrap());
    let sent = proxy.statements_since(&before);
    assert_eq!(proxy.counts().since(&before).statements, 1, "{sent:#?}");
}

#[tokio::test]
async fn a_lock_costs_the_transaction_that_it_lasts_in() {
    let (_database, proxy, store) = counted().await;
    let context = stores::tenant("north");
    store
        .execute(&context, async |uow| uow.save(Parcel::register("a")))
        .await
        .unwrap();
    let before = proxy.counts();
    let mut uow = store.unit_of_work(&context);
    let mut parcel = uow
        .repository::<Parcel>()
        .lock_open()
        .await
        .unwrap()
        .unwrap();
    let sent = proxy.statements_since(&before);
    let cost = proxy.counts().since(&before).statements;
    assert_eq!(cost, 2, "BEGIN and SELECT: {sent:#?}");
    parcel.weigh(1);
    uow.save(parcel).unwrap();
    let _ = uow.commit().await.unwrap();
    let sent = proxy.statements_since(&before);
    let cost = proxy.counts().since(&before).statements;
    assert_eq!(cost, 4, "and the write, and COMMIT: {sent:#?}");

    let before = proxy.counts();
    let mut uow = store.unit_of_work(&context);
    assert!(
        uow.repository::<Parcel>()
            .take_open()
            .await
            .unwrap()
            .is_some()
    );
    let _ = uow.commit().await.unwrap();
    let sent = proxy.statements_since(&before);
    let cost = proxy.counts().since(&before).statements;
    assert_eq!(cost, 3, "nothing was written: {sent:#?}");
}

async fn counted_tours() -> (TestDatabase, WireProxy, PgStore) {
    let (database, proxy, store) = counted().await;
    store.create_tables(&[Tour::table()]).await.unwrap();
    (database, proxy, store)
}

fn tour(number: usize) -> Tour {
    let mut tour = Tour::plan(&number.to_string(), &["Graz", "Linz"]);
    tour.tickets = vec![Ticket::new("1"), Ticket::new("2")];
    tour
}

#[tokio::test]
async fn aggregates_come_with_their_children_in_one_statement() {
    let (_database, proxy, store) = counted_tours().await;
    let context = stores::tenant("north");
    let id = tour(0).id;
    store
        .execute(&context, async |uow| {
            uow.save(Tour { id, ..tour(0) })?;
            (1..60).try_for_each(|number| uow.save(tour(number)))
        })
        .await
        .unwrap();
    let mut uow = store.unit_of_work(&context);
    let is_whole = |tour: &Tour| tour.cities() == ["Graz", "Linz"] && tour.tickets.len() == 2;

    let before = proxy.counts();
    let request = PageRequest::first(50).with_total();
    let mut tours = uow.repository::<Tour>();
    let page = tours.page(Query::all(), request).await.unwrap();
    assert_eq!((page.items.len(), page.total), (50, Some(60)));
    assert!(page.items.iter().all(is_whole));
    let sent = proxy.statements_since(&before);
    assert_eq!(proxy.counts().since(&before).statements, 1, "{sent:#?}");

    let before = proxy.counts();
    let found = uow.query::<Tour>(Query::all()).await.unwrap();
    assert!(found.len() == 60 && found.iter().all(is_whole));
    assert!(is_whole(&uow.get::<Tour>(id).await.unwrap()));
    let sent = proxy.statements_since(&before);
    assert_eq!(proxy.counts().since(&before).statements, 2, "{sent:#?}");
}

#[tokio::test]
async fn a_commit_that_changes_no_child_is_one_statement() {
    let (_database, proxy, store) = counted_tours().await;
    let context = stores::tenant("north");
    let id = tour(0).id;
    store
        .execute(&context, async |uow| uow.save(Tour { id, ..tour(0) }))
        .await
        .unwrap();
    let before = proxy.counts();
    store
        .execute(&context, async |uow| {
            let mut tour: Tour = uow.get(id).await?;
            tour.name = "another".to_owned();
            uow.save(tour)
        })
        .await
        .unwrap();
    let sent = proxy.statements_since(&before);
    assert_eq!(proxy.counts().since(&before).statements, 2, "{sent:#?}");
}

#[tokio::test]
async fn children_cost_a_statement_for_each_table_and_kind_of_change() {
    let (_database, proxy, store) = counted_tours().await;
    let context = stores::tenant("north");
    let before = proxy.counts();
    store
        .execute(&context, async |uow| {
            (0..50).try_for_each(|number| uow.save(tour(number)))
        })
        .await
        .unwrap();
    let sent = proxy.statements_since(&before);
    let cost = proxy.counts().since(&before).statements;
    assert_eq!(
        cost, 6,
        "begin, tours, stops, tickets, events, commit: {sent:#?}"
    );

    let before = proxy.counts();
    store
        .execute(&context, async |uow| {
            for mut tour in uow.query::<Tour>(Query::all()).await? {
                tour.stops[0].minutes = Some(1);
                tour.stops.push(Stop::at("Wels"));
                tour.tickets[0] = Ticket::new("3");
                uow.save(tour)?;
            }
            Ok(())
        })
        .await
        .unwrap();
    let sent = proxy.statements_since(&before);
    let cost = proxy.counts().since(&before).statements;
    assert_eq!(
        cost, 9,
        "find, begin, tours, two for stops, two for tickets, events, commit: {sent:#?}"
    );
}

/// Writes a row per event, a page with one statement.
struct Upserts {
    rows_alone: bool,
    /// The event that it cannot apply.
    refused: Option<i64>,
}

impl Upserts {
    fn new(rows_alone: bool) -> Self {
        Self {
            rows_alone,
            refused: None,
        }
    }
}

impl<T: ProjectionTransaction> Projection<T> for Upserts {
    type Event = RawPayload;

    fn name(&self) -> &str {
        "upserts"
    }

    fn writes_rows_alone(&self) -> bool {
        self.rows_alone
    }

    fn is_splittable(&self) -> bool {
        true
    }

    async fn apply(&self, page: &[Envelope<RawPayload>], transaction: &mut T) -> Result<()> {
        let mut positions = page.iter().map(|event| event.position().0);
        if positions.any(|position| Some(position) == self.refused) {
            return Err(Error::other("refused"));
        }
        let rows: Vec<_> = page
            .iter()
            .map(|event| Owned {
                tenant: None,
                row: Applied {
                    subscription: "upserts".to_owned(),
                    position: event.position().0,
                    times: 1,
                },
            })
            .collect();
        transaction.upsert(&rows).await
    }
}

/// What five more full pages cost in a drain.
async fn five_pages(
    proxy: &WireProxy,
    store: &PgStore,
    projector: ProjectorBuilder<cqrs_sqlx::Postgres>,
) -> usize {
    let projector = projector.page_size(10);
    let drain = async |pages: u64| {
        for number in 0..pages * 10 {
            let mut uow = store.unit_of_work(&stores::tenant("north"));
            uow.save(Parcel::register(&number.to_string())).unwrap();
            let _ = uow.commit().await.unwrap();
        }
        let before = proxy.counts();
        assert_eq!(projector.run_until_idle().await.unwrap(), pages * 10);
        let cost = proxy.counts().since(&before);
        (cost, proxy.statements_since(&before))
    };
    drain(5).await;
    let (five, _) = drain(5).await;
    let (ten, sent) = drain(10).await;
    println!("{sent:#?}");
    ten.statements - five.statements
}

#[tokio::test]
async fn a_page_is_three_statements_at_most() {
    let (_database, proxy, store) = counted().await;
    let store = crate::projector::support::with_tables(store).await;
    for (rows_alone, each) in [(false, 3), (true, 2)] {
        let upserts = store.projector().projection(Upserts::new(rows_alone));
        let cost = five_pages(&proxy, &store, upserts).await;
        assert_eq!(cost, 5 * each, "rows alone: {rows_alone}");
    }
    let rows = store.projector().rows(ParcelViews);
    rows.run_until_idle().await.unwrap();
    let rows = store.projector().rows(ParcelViews);
    assert_eq!(five_pages(&proxy, &store, rows).await, 15);
}

/// Of two segments as of one.
#[tokio::test]
async fn a_page_of_several_segments_is_three_statements_at_most() {
    /// Registering, looks at what there is to do, and pages that were not full.
    const BESIDE: usize = 15;
    let (_database, proxy, store) = counted().await;
    let store = crate::projector::support::with_tables(store).await;
    for number in 0..600 {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        uow.save(Parcel::register(&number.to_string())).unwrap();
        let _ = uow.commit().await.unwrap();
    }
    let upserts = Subscription::new(Upserts::new(true));
    let rows = Subscription::named("rows").rows(ParcelViews);
    for (subscription, each) in [(upserts, 2), (rows, 3)] {
        let projector = store.projector().page_size(10);
        let projector = projector.subscribe(subscription.segments(2));
        let before = proxy.counts();
        assert_eq!(projector.run_until_idle().await.unwrap(), 600);
        let cost = proxy.counts().since(&before).statements;
        let sent = proxy.statements_since(&before);
        let is_page = |sql: &&String| step(sql) == "write and move";
        let pages = sent.iter().filter(is_page).count();
        assert!((60..=62).contains(&pages), "{pages}: {sent:#?}");
        assert!(cost <= pages * each + BESIDE, "{cost} for {pages} pages");
        assert!(!sent.iter().any(|sql| step(sql) == "rollback"), "{sent:#?}");
    }
}

#[tokio::test]
async fn several_handlers_share_a_claim_and_a_commit() {
    let (_database, proxy, store) = counted().await;
    let store = crate::projector::support::with_tables(store).await;
    let both = Subscription::named("both")
        .rows(ParcelViews)
        .projection(Upserts::new(true));
    let cost = five_pages(&proxy, &store, store.projector().subscribe(both)).await;
    assert_eq!(cost, 5 * 5, "claim, load, write, write, commit");
}

/// What a statement of a projector is for.
fn step(sql: &str) -> &'static str {
    let steps = [
        ("BEGIN", "begin"),
        ("WITH claimed", "claim"),
        ("WITH moved", "write and move"),
        ("INSERT INTO \"applied\"", "write"),
        ("SAVEPOINT", "commit and begin"),
        ("COMMIT", "commit"),
        ("ROLLBACK", "rollback"),
        ("SELECT subscription, segment", "look"),
        ("INSERT INTO cqrs_dead_letter", "put aside"),
        ("UPDATE cqrs_segment", "move"),
    ];
    let found = steps.iter().find(|(begin, _)| sql.starts_with(begin));
    found.map_or("?", |(_, step)| step)
}

/// One event of sixteen fails: it is found in five tries, and put aside.
#[tokio::test]
async fn a_page_that_fails_costs_a_transaction_for_each_part() {
    const LOCKED: &str = "begin, claim, rollback, \
        begin, claim, write, commit and begin, claim, rollback, \
        begin, claim, write, commit and begin, claim, rollback, \
        begin, look, put aside, move, commit, \
        begin, claim, write, commit, \
        begin, claim, rollback, look";
    const ALONE: &str = "claim, \
        begin, claim, write, commit and begin, claim, rollback, \
        begin, claim, write, commit and begin, claim, rollback, \
        begin, look, put aside, move, commit, \
        claim, write and move, \
        claim, look";
    let (_database, proxy, store) = counted().await;
    let store = crate::projector::support::with_tables(store).await;
    for number in 0..16 {
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        uow.save(Parcel::register(&number.to_string())).unwrap();
        let _ = uow.commit().await.unwrap();
    }
    for (rows_alone, expected) in [(false, LOCKED), (true, ALONE)] {
        let upserts = Upserts {
            rows_alone,
            refused: Some(11),
        };
        let upserts = Subscription::named(format!("rows alone: {rows_alone}"))
            .projection(upserts)
            .on_failure(FailurePolicy::Skip);
        let projector = store.projector().subscribe(upserts).page_size(20);
        let before = proxy.counts();
        let applied = projector.retry_delays([]).run_until_idle().await;
        assert_eq!(applied.unwrap(), 15);
        let sent = proxy.statements_since(&before);
        let is_horizon = |sql: &&String| sql.contains("FROM cqrs_event_position");
        let begun = sent.iter().skip_while(|sql| !is_horizon(sql));
        let steps = begun.filter(|sql| !is_horizon(sql)).map(|sql| step(sql));
        assert_eq!(steps.collect::<Vec<_>>().join(", "), expected);
    }
}

/// Without a pooler, whatever else the connection is told.
#[tokio::test]
async fn a_connection_of_our_own_is_known_by_what_it_began_with() {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let proxy = WireProxy::start(database.url()).await;
    let options: PgConnectOptions = proxy.url().parse().unwrap();
    for options in [options.clone(), options.application_name("orders")] {
        let store = StoreOptions::default().notifications(false);
        let store = PgStore::connect_with(options, store).await.unwrap();
        let before = proxy.counts();
        let mut uow = store.unit_of_work(&stores::tenant("north"));
        uow.save(Parcel::register("parcel")).unwrap();
        let _ = uow.commit().await.unwrap();
        let sent = proxy.statements_since(&before);
        assert_eq!(sent.len(), 1, "{sent:#?}");
    }
}
