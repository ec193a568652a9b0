//! What is saved is what is loaded, and what cannot be kept is refused.

use chrono::{DateTime, NaiveDate, TimeZone, Utc};
use serde_json::json;
use uuid::Uuid;

use super::Harness;
use super::fixtures::{Class, Counter, Grams, Locker, Parcel, Point, Status};
use super::support::{Bench, assert_refused, begin, err, north, ok, system, time};
use crate::repository::Repository;
use crate::unit_of_work::UnitOfWork;

/// Saves each parcel and compares what is loaded.
async fn come_back<H: Harness>(h: &H, parcels: impl IntoIterator<Item = Parcel>) {
    let bench = begin(h).await;
    for parcel in parcels {
        bench.save(&north(), parcel.clone()).await;
        let loaded: Parcel = bench.load(&north(), parcel.id).await;
        assert_eq!(
            format!("{:?}", loaded.contents()),
            format!("{:?}", parcel.contents())
        );
    }
}

/// One parcel per value, changed by `set`.
fn each<V>(values: impl IntoIterator<Item = V>, set: impl Fn(&mut Parcel, V)) -> Vec<Parcel> {
    values
        .into_iter()
        .map(|value| {
            let mut parcel = Parcel::silent("sample");
            set(&mut parcel, value);
            parcel
        })
        .collect()
}

/// Every column of an aggregate comes back as it was saved, after creation and after a change of
/// all of them.
pub async fn every_column_comes_back<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let parcel = Parcel::register("first");
    bench.save(&north(), parcel.clone()).await;
    let mut loaded: Parcel = bench.load(&north(), parcel.id).await;
    assert_eq!(
        format!("{:?}", loaded.contents()),
        format!("{:?}", parcel.contents())
    );

    loaded.status = Status::Arrived;
    loaded.class = Class::Bulky;
    loaded.label = "second".to_owned();
    loaded.note = Some("a note".to_owned());
    loaded.shelf = -7;
    loaded.priority = -8;
    loaded.amount = -9;
    loaded.lane = 10;
    loaded.pieces = 11;
    loaded.total = 12;
    loaded.weight = Grams(13);
    loaded.ratio = -1.25;
    loaded.factor = 2.5;
    loaded.fragile = true;
    loaded.due = time(5);
    loaded.seen = Some(time(6));
    loaded.day = NaiveDate::from_ymd_opt(2024, 2, 29).unwrap_or_default();
    loaded.reference = Uuid::from_u128(u128::MAX);
    loaded.seal = vec![9, 8];
    loaded.rank = Some(14);
    loaded.tags = vec!["b".to_owned(), "ä".to_owned()];
    loaded.marks.insert("m".to_owned(), 15);
    loaded.details = json!({"k": [true, {"deep": "x"}]});
    loaded.depot = Point { x: 3.5, y: 4.5 };
    loaded.sender = Some(Point { x: 5.5, y: 6.5 });
    let changed = loaded.clone();
    bench.save(&north(), loaded).await;
    let loaded: Parcel = bench.load(&north(), parcel.id).await;
    assert_eq!(
        format!("{:?}", loaded.contents()),
        format!("{:?}", changed.contents())
    );
}

/// Integers of every width come back at the ends of their range.
pub async fn integers_come_back_at_their_limits<H: Harness>(h: &H) {
    let mut low = Parcel::silent("low");
    low.shelf = i16::MIN;
    low.priority = i32::MIN;
    low.amount = i64::MIN;
    low.lane = 0;
    low.pieces = 0;
    low.total = 0;
    low.weight = Grams(0);
    low.rank = Some(i32::MIN);
    let mut high = Parcel::silent("high");
    high.shelf = i16::MAX;
    high.priority = i32::MAX;
    high.amount = i64::MAX;
    high.lane = u16::MAX;
    high.pieces = u32::MAX;
    high.total = i64::MAX.unsigned_abs();
    high.weight = Grams(u32::MAX);
    high.rank = Some(i32::MAX);
    // Beyond 2^53, where a detour through a float would show.
    let mut odd = Parcel::silent("odd");
    odd.amount = (1 << 53) + 1;
    odd.total = (1 << 62) + 1;
    come_back(h, [low, high, odd]).await;
}

/// Floats come back to the last bit, but that 0 and -0 are one number; infinities are floats.
pub async fn floats_come_back_exactly<H: Harness>(h: &H) {
    let doubles = [
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        f64::EPSILON,
        5e-324,
        0.1 + 0.2,
        1.0 / 3.0,
        9_007_199_254_740_993.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ];
    let bench = begin(h).await;
    for value in doubles {
        let mut parcel = Parcel::silent("double");
        parcel.ratio = value;
        let loaded = reloaded(&bench, parcel).await;
        assert_eq!(loaded.ratio.to_bits(), value.to_bits(), "{value:e}");
    }
    for value in [
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        0.1,
        1e-45,
        f32::INFINITY,
    ] {
        let mut parcel = Parcel::silent("single");
        parcel.factor = value;
        let loaded = reloaded(&bench, parcel).await;
        assert_eq!(loaded.factor.to_bits(), value.to_bits(), "{value:e}");
    }
    let mut parcel = Parcel::silent("zero");
    parcel.ratio = -0.0;
    let loaded = reloaded(&bench, parcel).await;
    assert!(loaded.ratio == 0.0, "{}", loaded.ratio);
}

async fn reloaded<H: Harness>(bench: &Bench<'_, H>, parcel: Parcel) -> Parcel {
    let id = parcel.id;
    bench.save(&north(), parcel).await;
    bench.load(&north(), id).await
}

/// Text comes back byte for byte: empty, long, with quotes, white space and any Unicode but NUL.
pub async fn text_comes_back_byte_for_byte<H: Harness>(h: &H) {
    let long = "ä😀x".repeat(20_000);
    let texts = [
        "",
        " ",
        "NULL",
        "it's \"quoted\" `here` \\ and \\' there",
        "tab\t, new\nline, return\r\n",
        "%_?$1:name",
        "'; DROP TABLE conformance_parcel; --",
        "\u{1}\u{7f}\u{feff}\u{200d}",
        "e\u{301} is not é",
        "😀🇦🇹👩\u{200d}🚀",
        "\u{10ffff}",
        long.as_str(),
    ];
    let labels = each(texts, |parcel, text| {
        parcel.label = text.to_owned();
        parcel.note = Some(text.to_owned());
        parcel.tags = vec![text.to_owned()];
    });
    come_back(h, labels).await;
}

/// Bytes come back: none, every value, and many.
pub async fn bytes_come_back<H: Harness>(h: &H) {
    let seals = [vec![], vec![0], (0..=255).collect(), vec![0xa5; 100_000]];
    come_back(h, each(seals, |parcel, seal| parcel.seal = seal)).await;
}

/// Times and dates come back from year 0 to 9999, times in microseconds: what is finer is cut off.
pub async fn times_come_back_in_microseconds<H: Harness>(h: &H) {
    let times: Vec<DateTime<Utc>> = [
        (0, 1, 1, 0, 0, 0),
        (1, 1, 1, 0, 0, 0),
        (1582, 10, 10, 12, 0, 0),
        (1969, 12, 31, 23, 59, 59),
        (1970, 1, 1, 0, 0, 0),
        (2000, 1, 1, 0, 0, 0),
        (2024, 2, 29, 23, 59, 59),
        (9999, 12, 31, 23, 59, 59),
    ]
    .into_iter()
    .filter_map(|(y, m, d, hour, min, s)| Utc.with_ymd_and_hms(y, m, d, hour, min, s).single())
    .flat_map(|time| [0, 1, 120_000, 999_999].map(|us| time + chrono::Duration::microseconds(us)))
    .collect();
    assert_eq!(times.len(), 32);
    let parcels = each(times, |parcel, time| {
        parcel.due = time;
        parcel.seen = Some(time);
        parcel.day = time.date_naive();
    });
    come_back(h, parcels).await;

    let bench = begin(h).await;
    let mut parcel = Parcel::silent("fine");
    parcel.due = time(0) + chrono::Duration::nanoseconds(999);
    assert_eq!(reloaded(&bench, parcel).await.due, time(0));
}

/// JSON of every shape comes back with the same meaning.
pub async fn json_comes_back<H: Harness>(h: &H) {
    let documents = [
        json!(null),
        json!(true),
        json!(0),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1.5),
        json!(""),
        json!("a \"quoted\" \\u0000 that is no NUL, é 😀"),
        json!([]),
        json!({}),
        json!({"z": {"y": [{"x": [[], [null]]}]}, "a": "first", "": "no name", "é": 1}),
    ];
    let parcels = each(documents, |parcel, details| parcel.details = details);
    come_back(h, parcels).await;
    let tags = [vec![], vec![String::new(); 100]];
    come_back(h, each(tags, |parcel, tags| parcel.tags = tags)).await;
}

/// Value objects come back: newtypes, enums, groups of columns, and groups that are absent.
pub async fn value_objects_come_back<H: Harness>(h: &H) {
    let zero = Point { x: 0.0, y: 0.0 };
    let far = Point {
        x: -180.0,
        y: 1e300,
    };
    let mut parcels = Vec::new();
    for (sender, class, status) in [
        (None, Class::Letter, Status::Waiting),
        (Some(zero), Class::Bulky, Status::Moving),
        (Some(far), Class::Bulky, Status::Arrived),
    ] {
        let mut parcel = Parcel::silent("objects");
        parcel.sender = sender;
        parcel.depot = far;
        parcel.class = class;
        parcel.status = status;
        parcels.push(parcel);
    }
    come_back(h, parcels).await;
}

/// A value that some backend cannot hold is refused by every backend when it is saved, with the
/// table and the column, and nothing of the unit of work is written.
pub async fn what_no_column_can_hold_is_refused<H: Harness>(h: &H) {
    type Set = fn(&mut Parcel);
    let far = |year| Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).single();
    assert!(far(10_000).is_some() && far(-1).is_some());
    let cases: [(&str, Set); 10] = [
        ("ratio", |p| p.ratio = f64::NAN),
        ("factor", |p| p.factor = f32::NAN),
        ("depot_y", |p| p.depot.y = f64::NAN),
        ("label", |p| p.label = "a\0b".to_owned()),
        ("note", |p| p.note = Some("\0".to_owned())),
        ("tags", |p| p.tags = vec!["\0".to_owned()]),
        ("details", |p| p.details = json!({"\0": 1})),
        ("total", |p| p.total = u64::MAX),
        ("due", |p| p.due = DateTime::<Utc>::MAX_UTC),
        ("day", |p| p.day = NaiveDate::MIN),
    ];
    let bench = begin(h).await;
    let kept = bench.parcel(&north(), "kept").await;
    for (column, set) in cases {
        let mut new = Parcel::register("refused");
        set(&mut new);
        let id = new.id;
        let error = err(bench.try_save(&north(), new).await);
        assert_refused(&error, "conformance_parcel", column);
        assert!(bench.find::<Parcel>(&north(), id).await.is_none());

        let mut changed = kept.clone();
        changed.open();
        set(&mut changed);
        let error = err(bench.try_save(&north(), changed).await);
        assert_refused(&error, "conformance_parcel", column);
    }
    let loaded: Parcel = bench.load(&north(), kept.id).await;
    assert_eq!(loaded.root.version(), 1);
    assert_eq!(bench.log().await.len(), 1);
}

/// A key that no column can hold is refused where it is saved and where it is looked for.
pub async fn a_key_that_no_column_can_hold_is_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let error = err(bench.try_save(&north(), Locker::new("a\0b")).await);
    assert_refused(&error, "conformance_locker", "id");
    let mut uow = bench.unit_of_work(&north());
    let found = uow.repository::<Locker>().find("a\0b".to_owned()).await;
    assert_refused(&err(found), "conformance_locker", "id");
    assert!(bench.log().await.is_empty());
}

/// Integers and text are ids as good as UUIDs, at their limits and in any script; the log holds
/// them as text that reads back.
pub async fn ids_of_every_type_come_back<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let numbers = [i64::MIN, -1, 0, 1, i64::MAX];
    for id in numbers {
        let counter = bench.counter(id).await;
        assert_eq!((counter.id, counter.value), (id, 1));
    }
    let texts = ["a", "A", "ä", "a'b", " ", "😀", &"x".repeat(200)];
    for id in texts {
        let locker = bench.locker(&north(), id).await;
        assert_eq!((locker.id.as_str(), locker.root.version()), (id, 1));
    }
    let log = bench.log().await;
    let (counters, lockers) = log.split_at(numbers.len());
    for (event, id) in counters.iter().zip(numbers) {
        assert_eq!(ok(event.aggregate_id::<i64>()), id);
    }
    for (event, id) in lockers.iter().zip(texts) {
        assert_eq!(event.aggregate_id_str(), id);
    }
    assert!(log[0].aggregate_id::<Uuid>().is_err());
    let all = ok(bench
        .unit_of_work(&system())
        .repository::<Counter>()
        .query(crate::Query::all())
        .await);
    assert_eq!(all.iter().map(|one| one.id).collect::<Vec<_>>(), numbers);
}
