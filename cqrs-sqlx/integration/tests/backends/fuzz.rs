//! What comes from outside, at random: cursors, documents, values of conditions and of SQL. There is
//! no panic, and no error but one that says what is refused; and all stores agree.
//!
//! `FUZZ_CASES` says how many cases each test has, 100 if it does not, which are some 8,000
//! statements; `CQRS_SEED` repeats a run that failed.

use std::env;
use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, SubsecRound, TimeZone, Utc};
use cqrs_core::{
    Aggregate, Cursor, DomainEvent, Entity, Error, InMemoryStore, Order, PageRequest, Query,
    Repository, RequestContext, Result, Root, Specification, SqlQueries, Store, StoreErrorKind,
    UnitOfWork, repository,
};
use cqrs_integration::database::TestDatabase;
use cqrs_sqlx::{Backend, PgStore, SqlStore, SqliteStore};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "sample")]
enum SampleEvent {
    Taken,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "sample", event = SampleEvent)]
struct Sample {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<SampleEvent>,
    text: Option<String>,
    number: Option<i64>,
    count: Option<u64>,
    ratio: f64,
    at: Option<DateTime<Utc>>,
    bytes: Option<Vec<u8>>,
    details: Json,
}

impl Sample {
    fn new(id: i64) -> Self {
        let mut root = Root::new();
        root.raise(SampleEvent::Taken);
        Self {
            id,
            root,
            text: None,
            number: None,
            count: None,
            ratio: 0.0,
            at: None,
            bytes: None,
            details: Json::Null,
        }
    }
}

#[repository]
trait Echoes: Repository<Sample> + SqlQueries {
    #[sql(
        "SELECT :text, :number, :count, :ratio, :at, :bytes, :details",
        without_tenant
    )]
    #[expect(clippy::too_many_arguments, reason = "one of each kind")]
    async fn echo(
        &mut self,
        text: &str,
        number: Option<i64>,
        count: u64,
        ratio: f64,
        at: DateTime<Utc>,
        bytes: &[u8],
        details: &Json,
    ) -> Result<Echo>;

    #[sql(
        postgres = "SELECT x FROM unnest(:texts) WITH ORDINALITY AS u(x, n) ORDER BY n",
        sqlite = "SELECT value FROM json_each(:texts) ORDER BY key",
        without_tenant
    )]
    async fn texts(&mut self, texts: &[String]) -> Result<Vec<String>>;
}

type Echo = (String, Option<i64>, u64, f64, DateTime<Utc>, Vec<u8>, Json);

// Input.

/// Text of any kind, with what some part of a stack is known to stumble over.
fn texts() -> impl Strategy<Value = String> {
    let known = [
        "",
        "\0",
        "a\0b",
        "%",
        "_",
        "\\",
        "a\\",
        "'",
        "\"",
        "'; DROP TABLE sample; --",
        "$1",
        ":text",
        "?",
        "\u{fffd}",
        "\u{ffff}",
        "\u{10ffff}",
        "e\u{301}",
        "\u{202e}abc",
        "\\u0000",
        "{\"a\":1}",
    ];
    prop_oneof![
        3 => select(known.to_vec()).prop_map(str::to_owned),
        2 => any::<String>(),
        1 => "[a-c%_\\\\]{0,6}",
    ]
}

fn floats() -> impl Strategy<Value = f64> {
    let known = vec![
        0.0,
        -0.0,
        1.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MIN_POSITIVE,
        5e-324,
        f64::MAX,
        0.1,
    ];
    prop_oneof![select(known), any::<f64>()]
}

fn numbers() -> impl Strategy<Value = i64> {
    prop_oneof![
        select(vec![0, 1, -1, i64::MIN, i64::MAX, 1 << 53]),
        any::<i64>()
    ]
}

fn times() -> impl Strategy<Value = DateTime<Utc>> {
    let range = -80_000_000_000_i64..300_000_000_000;
    let within = (range, 0..1_000_000_000_u32);
    prop_oneof![
        1 => select(vec![DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC]),
        4 => within.prop_filter_map("no time", |(seconds, nanos)| {
            Utc.timestamp_opt(seconds, nanos).single()
        }),
    ]
}

fn documents() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        numbers().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        floats().prop_map(Json::from),
        texts().prop_map(Json::from),
    ];
    let tree = leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec((keys(), inner), 0..4)
                .prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    });
    let deep = (0..200_usize)
        .prop_map(|depth| (0..depth).fold(Json::from(1), |inner, _| Json::from(vec![inner])));
    prop_oneof![9 => tree, 1 => deep]
}

fn keys() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec!["a", "b", "", "a.b", "$", "0"]).prop_map(str::to_owned),
        texts()
    ]
}

/// A change of a text, at a place that is taken modulo its length.
#[derive(Debug, Clone)]
enum Change {
    Replace(usize, char),
    Insert(usize, char),
    Remove(usize),
    Cut(usize),
    Double,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let character = prop_oneof![
        4 => select("0123456789abcdef".chars().collect::<Vec<_>>()),
        1 => any::<char>(),
    ];
    let change = prop_oneof![
        6 => (any::<usize>(), character.clone()).prop_map(|(at, to)| Change::Replace(at, to)),
        1 => (any::<usize>(), character).prop_map(|(at, new)| Change::Insert(at, new)),
        1 => any::<usize>().prop_map(Change::Remove),
        1 => any::<usize>().prop_map(Change::Cut),
        1 => Just(Change::Double),
    ];
    prop::collection::vec(change, 0..3)
}

fn changed(text: &str, changes: &[Change]) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for change in changes {
        let at = |at: usize| at % text.len().max(1);
        match *change {
            Change::Insert(place, new) => text.insert(at(place).min(text.len()), new),
            Change::Double => text.extend(text.clone()),
            _ if text.is_empty() => {}
            Change::Replace(place, to) => {
                let place = at(place);
                text[place] = to;
            }
            Change::Remove(place) => drop(text.remove(at(place))),
            Change::Cut(place) => text.truncate(at(place)),
        }
    }
    text.into_iter().collect()
}

// Stores.

struct Stores {
    runtime: tokio::runtime::Runtime,
    memory: InMemoryStore,
    sqlite: SqliteStore,
    postgres: PgStore,
    _database: TestDatabase,
}

impl Stores {
    fn open() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (sqlite, postgres, database) = runtime.block_on(async {
            let database = TestDatabase::create().await;
            let postgres = PgStore::connect(database.url()).await.unwrap();
            let sqlite = SqliteStore::connect("sqlite::memory:").await.unwrap();
            prepare(&sqlite).await;
            prepare(&postgres).await;
            (sqlite, postgres, database)
        });
        Self {
            runtime,
            memory: InMemoryStore::new(),
            sqlite,
            postgres,
            _database: database,
        }
    }
}

/// Asks all three stores the same.
macro_rules! ask {
    ($stores:expr, $ask:path $(, $argument:expr)*) => {
        $stores.runtime.block_on(async {
            [
                $ask(&$stores.memory $(, $argument)*).await,
                $ask(&$stores.sqlite $(, $argument)*).await,
                $ask(&$stores.postgres $(, $argument)*).await,
            ]
        })
    };
}

async fn prepare<B: Backend>(store: &SqlStore<B>) {
    store.migrate().await.unwrap();
    store.create_tables(&[Sample::table()]).await.unwrap();
}

/// What was refused, or the error that should not be.
fn refusal(error: &Error) -> Result<&'static str, TestCaseError> {
    match error {
        Error::Mapping(_) => Ok("mapping"),
        Error::Store(error) if *error.kind() == StoreErrorKind::Usage => Ok("usage"),
        other => Err(TestCaseError::fail(format!("not a refusal: {other:?}"))),
    }
}

/// What all answered, or that they refused it; they must agree.
fn agreed<T: Debug>(
    answers: [Result<T>; 3],
    same: impl Fn(&T, &T) -> bool,
) -> Result<Option<T>, TestCaseError> {
    let [memory, sqlite, postgres] = answers;
    for (name, other) in [("sqlite", &sqlite), ("postgres", &postgres)] {
        let agree = match (&memory, other) {
            (Ok(memory), Ok(other)) => same(memory, other),
            (Err(memory), Err(other)) => refusal(memory)? == refusal(other)?,
            _ => false,
        };
        if !agree {
            let text = format!("memory: {memory:?}\n{name}: {other:?}");
            return Err(TestCaseError::fail(text));
        }
    }
    Ok(memory.ok())
}

/// Equal, where a number is what it is worth, however it is written.
fn same_json(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Json::Array(one), Json::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same_json(a, b))
        }
        (Json::Object(one), Json::Object(other)) => {
            let same = |key| matches!((one.get(key), other.get(key)), (Some(a), Some(b)) if same_json(a, b));
            one.len() == other.len() && one.keys().all(same)
        }
        (one, other) => one == other,
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={value} is no number")),
    )
}

/// Runs the cases of one test.
fn fuzz<S: Strategy>(input: S, case: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let cases = number("FUZZ_CASES").unwrap_or(100);
    let config = Config {
        cases: u32::try_from(cases).expect("a number of cases"),
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    if let Err(error) = crate::runner(config).run(&input, case) {
        panic!("{error}");
    }
}

// What the stores are asked.

async fn save<S: Store>(store: &S, samples: &[Sample]) -> Result<()> {
    let mut uow = store.unit_of_work(&RequestContext::system());
    for sample in samples {
        uow.save(sample.clone())?;
    }
    uow.commit().await.map(drop)
}

async fn find<S: Store>(store: &S, specification: &Specification<Sample>) -> Result<Vec<i64>> {
    let mut uow = store.unit_of_work(&RequestContext::system());
    let query = Query::filter(specification.clone());
    let found = uow.query::<Sample>(query).await?;
    Ok(found.iter().map(|sample| sample.id).collect())
}

async fn page<S: Store>(
    store: &S,
    query: &Query<Sample>,
    request: &PageRequest,
) -> Result<(Vec<i64>, Option<String>)> {
    let mut uow = store.unit_of_work(&RequestContext::system());
    let mut samples = uow.repository::<Sample>();
    let page = samples.page(query.clone(), request.clone()).await?;
    let ids = page.items.iter().map(|sample| sample.id).collect();
    Ok((ids, page.next.map(|next| next.to_string())))
}

async fn details<S: Store>(store: &S, id: i64) -> Result<Json> {
    let mut uow = store.unit_of_work(&RequestContext::system());
    Ok(uow.get::<Sample>(id).await?.details)
}

/// Samples with values that are often the same or NULL.
fn samples() -> Vec<Sample> {
    (1..=9)
        .map(|id| {
            let mut sample = Sample::new(id);
            sample.text = (id % 3 > 0).then(|| ["a", "é", "a%"][(id % 3) as usize].to_owned());
            sample.number = (id % 4 > 0).then_some(id % 2);
            sample.count = (id % 2 > 0).then_some(7);
            sample.ratio = (id % 3) as f64 - 0.5;
            sample.at = (id % 5 > 0).then(|| Utc.timestamp_opt(id % 2, 0).unwrap());
            sample.bytes = (id % 2 > 0).then(|| vec![id as u8, 0]);
            sample
        })
        .collect()
}

fn orders() -> Vec<Vec<Order<Sample>>> {
    let f = Sample::fields();
    vec![
        vec![],
        vec![f.text.asc()],
        vec![f.number.desc(), f.text.asc()],
        vec![f.ratio.asc(), f.at.desc()],
        vec![f.bytes.desc()],
        vec![f.at.asc(), f.count.asc()],
    ]
}

/// Any text in place of a cursor, and cursors that were changed on their way.
#[test]
fn cursors_are_refused_or_good() {
    let stores = Stores::open();
    for saved in ask!(stores, save, &samples()) {
        saved.unwrap();
    }
    let input = (
        0..orders().len(),
        0..orders().len(),
        1..8_u32,
        changes(),
        prop_oneof![4 => Just(None), 1 => texts().prop_map(Some)],
    );
    fuzz(input, |(order, other, size, changes, text)| {
        let query = |order: usize| {
            let orders = orders().swap_remove(order);
            orders.into_iter().fold(Query::all(), Query::order_by)
        };
        let first = ask!(stores, page, &query(order), &PageRequest::first(size));
        let first = agreed(first, PartialEq::eq)?;
        let (_, next) = first.expect("there is a first page");
        let next = next.expect("there are nine");
        let is_whole = changes.is_empty() && text.is_none() && other == order;
        let text = text.unwrap_or_else(|| changed(&next, &changes));
        let cursor: Cursor = match text.parse() {
            Ok(cursor) => cursor,
            Err(error) => {
                prop_assert!(!is_whole, "{}", error);
                refusal(&error)?;
                return Ok(());
            }
        };
        let request = PageRequest::after(cursor, size);
        let second = ask!(stores, page, &query(other), &request);
        let found = agreed(second, PartialEq::eq)?;
        prop_assert!(found.is_some() || !is_whole);
        Ok(())
    });
}

/// Any document is kept as it is, or refused by all; and so is a look into it.
#[test]
fn documents_come_back_or_are_refused() {
    let stores = Stores::open();
    let next = AtomicI64::new(1);
    let path = prop::collection::vec(
        prop_oneof![
            keys().prop_map(Ok),
            any::<usize>().prop_map(|at| Err(at % 5))
        ],
        0..4,
    );
    let input = (documents(), path, texts(), numbers(), floats());
    fuzz(input, |(document, path, text, integer, float)| {
        let mut sample = Sample::new(next.fetch_add(1, Ordering::Relaxed));
        sample.details = document.clone();
        let id = sample.id;
        let saved = ask!(stores, save, std::slice::from_ref(&sample));
        if agreed(saved, |(), ()| true)?.is_none() {
            return Ok(());
        }
        let read = agreed(ask!(stores, details, id), same_json)?;
        prop_assert!(read.is_some_and(|read| same_json(&read, &document)));
        let f = Sample::fields();
        let place = || {
            let start = f.details.document();
            path.iter().fold(start, |place, step| match step {
                Ok(key) => place.key(key.clone()),
                Err(at) => place.index(*at),
            })
        };
        for condition in [
            place().as_text().eq(text.as_str()),
            place().as_text().contains(text.as_str()),
            place().as_i64().le(integer),
            place().as_f64().gt(float),
            place().as_bool().eq(true),
            place().exists(),
            !place().is_json_null(),
        ] {
            let condition = f.id.eq(id) & condition;
            agreed(ask!(stores, find, &condition), PartialEq::eq)?;
        }
        Ok(())
    });
}

/// Any value in a condition finds the same everywhere, or is refused.
#[test]
fn values_of_conditions_are_bound_or_refused() {
    let stores = Stores::open();
    for saved in ask!(stores, save, &samples()) {
        saved.unwrap();
    }
    let bytes = prop::collection::vec(any::<u8>(), 0..5);
    let lists = (
        prop::collection::vec(texts(), 0..4),
        prop::collection::vec(floats(), 0..4),
    );
    let input = (
        texts(),
        numbers(),
        any::<u64>(),
        floats(),
        times(),
        bytes,
        lists,
    );
    fuzz(input, |(text, number, count, float, time, bytes, lists)| {
        let f = Sample::fields();
        for condition in [
            f.text.ge(text.as_str()),
            f.text.like(text.as_str()),
            f.text.starts_with(text.as_str()),
            f.text.ends_with(text.as_str()),
            !f.text.contains(text.as_str()),
            f.text.in_(lists.0.clone()),
            f.number.lt(number),
            f.number.between(number, i64::MAX),
            f.count.ne(count),
            f.ratio.le(float),
            f.ratio.in_(lists.1.clone()),
            f.at.gt(time),
            f.bytes.ge(bytes.clone()),
        ] {
            agreed(ask!(stores, find, &condition), PartialEq::eq)?;
        }
        Ok(())
    });
}

/// What was sent, with times as they are kept.
fn is_echo(sent: &Echo, back: &Echo) -> bool {
    let (a, b) = (sent, back);
    let plain = (&a.0, a.1, a.2, &a.5) == (&b.0, b.1, b.2, &b.5);
    plain && a.3 == b.3 && a.4.trunc_subsecs(6) == b.4 && same_json(&a.6, &b.6)
}

async fn echo<B: Backend>(store: &SqlStore<B>, sent: &Echo) -> Result<Echo> {
    let (text, number, count, ratio, at, bytes, details) = sent;
    let mut uow = store.unit_of_work(&RequestContext::system());
    let mut echoes = uow.repository::<Sample>();
    echoes
        .echo(text, *number, *count, *ratio, *at, bytes, details)
        .await
}

async fn list<B: Backend>(store: &SqlStore<B>, texts: &[String]) -> Result<Vec<String>> {
    let mut uow = store.unit_of_work(&RequestContext::system());
    uow.repository::<Sample>().texts(texts).await
}

/// Any argument of a finder with SQL comes back, or is refused.
#[test]
fn arguments_of_sql_come_back_or_are_refused() {
    let stores = Stores::open();
    let bytes = prop::collection::vec(any::<u8>(), 0..9);
    let sent = (
        texts(),
        prop::option::of(numbers()),
        prop_oneof![numbers().prop_map(i64::unsigned_abs), any::<u64>()],
        floats(),
        times(),
        bytes,
        documents(),
    );
    fuzz(
        (sent, prop::collection::vec(texts(), 0..5)),
        |(sent, texts)| {
            stores.runtime.block_on(async {
                let echoes = [
                    echo(&stores.sqlite, &sent).await,
                    echo(&stores.postgres, &sent).await,
                ];
                for back in &echoes {
                    match back {
                        Ok(back) => prop_assert!(is_echo(&sent, back), "{:?}", back),
                        Err(error) => prop_assert_eq!(refusal(error)?, "mapping"),
                    }
                }
                prop_assert_eq!(echoes[0].is_ok(), echoes[1].is_ok());
                let lists = [
                    list(&stores.sqlite, &texts).await,
                    list(&stores.postgres, &texts).await,
                ];
                for back in &lists {
                    match back {
                        Ok(back) => prop_assert_eq!(back, &texts),
                        Err(error) => prop_assert_eq!(refusal(error)?, "mapping"),
                    }
                }
                prop_assert_eq!(lists[0].is_ok(), lists[1].is_ok());
                Ok(())
            })
        },
    );
}
