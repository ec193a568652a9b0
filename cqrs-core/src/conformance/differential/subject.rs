//! The aggregates of the suite, as random commands use them.

use std::collections::HashMap;

use super::super::fixtures::{AccountForm, Counter, Ledger, Locker, Parcel, Point};
use super::super::support::time;
use super::describe;
use crate::aggregate::AggregateRoot;
use crate::payload::canonical_json;
use crate::sourced::{SourcedState, StateStored};
use crate::specification::{Query, Specification};

/// What earlier commands loaded for later ones, by slot.
#[derive(Default)]
pub(super) struct Kept {
    parcels: HashMap<usize, Parcel>,
    counters: HashMap<usize, Counter>,
    lockers: HashMap<usize, Locker>,
    ledgers: HashMap<usize, Ledger>,
}

pub(super) trait Subject: AggregateRoot + Clone {
    fn id_of(slot: usize) -> Self::Id;
    fn new(slot: usize, how: u64) -> Self;
    /// Changes values, with up to two events.
    fn change(&mut self, how: u64);
    /// Sets a value that no column can hold.
    fn spoil(&mut self);
    fn describe(&self) -> String;
    fn kept(kept: &mut Kept) -> &mut HashMap<usize, Self>;
}

/// One with a row, which conditions find.
pub(super) trait Queried: Subject + StateStored {
    fn query(how: u64) -> Query<Self>;
    fn specification(how: u64) -> Specification<Self>;
}

fn word(how: u64) -> &'static str {
    ["", "a", "A", "é", "b'c", "😀"][usize::try_from(how % 6).unwrap_or(0)]
}

/// A small number, often the same.
fn number(how: u64) -> i64 {
    i64::try_from(how % 7).unwrap_or(0) - 3
}

impl Subject for Parcel {
    fn id_of(slot: usize) -> Self::Id {
        crate::Id::from_uuid(uuid::Uuid::from_u128(0x7777_0000 + slot as u128))
    }

    fn new(slot: usize, how: u64) -> Self {
        let mut parcel = if how.is_multiple_of(3) {
            Self::silent(word(how >> 8))
        } else {
            Self::register(word(how >> 8))
        };
        parcel.id = Self::id_of(slot);
        parcel
    }

    fn change(&mut self, how: u64) {
        let value = number(how >> 16);
        match how % 6 {
            0 => self.relabel(word(how >> 8)),
            1 => self.open(),
            2 => {
                self.weigh(value.unsigned_abs().try_into().unwrap_or(0));
                self.move_to(value as f64, 0.5);
            }
            3 => self.note = how.is_multiple_of(2).then(|| word(how >> 8).to_owned()),
            4 => {
                self.details = serde_json::json!({"value": value, "at": [word(how >> 8)]});
                self.sender = (value > 0).then_some(Point { x: 1.0, y: 2.0 });
            }
            _ => {
                self.rank = i32::try_from(value).ok().filter(|rank| *rank > 0);
                self.seen = (value > 0).then(|| time(value));
                self.tags = vec![word(how >> 8).to_owned()];
            }
        }
    }

    fn spoil(&mut self) {
        self.ratio = f64::NAN;
    }

    fn describe(&self) -> String {
        format!(
            "{} {:?} {}",
            describe::root(&self.root),
            self.contents(),
            canonical_json(&self.details)
        )
    }

    fn kept(kept: &mut Kept) -> &mut HashMap<usize, Self> {
        &mut kept.parcels
    }
}

impl Queried for Parcel {
    fn query(how: u64) -> Query<Self> {
        let f = Self::fields();
        let query = Query::filter(Self::specification(how >> 3));
        match how % 5 {
            0 => query.order_by(f.label.asc()).limit(how >> 8 & 7),
            1 => query.order_by(f.rank.desc()).order_by(f.weight.asc()),
            2 => query.order_by(f.updated_at.desc()),
            3 => query.limit(3),
            _ => query,
        }
    }

    fn specification(how: u64) -> Specification<Self> {
        let f = Self::fields();
        let rank = i32::try_from(number(how >> 16)).unwrap_or(0);
        match how % 7 {
            0 => f.label.eq(word(how >> 8)),
            1 => f.label.gt(word(how >> 8)) & !f.rank.lt(rank),
            2 => !(f.rank.eq(rank) | f.note.eq(word(how >> 8))),
            3 => f.note.is_null() | f.seen.ge(time(1)),
            4 => f.created_by.eq("ann") & f.rank.ne(rank),
            5 => f.status.ne(super::super::fixtures::Status::Waiting),
            _ => Specification::all(),
        }
    }
}

impl Subject for Counter {
    fn id_of(slot: usize) -> i64 {
        i64::try_from(slot).unwrap_or(0) - 2
    }

    fn new(slot: usize, how: u64) -> Self {
        let mut counter = Self::new(Self::id_of(slot));
        if !how.is_multiple_of(3) {
            counter.add(number(how >> 8));
        }
        counter
    }

    fn change(&mut self, how: u64) {
        match how % 4 {
            0 => self.add(number(how >> 8)),
            1 => self.clear(if how.is_multiple_of(8) { "up" } else { "down" }),
            2 => {
                self.add(number(how >> 8));
                self.add(number(how >> 16));
            }
            _ => self.note = how.is_multiple_of(2).then(|| word(how >> 8).to_owned()),
        }
    }

    fn spoil(&mut self) {
        self.note = Some("\0".to_owned());
    }

    fn describe(&self) -> String {
        let root = describe::root(&self.root);
        format!("{root} {} {} {:?}", self.id, self.value, self.note)
    }

    fn kept(kept: &mut Kept) -> &mut HashMap<usize, Self> {
        &mut kept.counters
    }
}

impl Queried for Counter {
    fn query(how: u64) -> Query<Self> {
        let f = Self::fields();
        Query::filter(Self::specification(how >> 3))
            .order_by(f.value.desc())
            .limit(how % 9)
    }

    fn specification(how: u64) -> Specification<Self> {
        let f = Self::fields();
        match how % 4 {
            0 => f.value.ge(number(how >> 8)),
            1 => !f.note.eq(word(how >> 8)),
            2 => f.note.is_null() & f.id.lt(2),
            _ => Specification::all(),
        }
    }
}

impl Subject for Locker {
    fn id_of(slot: usize) -> String {
        format!("locker {slot}")
    }

    fn new(slot: usize, how: u64) -> Self {
        let mut locker = Self::new(&Self::id_of(slot));
        if !how.is_multiple_of(3) {
            locker.assign(word(how >> 8));
        }
        locker
    }

    fn change(&mut self, how: u64) {
        match how % 3 {
            0 => self.assign(word(how >> 8)),
            1 => self.free(),
            _ => self.holder = Some(word(how >> 8).to_owned()),
        }
    }

    fn spoil(&mut self) {
        self.holder = Some("a\0".to_owned());
    }

    fn describe(&self) -> String {
        let root = describe::root(&self.root);
        format!("{root} {} {:?}", self.id, self.holder)
    }

    fn kept(kept: &mut Kept) -> &mut HashMap<usize, Self> {
        &mut kept.lockers
    }
}

impl Queried for Locker {
    fn query(how: u64) -> Query<Self> {
        Query::filter(Self::specification(how >> 1)).order_by(Self::fields().id.desc())
    }

    fn specification(how: u64) -> Specification<Self> {
        let f = Self::fields();
        match how % 3 {
            0 => f.holder.ne(word(how >> 8)),
            1 => f.holder.is_null(),
            _ => f.id.gt("locker 2"),
        }
    }
}

impl Subject for Ledger {
    fn id_of(slot: usize) -> String {
        format!("ledger {slot}")
    }

    fn new(slot: usize, how: u64) -> Self {
        let mut ledger = Self::blank(Self::id_of(slot));
        if !how.is_multiple_of(3) {
            ledger.open(word(how >> 8));
        }
        ledger
    }

    /// With one to four events: there is a snapshot after each four.
    fn change(&mut self, how: u64) {
        match how % 5 {
            0 => self.open(word(how >> 8)),
            1 => self.close(),
            2 => (0..=how >> 8 & 3).for_each(|_| self.transfer(number(how >> 16))),
            _ => self.transfer(number(how >> 8)),
        }
    }

    fn spoil(&mut self) {
        self.open("a\0");
    }

    fn describe(&self) -> String {
        let root = describe::root(&self.root);
        format!("{root} {} {:?}", self.number, self.contents())
    }

    fn kept(kept: &mut Kept) -> &mut HashMap<usize, Self> {
        &mut kept.ledgers
    }
}
