//! Consumers of several aggregates in a database: under load, with replicas, rebuilt, in segments.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_core::conformance::fixtures::{
    Account, AccountEvent, AccountForm, BankEvent, Bookkeeping, Dunning, Ledger, LedgerEvent,
    Statement, Statements,
};
use cqrs_core::{
    ConsistencyCheck, Entity, Envelope, EventHistory, Position, Projection, Query, ReadModels,
    Repository, RequestContext, Result, RowProjection, Rows, Store, StoreErrorKind, Subscription,
    UnitOfWork,
};
use cqrs_integration::each::{Fresh, Kind, kind, on_each};
use cqrs_integration::random::{Random, seed};
use cqrs_integration::stores;
use cqrs_sqlx::{Backend, SqlStore, StoreOptions, SwitchOver};
use tokio::task::JoinSet;

use crate::projector::support::{failure, operations};

on_each!(
    rows_of_several_aggregates_under_load,
    pages_hold_what_is_read_alone,
    what_is_of_one_row_is_in_one_segment,
    a_row_for_each_aggregate_may_be_in_any_segment,
    a_process_over_several_aggregates_under_load,
);

/// How many accounts there are, and what each writer does.
const ACCOUNTS: u64 = 5;
const WRITERS: u64 = 4;
const COMMITS: u64 = 40;

fn north() -> RequestContext {
    stores::tenant("north")
}

async fn with_tables<K: Kind>(options: StoreOptions) -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with(options).await;
    let tables = [Account::table(), Statement::table()];
    store.create_tables(&tables).await.unwrap();
    (fresh, store)
}

async fn open<B: Backend>(store: &SqlStore<B>) {
    let mut uow = store.unit_of_work(&north());
    for number in 0..ACCOUNTS {
        let number = number.to_string();
        let mut account = Account::unopened(&number);
        account.open("ann");
        uow.save(account).unwrap();
        let mut ledger = Ledger::unopened(&Dunning::ledger(&number));
        ledger.open("ann");
        uow.save(ledger).unwrap();
    }
    let _ = uow.commit().await.unwrap();
}

/// Changes an account, its ledger, or both in either order, many times.
async fn write<B: Backend>(store: SqlStore<B>, seed: u64) {
    let mut random = Random::new(seed);
    for cents in 1..=i64::try_from(COMMITS).unwrap() {
        let number = random.below(ACCOUNTS).to_string();
        let ledger = Dunning::ledger(&number);
        let which = random.below(4);
        let context = north();
        let done = store.execute(&context, async |uow| {
            let mut changed = (None, None);
            if which != 0 {
                let mut account: Account = uow.get(number.clone()).await?;
                account.transfer(cents);
                changed.0 = Some(account);
            }
            if which != 1 {
                let mut ledger: Ledger = uow.get(ledger.clone()).await?;
                ledger.transfer(cents);
                ledger.transfer(-1);
                changed.1 = Some(ledger);
            }
            if which == 2 {
                changed
                    .0
                    .take()
                    .map_or(Ok(()), |account| uow.save(account))?;
            }
            changed.1.map_or(Ok(()), |ledger| uow.save(ledger))?;
            changed.0.map_or(Ok(()), |account| uow.save(account))
        });
        done.await.unwrap();
    }
}

/// The fold of the log: the trail of each account, with what was moved and booked.
async fn expected<B: Backend>(store: &SqlStore<B>) -> BTreeMap<String, (String, i64, i64)> {
    let system = RequestContext::system();
    let log = store.events(&system, Position::START, u32::MAX).await;
    let mut rows: BTreeMap<String, (String, i64, i64)> = BTreeMap::new();
    for event in log.unwrap() {
        let (kind, number) = match event.aggregate_type() {
            "account" => ('a', event.aggregate_id_str()),
            "ledger" => ('l', event.aggregate_id_str().strip_prefix("of ").unwrap()),
            _ => continue,
        };
        let row = rows.entry(number.to_owned()).or_default();
        row.0
            .push_str(&format!("{kind}{} ", event.aggregate_version()));
        let payload: serde_json::Value = serde_json::from_str(event.payload().as_str()).unwrap();
        let cents = payload["cents"].as_i64().unwrap_or(0);
        match kind {
            'a' => row.1 += cents,
            _ => row.2 += cents,
        }
    }
    rows
}

async fn found<B: Backend>(store: &SqlStore<B>) -> BTreeMap<String, (String, i64, i64)> {
    let rows = store.read_models(&RequestContext::system());
    let rows = rows.query::<Statement>(Query::all()).await.unwrap();
    rows.into_iter()
        .map(|row| (row.account, (row.trail, row.moved, row.booked)))
        .collect()
}

/// [`Statements`] in a later version.
struct Later;

impl RowProjection for Later {
    type Event = BankEvent;
    type Row = Statement;

    const NAME: &'static str = Statements::NAME;
    const VERSION: u32 = 2;

    fn key(&self, event: &Envelope<BankEvent>) -> Result<Option<String>> {
        Statements.key(event)
    }

    fn apply(&self, row: &mut Option<Statement>, event: &Envelope<BankEvent>) -> Result<()> {
        Statements.apply(row, event)
    }
}

/// Writers and replicas are at work, also while the rows are built anew: rows are the fold of the log,
/// in the order of the log.
async fn rows_of_several_aggregates_under_load<K: Kind>() {
    let seed = seed();
    let options = || StoreOptions::default().notifications(false);
    let (fresh, store) = with_tables::<K>(options()).await;
    open(&store).await;
    let replicas = [store.clone(), fresh.open(options()).await];
    let mut running = Vec::new();
    for (store, page_size) in replicas.iter().zip([3, 50]) {
        let projector = || {
            let projector = store.projector().page_size(page_size);
            projector.poll_interval(Duration::from_millis(2))
        };
        running.push(projector().rows(Statements).start().await.unwrap());
        running.push(projector().rows(Later).start().await.unwrap());
    }
    let mut writers = JoinSet::new();
    for (number, store) in (0..WRITERS).zip(replicas.iter().cycle()) {
        writers.spawn(write(store.clone(), seed.wrapping_add(number)));
    }
    let later = Subscription::new(Rows(Later));
    let begun = operations(&store)
        .rebuild(&later, SwitchOver::WhenReady)
        .await;
    let begun = begun.unwrap();
    let mut watch = store.watch_progress(&begun).every(Duration::from_millis(5));
    while let Ok(Some(_)) = watch.next().await {}
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    store
        .projector()
        .rows(Later)
        .run_until_idle()
        .await
        .unwrap();
    for handle in running {
        handle.stop(Duration::from_secs(30)).await;
    }
    let expected = expected(&store).await;
    assert_eq!(expected.len() as u64, ACCOUNTS);
    assert_eq!(found(&store).await, expected);
    assert_eq!(store.subscriptions().await.unwrap()[0].version, 2);
    let context = RequestContext::system();
    for rows_at_once in [1, 1_000] {
        let rows = NonZeroUsize::new(rows_at_once).unwrap();
        let check = ConsistencyCheck::of(&Later).rows_at_once(rows);
        let report = check.run(&store, &context).await.unwrap();
        assert!(report.is_consistent(), "{report}");
        assert_eq!(report.rows, ACCOUNTS);
    }
    let live = store.live(&context).rows(&Statements).await.unwrap();
    assert_eq!(live.len() as u64, ACCOUNTS);
    for row in live {
        let row = (row.account, (row.trail, row.moved, row.booked));
        assert_eq!(expected.get(&row.0), Some(&row.1));
    }
}

/// Remembers its pages: the aggregate types of the events of each.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<Vec<Vec<String>>>>);

impl<T: Send> Projection<T> for Pages {
    type Event = BankEvent;

    fn name(&self) -> &str {
        "pages"
    }

    fn event_types(&self) -> Option<&'static [&'static str]> {
        Some(&["account.moved", "ledger.moved"])
    }

    async fn apply(&self, page: &[Envelope<BankEvent>], _: &mut T) -> Result<()> {
        let types = page.iter().map(|event| event.aggregate_type().to_owned());
        self.0.lock().unwrap().push(types.collect());
        Ok(())
    }
}

/// The database selects the events of both types: what is not read takes no room in a page.
async fn pages_hold_what_is_read_alone<K: Kind>() {
    let (_fresh, store) = with_tables::<K>(StoreOptions::default()).await;
    open(&store).await;
    for cents in 1..=4 {
        store
            .execute(&north(), async |uow| {
                let parcel = cqrs_integration::domain::Parcel::register("in between");
                uow.save(parcel)?;
                let mut account: Account = uow.get("0".to_owned()).await?;
                account.transfer(cents);
                uow.save(account)?;
                let mut ledger: Ledger = uow.get(Dunning::ledger("0")).await?;
                ledger.transfer(cents);
                uow.save(ledger)
            })
            .await
            .unwrap();
    }
    let pages = Pages::default();
    let projector = store
        .projector()
        .subscribe(Subscription::new(pages.clone()));
    projector.page_size(4).run_until_idle().await.unwrap();
    let pages = pages.0.lock().unwrap();
    let page = ["account", "ledger", "account", "ledger"].map(str::to_owned);
    assert_eq!(*pages, [page.to_vec(), page.to_vec()]);
}

/// [`Statements`], which says of itself what is wrong: that each row is of one aggregate.
struct Mistaken;

impl RowProjection for Mistaken {
    type Event = BankEvent;
    type Row = Statement;

    const NAME: &'static str = Statements::NAME;
    const ROW_PER_AGGREGATE: bool = true;

    fn key(&self, event: &Envelope<BankEvent>) -> Result<Option<String>> {
        Statements.key(event)
    }

    fn apply(&self, row: &mut Option<Statement>, event: &Envelope<BankEvent>) -> Result<()> {
        Statements.apply(row, event)
    }
}

/// A row of several aggregates allows no segments, since those are by aggregate; one that says
/// otherwise fails at the first page that has two of a row.
async fn what_is_of_one_row_is_in_one_segment<K: Kind>() {
    let (_fresh, store) = with_tables::<K>(StoreOptions::default()).await;
    open(&store).await;
    let split = Subscription::new(Rows(Statements)).segments(2);
    let refused = store.projector().subscribe(split).run_until_idle().await;
    assert_eq!(*kind(&refused.unwrap_err()), StoreErrorKind::Usage);
    let projector = store.projector().rows(Mistaken);
    let error = projector.run_until_idle().await.unwrap_err();
    let wrong = "has a row for account 0 and ledger of 0";
    assert!(failure(&error).error.contains(wrong), "{error}");
    assert!(found(&store).await.is_empty());
}

/// A row for each account and each ledger.
struct Single;

impl RowProjection for Single {
    type Event = BankEvent;
    type Row = Statement;

    const NAME: &'static str = "single";
    const ROW_PER_AGGREGATE: bool = true;

    fn key(&self, event: &Envelope<BankEvent>) -> Result<Option<String>> {
        Ok(Some(event.aggregate_id_str().to_owned()))
    }

    fn apply(&self, row: &mut Option<Statement>, event: &Envelope<BankEvent>) -> Result<()> {
        let own = row.get_or_insert_with(|| Statement {
            account: event.aggregate_id_str().to_owned(),
            trail: String::new(),
            moved: 0,
            booked: 0,
        });
        own.trail
            .push_str(&format!("{} ", event.aggregate_version()));
        match event.payload() {
            BankEvent::Account(AccountEvent::Moved { cents }) => own.moved += cents,
            BankEvent::Ledger(LedgerEvent::Moved { cents }) => own.booked += cents,
            BankEvent::Account(AccountEvent::Opened { .. } | AccountEvent::Closed)
            | BankEvent::Ledger(LedgerEvent::Opened { .. } | LedgerEvent::Closed) => {}
        }
        Ok(())
    }
}

/// With a row for each aggregate, of whichever type, segments share the work.
async fn a_row_for_each_aggregate_may_be_in_any_segment<K: Kind>() {
    let seed = seed();
    let (_fresh, store) = with_tables::<K>(StoreOptions::default()).await;
    open(&store).await;
    write(store.clone(), seed).await;
    let split = || Subscription::new(Rows(Single)).segments(3);
    let projector = || store.projector().subscribe(split()).page_size(7);
    let (one, other) = (projector(), projector());
    let (one, other) = tokio::join!(one.run_until_idle(), other.run_until_idle());
    one.unwrap();
    other.unwrap();
    projector().run_until_idle().await.unwrap();
    let rows = store.read_models(&RequestContext::system());
    let rows = rows.query::<Statement>(Query::all()).await.unwrap();
    assert_eq!(rows.len() as u64, 2 * ACCOUNTS);
    let expected = expected(&store).await;
    for row in rows {
        let (kind, number) = match row.account.strip_prefix("of ") {
            Some(number) => ('l', number),
            None => ('a', row.account.as_str()),
        };
        let (trail, moved, booked) = &expected[number];
        let own = trail.split(' ').filter_map(|step| step.strip_prefix(kind));
        let own: String = own.map(|version| format!("{version} ")).collect();
        assert_eq!(row.trail, own);
        let sum = if kind == 'a' { moved } else { booked };
        assert_eq!(row.moved + row.booked, *sum);
    }
}

/// Writers, and two replicas of a manager whose commands lead to events that it reads: each movement is
/// booked once and in order, and what it has seen is the log.
async fn a_process_over_several_aggregates_under_load<K: Kind>() {
    let (fresh, store) = with_tables::<K>(StoreOptions::default()).await;
    let replicas = [store.clone(), fresh.open(StoreOptions::default()).await];
    let mut running = Vec::new();
    for (store, page_size) in replicas.iter().zip([2, 50]) {
        let projector = store.projector().process(Bookkeeping).page_size(page_size);
        let projector = projector.poll_interval(Duration::from_millis(2));
        running.push(projector.start().await.unwrap());
    }
    let mut writers = JoinSet::new();
    for number in 0..ACCOUNTS {
        let store = store.clone();
        writers.spawn(async move {
            for cents in 0..=6_i64 {
                let context = north();
                let done = store.execute(&context, async |uow| {
                    let number = number.to_string();
                    let mut accounts = uow.repository::<Account>();
                    let found = accounts.find(number.clone()).await?;
                    let mut account = found.unwrap_or_else(|| {
                        let mut account = Account::unopened(&number);
                        account.open("ann");
                        account
                    });
                    if cents == 6 {
                        account.close();
                    } else {
                        account.transfer(100 + cents);
                    }
                    uow.save(account)
                });
                done.await.unwrap();
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    let projector = store.projector().process(Bookkeeping);
    projector.run_until_idle().await.unwrap();
    let closed = "SELECT count(*) FROM cqrs_event WHERE event_type = 'ledger.closed'";
    while fresh.number(closed).await < i64::try_from(ACCOUNTS).unwrap() {
        tokio::task::yield_now().await;
    }
    for handle in running {
        handle.stop(Duration::from_secs(30)).await;
    }
    let expected = expected(&store).await;
    for number in 0..ACCOUNTS {
        let number = number.to_string();
        let mut uow = store.unit_of_work(&north());
        let mut ledgers = uow.repository::<Ledger>();
        let events = ledgers.events(Dunning::ledger(&number)).await.unwrap();
        let booked: Vec<_> = events
            .iter()
            .filter_map(|event| event.payload().clone())
            .collect();
        let moved = (100..=105).map(|cents| LedgerEvent::Moved { cents });
        let all: Vec<_> = moved.chain([LedgerEvent::Closed]).collect();
        assert_eq!(booked, all);
        let instance = store.process::<Bookkeeping>(&north(), &number).await;
        let state = instance.unwrap().unwrap().state;
        // The ledger is closed behind the end.
        let seen = expected[&number].0.strip_suffix("l7 ");
        assert_eq!(Some(state.trail.as_str()), seen);
    }
}
