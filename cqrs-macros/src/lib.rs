//! The derives of `cqrs-core`, and its `#[repository]` attribute.
//!
//! Use them through `cqrs_core`, which re-exports them. They emit constants, one impl of a trait
//! and a struct of typed fields; behaviour is in ordinary functions of `cqrs-core`.
//!
//! # Mapping fields to columns
//!
//! [`Aggregate`](macro@Aggregate), [`ReadModel`](macro@ReadModel), [`Record`](macro@Record) and
//! [`ValueObject`](macro@ValueObject) share `#[mapper(...)]`, written on a field:
//!
//! | attribute | the field is stored |
//! |---|---|
//! | none | in one column, by its type's `ColumnValue` |
//! | `text` | as text, by `Display` and `FromStr` |
//! | `json` | as a JSON document, by serde; no condition can compare it |
//! | `flatten` | in the columns of a `ValueObject`; `Option` makes all of them NULL |
//! | `prefix = "depot_"` | with `flatten`: in front of those columns' names; the field's name and `_` otherwise, `""` for none |
//! | `with = path::to::module, as = i64` | in a column of type `i64`, by `module::to_column(&T) -> i64` and `module::from_column(i64) -> Result<T, E>`, where `E` is `Display` |
//! | `column = "name"` | in the column of this name, otherwise that of the field |
//! | `children(table = "route_stop")` | a `Vec` of [`Child`](macro@Child)ren of an aggregate, in rows of a table of their own; `order = "seq"` names the column of their place, otherwise `position`, and `parent = "plan_id"` that of the aggregate's key, otherwise its table and key: `route_plan_id` |
//! | `generated` | in a column that the database computes: it is read and never written |
//! | `read_only` | in a column that someone else writes: it is read and never written |
//!
//! An `Option` in front of a `text`, `json` or `with` field is NULL where it is `None`. It is
//! found by its spelling, so write `Option<T>` and not an alias. Names of tables and columns are
//! 1 to 63 characters of a-z, 0-9 and `_`, not starting with a digit.
//!
//! Every macro has a `crate = "path::to::cqrs_core"` for crates that re-export `cqrs_core` under
//! another path, as in `#[aggregate(crate = "...")]` or `#[repository(crate = "...")]`.
//!
//! # Architecture invariants
//!
//! Each macro parses, checks and emits; only the first two can fail, and all errors of one call
//! are reported at once. After an error a stub is emitted, so that the rest of the crate is still
//! checked. `symbol.rs` has all attribute names. Nothing here knows a database.

mod aggregate;
mod attribute;
mod child;
mod domain_event;
mod entity;
mod errors;
mod event_set;
mod input;
mod mapper;
mod naming;
mod read_model;
mod record;
mod repository;
mod sql_row;
mod symbol;
mod types;
mod value_object;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct with named fields an aggregate root that is stored in a table.
///
/// Emits `Entity` and `AggregateRoot`, a struct `<Name>Fields` of typed fields for conditions and
/// orders, and the function `<Name>::fields()` that makes it. The framework's `version` and audit
/// columns have typed fields too.
///
/// | on the struct | meaning |
/// |---|---|
/// | `#[aggregate(table = "route_plan")]` | its table; required, unless it is event-sourced |
/// | `#[aggregate(event = RoutePlanEvent)]` | what happens to it; required |
/// | `#[aggregate(tenant)]` | rows belong to a tenant, in the column `tenant_id`, or `tenant = "org_id"` |
/// | `#[aggregate(soft_delete)]` | removed rows stay, marked by `deleted_at` and `deleted_by` |
/// | `#[aggregate(history)]` | a revision is kept with each change: see `EventHistory::revisions` |
/// | `#[aggregate(audit)]` | keeps `created_at`, `created_by`, `updated_at` and `updated_by` |
/// | `#[aggregate(chained)]` | each event covers the one before, so that changes in the database are found; a row keeps the last link in `chain_head` |
/// | `#[aggregate(sourced)]` | its state is the fold of its events: no table, no columns; it implements `Sourced` |
/// | `#[aggregate(snapshot(every = 100))]` | of an event-sourced one, a snapshot after that many events; also after `max_age = Duration::from_secs(86_400)`; `version = 2` makes those of before unreadable |
/// | `#[aggregate(crate = "...")]` | another path to `cqrs_core` |
/// | `#[mapper(row = RoutePlanRow)]` | a row struct that derives [`Record`](macro@Record) is the shape of the table; it implements `RowMapper` |
///
/// | on a field | meaning |
/// |---|---|
/// | `#[aggregate(id)]` | its identity, the key of the table; exactly one |
/// | `#[aggregate(root)]` | its `Root<Event>`; exactly one |
/// | `#[mapper(...)]` | how the field is stored: [mapping](crate#mapping-fields-to-columns) |
///
/// # Example
///
/// ```
/// use cqrs_core::{Aggregate, DomainEvent, Entity, Id, Root};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
/// #[event(aggregate = "route_plan")]
/// enum RoutePlanEvent {
///     Created { stops: u32 },
/// }
///
/// #[derive(Debug, Clone, Aggregate)]
/// #[aggregate(table = "route_plan", event = RoutePlanEvent, tenant, audit)]
/// struct RoutePlan {
///     #[aggregate(id)]
///     id: Id<RoutePlan>,
///     #[aggregate(root)]
///     root: Root<RoutePlanEvent>,
///     priority: i32,
///     #[mapper(json)]
///     stops: Vec<String>,
/// }
///
/// impl RoutePlan {
///     fn new(stops: Vec<String>) -> Self {
///         let mut root = Root::new();
///         root.raise(RoutePlanEvent::Created { stops: 2 });
///         Self { id: Id::new(), root, priority: 3, stops }
///     }
/// }
///
/// let plan = RoutePlan::new(vec!["Graz".into(), "Linz".into()]);
/// let urgent = RoutePlan::fields().priority.ge(3);
/// assert!(urgent.is_satisfied_by(&plan)?);
/// assert_eq!(RoutePlan::table().own_columns().len(), 3);
/// # Ok::<(), cqrs_core::mapping::MappingError>(())
/// ```
#[proc_macro_derive(Aggregate, attributes(aggregate, mapper))]
pub fn derive_aggregate(input: TokenStream) -> TokenStream {
    aggregate::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Makes a struct with named fields a child: a part of an aggregate that is a row of a table of its
/// own.
///
/// Emits `Child`, a struct `<Name>Fields` of typed fields for conditions, and the function
/// `<Name>::fields()` that makes it. The aggregate holds a `Vec` of them in a field with
/// `#[mapper(children(...))]`.
///
/// | on the struct | meaning |
/// |---|---|
/// | `#[child(crate = "...")]` | another path to `cqrs_core` |
///
/// | on a field | meaning |
/// |---|---|
/// | `#[child(key)]` | its key, unique within its aggregate; without one a child is known by its place |
/// | `#[mapper(...)]` | how the field is stored: [mapping](crate#mapping-fields-to-columns) |
///
/// # Example
///
/// ```
/// use cqrs_core::{Aggregate, Child, DomainEvent, Entity, Id, Root};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
/// #[event(aggregate = "route_plan")]
/// enum RoutePlanEvent {
///     Created {},
/// }
///
/// #[derive(Debug, Clone, Child)]
/// struct Stop {
///     city: String,
///     minutes: i32,
/// }
///
/// #[derive(Debug, Clone, Aggregate)]
/// #[aggregate(table = "route_plan", event = RoutePlanEvent)]
/// struct RoutePlan {
///     #[aggregate(id)]
///     id: Id<RoutePlan>,
///     #[aggregate(root)]
///     root: Root<RoutePlanEvent>,
///     #[mapper(children(table = "route_stop", order = "seq"))]
///     stops: Vec<Stop>,
/// }
///
/// let stops = &RoutePlan::table().children()[0];
/// let columns: Vec<&str> = stops.columns().iter().map(|column| column.name()).collect();
/// assert_eq!(columns, ["route_plan_id", "seq", "city", "minutes"]);
/// let in_graz = RoutePlan::fields().stops.any_child(Stop::fields().city.eq("Graz"));
/// assert_eq!(in_graz.describe(), r#"any route_stop (city = "Graz")"#);
/// ```
#[proc_macro_derive(Child, attributes(child, mapper))]
pub fn derive_child(input: TokenStream) -> TokenStream {
    child::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Makes an enum the events of an aggregate, a variant for each event type; or a struct one event
/// type.
///
/// Emits `DomainEvent`. Derive serde's `Serialize` and `Deserialize` next to it. The log holds
/// the content of the variant; so the serde attributes that would change that shape or leave a
/// variant out are refused.
///
/// | on the enum or struct | meaning |
/// |---|---|
/// | `#[event(aggregate = "route_plan")]` | the type of the aggregate in the log: a-z, 0-9 and `_`, starting with a letter; required |
/// | `#[event(crate = "...")]` | another path to `cqrs_core` |
///
/// | on a variant, or the struct | meaning |
/// |---|---|
/// | `#[event(name = "route_plan.sent")]` | the name of the event type in the log; otherwise the aggregate and the variant's name in snake case, `route_plan.dispatched` |
/// | `#[event(version = 2)]` | the version of its payload's schema, from 1; otherwise 1 |
/// | `#[event(upcast(1 = from_version_1))]` | how payloads of an older version are lifted to the next: a function from the old to the next content, each a type with serde's derives or a `serde_json::Value`; required for each version before |
/// | `#[event(since = 2)]` | no event of an older version was ever written |
/// | `#[event(was("route_plan.left"))]` | names that the event type had; old events are read under them |
///
/// # Example
///
/// ```
/// use cqrs_core::DomainEvent;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
/// #[event(aggregate = "route_plan")]
/// enum RoutePlanEvent {
///     Created { stops: u32 },
///     #[event(name = "route_plan.sent", version = 2, upcast(1 = named_driver))]
///     Dispatched { driver: String },
/// }
///
/// #[derive(Deserialize)]
/// struct SentV1 {
///     driver_name: String,
/// }
///
/// #[derive(Serialize)]
/// struct SentV2 {
///     driver: String,
/// }
///
/// fn named_driver(old: SentV1) -> SentV2 {
///     SentV2 { driver: old.driver_name }
/// }
///
/// let event = RoutePlanEvent::Dispatched { driver: "Kim".into() };
/// assert_eq!(event.event_type().name, "route_plan.sent");
/// assert_eq!(event.event_type().schema_version, 2);
/// assert_eq!(RoutePlanEvent::EVENT_TYPES[0].name, "route_plan.created");
/// ```
#[proc_macro_derive(DomainEvent, attributes(event, serde))]
pub fn derive_domain_event(input: TokenStream) -> TokenStream {
    domain_event::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Makes an enum the events of several aggregates, for consumers that follow more than one: a variant
/// for each aggregate, which holds its events.
///
/// Emits `EventSet`. A consumer of it reads the events of these aggregates alone, in the order of the
/// log; each is decoded as its own type is, with its upcasters and former names.
///
/// What a variant holds is a type with [`DomainEvent`](macro@DomainEvent), each of another aggregate;
/// sets do not nest.
///
/// | on the enum | meaning |
/// |---|---|
/// | `#[event_set(crate = "...")]` | another path to `cqrs_core` |
///
/// # Example
///
/// ```
/// use cqrs_core::{DomainEvent, Envelope, EventSet};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
/// #[event(aggregate = "order")]
/// enum OrderEvent {
///     Placed { cents: i64 },
/// }
///
/// #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
/// #[event(aggregate = "payment")]
/// enum PaymentEvent {
///     Received { order: String, cents: i64 },
/// }
///
/// #[derive(Debug, EventSet)]
/// enum Checkout {
///     Order(OrderEvent),
///     Payment(PaymentEvent),
/// }
///
/// /// To which order an event belongs: the id of the aggregate, or what a payment says.
/// fn order_of(event: &Envelope<Checkout>) -> &str {
///     match event.payload() {
///         Checkout::Order(_) => event.aggregate_id_str(),
///         Checkout::Payment(PaymentEvent::Received { order, .. }) => order,
///     }
/// }
///
/// assert_eq!(Checkout::aggregate_types(), Some(&["order", "payment"][..]));
/// assert!(Checkout::may_hold("payment.received"));
/// ```
#[proc_macro_derive(EventSet, attributes(event_set, event))]
pub fn derive_event_set(input: TokenStream) -> TokenStream {
    event_set::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Makes a struct with named fields the row of a read table.
///
/// Emits `Entity` and `ReadModel`, a struct `<Name>Fields` of typed fields, and the function
/// `<Name>::fields()` that makes it. The struct is also `Clone`.
///
/// | attribute | meaning |
/// |---|---|
/// | `#[read_model(table = "route_plan_list")]` | its table; required |
/// | `#[read_model(tenant)]` | rows belong to a tenant, in the column `tenant_id`, or `tenant = "org_id"` |
/// | `#[read_model(shared)]` | rows have no tenant, and events of all tenants are folded into them. Without it an event of a tenant halts the projection of a row type that has no tenants |
/// | `#[read_model(crate = "...")]` | another path to `cqrs_core` |
/// | on a field: `#[read_model(key)]` | part of the key, unique within a tenant; one to three fields, whose types in their order are `ReadModel::Key` |
/// | on a field: `#[mapper(...)]` | how the field is stored: [mapping](crate#mapping-fields-to-columns) |
///
/// # Example
///
/// ```
/// use cqrs_core::ReadModel;
///
/// #[derive(Debug, Clone, ReadModel)]
/// #[read_model(table = "depot_day", tenant)]
/// struct DepotDay {
///     #[read_model(key)]
///     depot: String,
///     #[read_model(key)]
///     day: i32,
///     routes: u32,
/// }
///
/// let row = DepotDay { depot: "Graz".into(), day: 11, routes: 4 };
/// assert_eq!(row.key(), ("Graz".to_owned(), 11));
/// assert_eq!(DepotDay::fields().routes.column(), "routes");
/// ```
#[proc_macro_derive(ReadModel, attributes(read_model, mapper))]
pub fn derive_read_model(input: TokenStream) -> TokenStream {
    read_model::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Makes a struct with named fields the row of an aggregate whose table has another shape than
/// the aggregate.
///
/// Emits `Record`, and a struct `<Name>Fields<T>` of typed fields, which conditions on the
/// aggregate use. Implement `cqrs_core::mapping::RowMapper` for it, and name it in the
/// aggregate's `#[mapper(row = ...)]`. The framework's columns are not part of it.
///
/// | attribute | meaning |
/// |---|---|
/// | `#[record(crate = "...")]` | another path to `cqrs_core` |
/// | on a field: `#[record(key)]` | the aggregate's id; exactly one |
/// | on a field: `#[mapper(...)]` | how the field is stored: [mapping](crate#mapping-fields-to-columns) |
///
/// # Example
///
/// ```
/// use cqrs_core::mapping::Table;
/// use cqrs_core::{Id, Record};
///
/// struct Parcel;
///
/// #[derive(Record)]
/// struct ParcelRow {
///     #[record(key)]
///     id: Id<Parcel>,
///     #[mapper(column = "weight_kg")]
///     kilograms: f64,
/// }
///
/// let table = ParcelRow::describe(Table::builder("parcel")).build();
/// assert_eq!(table.columns()[1].name(), "weight_kg");
/// ```
#[proc_macro_derive(Record, attributes(record, mapper))]
pub fn derive_record(input: TokenStream) -> TokenStream {
    record::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Makes a struct a row of a finder with `#[sql]`: its fields are found among the columns of the
/// result by their names, in any order and among others.
///
/// | attribute | meaning |
/// |---|---|
/// | `#[sql_row(crate = "...")]` | another path to `cqrs_core` |
/// | on a field: `#[mapper(...)]` | how the field is stored: [mapping](crate#mapping-fields-to-columns) |
///
/// # Example
///
/// ```
/// use cqrs_core::{SqlRow, mapping::Value, mapping::ValueRow};
///
/// #[derive(Debug, PartialEq, SqlRow)]
/// struct Total {
///     customer: String,
///     #[mapper(column = "n")]
///     orders: u32,
/// }
///
/// let columns = Total::columns();
/// assert_eq!(columns.places(&["n", "more", "customer"]), Ok(vec![2, 0]));
/// let row = ValueRow::new(vec![Value::Text("Ada".into()), Value::Int(3)]);
/// assert_eq!(Total::read(&row)?, Total { customer: "Ada".into(), orders: 3 });
/// # Ok::<(), cqrs_core::mapping::MappingError>(())
/// ```
#[proc_macro_derive(SqlRow, attributes(sql_row, mapper))]
pub fn derive_sql_row(input: TokenStream) -> TokenStream {
    sql_row::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Makes a type part of what aggregates and read models store.
///
/// | on | emits | stored |
/// |---|---|---|
/// | a struct with named fields | `ValueObject` | in a group of columns, by fields with `#[mapper(flatten)]` |
/// | a tuple struct of one field | `ColumnValue` | as what it wraps; never NULL |
/// | an enum without fields | `ColumnValue` | as text, by the names of its variants in snake case |
///
/// A value read from the database is made without a constructor. A type that must check what it
/// reads implements `FromStr` and is stored with `#[mapper(text)]`, or through
/// `#[mapper(with = module, as = ...)]`. An enum is ordered by its names, as text.
///
/// | attribute | meaning |
/// |---|---|
/// | `#[value_object(crate = "...")]` | another path to `cqrs_core` |
/// | on a variant: `#[value_object(name = "in_transit")]` | the stored name |
/// | on a field: `#[mapper(...)]` | how the field is stored: [mapping](crate#mapping-fields-to-columns) |
///
/// # Example
///
/// ```
/// use cqrs_core::{ColumnValue, ValueObject, mapping::Value};
///
/// #[derive(ValueObject)]
/// struct GeoPoint {
///     x: f64,
///     y: f64,
/// }
///
/// #[derive(ValueObject)]
/// struct Priority(i32);
///
/// #[derive(ValueObject)]
/// enum RouteStatus {
///     Ready,
///     #[value_object(name = "moving")]
///     InTransit,
/// }
///
/// assert_eq!(GeoPoint::COLUMNS, 2);
/// assert_eq!(Priority(3).to_value()?, Value::Int(3));
/// assert_eq!(RouteStatus::Ready.to_value()?, Value::Text("ready".into()));
/// assert_eq!(RouteStatus::InTransit.to_value()?, Value::Text("moving".into()));
/// # Ok::<(), cqrs_core::mapping::ColumnError>(())
/// ```
#[proc_macro_derive(ValueObject, attributes(value_object, mapper))]
pub fn derive_value_object(input: TokenStream) -> TokenStream {
    value_object::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Makes a trait the repository of one aggregate or read model, with finders that carry meaning.
///
/// The trait extends `Repository<A>` and nothing else. Every `Repository<A>` gets it, on every
/// store. A finder is an `async fn` with `&mut self` and `#[find(...)]`; its future is `Send`. For
/// a read model it extends `ReadModelRepository<R>`, and its finders take `&self`. Methods with a body stay as they are, and an async one gets a future that is `Send`.
///
/// | in `#[find(...)]` | meaning |
/// |---|---|
/// | nothing | all |
/// | `status == RouteStatus::Ready && priority >= min` | the condition, first: `==`, `!=`, `<`, `<=`, `>`, `>=` with a field on the left and any expression on the right, where the method's parameters are in scope; joined by `&&`, `\|\|`, `!` and parentheses |
/// | `urgent` | a field that is true |
/// | `note.is_null()`, `name.starts_with(start)`, `stops.between(2, 5)`, `status.in_(among)` | a method of the typed field |
/// | `depot.x > west`, `details.key("city").as_text() == city` | a column of a value object, a place in a JSON document |
/// | `specification` | a parameter of type `Specification<A>`; also as a part of a condition |
/// | `order_by(priority.desc(), created_at.asc())` | the order; then that of the key |
/// | `limit(20)` | at most as many; only for a list |
/// | `one` | one row is expected: a second is the error `NotUnique` |
/// | `lock` | what is found is locked until the unit of work ends; not for read models |
/// | `lock, skip_locked` | the same, without the rows that others have locked |
///
/// A field named `one`, `lock` or `skip_locked` is asked for with a comparison: `lock == true`.
///
/// A parameter named `limit`, of an unsigned type, is a limit too; with both, the smaller one.
///
/// | returns | asks |
/// |---|---|
/// | `Result<Vec<A>>` | for all |
/// | `Result<Page<A>>` | for a page; a parameter of type `PageRequest` says which |
/// | `Result<Option<A>>` | for the first of the order; with `one`, for the only one |
/// | `Result<A>`, with `one` | for the only one; `NotFound` where there is none |
/// | `Result<u64>` | how many there are |
/// | `Result<bool>` | whether there is any |
///
/// # SQL
///
/// A trait that extends `SqlQueries` besides (`SqlReads` for a read model) may have finders with
/// `#[sql(...)]`. They run in databases alone; what has no such trait, as the repository in memory,
/// has none of the finders.
///
/// | in `#[sql(...)]` | meaning |
/// |---|---|
/// | `"SELECT ... WHERE cents >= :least"` | the statement, a literal: each `:name` is a parameter of the method, and each parameter is named |
/// | `postgres = "...", sqlite = "..."` | a text for each database; beside one for all others, or alone |
/// | `:tenant` in the text | the tenant of the scope; it is bound by the framework |
/// | `all_tenants` | the statement reads the rows of all tenants, and needs the scope of the system |
/// | `without_tenant` | its rows belong to no tenant |
/// | `lock` | it locks rows (`FOR UPDATE` in the text), and opens the transaction for that |
///
/// What stands in quotes and comments, and `::`, names no parameter. Parameters are values of one
/// column, references to such, `&str`, `&[u8]`, and lists (`&[T]`, `Vec<T>`): an array in Postgres,
/// in SQLite a JSON array for `json_each`.
///
/// | returns | asks |
/// |---|---|
/// | `Result<Vec<T>>` | for all rows |
/// | `Result<Option<T>>` | for the only row, if there is one; a second is the error `NotUnique` |
/// | `Result<T>` | for the only row; `NotFound` where there is none |
///
/// `T` is a struct with `#[derive(SqlRow)]`, the aggregate, a read model, a tuple of columns, or
/// one column. For the trait `OrderReports` the macro makes `ORDER_REPORTS_SQL`, the list of its
/// statements: pass it to `verify_sql` of the store at start-up.
///
/// `#[repository(crate = "...")]` gives another path to `cqrs_core`.
///
/// # Example
///
/// ```
/// use cqrs_core::{
///     Aggregate, DomainEvent, Id, Repository, Result, Root, UnitOfWork, ValueObject, repository,
/// };
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
/// # #[event(aggregate = "route_plan")]
/// # enum RoutePlanEvent { Created }
/// # #[derive(Debug, Clone, Copy, ValueObject)]
/// # enum RouteStatus { Ready, Closed }
///
/// #[derive(Debug, Clone, Aggregate)]
/// #[aggregate(table = "route_plan", event = RoutePlanEvent, audit)]
/// struct RoutePlan {
///     #[aggregate(id)]
///     id: Id<RoutePlan>,
///     #[aggregate(root)]
///     root: Root<RoutePlanEvent>,
///     status: RouteStatus,
///     priority: i32,
/// }
///
/// #[repository]
/// trait RoutePlans: Repository<RoutePlan> {
///     /// Those to drive next.
///     #[find(status == RouteStatus::Ready, order_by(priority.desc(), created_at.asc()))]
///     async fn find_ready(&mut self, limit: u32) -> Result<Vec<RoutePlan>>;
///
///     #[find(status == RouteStatus::Ready && priority >= min)]
///     async fn count_urgent(&mut self, min: i32) -> Result<u64>;
/// }
///
/// async fn next<U: UnitOfWork>(uow: &mut U) -> Result<Vec<RoutePlan>> {
///     uow.repository::<RoutePlan>().find_ready(3).await
/// }
/// ```
#[proc_macro_attribute]
pub fn repository(arguments: TokenStream, item: TokenStream) -> TokenStream {
    repository::expand(arguments.into(), item.into()).into()
}
