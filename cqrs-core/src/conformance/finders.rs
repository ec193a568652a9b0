//! Finders: conditions, orders, limits.

use super::Harness;
use super::fixtures::{Class, Grams, Parcel, Point, Status};
use super::support::{Bench, assert_refused, begin, err, north, ok, south, time};
use crate::error::Error;
use crate::repository::Repository;
use crate::specification::{Query, Specification};
use crate::unit_of_work::UnitOfWork;

/// Saves parcels with these labels in one commit, each changed by `set` with its place.
async fn parcels<H: Harness>(
    bench: &Bench<'_, H>,
    labels: &[&str],
    set: impl Fn(&mut Parcel, usize),
) {
    let mut uow = bench.unit_of_work(&north());
    for (index, label) in labels.iter().enumerate() {
        let mut parcel = Parcel::silent(label);
        set(&mut parcel, index);
        ok(uow.save(parcel));
    }
    assert_eq!(ok(uow.commit().await).events().len(), labels.len());
    // What must never be found.
    bench.parcel(&south(), labels[0]).await;
    let gone = bench.parcel(&north(), labels[0]).await;
    bench.remove(&north(), gone).await;
}

async fn labels<H: Harness>(bench: &Bench<'_, H>, query: impl Into<Query<Parcel>>) -> Vec<String> {
    let mut uow = bench.unit_of_work(&north());
    let found = ok(uow.repository::<Parcel>().query(query.into()).await);
    found.into_iter().map(|parcel| parcel.label).collect()
}

/// The labels found, which are single characters, in the order of the alphabet.
async fn set<H: Harness>(bench: &Bench<'_, H>, specification: Specification<Parcel>) -> String {
    let mut found = labels(bench, specification).await;
    found.sort();
    found.concat()
}

/// Comparisons work on columns of every type that can be compared.
pub async fn conditions_on_every_type<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c"], |parcel, index| {
        let n = i16::try_from(index).unwrap_or_default();
        parcel.status = [Status::Waiting, Status::Moving, Status::Arrived][index];
        parcel.class = [Class::Letter, Class::Bulky, Class::Bulky][index];
        parcel.shelf = n - 1;
        parcel.priority = i32::from(n) - 1;
        parcel.amount = (1 << 53) + i64::from(n);
        parcel.lane = n.unsigned_abs();
        parcel.pieces = u32::MAX - 2 + u32::from(n.unsigned_abs());
        parcel.total = u64::from(n.unsigned_abs());
        parcel.weight = Grams(u32::from(n.unsigned_abs()));
        parcel.ratio = f64::from(n) * 0.1;
        parcel.factor = f32::from(n) * 0.1;
        parcel.fragile = index == 1;
        parcel.due = time(0) + chrono::Duration::microseconds(i64::from(n));
        parcel.day = parcel.day + chrono::Days::new(u64::from(n.unsigned_abs()));
        parcel.reference = uuid::Uuid::from_u128(u128::from(n.unsigned_abs()) << 120);
        parcel.seal = [vec![], vec![0], vec![0, 255]][index].clone();
    })
    .await;
    let f = Parcel::fields();
    let day = Parcel::silent("").day;
    let cases: Vec<(Specification<Parcel>, &str)> = vec![
        (f.status.eq(Status::Moving), "b"),
        (f.class.ne(Class::Letter), "bc"),
        (f.label.ge("b"), "bc"),
        (f.shelf.lt(0_i16), "a"),
        (f.priority.le(0), "ab"),
        (f.amount.gt(1_i64 << 53), "bc"),
        (f.amount.eq((1_i64 << 53) + 1), "b"),
        (f.lane.eq(2_u16), "c"),
        (f.pieces.ge(u32::MAX - 1), "bc"),
        (f.total.gt(0_u64), "bc"),
        (f.weight.eq(Grams(1)), "b"),
        (f.ratio.eq(0.1), "b"),
        (f.ratio.le(0.1), "ab"),
        (f.ratio.eq(-0.0), "a"),
        (f.factor.eq(0.1_f32), "b"),
        (f.factor.gt(0.1_f32), "c"),
        (f.fragile.eq(true), "b"),
        (f.fragile.ne(true), "ac"),
        (f.due.gt(time(0)), "bc"),
        (f.due.eq(time(0) + chrono::Duration::microseconds(2)), "c"),
        (f.day.le(day), "a"),
        (f.reference.gt(uuid::Uuid::from_u128(1)), "bc"),
        (f.seal.eq(vec![]), "a"),
        (f.seal.lt(vec![0, 254]), "ab"),
    ];
    for (specification, expected) in cases {
        let text = format!("{specification:?}");
        assert_eq!(set(&bench, specification).await, expected, "{text}");
    }
}

/// Conditions combine with and, or, not, as deep as one likes.
pub async fn conditions_combine<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c", "d"], |parcel, index| {
        parcel.shelf = i16::from(index >= 2);
        parcel.priority = i32::from(index % 2 == 1);
    })
    .await;
    let f = Parcel::fields();
    let one = || f.shelf.eq(1_i16);
    let odd = || f.priority.eq(1);
    let cases: Vec<(Specification<Parcel>, &str)> = vec![
        (Specification::all(), "abcd"),
        (!Specification::all(), ""),
        (one() & odd(), "d"),
        (one() | odd(), "bcd"),
        (!one(), "ab"),
        (!(one() | odd()), "a"),
        (!(one() & odd()), "abc"),
        ((one() & odd()) | (!one() & !odd()), "ad"),
        (one() & (odd() | f.label.eq("a")), "d"),
        ((one() & odd()) | f.label.eq("a"), "ad"),
        (!!one(), "cd"),
    ];
    for (specification, expected) in cases {
        let text = format!("{specification:?}");
        assert_eq!(set(&bench, specification).await, expected, "{text}");
    }
    let mut deep = f.label.eq("a");
    for _ in 0..60 {
        deep = !(deep & Specification::all());
    }
    assert_eq!(set(&bench, deep).await, "a");
    let mut nested = f.label.eq("a");
    for _ in 0..50 {
        nested = !(nested & f.label.ne("b"));
    }
    assert_eq!(set(&bench, nested).await, "ab");
}

/// Thousands of conditions that are joined are no deep condition; one that is nested too deep is
/// refused.
pub async fn many_conditions_are_joined<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c"], |parcel, index| {
        parcel.priority = i32::try_from(index).unwrap_or(0) * 4_999;
    })
    .await;
    let f = Parcel::fields();
    let any = (1..10_000).map(|priority| f.priority.eq(priority));
    assert_eq!(set(&bench, Specification::any_of(any)).await, "bc");
    let all = (1..5_000).map(|priority| f.priority.ne(priority));
    assert_eq!(set(&bench, Specification::all_of(all)).await, "ac");
    assert_eq!(set(&bench, Specification::any_of([])).await, "");
    assert_eq!(set(&bench, Specification::all_of([])).await, "abc");
    let mut deep = f.label.eq("a");
    for _ in 0..51 {
        deep = !(deep & f.label.ne("b"));
    }
    let mut uow = bench.unit_of_work(&north());
    let error = err(uow.repository::<Parcel>().query(deep.into()).await);
    assert!(matches!(error, Error::Mapping(_)), "{error:?}");
}

/// A list finds what is equal to one of its values, of every type; an empty one is false, also for
/// NULL.
pub async fn a_list_finds_what_is_in_it<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let floats = [5e-324, f64::MAX, f64::NEG_INFINITY];
    let uuid = |n: usize| uuid::Uuid::from_u128(n as u128);
    parcels(&bench, &["a", "b", "c"], |parcel, index| {
        parcel.status = [Status::Waiting, Status::Moving, Status::Arrived][index];
        parcel.rank = [None, Some(1), Some(2)][index];
        parcel.note = [None, Some("'"), Some("\"é😀")][index].map(str::to_owned);
        parcel.amount = [i64::MIN, 0, i64::MAX][index];
        parcel.ratio = floats[index];
        parcel.factor = 0.1;
        parcel.fragile = index == 1;
        parcel.seen = [None, Some(time(0)), Some(time(1))][index];
        parcel.reference = uuid(index);
        parcel.seal = [vec![], vec![0], vec![0, 255]][index].clone();
    })
    .await;
    let f = Parcel::fields();
    let day = Parcel::silent("").day;
    let none = Vec::<i32>::new;
    let cases: Vec<(Specification<Parcel>, &str)> = vec![
        (f.status.in_([Status::Waiting, Status::Arrived]), "ac"),
        (f.rank.in_([2, 3]), "c"),
        (!f.rank.in_([2, 3]), "b"),
        (f.rank.in_(none()), ""),
        (!f.rank.in_(none()), "abc"),
        (f.note.in_(["'", "\"é😀"]), "bc"),
        (f.amount.in_([i64::MIN, i64::MAX]), "ac"),
        (f.ratio.in_(floats), "abc"),
        (f.ratio.in_([0.0, 1e-323]), ""),
        (f.factor.in_([0.1_f32]), "abc"),
        (f.fragile.in_([true]), "b"),
        (f.seen.in_([time(1)]), "c"),
        (f.day.in_([day]), "abc"),
        (f.reference.in_([uuid(0), uuid(2)]), "ac"),
        (f.seal.in_([vec![], vec![0, 255]]), "ac"),
        (f.id.in_(Vec::<crate::Id<Parcel>>::new()), ""),
    ];
    for (specification, expected) in cases {
        let text = format!("{specification}");
        assert_eq!(set(&bench, specification).await, expected, "{text}");
    }
}

/// A range includes its ends; an empty one finds nothing, and NULL is in none.
pub async fn a_range_includes_its_ends<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c", "d"], |parcel, index| {
        parcel.rank = [None, Some(1), Some(2), Some(3)][index];
    })
    .await;
    let f = Parcel::fields();
    for (specification, expected) in [
        (f.rank.between(1, 2), "bc"),
        (!f.rank.between(1, 2), "d"),
        (f.rank.between(2, 2), "c"),
        (f.rank.between(2, 1), ""),
        (!f.rank.between(2, 1), "bcd"),
        (f.label.between("b", "c"), "bc"),
        (f.rank.is_not_null(), "bcd"),
    ] {
        let text = format!("{specification}");
        assert_eq!(set(&bench, specification).await, expected, "{text}");
    }
}

/// Text is tested character by character, with its case; only `like` knows special characters.
pub async fn text_is_tested_exactly<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let notes = [
        None,
        Some("Graz"),
        Some("50%_\\*[?]"),
        Some("é😀\u{ffff}"),
        Some(""),
    ];
    parcels(&bench, &["a", "b", "c", "d", "e"], |parcel, index| {
        parcel.note = notes[index].map(str::to_owned);
    })
    .await;
    let note = Parcel::fields().note;
    for (specification, expected) in [
        (note.like("%"), "bcde"),
        (!note.like("%a%"), "cde"),
        (note.like("G__z"), "b"),
        (note.like("g%"), ""),
        (note.like("é_%"), "d"),
        (note.like("___"), "d"),
        (note.like("%\\%\\_\\\\*[%"), "c"),
        (note.like(""), "e"),
        (note.starts_with("Gr"), "b"),
        (note.starts_with("gr"), ""),
        (note.starts_with("50%"), "c"),
        (note.starts_with("5_"), ""),
        (note.starts_with(""), "bcde"),
        (note.ends_with("?]"), "c"),
        (note.ends_with("\u{ffff}"), "d"),
        (note.ends_with("\u{fffe}"), ""),
        (note.ends_with(""), "bcde"),
        (note.contains("😀"), "d"),
        (note.contains("\\*["), "c"),
        (note.contains("%z"), ""),
        (note.contains(""), "bcde"),
        (!note.contains("a"), "cde"),
    ] {
        let text = format!("{specification}");
        assert_eq!(set(&bench, specification).await, expected, "{text}");
    }
}

/// Conditions look into JSON documents; what is not there, or of another kind, is NULL.
pub async fn json_is_looked_into<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let documents = [
        serde_json::json!({"n": 1, "t": "x", "b": true, "l": [1, [2]], "": {"a.b\"[0]": "k"}}),
        serde_json::json!({"n": 1.0, "t": null, "b": "true", "l": {"0": 1}}),
        serde_json::json!({"n": "1", "t": "1", "b": false}),
        serde_json::json!([9_007_199_254_740_993_i64, 0.5, "x"]),
        serde_json::json!("x"),
    ];
    parcels(&bench, &["a", "b", "c", "d", "e"], |parcel, index| {
        parcel.details = documents[index].clone();
        parcel.tags = vec![parcel.label.clone()];
    })
    .await;
    let f = Parcel::fields();
    let key = |key: &str| f.details.key(key);
    for (specification, expected) in [
        (key("n").as_i64().eq(1), "ab"),
        (key("n").as_f64().le(1.5), "ab"),
        (key("n").as_text().eq("1"), "c"),
        (key("n").as_i64().is_null(), "cde"),
        (!key("n").as_i64().ne(1), "ab"),
        (key("t").as_text().in_(["x", "1"]), "ac"),
        (key("t").as_text().starts_with("x"), "a"),
        (key("t").as_text().is_null(), "bde"),
        (key("t").exists(), "abc"),
        (key("t").is_json_null(), "b"),
        (!key("t").is_json_null(), "acde"),
        (key("b").as_bool().eq(true), "a"),
        (key("b").as_bool().in_([true, false]), "ac"),
        (key("l").index(0).as_i64().eq(1), "a"),
        (key("l").key("0").as_i64().eq(1), "b"),
        (key("l").index(1).index(0).as_i64().between(2, 3), "a"),
        (key("").key("a.b\"[0]").as_text().eq("k"), "a"),
        (f.details.index(0).exists(), "d"),
        (f.details.index(0).as_i64().is_null(), "abcde"),
        (f.details.index(1).as_f64().eq(0.5), "d"),
        (f.details.index(1).as_i64().is_not_null(), ""),
        (f.details.index(2).as_text().gt("w"), "d"),
        (f.details.index(9).exists(), ""),
        (f.details.document().as_text().eq("x"), "e"),
        (f.tags.index(0).as_text().le("b"), "ab"),
    ] {
        let text = format!("{specification}");
        assert_eq!(set(&bench, specification).await, expected, "{text}");
    }
}

/// Conditions reach the columns of value objects.
pub async fn value_objects_are_compared_by_column<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b"], |parcel, index| {
        parcel.depot.x = [1.0, 2.0][index];
        parcel.sender = [None, Some(Point { x: 3.0, y: 4.0 })][index];
    })
    .await;
    let f = Parcel::fields();
    for (specification, expected) in [
        (f.depot.x.gt(1.5), "b"),
        (f.sender.y.eq(4.0), "b"),
        (f.sender.x.is_null(), "a"),
    ] {
        let text = format!("{specification}");
        assert_eq!(set(&bench, specification).await, expected, "{text}");
    }
}

/// A comparison with NULL is unknown, and so is its opposite: neither finds the row.
pub async fn null_is_unknown<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c"], |parcel, index| {
        parcel.note = [None, Some(String::new()), Some("x".to_owned())][index].clone();
        parcel.rank = [None, Some(0), Some(5)][index];
        parcel.seen = [None, Some(time(0)), Some(time(1))][index];
    })
    .await;
    let f = Parcel::fields();
    let cases: Vec<(Specification<Parcel>, &str)> = vec![
        (f.note.is_null(), "a"),
        (!f.note.is_null(), "bc"),
        (f.note.eq("x"), "c"),
        (f.note.ne("x"), "b"),
        (!f.note.eq("x"), "b"),
        (!f.note.ne("x"), "c"),
        (f.note.eq(""), "b"),
        (f.rank.ge(0) | f.rank.lt(0), "bc"),
        (!(f.rank.ge(0) & f.rank.lt(5)), "c"),
        (f.rank.eq(5) | f.note.is_null(), "ac"),
        // Unknown or true is true; unknown and false is false, so its opposite is true.
        (f.rank.eq(5) | f.label.eq("a"), "ac"),
        (!(f.rank.eq(5) & f.label.eq("z")), "abc"),
        (!(f.rank.eq(5) | f.label.eq("z")), "b"),
        (f.seen.le(time(0)), "b"),
    ];
    for (specification, expected) in cases {
        let text = format!("{specification:?}");
        assert_eq!(set(&bench, specification).await, expected, "{text}");
    }
}

/// Text compares and sorts by its UTF-8 bytes, whatever the locale, and matches exactly.
pub async fn text_compares_by_bytes<H: Harness>(h: &H) {
    let sorted = [
        "", " ", "!", "10", "9", "A", "Z", "_", "a", "a ", "a-", "aa", "b", "e\u{301}", "é",
        "\u{ffff}", "😀",
    ];
    let bench = begin(h).await;
    let mut shuffled = sorted;
    shuffled.reverse();
    shuffled.swap(2, 9);
    parcels(&bench, &shuffled, |_, _| {}).await;
    let label = Parcel::fields().label;
    let all = labels(&bench, Query::all().order_by(label.asc())).await;
    assert_eq!(all, sorted);
    for (index, text) in sorted.iter().enumerate() {
        let below = Query::filter(label.lt(*text)).order_by(label.asc());
        assert_eq!(labels(&bench, below).await, sorted[..index], "{text:?}");
        let above = Query::filter(label.gt(*text)).order_by(label.asc());
        assert_eq!(labels(&bench, above).await, sorted[index + 1..], "{text:?}");
        assert_eq!(labels(&bench, label.eq(*text)).await, [*text]);
    }
}

/// Ascending places NULL last, descending first; keys of an order count from the first on.
pub async fn an_order_places_null_last<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c", "d"], |parcel, index| {
        parcel.rank = [None, Some(2), Some(1), None][index];
        parcel.shelf = i16::from(index >= 2);
    })
    .await;
    let f = Parcel::fields();
    let order = |first, second| Query::all().order_by(first).order_by(second);
    for (query, expected) in [
        (order(f.rank.asc(), f.label.asc()), "cbad"),
        (order(f.rank.asc(), f.label.desc()), "cbda"),
        (order(f.rank.desc(), f.label.asc()), "adbc"),
        (order(f.shelf.desc(), f.rank.asc()), "cdba"),
        (order(f.shelf.asc(), f.rank.desc()), "abdc"),
    ] {
        let text = format!("{query:?}");
        assert_eq!(labels(&bench, query).await.concat(), expected, "{text}");
    }
}

/// Rows that the order leaves equal come in the order of their key; so do all, without an order.
pub async fn ties_come_in_the_order_of_the_key<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["c", "a", "d", "b"], |parcel, index| {
        let id = [3_u128, 1, 4, 2][index];
        parcel.id = crate::Id::from_uuid(uuid::Uuid::from_u128(id << 64));
        parcel.shelf = i16::from(id > 2);
    })
    .await;
    let f = Parcel::fields();
    assert_eq!(labels(&bench, Query::all()).await.concat(), "abcd");
    let query = Query::all().order_by(f.shelf.desc());
    assert_eq!(labels(&bench, query).await.concat(), "cdab");
    let query = Query::all().order_by(f.priority.asc()).limit(3);
    assert_eq!(labels(&bench, query).await.concat(), "abc");
}

/// A limit cuts what is left after the condition and the order; 0 is none.
pub async fn a_limit_cuts<H: Harness>(h: &H) {
    let bench = begin(h).await;
    parcels(&bench, &["a", "b", "c", "d"], |_, _| {}).await;
    let label = Parcel::fields().label;
    for (limit, expected) in [
        (0, ""),
        (1, "d"),
        (2, "dc"),
        (3, "dcb"),
        (4, "dcb"),
        (u64::MAX, "dcb"),
    ] {
        let query = Query::filter(label.gt("a"))
            .order_by(label.desc())
            .limit(limit);
        assert_eq!(labels(&bench, query).await.concat(), expected, "{limit}");
    }
}

/// Counting and asking whether any exists agree with the query.
pub async fn count_and_exists<H: Harness>(h: &H) {
    let bench = begin(h).await;
    {
        let mut uow = bench.unit_of_work(&north());
        let mut repository = uow.repository::<Parcel>();
        assert_eq!(ok(repository.count(Specification::all()).await), 0);
        assert!(!ok(repository.exists(Specification::all()).await));
    }
    parcels(&bench, &["a", "b", "c"], |_, _| {}).await;
    let label = Parcel::fields().label;
    let mut uow = bench.unit_of_work(&north());
    let mut repository = uow.repository::<Parcel>();
    for (specification, expected) in [
        (Specification::all(), 3),
        (label.gt("a"), 2),
        (label.eq("c"), 1),
        (label.gt("c"), 0),
    ] {
        assert_eq!(ok(repository.count(specification.clone()).await), expected);
        let found = ok(repository.query(specification.clone().into()).await);
        assert_eq!(found.len() as u64, expected);
        assert_eq!(ok(repository.exists(specification).await), expected > 0);
    }
}

/// A condition with a value that no column can hold is refused with its column, also where there
/// is no row to compare.
pub async fn a_condition_that_no_column_can_hold_is_refused<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let f = Parcel::fields();
    let cases = [
        (f.ratio.eq(f64::NAN), "ratio"),
        (f.label.eq("a\0"), "label"),
        (f.total.lt(u64::MAX), "total"),
        (f.ratio.in_([0.0, f64::NAN]), "ratio"),
        (f.total.between(0_u64, u64::MAX), "total"),
        (f.label.like("a\\"), "label"),
        (f.label.contains("\0"), "label"),
        (f.details.eq(serde_json::json!(1)), "details"),
        (f.details.key("\0").exists(), "details"),
        (f.details.document().as_i64().lt(i64::MAX), "details"),
        (f.details.document().as_f64().gt(1e-99), "details"),
        (
            f.fragile.eq(true) & !(f.due.gt(chrono::DateTime::<chrono::Utc>::MAX_UTC)),
            "due",
        ),
    ];
    for (specification, column) in cases {
        let mut uow = bench.unit_of_work(&north());
        let mut repository = uow.repository::<Parcel>();
        let error = err(repository.query(specification.clone().into()).await);
        assert_refused(&error, "conformance_parcel", column);
        let error = err(repository.count(specification).await);
        assert_refused(&error, "conformance_parcel", column);
    }
    let by_json = Query::all().order_by(f.details.asc());
    let mut uow = bench.unit_of_work(&north());
    let error = err(uow.repository::<Parcel>().query(by_json).await);
    assert_refused(&error, "conformance_parcel", "details");
}
