//! Random conditions over random rows mean the same in memory, in SQLite and in Postgres.
//!
//! `DIFFERENTIAL_CASES` says how many conditions, 2,000 if it does not; `DIFFERENTIAL_SEED`
//! repeats a run that failed.

use std::env;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use chrono::{DateTime, Days, NaiveDate, TimeDelta, TimeZone, Utc};
use cqrs_core::mapping::Value;
use cqrs_core::{
    Aggregate, Child, DomainEvent, Entity, Error, Field, JsonPath, Order, Query, Repository,
    RequestContext, Root, Specification, Store, UnitOfWork, ValueObject,
};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::stores::tenant;
use cqrs_sqlx::{PgStore, SqliteStore};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use uuid::Uuid;

/// How many conditions are asked of one set of rows, at most.
const BATCH: usize = 50;

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "specimen")]
enum SpecimenEvent {
    Made,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
enum Kind {
    Stone,
    Leaf,
    #[value_object(name = "other % kind")]
    Other,
}

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Name(String);

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Spot {
    x: f64,
    label: Option<String>,
    #[mapper(flatten)]
    grid: Grid,
}

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Grid {
    row: i16,
}

/// A column of every type that may be NULL.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "specimen", event = SpecimenEvent, tenant)]
struct Specimen {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<SpecimenEvent>,
    flag: Option<bool>,
    small: Option<i16>,
    medium: Option<i32>,
    large: Option<i64>,
    count: Option<u64>,
    single: Option<f32>,
    double: Option<f64>,
    text: Option<String>,
    name: Option<Name>,
    bytes: Option<Vec<u8>>,
    reference: Option<Uuid>,
    at: Option<DateTime<Utc>>,
    day: Option<NaiveDate>,
    kind: Option<Kind>,
    #[mapper(flatten)]
    spot: Option<Spot>,
    document: Option<Json>,
    #[mapper(json)]
    tags: Option<Vec<String>>,
    #[mapper(children(table = "specimen_part", order = "seq"))]
    parts: Vec<Part>,
}

/// A child with columns of the types that the databases keep in different ways.
#[derive(Debug, Clone, Child)]
struct Part {
    flag: Option<bool>,
    large: Option<i64>,
    single: Option<f32>,
    double: Option<f64>,
    text: Option<String>,
    bytes: Option<Vec<u8>>,
    reference: Option<Uuid>,
    at: Option<DateTime<Utc>>,
    day: Option<NaiveDate>,
    #[mapper(flatten)]
    spot: Option<Spot>,
}

// Values. Most are from a short list, so that rows and conditions meet.

fn mostly<T: Clone + Debug + 'static>(
    listed: Vec<T>,
    any: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    prop_oneof![4 => select(listed), 1 => any].boxed()
}

const TEXTS: [&str; 30] = [
    "",
    "a",
    "A",
    "b",
    "ab",
    "aB",
    "a b",
    "é",
    "e\u{301}",
    "ß",
    "😀",
    "😀b",
    "a%",
    "a_b",
    "\\",
    "a\\b",
    "*",
    "a*",
    "?",
    "[a]",
    "[",
    "'",
    "\"",
    "\u{1}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{fffd}",
    "\u{ffff}",
    "\u{10ffff}",
    "z\u{10ffff}",
];

fn texts() -> BoxedStrategy<String> {
    let any = "[^\0]{0,4}".prop_map(String::from);
    mostly(TEXTS.map(str::to_owned).to_vec(), any)
}

fn patterns() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        2 => Just("%".to_owned()),
        2 => Just("_".to_owned()),
        1 => select(vec!["\\%", "\\_", "\\\\", "\\a", "\\"]).prop_map(str::to_owned),
        4 => texts(),
    ];
    prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

fn floats() -> BoxedStrategy<f64> {
    mostly(
        vec![
            0.0,
            -0.0,
            1.0,
            -1.5,
            0.1,
            1e16,
            -1e16,
            1e-80,
            9e-81,
            1.2345678901234567e-80,
            9007199254740991.0,
            9007199254740992.0,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            5e-324,
            -5e-324,
            1e-310,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ],
        any::<f64>().prop_filter("not stored", |float| !float.is_nan()),
    )
}

fn singles() -> BoxedStrategy<f32> {
    mostly(
        vec![
            0.0,
            -0.0,
            0.1,
            -1.5,
            f32::MAX,
            f32::MIN_POSITIVE,
            1e-45,
            f32::INFINITY,
        ],
        any::<f32>().prop_filter("not stored", |float| !float.is_nan()),
    )
}

fn larges() -> BoxedStrategy<i64> {
    let edge = 1 << 53;
    mostly(
        vec![
            i64::MIN,
            i64::MAX,
            -1,
            0,
            1,
            2,
            edge - 1,
            edge,
            edge + 1,
            -edge,
            10_i64.pow(18),
        ],
        any::<i64>(),
    )
}

fn times() -> BoxedStrategy<DateTime<Utc>> {
    let first = Utc.with_ymd_and_hms(0, 1, 1, 0, 0, 0).unwrap();
    let end = Utc.with_ymd_and_hms(9999, 12, 31, 23, 59, 59).unwrap();
    let epoch = DateTime::UNIX_EPOCH;
    mostly(
        vec![
            first,
            first + TimeDelta::microseconds(1),
            end + TimeDelta::microseconds(999_999),
            end + TimeDelta::nanoseconds(999_999_999),
            epoch,
            epoch - TimeDelta::nanoseconds(1),
            epoch + TimeDelta::microseconds(1),
        ],
        (0..=(end - first).num_seconds())
            .prop_map(move |seconds| first + TimeDelta::seconds(seconds)),
    )
}

fn days() -> BoxedStrategy<NaiveDate> {
    let first = NaiveDate::from_ymd_opt(0, 1, 1).unwrap();
    let listed = [0, 1, 719_468, 3_652_424].map(|days| first + Days::new(days));
    mostly(
        listed.to_vec(),
        (0_u64..3_652_425).prop_map(move |days| first + Days::new(days)),
    )
}

fn byte_strings() -> BoxedStrategy<Vec<u8>> {
    mostly(
        vec![vec![], vec![0], vec![0, 0], vec![255], b"a".to_vec()],
        prop::collection::vec(any::<u8>(), 0..4),
    )
}

fn uuids() -> BoxedStrategy<Uuid> {
    mostly(
        vec![
            Uuid::nil(),
            Uuid::max(),
            Uuid::from_u128(1),
            Uuid::from_u128(1 << 127),
        ],
        any::<u128>().prop_map(Uuid::from_u128),
    )
}

fn kinds() -> BoxedStrategy<Kind> {
    select(vec![Kind::Stone, Kind::Leaf, Kind::Other]).boxed()
}

fn smalls() -> BoxedStrategy<i16> {
    mostly(vec![i16::MIN, -1, 0, 1, i16::MAX], any::<i16>())
}

fn mediums() -> BoxedStrategy<i32> {
    mostly(vec![i32::MIN, -1, 0, 1, i32::MAX], any::<i32>())
}

fn counts() -> BoxedStrategy<u64> {
    mostly(
        vec![0, 1, i64::MAX.cast_unsigned()],
        0..=i64::MAX.cast_unsigned(),
    )
}

const KEYS: [&str; 16] = [
    "a", "b", "", "0", "-1", "\"", "\\", "a.b", "[0]", "$", "#", "'", "\n", "é", "😀", "a b",
];

fn documents() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        larges().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        floats().prop_map(Json::from),
        texts().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            prop::collection::vec((select(KEYS.to_vec()), inner), 0..3).prop_map(|entries| {
                let entries = entries.into_iter();
                entries
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()
            }),
        ]
    })
}

fn maybe<T: Clone + Debug + 'static>(values: BoxedStrategy<T>) -> BoxedStrategy<Option<T>> {
    prop_oneof![1 => Just(None), 3 => values.prop_map(Some)].boxed()
}

fn spots() -> BoxedStrategy<Spot> {
    let spot = (floats(), maybe(texts()), smalls()).prop_map(|(x, label, row)| Spot {
        x,
        label,
        grid: Grid { row },
    });
    spot.boxed()
}

fn parts() -> impl Strategy<Value = Part> {
    let numbers = (
        maybe(any::<bool>().boxed()),
        maybe(larges()),
        maybe(singles()),
        maybe(floats()),
    );
    let others = (
        maybe(texts()),
        maybe(byte_strings()),
        maybe(uuids()),
        maybe(times()),
        maybe(days()),
        maybe(spots()),
    );
    (numbers, others).prop_map(|((flag, large, single, double), others)| {
        let (text, bytes, reference, at, day, spot) = others;
        Part {
            flag,
            large,
            single,
            double,
            text,
            bytes,
            reference,
            at,
            day,
            spot,
        }
    })
}

fn specimens() -> impl Strategy<Value = Specimen> {
    let numbers = (
        maybe(any::<bool>().boxed()),
        maybe(smalls()),
        maybe(mediums()),
        maybe(larges()),
        maybe(counts()),
        maybe(singles()),
        maybe(floats()),
    );
    let texts_and_bytes = (
        maybe(texts()),
        maybe(texts().prop_map(Name).boxed()),
        maybe(byte_strings()),
        maybe(uuids()),
        maybe(times()),
        maybe(days()),
        maybe(kinds()),
    );
    let others = (
        maybe(spots()),
        maybe(documents().boxed()),
        maybe(prop::collection::vec(texts(), 0..3).boxed()),
        prop::collection::vec(parts(), 0..4),
    );
    (numbers, texts_and_bytes, others).prop_map(|(numbers, texts_and_bytes, others)| {
        let (flag, small, medium, large, count, single, double) = numbers;
        let (text, name, bytes, reference, at, day, kind) = texts_and_bytes;
        let (spot, document, tags, parts) = others;
        Specimen {
            id: 0,
            root: Root::new(),
            flag,
            small,
            medium,
            large,
            count,
            single,
            double,
            text,
            name,
            bytes,
            reference,
            at,
            day,
            kind,
            spot,
            document,
            tags,
            parts,
        }
    })
}

// Conditions.

type Condition = Specification<Specimen>;

/// Each comparison of a field with values.
fn compared<T, V, P>(
    field: Field<T, V, P>,
    values: BoxedStrategy<V>,
) -> BoxedStrategy<Specification<T>>
where
    T: 'static,
    V: Clone + Debug + 'static,
    P: cqrs_core::Place + Debug + 'static,
{
    let list = prop::collection::vec(values.clone(), 0..4);
    (0..10_u8, values.clone(), values, list)
        .prop_map(move |(which, value, other, list)| {
            let field = field.clone();
            match which {
                0 => field.eq(value),
                1 => field.ne(value),
                2 => field.lt(value),
                3 => field.le(value),
                4 => field.gt(value),
                5 => field.ge(value),
                6 => field.between(value, other),
                7 => field.is_null(),
                8 => field.is_not_null(),
                _ => field.in_(list),
            }
        })
        .boxed()
}

/// Each test of a field that is text.
fn tested<T, V, P>(field: Field<T, V, P>) -> BoxedStrategy<Specification<T>>
where
    T: 'static,
    V: cqrs_core::TextValue + 'static,
    P: cqrs_core::Place + 'static,
{
    (0..5_u8, texts(), patterns())
        .prop_map(move |(which, text, pattern)| {
            let field = field.clone();
            match which {
                0 => field.starts_with(text),
                1 => field.ends_with(text),
                2 => field.contains(text),
                _ => field.like(pattern),
            }
        })
        .boxed()
}

fn paths() -> impl Strategy<Value = JsonPath<Specimen>> {
    let step = prop_oneof![
        3 => select(KEYS.to_vec()).prop_map(Ok),
        1 => (0..3_usize).prop_map(Err),
    ];
    let f = Specimen::fields();
    (any::<bool>(), prop::collection::vec(step, 0..4)).prop_map(move |(tags, steps)| {
        let root = if tags && steps.len() < 2 {
            f.tags.document()
        } else {
            f.document.document()
        };
        steps.into_iter().fold(root, |path, step| match step {
            Ok(key) => path.key(key),
            Err(index) => path.index(index),
        })
    })
}

fn in_documents() -> BoxedStrategy<Condition> {
    paths()
        .prop_flat_map(|path| {
            prop_oneof![
                Just(path.clone().exists()),
                Just(path.clone().is_json_null()),
                compared(path.clone().as_text(), texts()),
                tested(path.clone().as_text()),
                compared(path.clone().as_i64(), larges()),
                compared(path.clone().as_f64(), floats()),
                compared(path.as_bool(), any::<bool>().boxed()),
            ]
        })
        .boxed()
}

/// What no store takes.
fn refused() -> BoxedStrategy<Condition> {
    let f = Specimen::fields();
    select(vec![
        f.double.eq(f64::NAN),
        f.text.in_(["a", "a\0"]),
        f.text.contains("\0"),
        f.text.like("\\"),
        f.count.between(1_u64, u64::MAX),
        f.at.lt(DateTime::<Utc>::MAX_UTC),
        f.document.eq(Json::Null),
        f.document.key("\0").exists(),
        f.document.index(usize::MAX).exists(),
    ])
    .boxed()
}

/// Conditions on any of the parts, which are conditions themselves.
fn on_parts() -> BoxedStrategy<Condition> {
    let (parts, f) = (Specimen::fields().parts, Part::fields());
    let leaf = prop_oneof![
        1 => Just(Specification::all()),
        1 => Just(Specification::none()),
        1 => Just(f.double.eq(f64::NAN)),
        5 => compared(f.flag, any::<bool>().boxed()),
        5 => compared(f.large, larges()),
        5 => compared(f.single, singles()),
        5 => compared(f.double, floats()),
        5 => compared(f.text, texts()),
        5 => tested(f.text),
        5 => compared(f.bytes, byte_strings()),
        5 => compared(f.reference, uuids()),
        5 => compared(f.at, times()),
        5 => compared(f.day, days()),
        5 => compared(f.spot.x, floats()),
        5 => compared(f.spot.grid.row, smalls()),
    ];
    let condition = leaf.prop_recursive(3, 6, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| !one),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a & b),
            (inner.clone(), inner).prop_map(|(a, b)| a | b),
        ]
    });
    condition
        .prop_map(move |condition| parts.any_child(condition))
        .boxed()
}

fn conditions() -> impl Strategy<Value = Condition> {
    let f = Specimen::fields();
    let leaf = prop_oneof![
        2 => Just(Specification::all()),
        2 => Just(Specification::none()),
        1 => refused(),
        10 => compared(f.flag, any::<bool>().boxed()),
        10 => compared(f.small, smalls()),
        10 => compared(f.medium, mediums()),
        10 => compared(f.large, larges()),
        10 => compared(f.count, counts()),
        10 => compared(f.single, singles()),
        15 => compared(f.double, floats()),
        15 => compared(f.text, texts()),
        10 => compared(f.name, texts().prop_map(Name).boxed()),
        30 => tested(f.text),
        10 => tested(f.name),
        10 => compared(f.bytes, byte_strings()),
        10 => compared(f.reference, uuids()),
        10 => compared(f.at, times()),
        10 => compared(f.day, days()),
        10 => compared(f.kind, kinds()),
        10 => compared(f.spot.x, floats()),
        10 => tested(f.spot.label),
        5 => compared(f.spot.grid.row, smalls()),
        60 => in_documents(),
        60 => on_parts(),
    ];
    leaf.prop_recursive(5, 16, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| !one),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a & b),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a | b),
            prop::collection::vec(inner.clone(), 0..5).prop_map(Specification::any_of),
            prop::collection::vec(inner, 0..5).prop_map(Specification::all_of),
        ]
    })
}

fn orders() -> impl Strategy<Value = Vec<Order<Specimen>>> {
    let f = Specimen::fields();
    let keys = vec![
        f.flag.asc(),
        f.small.desc(),
        f.large.asc(),
        f.single.asc(),
        f.double.desc(),
        f.text.asc(),
        f.text.desc(),
        f.bytes.asc(),
        f.reference.desc(),
        f.at.asc(),
        f.day.desc(),
        f.kind.asc(),
        f.spot.x.asc(),
        f.spot.label.desc(),
    ];
    prop::collection::vec(select(keys), 0..3)
}

fn queries() -> impl Strategy<Value = Query<Specimen>> {
    let limit = prop_oneof![3 => Just(None), 1 => (0..5_u64).prop_map(Some)];
    (conditions(), orders(), limit).prop_map(|(condition, orders, limit)| {
        let query = orders
            .into_iter()
            .fold(Query::filter(condition), Query::order_by);
        match limit {
            Some(rows) => query.limit(rows),
            None => query,
        }
    })
}

// Stores.

fn row(specimen: &Specimen) -> Vec<Value> {
    let mut row = specimen.framework_row();
    row.extend(specimen.to_row().unwrap());
    row
}

/// What a query finds according to its meaning in memory.
fn expected(specimens: &[Specimen], query: &Query<Specimen>) -> Vec<i64> {
    let mut found: Vec<&Specimen> = specimens
        .iter()
        .filter(|specimen| query.specification().is_satisfied_by(specimen).unwrap())
        .collect();
    found.sort_by(|a, b| query.compare_rows(&row(a), &row(b)));
    let limit = query
        .row_limit()
        .map_or(usize::MAX, |rows| rows.try_into().unwrap());
    found
        .iter()
        .take(limit)
        .map(|specimen| specimen.id)
        .collect()
}

fn failed(what: &str, query: &Query<Specimen>, detail: impl Debug) -> TestCaseError {
    TestCaseError::fail(format!("{what}: {query}\n{detail:#?}"))
}

/// Saves the rows and asks the queries; `ControlFlow::Break` is what is wrong.
async fn ask<S: Store>(
    store: &S,
    name: &str,
    context: &RequestContext,
    specimens: &[Specimen],
    queries: &[Query<Specimen>],
    telling: &AtomicU64,
) -> ControlFlow<TestCaseError> {
    let mut uow = store.unit_of_work(context);
    for specimen in specimens {
        uow.save(specimen.clone()).unwrap();
    }
    uow.commit().await.unwrap();
    let mut uow = store.unit_of_work(context);
    let mut repository = uow.repository::<Specimen>();
    let kept = repository.query(Query::all()).await.unwrap();
    for (kept, saved) in kept.iter().zip(specimens) {
        let parts = (kept.child_rows().unwrap(), saved.child_rows().unwrap());
        if parts.0 != parts.1 {
            return ControlFlow::Break(failed(name, &Query::all(), parts));
        }
    }
    for query in queries {
        let found = repository.query(query.clone()).await;
        let found = match (query.check(), found) {
            (Ok(()), Ok(found)) => found,
            (Err(_), Err(Error::Mapping(_))) => continue,
            (check, found) => {
                return ControlFlow::Break(failed(name, query, (check, found)));
            }
        };
        let found: Vec<i64> = found.iter().map(|specimen| specimen.id).collect();
        let expected = expected(specimens, query);
        if found != expected || expected != self::expected(&kept, query) {
            let detail = (&found, &expected, specimens, &kept);
            return ControlFlow::Break(failed(name, query, detail));
        }
        if !(found.is_empty() || found.len() == specimens.len()) {
            telling.fetch_add(1, Ordering::Relaxed);
        }
    }
    ControlFlow::Continue(())
}

async fn stores() -> (TestDatabase, PgStore, SqliteStore) {
    let database = TestDatabase::create().await;
    let postgres = PgStore::connect(database.url()).await.unwrap();
    let sqlite = SqliteStore::connect("sqlite::memory:").await.unwrap();
    postgres.migrate().await.unwrap();
    sqlite.migrate().await.unwrap();
    postgres.create_tables(&[Specimen::table()]).await.unwrap();
    sqlite.create_tables(&[Specimen::table()]).await.unwrap();
    (database, postgres, sqlite)
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={value} is no number")),
    )
}

#[test]
fn differential_conditions_mean_the_same_everywhere() {
    let cases = number("DIFFERENTIAL_CASES").unwrap_or(2_000);
    let seed = number("DIFFERENTIAL_SEED").unwrap_or_else(|| Uuid::now_v7().as_u64_pair().1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_database, postgres, sqlite) = runtime.block_on(stores());
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 3_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let input = (
        prop::collection::vec(specimens(), 1..12),
        prop::collection::vec(queries(), 1..=BATCH),
    );
    let (next, telling) = (AtomicI64::new(1), AtomicU64::new(0));
    let mut runner = TestRunner::new_with_rng(config.clone(), rng);
    let mut asked = 0;
    while asked < cases {
        // A runner counts its cases over all runs.
        runner = TestRunner::new_with_rng(config.clone(), runner.new_rng());
        let size = AtomicU64::new(0);
        let result = runner.run(&input, |(mut specimens, queries)| {
            size.store(queries.len() as u64, Ordering::Relaxed);
            let first = next.fetch_add(1_000, Ordering::Relaxed);
            for (specimen, id) in specimens.iter_mut().zip(first..) {
                specimen.id = id;
                specimen.root.raise(SpecimenEvent::Made);
            }
            let context = tenant(&first.to_string());
            let asked = runtime.block_on(async {
                ask(&sqlite, "sqlite", &context, &specimens, &queries, &telling).await?;
                ask(
                    &postgres, "postgres", &context, &specimens, &queries, &telling,
                )
                .await
            });
            match asked {
                ControlFlow::Break(error) => Err(error),
                ControlFlow::Continue(()) => Ok(()),
            }
        });
        match result {
            Ok(()) => asked += size.into_inner(),
            Err(TestError::Fail(reason, _)) => panic!("DIFFERENTIAL_SEED={seed}: {reason}"),
            Err(error) => panic!("DIFFERENTIAL_SEED={seed}: {error}"),
        }
    }
    // On both databases. Conditions that find all rows or none would agree by chance.
    let telling = telling.into_inner() / 2;
    println!("{telling} of {asked} conditions found some rows and not all");
    assert!(telling * 5 > asked, "{telling} of {asked} tell anything");
}
