//! The complete example of the guide, compiled and run on SQLite in memory; and the checks that
//! the pages show no code that is not compiled here or in the files beside.

mod api_map;
mod audit;
mod backup;
mod consistency;
mod deployment;
mod event_sets;
mod event_sourcing;
mod finders;
mod guide_snippets;
mod history;
mod http;
mod interceptors;
mod maintenance;
mod mapping;
mod operations;
mod process_managers;
mod projections_snippets;
mod projector;
mod rebuild;
mod runbook;
mod schemas;
mod sealed_fields;
mod specification_snippets;
mod tamper_evidence;
mod tenancy;
mod tuning;
mod units_of_work;

// user code
use cqrs_core::{
    Aggregate, DomainEvent, Entity, Envelope, Id, ReadModel, ReadModels, Repository,
    RequestContext, Result, Root, RowProjection, Store, TenantId, UnitOfWork, repository,
};
use cqrs_sqlx::SqliteStore;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
enum OrderEvent {
    Placed { customer: String },
    Paid,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "orders", event = OrderEvent, tenant, audit)]
struct Order {
    #[aggregate(id)]
    id: Id<Order>,
    #[aggregate(root)]
    root: Root<OrderEvent>,
    customer: String,
    paid: bool,
}

impl Order {
    fn place(customer: &str) -> Self {
        let (mut root, customer) = (Root::new(), customer.to_owned());
        root.raise(OrderEvent::Placed {
            customer: customer.clone(),
        });
        Self {
            id: Id::new(),
            root,
            customer,
            paid: false,
        }
    }

    fn pay(&mut self) {
        if !self.paid {
            self.paid = true;
            self.root.raise(OrderEvent::Paid);
        }
    }
}

#[repository]
trait Orders: Repository<Order> {
    #[find(!paid, order_by(created_at.asc()))]
    async fn find_unpaid(&mut self, limit: u32) -> Result<Vec<Order>>;

    #[find(customer == name && !paid)]
    async fn count_unpaid_of(&mut self, name: &str) -> Result<u64>;
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "order_list", tenant)]
struct OrderRow {
    #[read_model(key)]
    id: Id<Order>,
    customer: String,
    paid: bool,
}

struct OrderList;

impl RowProjection for OrderList {
    type Event = OrderEvent;
    type Row = OrderRow;
    const NAME: &'static str = "order_list";

    fn key(&self, event: &Envelope<OrderEvent>) -> Result<Option<Id<Order>>> {
        Ok(Some(event.aggregate_id()?))
    }

    fn apply(&self, row: &mut Option<OrderRow>, event: &Envelope<OrderEvent>) -> Result<()> {
        match event.payload() {
            OrderEvent::Placed { customer } => {
                let (id, customer, paid) = (event.aggregate_id()?, customer.clone(), false);
                *row = Some(OrderRow { id, customer, paid });
            }
            OrderEvent::Paid => row.iter_mut().for_each(|row| row.paid = true),
        }
        Ok(())
    }
}

async fn pay<U: UnitOfWork>(uow: &mut U, id: Id<Order>) -> Result<()> {
    let mut order = uow.get::<Order>(id).await?;
    order.pay();
    uow.save(order)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    let tables = [Order::table(), OrderRow::table()];
    store.create_tables(&tables).await?;
    let _projector = store.projector().rows(OrderList).start().await?;

    let ctx = RequestContext::tenant(TenantId::new("north")?).with_actor("kim");
    let order = Order::place("Ada");
    let id = order.id;
    let placed = store.execute(&ctx, async |uow| uow.save(order.clone()));
    assert_eq!(placed.await?.events().len(), 1);
    let receipt = store.execute(&ctx, async |uow| pay(uow, id).await).await?;

    store.wait_for(&receipt, OrderList::NAME).await?;
    let row = store.read_models(&ctx).find::<OrderRow>(id).await?;
    assert!(row.is_some_and(|row| row.customer == "Ada" && row.paid));
    Ok(())
}
// end of user code

#[test]
fn the_example_runs() {
    main().expect("the example runs");
}

const SOURCES: &[&str] = &[
    include_str!("guide_example.rs"),
    include_str!("api_map.rs"),
    include_str!("audit.rs"),
    include_str!("backup.rs"),
    include_str!("consistency.rs"),
    include_str!("deployment.rs"),
    include_str!("finders.rs"),
    include_str!("guide_snippets.rs"),
    include_str!("history.rs"),
    include_str!("http.rs"),
    include_str!("interceptors.rs"),
    include_str!("maintenance.rs"),
    include_str!("mapping.rs"),
    include_str!("operations.rs"),
    include_str!("process_managers.rs"),
    include_str!("projector.rs"),
    include_str!("rebuild.rs"),
    include_str!("runbook.rs"),
    include_str!("schemas.rs"),
    include_str!("projections_snippets.rs"),
    include_str!("sealed_fields.rs"),
    include_str!("specification_snippets.rs"),
    include_str!("tamper_evidence.rs"),
    include_str!("tenancy.rs"),
    include_str!("tuning.rs"),
    include_str!("units_of_work.rs"),
    include_str!("event_sets.rs"),
    include_str!("event_sourcing.rs"),
];
const GUIDE: &str = include_str!("guide.md");
const AUDIT: &str = include_str!("audit.md");
const BACKUP: &str = include_str!("backup.md");
const CACHING: &str = include_str!("caching.md");
const CONSISTENCY: &str = include_str!("consistency.md");
const DEPLOYMENT: &str = include_str!("deployment.md");
const EVENT_SOURCING: &str = include_str!("event-sourcing.md");
const FINDERS: &str = include_str!("finders.md");
const HISTORY: &str = include_str!("history.md");
const HTTP: &str = include_str!("http.md");
const INTERCEPTORS: &str = include_str!("interceptors.md");
const MAINTENANCE: &str = include_str!("maintenance.md");
const OPERATIONS: &str = include_str!("operations.md");
const MAPPING: &str = include_str!("mapping.md");
const PROCESS_MANAGERS: &str = include_str!("process-managers.md");
const PROJECTOR: &str = include_str!("projector.md");
const REBUILD: &str = include_str!("rebuild.md");
const RUNBOOK: &str = include_str!("runbook.md");
const SCHEMAS: &str = include_str!("schemas.md");
const PROJECTIONS: &str = include_str!("projections.md");
const SEALED_FIELDS: &str = include_str!("sealed-fields.md");
const SPECIFICATION: &str = include_str!("specification.md");
const TAMPER_EVIDENCE: &str = include_str!("tamper-evidence.md");
const TENANCY: &str = include_str!("tenancy.md");
const TUNING: &str = include_str!("tuning.md");
const UNITS_OF_WORK: &str = include_str!("units-of-work.md");
const README: &str = include_str!("../README.md");

/// The lines without what stands around them: the guide may indent in another way.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).collect()
}

#[test]
fn the_example_is_short_and_the_guide_says_how_short() {
    let (_, code) = SOURCES[0]
        .split_once("// user code\n")
        .expect("a first marker");
    let (code, _) = code
        .split_once("// end of user code\n")
        .expect("a last marker");
    let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//");
    let count = lines(code).iter().filter(|line| is_code(line)).count();
    assert!(count < 100, "{count} lines");
    assert!(
        GUIDE.contains(&format!("```rust\n{code}```\n")),
        "the guide has the example"
    );
    let said = format!("{count} lines");
    assert!(GUIDE.contains(&said), "the guide says {said}");
    assert!(README.contains(&said), "the readme says {said}");
}

#[test]
fn every_rust_block_is_compiled() {
    let sources: Vec<_> = SOURCES.iter().map(|source| lines(source)).collect();
    let blocks = [
        GUIDE,
        AUDIT,
        BACKUP,
        CACHING,
        CONSISTENCY,
        DEPLOYMENT,
        EVENT_SOURCING,
        FINDERS,
        HISTORY,
        HTTP,
        INTERCEPTORS,
        MAINTENANCE,
        OPERATIONS,
        MAPPING,
        PROCESS_MANAGERS,
        PROJECTOR,
        REBUILD,
        RUNBOOK,
        SCHEMAS,
        PROJECTIONS,
        SEALED_FIELDS,
        SPECIFICATION,
        TAMPER_EVIDENCE,
        TENANCY,
        TUNING,
        UNITS_OF_WORK,
        README,
    ]
    .map(|page| page.split("```rust\n").skip(1));
    for block in blocks.into_iter().flatten() {
        let (block, _) = block.split_once("```\n").expect("the block ends");
        let wanted = lines(block);
        let is_compiled =
            |source: &Vec<&str>| source.windows(wanted.len()).any(|window| window == wanted);
        assert!(
            sources.iter().any(is_compiled),
            "this is not compiled:\n{block}"
        );
    }
}
