//! What the guide shows besides its complete example.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cqrs_core::mapping::{ColumnError, RowMapper};
use cqrs_core::{
    Aggregate, AggregateRoot, CommandHandler, DomainError, DomainEvent, Entity, Envelope, Error,
    EventBus, Id, IdempotencyKey, InMemoryStore, ManualClock, Projection, Query, QueryHandler,
    RawPayload, ReadModels, Record, Repository, RequestContext, Result, Root, RowProjection,
    Specification, Store, StoreError, StoreErrorKind, TenantId, UnitOfWork, ValueObject,
};
use cqrs_sqlx::{
    PgStore, ProjectorHandle, SqlTransaction, Sqlite, SqliteStore, StoreOptions, SubscriptionState,
};
use serde::{Deserialize, Serialize};
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Order, OrderEvent, OrderList, OrderRow, Orders, pay};

type AnyResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

// Stores and their tables.

#[expect(dead_code, reason = "compiled, not run")]
async fn open() -> AnyResult {
    let store = SqliteStore::connect("sqlite:orders.db").await?;
    drop(store);

    let options = StoreOptions::default()
        .max_connections(20)
        .acquire_timeout(Duration::from_secs(2));
    let url = std::env::var("DATABASE_URL")?;
    let store = PgStore::connect_with(url.parse()?, options).await?;
    drop(store);
    Ok(())
}

#[expect(dead_code, reason = "compiled, not run")]
async fn open_store(url: &str) -> Result<PgStore, Box<dyn std::error::Error>> {
    let mut connection = PgConnection::connect(url).await?;
    Migrator::new(Path::new("migrations"))
        .await?
        .run(&mut connection)
        .await?;

    let store = PgStore::connect(url).await?;
    store.migrate().await?;
    store.verify(&[Order::table(), OrderRow::table()]).await?;
    Ok(store)
}

#[test]
fn tables_are_printed() {
    for table in [Order::table(), OrderRow::table()] {
        println!("{}", PgStore::create_table_sql(table));
    }
}

async fn in_memory_sqlite() -> AnyResult<SqliteStore> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), OrderRow::table()])
        .await?;
    Ok(store)
}

fn north() -> RequestContext {
    RequestContext::tenant(TenantId::new("north").expect("a plain name is a tenant"))
}

// Commands.

#[derive(Clone)]
struct PlaceOrder {
    customer: String,
}

struct PlaceOrderHandler;

impl<U: UnitOfWork> CommandHandler<U, PlaceOrder> for PlaceOrderHandler {
    type Output = Id<Order>;

    async fn handle(&self, uow: &mut U, command: PlaceOrder) -> Result<Id<Order>> {
        let order = Order::place(&command.customer);
        let id = order.id;
        uow.save(order)?;
        Ok(id)
    }
}

pub(super) struct OrdersOf;

impl<M: ReadModels> QueryHandler<M, String> for OrdersOf {
    type Output = Vec<OrderRow>;

    async fn handle(&self, read_models: &M, customer: String) -> Result<Vec<OrderRow>> {
        let fields = OrderRow::fields();
        let query = Query::filter(fields.customer.eq(customer))
            .order_by(fields.id.desc())
            .limit(20);
        read_models.query(query).await
    }
}

async fn pay_oldest<U: UnitOfWork>(uow: &mut U) -> Result<Option<Id<Order>>> {
    let Some(mut order) = uow.repository::<Order>().find_unpaid(1).await?.pop() else {
        return Ok(None);
    };
    let id = order.id;
    order.pay();
    uow.save(order)?;
    Ok(Some(id))
}

#[derive(Debug)]
struct NotPaid;

impl std::fmt::Display for NotPaid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the order is not paid")
    }
}

impl std::error::Error for NotPaid {}
impl DomainError for NotPaid {}

impl Order {
    fn check_paid(&self) -> Result<(), NotPaid> {
        if self.paid { Ok(()) } else { Err(NotPaid) }
    }
}

async fn ship<U: UnitOfWork>(uow: &mut U, id: Id<Order>) -> Result<()> {
    let order = uow.get::<Order>(id).await?;
    order.check_paid()?;
    // ...
    Ok(())
}

async fn pay_as_seen<S: Store>(
    store: &S,
    ctx: &RequestContext,
    id: Id<Order>,
    seen: u64,
) -> Result<()> {
    let paid = store.execute(ctx, async |uow| {
        let mut order: Order = uow.get(id).await?;
        order.expect_version(seen)?;
        order.pay();
        uow.save(order)
    });
    paid.await.map(drop)
}

pub(super) fn http_status(error: &Error) -> u16 {
    if error.domain::<NotPaid>().is_some() {
        return 422;
    }
    match error {
        // What the client sent cannot be right.
        Error::Domain(_) | Error::InvalidTenant(_) => 400,
        // It cannot be stored, as text with a NUL character.
        Error::Payload(_) => 400,
        Error::Mapping(error) if matches!(error.reason, ColumnError::Invalid(_)) => 400,
        error if error.is_not_found() => 404,
        Error::UnexpectedVersion { .. } => 412,
        error if error.is_conflict() => 409,
        error if error.is_retryable() => 503,
        Error::Store(error) => store_status(error),
        _ => 500,
    }
}

fn store_status(error: &StoreError) -> u16 {
    match error.kind() {
        StoreErrorKind::KeyReused => 422,
        StoreErrorKind::Constraint { name: Some(name) } if name == "orders_number_key" => 409,
        StoreErrorKind::PoolTimedOut => 503,
        StoreErrorKind::OutcomeUnknown | StoreErrorKind::TimedOut => 504,
        _ => 500,
    }
}

#[tokio::test]
async fn an_order_is_paid() -> Result<(), Box<dyn std::error::Error>> {
    let store = InMemoryStore::new();
    store.subscribe_rows(OrderList)?;
    let ctx = RequestContext::tenant(TenantId::new("north")?);

    let command = PlaceOrder {
        customer: "Ada".into(),
    };
    let receipt = store.dispatch(&ctx, &PlaceOrderHandler, command).await?;
    let id = receipt.into_output();
    let error = store.execute(&ctx, async |uow| ship(uow, id).await).await;
    assert!(error.is_err_and(|error| error.domain::<NotPaid>().is_some()));

    let receipt = store.execute(&ctx, async |uow| pay(uow, id).await).await?;
    store.wait_for(&receipt, OrderList::NAME).await?;
    let rows = store.ask(&ctx, &OrdersOf, "Ada".to_owned()).await?;
    assert!(rows[0].paid);
    assert_eq!(store.events().len(), 2);
    Ok(())
}

#[tokio::test]
async fn what_others_have_changed_is_not_overwritten() -> Result<()> {
    let store = InMemoryStore::new();
    let ctx = RequestContext::tenant(TenantId::new("north")?);
    let command = PlaceOrder {
        customer: "Ada".into(),
    };
    let receipt = store.dispatch(&ctx, &PlaceOrderHandler, command).await?;
    let id = receipt.into_output();
    pay_as_seen(&store, &ctx, id, 1).await?;
    let error = pay_as_seen(&store, &ctx, id, 1).await;
    assert_eq!(error.map_err(|error| http_status(&error)).err(), Some(412));
    Ok(())
}

#[tokio::test]
async fn tenants_and_finders() -> AnyResult {
    let store = in_memory_sqlite().await?;
    let ctx = RequestContext::tenant(TenantId::new("north")?)
        .with_actor("kim@north")
        .with_correlation_id(Uuid::now_v7());

    let order = Order::place("Ada");
    let receipt = store
        .execute(&ctx, async |uow| {
            uow.save(order.clone())?;
            uow.repository::<Order>().count_unpaid_of("Ada").await
        })
        .await?;
    assert_eq!(*receipt.output(), 1);
    assert_eq!(receipt.events().len(), 1);

    let ctx = RequestContext::system().with_actor("month-end");
    let paid = store
        .execute(&ctx, async |uow| pay_oldest(uow).await)
        .await?;
    assert!(paid.into_output().is_some());

    let fields = Order::fields();
    let of_ada: Specification<Order> = fields.customer.eq("Ada") & !fields.updated_by.is_null();
    let receipt = store
        .execute(&ctx, async |uow| {
            let query = Query::filter(of_ada.clone()).order_by(Order::fields().created_at.desc());
            uow.repository::<Order>().query(query).await
        })
        .await?;
    assert_eq!(receipt.output().len(), 1);

    let error = store
        .execute(&ctx, async |uow| uow.save(Order::place("Ben")))
        .await
        .expect_err("whose is it?");
    assert!(matches!(error, Error::TenantRequired { .. }));
    assert_eq!(http_status(&error), 500);

    let error = store
        .execute(&ctx, async |uow| ship(uow, Id::new()).await)
        .await;
    assert_eq!(error.map_err(|error| http_status(&error)).err(), Some(404));

    let nul = store
        .execute(&north(), async |uow| uow.save(Order::place("Ada\0")))
        .await;
    assert_eq!(nul.map_err(|error| http_status(&error)).err(), Some(400));
    let nul = store.ask(&north(), &OrdersOf, "Ada\0".to_owned()).await;
    assert_eq!(nul.map_err(|error| http_status(&error)).err(), Some(400));
    let tenant = TenantId::new("").map_err(|error| http_status(&error.into()));
    assert_eq!(tenant.err(), Some(400));
    let (one, other) = (
        IdempotencyKey::new("k")?.for_request(&"a")?,
        IdempotencyKey::new("k")?.for_request(&"b")?,
    );
    let _ = store.execute_once(&north(), &one, async |_| Ok(1)).await?;
    let reused = store.execute_once(&north(), &other, async |_| Ok(1)).await;
    assert_eq!(reused.map_err(|error| http_status(&error)).err(), Some(422));
    Ok(())
}

// Projectors.

async fn run_service(store: &SqliteStore, shutdown: impl Future<Output = ()>) -> Result<()> {
    let projector: ProjectorHandle = store
        .projector()
        .rows(OrderList)
        .poll_interval(Duration::from_millis(100))
        .start()
        .await?;

    shutdown.await;
    projector.stop(Duration::from_secs(10)).await;
    Ok(())
}

async fn resume_halted(store: &SqliteStore, context: &RequestContext) -> Result<()> {
    for status in store.subscriptions().await? {
        if let SubscriptionState::Halted(failure) = status.state {
            eprintln!("{failure}");
            store.operations(context)?.resume(&failure.name).await?;
        }
    }
    Ok(())
}

/// Counts the orders of each customer with SQL of its own.
struct CustomerCounts;

impl Projection<SqlTransaction<Sqlite>> for CustomerCounts {
    type Event = OrderEvent;

    fn name(&self) -> &str {
        "customer_counts"
    }

    async fn apply(
        &self,
        page: &[Envelope<OrderEvent>],
        transaction: &mut SqlTransaction<Sqlite>,
    ) -> Result<()> {
        for event in page {
            if let OrderEvent::Placed { customer, .. } = event.payload() {
                sqlx::query(
                    "INSERT INTO customer_count (customer, orders) VALUES ($1, 1)
                     ON CONFLICT (customer) DO UPDATE SET orders = orders + 1",
                )
                .bind(customer)
                .execute(&mut *transaction.connection())
                .await
                .map_err(Sqlite::error)?;
            }
        }
        Ok(())
    }
}

/// Hands events to a webhook, a broker, or this vector.
#[derive(Clone, Default)]
struct Outgoing(Arc<std::sync::Mutex<Vec<String>>>);

impl EventBus for Outgoing {
    async fn publish(&self, page: &[Envelope<RawPayload>]) -> Result<()> {
        let mut sent = self.0.lock().map_err(|_| Error::other("poisoned"))?;
        sent.extend(page.iter().map(|event| event.event_type().to_owned()));
        Ok(())
    }
}

#[tokio::test]
async fn own_sql_and_a_relay() -> AnyResult {
    let store = in_memory_sqlite().await?;
    let ctx = north();

    let receipt = store
        .execute(&ctx, async |uow| {
            uow.save(Order::place("Ada"))?;
            sqlx::query("CREATE TABLE customer_count (customer TEXT PRIMARY KEY, orders INTEGER)")
                .execute(&mut *uow.connection().await?)
                .await
                .map_err(Sqlite::error)?;
            Ok(())
        })
        .await?;
    assert_eq!(receipt.events().len(), 1);

    let bus = Outgoing::default();
    let applied = store
        .projector()
        .projection(CustomerCounts)
        .relay("outgoing", bus.clone())
        .run_until_idle()
        .await?;
    assert_eq!(applied, 2);
    assert_eq!(*bus.0.lock().expect("not poisoned"), ["order.placed"]);

    run_service(&store, async {}).await?;
    resume_halted(&store, &RequestContext::system()).await?;
    Ok(())
}

#[tokio::test]
async fn times_can_be_set() -> AnyResult {
    let clock = Arc::new(ManualClock::new("2024-02-03T04:05:06Z".parse()?));
    let store = InMemoryStore::new().with_clock(clock.clone());
    store
        .execute(&north(), async |uow| uow.save(Order::place("Ada")))
        .await?;
    clock.set("2024-02-04T00:00:00Z".parse()?);
    assert_eq!(
        store.events()[0].occurred_at().to_rfc3339(),
        "2024-02-03T04:05:06+00:00"
    );
    Ok(())
}

// The mapping.

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "site")]
enum SiteEvent {
    Opened,
    #[event(name = "site.moved_away", version = 2, since = 2)]
    Moved {
        x: f64,
        y: f64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
struct Point {
    x: f64,
    y: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
struct SquareMetres(u32);

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
enum SiteKind {
    Depot,
    #[value_object(name = "cross_dock")]
    Transit,
}

mod whole_cents {
    pub(super) fn to_column(euros: &f64) -> i64 {
        (euros * 100.0).round() as i64
    }

    pub(super) fn from_column(cents: i64) -> Result<f64, String> {
        Ok(cents as f64 / 100.0)
    }
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "site", event = SiteEvent, tenant = "org_id", soft_delete, audit)]
struct Site {
    #[aggregate(id)]
    id: Id<Site>,
    #[aggregate(root)]
    root: Root<SiteEvent>,
    kind: SiteKind,
    area: SquareMetres,
    note: Option<String>,
    #[mapper(column = "display_name")]
    name: String,
    #[mapper(text)]
    gateway: std::net::IpAddr,
    #[mapper(json)]
    tags: Vec<String>,
    #[mapper(flatten)]
    entrance: Point,
    #[mapper(flatten, prefix = "exit_")]
    way_out: Option<Point>,
    #[mapper(with = whole_cents, as = i64)]
    rent: f64,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "legacy_site", event = SiteEvent)]
#[mapper(row = LegacySiteRow)]
struct LegacySite {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<SiteEvent>,
    is_open: bool,
}

#[derive(Record)]
struct LegacySiteRow {
    #[record(key)]
    site_no: i64,
    state: String,
}

impl RowMapper<LegacySite> for LegacySiteRow {
    type Error = String;

    fn from_aggregate(site: &LegacySite) -> Self {
        let state = if site.is_open { "O" } else { "C" };
        Self {
            site_no: site.id,
            state: state.to_owned(),
        }
    }

    fn into_aggregate(self, root: Root<SiteEvent>) -> Result<LegacySite, String> {
        let is_open = match self.state.as_str() {
            "O" => true,
            "C" => false,
            other => return Err(format!("unknown state {other:?}")),
        };
        Ok(LegacySite {
            id: self.site_no,
            root,
            is_open,
        })
    }
}

#[tokio::test]
async fn every_mapping_comes_back() -> AnyResult {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    store
        .create_tables(&[Site::table(), LegacySite::table()])
        .await?;
    store.verify(&[Site::table(), LegacySite::table()]).await?;
    let mut root = Root::new();
    root.raise(SiteEvent::Opened);
    root.raise(SiteEvent::Moved { x: 1.0, y: 2.0 });
    let site = Site {
        id: Id::new(),
        root,
        kind: SiteKind::Transit,
        area: SquareMetres(70),
        note: None,
        name: "North gate".into(),
        gateway: "10.0.0.1".parse()?,
        tags: vec!["a".into()],
        entrance: Point { x: 1.0, y: 2.0 },
        way_out: None,
        rent: 12.5,
    };
    let id = site.id;
    store
        .execute(&north(), async |uow| uow.save(site.clone()))
        .await?;
    let legacy = LegacySite {
        id: 7,
        root: Root::new(),
        is_open: true,
    };
    store
        .execute(&north(), async |uow| uow.save(legacy.clone()))
        .await?;
    let receipt = store
        .execute(&north(), async |uow| uow.get::<Site>(id).await)
        .await?;
    let found = receipt.into_output();
    assert_eq!(found.root.version(), 2);
    assert_eq!(
        (found.kind, found.area, found.note),
        (site.kind, site.area, None)
    );
    assert_eq!(
        (found.name, found.gateway, found.tags),
        (site.name, site.gateway, site.tags)
    );
    assert_eq!(
        (found.entrance, found.way_out, found.rent),
        (site.entrance, None, 12.5)
    );
    Ok(())
}
