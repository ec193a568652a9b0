//! A crate that denies every lint a user may deny can still use the macros.

#![deny(
    warnings,
    future_incompatible,
    missing_copy_implementations,
    missing_debug_implementations,
    missing_docs,
    nonstandard_style,
    rust_2018_idioms,
    single_use_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    unreachable_pub,
    unsafe_code,
    unused,
    unused_import_braces,
    unused_lifetimes,
    unused_qualifications,
    clippy::all,
    clippy::nursery,
    clippy::pedantic
)]
// It asks for the opposite of `unreachable_pub`.
#![allow(clippy::redundant_pub_crate)]

use cqrs_core::{
    Aggregate, Child, DomainEvent, EventSet, Id, ReadModel, Record, Repository, Result, Root,
    Sourced, Specification, SqlRow, ValueObject, mapping::RowMapper, repository,
};
use serde::{Deserialize, Serialize};

/// What happens to a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
pub enum PlanEvent {
    /// It was made.
    Made {
        /// By whom.
        by: String,
    },
    /// It was used once.
    #[deprecated(note = "a test")]
    Used,
}

/// What happens to a truck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "truck")]
pub enum TruckEvent {
    /// It left.
    Left {
        /// With whom.
        driver: String,
    },
}

/// What happens on a day.
#[derive(Debug, Clone, PartialEq, Eq, EventSet)]
pub enum DayEvent {
    /// To a plan.
    Plan(PlanEvent),
    /// To a truck.
    #[deprecated(note = "a test")]
    Truck(TruckEvent),
}

/// The state of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueObject)]
pub enum Status {
    /// It can start.
    Ready,
    /// It is over.
    Done,
}

/// How urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueObject)]
pub struct Priority(i32);

/// A place.
#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
pub struct Point {
    x: f64,
    y: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueObject)]
enum Hidden {
    One,
}

mod seconds {
    use std::time::{Duration, TryFromFloatSecsError};

    pub(super) const fn to_column(duration: &Duration) -> f64 {
        duration.as_secs_f64()
    }

    pub(super) fn from_column(column: f64) -> Result<Duration, TryFromFloatSecsError> {
        Duration::try_from_secs_f64(column)
    }
}

/// A plan.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = PlanEvent, tenant, soft_delete, audit)]
pub struct Plan {
    #[aggregate(id)]
    id: Id<Self>,
    #[aggregate(root)]
    root: Root<PlanEvent>,
    status: Status,
    priority: Priority,
    note: Option<String>,
    hidden: Hidden,
    #[deprecated(note = "a test")]
    old: i32,
    #[mapper(text)]
    letter: Option<char>,
    #[mapper(json)]
    tags: Vec<String>,
    #[mapper(flatten)]
    place: Option<Point>,
    #[mapper(with = seconds, as = f64)]
    duration: std::time::Duration,
    #[mapper(with = seconds, as = f64)]
    pause: Option<std::time::Duration>,
}

/// A line of a list.
#[derive(Debug, Clone, PartialEq, Eq, ReadModel)]
#[read_model(table = "plan_list", tenant)]
pub struct PlanLine {
    #[read_model(key)]
    id: Id<Plan>,
    #[read_model(key)]
    day: i32,
    text: String,
}

/// A part.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "part", event = PlanEvent)]
#[mapper(row = PartRow)]
pub struct Part {
    #[aggregate(id)]
    id: Id<Self>,
    #[aggregate(root)]
    root: Root<PlanEvent>,
    count: i32,
}

/// The row of a part.
#[derive(Debug, Clone, Copy, Record)]
pub struct PartRow {
    #[record(key)]
    id: Id<Part>,
    number: i32,
}

impl RowMapper<Part> for PartRow {
    type Error = std::convert::Infallible;

    fn from_aggregate(part: &Part) -> Self {
        Self {
            id: part.id,
            number: part.count,
        }
    }

    fn into_aggregate(self, root: Root<PlanEvent>) -> Result<Part, Self::Error> {
        Ok(Part {
            id: self.id,
            root,
            count: self.number,
        })
    }
}

/// The plans.
#[repository]
pub trait Plans: Repository<Plan> {
    /// Those that can start.
    #[find(
        status == Status::Ready && (priority >= min || !note.is_null()),
        order_by(priority.desc(), created_at.asc()),
        limit(20)
    )]
    async fn find_ready(&mut self, min: Priority, limit: u32) -> Result<Vec<Plan>>;

    /// The one with this note.
    #[find(note == note)]
    async fn find_by_note(&mut self, note: &str) -> Result<Option<Plan>>;

    /// How many there are.
    #[find]
    async fn count_all(&mut self) -> Result<u64>;

    /// Whether there is any.
    #[find(specification && version > 1)]
    async fn has_any(&mut self, specification: Specification<Plan>) -> Result<bool>;

    /// Twice as many.
    async fn count_twice(&mut self) -> Result<u64> {
        Ok(self.count_all().await? * 2)
    }
}

/// Deprecated as a whole, with what is deprecated inside.
#[deprecated(note = "a test")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "old")]
pub enum OldEvent {
    /// It was made.
    Made,
}

/// Of the event that is deprecated.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(sourced, event = OldEvent, snapshot(every = 10))]
#[allow(deprecated)]
pub struct Old {
    #[aggregate(id)]
    id: Id<Self>,
    #[aggregate(root)]
    root: Root<OldEvent>,
    #[deprecated(note = "a test")]
    count: i32,
}

#[allow(deprecated)]
impl Sourced for Old {
    fn apply(&mut self, event: &OldEvent) {
        match event {
            OldEvent::Made => self.count += 1,
        }
    }
}

/// A stop, which is no more.
#[deprecated(note = "a test")]
#[derive(Debug, Clone, PartialEq, Eq, Child)]
pub struct Stop {
    city: String,
    #[deprecated(note = "a test")]
    zone: i32,
}

/// An aggregate that is no more.
#[deprecated(note = "a test")]
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "no_more", event = PlanEvent)]
pub struct NoMore {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<PlanEvent>,
    count: i32,
}

/// A number that is no more.
#[deprecated(note = "a test")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueObject)]
pub struct OldCount(i32);

/// A size that is no more.
#[deprecated(note = "a test")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueObject)]
pub enum OldSize {
    /// There is another.
    Small,
}

/// A row of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, SqlRow)]
pub struct Count {
    #[deprecated(note = "a test")]
    number: i64,
}

/// A line with a key that is old.
#[derive(Debug, Clone, PartialEq, Eq, ReadModel)]
#[read_model(table = "old_line")]
pub struct OldLine {
    #[read_model(key)]
    #[deprecated(note = "a test")]
    id: i64,
    text: String,
}

mod inner {
    use cqrs_core::{Id, ReadModel};

    #[derive(Debug, Clone, PartialEq, Eq, ReadModel)]
    #[read_model(table = "inner")]
    pub(super) struct Inner {
        #[read_model(key)]
        pub(super) id: Id<Self>,
    }

    #[derive(Debug, Clone, PartialEq, Eq, ReadModel)]
    #[read_model(table = "unused_fields")]
    struct Unused {
        #[read_model(key)]
        id: Id<Self>,
    }
}

#[test]
fn nothing_is_reported() {
    assert_eq!(inner::Inner::fields().id.column(), "id");
    assert_eq!(Plan::fields().status.column(), "status");
    assert_eq!(Part::fields().number.column(), "number");
    assert_eq!(PlanLine::fields().text.column(), "text");
}
